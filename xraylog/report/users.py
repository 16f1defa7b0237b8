"""Query the users: how many addresses use each account, when, and to which destinations they connect."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from psycopg.sql import SQL, Composed, Literal, Placeholder

from xraylog.report.concurrent import WITHIN
from xraylog.report.fragments import CLIENT, LET_IN, SHOWN, WINDOW
from xraylog.report.model import Thresholds, User
from xraylog.report.page_mask import PageMask
from xraylog.report.snapshot import Row, Session
from xraylog.report.window import Window

MAX_PIECES = 90  # parts of a query joined by UNION ALL; PostgreSQL 10 plans each of them for all partitions

Counts: TypeAlias = Sequence[tuple[str, int]]  # addresses with their rows, the most rows first


@dataclass(frozen=True, slots=True)
class Totals:
    """The counts of the users with the most rows, by user id."""

    total: int  # how many users there are, shown or not
    rows: int  # of all users
    users: Mapping[int, Row]  # name, rows, first, last; the most rows first
    networks: Mapping[int, Mapping[int, int]]  # number of networks, by family (4 or 6)
    addresses: Mapping[int, int]  # number of addresses
    visited_from: Mapping[int, Counts]
    by_day: Mapping[int, Sequence[int]]  # rows of each day
    by_hour: Mapping[int, Sequence[int]]  # for each day a bit mask of the hours in which the user was let in
    concurrent: Mapping[int, Sequence[int]]  # for each day an upper limit of the addresses within ten minutes


# The rows of a few days by user and address. Grouping day by day keeps the groups in the caches of the processor.
# {hour} has a parameter with the hours of these days; shorter days are filled up with empty hours.
PIECE = """
        SELECT {day} AS day, l.user_id, l.source_ip, count(*) AS rows,
               min(l."timestamp") AS first, max(l."timestamp") AS last,
               bit_or(1 << {hour}) AS hours
        FROM logs l
        WHERE l."timestamp" >= {since} AND l."timestamp" < {until}
              AND (%(node)s::integer IS NULL OR l.node_id = %(node)s) AND l.user_id IS NOT NULL AND {let_in}
        GROUP BY day, l.user_id, l.source_ip"""

# One scan; everything else is built from its groups, which are few compared with the rows. `what` says what a row is
# about: all users, one user, the networks of a family, the number of addresses, one address, or one day. In `stay`, an
# address is present from its first row of a day to ten minutes after its last one, or to midnight if it has rows on the
# next day before then. So at any moment at least as many addresses are present as within the ten minutes before it.
VISITS = """
    WITH visit AS ({pieces}
    ), top AS (
        SELECT user_id, sum(rows) AS rows, min(first) AS first, max(last) AS last,
               count(*) OVER () AS total_users, sum(sum(rows)) OVER () AS total_rows
        FROM visit
        GROUP BY user_id
        ORDER BY sum(rows) DESC, user_id
        LIMIT %(max_users)s
    ), seen AS (
        SELECT c.user_id, c.source_ip, c.day, sum(c.rows) AS rows, min(c.first) AS first, max(c.last) AS last,
               bit_or(c.hours) AS hours
        FROM (
            SELECT l.user_id, {client} AS source_ip, l.day, l.rows, l.first, l.last, l.hours
            FROM visit l JOIN top ON top.user_id = l.user_id
        ) c
        GROUP BY c.user_id, c.source_ip, c.day
    ), neighbour AS (
        SELECT user_id, day, first, last + {within} AS until, lag(last + {within}) OVER days AS before,
               lead(first) OVER days AS next, lead(day) OVER days AS next_day
        FROM seen
        WHERE source_ip IS NOT NULL
        WINDOW days AS (PARTITION BY user_id, source_ip ORDER BY day)
    ), stay AS (
        SELECT user_id, day, CASE WHEN before > first THEN (%(midnights)s::timestamptz[])[day + 1] ELSE first END
               AS since,
               CASE WHEN next < until THEN (%(midnights)s::timestamptz[])[next_day + 1] ELSE until END AS until
        FROM neighbour
    ), step AS (
        SELECT user_id, day, since AS at, 1 AS change FROM stay
        UNION ALL
        SELECT user_id, day, until, -1 FROM stay
    ), concurrent AS (
        SELECT user_id, day, max(addresses) AS addresses
        FROM (
            SELECT user_id, day, change,
                   sum(change) OVER (PARTITION BY user_id ORDER BY at, change ROWS UNBOUNDED PRECEDING) AS addresses
            FROM step
        ) s
        WHERE change > 0
        GROUP BY user_id, day
    ), day AS (
        SELECT user_id, day, sum(rows)::bigint AS rows, bit_or(hours) AS hours FROM seen GROUP BY user_id, day
    ), address AS (
        SELECT user_id, source_ip, sum(rows) AS rows
        FROM seen
        WHERE source_ip IS NOT NULL
        GROUP BY user_id, source_ip
    ), network AS (
        SELECT a.user_id, family(a.source_ip) AS family, count(*) AS addresses,
               network(set_masklen(a.source_ip, least(masklen(a.source_ip),
                                                      CASE family(a.source_ip) WHEN 4 THEN 24 ELSE 48 END))) AS network
        FROM address a
        GROUP BY a.user_id, family, network
    ), shown AS (
        SELECT s.user_id, s.source, sum(s.rows) AS rows,
               row_number() OVER (PARTITION BY s.user_id ORDER BY sum(s.rows) DESC, s.source) AS place
        FROM (SELECT l.user_id, l.rows, {shown} AS source FROM address l) s
        GROUP BY s.user_id, s.source
    )
    SELECT 'all' AS what, NULL::integer AS user_id, NULL AS name, max(total_users) AS number,
           max(total_rows)::bigint AS rows, NULL::timestamptz AS first, NULL::timestamptz AS last,
           NULL::integer AS hours, NULL::bigint AS concurrent
    FROM top
    UNION ALL
    SELECT 'user', t.user_id, u.email::text, NULL, t.rows::bigint, t.first, t.last, NULL, NULL
    FROM top t LEFT JOIN users u ON u.id = t.user_id
    UNION ALL
    SELECT 'networks', user_id, NULL, family, count(*), NULL, NULL, NULL, NULL
    FROM network
    GROUP BY user_id, family
    UNION ALL
    SELECT 'addresses', user_id, NULL, NULL, sum(addresses)::bigint, NULL, NULL, NULL, NULL
    FROM network
    GROUP BY user_id
    UNION ALL
    SELECT 'address', user_id, abbrev(source::inet), place, rows::bigint, NULL, NULL, NULL, NULL
    FROM shown
    WHERE place <= least(%(max_per_user)s, %(max_of_all_users)s / (SELECT count(*) FROM top))
    UNION ALL
    SELECT 'day', d.user_id, NULL, d.day, d.rows, NULL, NULL, d.hours, coalesce(c.addresses, 0)
    FROM day d LEFT JOIN concurrent c ON c.user_id = d.user_id AND c.day = d.day
"""

# The users whose destinations are read. If the page does not show all users, only those that it shows.
EVERYBODY = SQL("l.user_id IS NOT NULL")
CHOSEN = SQL("l.user_id IN (SELECT unnest(%(users)s::integer[]))")

# A pair of user and destination is packed into one number, which sorts faster than two. It cannot be hashed well: the
# server hashes 64 bits as one half XOR the other, and such hashes collide. So hash tables are off for this query. Most
# pairs have one row, and each of these is looked up in `light_users`. IN uses a hash table for that; = ANY searches
# the whole list before PostgreSQL 14, and is slower even afterwards.
DESTINATIONS = """
    SELECT p.user_id, e.address::text, p.rows
    FROM (
        SELECT g.pair >> 32 AS user_id, g.pair & 4294967295 AS destination_id, g.rows,
               row_number() OVER (PARTITION BY g.pair >> 32 ORDER BY g.rows DESC, g.pair) AS place
        FROM (
            SELECT l.user_id * 4294967296 + l.destination_id AS pair, count(*) AS rows
            FROM logs l
            WHERE {window} AND {whose} AND {let_in} AND l.destination_id IS NOT NULL
            GROUP BY pair
        ) g
        WHERE g.rows > 1 OR g.pair >> 32 IN (SELECT unnest(%(light_users)s::integer[]))
        OFFSET 0  -- otherwise each pair is looked up among the users
    ) p
    JOIN endpoints e ON e.id = p.destination_id
    WHERE p.user_id = ANY(%(users)s)
          AND p.place <= least(%(max_per_user)s, %(max_of_all_users)s / greatest(1, cardinality(%(users)s::integer[])))
    ORDER BY p.user_id, p.place
"""


def totals(session: Session, window: Window, thresholds: Thresholds) -> Totals:
    """Return the users with the most rows, with their rows and addresses."""
    limits = {"max_per_user": thresholds.max_per_user, "max_of_all_users": thresholds.max_of_all_users}
    pieces, values = _pieces(window)
    query = SQL(VISITS).format(pieces=pieces, client=CLIENT, shown=SHOWN, within=Literal(WITHIN))
    groups: dict[str, dict[Any, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for what, user, *row in session.query("users", query, max_users=thresholds.max_users, **limits, **values):
        groups[what][user].append(tuple(row))
    ((_, total, total_rows, *_),) = groups["all"][None]
    users = [(user, row) for user, (row,) in groups["user"].items()]
    by_day, by_hour, concurrent = ({user: [0] * len(window.days) for user, _ in users} for _ in range(3))
    for user, rows in groups["day"].items():
        for _, day, count, _, _, hours, addresses in rows:
            by_day[user][day], by_hour[user][day], concurrent[user][day] = count, hours, addresses
    return Totals(
        total or 0,
        total_rows or 0,
        {
            user: (name, rows, first, last)
            for user, (name, _, rows, first, last, *_) in sorted(users, key=lambda item: (-item[1][2], item[0]))
        },
        {user: {family: count for _, family, count, *_ in rows} for user, rows in groups["networks"].items()},
        {user: count for user, ((_, _, count, *_),) in groups["addresses"].items()},
        {
            user: [(address, count) for address, _, count, *_ in sorted(rows, key=lambda row: row[1])]
            for user, rows in groups["address"].items()
        },
        by_day,
        by_hour,
        concurrent,
    )


def _pieces(window: Window) -> tuple[Composed, Mapping[str, Any]]:
    """Return SQL for the rows of each day by user and address, and the values of its parameters."""
    length = -(-len(window.days) // MAX_PIECES)  # in days
    ends = [*window.midnights, window.until]
    values, pieces = dict[str, Any](midnights=window.midnights), list[Composed]()
    for first in range(0, len(window.days), length):
        last = min(first + length, len(window.days))
        hours = window.hours_of_days(first, last)
        values |= {f"since_{first}": ends[first], f"until_{first}": ends[last], f"hours_{first}": hours}
        hour = SQL("""(width_bucket(l."timestamp", {}::timestamptz[]) - 1)""").format(Placeholder(f"hours_{first}"))
        of_day = Literal(len(hours) // (last - first))
        pieces.append(
            SQL(PIECE).format(
                day=Literal(first) if length == 1 else SQL("{} + {} / {}").format(Literal(first), hour, of_day),
                hour=hour if length == 1 else SQL("mod({}, {})").format(hour, of_day),
                since=Placeholder(f"since_{first}"),
                until=Placeholder(f"until_{first}"),
                let_in=LET_IN,
            )
        )
    return SQL("\n        UNION ALL").join(pieces), values


def destinations(session: Session, totals: Totals, mask: PageMask, thresholds: Thresholds) -> Mapping[int, Counts]:
    """Return the most frequent destinations of each user, by user id."""
    found: dict[int, list[tuple[str, int]]] = defaultdict(list)
    values = {
        "users": [*totals.users],
        "light_users": [user for user, (_, rows, *_) in totals.users.items() if rows <= thresholds.busy_rows],
        "max_per_user": thresholds.max_per_user,
        "max_of_all_users": thresholds.max_of_all_users,
    }
    query = SQL(DESTINATIONS).format(window=WINDOW, whose=_whose(totals), let_in=LET_IN)
    session.set("enable_hashagg", "off")
    for user, address, rows in session.query("destinations of users", query, **values):
        found[user].append((mask.destination(address), rows))
    session.set("enable_hashagg", "on")
    return found


def _whose(totals: Totals) -> SQL:
    return EVERYBODY if totals.total <= len(totals.users) else CHOSEN


def activity(window: Window, totals: Totals) -> Sequence[tuple[datetime, int]]:
    """Return for each hour a bit mask of the users that were let in; bit 0 is the user with the most rows."""
    found = []
    for number in range(len(window.days)):
        masks = [totals.by_hour[user][number] for user in totals.users]
        for place, hour in enumerate(window.hours(number)):
            found.append((hour, sum(1 << user for user, mask in enumerate(masks) if mask >> place & 1)))
    return found


def join(
    totals: Totals,
    concurrent: Mapping[int, int],
    destinations: Mapping[int, Counts],
    tags: Mapping[int | None, Mapping[str, int]],
    ports: Mapping[int | None, Mapping[str, int]],
    mask: PageMask,
) -> list[User]:
    """Return the users with the most rows, in that order."""
    return [
        User(
            name=mask.user(user, name) or f"(id {user})",
            rows=rows,
            addresses=totals.addresses.get(user, 0),
            networks_24=totals.networks.get(user, {}).get(4, 0),
            networks_48=totals.networks.get(user, {}).get(6, 0),
            concurrent_addresses=concurrent[user],
            first=first,
            last=last,
            by_day=totals.by_day[user],
            visited_from=totals.visited_from.get(user, ()),
            destinations=destinations.get(user, ()),
            tags=tags.get(user, {}),
            ports=ports.get(user, {}),
        )
        for user, (name, rows, first, last) in totals.users.items()
    ]
