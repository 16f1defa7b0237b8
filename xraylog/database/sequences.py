"""Find sequences that have no next id, or generate existing ids, and the statements that fix them.

A sequence ends at the largest id that fits into all of its columns: that of its table, and those that refer to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from psycopg.sql import SQL, Identifier

from xraylog.database import ddl
from xraylog.database.session import Connection

# First the sequence of the column's default, then one that the column owns, which it still does after DROP DEFAULT.
SEQUENCES = """
    WITH ours AS (
        SELECT c.oid, c.relname, a.attnum, a.attname, format_type(a.atttypid, NULL) AS type
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relname = ANY(%s) AND pg_table_is_visible(c.oid)
    ), used AS (
        SELECT ours.*, d.refobjid AS sequence, 1 AS rank
        FROM ours
        JOIN pg_attrdef f ON f.adrelid = ours.oid AND f.adnum = ours.attnum
        JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
                        AND d.refclassid = 'pg_class'::regclass
        UNION ALL
        SELECT ours.*, d.objid, 2
        FROM ours
        JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = ours.oid
                        AND d.refobjsubid = ours.attnum
        WHERE d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
    )
    SELECT DISTINCT ON (u.relname, u.attname)
           u.relname, u.attname, u.type, s.seqrelid::regclass::text, format_type(s.seqtypid, NULL),
           pg_sequence_last_value(s.seqrelid), s.seqmin, s.seqmax, s.seqincrement, s.seqcycle,
           has_table_privilege(u.oid, 'SELECT')
    FROM used u
    JOIN pg_sequence s ON s.seqrelid = u.sequence
    WHERE has_sequence_privilege(s.seqrelid, 'USAGE')
    ORDER BY u.relname, u.attname, u.rank
"""
REFERRING = """
    SELECT c.relname, a.attname, format_type(a.atttypid, NULL)
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
    WHERE c.relname = ANY(%s) AND a.attname = ANY(%s) AND pg_table_is_visible(c.oid)
    ORDER BY c.relname, a.attnum
"""
ID_TYPE = """
    SELECT format_type(atttypid, NULL), to_regclass(%s) IS NOT NULL
    FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'id'
"""
ID_DEFAULT = """
    SELECT pg_get_expr(d.adbin, d.adrelid)
    FROM pg_attrdef d
    JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
    WHERE d.adrelid = to_regclass(%s) AND a.attname = 'id'
"""
MAX_ID = 2**63 - 1
MAX_ID_OF_TYPE: Mapping[str, int] = {"smallint": 2**15 - 1, "integer": 2**31 - 1, "bigint": MAX_ID}
NEARLY_USED_UP = 0.9  # the share of its values that is used
# Not `logs`: it may contain an id twice, and has no index on ids, so finding the largest one would read all rows.
WITH_PRIMARY_KEYS = tuple(name for name in ddl.TABLES if name != "logs")


class Column(NamedTuple):
    """A column that contains ids."""

    table: str
    name: str
    type: str

    @property
    def largest(self) -> int:
        """The largest id that fits into the column."""
        return MAX_ID_OF_TYPE.get(self.type, MAX_ID)


class IdSequence(NamedTuple):
    """The sequence that generates the ids of a table."""

    column: Column
    name: str  # quoted, with its schema where that is needed
    type: str
    last: int | None  # None: never used
    minimum: int
    maximum: int
    increment: int
    cycles: bool
    has_readable_table: bool
    referring: tuple[Column, ...]  # columns of other tables

    @property
    def largest_id(self) -> int:
        """The largest id that its columns can hold."""
        return min([self.maximum, *(column.largest for column in (self.column, *self.referring))])

    @property
    def is_used_up(self) -> bool:
        """Return whether it has no next id."""
        return self.last is not None and not self.minimum <= self.last + self.increment <= self.largest_id

    @property
    def is_nearly_used_up(self) -> bool:
        """Return whether it will soon have none."""
        return self.last is not None and self.increment > 0 and self.last >= self.largest_id * NEARLY_USED_UP

    def __str__(self) -> str:
        return f"sequence {self.name} of {self.column.table}.{self.column.name}"


def used_up(conn: Connection, tables: Sequence[str] = tuple(ddl.TABLES)) -> Iterator[str]:
    """Yield the sequences that have no next value, each with the way out."""
    for sequence in find(conn, tables):
        if sequence.is_used_up:
            end = sequence.largest_id if sequence.increment > 0 else sequence.minimum
            yield f"{sequence} is used up at {end}: " + "; ".join(_make_room(sequence))


def nearly_used_up(conn: Connection, tables: Sequence[str] = tuple(ddl.TABLES)) -> Iterator[str]:
    """Yield the sequences that will soon have no next value, each with the way out, because it can take hours."""
    for sequence in find(conn, tables):
        if sequence.is_nearly_used_up and not sequence.is_used_up:
            yield f"{sequence} is at {sequence.last} of {sequence.largest_id}: " + "; ".join(_make_room(sequence))


def repeating(conn: Connection, tables: Sequence[str] = WITH_PRIMARY_KEYS) -> Iterator[str]:
    """Yield the sequences that generate existing ids, as far as this role may read them, each with the way out."""
    for sequence in find(conn, tables):
        if not sequence.has_readable_table:
            continue
        newest = SQL("SELECT max({}) FROM {}").format(
            Identifier(sequence.column.name), Identifier(sequence.column.table)
        )
        ((highest,),) = conn.execute(newest)
        if highest is not None and (highest > (sequence.last or 0) or sequence.increment < 0):
            where = f"{sequence.column.table}.{sequence.column.name}"
            backwards = ", goes backwards" if sequence.increment < 0 else ""
            yield (
                f"sequence {sequence.name} is at {sequence.last or 0}{backwards}, and {where} has {highest}: "
                + "; ".join(_restart(sequence))
            )


def find(conn: Connection, tables: Sequence[str]) -> list[IdSequence]:
    """Return the sequences of these tables."""
    referring: dict[str, list[Column]] = {table: [] for table in ddl.TABLES}
    for row in conn.execute(REFERRING, [list(ddl.TABLES), list(ddl.KEYS)]):
        column = Column(*row)
        referring[ddl.KEYS[column.name]].append(column)
    return [
        IdSequence(Column(*row[:3]), *row[3:], tuple(referring.get(row[0], ())))  # type: ignore[call-arg]
        for row in conn.execute(SEQUENCES, [list(tables)])
    ]


def without_default(conn: Connection, table: str) -> str:
    """Return why the rows of a table get no id, with the way out."""
    sequence = _id_sequence(conn, table)
    if sequence is not None:
        return f"{table}.id has no default: {_set_default(table, sequence.name)}"
    return f"{table}.id has no default, and no sequence: " + "; ".join(_create_sequence(conn, table))


def _id_sequence(conn: Connection, table: str) -> IdSequence | None:
    """Return the sequence of a table's ids; others may have columns with sequences in it, too."""
    return next((sequence for sequence in find(conn, [table]) if sequence.column.name == "id"), None)


def _create_sequence(conn: Connection, table: str) -> list[str]:
    """Return the statements after which the ids of a table come from a sequence of their own."""
    name = f"{table}_id_seq"
    ((kind, is_there),) = conn.execute(ID_TYPE, [name, table])
    made = f"CREATE SEQUENCE {name} AS {kind}" if kind in MAX_ID_OF_TYPE else f"CREATE SEQUENCE {name}"
    return [
        *([] if is_there else [made]),
        f"ALTER SEQUENCE {name} OWNED BY {table}.id",
        f"SELECT setval('{name}', (SELECT max(id) FROM {table}))",  # noqa: S608  # for the operator to read
        _set_default(table, name),
    ]


def _set_default(table: str, sequence: str) -> str:
    return f"ALTER TABLE {table} ALTER id SET DEFAULT nextval('{sequence}')"


def describe_repeated_id(conn: Connection, table: str) -> str:
    """Return how to fix what generated an existing id.

    `repeating` may not find it any more, because the failed attempt may have moved a sequence past all existing ids.
    """
    sequence, default = _id_sequence(conn, table), conn.execute(ID_DEFAULT, [table]).fetchone()
    if sequence is not None and (default is None or "nextval(" in default[0]):  # an identity column has no default
        return f"sequence {sequence.name} gives ids that are there: " + "; ".join(_restart(sequence))
    statements = (
        _create_sequence(conn, table) if sequence is None else [*_restart(sequence), _set_default(table, sequence.name)]
    )
    origin = "a trigger" if default is None else f"the default {default[0]}"
    return f"{table}.id gets ids that are there, from {origin}: " + "; ".join(statements)


def _make_room(sequence: IdSequence) -> Iterator[str]:
    """Yield the statements that make room for more ids."""
    if sequence.increment < 0 or sequence.largest_id >= MAX_ID:  # nobody has 2**63 rows, so the value was set by hand
        yield from _restart(sequence)
        return
    narrow = min(column.largest for column in (sequence.column, *sequence.referring))
    if sequence.maximum < min(narrow, MAX_ID_OF_TYPE[sequence.type]):
        yield f"ALTER SEQUENCE {sequence.name} NO MAXVALUE"
        return
    is_small = max(sequence.largest_id, sequence.last or 0) < MAX_ID_OF_TYPE["integer"]
    wanted = "integer" if is_small else "bigint"
    for column in (sequence.column, *sequence.referring):
        if column.largest < MAX_ID_OF_TYPE[wanted]:
            yield f"ALTER TABLE {column.table} ALTER {column.name} TYPE {wanted}"
    if MAX_ID_OF_TYPE[sequence.type] < MAX_ID_OF_TYPE[wanted]:
        yield f"ALTER SEQUENCE {sequence.name} AS {wanted}"


def _restart(sequence: IdSequence) -> Iterator[str]:
    """Yield the statements after which the sequence counts upwards from the largest id, without a cycle."""
    if sequence.increment < 0:
        yield f"ALTER SEQUENCE {sequence.name} INCREMENT BY 1"
    if sequence.cycles:
        yield f"ALTER SEQUENCE {sequence.name} NO MAXVALUE NO CYCLE"
    newest = f"SELECT max({sequence.column.name}) FROM {sequence.column.table}"  # noqa: S608  # for the operator to read
    yield f"SELECT setval('{sequence.name}', ({newest}))"
