"""What the loader needs of a log: its batches, and the update of its position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from xraylog.database.positions import Position, PositionUpdate
from xraylog.records import Batch


class BatchSource(Protocol):
    """A log whose batches are loaded. It reads files by itself: the loading side opens none."""

    def batches(self, offset: int) -> Iterator[Batch]:
        """Yield batches of the lines from `offset` on, in order."""

    def position_updates(self, position: Position, offset: int) -> list[PositionUpdate]:
        """Return the update that moves the log's position to `offset`, followed by others for the same transaction.

        The lines before `offset` are on disk by then.
        """
