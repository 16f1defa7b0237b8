"""Find columns that are too narrow for what a run writes, in tables made by hand: varchar(10), or smallint ports.

A value that does not fit there is the column's fault, not the line's. Names are an exception, and cost their line: a
client chooses the host that it asks for, and must not be able to stop the loading.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from xraylog.database import ddl
from xraylog.database.session import Connection

# The characters of the longest value: the parser accepts names of 255, the system paths of 4096.
CHARACTERS: Mapping[tuple[str, str], int] = {
    **dict.fromkeys(ddl.REFERENCE_TABLES.items(), 255),
    ("protocols", "name"): 8,  # xray's own names, which no client can choose
    ("logs", "source_ip"): 49,  # of a network in IPv6 that ends as one in IPv4
    ("logs", "action"): 8,
    ("log_positions", "source"): 4096,
    ("rejected_lines", "source"): 4096,
    ("rejected_lines", "reason"): 4096,
    ("rejected_lines", "line"): 2 + 2 * (16 << 20),
}
NUMBERS: Mapping[tuple[str, str], str] = {  # each with the narrowest type that fits; for ids see `sequences`
    ("logs", "source_port"): "integer",
    ("logs", "destination_port"): "integer",
    ("log_positions", "position"): "bigint",
    ("log_positions", "stored_from"): "bigint",
    ("rejected_lines", "line_offset"): "bigint",
}
BYTES = {"smallint": 2, "integer": 4, "bigint": 8}
COLUMNS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, NULL),
           CASE WHEN a.atttypid IN ('varchar'::regtype, 'bpchar'::regtype) AND a.atttypmod > 4
                THEN a.atttypmod - 4 END
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relname = ANY(%s) AND pg_table_is_visible(c.oid)
    ORDER BY array_position(%s::text[], c.relname::text), a.attnum
"""


class NarrowColumn(NamedTuple):
    """One of our columns that is too narrow, and the type that it should have."""

    table: str
    column: str
    found: str
    wanted: str

    @property
    def statement(self) -> str:
        """The statement that widens it."""
        return f"ALTER TABLE {self.table} ALTER {self.column} TYPE {self.wanted}"

    def __str__(self) -> str:
        return f"{self.table}.{self.column}: expected the type {self.wanted}, found {self.found}; {self.statement}"


def find(conn: Connection, tables: Sequence[str] = tuple(ddl.TABLES)) -> Iterator[NarrowColumn]:
    """Yield the columns of these tables that are too narrow."""
    for table, column, found, kind, characters in conn.execute(COLUMNS, [list(tables), list(ddl.TABLES)]):
        key = (table, column)
        if characters is not None and characters < CHARACTERS.get(key, 0):
            yield NarrowColumn(table, column, found, "text")
        elif key in NUMBERS and BYTES.get(kind, 8) < BYTES[NUMBERS[key]]:
            yield NarrowColumn(table, column, found, NUMBERS[key])
