"""Find tables of other programs that have the names of our own: ids and names would come from the wrong table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from xraylog.database import session
from xraylog.database.session import Connection

if TYPE_CHECKING:  # `schema` imports this module
    from xraylog.database.schema import Table

# To be joined to attributes `a` of tables `c`: a foreign key of the column to a table that the search_path does not
# find. On PostgreSQL 10 only the partitions of `logs` have its keys.
HIDDEN = """
    LEFT JOIN pg_constraint hidden
           ON hidden.contype = 'f' AND hidden.conkey = ARRAY[a.attnum]
          AND hidden.conrelid IN (c.oid, CASE c.relname WHEN 'logs' THEN (
                  SELECT max(inhrelid) FROM pg_inherits WHERE inhparent = to_regclass('logs')) END)
          AND NOT pg_table_is_visible(hidden.confrelid)
"""
# Name and schema of a table, and a search_path that finds it.
PATH = """
    SELECT r.relname, quote_ident(n.nspname), (
               SELECT string_agg(quote_ident(name), ',' ORDER BY nr)
               FROM unnest(array_prepend(n.nspname, array_remove(current_schemas(false), n.nspname)))
                    WITH ORDINALITY AS path (name, nr))
    FROM pg_class r
    JOIN pg_namespace n ON n.oid = r.relnamespace
    WHERE r.oid = %s AND r.relname = ANY(%s)
"""


def tables_of_others(tables: Mapping[str, Table], columns: Mapping[str, Mapping[str, str]], role: str) -> Iterator[str]:
    """Yield a message for each existing table of another program, before our first run. `columns`: of our tables."""
    if "logs" in tables:  # not the first run: other columns may be the operator's additions to our tables
        return
    for name, table in tables.items():
        others = [column for column in table.types if column != "id" and column not in columns[name]]
        if others and table.kind in "rpvmf":  # not a sequence, an index or a type
            yield (
                f"{name} is another application's, with the columns {', '.join(others[:3])}: use a schema of our own, "
                f"as a superuser: CREATE SCHEMA xraylog AUTHORIZATION {role}; "
                "then [postgresql] options = -c search_path=xraylog"
            )


def hiding_tables(conn: Connection, tables: Mapping[str, Table]) -> Iterator[str]:
    """Yield a message for each table that hides, by the search_path, one to which our foreign keys refer."""
    for name, table in tables.items():
        for column, oid in table.hidden.items():
            for referred, schema_name, path in session.answer(conn, PATH, [oid, [*tables]]):
                yield (
                    f"{name}.{column}: expected the search_path to find {referred} of {schema_name}, to which it "
                    f"refers, found another schema first; in [postgresql]: options = -c search_path={path}"
                )
