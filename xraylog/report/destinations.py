"""Destinations: which are visited most, which gained most, which are new; by whom, and on which ports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from operator import itemgetter
from typing import TypeAlias

from psycopg.sql import SQL

from xraylog.report.fragments import BOTH, LET_IN, WINDOW
from xraylog.report.model import NO_PROTOCOL, Destination, Thresholds
from xraylog.report.page_mask import PageMask
from xraylog.report.snapshot import Session
from xraylog.report.window import ONE_DAY, Window

Visits: TypeAlias = tuple[int, Sequence[str], Sequence[tuple[str, int]]]  # users, ports, and the most frequent users


@dataclass(frozen=True, slots=True)
class Ranked:
    """The ranked destinations of the page."""

    top: Sequence[Destination]
    rising: Sequence[Destination]
    new: Sequence[Destination]
    total: int  # destinations
    before: datetime | None  # the first row of the period before; without one nothing rises, and nothing is new
    is_first_period: bool  # no row is older than the period before
    missing_before: tuple[int, int]  # parts of the period before without a destination, and all


# Sorted by destination, the rows need no hash table: if a partition has been vacuumed, its index has them in that
# order, and `visited` reads nothing else. So hash tables are off for this query, and the few rows of clients that were
# not let in are subtracted: a condition on `action` would read each row in that order.
DESTINATIONS = SQL("""
    WITH visited AS (
        SELECT l.destination_id, count(*) FILTER (WHERE l."timestamp" >= %(since)s) AS rows,
               count(*) FILTER (WHERE l."timestamp" < %(since)s) AS rows_before, min(l."timestamp") AS first
        FROM logs l
        WHERE {window} AND l.destination_id IS NOT NULL
        GROUP BY l.destination_id
    ), left_out AS (
        SELECT l.destination_id, count(*) FILTER (WHERE l."timestamp" >= %(since)s) AS rows,
               count(*) FILTER (WHERE l."timestamp" < %(since)s) AS rows_before
        FROM logs l
        WHERE {window} AND NOT ({let_in}) AND l.destination_id IS NOT NULL
        GROUP BY l.destination_id
    ), destination AS (
        SELECT c.*
        FROM (
            SELECT v.destination_id, v.rows - coalesce(o.rows, 0) AS rows,
                   v.rows_before - coalesce(o.rows_before, 0) AS rows_before, v.first
            FROM visited v LEFT JOIN left_out o ON o.destination_id = v.destination_id
        ) c
        WHERE c.rows > 0 OR c.rows_before > 0
    ), ranked AS (
        SELECT destination.*, row_number() OVER (ORDER BY rows DESC, destination_id) AS place,
               row_number() OVER (PARTITION BY rows_before = 0, rows * 2 >= rows_before * 3
                                  ORDER BY rows - rows_before DESC, destination_id) AS gain,
               count(*) FILTER (WHERE rows > 0) OVER () AS total,
               min(first) FILTER (WHERE rows_before > 0) OVER () AS before
        FROM destination
    )
    SELECT r.destination_id, e.address::text, r.rows, r.rows_before, r.place, r.gain, r.total, r.before
    FROM ranked r JOIN endpoints e ON e.id = r.destination_id
    WHERE r.rows > 0 AND r.place <= %(max_destinations)s
          OR r.rows * 2 >= r.rows_before * 3 AND r.gain <= %(max_changed)s
    ORDER BY r.place
""").format(window=BOTH, let_in=LET_IN)

OLDER = 'SELECT EXISTS (SELECT 1 FROM logs WHERE "timestamp" < %(before)s)'

# One part at a time: PostgreSQL 10 would read all partitions for all of them.
PART = SQL("SELECT EXISTS (SELECT 1 FROM logs l WHERE {window} AND l.destination_id IS NOT NULL)").format(window=WINDOW)
MIN_PARTS, MAX_PARTS = 2, 30

# One scan for both: a row is about a user, or about a port. No GROUPING SETS: Citus refuses them.
VISITS = SQL("""
    WITH visit AS (
        SELECT l.destination_id, l.user_id, l.protocol_id, l.destination_port, count(*) AS rows
        FROM logs l
        WHERE {window} AND {let_in} AND l.destination_id = ANY(%(ids)s)
        GROUP BY l.destination_id, l.user_id, l.protocol_id, l.destination_port
    ), counted AS (
        SELECT destination_id, false AS is_port, user_id, NULL::integer AS protocol_id,
               NULL::integer AS destination_port, sum(rows)::bigint AS rows
        FROM visit
        WHERE user_id IS NOT NULL
        GROUP BY destination_id, user_id
        UNION ALL
        SELECT destination_id, true, NULL, protocol_id, destination_port, sum(rows)::bigint
        FROM visit
        WHERE destination_port IS NOT NULL
        GROUP BY destination_id, protocol_id, destination_port
    ), ranked AS (
        SELECT counted.*, coalesce(user_id, destination_port) AS number,
               count(*) OVER (PARTITION BY destination_id, is_port) AS total,
               row_number() OVER (PARTITION BY destination_id, is_port
                                  ORDER BY rows DESC, user_id, destination_port, protocol_id) AS place
        FROM counted
    )
    SELECT r.is_port, r.destination_id, r.number, coalesce(u.email::text, p.name::text), r.rows, r.total
    FROM ranked r LEFT JOIN users u ON u.id = r.user_id LEFT JOIN protocols p ON p.id = r.protocol_id
    WHERE r.place <= %(most)s
    ORDER BY r.destination_id, r.is_port, r.place
""").format(window=WINDOW, let_in=LET_IN)


def read(session: Session, window: Window, mask: PageMask, thresholds: Thresholds) -> Ranked:
    """Return the destinations with the most rows, and those that gained most since the period before."""
    max_changed = thresholds.max_changed
    limits = {"max_destinations": thresholds.max_destinations, "max_changed": max_changed}
    session.set("enable_hashagg", "off")
    chosen = session.query("destinations", DESTINATIONS, **limits)
    session.set("enable_hashagg", "on")
    visits = _visits(session, mask, [row[0] for row in chosen], thresholds.max_per_destination)
    found = [
        (Destination(mask.destination(address), rows, before, *visits[number]), place, gain)
        for number, address, rows, before, place, gain, *_ in chosen
    ]
    gained = sorted(((gain, of) for of, _, gain in found if gain <= max_changed), key=itemgetter(0))
    changed = [of for _, of in gained if of.rows * 2 >= of.rows_before * 3]  # a large one gains some by chance
    total, before = chosen[0][-2:] if chosen else (0, None)
    ((has_older_rows,),) = session.query("older rows", OLDER)
    return Ranked(
        top=[
            destination for destination, place, _ in found if place <= thresholds.max_destinations and destination.rows
        ],
        rising=[destination for destination in changed if destination.rows_before],
        new=[destination for destination in changed if before and not destination.rows_before],
        total=total,
        before=before,
        is_first_period=not has_older_rows,
        missing_before=_missing_before(session, window) if before else (0, 0),
    )


def _missing_before(session: Session, window: Window) -> tuple[int, int]:
    """Return how many parts of the previous period, of a day or more, have no row, and how many parts there are."""
    length = window.until - window.since
    parts = min(MAX_PARTS, length // ONE_DAY)
    if parts < MIN_PARTS:
        return 0, 0
    borders = [window.before + number * (length / parts) for number in range(parts + 1)]
    found = [
        session.query(f"the period before, {since:%Y-%m-%d}", PART, since=since, until=until)
        for since, until in pairwise(borders)
    ]
    return sum(not has_rows for ((has_rows,),) in found), parts


def _visits(session: Session, mask: PageMask, ids: Sequence[int], most: int) -> Mapping[int, Visits]:
    """Return for each destination the number of users, the ports, and the most frequent users."""
    users: dict[int, int] = {}
    ports: dict[int, list[str]] = defaultdict(list)
    visitors: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for is_port, destination, number, name, rows, total in session.query("visits", VISITS, ids=ids, most=most):
        if is_port:
            ports[destination].append(f"{name or NO_PROTOCOL}/{number}")
        else:
            users[destination] = total
            visitors[destination].append((mask.user(number, name) or f"(id {number})", rows))
    return {destination: (users.get(destination, 0), ports[destination], visitors[destination]) for destination in ids}
