"""Users: how many addresses use each account, when, and where they go."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from psycopg.sql import SQL

from xraylog.database.capabilities import Capabilities
from xraylog.report.fragments import CLIENT, LET_IN, SHOWN, WINDOW, clock_slot
from xraylog.report.masking import Mask
from xraylog.report.model import Thresholds, User, Window
from xraylog.report.snapshot import Row, Session

CONCURRENT_WITHIN = timedelta(minutes=10)

Counts: TypeAlias = Sequence[tuple[str, int]]  # addresses and their rows, the most first


@dataclass(frozen=True, slots=True)
class Totals:
    """The users with the most rows, by id."""

    total: int  # users
    rows: int  # of all users
    users: Mapping[int, Row]  # name, rows, first, last; the most rows first
    networks: Mapping[int, Mapping[int, int]]  # their number, by family (4 or 6)
    addresses: Mapping[int, int]  # their number
    visited_from: Mapping[int, Counts]


@dataclass(frozen=True, slots=True)
class Days:
    """What is counted day by day, by user id."""

    rows: Mapping[int, Sequence[int]]  # of each day
    hours: Mapping[int, Sequence[int]]  # of each day: a bit for each hour since it began in which the user was let in
    concurrent_addresses: Mapping[int, int]  # the most addresses within any ten minutes


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
               count(*) OVER () AS total_users, sum(sum(rows)) OVER () AS total_rows
        FROM visit
        GROUP BY user_id
        ORDER BY sum(rows) DESC, user_id
        LIMIT %(max_users)s
    ), address AS (
        SELECT c.user_id, c.source_ip, sum(c.rows) AS rows
        FROM (
            SELECT l.user_id, {client} AS source_ip, l.rows
            FROM visit l JOIN top ON top.user_id = l.user_id
        ) c
        WHERE c.source_ip IS NOT NULL
        GROUP BY c.user_id, c.source_ip
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
           max(total_rows)::bigint AS rows, NULL::timestamptz AS first, NULL::timestamptz AS last
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
    WHERE place <= least(%(max_per_user)s, %(max_of_all_users)s / (SELECT count(*) FROM top))
""").format(window=WINDOW, shown=SHOWN, client=CLIENT)

# Whose rows are read: where most users are not shown, only those of the ones that are.
EVERYBODY = SQL("l.user_id IS NOT NULL")
CHOSEN = SQL("l.user_id IN (SELECT unnest(%(users)s::integer[]))")

# A pair of user and destination is one number, which sorts faster than two. Its hash would be useless: the
# server's hash of 64 bits is that of one half XOR the other, and these collide. So hash tables are off for this query.
# Most pairs have one row, and each of them is looked up in `light_users`: by IN, which hashes it. = ANY reads all of it
# before PostgreSQL 14, and is slower after, too.
DESTINATIONS = """
    SELECT p.user_id, e.address::text, p.rows
    FROM (
        SELECT g.pair >> 32 AS user_id, g.pair & 4294967295 AS destination_id, g.rows,
               row_number() OVER (PARTITION BY g.pair >> 32 ORDER BY g.rows DESC, g.pair) AS place
        FROM (
            SELECT l.user_id * 4294967296 + l.destination_id AS pair, count(*) AS rows
            FROM logs l
            WHERE {window} AND {whose} AND l.destination_id IS NOT NULL
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


def totals(session: Session, thresholds: Thresholds) -> Totals:
    """Return the users with the most rows, with their rows and addresses."""
    limits = {"max_per_user": thresholds.max_per_user, "max_of_all_users": thresholds.max_of_all_users}
    groups: dict[str, dict[Any, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for what, user, *row in session.query("users", VISITS, max_users=thresholds.max_users, **limits):
        groups[what][user].append(tuple(row))
    ((_, total, total_rows, *_),) = groups["all"][None]
    users = [(user, (name, rows, first, last)) for user, ((name, _, rows, first, last),) in groups["user"].items()]
    return Totals(
        total or 0,
        total_rows or 0,
        dict(sorted(users, key=lambda item: (-item[1][1], item[0]))),
        {user: {family: count for _, family, count, *_ in rows} for user, rows in groups["networks"].items()},
        {user: count for user, ((_, _, count, *_),) in groups["addresses"].items()},
        {
            user: [(address, count) for address, _, count, *_ in sorted(rows, key=lambda row: row[1])]
            for user, rows in groups["address"].items()
        },
    )


def destinations(session: Session, totals: Totals, mask: Mask, thresholds: Thresholds) -> Mapping[int, Counts]:
    """Return where each of the users went most, by user id."""
    found: dict[int, list[tuple[str, int]]] = defaultdict(list)
    values = {
        "users": [*totals.users],
        "light_users": [user for user, (_, rows, *_) in totals.users.items() if rows <= thresholds.busy_rows],
        "max_per_user": thresholds.max_per_user,
        "max_of_all_users": thresholds.max_of_all_users,
    }
    query = SQL(DESTINATIONS).format(window=WINDOW, whose=_whose(totals))
    session.set("enable_hashagg", "off")
    for user, address, rows in session.query("destinations of users", query, **values):
        found[user].append((mask.destination(address), rows))
    session.set("enable_hashagg", "on")
    return found


# An address counts as present from a row of it to ten minutes later. Within one `piece` of time it counts as present
# between its first and last row; pieces that touch are one stay; the answer is the most stays at any moment: exact if a
# piece has ten minutes, an upper bound if it has a day. One day at a time, which sorts in memory, and from ten minutes
# before midnight on.
DAY = """
    WITH source AS (
        SELECT l.user_id, l.source_ip, {piece} AS piece, min(l."timestamp") AS first,
               max(l."timestamp") + interval '10 min' AS until,
               count(*) FILTER (WHERE l."timestamp" >= %(midnight)s) AS rows, {hours} AS hours
        FROM logs l
        WHERE {window} AND {whose}
        GROUP BY l.user_id, l.source_ip, piece
    ), seen AS (
        SELECT c.user_id, c.source_ip, min(c.first) AS first, max(c.until) AS until, sum(c.rows) AS rows,
               bit_or(c.hours) AS hours
        FROM (
            SELECT l.user_id, {client} AS source_ip, l.piece, l.first, l.until, l.rows, l.hours FROM source l
        ) c
        GROUP BY c.user_id, c.source_ip, c.piece
    ), stay AS (
        SELECT user_id, first, until, lag(until) OVER pieces AS before, lead(first) OVER pieces AS next
        FROM seen
        WHERE source_ip IS NOT NULL
        WINDOW pieces AS (PARTITION BY user_id, source_ip ORDER BY first)
    ), step AS (
        SELECT user_id, first AS at, 1 AS change FROM stay WHERE before IS NULL OR before <= first
        UNION ALL
        SELECT user_id, until, -1 FROM stay WHERE next IS NULL OR next >= until
    ), concurrent AS (
        SELECT user_id, max(addresses) AS addresses
        FROM (
            SELECT user_id, sum(change) OVER (PARTITION BY user_id ORDER BY at, change ROWS UNBOUNDED PRECEDING)
                   AS addresses
            FROM step
        ) s
        GROUP BY user_id
    ), day AS (
        SELECT user_id, sum(rows)::bigint AS rows, bit_or(hours) AS hours FROM seen GROUP BY user_id
    )
    SELECT d.user_id, d.rows, coalesce(t.addresses, 0), coalesce(d.hours, 0)
    FROM day d LEFT JOIN concurrent t USING (user_id)
"""
WHOLE_DAY = SQL("NULL::timestamptz")
HOURS = SQL("""bit_or(1 << greatest(0, width_bucket(l."timestamp", %(hours)s::timestamptz[]) - 1))
                   FILTER (WHERE l."timestamp" >= %(midnight)s AND {let_in})""").format(let_in=LET_IN)
NO_HOURS = SQL("NULL::integer")


def _whose(totals: Totals) -> SQL:
    return EVERYBODY if totals.total <= len(totals.users) else CHOSEN


def days(session: Session, window: Window, totals: Totals) -> Days:
    """Return rows by day, and the most concurrent addresses, of the users that are shown.

    Each day is queried twice: an upper bound of each user's addresses, with pieces of a day; then exactly, but only for
    users who may have more than on the days before, because there are many pieces of ten minutes to sort.
    """
    by_day: dict[int, list[int]] = {}
    by_hour: dict[int, list[int]] = {}
    maximum: dict[int, int] = {}
    slot = clock_slot(Capabilities.of(session.conn), CONCURRENT_WITHIN)
    upper_bound = SQL(DAY).format(window=WINDOW, whose=_whose(totals), piece=WHOLE_DAY, client=CLIENT, hours=HOURS)
    exact = SQL(DAY).format(window=WINDOW, whose=CHOSEN, piece=slot, client=CLIENT, hours=NO_HOURS)
    ends = [*window.midnights[1:], window.until]
    for number, (midnight, end) in enumerate(zip(window.midnights, ends, strict=True)):
        values = {
            "since": max(midnight - CONCURRENT_WITHIN, window.since),
            "midnight": midnight,
            "until": end,
            "hours": window.hours(number),
        }
        day, candidates = window.days[number], list[int]()
        shown = [*totals.users]
        found = session.query(f"days of users, {day}", upper_bound, **values, users=shown)
        for user, rows, addresses, hours in found:
            by_day.setdefault(user, [0] * len(ends))[number] = rows
            by_hour.setdefault(user, [0] * len(ends))[number] = hours
            if addresses > maximum.setdefault(user, 0):
                candidates.append(user)
        if candidates:
            what = f"concurrent addresses, {day}"
            for user, _, addresses, _ in session.query(what, exact, **values, users=candidates):
                maximum[user] = max(maximum[user], addresses)
    return Days(by_day, by_hour, maximum)


def activity(window: Window, totals: Totals, days: Days) -> Sequence[tuple[datetime, int]]:
    """Return each hour with a bit for each user that was let in, the one with the most rows first."""
    found = []
    for number in range(len(window.days)):
        masks = [days.hours[user][number] for user in totals.users]
        for place, hour in enumerate(window.hours(number)):
            found.append((hour, sum(1 << user for user, mask in enumerate(masks) if mask >> place & 1)))
    return found


def join(
    totals: Totals,
    days: Days,
    destinations: Mapping[int, Counts],
    tags: Mapping[int | None, Mapping[str, int]],
    ports: Mapping[int | None, Mapping[str, int]],
    mask: Mask,
) -> list[User]:
    """Return the users with the most rows, the first one first."""
    return [
        User(
            name=mask.user(user, name) or f"(id {user})",
            rows=rows,
            addresses=totals.addresses.get(user, 0),
            networks_24=totals.networks.get(user, {}).get(4, 0),
            networks_48=totals.networks.get(user, {}).get(6, 0),
            concurrent_addresses=days.concurrent_addresses.get(user, 0),
            first=first,
            last=last,
            by_day=days.rows[user],
            visited_from=totals.visited_from.get(user, ()),
            destinations=destinations.get(user, ()),
            tags=tags.get(user, {}),
            ports=ports.get(user, {}),
        )
        for user, (name, rows, first, last) in totals.users.items()
    ]
