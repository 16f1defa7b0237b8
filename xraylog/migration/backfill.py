"""Steps 3 to 6 of the migration: copy the rows of each day into a partition of its own, one transaction a day.

A day that has a partition has been copied.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from datetime import date

from psycopg import errors
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from xraylog.database import partitions, session
from xraylog.database.capabilities import Capabilities
from xraylog.database.session import Connection, Unsuitable
from xraylog.migration import blockers, day_counts, old_table, recreate, state, swap
from xraylog.migration.day_counts import DayCounts
from xraylog.migration.old_table import DAY_INDEX, OldTable
from xraylog.migration.progress import CopyResult, Progress
from xraylog.migration.state import State

MIN_CORRELATION = 0.9  # of the timestamp with the physical order of rows: from here on, a BRIN index finds a day


def resume(conn: Connection) -> tuple[OldTable, DayCounts]:
    """Resume a started migration: return the old table and its rows per day, which no longer change.

    Raises Unsuitable if rows that cannot be migrated were stored after the check, before the table was renamed.
    """
    with state.step(conn) as migration:
        conn.execute(state.set_lock_timeout(state.LONG_LOCK_TIMEOUT))
        old = old_table.describe(conn, "logs_old", migration.zone)
        blockers.raise_without_rights(old)
        if not migration.recorded:  # an older version of the script started it, without the table xraylog_migration
            state.run_all(conn, swap.record_state(old, migration.state is State.FINISHED, migration.sequence_type))
        _ensure_day_index(conn, old)
        old = old_table.describe(conn, "logs_old", migration.zone)
        counts = day_counts.count(conn, old)
        reasons = list(blockers.row_blockers(conn, old, counts) if counts else day_counts.unreadable(conn, old))
        if counts is None or reasons:
            raise Unsuitable("; ".join([*reasons, "then continue, or go back with --undo"]))
        return old, counts


def _ensure_day_index(conn: Connection, old: OldTable) -> None:
    """Create an index that finds the rows of a day; without one, each day would need to read the whole table."""
    if has_day_index(old):
        return
    conn.execute("ANALYZE logs_old")
    row = conn.execute(CORRELATION, [old.schema]).fetchone()
    method = "brin" if row is not None and abs(row[0] or 0) >= MIN_CORRELATION else "btree"
    conn.execute(create_day_index(old, method))
    if not old.has_zone:
        conn.execute("ANALYZE logs_old")  # an expression has statistics only if an index on it exists


CORRELATION = """
    SELECT correlation FROM pg_stats WHERE schemaname = %s AND tablename = 'logs_old' AND attname = 'timestamp'
"""


def has_day_index(old: OldTable) -> bool:
    """Return whether the old table has an index that finds the rows of a day."""
    return any(
        index.name == DAY_INDEX
        or (old.has_zone and index.valid and not index.partial and index.columns[0] == "timestamp")
        for index in old.indexes
        if index.definition.startswith(("btree", "brin"))
    )


def create_day_index(old: OldTable, method: str) -> Composed:
    """Return the DDL of our index that finds the rows of a day; `method` is brin or btree."""
    return SQL("CREATE INDEX {} ON logs_old USING {} ({})").format(
        Identifier(DAY_INDEX),
        SQL(method),
        SQL("({})").format(old.utc_timestamp) if not old.has_zone else old.utc_timestamp,
    )


def pending_days(conn: Connection, dates: Sequence[date]) -> list[date]:
    """Return the days of the old table that have not been copied, the newest first, because people ask for these.

    The list is empty if the migration is finished: a day that is missing then has been dropped since.
    """
    with state.step(conn) as migration:
        return days_without_partition(conn, dates) if migration.state is State.UNFINISHED else []


def days_without_partition(conn: Connection, dates: Sequence[date]) -> list[date]:
    """Return the days that have no partition yet, the newest first. Call it in a transaction."""
    bounds = partitions.read_bounds(conn)
    return [day for day in reversed(dates) if partitions.gaps(str(day), bounds)]


def copy_day(conn: Connection, old: OldTable, day: date, progress: Progress) -> CopyResult:
    """Copy a day's rows into a partition, in one transaction. Do nothing if another session has copied them.

    Raises Unsuitable if only the operator can fix why the server refuses it.
    """
    with state.step(conn) as migration:
        if migration.state is State.FINISHED or not partitions.gaps(str(day), partitions.read_bounds(conn)):
            return CopyResult()
        state.run_all(conn, swap.set_tablespace(old))
        clock = [time.monotonic()]
        try:
            create, insert, *others, attach = copy_statements(conn, old, day)
            conn.execute(create)
            rows = conn.execute(insert).rowcount
            clock.append(time.monotonic())
            state.run_all(conn, others)
            clock.append(time.monotonic())
            state.retry(progress, state.run_in_savepoint, conn, attach)
        except (
            errors.DuplicateTable,
            errors.DuplicateObject,
        ) as error:  # created after trial.prepare checked the names
            raise Unsuitable(
                f"{day}: its partition cannot be created: {session.message(error)}; "
                f"rename what has its name, and continue, or go back with --undo"
            ) from error
        except errors.InsufficientPrivilege as error:
            raise Unsuitable(
                f"{day}: it cannot be copied: {session.message(error)}; "
                f"grant this role what it needs, and continue, or go back with --undo"
            ) from error
        except (errors.ProgrammingError, errors.DataError, errors.IntegrityError) as error:
            raise Unsuitable(
                f"{day}: its rows cannot be copied: {session.message(error)}; "
                f"correct them in logs_old and continue, or go back with --undo"
            ) from error
        clock.append(time.monotonic())
    return CopyResult(rows, *(end - start for start, end in itertools.pairwise(clock)))


def day_script(conn: Connection, old: OldTable, day: date) -> list[Composed]:
    """Return all statements of a day's transaction."""
    return [
        *state.session_settings(conn),
        state.set_search_path(old.search_path),
        *swap.set_tablespace(old),
        *copy_statements(conn, old, day),
    ]


def copy_statements(
    conn: Connection,
    old: OldTable,
    day: date,
    source: str = "logs_old",
    parent: str = "logs",
    limit: int | None = None,
) -> Iterator[Composed]:
    """Yield the SQL of one day: CREATE TABLE, INSERT, then owner, keys and indexes, ATTACH. `limit`: of rows."""
    low, high = partitions.day_bounds(str(day))
    name = partitions.partition_name(str(day), low, high) if parent == "logs" else f"{parent}_day"
    server = Capabilities.of(conn)
    yield partitions.create_standalone(name, parent, server)
    columns = [column for column in old.columns if not column.generated]
    yield SQL("INSERT INTO {} ({})\nSELECT {}\nFROM {}\nWHERE {}{}").format(
        Identifier(name),
        SQL(", ").join(Identifier(column.name) for column in columns),
        SQL(", ").join(old.select_expression(column) for column in columns),
        Identifier(source),
        in_day(old.utc_timestamp, day),
        SQL("") if limit is None else SQL("\nLIMIT {}").format(Literal(limit)),
    )
    yield from swap.set_owner(old, name)
    if not server.keys_on_partitioned:
        yield from recreate.keys(old, name, named=False)
    yield from recreate.indexes(old, name, named=False)
    yield partitions.attach(name, parent, low, high)


def in_day(utc_timestamp: Composable, day: date) -> Composed:
    """Return the condition that a time is in this UTC day."""
    low, high = partitions.day_bounds(str(day))
    return SQL("{moment} >= {low} AND {moment} < {high}").format(
        moment=utc_timestamp, low=partitions.moment(low), high=partitions.moment(high)
    )
