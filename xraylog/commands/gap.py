"""For --dry-run: lines before those in the buffer that the database lacks. A run loads them first if a log has them."""

from __future__ import annotations

from dataclasses import dataclass

from xraylog.accesslog.offline_buffer import BufferedBatch
from xraylog.database import positions
from xraylog.database.positions import Position, Range
from xraylog.ingest import buffered_log
from xraylog.records import Origin


@dataclass(frozen=True, slots=True)
class Gap:
    """The ranges of a log that the database lacks before a batch of the buffer."""

    origin: Origin
    end: int  # offset in the log, where the batch begins
    parts: tuple[tuple[int, int], ...]  # bytes


class Finder:
    """Finds the gaps that an import would find. An import moves positions; here, batches seen count as stored."""

    def __init__(self) -> None:
        self.found: list[Gap] = []
        self._seen: list[tuple[BufferedBatch, int]] = []  # each with the offset from where on its log is stored then

    def add(self, stored: BufferedBatch, position: Position | None) -> None:
        """Add the next batch. `position`: how far the database has stored its log."""
        if stored.origin.again:
            return
        offset, later = (position.offset, position.later) if position else (0, ())
        seen = [Range(0, begin, batch.log_end) for batch, begin in self._seen if buffered_log.is_one_log(batch, stored)]
        known = sorted([*later, *seen], key=lambda found: found[1:])
        parts = [(begin, end) for begin, end in positions.gaps(offset, known, stored.after) if end is not None]
        is_before_it = bool(parts) and parts[-1][1] == stored.after
        if is_before_it:
            self.found.append(Gap(stored.origin, stored.after, tuple(parts)))
        self._seen.append((stored, parts[0][0] if is_before_it else stored.after))
