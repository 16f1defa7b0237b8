"""The destinations: which are visited most, which rise, which are new, by whom, and on which ports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg.sql import SQL

from xraylog.report.common import BOTH, WINDOW
from xraylog.report.findings import Destination, Mask, Port
from xraylog.report.snapshot import Asking, Row

MOST_DESTINATIONS = 100
MOST_CHANGED = 25  # rising, and new
MOST_VISITORS = 8  # of one destination
MOST_PORTS = 30
NO_PROTOCOL = "(none)"  # a line can name a host and port, and no protocol


@dataclass(frozen=True, slots=True)
class Ranked:
    """The destinations of the page."""

    top: Sequence[Destination]
    rising: Sequence[Destination]
    new: Sequence[Destination]
    has_before: bool  # else nothing rises, and nothing is new
    ports: Sequence[Port]


# Of each destination, protocol and port; the rest is made of these groups. `what` tells of what each row is.
DESTINATIONS = SQL("""
    WITH goal AS (
        SELECT l.destination_id, l.protocol_id, l.destination_port,
               count(*) FILTER (WHERE l."timestamp" >= %(since)s) AS rows,
               count(*) FILTER (WHERE l."timestamp" < %(since)s) AS rows_before
        FROM logs l
        WHERE {window} AND l.destination_id IS NOT NULL
        GROUP BY l.destination_id, l.protocol_id, l.destination_port
    ), destination AS (
        SELECT destination_id, sum(rows)::bigint AS rows, sum(rows_before)::bigint AS rows_before
        FROM goal
        GROUP BY destination_id
    ), ranked AS (
        SELECT d.*, row_number() OVER (ORDER BY rows DESC, destination_id) AS place,
               row_number() OVER (PARTITION BY rows_before = 0
                                  ORDER BY rows - rows_before DESC, destination_id) AS gain,
               sum(rows_before) OVER () > 0 AS has_before
        FROM destination d
    ), chosen AS (
        SELECT *
        FROM ranked
        WHERE rows > 0 AND place <= %(most)s OR rows > rows_before AND gain <= %(most_changed)s
    )
    SELECT 'destination' AS what, c.destination_id AS id, e.address::text AS name, NULL::integer AS port, c.rows,
           c.rows_before, c.place, c.gain, c.has_before
    FROM chosen c JOIN endpoints e ON e.id = c.destination_id
    UNION ALL
    SELECT 'port of it', g.destination_id, p.name::text, g.destination_port, g.rows, NULL, NULL, NULL, NULL
    FROM goal g JOIN chosen USING (destination_id) LEFT JOIN protocols p ON p.id = g.protocol_id
    WHERE g.rows > 0 AND g.destination_port IS NOT NULL
    UNION ALL
    SELECT 'port', NULL, p.name::text, f.destination_port, f.rows, NULL, NULL, NULL, NULL
    FROM (
        SELECT protocol_id, destination_port, sum(rows)::bigint AS rows
        FROM goal
        WHERE destination_port IS NOT NULL
        GROUP BY protocol_id, destination_port
        ORDER BY sum(rows) DESC, destination_port, protocol_id
        LIMIT %(most_ports)s
    ) f LEFT JOIN protocols p ON p.id = f.protocol_id
    WHERE f.rows > 0
""").format(window=BOTH)
VISITORS = SQL("""
    WITH visit AS (
        SELECT l.destination_id, l.user_id, count(*) AS rows
        FROM logs l
        WHERE {window} AND l.destination_id = ANY(%(ids)s) AND l.user_id IS NOT NULL
        GROUP BY l.destination_id, l.user_id
    )
    SELECT v.destination_id, v.users, v.user_id, u.email::text, v.rows
    FROM (
        SELECT visit.*, count(*) OVER (PARTITION BY destination_id) AS users,
               row_number() OVER (PARTITION BY destination_id ORDER BY rows DESC, user_id) AS place
        FROM visit
    ) v LEFT JOIN users u ON u.id = v.user_id
    WHERE v.place <= %(most)s
    ORDER BY v.destination_id, v.place
""").format(window=WINDOW)


def ask(asking: Asking, mask: Mask) -> Ranked:
    """Those with the most rows, and those that gained most since the period before."""
    of: dict[str, list[Row]] = defaultdict(list)
    limits = {"most": MOST_DESTINATIONS, "most_changed": MOST_CHANGED, "most_ports": MOST_PORTS}
    for what, *row in asking.ask("destinations", DESTINATIONS, **limits):
        of[what].append(tuple(row))
    ports: dict[int, list[Row]] = defaultdict(list)
    for goal, *port in of["port of it"]:
        ports[goal].append(tuple(port))
    visitors, users = _visitors(asking, mask, [row[0] for row in of["destination"]])
    found = [
        (
            Destination(
                address=mask.destination(address),
                rows=rows,
                rows_before=before,
                users=users.get(goal, 0),
                ports=[
                    f"{name or NO_PROTOCOL}/{port}"
                    for name, port, *_ in sorted(ports[goal], key=lambda row: (-row[2], row[1]))
                ],
                visitors=visitors[goal],
            ),
            *ranks,
        )
        for goal, address, _, rows, before, *ranks in of["destination"]
    ]
    gained = [(goal, gain) for goal, _, gain, _ in found if gain <= MOST_CHANGED and goal.rows > goal.rows_before]
    changed = [goal for goal, _ in sorted(gained, key=lambda of_goal: of_goal[1])]
    has_before = any(has_before for *_, has_before in found)
    return Ranked(
        top=[
            goal
            for goal, place, *_ in sorted(found, key=lambda row: row[1])
            if place <= MOST_DESTINATIONS and goal.rows
        ],
        rising=[goal for goal in changed if goal.rows_before],
        new=[goal for goal in changed if has_before and not goal.rows_before],
        has_before=has_before,
        ports=sorted(
            (Port(name or NO_PROTOCOL, port, rows) for _, name, port, rows, *_ in of["port"]),
            key=lambda port: (-port.rows, port.port, port.protocol),
        ),
    )


def _visitors(
    asking: Asking, mask: Mask, ids: Sequence[int]
) -> tuple[Mapping[int, list[tuple[str, int]]], dict[int, int]]:
    """Who went there most, and how many did; by destination."""
    visitors: dict[int, list[tuple[str, int]]] = defaultdict(list)
    users: dict[int, int] = {}
    for goal, count, user, name, rows in asking.ask("visitors of destinations", VISITORS, ids=ids, most=MOST_VISITORS):
        users[goal] = count
        visitors[goal].append((mask.user(user, name) or f"(id {user})", rows))
    return visitors, users
