"""Query which outbound tags and ports are used, and by which users; and the destinations of tags that block."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from psycopg.sql import SQL, Composed, Literal

from xraylog.report.fragments import LET_IN, WINDOW
from xraylog.report.model import NO_PROTOCOL, NO_TAG, PORT_GROUPS, Port, Thresholds, goes_nowhere
from xraylog.report.page_mask import PageMask
from xraylog.report.snapshot import Session

OTHER_PORTS = "other"

Counts: TypeAlias = Mapping[str, int]
OfUsers: TypeAlias = Mapping["int | None", Counts]


@dataclass(frozen=True, slots=True)
class Uses:
    """Row counts by tag and by port. Users that the page does not show are counted together under None."""

    tags: OfUsers  # rows by outbound tag
    port_groups: OfUsers
    ports: Sequence[Port]  # those with the most rows


# One scan for both: `is_port` says whether a row is about a port or a user. The port group is computed after grouping,
# because for every single row that would take longer than reading it. No GROUPING SETS: Citus refuses them.
USES = SQL("""
    WITH used AS (
        SELECT l.user_id, l.outbound_tag_id, l.protocol_id, l.destination_port,
               count(*) AS rows, count(l.destination_id) AS visits
        FROM logs l
        WHERE {window} AND {let_in}
        GROUP BY l.user_id, l.outbound_tag_id, l.protocol_id, l.destination_port
    ), of_user AS (
        SELECT CASE WHEN u.user_id = ANY(%(users)s) THEN u.user_id END AS user_id, u.outbound_tag_id,
               {group} AS ports, sum(u.rows)::bigint AS rows
        FROM used u
        GROUP BY 1, u.outbound_tag_id, 3
    ), of_port AS (
        SELECT u.protocol_id, u.destination_port, sum(u.visits)::bigint AS rows
        FROM used u
        WHERE u.visits > 0 AND u.destination_port IS NOT NULL
        GROUP BY u.protocol_id, u.destination_port
        ORDER BY sum(u.visits) DESC, u.destination_port, u.protocol_id
        LIMIT %(most)s
    )
    SELECT false AS is_port, v.user_id AS number, g.name::text AS name, v.ports, v.rows
    FROM of_user v LEFT JOIN tags g ON g.id = v.outbound_tag_id
    UNION ALL
    SELECT true, f.protocol_id, p.name::text, f.destination_port, f.rows
    FROM of_port f LEFT JOIN protocols p ON p.id = f.protocol_id
    ORDER BY is_port, number, name, ports
""")

TAGS = "SELECT id, name::text FROM tags"

# Only for tags that block: nearly all rows have other tags, so for these it would take too long.
TAG_DESTINATIONS = SQL("""
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
    """Return SQL for the number of the port group that a destination port belongs to."""
    cases = [
        SQL("WHEN u.destination_port = ANY({}) THEN {}").format(Literal([*ports]), Literal(number))
        for number, ports in enumerate(PORT_GROUPS.values())
    ]
    return SQL("CASE {} ELSE {} END").format(SQL(" ").join(cases), Literal(len(PORT_GROUPS)))


def uses(session: Session, shown: Sequence[int], thresholds: Thresholds) -> Uses:
    """Return row counts by user id and tag, by user id and port group, and by port."""
    tags: dict[int | None, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    port_groups: dict[int | None, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    ports = list[Port]()
    groups = [*PORT_GROUPS, OTHER_PORTS]
    query = USES.format(group=_group(), window=WINDOW, let_in=LET_IN)
    values = {"users": shown, "most": thresholds.max_ports}
    for is_port, user, name, port, rows in session.query("outbound tags and ports", query, **values):
        if is_port:
            ports.append(Port(name or NO_PROTOCOL, port, rows))
        else:
            tags[user][name or NO_TAG] += rows
            port_groups[user][groups[port]] += rows
    ports.sort(key=lambda port: (-port.rows, port.port))  # a stable sort: equal ones stay ordered by protocol
    return Uses(tags, port_groups, ports)


def tag_destinations(
    session: Session, mask: PageMask, thresholds: Thresholds
) -> Mapping[str, Sequence[tuple[str, int]]]:
    """Return the most frequent destinations of each outbound tag that blocks."""
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    blocking = [number for number, name in session.query("tags", TAGS) if goes_nowhere(name)]
    if blocking:
        values = {"blocking": blocking, "most": thresholds.max_per_tag}
        for tag, address, rows in session.query("destinations of tags", TAG_DESTINATIONS, **values):
            found[tag].append((mask.destination(address), rows))
    return found


def sum_up(of_users: OfUsers) -> dict[str, int]:
    """Return the row counts of all users together, by tag or group."""
    totals: dict[str, int] = defaultdict(int)
    for counts in of_users.values():
        for name, rows in counts.items():
            totals[name] += rows
    return dict(totals)
