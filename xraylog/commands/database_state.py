"""For --dry-run: everything that a run reads from the database before it stores a line, in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from xraylog import hints
from xraylog.accesslog import installation, offline_buffer
from xraylog.accesslog.logfile import Log
from xraylog.accesslog.offline_buffer import Buffer
from xraylog.commands.gap import Finder, Gap
from xraylog.config import Config
from xraylog.database import partitions, positions, references, schema, session
from xraylog.database.positions import Owner, Position, TailAt
from xraylog.database.session import Connection, Unavailable, Unsuitable
from xraylog.ingest import buffer_import, comparison, confirmation, continuation
from xraylog.ingest.source import tail_unless_overwritten
from xraylog.maintenance import expired
from xraylog.records import Origin


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


def ask(cfg: Config, logs: Sequence[Log], buffer: Buffer) -> DatabaseState | DatabaseDown:
    """Return what the database says, or why it cannot be used. Changes nothing."""
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
    found = schema.inspect(conn)
    if found.misfits:
        raise Unsuitable("; ".join(found.misfits))
    if found.migrating:
        raise schema.Migrating(schema.MIGRATING)
    places = _Places(conn, cfg, found)
    waiting, gaps = places.of_buffer(buffer, logs)
    return DatabaseState(
        server=_server(conn, found.missing),
        stored={log.path: position for log in logs if (position := places.of_log(log)) is not None},
        bounds=partitions.read_bounds(conn) if "logs" not in found.missing else [],
        waiting=waiting,
        copied=comparison.describe_copy(cfg, places.state) if places.is_copy else "",
        gaps=gaps,
        old=[] if found.missing or not cfg.keep_days else list(_old(conn, cfg.keep_days)),
    )


def _server(conn: Connection, missing: Sequence[str]) -> str:
    server = f"PostgreSQL {conn.info.parameter_status('server_version')}, {conn.info.dbname}"
    return f"{server}; {', '.join(missing)} would be created" if missing else server


class _Places:
    """How far logs are stored, as a run would find it."""

    def __init__(self, conn: Connection, cfg: Config, found: schema.Findings) -> None:
        self.state = installation.read(cfg.buffer_path)
        self._conn = conn
        self._cfg = cfg
        self._has_positions = not {"nodes", "log_positions"} & {*found.missing}
        self._has_tails = ("log_positions", "tail") not in found.missing_columns
        self.is_copy = self._has_positions and self._has_tails and confirmation.is_copy(conn, cfg, self.state)
        new = Owner(installation.Installation().owner_id, is_new=False)
        self._owner = new if self.is_copy else confirmation.owner(self.state)

    def of_log(self, log: Log) -> Position | None:
        """Return how far a log is stored; None in a database without positions."""
        origin = offline_buffer.origin(self._cfg.node, log)
        position = self._find(origin, tail_unless_overwritten(log), log)
        if position is None or not self._has_tails:
            return position
        return continuation.find(self._conn, self._cfg, log, position)

    def of_buffer(self, buffer: Buffer, logs: Sequence[Log]) -> tuple[BufferCounts, Sequence[Gap]]:
        """Return what an import would do with the lines of the buffer, and which lines before them are missing."""
        waiting, gaps = Counter[str](), Finder()
        imported = self._imported(buffer)
        for stored in () if buffer.is_empty else buffer.batches(lambda digest, _end: digest in imported):
            if (batch := stored.batch) is None:
                continue
            lines, position = batch.lines, self._find(stored.origin, buffer_import.text_of(stored, logs))
            gaps.add(stored, position)
            if position is not None and not stored.origin.again:
                batch = batch.outside([(0, position.offset), *((span.start, span.end) for span in position.later)])
            unparsed = len(batch.numbered_bad_lines)
            waiting.update(rows=len(batch.records), rejected=unparsed, stored=lines - batch.stored)
        return BufferCounts(**waiting), gaps.found

    def _imported(self, buffer: Buffer) -> set[bytes]:
        """Return the digests of batches that were imported before."""
        if buffer.is_empty or not self._has_positions:
            return set()
        node_id = references.known_node(self._conn, buffer.node)
        return set() if node_id is None else positions.imported_batches(self._conn, node_id)

    def _find(self, origin: Origin, tail_at: TailAt, log: Log | None = None) -> Position | None:
        """Return how far the log with this origin is stored. `log`: the log itself, if it is open."""
        if not self._has_positions:
            return None
        node_id = references.known_node(self._conn, origin.node) or 0  # if it is new, it may have had another name
        size = positions.UNKNOWN_SIZE if log is None else log.max_offset
        found = positions.lookup(self._conn, node_id, origin, size=size, owner=self._owner, tail_at=tail_at)
        if self.is_copy:
            found = replace(found, offset=max(found.offset, confirmation.stored_in(self.state, origin, log)))
        return found


def _old(conn: Connection, days: int) -> Iterator[tuple[str, bool]]:
    """Yield what retention would do, and whether the operator must act."""
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
