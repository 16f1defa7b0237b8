"""Steps 7 and 8: advance the sequence past the largest id, compare every day in both tables, then finish."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from psycopg import errors
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from xraylog.database import migration_record, partitions, session
from xraylog.database.capabilities import Capabilities
from xraylog.database.session import Connection, Unsuitable
from xraylog.migration import backfill, old_table, state, swap
from xraylog.migration.day_counts import DayCounts
from xraylog.migration.old_table import OldTable
from xraylog.migration.progress import DayChecksums, Progress
from xraylog.migration.state import Migration, State


def advance_sequence(conn: Connection, old: OldTable, largest_id: int | None) -> tuple[str, int] | None:
    """Advance the sequence of logs.id past the largest id of the old table; return its name and the last id it gave.

    Return None if there is no sequence, or no id. Raises Unsuitable if the sequence ends before the largest id.
    """
    with state.step(conn):
        now = old_table.describe(conn, "logs", old.zone).sequence
        if now is None or largest_id is None:
            return None
        try:
            conn.execute(swap.advance_sequence(now.name, largest_id))
        except errors.NumericValueOutOfRange as error:
            raise Unsuitable(
                f"sequence {now.name}: expected one that can be moved past {largest_id}: {session.message(error)}; "
                f"ALTER SEQUENCE {now.name} NO MAXVALUE"
            ) from error
        ((last,),) = conn.execute(SQL("SELECT last_value FROM {}").format(SQL(now.name)))
        return now.name, last


WAYS_OUT = {  # what to do about a difference
    State.UNFINISHED: "nothing was dropped. To copy such a day again, detach its partition from logs, rename it, "
    "and run the same command; --undo goes back",
    State.FINISHED: "nothing was dropped. Correct these days; or, if you removed rows from logs on purpose, delete "
    "them from logs_old, too; or drop logs_old and xraylog_migration yourself; --undo goes back",
}


class ChecksumMismatch(Exception):
    """A day differs between the old table and the new one."""


def verify_and_finish(
    conn: Connection,
    old: OldTable,
    counts: DayCounts,
    drop: bool,
    progress: Progress,
) -> None:
    """Verify that every day is the same in both tables, then finish: drop the old table, or mark it as migrated.

    Runs in one transaction, in which no other session can change the old table. Raises ChecksumMismatch if a day
    differs.
    """
    with state.step(conn) as migration:
        conn.execute(state.set_lock_timeout(state.LONG_LOCK_TIMEOUT))
        conn.execute("LOCK TABLE logs_old IN SHARE MODE")
        conn.execute(state.set_lock_timeout(state.LOCK_TIMEOUT))
        different = []
        for day in counts.dates:
            # The rollback releases the locks of the day: those of thousands of days would be too many.
            with conn.transaction(force_rollback=True):
                sums = _compare(conn, old, day, counts.largest_id)
            progress.verified(sums)
            if not sums.equal:
                different.append(str(day))
        if different:
            raise ChecksumMismatch(f"logs and logs_old differ on {', '.join(different)}; {WAYS_OUT[migration.state]}")
        state.retry(progress, state.run_in_savepoint, conn, *finish_statements(old, migration, drop))


def finish_statements(old: OldTable, migration: Migration, drop: bool) -> list[Composed]:
    """Return the statements of the last step, which drop the old table, or mark its migration as finished."""
    if drop:
        return [SQL("DROP TABLE logs_old").format(), SQL(migration_record.DROP).format()]
    return list(swap.record_state(old, True, migration.sequence_type))


def _compare(conn: Connection, old: OldTable, day: date, largest_id: int | None) -> DayChecksums:
    in_old, in_new = checksum_queries(conn, old, day, largest_id, _rows_of(conn, day))
    # Sessions may have got ids in advance (CACHE), and stored new rows with smaller ids than the largest old one.
    in_both = SQL("{} AND id IN (SELECT id FROM logs_old WHERE {})").format(
        in_new, backfill.in_day(old.utc_timestamp, day)
    )
    ((old_rows, old_sum),) = conn.execute(in_old)
    for query in (in_new, in_both):
        ((new_rows, new_sum),) = conn.execute(query)
        sums = DayChecksums(day, old_rows, new_rows, int(old_sum or 0), int(new_sum or 0))
        if sums.equal:
            break
    return sums


def _rows_of(conn: Connection, day: date) -> Composable:
    """Return the table to read: the day's partition if it has the whole day, because some servers would lock all."""
    low, high = partitions.day_bounds(str(day))
    found = partitions.read_named_bounds(conn, [partitions.partition_name(str(day), low, high)])
    is_whole = not partitions.gaps(str(day), [(first, end) for _, first, end in found])
    return SQL(found[0][0]) if is_whole else LOGS


LOGS = Identifier("logs")


def checksum_queries(
    conn: Connection, old: OldTable, day: date, largest_id: int | None, new: Composable = LOGS
) -> tuple[Composed, Composed]:
    """Return the queries for the rows and the checksum of a day, in the old table and in the new one.

    `new`: the table or partition that has the new rows of that day.
    """
    missing = [SQL("NULL::{}").format(SQL(old_table.OUR_TYPES[name])) for name in old.missing_columns]
    of_old = [*(old.select_expression(column) for column in old.columns), *missing]
    of_new = [Identifier(name) for name in (*(column.name for column in old.columns), *old.missing_columns)]
    # Rows that were stored since the migration started have larger ids.
    known = SQL("{} AND id <= {}").format(backfill.in_day(Identifier("timestamp"), day), Literal(largest_id))
    return (
        checksum(conn, Identifier("logs_old"), of_old, backfill.in_day(old.utc_timestamp, day)),
        checksum(conn, new, of_new, known),
    )


def checksum(conn: Connection, table: Composable, columns: Sequence[Composable], condition: Composable) -> Composed:
    """Return the query for the number of rows, and the sum of a 64-bit hash of each row's text.

    The sum does not depend on the order of the rows.
    """
    row = SQL("ROW({})::text").format(SQL(", ").join(columns))
    hashed = (
        SQL("hashtextextended({}, 0)")
        if Capabilities.of(conn).hash_of_64_bits
        else SQL("('x' || substr(md5({}), 1, 16))::bit(64)::bigint")
    ).format(row)
    return SQL("SELECT count(*), sum({})\nFROM {}\nWHERE {}").format(hashed, table, condition)
