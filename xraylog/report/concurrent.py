"""Query the largest number of addresses that each user had within ten minutes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta

from psycopg.sql import SQL, Literal

from xraylog.database.capabilities import Capabilities
from xraylog.report.fragments import CLIENT, LET_IN, WINDOW, clock_slot
from xraylog.report.snapshot import Session
from xraylog.report.window import Window

WITHIN = timedelta(minutes=10)

# An address counts as present from each of its rows to ten minutes later. Within one slot of ten minutes it is present
# from its first to its last row; slots that touch are merged into one stay; the result is the largest number of stays
# at any moment. One day at a time, so that it is sorted in memory, beginning ten minutes before midnight.
DAY = """
    WITH source AS (
        SELECT l.user_id, l.source_ip, {piece} AS piece, min(l."timestamp") AS first,
               max(l."timestamp") + {within} AS until
        FROM logs l
        WHERE {window} AND {let_in} AND l.user_id IN (SELECT unnest(%(users)s::integer[]))
        GROUP BY l.user_id, l.source_ip, piece
    ), seen AS (
        SELECT c.user_id, c.source_ip, min(c.first) AS first, max(c.until) AS until
        FROM (
            SELECT l.user_id, {client} AS source_ip, l.piece, l.first, l.until FROM source l
        ) c
        WHERE c.source_ip IS NOT NULL
        GROUP BY c.user_id, c.source_ip, c.piece
    ), stay AS (
        SELECT user_id, first, until, lag(until) OVER pieces AS before, lead(first) OVER pieces AS next
        FROM seen
        WINDOW pieces AS (PARTITION BY user_id, source_ip ORDER BY first)
    ), step AS (
        SELECT user_id, first AS at, 1 AS change FROM stay WHERE before IS NULL OR before <= first
        UNION ALL
        SELECT user_id, until, -1 FROM stay WHERE next IS NULL OR next >= until
    )
    SELECT user_id, max(addresses)
    FROM (
        SELECT user_id, sum(change) OVER (PARTITION BY user_id ORDER BY at, change ROWS UNBOUNDED PRECEDING)
               AS addresses
        FROM step
    ) s
    GROUP BY user_id
"""


def read(session: Session, window: Window, bounds: Mapping[int, Sequence[int]]) -> Mapping[int, int]:
    """Return that number by user id. `bounds`: by user id, an upper limit for each day.

    Sorting many ten-minute slots is slow, so the day with the highest limit of each user is read first, and then only
    those days that can have more.
    """
    found = {user: min(1, max(of_days)) for user, of_days in bounds.items()}
    slot = clock_slot(Capabilities.of(session.conn), WITHIN)
    query = SQL(DAY).format(window=WINDOW, let_in=LET_IN, piece=slot, client=CLIENT, within=Literal(WITHIN))
    midnights = [*window.midnights, window.until]
    for what, number, users in _order(bounds, len(window.days)):
        candidates = [user for user in users if bounds[user][number] > found[user]]
        if not candidates:
            continue
        values = {"since": max(midnights[number] - WITHIN, window.since), "until": midnights[number + 1]}
        for user, addresses in session.query(f"{what}, {window.days[number]}", query, **values, users=candidates):
            found[user] = max(found[user], addresses)
    return found


def _order(bounds: Mapping[int, Sequence[int]], days: int) -> Iterator[tuple[str, int, Collection[int]]]:
    """Yield the queries to run: name, number of the day, and users; for each user the most promising day first."""
    promising = defaultdict[int, set[int]](set)
    for user, of_days in bounds.items():
        promising[of_days.index(max(of_days))].add(user)
    for number, users in promising.items():
        yield "concurrent addresses", number, users
    for number in range(days):
        yield "more concurrent addresses", number, bounds.keys() - promising[number]
