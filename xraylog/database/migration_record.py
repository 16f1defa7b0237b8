"""Read the table that records how far a migration of `logs` is, in its one row.

A comment on `logs_old` says the same, for people, and for older versions, which do not know the table. If the two
differ, the table counts, because a dump may lack comments.
"""

from __future__ import annotations

from psycopg.sql import SQL

from xraylog.database import session
from xraylog.database.session import Connection

TABLE = "xraylog_migration"
CREATE = f"CREATE TABLE IF NOT EXISTS {TABLE} (state text NOT NULL)"
DROP = f"DROP TABLE IF EXISTS {TABLE}"
# Another program may have a table of that name. A table without our column is neither read nor dropped. `record` is an
# alias of pg_class.
IS_OURS = """
    record.relname = 'xraylog_migration' AND record.relkind = 'r'
    AND (SELECT array_agg(a.attname::text) FROM pg_attribute a
         WHERE a.attrelid = record.oid AND a.attnum > 0 AND NOT a.attisdropped) = ARRAY['state']
"""


def read(conn: Connection, table: str | None) -> str | None:
    """Return the text in the table, whose name is quoted; None if there is no table, or no row in it."""
    rows = session.answer(conn, SQL("SELECT state FROM {}").format(SQL(table))) if table else []
    return rows[0][0] if rows else None
