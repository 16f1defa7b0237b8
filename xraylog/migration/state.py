"""Read from the catalog how far a migration is, and open the transactions of its steps.

The table `xraylog_migration` says that a migration was started, and a day that has a partition has been copied. Each
step is one transaction. So the same command, started again, resumes where it stopped.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import ParamSpec, TypeVar

from psycopg.sql import SQL, Composed, Literal

from xraylog.database import markers, migration_record, schema, session
from xraylog.database.capabilities import Capabilities
from xraylog.database.markers import MigrationMarker
from xraylog.database.retry import retry_on_lock_timeout
from xraylog.database.session import Connection, Unsuitable
from xraylog.migration.progress import Progress

# A session that waits for ACCESS EXCLUSIVE blocks all new readers. So give up after half a second, and try again.
LOCK_TIMEOUT = "500ms"
# For locks that do not block readers. Longer than deadlock_timeout, after which the server cancels an autovacuum.
LONG_LOCK_TIMEOUT = "30s"
PAUSE_S = 1.0
MAX_WAIT_S = 600.0

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class State(Enum):
    """How far a migration is."""

    NO_LOGS = "there is no table logs"
    OTHER = "logs is not a table"
    PLAIN = "logs is a plain table: nothing has been migrated"
    PARTITIONED = "logs is partitioned, and there is no logs_old of a migration"
    UNFINISHED = "the migration is not finished"
    FINISHED = "the migration is finished; logs_old is still there"
    LOST = "the migration is not finished, and its logs_old is not there"
    UNKNOWN = "logs is partitioned, and it is not recorded whether logs_old comes from a migration"
    UNDOING = "the migration was undone; the tables that it created are not dropped yet"


STARTED = (State.UNFINISHED, State.FINISHED)
CANNOT_MIGRATE = {  # why, and what to do
    State.NO_LOGS: "expected a table logs, found none in the search_path; parse_logs.py creates a partitioned one",
    State.OTHER: "logs: expected a table, found another kind; nothing was changed",
    State.LOST: f"{State.LOST.value}: its rows are in no other table, so restore or rename it back, and continue. "
    f"If they are not needed: DROP TABLE {migration_record.TABLE}",
    State.UNKNOWN: f"{State.UNKNOWN.value} (a dump without comments loses that). If it does: COMMENT ON TABLE "
    f"logs_old IS '{MigrationMarker(False, 'ZONE', 'bigint').comment}', with the zone of times that have none; "
    "then continue, or go back with --undo. If it is another table: rename it",
    State.UNDOING: f"{State.UNDOING.value}: --undo finishes that; then migrate again",
}


@dataclass(frozen=True, slots=True)
class Migration:
    """A migration as the catalog shows it."""

    state: State
    schema: str = ""  # the schema of logs
    search_path: str = ""  # begins with that schema
    zone: str = ""  # the time zone in which a started migration reads times without a zone
    sequence_type: str = "bigint"  # the type of the sequence before the migration
    recorded: bool = False  # in the table xraylog_migration, not only in a comment


STATE = f"""
    SELECT c.relkind::text, n.nspname, record.oid::regclass::text, obj_description(old.oid, 'pg_class'),
           obj_description(new.oid, 'pg_class'), old.oid IS NOT NULL, new.oid IS NOT NULL,
           (SELECT count(*) FROM pg_attribute a
            WHERE a.attrelid = old.oid AND a.attname IN ('id', 'timestamp', 'action') AND NOT a.attisdropped) = 3,
           (SELECT string_agg(quote_ident(name), ', ' ORDER BY name <> n.nspname, nr)
            FROM unnest(current_schemas(false)) WITH ORDINALITY AS path (name, nr))
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_class old ON old.relnamespace = c.relnamespace AND old.relname = 'logs_old' AND old.relkind = 'r'
    LEFT JOIN pg_class new ON new.relnamespace = c.relnamespace AND new.relname = 'logs_new' AND new.relkind = 'p'
    LEFT JOIN pg_class record ON record.relnamespace = c.relnamespace AND {migration_record.IS_OURS}
    WHERE c.relname = 'logs' AND c.relkind NOT IN ('i', 'I', 'S', 't', 'c') AND pg_table_is_visible(c.oid)
"""  # noqa: S608  # a constant


def read_state(conn: Connection) -> Migration:
    """Return the migration as the catalog shows it. Call it in a transaction.

    Raises Unsuitable if the comment on logs_old lacks what is needed to continue.
    """
    row = conn.execute(STATE).fetchone()
    if row is None:
        return Migration(State.NO_LOGS)
    kind, schema_name, table, on_old, on_new, has_old, has_new, is_like_logs, search_path = row
    record = migration_record.read(conn, table)
    if kind == "r":
        undone = has_new and markers.REVERTED_MIGRATION in (record, on_new)
        return Migration(State.UNDOING if undone else State.PLAIN, schema_name, search_path)
    if kind != "p":
        return Migration(State.OTHER, schema_name, search_path)
    marker = markers.read_migration(record or on_old)
    if marker is None:
        return Migration(State.UNKNOWN if is_like_logs else State.PARTITIONED, schema_name, search_path)
    if not has_old:
        return Migration(State.PARTITIONED if marker.is_finished else State.LOST, schema_name, search_path)
    if marker.zone is None or marker.sequence_type is None:
        expected = MigrationMarker(marker.is_finished, "ZONE", "TYPE").comment
        raise Unsuitable(
            f"logs_old: expected the comment {expected!r}, found {on_old!r}; with the zone of its days and the type of "
            f"its id: COMMENT ON TABLE logs_old IS '{expected}'"
        )
    state = State.FINISHED if marker.is_finished else State.UNFINISHED
    return Migration(state, schema_name, search_path, marker.zone, marker.sequence_type, record is not None)


def inspect(conn: Connection) -> Migration:
    """Return the migration as the catalog shows it, read in a transaction of its own."""
    with session.transaction(conn):
        return read_state(conn)


# A policy on logs or logs_old would hide the same rows from the copy and from the verification. With this setting the
# server raises an error instead.
ROW_SECURITY_OFF = "SET LOCAL row_security TO off"


class StateChanged(Exception):
    """Another session has started, finished or undone the migration in the meantime."""


@contextlib.contextmanager
def transaction(conn: Connection) -> Iterator[None]:
    """Open a transaction that may take any time; only its waits for locks are limited."""
    with conn.transaction():
        run_all(conn, session_settings(conn))
        with session.transaction(conn):
            conn.execute(ROW_SECURITY_OFF)
            yield


@contextlib.contextmanager
def step(conn: Connection, *expected: State) -> Iterator[Migration]:
    """Open the transaction of a step, with the schema of logs first in the search_path. Two scripts take turns.

    `expected`: the states in which the step may run, by default those of a started migration. Raises StateChanged if
    the migration is in another one.
    """
    with conn.transaction():
        run_all(conn, session_settings(conn))  # first, or the role's statement_timeout limits the wait for the lock
        with session.transaction(conn, schema.PARTITIONS_LOCK):
            conn.execute(ROW_SECURITY_OFF)
            conn.execute(set_lock_timeout(LOCK_TIMEOUT))
            migration = read_state(conn)
            if migration.state not in (expected or STARTED):
                raise StateChanged(migration.state.value)
            conn.execute(set_search_path(migration.search_path))
            yield migration


def session_settings(conn: Connection) -> Iterator[Composed]:
    """Yield the settings of each transaction."""
    yield set_lock_timeout(LOCK_TIMEOUT)
    yield SQL("SET LOCAL statement_timeout TO 0").format()
    yield SQL("SET LOCAL idle_in_transaction_session_timeout TO 0").format()
    if Capabilities.of(conn).transaction_timeout:
        yield SQL("SET LOCAL transaction_timeout TO 0").format()
    yield SQL("SET LOCAL extra_float_digits TO 3").format()  # checksums need exact floats: before 12 no default
    yield SQL(ROW_SECURITY_OFF).format()


def set_lock_timeout(text: str) -> Composed:
    """Return the statement that limits how long to wait for a lock; `text` has a unit."""
    return SQL("SET LOCAL lock_timeout TO {}").format(Literal(text))


def set_search_path(path: str) -> Composed:
    """Return the statement that sets the search_path; new tables are created in its first schema, that of logs."""
    return SQL("SET LOCAL search_path TO {}").format(SQL(path))


def retry(
    progress: Progress, step: Callable[Arguments, Result], *arguments: Arguments.args, **keywords: Arguments.kwargs
) -> Result:
    """Run a step; repeat it, for up to MAX_WAIT_S, while other sessions hold locks that it needs.

    The step is a transaction or a savepoint, so an attempt that failed has left nothing.
    """
    return retry_on_lock_timeout(
        functools.partial(step, *arguments, **keywords), MAX_WAIT_S, PAUSE_S, on_wait=progress.waiting
    )


def run_in_savepoint(conn: Connection, *statements: Composed) -> None:
    """Execute statements in a savepoint, so that the transaction around it survives an error."""
    with conn.transaction():
        run_all(conn, statements)


def run_all(conn: Connection, statements: Iterable[Composed]) -> None:
    """Execute statements in order."""
    for statement in statements:
        conn.execute(statement)
