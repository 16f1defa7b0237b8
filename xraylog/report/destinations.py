"""The destinations: which are visited most, which rise, which are new, by whom, and on which ports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from psycopg.sql import SQL

from xraylog.report.fragments import BOTH, WINDOW
from xraylog.report.masking import Mask
from xraylog.report.model import Destination, Port
from xraylog.report.snapshot import Session

MOST_DESTINATIONS = 100
MOST_CHANGED = 25  # rising, and new
MOST_OF_A_DESTINATION = 8  # visitors, and ports
MOST_PORTS = 30
NO_PROTOCOL = "(none)"  # a line can name a host and port, and no protocol

Visits: TypeAlias = tuple[int, Sequence[str], Sequence[tuple[str, int]]]  # users, ports, and the most frequent users


@dataclass(frozen=True, slots=True)
class Ranked:
    """The destinations of the page."""

    top: Sequence[Destination]
    rising: Sequence[Destination]
    new: Sequence[Destination]
    in_all: int  # destinations
    before: datetime | None  # the first one of the period before; without one nothing rises, and nothing is new
    begins_there: bool  # no row is older than the period before
    ports: Sequence[Port]


# Sorted by destination, the rows need no hash table: where a partition has been vacuumed, its index has them in that
# order. So hash tables are off meanwhile.
DESTINATIONS = SQL("""
    WITH goal AS (
        SELECT l.destination_id, count(*) FILTER (WHERE l."timestamp" >= %(since)s) AS rows,
               count(*) FILTER (WHERE l."timestamp" < %(since)s) AS rows_before, min(l."timestamp") AS first
        FROM logs l
        WHERE {window} AND l.destination_id IS NOT NULL
        GROUP BY l.destination_id
    ), ranked AS (
        SELECT goal.*, row_number() OVER (ORDER BY rows DESC, destination_id) AS place,
               row_number() OVER (PARTITION BY rows_before = 0
                                  ORDER BY rows - rows_before DESC, destination_id) AS gain,
               count(*) FILTER (WHERE rows > 0) OVER () AS in_all,
               min(first) FILTER (WHERE rows_before > 0) OVER () AS before
        FROM goal
    )
    SELECT r.destination_id, e.address::text, r.rows, r.rows_before, r.place, r.gain, r.in_all, r.before
    FROM ranked r JOIN endpoints e ON e.id = r.destination_id
    WHERE r.rows > 0 AND r.place <= %(most)s OR r.rows > r.rows_before AND r.gain <= %(most_changed)s
    ORDER BY r.place
""").format(window=BOTH)

OLDER = 'SELECT EXISTS (SELECT FROM logs WHERE "timestamp" < %(before)s)'

PORTS = SQL("""
    SELECT p.name::text, f.destination_port, f.rows
    FROM (
        SELECT l.protocol_id, l.destination_port, count(*) AS rows
        FROM logs l
        WHERE {window} AND l.destination_id IS NOT NULL AND l.destination_port IS NOT NULL
        GROUP BY l.protocol_id, l.destination_port
        ORDER BY count(*) DESC, l.destination_port, l.protocol_id
        LIMIT %(most)s
    ) f LEFT JOIN protocols p ON p.id = f.protocol_id
    ORDER BY f.rows DESC, f.destination_port, f.protocol_id
""").format(window=WINDOW)

# One scan for both: a row is about a user, or about a port.
VISITS = SQL("""
    WITH visit AS (
        SELECT l.destination_id, grouping(l.user_id) = 1 AS is_port, l.user_id, l.protocol_id, l.destination_port,
               count(*) AS rows
        FROM logs l
        WHERE {window} AND l.destination_id = ANY(%(ids)s)
        GROUP BY GROUPING SETS ((l.destination_id, l.user_id), (l.destination_id, l.protocol_id, l.destination_port))
    ), ranked AS (
        SELECT visit.*, coalesce(user_id, destination_port) AS number,
               count(*) OVER (PARTITION BY destination_id, is_port) AS in_all,
               row_number() OVER (PARTITION BY destination_id, is_port
                                  ORDER BY rows DESC, user_id, destination_port, protocol_id) AS place
        FROM visit
        WHERE coalesce(user_id, destination_port) IS NOT NULL
    )
    SELECT r.is_port, r.destination_id, r.number, coalesce(u.email::text, p.name::text), r.rows, r.in_all
    FROM ranked r LEFT JOIN users u ON u.id = r.user_id LEFT JOIN protocols p ON p.id = r.protocol_id
    WHERE r.place <= %(most)s
    ORDER BY r.destination_id, r.is_port, r.place
""").format(window=WINDOW)


def read(session: Session, mask: Mask) -> Ranked:
    """Those with the most rows, and those that gained most since the period before."""
    session.set("enable_hashagg", "off")
    chosen = session.query("destinations", DESTINATIONS, most=MOST_DESTINATIONS, most_changed=MOST_CHANGED)
    session.set("enable_hashagg", "on")
    visits = _visits(session, mask, [row[0] for row in chosen])
    found = [
        (Destination(mask.destination(address), rows, before, *visits[number]), place, gain)
        for number, address, rows, before, place, gain, *_ in chosen
    ]
    gained = [(goal, gain) for goal, _, gain in found if gain <= MOST_CHANGED and goal.rows > goal.rows_before]
    changed = [goal for goal, _ in sorted(gained, key=lambda of_goal: of_goal[1])]
    in_all, before = chosen[0][-2:] if chosen else (0, None)
    ((older,),) = session.query("older rows", OLDER)
    ports = session.query("ports", PORTS, most=MOST_PORTS)
    return Ranked(
        top=[goal for goal, place, _ in found if place <= MOST_DESTINATIONS and goal.rows],
        rising=[goal for goal in changed if goal.rows_before],
        new=[goal for goal in changed if before and not goal.rows_before],
        in_all=in_all,
        before=before,
        begins_there=not older,
        ports=[Port(name or NO_PROTOCOL, port, rows) for name, port, rows in ports],
    )


def _visits(session: Session, mask: Mask, ids: Sequence[int]) -> Mapping[int, Visits]:
    """By destination: how many users went there, on which ports, and who did most."""
    users: dict[int, int] = {}
    ports: dict[int, list[str]] = defaultdict(list)
    visitors: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for is_port, goal, number, name, rows, in_all in session.query(
        "visits", VISITS, ids=ids, most=MOST_OF_A_DESTINATION
    ):
        if is_port:
            ports[goal].append(f"{name or NO_PROTOCOL}/{number}")
        else:
            users[goal] = in_all
            visitors[goal].append((mask.user(number, name) or f"(id {number})", rows))
    return {goal: (users.get(goal, 0), ports[goal], visitors[goal]) for goal in ids}
