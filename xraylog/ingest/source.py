"""One log of a run: its batches, how far the database has confirmed it, and how stored lines leave it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path

from loguru import logger

from xraylog import hints, safe_open
from xraylog.accesslog import discovery, drain, offline_buffer, reading
from xraylog.accesslog.archive import Archive, Piped
from xraylog.accesslog.dns_answers import DnsAnswers
from xraylog.accesslog.drain import Drained
from xraylog.accesslog.grammar import AHEAD, EARLIEST
from xraylog.accesslog.installation import StoredLog
from xraylog.accesslog.logfile import Log, LogFile, path_text
from xraylog.accesslog.parser import PREFIXED
from xraylog.accesslog.stray_days import STRAY
from xraylog.cli import Options
from xraylog.config import Config
from xraylog.database import positions
from xraylog.database.positions import Position, PositionUpdate, Range
from xraylog.ingest import last_minutes, log_checks
from xraylog.ingest.new_users import EmailSample
from xraylog.ingest.run_counts import RunCounts
from xraylog.records import DAY, Batch, Fingerprint, Origin

# Lines of which the first is logged, by the beginning of their reason; and what to do when they are right.
ODD_LINES = {PREFIXED: "", STRAY: "; if their dates are right: raise [parser] stray_days, then --replay-rejected"}
EMPTY = Fingerprint(0, hashlib.sha256().digest())  # of an empty file


class Source:
    """A log and how far it is stored. What the loader asks of it is `loading.batch_source.BatchSource`."""

    def __init__(self, log: Log, cfg: Config, options: Options) -> None:
        self.log = log
        self.cfg = cfg
        self.options = options
        self.stored_to: int | None = None  # offset up to which the database has its lines; None: it has not answered
        self.confirmed_to = 0  # of those, up to where it has confirmed them: a failover may lose the others
        self.later: tuple[Range, ...] = ()  # what the database has after lines that it has not
        self.sample = EmailSample()
        self.counts = RunCounts() if cfg.metrics_path else None
        self.dns = DnsAnswers(cfg.zone, EARLIEST, datetime.now(timezone.utc) + AHEAD) if cfg.dns_answers else None
        self._counted_to = 0
        self.minutes: dict[int, str] = {}  # of the last line of each batch, in UTC, by the offset at which it ends
        self.is_stored = False  # every line is in the database, and the log is drained
        self.has_odd_times = False  # and a warning says why
        self._drained: Drained | None = None  # what an attempt in this run came to

    @property
    def node(self) -> str:
        """The node whose log it is."""
        return self.cfg.node

    @property
    def again(self) -> bool:
        """Return whether to store lines whatever was stored. Not once the database counts from 0: then it knows."""
        return self.options.again and self.stored_to is None

    @property
    def origin(self) -> Origin:
        """What a batch of this log, as it is now, will be recognised by."""
        return offline_buffer.origin(self.node, self.log, self.again)

    @property
    def has_new_lines(self) -> bool:
        """Return whether there may be a line to read, as far as the file alone can tell."""
        return not (self.log.is_empty or (self.log.is_drained() and not self.options.again))

    @property
    def is_drainable(self) -> bool:
        """Return whether its lines leave the log when they are stored or buffered."""
        return isinstance(self.log, LogFile) and self.log.writable and not self.options.keep

    @property
    def safe_to(self) -> int:
        """The offset up to which lines need not go to the buffer.

        A standby that takes the place of the database may lack what nobody has confirmed: what leaves the log, then,
        is in the buffer, too. The import skips what the database has.
        """
        return self.confirmed_to if self.is_drainable else self.stored_to or 0

    def batches(self, offset: int) -> Iterator[Batch]:
        """Yield batches of the lines from `offset` on, without those that the database has."""
        for batch in self._read(offset, positions.gaps(offset, self.later, None)):
            self.sample.add(batch.records)
            if self.counts and batch.start >= self._counted_to:  # a part of the log may be read once more
                self.counts.add(batch.records)
                self._counted_to = batch.end
            if self.dns is not None:
                self.dns.add(batch)
            yield batch
            del batch  # before the next one is read: one in memory, not two

    def unconfirmed_batches(self, offset: int) -> Iterator[Batch]:
        """Yield batches of the lines from `offset` on that the database has stored, but has not confirmed."""
        return self._read(offset, positions.gaps(offset, (), max(offset, self.stored_to or 0)))

    def batches_between(self, begin: int, end: int) -> Iterator[Batch]:
        """Yield batches of what is still in the log of these bytes."""
        return (batch for batch in self._read(begin, [(begin, end)]) if batch.records or batch.bad_lines)

    def _read(self, offset: int, parts: Iterable[tuple[int, int | None]]) -> Iterator[Batch]:
        after = self.minutes.get(offset) or ("" if self.again else last_minutes.before(self.cfg, self.log, offset))
        for batch in read(self.log, self.cfg, parts, after, None if self.again else self._last_day()):
            if batch.records:
                self.minutes[batch.end] = batch.records.minutes[-1]
            yield batch
            del batch  # before the next one is read: one in memory, not two

    def position_update(self, position: Position, offset: int) -> PositionUpdate:
        """Return the move of the log's position to `offset`; the lines before it are on disk by then."""
        return position_update(self.log, position, offset)

    def position_updates(self, position: Position, offset: int) -> list[PositionUpdate]:
        """Return this move alone."""
        return [self.position_update(position, offset)]

    def _last_day(self) -> date | None:
        return last_minutes.day_before(self.cfg, self.log)

    def remember(self, offset: int) -> None:
        """Let the next run know what follows `offset`, where stored lines end now; the day of the last line, and its
        time where the hour is repeated.
        """
        if isinstance(self.log, LogFile):
            log_checks.remember_unread(self.cfg, self.log, self.log.size if self.log.replaced else offset)
        if self.minutes:
            last_minutes.remember(self.cfg, self.log, offset, self.minutes[max(self.minutes)])
            last_minutes.remember_day(self.cfg, self.log, date.fromisoformat(max(self.minutes.values())[:DAY]))

    def drain(self, offset: int) -> Drained | None:
        """Take the lines before `offset`, which are stored, out of the log; log why not, and return None then."""
        if (log := self._drainable(offset)) is None:
            return None
        if self._drained is not None and self._drained.offset == offset:
            return self._drained  # the position could not follow: another mark would not know the file's first one
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
        """Truncate the log to `leave` bytes if all of it, `offset` bytes, is drained; return whether it was."""
        return isinstance(self.log, LogFile) and drain.truncate_if_drained(
            self.log, offset, self.cfg.truncate_above, leave
        )

    def stored_log(self, offset: int) -> StoredLog | None:
        """Return the place up to which the log is stored, as the state remembers it; None for what never changes."""
        if not isinstance(self.log, LogFile | Piped) or not offset:
            return None
        length, digest = self.log.fingerprint(offset)
        return StoredLog(path_text(self.log.path), offset, length, digest.hex(), self.log.tail(offset).hex())

    def is_copy(self, position: Position, head: Fingerprint) -> bool:
        """Return whether `position` is that of another file, which is still there and begins with `head`, too."""
        this = self.log if isinstance(self.log, LogFile) else None
        return position.known_path != position.source and discovery.begins_with(
            Path(position.known_path), head, but=this
        )

    def _drainable(self, offset: int) -> LogFile | None:
        """Return the log if it is to be drained. Log why it is not, and where reading stopped early."""
        log = self.log
        if log.corruption:
            rest = hints.command(self.cfg, "--logfile", "COPY")
            what = f"{log.path}: {log.corruption}; its lines up to byte {offset} are stored"
            logger.error("{}; if there is a whole copy, the rest is loaded by: {}", what, rest)
        elif log.has_partial_last_line and not isinstance(log, LogFile):
            logger.warning("{}: its last line has no end, and is left out; a later copy brings it", log.path)
        if not isinstance(log, LogFile):
            return None
        if log.replaced:
            logger.warning("{}", log_checks.describe_lost_bytes(self.cfg, log, offset))
        elif not log.writable and not self.options.keep:
            mend = hints.to_drain(log.path, self.cfg)
            logger.warning("{} may not be written: its lines are stored, remembered and left there; {}", log.path, mend)
        return None if self.options.keep or log.replaced or not log.writable else log


@dataclass(frozen=True, slots=True)
class Gap:
    """Lines of a log that the database lacks, although it has later ones: a BatchSource of its own."""

    log: Log
    cfg: Config
    end: int  # offset
    later: tuple[Range, ...]  # what the database has before `end`

    def batches(self, offset: int) -> Iterator[Batch]:
        """Yield batches of the missing lines from `offset` on."""
        return read(self.log, self.cfg, positions.gaps(offset, self.later, self.end))

    def position_update(self, position: Position, offset: int) -> PositionUpdate:
        """Return the move of the log's position to `offset`; the lines before it are on disk by then."""
        return position_update(self.log, position, offset)

    def position_updates(self, position: Position, offset: int) -> list[PositionUpdate]:
        """Return this move alone."""
        return [self.position_update(position, offset)]


def position_update(log: Log, position: Position, offset: int) -> PositionUpdate:
    """Return the move of a log's position to `offset`, when the lines before it are on disk."""
    log.sync()
    return PositionUpdate(position, offset, log.fingerprint(offset), tail_of(log, offset))


def tail_of(log: Log, offset: int) -> bytes | None:
    """Return what the text before `offset` is known by; None for an archive, which would be decompressed once more."""
    return None if isinstance(log, Archive) else log.tail(offset)


def read(
    log: Log, cfg: Config, parts: Iterable[tuple[int, int | None]], after: str = "", last_day: date | None = None
) -> Iterator[Batch]:
    """Yield batches of the lines in these parts of a log; warn once of each thing that is odd about many lines.

    `after`: the minute of the line before them, in UTC, where it is known; `last_day`: the latest one before them.
    """
    warned = set()
    for batch in reading.batches(log, list(parts), cfg, datetime.now(timezone.utc), after, last_day):
        yield batch
        for at, bad in batch.bad_lines:
            logger.debug("{}, byte {}: {}", log.path, at, bad.reason)
            for kind, to_do in ODD_LINES.items():
                if kind not in warned and bad.reason.startswith(kind):
                    said = f"{bad.reason}; such lines go to rejected_lines{to_do}"
                    logger.warning("{}, byte {}: {}", log.path, at, said)
                    warned.add(kind)
        del batch  # before the next one is read: one in memory, not two


def with_new_lines(cfg: Config, options: Options, paths: Sequence[Path], logs: Sequence[Log]) -> list[Source]:
    """Return a source for each log that may have new lines; log which have none, and which `paths` have no log."""
    found = {log.path for log in logs}
    for path in paths:
        if path not in found:
            if options.logfiles:
                logger.warning("{}: expected a log, found none", path)
            elif os.path.isdir(safe_open.without_links(path).parent):  # otherwise an error at the end names it
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
