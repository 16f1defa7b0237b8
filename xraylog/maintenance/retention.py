"""Remove what is older than `[retention] days`: partitions of `logs`, unparsed lines, and unused names.

A partition is dropped as a whole, if its upper bound in the catalog is not after the first moment that is kept. This is
checked again, by the table's oid, in the transaction that marks or drops it. If a run is killed, the next one finishes
its work (`xraylog/database/detach.py`); two runs at the same time see in the catalog what the other one did. Other
sessions are never blocked for long: a table in use is left for a later run.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

import psycopg
from psycopg import errors
from psycopg.sql import SQL

from xraylog.database import citus, detach, dns_names, interference, markers, partitions, retry, schema, session
from xraylog.database.capabilities import Capabilities
from xraylog.database.session import Connection, Unavailable, Unsuitable
from xraylog.maintenance import prune

MAX_ATTEMPTS = 5  # to read the catalog while other sessions drop days, each in milliseconds
# A session that waits for ACCESS EXCLUSIVE blocks later readers. Shorter than deadlock_timeout (1 s), so that in a
# deadlock retention gives up, and the server does not cancel a run that stores lines.
LOCK_TIMEOUT = "500ms"
PAUSE_S = 1.0
MAX_DROPPING_S = 60  # dropping thousands of forged days would delay the next lines by a quarter of an hour
POLL_S = 0.1
AS_OWNER = "as their owner, or a superuser of PostgreSQL: "
CHUNK_ROWS = 10_000  # deleted in one transaction
NAMES = "unused names"
GRANTS = {  # what this role needs for each part, in addition to owning the tables that are dropped
    "rejected_lines": ("SELECT, DELETE ON rejected_lines",),
    "dns_names": ("SELECT, DELETE ON dns_names",),
    NAMES: (f"SELECT, DELETE ON {', '.join(prune.TABLES)}", "SELECT ON logs, nodes"),
}
# Errors of a statement when another session, also that of a killed run, has detached or dropped the table meanwhile.
# InternalError_ is "tuple concurrently updated".
CONCURRENT_DDL = (errors.ObjectNotInPrerequisiteState, errors.UndefinedTable, errors.InternalError_)


class Stage(Enum):
    """How far the removal of a table is."""

    ATTACHED = "a partition"
    PENDING = "half detached"
    DETACHED = "detached"


@dataclass(frozen=True, slots=True)
class ExpiredTable:
    """A table that is to be dropped."""

    oid: int
    name: str  # quoted, with the schema if needed
    bounds: str  # as the catalog writes them, in UTC; empty for a detached table, which has none
    stage: Stage
    owner: str  # a role, quoted
    is_ours: bool  # this role may drop it
    is_foreign: bool  # it is a foreign table, or has one among its own partitions

    def __str__(self) -> str:
        return f"{self.name} ({self.bounds or 'detached before'})"


# Uses the earlier of two clocks, ours and the server's: one that is fast must not empty the database.
CUTOFF = """
    SELECT (date_trunc('day', least(%s, now()) AT TIME ZONE 'UTC') - make_interval(days => %s)) AT TIME ZONE 'UTC'
"""

# DEFAULT and MAXVALUE give no upper bound, so such partitions never expire. A lower bound of MINVALUE does not matter.
# A pending partition without our comment is left to the session that detaches it.
EXPIRED = """
    WITH RECURSIVE direct AS (
        SELECT c.oid, c.relowner, pg_get_expr(c.relpartbound, c.oid) AS bounds,
               coalesce((to_jsonb(i) ->> 'inhdetachpending')::boolean, false) AS is_pending,
               coalesce(obj_description(c.oid, 'pg_class') = %(mark)s, false) AS is_marked
        FROM pg_inherits i
        JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'logs'::regclass AND (%(oid)s::oid IS NULL OR c.oid = %(oid)s::oid)
    ), expired AS (
        SELECT * FROM direct
        WHERE substring(bounds FROM 'TO \\(''([^'']*)''\\)')::timestamptz <= %(cutoff)s
          AND (is_marked OR NOT is_pending)
    ), part (root, oid) AS (
        SELECT oid, oid FROM expired
        UNION ALL
        SELECT root, inhrelid FROM pg_inherits JOIN part ON part.oid = inhparent
    )
    SELECT oid, oid::regclass::text, replace(bounds, 'FOR VALUES ', ''), is_pending,
           quote_ident(pg_get_userbyid(relowner)), pg_has_role(relowner, 'USAGE'),
           EXISTS (SELECT FROM part JOIN pg_class c ON c.oid = part.oid WHERE root = expired.oid AND c.relkind = 'f')
    FROM expired
    ORDER BY is_pending DESC, substring(bounds FROM 'TO \\(''([^'']*)''\\)')::timestamptz
"""


def to_drop(conn: Connection, days: int, now: datetime) -> list[ExpiredTable]:
    """Return the tables that a run at `now` would drop, the oldest first. Changes nothing."""
    with session.transaction(conn):
        if reason_to_wait(conn) is not None:
            return []
        return _expired(conn, cutoff_at(conn, days, now))


def rejected_to_drop(conn: Connection, days: int, now: datetime) -> int:
    """Return how many unparsed lines a run at `now` would remove. Changes nothing."""
    with session.transaction(conn):
        if reason_to_wait(conn) is not None:
            return 0
        ((count,),) = conn.execute(
            "SELECT count(*) FROM rejected_lines WHERE rejected_at < %s", [cutoff_at(conn, days, now)]
        )
        return int(count)


def dns_names_to_drop(conn: Connection, days: int, now: datetime) -> int:
    """Return how many names of addresses a run at `now` would remove. Changes nothing."""
    with session.transaction(conn):
        return 0 if reason_to_wait(conn) is not None else dns_names.expired(conn, cutoff_at(conn, days, now))


def enforce(conn: Connection, days: int, now: datetime, prune_names: bool) -> Iterator[str]:
    """Drop what has expired; yield a message for each thing done.

    Raises Unavailable if other sessions hold locks for too long; and, at the end, Unsuitable with what there is to fix.
    """
    reason, cutoff, found = _read_state(conn, days, now)
    if reason is not None:
        yield f"nothing old is dropped: {reason}"
        return
    trouble = list(_not_ours(conn, found))
    dropped, deadline = 0, time.monotonic() + MAX_DROPPING_S
    for number, table in enumerate(found):
        if dropped and time.monotonic() > deadline:
            yield f"{len(found) - number} more tables from before {cutoff:%Y-%m-%d} are left for the next runs"
            prune_names = False  # it reads all of logs, so only the run that drops the last table does it
            break
        if table.is_foreign:
            yield f"{table}: is a foreign table, or has one in it, and is not dropped"
        elif table.is_ours:
            with _collect_errors(conn, table.name, trouble, table.oid):
                if _drop(conn, table, cutoff):
                    dropped += 1
                    yield f"{table} is dropped: rows from before {cutoff:%Y-%m-%d} are not kept"
    with _collect_errors(conn, "rejected_lines", trouble):
        if removed := _remove_rejected(conn, cutoff):
            yield f"rejected_lines: {removed} lines from before {cutoff:%Y-%m-%d} are removed"
    with _collect_errors(conn, "dns_names", trouble):
        if removed := _remove_dns_names(conn, cutoff):
            yield f"dns_names: {removed} names from before {cutoff:%Y-%m-%d} are removed"
    if dropped and prune_names:
        with _collect_errors(conn, NAMES, trouble):
            # While prune reads all of logs, no partition could be created.
            partitions.Partitions(conn).ensure([f"{now:%Y-%m-%d}"])
            yield from prune.remove(conn)
    if trouble:
        raise Unsuitable("; ".join(trouble))


def _read_state(conn: Connection, days: int, now: datetime) -> tuple[str | None, datetime, list[ExpiredTable]]:
    """Return why nothing may be dropped (or None), the first moment that is kept, and the expired tables.

    Tries again if another session drops a table meanwhile, because pg_get_expr of PostgreSQL 10 then raises an internal
    error.
    """

    def read() -> tuple[str | None, datetime, list[ExpiredTable]]:
        with session.transaction(conn):
            reason = reason_to_wait(conn)
            cutoff = cutoff_at(conn, days, now)
            return reason, cutoff, _expired(conn, cutoff) if reason is None else []

    for _ in range(MAX_ATTEMPTS - 1):
        with contextlib.suppress(errors.InternalError_):
            return read()
    return read()


@contextlib.contextmanager
def _collect_errors(conn: Connection, what: str, trouble: list[str], oid: int | None = None) -> Iterator[None]:
    """Add an error in the block to `trouble`, so that it does not stop the rest; raise Unavailable for a temporary one.

    `what`: where it happened, for the message. `oid`: of the table to be dropped, if it is one.
    """
    try:
        yield
    except Unsuitable as error:
        trouble.append(str(error))
    except psycopg.Error as error:
        message = f"{what}: {session.message(error)}"
        if conn.broken or session.is_temporary(error):
            raise Unavailable(message) from error
        with session.transaction(conn):
            statements = interference.culprits(conn, error)
            if oid is not None and isinstance(error, errors.DependentObjectsStillExist):
                statements += interference.dependents(conn, [oid])
            if isinstance(error, errors.InsufficientPrivilege):
                ((role,),) = conn.execute("SELECT quote_ident(current_user)")
                statements += [f"GRANT {right} TO {role}" for right in GRANTS.get(what, ())]
        way_out = f"{AS_OWNER}{'; '.join(statements)}" if statements else ""
        detail = (error.diag.message_detail or "").replace("\n", ", ")
        trouble.append("; ".join(filter(None, (message, detail, way_out))))


def _not_ours(conn: Connection, found: Iterable[ExpiredTable]) -> Iterator[str]:
    """Yield a complaint for each other role that owns expired tables."""
    tables: dict[str, list[str]] = {}
    for table in found:
        if not table.is_ours:
            tables.setdefault(table.owner, []).append(table.name)
    for owner, names in tables.items():
        ((role,),) = conn.execute("SELECT quote_ident(current_user)")
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield (
            f"{names[0]}{more}: expected tables that {role} may drop, found those of {owner}; "
            f"ALTER TABLE … OWNER TO {role}, or GRANT {owner} TO {role}"
        )


def reason_to_wait(conn: Connection) -> str | None:
    """Return why nothing may be dropped from `logs` now; None if it may. Call it in a transaction."""
    found = schema.inspect(conn)
    if found.misfits:
        return found.misfits[0]
    if "logs" not in found.tables or "rejected_lines" not in found.tables:
        return "the tables do not exist yet"
    if found.has_old:
        return "logs_old of a migration still exists, and has to be compared with logs before anything is dropped"
    return None


def cutoff_at(conn: Connection, days: int, now: datetime) -> datetime:
    """Return the start of the UTC day that is `days` days before that of `now`. Call it in a transaction."""
    ((moment,),) = conn.execute(CUTOFF, [now, days])
    return moment  # type: ignore[no-any-return]


def _expired(conn: Connection, cutoff: datetime, oid: int | None = None) -> list[ExpiredTable]:
    """Return the tables that killed runs left detached, then the expired partitions: all, or the one of this oid."""
    found = [
        ExpiredTable(oid, name, bounds, Stage.PENDING if pending else Stage.ATTACHED, owner, ours, foreign)
        for oid, name, bounds, pending, owner, ours, foreign in conn.execute(
            EXPIRED, {"cutoff": cutoff, "mark": markers.EXPIRED, "oid": oid}
        )
    ]
    left = [table for table in detach.pending_drops(conn) if not table.is_pending]
    return [ExpiredTable(table.oid, table.sql, "", Stage.DETACHED, "", True, False) for table in left] + found


def _drop(conn: Connection, table: ExpiredTable, cutoff: datetime) -> bool:
    """Detach and drop the table; return False if another session did."""
    if table.stage is Stage.ATTACHED:
        _wait_for_users(conn)
        if _mark(conn, table, cutoff):
            _detach(conn, table)
    return _retry(lambda: _drop_now(conn, table, cutoff))


def _mark(conn: Connection, table: ExpiredTable, cutoff: datetime) -> bool:
    """Mark the partition for dropping; return False if it cannot be detached CONCURRENTLY, which Citus refuses."""
    if not Capabilities.of(conn).detach_concurrently:
        return False

    def mark() -> bool:
        with _ddl(conn):
            current = _recheck(conn, table, cutoff)
            ((is_possible,),) = conn.execute(MAY_DETACH)
            if current is None or current.stage is not Stage.ATTACHED or not is_possible or citus.has_logs(conn):
                return False
            conn.execute(detach.mark(current.name))
            return True

    return _retry(mark)


# CONCURRENTLY works only without a DEFAULT partition, for one partition at a time, and for the owner of logs. A role
# that owns only the partition may still drop it.
MAY_DETACH = """
    SELECT NOT EXISTS (
        SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'logs'::regclass
          AND (pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT' OR (to_jsonb(i) ->> 'inhdetachpending')::boolean))
      AND (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'logs'::regclass)
"""


def _detach(conn: Connection, table: ExpiredTable) -> None:
    """Detach the partition CONCURRENTLY, outside of a transaction. SET LOCAL has no effect there: a timer limits it.

    `_drop_now` finds in the catalog what was left half done, and what another session did meanwhile.
    """
    timer = threading.Timer(session.LOCK_TIMEOUT_S, conn.cancel)
    timer.start()
    try:
        with contextlib.suppress(*CONCURRENT_DDL):
            conn.execute(detach.detach(table.name))
    finally:
        timer.cancel()
        timer.join()


def _wait_for_users(conn: Connection) -> None:
    """Wait until all transactions that use `logs` now have ended. Raise LockNotAvailable if that takes too long.

    Nothing has been changed yet. Otherwise DETACH … CONCURRENTLY would wait for them with the partition already hidden,
    and DROP would block other sessions.
    """
    deadline = time.monotonic() + session.LOCK_TIMEOUT_S
    using = _users(conn)
    while using := using & _users(conn):
        if time.monotonic() > deadline:
            raise errors.LockNotAvailable(f"a transaction has used logs for more than {session.LOCK_TIMEOUT_S} s")
        time.sleep(POLL_S)


USERS = """
    SELECT virtualtransaction FROM pg_locks
    WHERE locktype = 'relation' AND relation = 'logs'::regclass AND granted AND pid IS DISTINCT FROM pg_backend_pid()
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def _users(conn: Connection) -> set[str]:
    """Return the ids of the transactions that have a lock on `logs`."""
    with session.transaction(conn):
        return {transaction for (transaction,) in conn.execute(USERS)}


def _drop_now(conn: Connection, table: ExpiredTable, cutoff: datetime) -> bool:
    with _ddl(conn):
        current = _recheck(conn, table, cutoff)
        if current is None or (table.stage is Stage.DETACHED and _has_kept_rows(conn, table, cutoff)):
            return False
        if current.stage is Stage.PENDING:
            conn.execute(detach.finalize(current.name))
        conn.execute(detach.drop(current.name))
        return True


def _has_kept_rows(conn: Connection, table: ExpiredTable, cutoff: datetime) -> bool:
    """Return whether a detached table, which has no bounds any more, has a row that is not expired."""
    query = SQL('SELECT EXISTS (SELECT 1 FROM {} WHERE "timestamp" >= %s)').format(SQL(table.name))
    ((has,),) = conn.execute(query, [cutoff])
    return bool(has)


def _recheck(conn: Connection, table: ExpiredTable, cutoff: datetime) -> ExpiredTable | None:
    """Return the table as it is now; None if it no longer exists, or is no longer to be dropped."""
    return next((found for found in _expired(conn, cutoff, table.oid) if found.oid == table.oid), None)


@contextlib.contextmanager
def _ddl(conn: Connection) -> Iterator[None]:
    """Open a short transaction in which no other run creates, attaches or drops partitions."""
    with session.transaction(conn, schema.PARTITIONS_LOCK):
        citus.before_ddl(conn, LOCK_TIMEOUT)
        yield


def _retry(action: Callable[[], bool]) -> bool:
    """Return what `action` returns; repeat it if other sessions hold its locks. It checks again what there is to do."""
    return retry.retry_on_lock_timeout(action, session.LOCK_TIMEOUT_S, PAUSE_S, also=CONCURRENT_DDL)


# By ctid, because a table created by hand may have no id.
REMOVE_REJECTED = """
    DELETE FROM rejected_lines
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM rejected_lines WHERE rejected_at < %s LIMIT %s))
"""


def _remove_rejected(conn: Connection, cutoff: datetime) -> int:
    return _remove_chunks(conn, lambda limit: conn.execute(REMOVE_REJECTED, [cutoff, limit]).rowcount)


def _remove_dns_names(conn: Connection, cutoff: datetime) -> int:
    with session.transaction(conn):
        if not dns_names.expired(conn, cutoff):
            return 0
    return _remove_chunks(conn, lambda limit: dns_names.remove(conn, cutoff, limit))


def _remove_chunks(conn: Connection, remove: Callable[[int], int]) -> int:
    """Delete rows, a limited number in each transaction, which so holds locks only briefly; return how many."""
    removed = 0
    while True:
        with session.transaction(conn):
            count = remove(CHUNK_ROWS)
        removed += count
        if count < CHUNK_ROWS:
            return removed
