"""The order of text: an update of the operating system may change it under the indexes of names."""

from __future__ import annotations

from typing import NamedTuple

from psycopg.sql import Identifier

from xraylog.database.capabilities import Capabilities
from xraylog.database.session import Connection

VERSIONS = """
    SELECT datname, datcollversion, pg_database_collation_actual_version(oid)
    FROM pg_database
    WHERE datname = current_database()
"""


class Changed(NamedTuple):
    """What was found, and the statements that mend it."""

    found: str
    to_do: str


def changed(conn: Connection) -> Changed | None:
    """Return what to do if the order of text is another than when the indexes were built. Known from PostgreSQL 15 on.

    An index that is out of order finds some names and not others: each run would add them again.
    """
    if not Capabilities.of(conn).collation_versions:
        return None
    ((name, built, now),) = conn.execute(VERSIONS)
    if None in (built, now) or built == now:
        return None
    database = Identifier(name).as_string(conn)
    return Changed(
        f"the indexes were built with version {built} of the operating system's order of text, which is {now} now",
        f"REINDEX DATABASE {database}; ALTER DATABASE {database} REFRESH COLLATION VERSION",
    )
