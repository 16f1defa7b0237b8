"""The table that says where a migration of `logs` stands; it has one row while there is something to say.

A comment on `logs_old` says the same, for people and for versions that know nothing of the table. The table decides: a
dump may be without comments.
"""

from __future__ import annotations

from psycopg.sql import SQL

from xraylog.database import session
from xraylog.database.session import Connection

TABLE = "xraylog_migration"
CREATE = f"CREATE TABLE IF NOT EXISTS {TABLE} (state text NOT NULL)"
DROP = f"DROP TABLE IF EXISTS {TABLE}"
# Another program may have a table of that name: what is not like ours is neither read nor dropped. `record`: pg_class
IS_OURS = """
    record.relname = 'xraylog_migration' AND record.relkind = 'r'
    AND (SELECT array_agg(a.attname::text) FROM pg_attribute a
         WHERE a.attrelid = record.oid AND a.attnum > 0 AND NOT a.attisdropped) = ARRAY['state']
"""


def read(conn: Connection, table: str | None) -> str | None:
    """Return the text in the table, whose name is quoted; None where there is no table or nothing in it."""
    rows = session.answer(conn, SQL("SELECT state FROM {}").format(SQL(table))) if table else []
    return rows[0][0] if rows else None
