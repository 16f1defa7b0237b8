"""What is wrong with the tables when they refuse, or lose, what is right: sequences, triggers, columns of others.

Such an error is not of a line: the next one would fail alike. So the lines wait until the operator has acted.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Identifier

from xraylog.database import interference, schema, session
from xraylog.database.session import Connection, Unsuitable

SEQUENCES = """
    SELECT c.relname, a.attname, s.seqrelid::regclass::text, pg_sequence_last_value(s.seqrelid), s.seqmax,
           s.seqtypid = 'integer'::regtype AND s.seqmax = 2147483647, has_table_privilege(c.oid, 'SELECT')
    FROM pg_sequence s
    JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid AND d.deptype IN ('a', 'i')
    JOIN pg_class c ON c.oid = d.refobjid
    JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE c.relname = ANY(%s) AND pg_table_is_visible(c.oid) AND has_sequence_privilege(s.seqrelid, 'USAGE')
    ORDER BY c.relname
"""
IS_PRIMARY_KEY = """
    SELECT EXISTS (SELECT FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
                   WHERE n.nspname = %s AND k.conname = %s AND k.contype = 'p')
"""
# 2 + 4: BEFORE, for each INSERT; 1: for each row. The triggers of foreign keys are AFTER triggers.
TRIGGERS = """
    SELECT DISTINCT quote_ident(t.tgname), quote_ident(c.relname)
    FROM pg_trigger t
    JOIN pg_class c ON c.oid = t.tgrelid
    WHERE t.tgtype & 7 = 7 AND t.tgenabled <> 'D' AND NOT t.tgisinternal AND pg_table_is_visible(c.oid)
      AND (c.relname = %s OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass(%s)))
    ORDER BY 2, 1
    LIMIT 3
"""
# Columns that others added, and that refuse our own rows.
STRICT_COLUMNS = """
    SELECT attname FROM pg_attribute
    WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped AND attnotnull AND NOT atthasdef
      AND attidentity = '' AND attname <> ALL(%s)
"""


# The largest id of the others is not in an index: `logs` would be read as a whole, and may have an id twice.
WITH_PRIMARY_KEYS = tuple(name for name in schema.TABLES if name != "logs")


LARGEST = 2**63 - 1
NEARLY = 0.9  # of its values


class IdSequence(NamedTuple):
    """The sequence that a table's ids come from."""

    table: str
    column: str
    name: str  # quoted, with its schema where that is needed
    last: int | None  # None: never used
    maximum: int
    is_integer: bool  # as wide as `serial` makes it
    has_readable_table: bool


def raise_if_at_fault(conn: Connection, error: psycopg.Error) -> None:
    """Raise Unsuitable with the way out if the tables caused the error, and not the values of a row.

    The transaction, or the savepoint, that failed was rolled back.
    """
    if interference.culprits(conn, error):  # a trigger may give its errors any SQLSTATE
        return
    diag = error.diag
    table = next((name for name in schema.TABLES if name == diag.table_name), "logs")  # or one of its partitions
    if isinstance(error, errors.SequenceGeneratorLimitExceeded):
        said = f"{session.message(error)}: ALTER SEQUENCE ... NO MAXVALUE"
        raise Unsuitable(next(used_up(conn), said)) from error
    if isinstance(error, errors.UniqueViolation) and (
        diag.constraint_name is None  # Citus gives no names: there, a unique key of `logs` has the id in it
        or _is_primary_key(conn, diag.schema_name, diag.constraint_name)
    ):
        raise Unsuitable(f"{session.message(error)}: {diag.message_detail}; {_ids_are_taken(conn, table)}") from error
    if isinstance(error, errors.NotNullViolation) and diag.column_name not in {"id", *schema.COLUMNS[table]}:
        ours = ["id", *schema.COLUMNS[table]]
        column = diag.column_name or next((name for (name,) in conn.execute(STRICT_COLUMNS, [table, ours])), None)
        if column is None:
            return
        ((column,),) = conn.execute("SELECT quote_ident(%s)", [column])
        raise Unsuitable(
            f"{table}.{column} is not ours, is NOT NULL and has no default: "
            f"ALTER TABLE {table} ALTER {column} DROP NOT NULL, or SET DEFAULT"
        ) from error


def raise_if_lost(conn: Connection, table: str) -> None:
    """Raise Unsuitable if rows of a reference table may vanish without an error: a trigger, ids that are taken."""
    for trigger, found in triggers(conn, table):
        raise Unsuitable(f"trigger {trigger} on {found} drops names that rows need: {disable(trigger, found)}")
    for reason in repeating(conn, [table]):
        raise Unsuitable(reason)


def triggers(conn: Connection, table: str) -> list[tuple[str, str]]:
    """Return what may drop rows of this table or of its partitions without an error: triggers, each with its table."""
    return [(trigger, found) for trigger, found in conn.execute(TRIGGERS, [table, table])]


def rows_were_dropped(triggers: Sequence[tuple[str, str]]) -> str:
    """Return the warning about rows that one of these triggers dropped."""
    names = ", ".join(f"{trigger} on {table}" for trigger, table in triggers)
    first, table = triggers[0]
    return f"rows were dropped by trigger {names}, and are in no table; to keep such rows: " + disable(first, table)


def disable(trigger: str, table: str) -> str:
    """Return the statement after which the trigger does nothing."""
    return f"ALTER TABLE {table} DISABLE TRIGGER {trigger}"


def used_up(conn: Connection, tables: Sequence[str] = tuple(schema.TABLES)) -> Iterator[str]:
    """Yield which sequences have no next value, each with the way out."""
    for sequence in _sequences(conn, tables):
        if sequence.last is not None and sequence.last >= sequence.maximum:
            yield (
                f"sequence {sequence.name} of {sequence.table}.{sequence.column} is used up at {sequence.maximum}: "
                + "; ".join(_wider(sequence))
            )


def nearly_used_up(conn: Connection, tables: Sequence[str] = tuple(schema.TABLES)) -> Iterator[str]:
    """Yield which sequences will soon have no next value, each with the way out: it can take hours."""
    for sequence in _sequences(conn, tables):
        if sequence.last is not None and sequence.maximum * NEARLY <= sequence.last < sequence.maximum:
            yield (
                f"sequence {sequence.name} of {sequence.table}.{sequence.column} is at {sequence.last} of "
                f"{sequence.maximum}: " + "; ".join(_wider(sequence))
            )


def repeating(conn: Connection, tables: Sequence[str] = WITH_PRIMARY_KEYS) -> Iterator[str]:
    """Yield which sequences give ids that are there already, as far as this role may read them, with the way out."""
    for sequence in filter(operator.attrgetter("has_readable_table"), _sequences(conn, tables)):
        newest = SQL("SELECT max({}) FROM {}").format(Identifier(sequence.column), Identifier(sequence.table))
        ((highest,),) = conn.execute(newest)
        if highest is not None and highest > (sequence.last or 0):
            yield (
                f"sequence {sequence.name} is at {sequence.last or 0}, and {sequence.table}.{sequence.column} has "
                f"{highest}: {_set_value(sequence)}"
            )


def _sequences(conn: Connection, tables: Sequence[str]) -> list[IdSequence]:
    return [IdSequence(*row) for row in conn.execute(SEQUENCES, [list(tables)])]


def _wider(sequence: IdSequence) -> Iterator[str]:
    """Yield the statements after which there are more ids."""
    if sequence.maximum >= LARGEST:  # nobody has had as many rows: it was set
        yield _set_value(sequence)
        return
    if not sequence.is_integer:
        yield f"ALTER SEQUENCE {sequence.name} NO MAXVALUE"
        return
    yield f"ALTER TABLE {sequence.table} ALTER {sequence.column} TYPE bigint"
    for column, table in schema.KEYS.items():
        if table == sequence.table:
            yield f"ALTER TABLE logs ALTER {column} TYPE bigint"
    yield f"ALTER SEQUENCE {sequence.name} AS bigint"


def _ids_are_taken(conn: Connection, table: str) -> str:
    """Return why an id that a sequence gave was there. The attempt that failed may have moved it past all others."""
    for sequence in _sequences(conn, [table]):
        return f"sequence {sequence.name} gives ids that are there: {_set_value(sequence)}"
    return "ids must be new: where do they come from?"


def _set_value(sequence: IdSequence) -> str:
    """Return the statement after which its ids are new."""
    newest = f"SELECT max({sequence.column}) FROM {sequence.table}"  # noqa: S608  # for the operator to read
    return f"SELECT setval('{sequence.name}', ({newest}))"


def _is_primary_key(conn: Connection, schema_name: str | None, constraint: str | None) -> bool:
    return conn.execute(IS_PRIMARY_KEY, [schema_name, constraint]).fetchone() == (True,)
