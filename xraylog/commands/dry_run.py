"""--dry-run: what a run would do with each log and with the buffer, counted by kind of line.

Reads logs, buffer and database. Changes nothing, and takes no lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from pathlib import Path

from xraylog import hints
from xraylog.accesslog import discovery, drain, lockfile, offline_buffer, reading
from xraylog.accesslog.logfile import Log, LogFile, path_text
from xraylog.accesslog.offline_buffer import Buffer
from xraylog.commands import database_state
from xraylog.commands.database_state import DatabaseDown, DatabaseState
from xraylog.commands.gap import Gap
from xraylog.config import Config
from xraylog.database import partitions, positions
from xraylog.database.positions import Range
from xraylog.ingest import buffer_import, last_minutes
from xraylog.printed import say
from xraylog.records import Batch, Fingerprint

MAX_REASONS = 5
MAX_DAYS = 31


@dataclass(slots=True)
class Counts:
    """The lines that a run would read from a log, counted."""

    end: int  # of the last line, bytes
    lines: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    days: Counter[str] = field(default_factory=Counter)  # rows of each UTC day
    reasons: Counter[str] = field(default_factory=Counter)  # of lines that would be rejected
    ignored: Counter[str] = field(default_factory=Counter)

    def add(self, batch: Batch) -> None:
        """Count one more batch."""
        self.end = batch.end
        self.lines += batch.lines
        self.actions.update(request.action for request in batch.records.requests)
        self.days.update(batch.days())
        self.reasons.update(bad.reason.partition(", found ")[0] for _, bad in batch.numbered_bad_lines)
        self.ignored.update({kind.value: count for kind, count in batch.ignored.items()})


def report(cfg: Config, paths: Sequence[Path], keep: bool, again: bool) -> bool:
    """Print what a run would do; return whether the operator must act. Raises Unusable and Damaged."""
    with (
        discovery.opened(paths, None, read_only=True) as logs,
        offline_buffer.opened(cfg.buffer_path, read_only=True) as buffer,
    ):
        discovery.refuse_buffers(cfg, logs)
        lines = database_and_buffer(cfg, buffer, known := database_state.ask(cfg, logs, buffer))
        for text in (*locked(cfg, paths), *lines):
            say(text)
        trouble = isinstance(known, DatabaseDown) and known.operator
        for gap in known.gaps if isinstance(known, DatabaseState) else ():
            text, is_trouble = describe_gap(cfg, gap, logs)
            say(text)
            trouble = trouble or is_trouble
        earlier_copies: list[tuple[Fingerprint, int]] = []  # of logs that keep their lines, with where these end
        for log in logs:
            start, later = (0, ()) if again else reached(log, known, buffer)
            start = start if again else max(start, stored_before(log, earlier_copies))
            counts = count(cfg, log, start, later)
            if keep or not isinstance(log, LogFile):
                earlier_copies.append((log.fingerprint(counts.end), counts.end))
            say(f"{path_text(log.path)}:", *(f"  {text}" for text in findings(log, start, counts, known, keep)))
            trouble = trouble or log.corruption is not None
        for path in paths:
            if path not in {log.path for log in logs}:
                say(f"{path_text(path)}: expected a log, found none")
        for text, is_trouble in known.old if isinstance(known, DatabaseState) else ():
            say(text)
            trouble = trouble or is_trouble
    say("nothing was changed")
    return trouble


# --- what it comes to ----------------------------------------------------------------------------------------


def reached(log: Log, known: DatabaseState | DatabaseDown, buffer: Buffer) -> tuple[int, tuple[Range, ...]]:
    """Return where a run would resume, and which ranges after that are stored.

    It resumes after what is stored, and after what the buffer holds, because the buffer is imported first.
    """
    there = known.stored.get(log.path) if isinstance(known, DatabaseState) else None
    offset, later = (there.offset, there.later) if there else (0, ())
    return max(offset, buffer.spooled_to(log)), later


def stored_before(log: Log, earlier_copies: Sequence[tuple[Fingerprint, int]]) -> int:
    """Return how far this run would already have stored the same log under another name."""
    known = log.fingerprints()
    return max(
        (end for head, end in earlier_copies if head in known and (log.max_offset is None or end <= log.max_offset)),
        default=0,
    )


def count(cfg: Config, log: Log, start: int, later: Sequence[Range]) -> Counts:
    """Count the lines from `start` on that are not in the stored ranges."""
    return count_parts(cfg, log, start, list(positions.gaps(start, later, None)), last_minutes.day_before(cfg, log))


def count_parts(
    cfg: Config, log: Log, start: int, parts: Sequence[tuple[int, int | None]], last_day: date | None = None
) -> Counts:
    """Count the lines in these ranges of a log; the first begins at `start`."""
    counts = Counts(start)
    after = last_minutes.before(cfg, log, start)
    for batch in reading.batches(log, [*parts], cfg, datetime.now(timezone.utc), after, last_day):
        counts.add(batch)
        del batch  # before the next one is read: one in memory, not two
    return counts


# --- how it is shown ------------------------------------------------------------------------------------------


def locked(cfg: Config, paths: Sequence[Path]) -> Iterator[str]:
    """Yield which other runs hold locks."""
    for path in (*filter(discovery.is_live, paths), cfg.buffer_path):
        if holder := lockfile.lock_holder(lockfile.lock_path(path, cfg.buffer_path.parent)):
            yield f"lock: {path_text(path)} is in use by {holder}; a run now would exit with status 75"


def database_and_buffer(cfg: Config, buffer: Buffer, known: DatabaseState | DatabaseDown) -> Iterator[str]:
    """Yield where new lines would go, and what would be imported first."""
    if isinstance(known, DatabaseDown):
        goes = f"lines would go to {path_text(cfg.buffer_path)}"
        yield f"database: {hints.joined(known.reason, goes, known.to_do)}"
        if not buffer.is_empty:
            yield f"buffer: its {buffer.size} bytes would wait"
        return
    yield f"database: {known.server}"
    if known.copied:
        yield f"state: {known.copied}; it would get positions of its own"
    waiting = known.waiting
    if not buffer.is_empty:
        lines = waiting.rows + waiting.rejected
        yield (
            f"buffer: {lines} lines would be imported first = {waiting.rows} rows + {waiting.rejected} unparsed; "
            f"{waiting.stored} more are stored already"
        )


def describe_gap(cfg: Config, gap: Gap, logs: Sequence[Log]) -> tuple[str, bool]:
    """Return what a run would do about lines missing before those in the buffer, and whether they are lost."""
    source, listed = gap.origin.source, ", ".join(f"{begin} to {end}" for begin, end in gap.parts)
    with buffer_import.opened(gap.origin, gap.end, logs) as log:
        if log is None:
            return f"missing: {source}, bytes {listed}: in no log any more, and not in this database", True
        found = count_parts(cfg, log, gap.parts[0][0], gap.parts)
        rows, rejected, ignored = found.actions.total(), found.reasons.total(), found.ignored.total()
        return (
            f"missing: {source}, bytes {listed}: this database lacks them, and they would be loaded before the buffer "
            f"from {path_text(log.path)}: {found.lines} lines = {rows} rows + {rejected} unparsed + {ignored} ignored"
        ), False


def findings(log: Log, start: int, counts: Counts, known: DatabaseState | DatabaseDown, keep: bool) -> Iterator[str]:
    """Yield what a run would do with one log."""
    rows, rejected, ignored = counts.actions.total(), counts.reasons.total(), counts.ignored.total()
    yield f"would be read from byte {start} on" if counts.lines else f"nothing new after byte {start}"
    if counts.lines:
        yield f"{counts.lines} lines = {rows} rows + {rejected} unparsed + {ignored} ignored"
    if rows:
        yield f"rows by action: {_listed(counts.actions)}"
    if rejected:
        yield f"unparsed lines by reason: {_listed(counts.reasons)}"
    if ignored:
        yield f"ignored lines by kind: {_listed(counts.ignored)}"
    yield from _days(counts.days, known)
    if log.corruption:
        yield log.corruption
    if not isinstance(log, LogFile):
        if log.has_partial_last_line:
            yield "its last line is incomplete, and would be left out"
        yield "it would stay as it is"
    elif counts.lines:
        yield _draining(log, keep)


def _draining(log: LogFile, keep: bool) -> str:
    if keep:
        return "its lines would stay there (--keep)"
    if log.replaced:
        return "it was changed while it was read: another run is at work, or another program emptied it"
    if not log.writable:
        return "its lines would stay there, because it may not be written"
    if not drain.supports_collapse(log):
        return "its lines would be taken out, or stay while another process has it open: --check says more"
    return "its lines would be taken out of it"


def _days(days: Counter[str], known: DatabaseState | DatabaseDown) -> Iterator[str]:
    for day in sorted(days)[:MAX_DAYS]:
        partition = ""
        if isinstance(known, DatabaseState):
            is_missing = partitions.gaps(day, known.bounds)
            partition = ", a partition would be created" if is_missing else ", its partition is there"
        yield f"{day}: {days[day]} rows{partition}"
    if len(days) > MAX_DAYS:
        yield f"and {len(days) - MAX_DAYS} more days, up to {max(days)}"


def _listed(counts: Counter[str]) -> str:
    shown = [f"{count} {what}" for what, count in counts.most_common(MAX_REASONS)]
    return "; ".join(shown) + (f"; {len(counts) - MAX_REASONS} more" if len(counts) > MAX_REASONS else "")
