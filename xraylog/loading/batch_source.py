"""The log as the loader sees it: its batches, and where its position moves to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from xraylog.database.positions import Position, PositionUpdate
from xraylog.records import Batch


class BatchSource(Protocol):
    """A log whose batches are loaded. Files are its own affair: the database side opens none."""

    def batches(self, offset: int) -> Iterator[Batch]:
        """Yield batches of the lines from `offset` on, in their order."""

    def position_updates(self, position: Position, offset: int) -> list[PositionUpdate]:
        """Return the move of the log's position to `offset`, and then what else moves with it.

        The lines before `offset` are on disk by then.
        """
