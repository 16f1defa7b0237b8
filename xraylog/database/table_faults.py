"""Find faults of our tables that make the database reject or drop valid rows: sequences, triggers, added columns.

Such an error is not the fault of a line, because the next line would fail, too. So all lines wait until the operator
has fixed the table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import psycopg
from psycopg import errors

from xraylog.database import ddl, interference, narrow_columns, sequences, session
from xraylog.database.session import Connection, Unsuitable

IS_PRIMARY_KEY = """
    SELECT EXISTS (SELECT FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
                   WHERE n.nspname = %s AND k.conname = %s AND k.contype = 'p')
"""
# tgtype: 1 = FOR EACH ROW, 2 = BEFORE, 4 = INSERT. The triggers of foreign keys are AFTER triggers.
TRIGGERS = """
    SELECT DISTINCT quote_ident(t.tgname), quote_ident(c.relname)
    FROM pg_trigger t
    JOIN pg_class c ON c.oid = t.tgrelid
    WHERE t.tgtype & 7 = 7 AND t.tgenabled <> 'D' AND NOT t.tgisinternal AND pg_table_is_visible(c.oid)
      AND (c.relname = %s OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass(%s)))
    ORDER BY 2, 1
    LIMIT 3
"""
OF_NO_LINE = ("log_positions", "rejected_lines")
MAY_BE_NULL = {"log_positions": ("tail", "installation")}
# Columns that the operator added, and that reject rows without a value for them.
STRICT_COLUMNS = """
    SELECT attname FROM pg_attribute
    WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped AND attnotnull AND NOT atthasdef
      AND attidentity = '' AND attname <> ALL(%s)
"""


def raise_if_at_fault(conn: Connection, error: psycopg.Error, table: str | None = None) -> None:
    """Raise Unsuitable, which says what to do, if the tables caused the error and not the values of a row.

    The caller has rolled back the failed transaction or savepoint. `table`: the one that the statement wrote to, or
    None for any.
    """
    if interference.culprits(conn, error):  # a trigger may give its errors any SQLSTATE
        return
    if isinstance(error, errors.SequenceGeneratorLimitExceeded):
        name = next(iter(re.findall(r'".+"', str(error))), "...")
        said = f"{session.message(error)}: ALTER SEQUENCE {name} NO MAXVALUE"
        raise Unsuitable(next(sequences.used_up(conn), said)) from error
    if isinstance(error, (errors.NumericValueOutOfRange, errors.StringDataRightTruncation)):
        _raise_if_too_narrow(conn, error, table)
    if isinstance(error, (errors.UniqueViolation, errors.NotNullViolation)):
        _raise_if_without_id(conn, error)


def _raise_if_too_narrow(conn: Connection, error: psycopg.Error, table: str | None) -> None:
    """Raise Unsuitable if an id, a port or one of our own words does not fit because a column is too narrow.

    Not for a name that is too long: that is the fault of its line.
    """
    is_text = isinstance(error, errors.StringDataRightTruncation)
    tables = [table] if table else [*ddl.TABLES]
    narrow = [found for found in narrow_columns.find(conn, tables) if (found.wanted == "text") == is_text]
    reasons = [str(found) for found in narrow if not (is_text and found.table in ddl.REFERENCE_TABLES)]
    reasons += [] if is_text else sequences.used_up(conn)
    if reasons:
        raise Unsuitable(f"{session.message(error)}: {'; '.join(reasons)}") from error


def _raise_if_without_id(conn: Connection, error: psycopg.Error) -> None:
    """Raise Unsuitable if an id is used already or missing, or if a column that is not ours requires a value."""
    diag = error.diag
    table = next((name for name in ddl.TABLES if name == diag.table_name), "logs")  # or one of its partitions
    if isinstance(error, errors.UniqueViolation):
        # Citus does not name the constraint. Its unique keys of `logs` contain the id.
        if diag.constraint_name is None or _is_primary_key(conn, diag.schema_name, diag.constraint_name):
            reason = f"{session.message(error)}: {diag.message_detail}; {sequences.describe_repeated_id(conn, table)}"
            raise Unsuitable(reason) from error
        return
    if diag.column_name == "id":
        raise Unsuitable(sequences.without_default(conn, table)) from error
    if diag.column_name in ddl.COLUMNS[table]:
        return
    ours = ["id", *ddl.COLUMNS[table]]
    column = diag.column_name or next((name for (name,) in conn.execute(STRICT_COLUMNS, [table, ours])), None)
    if column is None:
        return
    ((column,),) = conn.execute("SELECT quote_ident(%s)", [column])
    raise Unsuitable(
        f"{table}.{column} is not ours, is NOT NULL and has no default: "
        f"ALTER TABLE {table} ALTER {column} DROP NOT NULL; or give it a default"
    ) from error


def raise_if_records_are_refused(conn: Connection, error: psycopg.Error) -> None:
    """Raise Unsuitable, which says what to do, if positions or unparsed lines are refused: no line is at fault then.

    The caller has rolled back the failed transaction.
    """
    table = error.diag.table_name
    if table not in OF_NO_LINE:
        return
    with session.transaction(conn):
        raise_if_at_fault(conn, error, table)
        statements = to_accept(conn, error)
    if statements:
        way_out = f"as its owner, or a superuser of PostgreSQL: {'; '.join(statements)}"
        raise Unsuitable(f"{table} refuses what a run writes: {session.message(error)}; {way_out}") from error


def to_accept(conn: Connection, error: psycopg.Error) -> list[str]:
    """Return the statements that remove what others added, and what raised this error; none if it is not known."""
    table, column = error.diag.table_name, error.diag.column_name
    if isinstance(error, errors.NotNullViolation) and column in MAY_BE_NULL.get(table or "", ()):
        return [f"ALTER TABLE {table} ALTER {column} DROP NOT NULL"]
    return [*interference.culprits(conn, error), *interference.constraints(conn, error.diag.message_primary or "")]


def raise_if_lost(conn: Connection, table: str) -> None:
    """Raise Unsuitable if a trigger or existing ids may make new names of a reference table vanish without an error."""
    for trigger, found in triggers(conn, table):
        raise Unsuitable(f"trigger {trigger} on {found} drops names that rows need: {disable(trigger, found)}")
    for reason in sequences.repeating(conn, [table]):
        raise Unsuitable(reason)


def triggers(conn: Connection, table: str) -> list[tuple[str, str]]:
    """Return the triggers that may drop rows of this table or its partitions without an error, each with its table."""
    return [(trigger, found) for trigger, found in conn.execute(TRIGGERS, [table, table])]


def rows_were_dropped(triggers: Sequence[tuple[str, str]]) -> str:
    """Return the warning about rows that one of these triggers dropped."""
    names = ", ".join(f"{trigger} on {table}" for trigger, table in triggers)
    first, table = triggers[0]
    return f"rows were dropped by trigger {names}, and are in no table; to keep such rows: " + disable(first, table)


def disable(trigger: str, table: str) -> str:
    """Return the statement that disables the trigger."""
    return f"ALTER TABLE {table} DISABLE TRIGGER {trigger}"


def _is_primary_key(conn: Connection, schema_name: str | None, constraint: str | None) -> bool:
    return conn.execute(IS_PRIMARY_KEY, [schema_name, constraint]).fetchone() == (True,)
