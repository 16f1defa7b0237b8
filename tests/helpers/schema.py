"""Read the partitions from the catalog."""

from __future__ import annotations

import re

from xraylog.database.session import Connection


def bounds(conn: Connection) -> dict[str, tuple[str, str]]:
    """Return each partition with its lower and upper bound in UTC, ordered by time."""
    with conn.transaction():
        conn.execute("SET LOCAL timezone TO 'UTC'")
        conn.execute("SET LOCAL datestyle TO 'ISO'")
        rows: list[tuple[str, str]] = conn.execute("""
            SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class WHERE relispartition AND relkind = 'r'
        """).fetchall()
    found = {name: re.findall(r"'(.*?)'|(MINVALUE|MAXVALUE)", bound) for name, bound in rows if bound != "DEFAULT"}
    plain = {name: ("".join(low), "".join(high)) for name, (low, high) in found.items()}
    return dict(sorted(plain.items(), key=lambda item: item[1][0].replace("MINVALUE", "")))
