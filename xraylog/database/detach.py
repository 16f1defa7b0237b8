"""Detach expired partitions from `logs`, and finish or rename those that a killed run left half detached.

DETACH … CONCURRENTLY takes several transactions of the server, and DROP one more. So the table gets a comment first,
which marks it even when it is no partition any more. A later run finishes the tables that it finds with this comment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Composed, Identifier, Literal

from xraylog.database import markers
from xraylog.database.session import Connection

# Only tables that this role may drop, because any role can write such a comment on its own tables.
# to_jsonb, because pg_inherits has inhdetachpending only from PostgreSQL 14 on.
PENDING_DROPS = """
    WITH marked AS (
        SELECT c.oid, c.relname, c.relispartition, i.inhparent,
               coalesce((to_jsonb(i) ->> 'inhdetachpending')::boolean, false) AS is_pending,
               pg_get_expr(c.relpartbound, c.oid) AS bounds
        FROM pg_description d
        JOIN pg_class c ON c.oid = d.objoid AND c.relkind IN ('r', 'p') AND pg_has_role(c.relowner, 'USAGE')
        LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
        WHERE d.classoid = 'pg_class'::regclass AND d.objsubid = 0 AND d.description = %s
    ), quoted AS (
        SELECT *, substring(bounds FROM 'FROM \\(''([^'']*)''\\)')::timestamptz AS low,
               substring(bounds FROM 'TO \\(''([^'']*)''\\)')::timestamptz AS high
        FROM marked
        WHERE NOT relispartition OR (is_pending AND inhparent = 'logs'::regclass)
    )
    SELECT oid, oid::regclass::text, relname, is_pending, extract(epoch FROM coalesce(low, '-infinity'))::float8,
           extract(epoch FROM coalesce(high, 'infinity'))::float8
    FROM quoted
    ORDER BY relname
"""


@dataclass(frozen=True, slots=True)
class PendingDrop:
    """A table marked for dropping that is no longer, or only half, a partition of `logs`."""

    oid: int
    sql: str  # its quoted name, with the schema if needed
    name: str
    is_pending: bool  # in the middle of DETACH … CONCURRENTLY, when no other partition can have its bounds
    low: float  # bounds in seconds since 1970; infinite unless it is pending
    high: float


def pending_drops(conn: Connection) -> list[PendingDrop]:
    """Return the tables that are marked for dropping."""
    return [PendingDrop(*row) for row in conn.execute(PENDING_DROPS, [markers.EXPIRED])]


def mark(table: str) -> Composed:
    """Return the DDL that marks a table with a comment. `table` is quoted, here and below."""
    return SQL("COMMENT ON TABLE {} IS {}").format(SQL(table), Literal(markers.EXPIRED))


def detach(table: str) -> Composed:
    """Return the DDL that detaches without blocking others; it must run outside of a transaction."""
    return SQL("ALTER TABLE logs DETACH PARTITION {} CONCURRENTLY").format(SQL(table))


def finalize(table: str) -> Composed:
    """Return the DDL that completes an interrupted DETACH … CONCURRENTLY; it may run in a transaction."""
    return SQL("ALTER TABLE logs DETACH PARTITION {} FINALIZE").format(SQL(table))


def drop(table: str) -> Composed:
    """Return the DDL that drops the table."""
    return SQL("DROP TABLE {}").format(SQL(table))


def free_name(table: PendingDrop) -> Composed:
    """Return the DDL that renames the table, to free its name."""
    return SQL("ALTER TABLE {} RENAME TO {}").format(SQL(table.sql), Identifier(f"{table.name}_{table.oid}"))


def make_room(conn: Connection, missing: Sequence[tuple[str, float, float]]) -> None:
    """Free the names and bounds of these new partitions, which tables marked for dropping may still have.

    Call it in a transaction that holds PARTITIONS_LOCK. It is needed if a late line arrives for a day that is half
    detached, or not dropped yet. The tables are only renamed; a run with retention drops them.
    """
    names = {name for name, _, _ in missing}
    for table in pending_drops(conn):
        if table.is_pending and any(table.low < high and low < table.high for _, low, high in missing):
            conn.execute(finalize(table.sql))
        elif table.is_pending:
            continue
        if table.name in names:
            conn.execute(free_name(table))
