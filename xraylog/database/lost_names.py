"""Notice that a table of names was dropped while rows of `logs` still refer to it.

A new table would give their ids to other names, and each old row would show a name that is not its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from psycopg.sql import SQL, Identifier

from xraylog.database import ddl, session
from xraylog.database.session import Connection

if TYPE_CHECKING:  # `schema` imports this module
    from xraylog.database.schema import Table

USED = "SELECT has_table_privilege('logs', 'SELECT') AND EXISTS (SELECT 1 FROM logs WHERE {})"


def find(conn: Connection, tables: Mapping[str, Table]) -> Iterator[str]:
    """Yield a message for each missing table to which rows of `logs` refer."""
    if "logs" not in tables or tables["logs"].kind != "p":
        return
    for name in dict.fromkeys(ddl.KEYS.values()):
        columns = [column for column, table in ddl.KEYS.items() if table == name and column in tables["logs"].types]
        if name in tables or not columns:
            continue
        are_used = SQL(" OR ").join(SQL("{} IS NOT NULL").format(Identifier(column)) for column in columns)
        if session.answer(conn, SQL(USED).format(are_used)) == [(True,)]:
            create = " ".join(ddl.TABLES[name].split())
            highest = ", ".join(f"max({column})" for column in columns)
            newest = f"SELECT greatest({highest}) FROM logs"  # noqa: S608  # for the operator to read
            yield (
                f"{name}: expected the names to which logs refers, found no table; restore it from a backup; if there "
                f"is none, its ids must not be given to other names: {create}; "
                f"SELECT setval('{name}_id_seq', ({newest}))"
            )
