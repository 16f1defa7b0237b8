"""Which outbound tags and groups of ports are used, by which users, and which destinations have which tag."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from psycopg.sql import SQL, Composed, Literal

from xraylog.report.fragments import LET_IN, WINDOW
from xraylog.report.masking import Mask
from xraylog.report.model import NO_TAG, PORT_GROUPS, Thresholds, goes_nowhere
from xraylog.report.snapshot import Session

OTHER_PORTS = "other"

Counts: TypeAlias = Mapping[str, int]
OfUsers: TypeAlias = Mapping["int | None", Counts]

# The group of a port is found for each group of rows: for each row it takes longer than reading it.
USES = SQL("""
    SELECT v.user_id, g.name::text, v.ports, v.rows
    FROM (
        SELECT CASE WHEN u.user_id = ANY(%(users)s) THEN u.user_id END AS user_id, u.outbound_tag_id,
               {group} AS ports, sum(u.rows)::bigint AS rows
        FROM (
            SELECT l.user_id, l.outbound_tag_id, l.destination_port, count(*) AS rows
            FROM logs l
            WHERE {window} AND {let_in}
            GROUP BY l.user_id, l.outbound_tag_id, l.destination_port
        ) u
        GROUP BY 1, u.outbound_tag_id, 3
    ) v
    LEFT JOIN tags g ON g.id = v.outbound_tag_id
    ORDER BY v.user_id, g.name, v.ports
""")

TAGS = "SELECT id, name::text FROM tags"

# Only of tags that go nowhere: the destinations of the others are those that are visited most, and take too long.
GOALS = SQL("""
    SELECT g.name::text, e.address::text, f.rows
    FROM (
        SELECT l.outbound_tag_id, l.destination_id, count(*) AS rows,
               row_number() OVER (PARTITION BY l.outbound_tag_id ORDER BY count(*) DESC, l.destination_id) AS place
        FROM logs l
        WHERE {window} AND {let_in} AND l.destination_id IS NOT NULL
              AND l.outbound_tag_id = ANY(%(blocking)s)
        GROUP BY l.outbound_tag_id, l.destination_id
    ) f
    JOIN tags g ON g.id = f.outbound_tag_id
    JOIN endpoints e ON e.id = f.destination_id
    WHERE f.place <= %(most)s
    ORDER BY g.name, f.place
""").format(window=WINDOW, let_in=LET_IN)


def _group() -> Composed:
    """Return SQL for the number of the group that a destination's port is in."""
    cases = [
        SQL("WHEN u.destination_port = ANY({}) THEN {}").format(Literal([*ports]), Literal(number))
        for number, ports in enumerate(PORT_GROUPS.values())
    ]
    return SQL("CASE {} ELSE {} END").format(SQL(" ").join(cases), Literal(len(PORT_GROUPS)))


def uses(session: Session, shown: Sequence[int]) -> tuple[OfUsers, OfUsers]:
    """Return rows by user id and tag, and by user id and group of ports; those of no user that is shown under None."""
    tags: dict[int | None, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    ports: dict[int | None, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    groups = [*PORT_GROUPS, OTHER_PORTS]
    query = USES.format(group=_group(), window=WINDOW, let_in=LET_IN)
    for user, tag, group, rows in session.query("outbound tags and ports", query, users=shown):
        tags[user][tag or NO_TAG] += rows
        ports[user][groups[group]] += rows
    return tags, ports


def goals(session: Session, mask: Mask, thresholds: Thresholds) -> Mapping[str, Sequence[tuple[str, int]]]:
    """Return the most frequent destinations by tag, of tags that go nowhere."""
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    blocking = [number for number, name in session.query("tags", TAGS) if goes_nowhere(name)]
    if blocking:
        values = {"blocking": blocking, "most": thresholds.max_per_tag}
        for tag, address, rows in session.query("destinations of tags", GOALS, **values):
            found[tag].append((mask.destination(address), rows))
    return found


def sum_up(of_users: OfUsers) -> dict[str, int]:
    """Return the rows of all users together, by tag or group."""
    totals: dict[str, int] = defaultdict(int)
    for counts in of_users.values():
        for name, rows in counts.items():
            totals[name] += rows
    return dict(totals)
