"""Notice rows in tables that inherit from ours: a run finds them as its own, but no foreign key and no index does.

A name found there has an id that rows of `logs` cannot refer to, or that is another name's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from psycopg.sql import SQL, Identifier

from xraylog.database import ddl, session
from xraylog.database.session import Connection

if TYPE_CHECKING:  # `schema` imports this module
    from xraylog.database.schema import Table

TABLES = (*ddl.REFERENCE_TABLES, "log_positions")
MAY_READ = "SELECT has_table_privilege(%s, 'SELECT')"
FILLED = "SELECT tableoid::regclass::text FROM {} WHERE tableoid <> to_regclass({}) LIMIT 1"


def find(conn: Connection, tables: Mapping[str, Table]) -> Iterator[str]:
    """Yield a message for each of our tables that a filled one inherits from."""
    for name in TABLES:
        if name not in tables or tables[name].kind != "r" or not tables[name].may_have_children:
            continue
        if session.answer(conn, MAY_READ, [name]) != [(True,)]:
            continue
        for (child,) in session.answer(conn, SQL(FILLED).format(Identifier(name), name)):
            yield (
                f"{name}: expected all of its rows in it, found some in {child}, which inherits from it; as the owner "
                f"of {child}: ALTER TABLE {child} NO INHERIT {name}"
            )
