"""Drop one expired table without blocking other sessions for long: a table in use is left for a later run.

Whether the table is expired is checked again, by its oid, in the transaction that marks or drops it. If a run is
killed, the next one finishes its work (`xraylog/database/detach.py`); two runs at the same time see in the catalog what
the other one did.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime

from psycopg import errors
from psycopg.sql import SQL

from xraylog.database import citus, detach, retry, schema, session
from xraylog.database.capabilities import Capabilities
from xraylog.database.session import Connection
from xraylog.maintenance import expired
from xraylog.maintenance.expired import ExpiredTable, Stage

# A session that waits for ACCESS EXCLUSIVE blocks later readers. Shorter than deadlock_timeout (1 s), so that in a
# deadlock retention gives up, and the server does not cancel a run that stores lines.
LOCK_TIMEOUT = "500ms"
PAUSE_S = 1.0
POLL_S = 0.1
# Errors of a statement when another session, also that of a killed run, has detached or dropped the table meanwhile.
# InternalError_ is "tuple concurrently updated".
CONCURRENT_DDL = (errors.ObjectNotInPrerequisiteState, errors.UndefinedTable, errors.InternalError_)


def drop(conn: Connection, table: ExpiredTable, cutoff: datetime) -> bool:
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
    return next((found for found in expired.tables_before(conn, cutoff, table.oid) if found.oid == table.oid), None)


@contextlib.contextmanager
def _ddl(conn: Connection) -> Iterator[None]:
    """Open a short transaction in which no other run creates, attaches or drops partitions."""
    with session.transaction(conn, schema.PARTITIONS_LOCK):
        citus.before_ddl(conn, LOCK_TIMEOUT)
        yield


def _retry(action: Callable[[], bool]) -> bool:
    """Return what `action` returns; repeat it if other sessions hold its locks: it checks the catalog each time."""
    return retry.retry_on_lock_timeout(action, session.LOCK_TIMEOUT_S, PAUSE_S, also=CONCURRENT_DDL)
