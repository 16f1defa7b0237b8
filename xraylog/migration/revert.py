"""--undo: rename `logs_old` back to `logs`, and drop what the migration created."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import NamedTuple

from psycopg import errors
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from xraylog.database import markers, migration_record, partitions
from xraylog.database.session import Connection, Unsuitable
from xraylog.migration import blockers, old_table, state, swap
from xraylog.migration.old_table import DAY_INDEX, Column, OldTable
from xraylog.migration.state import State

MAX_VALUES = {"smallint": 2**15 - 1, "integer": 2**31 - 1}
UNDONE_PREFIX = "xraylog_undone"  # for new names of the new table's indexes: the old table gets the old names back
FIRST_TIME, LAST_TIME = (datetime(year, 1, 2, tzinfo=timezone.utc).timestamp() for year in (1, 9999))


@dataclass(frozen=True, slots=True)
class RowsAtRisk:
    """What an undo would lose."""

    rows: int  # the number of rows of logs that the old table does not have
    first: str | None  # their first time, as the server writes it: Python may not have such a year
    last: str | None
    last_id: int | None  # the last id that the sequence gave
    columns: str  # of the old table, for COPY
    values: str  # SQL for these columns, read from logs
    lost_columns: tuple[str, ...]  # columns of logs that the old table does not have


def rows_at_risk(conn: Connection) -> tuple[OldTable, RowsAtRisk]:
    """Return the old table, and what an undo would lose. Raises Unsuitable if something prevents the undo.

    Reads one partition at a time, because a query of all may need more locks than the server has room for.
    """
    with state.step(conn) as migration:
        old = old_table.describe(conn, "logs_old", migration.zone)
        blockers.raise_without_rights(old)
        if reasons := list(blockers.dependents(conn, "logs")):
            raise Unsuitable("; ".join([*reasons, "nothing was changed"]))
        columns = [column for column in old.columns if not column.generated]
        names = SQL(", ").join(Identifier(column.name) for column in columns).as_string(conn)
        values = SQL(", ").join(_as_old(old, column) for column in columns).as_string(conn)
        last_id = _last_settled_id(conn)
        found = _new_rows(conn, old)
        first = min(new.first for new in found).text if found else None
        last = max(new.last for new in found).text if found else None
        rows = sum(new.rows for new in found)
        return old, RowsAtRisk(rows, first, last, last_id, names, values, tuple(old.missing_columns))


def _as_old(old: OldTable, column: Column) -> Composable:
    """Return SQL that reads a column of logs as the old table has it: a time without a zone is in the old table's zone.

    COPY into a column without a zone would ignore a zone in the text.
    """
    name = Identifier(column.name)
    if column.name != "timestamp" or old.has_zone:
        return name
    return SQL("{} AT TIME ZONE {} AS {}").format(name, Literal(old.zone), name)


class Time(NamedTuple):
    """The time of a row."""

    seconds: float  # since 1970
    text: str  # as the server writes it


class NewRows(NamedTuple):
    """The rows of a partition that the old table does not have."""

    rows: int
    first: Time
    last: Time


def _new_rows(conn: Connection, old: OldTable) -> list[NewRows]:
    """Return the new rows of each partition that has some.

    Compares with the old rows of the partition's days only, which an index finds. So a row that an UPDATE has moved to
    another day counts, too.
    """
    found = []
    for name, in_bounds in _partitions(conn, old):
        with conn.transaction(force_rollback=True):  # the rollback releases the locks of the partition
            ((rows, *ends),) = conn.execute(SQL(NEW_ROWS).format(SQL(name), in_bounds))
        if rows:
            found.append(NewRows(rows, Time(*ends[:2]), Time(*ends[2:])))
    return found


NEW_ROWS = """
    SELECT rows, extract(epoch FROM first)::float8, first::text, extract(epoch FROM last)::float8, last::text
    FROM (SELECT count(*) AS rows, min("timestamp") AS first, max("timestamp") AS last
          FROM {} l
          WHERE NOT EXISTS (SELECT FROM (SELECT id FROM logs_old WHERE {}) o WHERE o.id = l.id)) AS new_rows
"""


PARTITIONS = """
    SELECT c.oid::regclass::text, pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT'
    FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = %s::regclass
    ORDER BY c.relname
    LIMIT %s
"""


def _partitions(conn: Connection, old: OldTable) -> Iterator[tuple[str, Composable]]:
    """Yield the quoted name of each partition of logs, and the condition for the rows of logs_old that belong to it."""
    moment = old.utc_timestamp
    for name, low, high in partitions.read_named_bounds(conn):
        above = SQL("{} >= {}").format(moment, partitions.moment(low)) if FIRST_TIME < low < LAST_TIME else SQL("true")
        below = SQL("{} < {}").format(moment, partitions.moment(high)) if FIRST_TIME < high < LAST_TIME else SQL("true")
        yield name, SQL("{} AND {}").format(above, below)
    for name, is_default in conn.execute(PARTITIONS, ["logs", None]):
        if is_default:
            yield name, SQL("true")


def from_rows_at_risk(risk: RowsAtRisk) -> str:
    """Return what follows FROM in a query of the rows at risk, for psql. It locks only the days that have some.

    It does not compare with the largest id, because a session that got its ids in advance (CACHE) may store smaller
    ones later.
    """
    return (
        f"logs l WHERE l.\"timestamp\" BETWEEN '{risk.first}' AND '{risk.last}' "
        "AND NOT EXISTS (SELECT FROM logs_old o WHERE o.id = l.id)"
    )


def _last_id(conn: Connection) -> int | None:
    sequence = old_table.describe(conn, "logs", "").sequence
    if sequence is None:
        return None
    row = conn.execute(SQL("SELECT last_value FROM {} WHERE is_called").format(SQL(sequence.name))).fetchone()
    return int(row[0]) if row else None


def _last_settled_id(conn: Connection) -> int | None:
    """Return the last id that the sequence gave, at a moment when no transaction has ids for rows that nobody sees yet.

    Such rows would be in no report, and the id would not show later that they came. A run that attaches a day holds the
    lock of this step; one that copies into `logs` has locked that table. The rollback lets both go on.
    """
    with conn.transaction(force_rollback=True):
        conn.execute("LOCK TABLE ONLY logs IN SHARE MODE")
        return _last_id(conn)


def revert(conn: Connection, risk: RowsAtRisk | None) -> bool:
    """Give the old table its name back. Return False, and change nothing, if rows were stored since `risk` was read.

    Without `risk`, new rows do not matter.
    """
    with state.step(conn) as migration:
        conn.execute("LOCK TABLE ONLY logs, logs_old IN ACCESS EXCLUSIVE MODE")
        old = old_table.describe(conn, "logs_old", migration.zone)
        if risk is not None and _last_id(conn) != risk.last_id:
            return False
        if risk is not None and risk.last_id is None and sum(new.rows for new in _new_rows(conn, old)) != risk.rows:
            return False  # without a sequence, only counting the rows again shows whether some were stored
        state.run_all(conn, revert_statements(conn, old, migration.sequence_type))
        return True


def revert_statements(conn: Connection, old: OldTable, sequence_type: str) -> Iterator[Composed]:
    """Yield the DDL of an undo, which follows LOCK TABLE. The old table gets its sequence, names and comment back."""
    new = old_table.describe(conn, "logs", old.zone)
    for number, index in enumerate(new.indexes):  # all of them, because each may have a name that the old table needs
        yield swap.rename_index(index.name, f"{UNDONE_PREFIX}_{number}")
    if old.sequence is not None and old.sequence.identity and new.sequence is not None:
        theirs, ours = old.sequence, new.sequence
        yield SQL("SELECT setval({}, last_value, is_called) FROM {}").format(Literal(theirs.name), SQL(ours.name))
        yield SQL("ALTER SEQUENCE {} RENAME TO {}").format(SQL(ours.name), Identifier(f"{UNDONE_PREFIX}_sequence"))
        yield SQL("ALTER SEQUENCE {} RENAME TO {}").format(SQL(theirs.name), Identifier(ours.bare_name))
    elif old.sequence is not None and new.sequence is not None:
        if new.sequence.owned:
            yield swap.set_owned_by(old.sequence.name, "logs_old", "id")
        if sequence_type != "bigint" and (_last_id(conn) or 0) < MAX_VALUES[sequence_type]:
            yield SQL("ALTER SEQUENCE {} AS {}").format(SQL(old.sequence.name), SQL(sequence_type))
    for sequence, column in new.other_sequences:
        yield swap.set_owned_by(sequence, "logs_old", column)
    if any(index.name == DAY_INDEX for index in old.indexes):
        yield SQL("DROP INDEX {}").format(Identifier(DAY_INDEX))
    of_indexes = {index.name for index in old.indexes}
    for name in sorted(of_indexes):
        if name.endswith(swap.OLD_SUFFIX):
            yield swap.rename_index(name, name[: -len(swap.OLD_SUFFIX)])
    for constraint in old.constraints:
        if constraint.name.endswith(swap.OLD_SUFFIX) and constraint.name not in of_indexes:
            yield swap.rename_constraint(constraint.name, constraint.name[: -len(swap.OLD_SUFFIX)])
    yield SQL("COMMENT ON TABLE logs_old IS {}").format(Literal(new.comment))
    yield SQL("COMMENT ON TABLE logs IS {}").format(Literal(markers.REVERTED_MIGRATION))
    yield from swap.replace_record(old, markers.REVERTED_MIGRATION)
    yield SQL("ALTER TABLE logs RENAME TO logs_new").format()
    yield SQL("ALTER TABLE logs_old RENAME TO logs").format()


DROPPED_AT_ONCE = 5  # partitions in one transaction; each takes several locks
DROP_NEW_TABLES = f"-- then DROP TABLE logs_new and its partitions, {DROPPED_AT_ONCE} at a time"


def drop_new_tables(conn: Connection) -> bool:
    """Drop a few partitions that the undone migration created, or, without any left, logs_new.

    Return whether to call it again. Raises Unsuitable if other objects depend on them.
    """
    with state.step(conn, State.UNDOING, State.PLAIN) as migration:
        if migration.state is State.PLAIN:  # another session dropped the rest
            return False
        names = [name for name, _ in conn.execute(PARTITIONS, ["logs_new", DROPPED_AT_ONCE])]
        try:
            conn.execute(SQL("DROP TABLE {}").format(SQL(", ").join(map(SQL, names)) if names else SQL("logs_new")))
        except errors.DependentObjectsStillExist as error:
            raise Unsuitable(
                "logs is the old table again, and what the migration created cannot be dropped yet: "
                f"{error.diag.message_detail}; drop what depends on it, then --undo continues"
            ) from error
        if not names:
            conn.execute(migration_record.DROP)
        return bool(names)
