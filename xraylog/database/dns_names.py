"""Fill the table `dns_names`: which names an address had, by day and node. It exists only with [parser] dns_answers.

It has no foreign keys, so that no session has to wait for it. A row whose name has been removed is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timezone

from xraylog.database import positions, session
from xraylog.database.optional import OptionalTable
from xraylog.database.session import Connection

# The rows of a day are next to each other, so BRIN finds those that have expired.
CREATE = """
    CREATE TABLE dns_names (
        day         date    NOT NULL,
        node_id     integer NOT NULL,
        address     inet    NOT NULL,
        endpoint_id integer NOT NULL,
        PRIMARY KEY (address, day, endpoint_id, node_id)
    );
    CREATE INDEX ON dns_names (endpoint_id);
    CREATE INDEX ON dns_names USING brin (day) WITH (autosummarize = on);
"""
TABLE = OptionalTable("dns_names", ("day", "node_id", "address", "endpoint_id"), CREATE, ("SELECT", "INSERT", "DELETE"))
CHUNK_NAMES = 5_000  # stored in one transaction
# Because of the node's lock, prune_names cannot remove a name between this query and the INSERT.
EXISTING = "SELECT id FROM endpoints WHERE id = ANY (%s)"
INSERT = """
    INSERT INTO dns_names (day, node_id, address, endpoint_id)
    SELECT day, %s, address, endpoint_id
    FROM unnest(%s::date[], %s::inet[], %s::integer[]) AS found (day, address, endpoint_id)
    ON CONFLICT DO NOTHING
"""
EXPIRED = "SELECT count(*) FROM dns_names WHERE day < %s"
REMOVE = """
    DELETE FROM dns_names
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM dns_names WHERE day < %s LIMIT %s))
"""
USED = "SELECT endpoint_id FROM dns_names"


def store(
    conn: Connection,
    node: tuple[str, int],
    found: Iterable[tuple[date, str, str]],
    ids_of: Callable[[Sequence[str]], Mapping[str, int]],
) -> int:
    """Store those days, addresses and names that are new; return how many. Raises Unsuitable.

    `node`: its name and id. `ids_of`: returns the ids of names in `endpoints`, adding those that are missing.
    """
    with session.transaction(conn):
        TABLE.ensure(conn)
    rows, stored = sorted(found), 0
    for start in range(0, len(rows), CHUNK_NAMES):
        chunk = rows[start : start + CHUNK_NAMES]
        ids = ids_of(sorted({name for _, _, name in chunk}))
        with session.transaction(conn, positions.node_lock(node[0])):
            existing = {number for (number,) in conn.execute(EXISTING, [list(ids.values())])}
            known = [(day, address, ids[name]) for day, address, name in chunk if ids.get(name) in existing]
            columns = [list(column) for column in zip(*known, strict=True)] or [[], [], []]
            stored += conn.execute(INSERT, [node[1], *columns]).rowcount
    return stored


def expired(conn: Connection, cutoff: datetime) -> int:
    """Return how many rows are of days before a moment. Call it in a transaction."""
    if not TABLE.state(conn).is_there:
        return 0
    ((count,),) = conn.execute(EXPIRED, [_day(cutoff)])
    return int(count)


def remove(conn: Connection, cutoff: datetime, limit: int) -> int:
    """Remove at most `limit` rows of days before a moment; return how many. Call it in a transaction."""
    return conn.execute(REMOVE, [_day(cutoff), limit]).rowcount


def _day(moment: datetime) -> date:
    return moment.astimezone(timezone.utc).date()
