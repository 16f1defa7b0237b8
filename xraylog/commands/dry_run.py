"""--dry-run: what a run would do with each log and with the buffer, counted by kind of line.

Reads logs, buffer and database. Changes nothing, and takes no lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timezone
from pathlib import Path

from xraylog import hints
from xraylog.accesslog import discovery, drain, installation, lockfile, offline_buffer, reading
from xraylog.accesslog.logfile import Log, LogFile, path_text
from xraylog.accesslog.offline_buffer import Buffer
from xraylog.commands.gap import Finder, Gap
from xraylog.config import Config
from xraylog.database import partitions, positions, references, schema, session
from xraylog.database.positions import Owner, Position, Range, TailAt
from xraylog.database.session import Connection, Unavailable, Unsuitable
from xraylog.ingest import buffer_import, comparison, confirmation, continuation, last_minutes
from xraylog.ingest.source import tail_unless_overwritten
from xraylog.maintenance import expired
from xraylog.printed import say
from xraylog.records import Batch, Fingerprint, Origin

MAX_REASONS = 5
MAX_DAYS = 31


@dataclass(frozen=True, slots=True)
class BufferCounts:
    """The contents of the buffer, counted."""

    rows: int = 0
    rejected: int = 0
    stored: int = 0  # lines that the database has already


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """What a run would find in the database now."""

    server: str
    stored: Mapping[Path, Position] = field(default_factory=dict)  # of each log that is known
    bounds: Sequence[tuple[float, float]] = ()  # of the partitions, seconds since 1970
    waiting: BufferCounts = BufferCounts()
    copied: str = ""  # that this installation is a copy, which gets positions of its own
    gaps: Sequence[Gap] = ()  # before the lines of the buffer
    old: Sequence[tuple[str, bool]] = ()  # what retention would do, and whether the operator must act


@dataclass(frozen=True, slots=True)
class DatabaseDown:
    """Why the database cannot be used."""

    reason: str
    operator: bool  # the operator must act
    to_do: str


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
        lines = database_and_buffer(cfg, buffer, known := ask(cfg, logs, buffer))
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


# --- what the database says ----------------------------------------------------------------------------------


def ask(cfg: Config, logs: Sequence[Log], buffer: Buffer) -> DatabaseState | DatabaseDown:
    """Return everything a run reads from the database before it stores a line, in one read-only transaction."""
    try:
        with session.connect(cfg.connection, answer_timeout_s=cfg.answer_timeout_s) as conn:
            conn.read_only = True
            with session.transaction(conn):
                return _inspect(conn, cfg, logs, buffer)
    except Unavailable as error:
        return DatabaseDown(f"not available: {error}", operator=False, to_do=hints.on(error, cfg))
    except (Unsuitable, offline_buffer.Damaged) as error:
        return DatabaseDown(str(error), operator=True, to_do=hints.on(error, cfg))


def _inspect(conn: Connection, cfg: Config, logs: Sequence[Log], buffer: Buffer) -> DatabaseState:
    server = f"PostgreSQL {conn.info.parameter_status('server_version')}, {conn.info.dbname}"
    found = schema.inspect(conn)
    if found.misfits:
        raise Unsuitable("; ".join(found.misfits))
    if found.migrating:
        raise schema.Migrating(schema.MIGRATING)
    if found.missing:
        server += f"; {', '.join(found.missing)} would be created"
    has_positions = not {"nodes", "log_positions"} & {*found.missing}

    has_tails = ("log_positions", "tail") not in found.missing_columns
    known = installation.read(cfg.buffer_path)
    copied = has_positions and has_tails and confirmation.is_copy(conn, cfg, known)
    owner = Owner(installation.Installation().owner_id, is_new=False) if copied else confirmation.owner(known)

    def position(origin: Origin, tail_at: TailAt, log: Log | None = None) -> Position | None:
        if not has_positions:
            return None
        node_id = references.known_node(conn, origin.node) or 0  # if it is new, it may have had another name
        size = positions.UNKNOWN_SIZE if log is None else log.max_offset
        there = positions.lookup(conn, node_id, origin, size=size, owner=owner, tail_at=tail_at)
        if copied:
            there = replace(there, offset=max(there.offset, confirmation.stored_in(known, origin, log)))
        return there if log is None or not has_tails else continuation.find(conn, cfg, log, there)

    node_id = references.known_node(conn, buffer.node) if has_positions and not buffer.is_empty else None
    imported = set() if node_id is None else positions.imported_batches(conn, node_id)
    waiting, gaps = Counter[str](), Finder()
    for stored in () if buffer.is_empty else buffer.batches(lambda digest, _end: digest in imported):
        origin, batch = stored.origin, stored.batch
        if batch is None:
            continue
        lines, there = batch.lines, position(origin, buffer_import.text_of(stored, logs))
        gaps.add(stored, there)
        if not origin.again and there:
            batch = batch.outside([(0, there.offset), *((found.start, found.end) for found in there.later)])
        waiting.update(
            rows=len(batch.records),
            rejected=len(batch.numbered_bad_lines),
            stored=lines - batch.stored,
        )
    return DatabaseState(
        server,
        {
            log.path: there
            for log in logs
            if (there := position(offline_buffer.origin(cfg.node, log), tail_unless_overwritten(log), log))
        },
        partitions.read_bounds(conn) if "logs" not in found.missing else [],
        BufferCounts(**waiting),
        comparison.describe_copy(cfg, known) if copied else "",
        gaps.found,
        [] if found.missing or not cfg.keep_days else list(_old(conn, cfg.keep_days)),
    )


def _old(conn: Connection, days: int) -> Iterator[tuple[str, bool]]:
    now = datetime.now(timezone.utc)
    for table in expired.tables(conn, days, now):
        if table.is_foreign:
            yield f"retention: {table} stays: a foreign table", False
        elif table.is_ours:
            yield f"retention: {table} would be dropped", False
        else:
            yield f"retention: {table} stays: it belongs to {table.owner}", True
    if count := expired.count_unparsed_lines(conn, days, now):
        yield f"retention: {count} lines of rejected_lines would be removed", False
    if count := expired.count_dns_names(conn, days, now):
        yield f"retention: {count} names of dns_names would be removed", False


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
