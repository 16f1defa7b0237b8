"""For --dry-run: lines before those in the buffer that the database lacks. A run loads them first if a log has them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from xraylog.accesslog import discovery
from xraylog.accesslog.logfile import Log
from xraylog.accesslog.offline_buffer import BufferedBatch
from xraylog.database import positions
from xraylog.database.positions import Position, Range
from xraylog.ingest import buffer_import, buffered_log
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


@contextlib.contextmanager
def log_with(gap: Gap, logs: Sequence[Log]) -> Iterator[Log | None]:
    """Open the log from which a run would load the gap: one of its own, or a rotated one; None if there is none."""
    head = gap.origin.fingerprint(gap.end)
    ours = (log for log in logs if head is not None and buffer_import.begins_with(log, head, gap.end))
    with contextlib.ExitStack() as files:
        log = next(ours, None)
        if log is None and head is not None:
            log = files.enter_context(discovery.copy_of(Path(gap.origin.source), head, gap.end))
        yield log
