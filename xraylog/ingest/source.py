"""One log of a run: its batches, how far the database has it, and how stored lines are taken out of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path

from loguru import logger

from xraylog import hints, safe_path
from xraylog.accesslog import discovery, drain, offline_buffer, reading
from xraylog.accesslog.archive import Archive, Piped
from xraylog.accesslog.drain import Drained
from xraylog.accesslog.installation import StoredLog
from xraylog.accesslog.logfile import Log, LogFile, path_text
from xraylog.accesslog.parser import PREFIXED
from xraylog.accesslog.stray_days import STRAY
from xraylog.cli import Options
from xraylog.config import Config
from xraylog.database import positions
from xraylog.database.positions import Position, PositionUpdate, Range, TailAt
from xraylog.ingest import last_minutes, log_checks
from xraylog.ingest.observations import Observations
from xraylog.ingest.progress import Progress
from xraylog.records import DAY, Batch, Fingerprint, Origin

# The first bad line of each kind is logged. By the beginning of its reason; with advice for lines that are right.
ODD_LINES = {PREFIXED: "", STRAY: "; if their dates are right: raise [parser] stray_days, then --replay-rejected"}
OF_A_PIPE = {PREFIXED: "; pipe them in without it, as journalctl -o cat and docker logs without -t print them"}
EMPTY = Fingerprint(0, hashlib.sha256().digest())  # the fingerprint of an empty file


class Source:
    """A log and how far it is stored. The loader sees it as a `BatchSource` (xraylog/loading/batch_source.py)."""

    def __init__(self, log: Log, cfg: Config, options: Options) -> None:
        self.log = log
        self.cfg = cfg
        self.options = options
        self.progress = Progress()
        self.observed = Observations(cfg)
        self.is_stored = False  # whether every line is in the database, and the log has been drained
        self.has_odd_times = False  # whether a warning said that the times in the log cannot be right
        self._minutes: dict[int, str] = {}  # UTC minute of each batch's last line, by the batch's end offset
        self._drained: Drained | None = None  # the result of the last attempt to drain it

    @property
    def node(self) -> str:
        """The node that the log belongs to."""
        return self.cfg.node

    @property
    def again(self) -> bool:
        """Return whether --again applies: store lines even if they are stored. Not once the position was reset to 0."""
        return self.options.again and not self.progress.is_known

    @property
    def origin(self) -> Origin:
        """What a batch read from the log now will be recognised by."""
        return offline_buffer.origin(self.node, self.log, self.again)

    @property
    def has_new_lines(self) -> bool:
        """Return whether the log may have lines to read, as far as the file alone shows."""
        return not (self.log.is_empty or (self.log.is_drained() and not self.options.again))

    @property
    def is_drainable(self) -> bool:
        """Return whether lines are taken out of the log once they are stored or buffered."""
        return isinstance(self.log, LogFile) and self.log.writable and not self.options.keep

    @property
    def safe_to(self) -> int:
        """The offset up to which lines need not go to the buffer.

        If the log is drained, this is only as far as the database has confirmed: a standby that takes over may lack the
        rest. Lines that are both buffered and stored do no harm, because the import skips what the database has.
        """
        return self.progress.confirmed_to if self.is_drainable else self.progress.stored_to

    def batches(self, offset: int) -> Iterator[Batch]:
        """Yield batches of the lines from `offset` on, except those that are stored."""
        for batch in self._read(offset, positions.gaps(offset, self.progress.later, None)):
            self.observed.add(batch)
            yield batch
            del batch  # before the next one is read: one in memory, not two

    def unconfirmed_batches(self, offset: int) -> Iterator[Batch]:
        """Yield batches of the lines from `offset` on that are stored but not yet confirmed."""
        return self._read(offset, positions.gaps(offset, (), max(offset, self.progress.stored_to)))

    def batches_between(self, begin: int, end: int) -> Iterator[Batch]:
        """Yield batches of the lines that the log still has between these offsets."""
        return (batch for batch in self._read(begin, [(begin, end)]) if batch.records or batch.bad_lines)

    def _read(self, offset: int, parts: Iterable[tuple[int, int | None]]) -> Iterator[Batch]:
        minute = self._minutes.get(offset) or ("" if self.again else last_minutes.before(self.cfg, self.log, offset))
        for batch in read(self.log, self.cfg, parts, minute, None if self.again else self._last_day()):
            if batch.records:
                self._minutes[batch.end] = batch.records.minutes[-1]
            yield batch
            del batch  # before the next one is read: one in memory, not two

    def position_updates(self, position: Position, offset: int) -> list[PositionUpdate]:
        """Return the one update that moves the log's position to `offset`."""
        return [position_update(self.log, position, offset)]

    def _last_day(self) -> date | None:
        return last_minutes.day_before(self.cfg, self.log)

    def remember(self, offset: int) -> None:
        """Write to the state file what the next run needs once the lines before `offset` have left the log.

        That is: how many bytes were not stored, the latest day, and the last line's minute if its hour is repeated.
        """
        if isinstance(self.log, LogFile):
            log_checks.remember_unread(self.cfg, self.log, self.log.size if self.log.replaced else offset)
        if self._minutes:
            last_minutes.remember(self.cfg, self.log, offset, self._minutes[max(self._minutes)])
            last_minutes.remember_day(self.cfg, self.log, date.fromisoformat(max(self._minutes.values())[:DAY]))

    def drain(self, offset: int) -> Drained | None:
        """Take the stored lines before `offset` out of the log. If that is not possible, log why and return None."""
        if (log := self._drainable(offset)) is None:
            return None
        if self._drained is not None and self._drained.offset == offset:
            return self._drained  # the database went away before the position moved: keep that mark
        try:
            drained = drain.drain(log, offset, self.cfg.truncate_above)
        except drain.Replaced:
            logger.warning("{}", log_checks.describe_lost_bytes(self.cfg, log, offset))
            return None
        if drained.unsupported:
            logger.info("{}: this file system cannot drain a log that is open elsewhere; its lines stay", log.path)
            return None
        self._drained = drained
        return drained

    def truncate(self, offset: int, leave: int = 0) -> bool:
        """Truncate the log to `leave` bytes if it holds nothing but `offset` drained bytes; return whether it did."""
        return isinstance(self.log, LogFile) and drain.truncate_if_drained(
            self.log, offset, self.cfg.truncate_above, leave
        )

    def stored_log(self, offset: int) -> StoredLog | None:
        """Return how far the log is stored, as the state file keeps it; None for an archive, and for nothing."""
        if not isinstance(self.log, LogFile | Piped) or not offset:
            return None
        length, digest = self.log.fingerprint(offset)
        return StoredLog(path_text(self.log.path), offset, length, digest.hex(), self.log.tail(offset).hex())

    def is_copy(self, position: Position, head: Fingerprint) -> bool:
        """Return whether `position` belongs to another file that still exists and has the same beginning, `head`."""
        this = self.log if isinstance(self.log, LogFile) else None
        return position.known_path != position.source and discovery.begins_with(
            Path(position.known_path), head, excluded=this
        )

    def _drainable(self, offset: int) -> LogFile | None:
        """Return the log if it is to be drained. Otherwise log why not; also log where reading stopped early."""
        log = self.log
        if log.corruption:
            rest = hints.command(self.cfg, "--logfile", "COPY")
            what = f"{log.path}: {log.corruption}; its lines up to byte {offset} are stored"
            logger.error("{}; if there is a whole copy, the rest is loaded by: {}", what, rest)
        elif log.has_partial_last_line and not isinstance(log, LogFile):
            logger.warning("{}: its last line is incomplete, and is left out; a later copy has all of it", log.path)
        if not isinstance(log, LogFile):
            return None
        if log.replaced:
            logger.warning("{}", log_checks.describe_lost_bytes(self.cfg, log, offset))
        elif not log.writable and not self.options.keep:
            fix = hints.to_drain(log.path, self.cfg)
            logger.warning("{} is not writable: its lines are stored, but stay in it; {}", log.path, fix)
        if self.options.keep or log.replaced or not log.writable:
            return None
        if log.has_left_its_path:  # a program that compresses it now would keep lines that nobody recognises
            logger.info("{}: was renamed or removed during this run; its lines stay in it", log.path)
            return None
        return log


@dataclass(frozen=True, slots=True)
class Gap:
    """A range of a log that the database lacks, although it has later lines. A BatchSource of its own."""

    log: Log
    cfg: Config
    end: int  # offset
    later: tuple[Range, ...]  # stored ranges before `end`

    def batches(self, offset: int) -> Iterator[Batch]:
        """Yield batches of the missing lines from `offset` on."""
        return read(self.log, self.cfg, positions.gaps(offset, self.later, self.end))

    def position_updates(self, position: Position, offset: int) -> list[PositionUpdate]:
        """Return the one update that moves the log's position to `offset`."""
        return [position_update(self.log, position, offset)]


def position_update(log: Log, position: Position, offset: int) -> PositionUpdate:
    """Flush the lines before `offset` to disk; return the update that moves the log's position there."""
    log.sync()
    return PositionUpdate(position, offset, log.fingerprint(offset), tail_of(log, offset))


def tail_unless_overwritten(log: Log) -> TailAt:
    """Return a function that digests the log's text before an offset, if no drain that was cut short overwrote it."""

    def tail_at(offset: int) -> bytes:
        return positions.NO_TEXT if drain.was_cut_short(log, offset) else log.tail(offset)

    return tail_at


def tail_of(log: Log, offset: int) -> bytes | None:
    """Return the digest of the text before `offset`; None for an archive, which would have to be decompressed again."""
    return None if isinstance(log, Archive) else log.tail(offset)


def read(
    log: Log, cfg: Config, parts: Iterable[tuple[int, int | None]], last_minute: str = "", last_day: date | None = None
) -> Iterator[Batch]:
    """Yield batches of the lines in these parts of a log; warn once of each kind in ODD_LINES.

    `last_minute`: the UTC minute of the line before the first part, "" if unknown. `last_day`: the latest day of the
    lines that have left the log.
    """
    warned = set()
    odd_lines = ODD_LINES | (OF_A_PIPE if isinstance(log, Piped) else {})
    for batch in reading.batches(log, list(parts), cfg, datetime.now(timezone.utc), last_minute, last_day):
        yield batch
        for at, bad in batch.bad_lines:
            logger.debug("{}, byte {}: {}", log.path, at, bad.reason)
            for kind, to_do in odd_lines.items():
                if kind not in warned and bad.reason.startswith(kind):
                    said = f"{bad.reason}; such lines go to rejected_lines{to_do}"
                    logger.warning("{}, byte {}: {}", log.path, at, said)
                    warned.add(kind)
        del batch  # before the next one is read: one in memory, not two


def with_new_lines(cfg: Config, options: Options, paths: Sequence[Path], logs: Sequence[Log]) -> list[Source]:
    """Return a source for each log that may have new lines. Log which have none, and which paths have no log."""
    discovery.refuse_buffers(cfg, logs)
    found = {log.path for log in logs}
    for path in paths:
        if path not in found:
            if options.logfiles:
                logger.warning("{}: expected a log, found none", path)
            elif os.path.isdir(safe_path.without_links(path).parent):  # otherwise an error at the end names it
                log_checks.report_absent(cfg, path)
        elif not options.logfiles:
            log_checks.report_present(cfg, path)
    sources = [Source(log, cfg, options) for log in logs]
    for source in sources:
        if not source.has_new_lines:
            logger.info("{}: nothing new", source.log.path)
        elif isinstance(source.log, LogFile):
            source.has_odd_times = log_checks.report_times(cfg, source.log)
    return [source for source in sources if source.has_new_lines]
