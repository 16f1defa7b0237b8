"""The users: how many addresses use each account, when, and where they go."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

from psycopg.sql import SQL

from xraylog.database.capabilities import Capabilities
from xraylog.report.fragments import SHOWN, WINDOW, clock_slot
from xraylog.report.masking import Mask
from xraylog.report.model import User, Window
from xraylog.report.snapshot import Row, Session

MOST_USERS = 2_000  # those with the most rows; the page has a line for each, and 1.3 MB (benchmarks/report.py)
MOST = {"most": 100, "most_of_all": 6 * MOST_USERS}  # addresses, and destinations: of one user, and of all of them
TOGETHER = timedelta(minutes=10)
BUSY_ROWS = 100  # of users with more, where they went once is left out: not worth a sort of all that

Goals: TypeAlias = Mapping[int, Sequence[tuple[str, int]]]  # addresses and rows, by user: the most first


@dataclass(frozen=True, slots=True)
class Totals:
    """What was found of the users with the most rows, by id."""

    in_all: int  # users
    rows: int  # of all users
    users: Mapping[int, Row]  # name, rows, first, last; the most rows first
    networks: Mapping[int, Mapping[int, int]]  # by family
    addresses: Mapping[int, int]
    visited_from: Mapping[int, Sequence[tuple[str, int]]]


@dataclass(frozen=True, slots=True)
class Days:
    """What the days show of all users, by id."""

    rows: Mapping[int, Sequence[int]]  # of each day
    together: Mapping[int, int]  # the most addresses within any ten minutes


# One scan; the rest is made of its groups, which are few compared with the rows. `what` names what a row is: all users,
# one of them, its networks of a family, the number of its addresses, or one address.
VISITS = SQL("""
    WITH visit AS (
        SELECT l.user_id, l.source_ip, count(*) AS rows, min(l."timestamp") AS first, max(l."timestamp") AS last
        FROM logs l
        WHERE {window} AND l.user_id IS NOT NULL
        GROUP BY l.user_id, l.source_ip
    ), top AS (
        SELECT user_id, sum(rows) AS rows, min(first) AS first, max(last) AS last,
               count(*) OVER () AS users_in_all, sum(sum(rows)) OVER () AS rows_in_all
        FROM visit
        GROUP BY user_id
        ORDER BY sum(rows) DESC, user_id
        LIMIT %(users)s
    ), address AS (
        SELECT v.user_id, v.source_ip, v.rows
        FROM visit v JOIN top USING (user_id)
        WHERE v.source_ip IS NOT NULL
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
    SELECT 'all' AS what, NULL::integer AS user_id, NULL AS name, max(users_in_all) AS number,
           max(rows_in_all)::bigint AS rows, NULL::timestamptz AS first, NULL::timestamptz AS last
    FROM top
    UNION ALL
    SELECT 'user', t.user_id, u.email::text, NULL, t.rows::bigint, t.first, t.last
    FROM top t LEFT JOIN users u ON u.id = t.user_id
    UNION ALL
    SELECT 'networks', user_id, NULL, family, count(*), NULL, NULL
    FROM network
    GROUP BY user_id, family
    UNION ALL
    SELECT 'addresses', user_id, NULL, NULL, sum(addresses)::bigint, NULL, NULL
    FROM network
    GROUP BY user_id
    UNION ALL
    SELECT 'address', user_id, abbrev(source::inet), place, rows::bigint, NULL, NULL
    FROM shown
    WHERE place <= least(%(most)s, %(most_of_all)s / (SELECT count(*) FROM top))
""").format(window=WINDOW, shown=SHOWN)

# A pair of user and destination is one number, which sorts faster than two. Its hash would be useless: the
# server's hash of 64 bits is that of one half XOR the other, and these collide. So hash tables are off meanwhile.
# Most pairs have one row, and each of them is looked for in `calm`: by IN, which hashes it, for = ANY reads it all
# before PostgreSQL 14 and is slower after, too.
GOALS = SQL("""
    SELECT p.user_id, e.address::text, p.rows
    FROM (
        SELECT g.pair >> 32 AS user_id, g.pair & 4294967295 AS destination_id, g.rows,
               row_number() OVER (PARTITION BY g.pair >> 32 ORDER BY g.rows DESC, g.pair) AS place
        FROM (
            SELECT l.user_id * 4294967296 + l.destination_id AS pair, count(*) AS rows
            FROM logs l
            WHERE {window} AND l.user_id IS NOT NULL AND l.destination_id IS NOT NULL
            GROUP BY pair
        ) g
        WHERE g.rows > 1 OR g.pair >> 32 IN (SELECT unnest(%(calm)s::integer[]))
        OFFSET 0  -- else each pair is looked for among the users
    ) p
    JOIN endpoints e ON e.id = p.destination_id
    WHERE p.user_id = ANY(%(users)s)
          AND p.place <= least(%(most)s, %(most_of_all)s / greatest(1, cardinality(%(users)s::integer[])))
    ORDER BY p.user_id, p.place
""").format(window=WINDOW)


def totals(session: Session) -> Totals:
    """Rows and addresses."""
    of: dict[str, dict[Any, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for what, user, *row in session.query("users", VISITS, users=MOST_USERS, **MOST):
        of[what][user].append(tuple(row))
    ((_, users, rows, *_),) = of["all"][None]
    found = [(user, (name, rows, first, last)) for user, ((name, _, rows, first, last),) in of["user"].items()]
    return Totals(
        users or 0,
        rows or 0,
        dict(sorted(found, key=lambda of_user: (-of_user[1][1], of_user[0]))),
        {user: {family: count for _, family, count, *_ in rows} for user, rows in of["networks"].items()},
        {user: count for user, ((_, _, count, *_),) in of["addresses"].items()},
        {
            user: [(address, count) for address, _, count, *_ in sorted(rows, key=lambda row: row[1])]
            for user, rows in of["address"].items()
        },
    )


def goals(session: Session, totals: Totals, mask: Mask) -> Goals:
    """Where each of the users went most."""
    found: dict[int, list[tuple[str, int]]] = defaultdict(list)
    calm = [user for user, (_, rows, *_) in totals.users.items() if rows <= BUSY_ROWS]
    values = {"users": [*totals.users], "calm": calm, **MOST}
    session.set("enable_hashagg", "off")
    for user, address, rows in session.query("destinations of users", GOALS, **values):
        found[user].append((mask.destination(address), rows))
    session.set("enable_hashagg", "on")
    return found


# An address is there from when it was seen to ten minutes later. What was seen in one `piece` is taken as there all the
# time between, pieces that touch are one stay, and the most stays at a moment are the answer: exact where a piece has
# ten minutes, too many where it has a day. A day at a time, which sorts in memory, and from ten minutes before it on.
DAY = """
    WITH seen AS (
        SELECT l.user_id, l.source_ip, min(l."timestamp") AS first, max(l."timestamp") + interval '10 min' AS until,
               count(*) FILTER (WHERE l."timestamp" >= %(midnight)s) AS rows
        FROM logs l
        WHERE {window} AND {whose}
        GROUP BY {piece}
    ), stay AS (
        SELECT user_id, first, until, lag(until) OVER pieces AS before, lead(first) OVER pieces AS next
        FROM seen
        WHERE source_ip IS NOT NULL
        WINDOW pieces AS (PARTITION BY user_id, source_ip ORDER BY first)
    ), step AS (
        SELECT user_id, first AS at, 1 AS change FROM stay WHERE before IS NULL OR before <= first
        UNION ALL
        SELECT user_id, until, -1 FROM stay WHERE next IS NULL OR next >= until
    ), together AS (
        SELECT user_id, max(addresses) AS addresses
        FROM (
            SELECT user_id, sum(change) OVER (PARTITION BY user_id ORDER BY at, change ROWS UNBOUNDED PRECEDING)
                   AS addresses
            FROM step
        ) s
        GROUP BY user_id
    ), day AS (
        SELECT user_id, sum(rows)::bigint AS rows FROM seen GROUP BY user_id
    )
    SELECT d.user_id, d.rows, coalesce(t.addresses, 0)
    FROM day d LEFT JOIN together t USING (user_id)
"""
PIECE = SQL("l.user_id, l.source_ip")  # of a day
EVERYBODY = SQL("l.user_id IS NOT NULL")
THESE = SQL("l.user_id IN (SELECT unnest(%(users)s::integer[]))")


def days(session: Session, window: Window, wanted: Container[int]) -> Days:
    """Rows by day, and addresses that were together, of the wanted users.

    Each day is asked twice: what it has at most, with pieces of a day, and exactly for those users only who may have
    more than on the days before: there are many pieces of ten minutes to sort.
    """
    by_day: dict[int, list[int]] = {}
    most: dict[int, int] = {}
    slot = clock_slot(Capabilities.of(session.conn), TOGETHER)
    at_most = SQL(DAY).format(window=WINDOW, whose=EVERYBODY, piece=PIECE)
    exactly = SQL(DAY).format(window=WINDOW, whose=THESE, piece=SQL("{}, {}").format(PIECE, slot))
    ends = [*window.midnights[1:], window.until]
    for number, (midnight, end) in enumerate(zip(window.midnights, ends, strict=True)):
        values = {"since": max(midnight - TOGETHER, window.since), "midnight": midnight, "until": end}
        day, more = window.days[number], list[int]()
        for user, rows, addresses in session.query(f"days of users, {day}", at_most, **values):
            if user in wanted:
                by_day.setdefault(user, [0] * len(ends))[number] = rows
                if addresses > most.setdefault(user, 0):
                    more.append(user)
        if more:
            for user, _, addresses in session.query(f"addresses together, {day}", exactly, **values, users=more):
                most[user] = max(most[user], addresses)
    return Days(by_day, most)


def users(totals: Totals, days: Days, went_to: Goals, mask: Mask) -> list[User]:
    """Those with the most rows, the first one first."""
    return [
        User(
            name=mask.user(user, name) or f"(id {user})",
            rows=rows,
            addresses=totals.addresses.get(user, 0),
            networks_24=totals.networks.get(user, {}).get(4, 0),
            networks_48=totals.networks.get(user, {}).get(6, 0),
            together=days.together.get(user, 0),
            first=first,
            last=last,
            by_day=days.rows[user],
            visited_from=totals.visited_from.get(user, ()),
            went_to=went_to.get(user, ()),
        )
        for user, (name, rows, first, last) in totals.users.items()
    ]
