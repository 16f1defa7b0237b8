"""Partitions that retention has begun to take out of `logs`, and that a run which died has left behind.

DETACH … CONCURRENTLY is several transactions of the server, and DROP one more. So the table gets a comment first: it
stays on it when the table is no partition any more. Whoever comes later finishes what it finds with this comment.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg.sql import SQL, Composed, Literal

from xraylog.database import Connection

MARK = "xraylog: to be dropped by retention"

# Only what this role may drop: a comment is a text that anybody can write on a table of his own.
# to_jsonb, because pg_inherits has inhdetachpending from PostgreSQL 14 on.
LEFT = """
    SELECT c.oid, c.oid::regclass::text, c.relname, c.relispartition
    FROM pg_description d
    JOIN pg_class c ON c.oid = d.objoid AND c.relkind IN ('r', 'p') AND pg_has_role(c.relowner, 'USAGE')
    LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
    WHERE d.classoid = 'pg_class'::regclass AND d.objsubid = 0 AND d.description = %s
      AND (NOT c.relispartition
           OR (i.inhparent = 'logs'::regclass AND (to_jsonb(i) ->> 'inhdetachpending')::boolean))
    ORDER BY c.relname
"""


@dataclass(frozen=True, slots=True)
class Left:
    """A table with the mark on it, that `logs` does not show any more."""

    oid: int
    sql: str  # its name, quoted, and with its schema where that is needed
    name: str
    is_pending: bool  # in the middle of DETACH … CONCURRENTLY


def left_behind(conn: Connection) -> list[Left]:
    """What there is of them."""
    return [Left(*row) for row in conn.execute(LEFT, [MARK])]


def mark(table: str) -> Composed:
    """DDL for the comment. `table` is quoted, here and below."""
    return SQL("COMMENT ON TABLE {} IS {}").format(SQL(table), Literal(MARK))


def detach(table: str) -> Composed:
    """DDL that keeps nobody out of `logs`, outside of a transaction."""
    return SQL("ALTER TABLE logs DETACH PARTITION {} CONCURRENTLY").format(SQL(table))


def finalize(table: str) -> Composed:
    """DDL that ends a DETACH … CONCURRENTLY which was interrupted; in a transaction, if you like."""
    return SQL("ALTER TABLE logs DETACH PARTITION {} FINALIZE").format(SQL(table))


def drop(table: str) -> Composed:
    """DDL."""
    return SQL("DROP TABLE {}").format(SQL(table))


def clear_the_way(conn: Connection, names: Iterable[str]) -> None:
    """Before partitions with these names are made, in a transaction that holds the lock of partitions.

    A late line may come for a day that is half detached: the server makes no other partition of that day meanwhile.
    """
    wanted = set(names)
    for table in left_behind(conn):
        if table.is_pending:
            conn.execute(finalize(table.sql))
        if table.name in wanted:
            conn.execute(drop(table.sql))
