"""Users, their addresses and where they go are those of plain SQL on the same rows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_network
from itertools import pairwise
from typing import Any

import pytest
from helpers.report_data import (
    BERLIN,
    EMAILS,
    LAST,
    LET_IN,
    NOON,
    ROWS,
    WINDOW,
    fill,
    read,
)

from xraylog.database import session as databases
from xraylog.database.session import Connection
from xraylog.report import users
from xraylog.report.model import Findings, Thresholds, User
from xraylog.report.page_mask import PageMask
from xraylog.report.snapshot import Row, Session
from xraylog.report.users import Totals, totals
from xraylog.report.window import Window


def concurrent(moments: Sequence[tuple[datetime, str]]) -> int:
    """The most addresses within any ten minutes, as anyone would count them."""
    return max(
        (
            len({address for at, address in moments if start <= at < start + timedelta(minutes=10)})
            for start, _ in moments
        ),
        default=0,
    )


def of_user(found: Findings, name: str) -> User:
    return next(user for user in found.users if user.name == name)


@pytest.mark.parametrize("email", [email for email in EMAILS if email])
def test_a_user_has_the_numbers_of_its_rows(found: Findings, email: str) -> None:
    rows = [row for row in LET_IN if row.email == email]
    sources = {row.source for row in rows if row.source}
    networks = [ip_network(source, strict=False) for source in sources]
    user = of_user(found, email)
    assert (user.rows, user.addresses) == (len(rows), len(sources))
    assert user.networks_24 == len(
        {net.supernet(new_prefix=24) if net.prefixlen > 24 else net for net in networks if net.version == 4}
    )
    assert user.networks_48 == len({net.supernet(new_prefix=48) for net in networks if net.version == 6})
    assert (user.first, user.last) == (min(row.at for row in rows), max(row.at for row in rows))
    by_day = Counter(row.at.astimezone(BERLIN).date() for row in rows)
    assert user.by_day == [by_day[day] for day in WINDOW.days]
    assert user.concurrent_addresses == concurrent([(row.at, row.source) for row in rows if row.source])
    assert user.concurrent_addresses > 2


@pytest.mark.parametrize("email", [email for email in EMAILS if email])
def test_a_user_has_its_addresses_and_destinations(found: Findings, email: str) -> None:
    rows = [row for row in LET_IN if row.email == email]
    user = of_user(found, email)
    addresses = Counter(row.source for row in rows if row.source)
    assert [count for _, count in user.visited_from] == sorted(addresses.values(), reverse=True)
    assert dict(user.visited_from).items() <= addresses.items()
    hosts = Counter(row.host for row in rows if row.host)
    least = 1 if len(rows) <= Thresholds().busy_rows else 2
    counts = [count for count in sorted(hosts.values(), reverse=True) if count >= least]
    assert [count for _, count in user.destinations] == counts
    assert dict(user.destinations).items() <= hosts.items()


@pytest.mark.parametrize(("most", "most_of_all", "expected"), [(3, 1000, 3), (100, 11, 2)])
def test_a_user_has_a_limited_number_of_them_and_so_have_all_users(
    shared: dict[str, str], most: int, most_of_all: int, expected: int
) -> None:
    everything = read(shared).users
    assert len(everything) == 4
    limited = read(shared, thresholds=Thresholds(max_per_user=most, max_of_all_users=most_of_all))
    for user, full in zip(limited.users, everything, strict=True):
        assert user.visited_from == full.visited_from[:expected]
        assert user.destinations == full.destinations[:expected]
        assert len(full.visited_from) > len(user.visited_from) == len(user.destinations) == expected


def test_users_are_those_with_the_most_rows(shared: dict[str, str]) -> None:
    found = read(shared, thresholds=Thresholds(max_users=2))
    counts = Counter(row.email for row in LET_IN if row.email)
    assert [user.rows for user in found.users] == sorted(counts.values(), reverse=True)[:2]
    assert {user.name: user.rows for user in found.users}.items() <= counts.items()
    assert (found.total_users, found.rows_with_user) == (4, sum(counts.values()))
    assert found.rows_with_user < found.rows


def test_a_user_is_shown_alike_however_many_others_are_not(shared: dict[str, str]) -> None:
    """Then only the rows of those that are shown are read."""
    assert read(shared, thresholds=Thresholds(max_users=2)).users == read(shared).users[:2]


MANY_USERS = """
    WITH added AS (
        INSERT INTO users (email) SELECT 'user ' || n FROM generate_series(1, 5000) n RETURNING id
    )
    INSERT INTO logs ("timestamp", source_ip, action, destination_id, user_id)
    SELECT %s, '203.0.113.1', 'accepted', (SELECT min(id) FROM endpoints), id FROM added
"""


def test_rows_of_thousands_of_users_do_not_come_to_us(
    filled: Connection, database: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million users took 39 s, for each day brought a row of every one of them."""
    filled.execute(MANY_USERS, [NOON])
    fetched, query = [], Session.query

    def count(session: Session, *arguments: Any, **values: Any) -> list[Row]:
        rows = query(session, *arguments, **values)
        fetched.append(len(rows))
        return rows

    monkeypatch.setattr(Session, "query", count)
    found = read(database, thresholds=Thresholds(max_users=4))
    assert (found.total_users, len(found.users)) == (5004, 4)
    assert 0 < max(fetched) < 1000


TEN = timedelta(minutes=10)


@pytest.mark.parametrize(
    ("apart", "expected"),
    [(TEN - timedelta(microseconds=1), 2), (TEN, 1)],
    ids=["just within ten minutes", "ten minutes apart"],
)
@pytest.mark.parametrize(
    "start", [WINDOW.midnights[1] - timedelta(minutes=5), WINDOW.since], ids=["over midnight", "at the start"]
)
def test_addresses_are_concurrent_within_ten_minutes(
    conn: Connection, database: dict[str, str], start: datetime, apart: timedelta, expected: int
) -> None:
    fill(
        conn,
        [
            ROWS[0]._replace(at=start, source="10.0.0.1", email="alice"),
            ROWS[0]._replace(at=start + apart, source="10.0.0.2", email="alice"),
        ],
    )
    assert of_user(read(database), "alice").concurrent_addresses == expected


def test_concurrent_addresses_are_those_that_anyone_would_count(conn: Connection, database: dict[str, str]) -> None:
    chance = random.Random(20)
    moments = {
        f"u{number}": [
            (
                max(WINDOW.since, chance.choice(WINDOW.midnights) + timedelta(seconds=chance.randrange(-3600, 3600))),
                f"10.0.0.{chance.randrange(6)}",
            )
            for _ in range(chance.randrange(1, 120))
        ]
        for number in range(40)
    }
    fill(conn, [ROWS[0]._replace(at=at, source=ip, email=name) for name, seen in moments.items() for at, ip in seen])
    counted = {user.name: user.concurrent_addresses for user in read(database).users}
    assert counted == {name: concurrent(seen) for name, seen in moments.items()}


def test_no_day_has_more_concurrent_addresses_than_its_bound(shared: dict[str, str]) -> None:
    """Only days with a bound above what is known are read: of at least one user some need not be."""
    found = of_shared(shared)
    assert min(max(bounds) for bounds in found.concurrent.values()) > 2
    for user, (email, *_) in found.users.items():
        for number, (since, until) in enumerate(pairwise([*WINDOW.midnights, WINDOW.until])):
            seen = [(row.at, row.source) for row in LET_IN if row.email == email and row.source and row.at < until]
            late = [(at, source) for at, source in seen if at >= since - TEN]
            most = max((among(late, at) for at, _ in late if at >= since), default=0)
            assert most <= found.concurrent[user][number] <= len({source for _, source in late})


def among(moments: Sequence[tuple[datetime, str]], end: datetime) -> int:
    """The addresses of the ten minutes that end then."""
    return len({address for at, address in moments if end - TEN < at <= end})


def of_shared(keywords: dict[str, str], window: Window = WINDOW) -> Totals:
    with databases.connect(keywords) as conn:
        values = {"since": window.since, "until": window.until, "node": None, **PageMask().bits}
        return totals(Session(conn, lambda *_: None, values), window, Thresholds())


@pytest.mark.parametrize("pieces", [1, 2])
def test_days_that_are_counted_together_are_counted_alike(
    shared: dict[str, str], monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    apart = of_shared(shared)
    monkeypatch.setattr(users, "MAX_PIECES", pieces)
    assert of_shared(shared) == apart


def test_each_day_of_a_long_time_has_its_rows_and_hours(shared: dict[str, str]) -> None:
    """Days of 23, 24 and 25 hours, counted three at a time."""
    window = Window.of(BERLIN, 260, LAST, NOON + timedelta(days=9))
    assert len({len(window.hours(number)) for number in range(260)}) == 3
    found = of_shared(shared, window)
    seen = [row for row in ROWS if window.since <= row.at < window.until and row.action == "accepted"]
    for user, (email, *_) in found.users.items():
        rows = [row for row in seen if row.email == email]
        days = Counter(row.at.astimezone(BERLIN).date() for row in rows)
        assert found.by_day[user] == [days[day] for day in window.days]
        let_in = {row.at.replace(minute=0, second=0, microsecond=0) for row in rows}
        hours = {
            hour
            for number in range(len(window.days))
            for place, hour in enumerate(window.hours(number))
            if found.by_hour[user][number] >> place & 1
        }
        assert hours == let_in


def test_an_address_of_the_morning_and_the_evening_is_not_there_at_noon(
    conn: Connection, database: dict[str, str]
) -> None:
    """Over a whole day it would seem so. Each user has its most on another day."""
    noon = WINDOW.midnights[1] + timedelta(hours=12)
    moments: dict[str, list[tuple[datetime, str]]] = {
        f"u{most}": [
            *(
                (noon + timedelta(days=day, hours=hour), f"10.0.{hour % 2}.1")
                for day in (-1, 0, 1)
                for hour in (-6, 0, 6)
            ),
            *((noon + timedelta(days=most % 3 - 1, minutes=n), f"10.1.{most}.{n}") for n in range(most)),
        ]
        for most in (1, 2, 3, 4)
    }
    moments["u0"] = [(noon + timedelta(hours=hour), f"10.0.{hour}.1") for hour in range(6)] * 2
    fill(conn, [ROWS[0]._replace(at=at, source=ip, email=name) for name, seen in moments.items() for at, ip in seen])
    found = {user.name: user.concurrent_addresses for user in read(database).users}
    assert found == {name: concurrent(seen) for name, seen in moments.items()} == {f"u{n}": n + 1 for n in range(5)}


def test_a_user_whose_name_is_gone_is_shown_by_its_id(conn: Connection, database: dict[str, str]) -> None:
    fill(conn, [ROWS[0]._replace(at=WINDOW.since, host="host.example", port=443, email="alice")])
    conn.execute("SET session_replication_role = replica")  # no keys, as in tables made by hand
    (number,) = conn.execute("DELETE FROM users WHERE email = 'alice' RETURNING id").fetchone() or (0,)
    found = read(database)
    assert [user.name for user in found.users] == [f"(id {number})"]
    assert (found.top[0].users, found.top[0].visitors) == (1, [(f"(id {number})", 1)])


MAPPED = """
    UPDATE logs
    SET source_ip = CASE WHEN extract(minute FROM "timestamp")::integer % 2 = 0
                         THEN ('::ffff:' || host(source_ip))::inet ELSE source_ip END
    WHERE family(source_ip) = 4 AND masklen(source_ip) = 32
"""
FROM_A_PROXY = """
    UPDATE logs
    SET source_ip = (ARRAY['127.0.0.1', '0.0.0.0', '::1', '::', '::ffff:127.0.0.1']::inet[])[1 + id % 5]
    WHERE source_ip IS NULL
"""


def test_mapped_addresses_are_those_of_ipv4_and_a_proxys_are_none(
    filled: Connection, database: dict[str, str], found: Findings
) -> None:
    """The page is the same, wherever a client's address was written in the other way, and a proxy's instead of none."""
    changed = filled.execute(MAPPED).rowcount, filled.execute(FROM_A_PROXY).rowcount
    assert min(changed) > 10
    after = read(database)
    assert after.users == found.users
    assert after.sources == found.sources
