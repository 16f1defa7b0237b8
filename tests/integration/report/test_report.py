"""What the page tells equals plain SQL on the same rows; the script only reads, and says what it could not do."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime, timedelta, timezone
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import psycopg
import pytest
from helpers.site import ROOT, Site, facts, wait_until
from psycopg.sql import SQL, Identifier
from server import NOBODY

import report_logs
from xraylog import config
from xraylog.database import partitions, schema
from xraylog.database import session as databases
from xraylog.database.session import Connection, Unavailable
from xraylog.report import charts, collect, page, run_history, snapshot, time_series, traffic
from xraylog.report.collect import Scope
from xraylog.report.masking import Mask
from xraylog.report.model import Findings, Gap, Node, Slot, Thresholds, User, Window
from xraylog.telemetry.prometheus import Metrics

BERLIN, UTC, NEPAL = ZoneInfo("Europe/Berlin"), ZoneInfo("UTC"), ZoneInfo("Asia/Kathmandu")
LAST = date(2025, 11, 17)
NOON = datetime(2025, 11, 17, 12, tzinfo=timezone.utc)
WINDOW = Window.of(BERLIN, 3, LAST, NOON + timedelta(days=9))
NO_METRICS = Metrics(None, "", Path())
EMAILS = ("alice", "bob", "carol", "dave", None)
HOSTS = (*(f"host{n}.example" for n in range(30)), "198.51.100.9", "[2001:db8::9]", None)
SOURCES = (
    *(f"203.0.113.{n}" for n in range(12)), *(f"203.0.{n}.7" for n in range(5)),
    *(f"2001:db8:1:{n}::1" for n in range(1, 5)), "2001:db8:2::1", "198.18.0.0/24", None,
)  # fmt: skip
TAGS, NODES, PROTOCOLS = ("direct", "block", "warp", None), ("n1", "n2", None), ("tcp", "udp")


class Row(NamedTuple):
    """One row of logs, names in place of ids."""

    at: datetime
    source: str | None
    action: str
    protocol: str
    host: str | None
    port: int | None
    tag: str | None
    email: str | None
    node: str | None


def some_rows() -> list[Row]:
    """Bursts of rows, in the window, in the period before, and around both, many at moments that are borders."""
    chance = random.Random(11)
    borders = [
        *WINDOW.midnights,
        WINDOW.until,
        WINDOW.before,
        *(moment + timedelta(hours=7) for moment in WINDOW.midnights),
    ]
    rows = []
    for _ in range(400):
        start = chance.choice(
            (
                chance.choice(borders)
                + timedelta(minutes=chance.choice((-10, -5, 0, 5)), microseconds=chance.randrange(-1, 2)),
                WINDOW.before
                - timedelta(hours=2)
                + chance.random() * (WINDOW.until + timedelta(hours=4) - WINDOW.before),
            )
        )
        email, node = chance.choice(EMAILS), chance.choice(NODES)
        for _ in range(chance.randrange(1, 6)):
            at = start + timedelta(seconds=chance.choice((0, 1, 299, 300, 599, 600, 601)))
            action = chance.choice(("accepted",) * 5 + ("rejected",))
            host = chance.choice(HOSTS[: chance.choice((3, 10, len(HOSTS)))])
            port = chance.choice((443, 443, 80, 53)) if host else None
            tag, protocol = chance.choice(TAGS), chance.choice(PROTOCOLS)
            rows.append(Row(at, chance.choice(SOURCES), action, protocol, host, port, tag, email, node))
    return rows


ROWS = some_rows()
INSERT = """
    INSERT INTO logs ("timestamp", source_ip, action, protocol_id, destination_id, destination_port,
                      outbound_tag_id, user_id, node_id)
    VALUES (%s, %s, %s, (SELECT id FROM protocols WHERE name = %s), (SELECT id FROM endpoints WHERE address = %s), %s,
            (SELECT id FROM tags WHERE name = %s), (SELECT id FROM users WHERE email = %s),
            (SELECT id FROM nodes WHERE name = %s))
"""
NAMES = {"users": EMAILS, "endpoints": HOSTS, "tags": TAGS, "nodes": NODES, "protocols": PROTOCOLS}


def fill(conn: Connection, rows: Sequence[Row]) -> None:
    """The tables, and these rows in them."""
    schema.ensure(conn)
    partitions.Partitions(conn).ensure({str(row.at.astimezone(timezone.utc).date()) for row in rows})
    with conn.cursor() as cursor, conn.transaction():
        for table, names in NAMES.items():
            for name in {*names, *(getattr(row, FIELDS[table]) for row in rows)} - {None}:
                cursor.execute(f"INSERT INTO {table} ({schema.REFERENCE_TABLES[table]}) VALUES (%s)", [name])
        cursor.executemany(INSERT, rows)


def fill_one(conn: Connection, row: Row) -> None:
    """One more, to a host that nobody knew."""
    conn.execute("INSERT INTO endpoints (address) VALUES (%s)", [row.host])
    conn.execute(INSERT, row)


FIELDS = {"users": "email", "endpoints": "host", "tags": "tag", "nodes": "node", "protocols": "protocol"}


@pytest.fixture
def filled(conn: Connection) -> Connection:
    fill(conn, ROWS)
    return conn


def read(
    keywords: dict[str, str],
    window: Window = WINDOW,
    mask: Mask = Mask(),  # noqa: B008  # frozen
    node: str | None = None,
    thresholds: Thresholds = Thresholds(),  # noqa: B008  # frozen
) -> Findings:
    return collect.read(lambda: databases.connect(keywords), Scope(window, mask, node, thresholds), lambda *_: None)


@pytest.fixture
def found(filled: Connection, database: dict[str, str]) -> Findings:  # noqa: ARG001  # its rows are there
    return read(database)


INSIDE = [row for row in ROWS if WINDOW.since <= row.at < WINDOW.until]
BEFORE = [row for row in ROWS if WINDOW.before <= row.at < WINDOW.since]


# --- the window --------------------------------------------------------------------------------------------


def test_the_window_is_whole_days_of_its_zone_up_to_the_last_one() -> None:
    assert WINDOW.since == datetime(2025, 11, 14, 23, tzinfo=timezone.utc)
    assert WINDOW.until == datetime(2025, 11, 17, 23, tzinfo=timezone.utc)
    assert WINDOW.days == [date(2025, 11, 15), date(2025, 11, 16), LAST]
    assert WINDOW.before == WINDOW.since - timedelta(days=3)


def test_today_ends_now() -> None:
    window = Window.of(BERLIN, 2, None, NOON)
    assert (window.last, window.until) == (LAST, NOON)
    assert window.until - window.since == window.since - window.before


def test_a_day_on_which_the_clocks_change_has_its_own_length() -> None:
    autumn = Window.of(BERLIN, 1, date(2025, 10, 26), NOON)
    spring = Window.of(BERLIN, 1, date(2025, 3, 30), NOON)
    assert autumn.until - autumn.since == timedelta(hours=25)
    assert spring.until - spring.since == timedelta(hours=23)


# --- health ------------------------------------------------------------------------------------------------


def test_nodes_have_their_rows_and_moments(found: Findings, filled: Connection) -> None:
    expected = filled.execute(
        """
        SELECT coalesce(n.name, '(no node)'), count(*), min(l."timestamp"), max(l."timestamp")
        FROM logs l LEFT JOIN nodes n ON n.id = l.node_id
        WHERE l."timestamp" >= %s AND l."timestamp" < %s GROUP BY 1 ORDER BY 1
        """,
        [WINDOW.since, WINDOW.until],
    ).fetchall()
    assert [(node.name, node.rows, node.first, node.last) for node in found.nodes] == expected
    assert found.rows == len(INSIDE)


def test_nodes_have_the_rejected_lines_of_the_window_and_when_they_were_stored_last(
    filled: Connection, database: dict[str, str]
) -> None:
    (node,) = filled.execute("SELECT id FROM nodes WHERE name = 'n1'").fetchone() or (0,)
    for at in (WINDOW.since, WINDOW.until, WINDOW.since - timedelta(seconds=1), WINDOW.until - timedelta(seconds=1)):
        filled.execute(
            "INSERT INTO rejected_lines (rejected_at, node_id, source, line_offset, reason, line) "
            "VALUES (%s, %s, '/log', 0, 'no', '')",
            [at, node],
        )
    for at in (NOON, NOON - timedelta(days=1)):
        filled.execute(
            "INSERT INTO log_positions (node_id, source, position, head_length, head, updated_at) "
            "VALUES (%s, '/log', 0, 0, '', %s)",
            [node, at],
        )
    nodes = {of.name: of for of in read(database).nodes}
    assert (nodes["n1"].rejected_lines, nodes["n1"].stored) == (2, NOON)
    assert (nodes["n2"].rejected_lines, nodes["n2"].stored) == (0, None)


def test_gaps_are_the_times_of_an_hour_or_more_between_two_rows_of_a_node(found: Findings) -> None:
    expected = set()
    for node in NODES:
        moments = sorted(row.at for row in INSIDE if row.node == node)
        for one, other in zip([WINDOW.since, *moments], [*moments, WINDOW.until], strict=True):
            if other - one >= timedelta(hours=1):
                expected.add((node or traffic.NO_NODE, one, other))
    longest = sorted(expected, key=lambda gap: (gap[1] - gap[2], gap[1]))
    assert [(gap.node, gap.since, gap.until) for gap in found.gaps] == longest
    assert len(longest) > 3


def test_a_node_that_stores_one_row_a_day_has_exact_gaps(conn: Connection, database: dict[str, str]) -> None:
    at = [WINDOW.since + timedelta(days=n, minutes=1, microseconds=n) for n in range(3)]
    fill(conn, [ROWS[0]._replace(at=moment, node="n1") for moment in at])
    assert {(gap.since, gap.until) for gap in read(database).gaps if gap.node == "n1"} == {
        (at[0], at[1]),
        (at[1], at[2]),
        (at[2], WINDOW.until),
    }


# --- traffic -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", [BERLIN, UTC, NEPAL], ids=str)
def test_traffic_by_hour_and_tag_is_that_of_plain_sql(found: Findings, filled: Connection, zone: ZoneInfo) -> None:
    hours = time_series.over_time(found, zone, found.slots, page._tag)
    filled.execute("SELECT set_config('TimeZone', %s, false)", [zone.key])
    expected = filled.execute(
        """
        SELECT date_trunc('hour', l."timestamp"),
               CASE WHEN l.action = 'rejected' THEN '(rejected)' ELSE coalesce(t.name, '(no tag)') END, count(*)
        FROM logs l LEFT JOIN tags t ON t.id = l.outbound_tag_id
        WHERE l."timestamp" >= %s AND l."timestamp" < %s GROUP BY 1, 2
        """,
        [WINDOW.since, WINDOW.until],
    ).fetchall()
    shown = {
        (hour, name, rows)
        for hour, counts in hours.rows
        for name, rows in zip(hours.names, counts, strict=True)
        if rows
    }
    assert shown == set(expected)
    assert len(hours.rows) == 72 + (zone == NEPAL)  # every hour of the window, also those without rows


@pytest.mark.parametrize("zone", [BERLIN, UTC, NEPAL], ids=str)
def test_the_week_is_that_of_plain_sql(found: Findings, filled: Connection, zone: ZoneInfo) -> None:
    filled.execute("SELECT set_config('TimeZone', %s, false)", [zone.key])
    expected = filled.execute(
        """
        SELECT extract(isodow FROM l."timestamp")::integer - 1, extract(hour FROM l."timestamp")::integer, count(*)
        FROM logs l WHERE l."timestamp" >= %s AND l."timestamp" < %s GROUP BY 1, 2
        """,
        [WINDOW.since, WINDOW.until],
    ).fetchall()
    week = time_series.by_weekday(found.slots, zone)
    assert {(day, hour, rows) for day, of in enumerate(week) for hour, rows in enumerate(of) if rows} == set(expected)


@pytest.mark.parametrize(
    ("zone", "last"),
    [
        ("Australia/Lord_Howe", date(2025, 4, 8)),
        ("Australia/Lord_Howe", date(2025, 10, 8)),
        ("Asia/Pyongyang", date(2018, 5, 7)),
    ],
)
def test_no_row_vanishes_where_clocks_change_by_half_an_hour(zone: str, last: date) -> None:
    window = Window.of(ZoneInfo(zone), 7, last, NOON)
    quarters = (window.until - window.since) // timedelta(minutes=15)
    slots = [Slot(window.since + timedelta(minutes=15 * n), "n", None, False, 1) for n in range(quarters)]
    hours = time_series.over_time(Findings(window), window.zone, slots, page._tag)
    assert hours.totals == [quarters]
    assert len({hour for hour, _ in hours.rows}) == len(hours.rows)


@pytest.mark.parametrize("zone", [BERLIN, UTC, NEPAL], ids=str)
def test_more_than_two_months_are_shown_by_day(filled: Connection, database: dict[str, str], zone: ZoneInfo) -> None:
    window = Window.of(BERLIN, 63, LAST, NOON + timedelta(days=9))
    assert Window.of(BERLIN, 62, LAST, NOON).unit == "hour"
    found = read(database, window)
    days = time_series.over_time(found, zone, found.slots, page._tag)
    counts = dict(
        filled.execute(
            """SELECT date_trunc('day', "timestamp" AT TIME ZONE %s) AT TIME ZONE %s, count(*)
               FROM logs WHERE "timestamp" >= %s AND "timestamp" < %s GROUP BY 1""",
            [str(zone), str(zone), window.since, window.until],
        ).fetchall()
    )
    assert {day: sum(rows) for day, rows in days.rows if sum(rows)} == counts
    assert len(days.rows) in (63, 64)
    text = page.render(found, run_history.Runs(), NOON, is_masked=False)
    assert "<h3>By day and outbound tag</h3>" in text
    assert "by hour" not in text.lower()


def test_a_tag_may_be_called_like_the_others(found: Findings) -> None:
    named = iter([time_series.OTHERS] * 2 + [f"tag{number}" for number in range(7)])
    hours = time_series.over_time(found, UTC, found.slots[:1] * 9, lambda _: next(named))
    assert hours.names == [time_series.OTHERS, "tag0", "tag1", "tag2", "tag3", time_series.OTHERS]
    assert hours.totals == [rows * found.slots[0].rows for rows in (2, 1, 1, 1, 1, 3)]


def test_the_last_hour_is_drawn_as_wide_as_the_others() -> None:
    hour = WINDOW.since
    drawn = charts.over_time("rows", "hour", [(hour, [7])], {})
    (path,) = [path for path in re.findall(r"<path[^>]*>", drawn) if "--series-0" in path]
    places = {float(x) for x, _ in re.findall(r"[ML]([0-9.]+),([0-9.]+)", path)}
    assert {min(places), max(places)} == {0, charts.WIDTH}


def test_the_last_day_is_drawn_as_wide_as_the_others() -> None:
    day = datetime(2025, 11, 17, tzinfo=UTC)
    drawn = charts.over_time("rows", "day", [(day, [7]), (day + timedelta(days=1), [7])], {})
    assert " ".join(charts.AREA.findall(drawn)).count("L480,0") == 2


def test_many_tags_become_the_largest_and_the_others(found: Findings) -> None:
    named = iter([f"tag{number}" for number in range(9) for _ in range(9 - number)])
    slots = found.slots[:1] * 45
    hours = time_series.over_time(found, UTC, slots, lambda _: next(named))
    assert hours.names == ["tag0", "tag1", "tag2", "tag3", "tag4", time_series.OTHERS]
    assert hours.totals == [rows * slots[0].rows for rows in (9, 8, 7, 6, 5, 4 + 3 + 2 + 1)]


# --- users -------------------------------------------------------------------------------------------------


def together(moments: Sequence[tuple[datetime, str]]) -> int:
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
    rows = [row for row in INSIDE if row.email == email]
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
    assert user.concurrent_addresses == together([(row.at, row.source) for row in rows if row.source])
    assert user.concurrent_addresses > 2


@pytest.mark.parametrize("email", [email for email in EMAILS if email])
def test_a_user_has_its_addresses_and_destinations(found: Findings, email: str) -> None:
    rows = [row for row in INSIDE if row.email == email]
    user = of_user(found, email)
    addresses = Counter(row.source for row in rows if row.source)
    assert [count for _, count in user.visited_from] == sorted(addresses.values(), reverse=True)
    assert dict(user.visited_from).items() <= addresses.items()
    hosts = Counter(row.host for row in rows if row.host)
    least = 1 if len(rows) <= Thresholds().busy_rows else 2
    counts = [count for count in sorted(hosts.values(), reverse=True) if count >= least]
    assert [count for _, count in user.destinations] == counts
    assert dict(user.destinations).items() <= hosts.items()


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(("most", "most_of_all", "expected"), [(3, 1000, 3), (100, 11, 2)])
def test_a_user_has_a_limited_number_of_them_and_so_have_all_users_together(
    database: dict[str, str], most: int, most_of_all: int, expected: int
) -> None:
    everything = read(database).users
    assert len(everything) == 4
    limited = read(database, thresholds=Thresholds(max_per_user=most, max_of_all_users=most_of_all))
    for user, full in zip(limited.users, everything, strict=True):
        assert user.visited_from == full.visited_from[:expected]
        assert user.destinations == full.destinations[:expected]
        assert len(full.visited_from) > len(user.visited_from) == len(user.destinations) == expected


@pytest.mark.usefixtures("filled")
def test_users_are_those_with_the_most_rows(database: dict[str, str]) -> None:
    found = read(database, thresholds=Thresholds(max_users=2))
    counts = Counter(row.email for row in INSIDE if row.email)
    assert [user.rows for user in found.users] == sorted(counts.values(), reverse=True)[:2]
    assert {user.name: user.rows for user in found.users}.items() <= counts.items()
    assert (found.total_users, found.rows_with_user) == (4, sum(counts.values()))
    assert found.rows_with_user < found.rows


TEN = timedelta(minutes=10)


@pytest.mark.parametrize(
    ("apart", "expected"),
    [(TEN - timedelta(microseconds=1), 2), (TEN, 1)],
    ids=["just within ten minutes", "ten minutes apart"],
)
@pytest.mark.parametrize(
    "start", [WINDOW.midnights[1] - timedelta(minutes=5), WINDOW.since], ids=["over midnight", "at the start"]
)
def test_addresses_are_together_within_ten_minutes(
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


@pytest.mark.parametrize("seed", range(20))
def test_addresses_together_are_those_that_anyone_would_count(
    conn: Connection, database: dict[str, str], seed: int
) -> None:
    chance = random.Random(seed)
    moments = [
        (WINDOW.midnights[1] + timedelta(seconds=chance.randrange(-3600, 3600)), f"10.0.0.{chance.randrange(6)}")
        for _ in range(chance.randrange(1, 60))
    ]
    fill(conn, [ROWS[0]._replace(at=at, source=source, email="alice") for at, source in moments])
    assert of_user(read(database), "alice").concurrent_addresses == together(moments)


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
    assert found == {name: together(seen) for name, seen in moments.items()} == {f"u{n}": n + 1 for n in range(5)}


# --- destinations ------------------------------------------------------------------------------------------


def test_destinations_are_those_of_plain_sql(found: Findings) -> None:
    counts, before = Counter(row.host for row in INSIDE if row.host), Counter(row.host for row in BEFORE if row.host)
    assert sorted(counts.values(), reverse=True) == [goal.rows for goal in found.top]
    for goal in found.top:
        rows = [row for row in INSIDE if row.host == goal.address]
        assert (goal.rows, goal.rows_before) == (len(rows), before[goal.address])
        visitors = Counter(row.email for row in rows if row.email)
        assert goal.users == len(visitors)
        assert dict(goal.visitors) == visitors
        assert set(goal.ports) == {f"{row.protocol}/{row.port}" for row in rows}
    rising = {host: rows - before[host] for host, rows in counts.items() if before[host] and rows > before[host]}
    assert {goal.address: goal.rows - goal.rows_before for goal in found.rising}.items() <= rising.items()
    gains = sorted(rising.values(), reverse=True)[: Thresholds().max_changed]
    assert [goal.rows - goal.rows_before for goal in found.rising] == gains
    assert {goal.address for goal in found.new} == {host for host in counts if not before[host]}
    assert rising


def test_a_destination_is_new_when_nobody_went_there_in_the_period_before(
    conn: Connection, database: dict[str, str]
) -> None:
    old, new = ROWS[0]._replace(host="old.example", port=443), ROWS[0]._replace(host="new.example", port=443)
    inside, before = WINDOW.since, WINDOW.since - timedelta(microseconds=1)
    fill(conn, [old._replace(at=before), old._replace(at=inside), old._replace(at=inside), new._replace(at=inside)])
    found = read(database)
    assert found.before
    assert [(goal.address, goal.rows_before) for goal in found.new] == [("new.example", 0)]
    assert [(goal.address, goal.rows, goal.rows_before) for goal in found.rising] == [("old.example", 2, 1)]


def test_without_a_period_before_nothing_is_new(conn: Connection, database: dict[str, str]) -> None:
    fill(conn, [row for row in ROWS if row.at >= WINDOW.since])
    found = read(database)
    assert (found.before, found.new, found.rising) == (None, [], [])


@pytest.mark.parametrize(("late", "is_said"), [(timedelta(hours=7), False), (timedelta(hours=8), True)])
def test_a_period_before_that_began_to_be_stored_late_is_marked(
    conn: Connection, database: dict[str, str], late: timedelta, is_said: bool
) -> None:
    """A tenth of three days is 7.2 hours."""
    row = ROWS[0]._replace(host="host.example", port=443)
    fill(conn, [row._replace(at=WINDOW.before + late), row._replace(at=WINDOW.since)])
    found = read(database)
    assert found.before == WINDOW.before + late
    assert found.is_first_period
    said = "Rows with a destination only begin at" in page.render(found, run_history.Runs(), NOON, is_masked=False)
    assert found.has_partial_period_before == said == is_said


def test_a_quiet_night_is_no_beginning(conn: Connection, database: dict[str, str]) -> None:
    row = ROWS[0]._replace(host="host.example", port=443)
    fill(conn, [row._replace(at=at) for at in (WINDOW.before - HOUR, WINDOW.before + 9 * HOUR, WINDOW.since)])
    assert not read(database).has_partial_period_before


def test_how_many_destinations_there_are_is_shown(filled: Connection, database: dict[str, str]) -> None:
    partitions.Partitions(filled).ensure({str(WINDOW.before.date())})
    fill_one(filled, INSIDE[0]._replace(at=WINDOW.before, host="only.before.example", port=443))
    assert read(database).total_destinations == len({row.host for row in INSIDE if row.host})
    assert read(database, Window.of(BERLIN, 1, date(2024, 1, 1), NOON)).total_destinations == 0


def test_ports_are_those_of_plain_sql(found: Findings) -> None:
    counts = Counter(
        (
            row.protocol,
            row.port,
        )
        for row in INSIDE
        if row.port
    )
    assert {(port.protocol, port.port): port.rows for port in found.ports} == counts


# --- rejected ----------------------------------------------------------------------------------------------


def test_rejected_sources_are_those_of_plain_sql(found: Findings) -> None:
    moments = defaultdict(list)
    for row in INSIDE:
        if row.action == "rejected":
            moments[row.source or traffic.NO_SOURCE].append(row.at)
    assert {of.address: (of.rows, of.first, of.last) for of in found.sources} == {
        source: (len(at), min(at), max(at)) for source, at in moments.items()
    }
    assert found.total_sources == len(moments)
    assert [of.rows for of in found.sources] == sorted((of.rows for of in found.sources), reverse=True)


# --- nodes, masks ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("filled")
def test_one_node_is_shown_as_if_there_were_no_other(database: dict[str, str]) -> None:
    found = read(database, node="n1")
    rows = [row for row in INSIDE if row.node == "n1"]
    assert [node.name for node in found.nodes] == ["n1"]
    assert found.rows == len(rows)
    assert sum(user.rows for user in found.users) == sum(row.email is not None for row in rows)
    assert sum(goal.rows for goal in found.top) == sum(row.host is not None for row in rows)
    assert sum(port.rows for port in found.ports) == sum(row.port is not None for row in rows)
    assert sum(of.rows for of in found.sources) == sum(row.action == "rejected" for row in rows)


@pytest.mark.usefixtures("filled")
def test_a_mask_shows_networks_and_numbers(database: dict[str, str]) -> None:
    found, masked = read(database), read(database, mask=Mask(hides=True))
    everything = repr(masked)
    for email in filter(None, EMAILS):
        assert repr(email) not in everything
    for source in filter(None, SOURCES):
        assert f"'{source}'" not in everything or "/" in source
    assert "198.51.100.9" not in everything
    assert "2001:db8::9" not in everything
    assert [(user.rows, user.addresses, user.concurrent_addresses) for user in masked.users] == [
        (user.rows, user.addresses, user.concurrent_addresses) for user in found.users
    ]
    shown = dict(masked.users[0].visited_from)
    rows = [row for row in INSIDE if row.email == found.users[0].name]
    assert shown["203.0.113.0/24"] == sum(
        ip_address(row.source.split("/")[0]) in ip_network("203.0.113.0/24") for row in rows if row.source
    )
    assert {of.address for of in masked.sources} <= {
        "203.0.113.0/24",
        "2001:db8:1::/48",
        "2001:db8:2::/48",
        "198.18.0.0/24",
        *(f"203.0.{n}.0/24" for n in range(5)),
        traffic.NO_SOURCE,
    }


SPELLINGS = (  # of addresses that a resolver or a reader understands
    "203.0.113.77.",
    "203.0.113.077",
    "0xcb.0.0x71.77",
    "0xcb00714d",
    "3405803853",
    "203.0.113.77:443",
    " 203.0.113.77",
    "２０３.0.113.77",
    "alice@203.0.113.77",
    "203-0-113-77.isp.example",
    "203.0.113.77.nip.example",
    "203_0_113_9.isp.example",
    "203--0--113--9.isp.example",
    "a203-0.113-9.isp.example",
    "cb007109.nip.example",
    "2a01-4f8-c17-b8f--2.sslip.example",
    "2001-db8-85a3-8d3-1319-8a2e-370-7348.dip.example",
    "host-2001_db8-85a3--7348.isp.example",
    "20010db885a308d313198a2e03707348.ip6.example",
    "2a01-4f8-c17-b8f.isp.example",
    "pCB007109.dip0.isp.example",
    "xcb007109.dyn.isp.example",
    "KD203000113009.ppp-bb.isp.example",
    "203.red-0-113-9.dynamicip.isp.example",
    "203.pool0-113-9.dynamic.isp.example",
    "203x0x113x9.ap113.isp.example",
    "h-0xcb007109.example",
    "2a09--.sslip.example",
    "fe80--1.sslip.example",
    "www.--ffff-cb00-7109.sslip.example",
    "8.4.3.7.0.7.3.0.e.2.a.8.9.1.3.1.3.d.8.0.3.a.5.8.8.b.d.0.1.0.0.2.ip6.arpa",
)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("host.example", "host.example"),
        ("xn--bcher-kva.example.", "xn--bcher-kva.example."),
        ("a-b-c.edge-01.cdn-2024-11-05.example", "a-b-c.edge-01.cdn-2024-11-05.example"),
        ("img20241105.example", "img20241105.example"),
        ("node1.rack2.row3.dc4.example", "node1.rack2.row3.dc4.example"),
        ("a-b--app.example", "(an address)"),  # it may be one
        ("deadbeef.cloudfront.example", "deadbeef.cloudfront.example"),
        ("deploy-preview-42--site.example", "deploy-preview-42--site.example"),
        ("rr5---sn-4g5e6nsz.googlevideo.example", "rr5---sn-4g5e6nsz.googlevideo.example"),
        ("d1a2b3c4d5e6f7.cloudfront.example", "d1a2b3c4d5e6f7.cloudfront.example"),
        ("203.0.113.77", "203.0.113.0/24"),
        ("[2001:db8:1:2::3]", "2001:db8:1::/48"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("2002:cb00:714d::1", "2002:cb00:7100::/40"),
        (None, "(none)"),
        *((spelling, "(an address)") for spelling in SPELLINGS),
    ],
)
def test_a_mask_shows_names_of_hosts_and_networks_of_addresses(address: str | None, shown: str) -> None:
    assert Mask(hides=True).destination(address) == shown
    assert Mask().destination(address) == (address or "(none)")


def test_a_mask_numbers_the_nodes(filled: Connection, database: dict[str, str]) -> None:
    """The name of one may be its address."""
    numbers = [number for (number,) in filled.execute("SELECT id FROM nodes")]
    shown = {node.name for node in read(database, mask=Mask(hides=True)).nodes}
    assert shown == {traffic.NO_NODE, *(f"node {number}" for number in numbers)}


# --- what hand-made and old tables hold ---------------------------------------------------------------------


def test_a_node_whose_name_is_gone_is_shown_by_its_id(filled: Connection, database: dict[str, str]) -> None:
    filled.execute("ALTER TABLE nodes ALTER name DROP NOT NULL")
    ((number,),) = filled.execute("UPDATE nodes SET name = NULL WHERE name = 'n1' RETURNING id")
    assert f"(id {number})" in {node.name for node in read(database).nodes}


def test_the_page_of_one_node_names_it(site: Site, conn: Connection) -> None:
    fill(conn, ROWS)
    report(site, "--node", "n1")
    assert "of node <bdi>n1</bdi>;" in text(site)
    report(site, "--node", "n1", "--mask")
    assert re.search("of node <bdi>node [0-9]+</bdi>;", text(site))
    report(site)
    assert "of node" not in text(site)


def test_a_node_that_was_silent_all_the_time_is_a_gap(conn: Connection, database: dict[str, str]) -> None:
    fill(conn, [ROWS[0]._replace(at=WINDOW.since + timedelta(minutes=50 * n), node="n1") for n in range(87)])
    assert [(gap.node, gap.since, gap.until) for gap in read(database).gaps] == [("n2", WINDOW.since, WINDOW.until)]


def test_a_port_without_a_protocol_is_shown(conn: Connection, database: dict[str, str]) -> None:
    row = ROWS[0]._replace(at=WINDOW.since, host="ss.example", port=8443)
    fill(conn, [row._replace(protocol=None), row._replace(protocol="tcp")])  # type: ignore[arg-type]
    found = read(database)
    assert {(port.protocol, port.port, port.rows) for port in found.ports} == {("(none)", 8443, 1), ("tcp", 8443, 1)}
    assert sorted(found.top[0].ports) == ["(none)/8443", "tcp/8443"]


def test_a_user_whose_name_is_gone_is_shown_by_its_id(conn: Connection, database: dict[str, str]) -> None:
    fill(conn, [ROWS[0]._replace(at=WINDOW.since, host="host.example", port=443, email="alice")])
    conn.execute("SET session_replication_role = replica")  # no keys, as in tables that somebody made by hand
    (number,) = conn.execute("DELETE FROM users WHERE email = 'alice' RETURNING id").fetchone() or (0,)
    found = read(database)
    assert [user.name for user in found.users] == [f"(id {number})"]
    assert (found.top[0].users, found.top[0].visitors) == (1, [(f"(id {number})", 1)])


def test_tables_that_are_there_and_not_seen_are_no_empty_page(site: Site, conn: Connection) -> None:
    fill(conn, ROWS)
    conn.execute("CREATE SCHEMA hidden")
    conn.execute("ALTER TABLE logs SET SCHEMA hidden")
    assert "found hidden.logs" in report(site, status=3).stderr


def test_a_table_that_is_missing_is_named(site: Site, conn: Connection) -> None:
    fill(conn, ROWS)
    conn.execute("DROP TABLE rejected_lines")
    assert "rejected_lines, found none; a run of parse_logs.py creates them" in report(site, status=3).stderr


# --- the snapshot ------------------------------------------------------------------------------------------


def test_both_sessions_see_the_same_rows(filled: Connection, database: dict[str, str]) -> None:
    """A row that comes between two questions is in no answer."""
    said: list[str] = []

    def say(what: str, _: float) -> None:
        said.append(what)
        filled.execute(INSERT, INSIDE[0]._replace(email="alice", source="192.0.2.1"))

    found = collect.read(lambda: database_session(database), Scope(WINDOW), say)
    assert len(said) > 5
    assert found.rows == len(INSIDE)
    assert sum(sum(user.by_day) for user in found.users) == sum(user.rows for user in found.users)
    assert sum(user.rows for user in found.users) == sum(row.email is not None for row in INSIDE)


def database_session(keywords: dict[str, str]) -> AbstractContextManager[Connection]:
    return databases.connect(keywords)


def test_one_session_does_where_there_is_no_second_one(filled: Connection, database: dict[str, str]) -> None:
    sessions: list[Connection] = []

    def connect() -> AbstractContextManager[Connection]:
        if sessions:
            raise Unavailable("too many clients")
        sessions.append(filled)
        return database_session(database)

    assert collect.read(connect, Scope(WINDOW), lambda *_: None) == read(database)


@pytest.mark.usefixtures("filled")
def test_only_the_days_of_the_window_and_of_the_period_before_are_read(
    database: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    window = Window.of(UTC, 1, date(2025, 11, 16), NOON + timedelta(days=9))
    plans: dict[str, str] = {}
    run = snapshot.Session.query

    def explained(self: snapshot.Session, what: str, query: Any, **values: Any) -> list[Any]:
        text = query if isinstance(query, str) else query.as_string(self.conn)
        rows = self.conn.execute(f"EXPLAIN {text}", {**self.values, **values}).fetchall()
        plans[what] = "\n".join(line for (line,) in rows)
        return run(self, what, query, **values)

    monkeypatch.setattr(snapshot.Session, "query", explained)
    read(database, window)
    days = {str(row.at.astimezone(timezone.utc).date()).replace("-", "_") for row in ROWS}
    of_logs = {what: {day for day in days if f"logs_{day}" in plan} for what, plan in plans.items()}
    assert of_logs.pop("older rows")  # is there one?
    assert of_logs.pop("destinations") == {"2025_11_15", "2025_11_16"}
    assert {what for what, read_days in of_logs.items() if read_days} == {
        "traffic",
        "users",
        "rejected sources",
        "visits",
        "ports",
        "destinations of users",
        "days of users, 2025-11-16",
        "concurrent addresses, 2025-11-16",
    }
    assert all(read_days <= {"2025_11_16"} for read_days in of_logs.values())
    assert len(days) > 4


def test_it_writes_nothing(site: Site, conn: Connection) -> None:
    fill(conn, ROWS)
    before = facts(conn), site.query("SELECT count(*) FROM logs")
    with snapshot.open_pair(lambda: database_session(site.database), 0, lambda *_: None) as (first, second):
        for session in (first, second):
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), session.conn.transaction():
                session.conn.execute("CREATE TABLE mine ()")
    report(site)
    assert before == (facts(conn), site.query("SELECT count(*) FROM logs"))


@pytest.fixture
def reader(site: Site, conn: Connection) -> Iterator[Identifier]:
    """The role of the site's config; it owns nothing and may read nothing yet."""
    fill(conn, ROWS)
    name = f"reader_of_{site.database['dbname']}"
    conn.execute(SQL("CREATE ROLE {} LOGIN PASSWORD 'only for this test'").format(Identifier(name)))
    site.set("postgresql", user=name, password="only for this test")  # noqa: S106  # of this role alone
    yield Identifier(name)
    conn.execute(SQL("DROP OWNED BY {}").format(Identifier(name)))
    conn.execute(SQL("DROP ROLE {}").format(Identifier(name)))


def test_a_role_that_may_only_read_is_enough(site: Site, conn: Connection, reader: Identifier) -> None:
    for table in (*NAMES, "logs", "log_positions", "rejected_lines"):  # not on the partitions
        conn.execute(SQL("GRANT SELECT ON {} TO {}").format(Identifier(table), reader))
    report(site)
    report(site, "--until", "2025-12-31")
    assert "<code>--until 2025-11-" in text(site)


def test_a_role_that_may_not_read_one_of_them_gets_the_grant_it_needs(
    site: Site, conn: Connection, reader: Identifier
) -> None:
    conn.execute(SQL("GRANT SELECT ON logs, nodes TO {}").format(reader))
    (grant,) = re.findall("GRANT SELECT ON .*", report(site, status=3).stderr)
    conn.execute(grant)
    report(site)


# --- the script --------------------------------------------------------------------------------------------


def report(site: Site, *arguments: str, status: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    """One run of report_logs.py into the site's folder."""
    output = ["--output", str(site.folder / "report.html")]
    return site.run(
        *output, "--days", "3", "--until", str(LAST), *arguments, status=status, script="report_logs", **options
    )


def text(site: Site) -> str:
    return (site.folder / "report.html").read_text()


def data(site: Site) -> Any:
    return json.loads(text(site).partition('id="data">')[2].partition("</script>")[0])


def test_the_page_is_its_owners_alone_and_replaces_the_old_one_as_a_whole(site: Site, conn: Connection) -> None:
    fill(conn, ROWS)
    old = site.folder / "report.html"
    old.write_text("old")
    old.chmod(0o644)
    with old.open() as opened:
        done = report(site, umask=0)
        assert opened.read() == "old"
    assert (done.stdout, done.stderr) == ("", "")
    assert old.stat().st_mode & 0o777 == 0o600
    assert not [path for path in site.folder.iterdir() if path.name.endswith(".new")]
    assert len(data(site)["users"]) == 4


def test_the_page_of_masked_data_holds_no_address_and_no_name(site: Site, conn: Connection) -> None:
    rows = [
        row._replace(email="eve@example.org", source="203.0.113.77", host="192.0.2.99", port=443) for row in INSIDE[:5]
    ]
    fill(conn, rows)
    report(site, "--mask")
    assert "eve@example.org" not in text(site)
    assert "203.0.113.77" not in text(site)
    assert "192.0.2.99" not in text(site)
    assert "203.0.113.0/24" in text(site)
    assert data(site)["users"][0][0].startswith("user ")


@pytest.mark.parametrize("rows", [None, []], ids=["no tables", "no rows"])
def test_an_empty_database_gives_a_page_that_says_so(site: Site, conn: Connection, rows: list[Row] | None) -> None:
    if rows is not None:
        fill(conn, rows)
    report(site)
    assert "There are no rows of these days" in text(site)


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_where_these_days_have_no_rows_the_newest_day_that_has_some_is_named(
    site: Site, conn: Connection, zone: str
) -> None:
    at = datetime(2025, 11, 13, 10, 30, tzinfo=timezone.utc)
    fill(conn, [ROWS[0]._replace(at=at - timedelta(hours=n)) for n in (0, 9, 24)])
    conn.execute("CREATE TABLE odd PARTITION OF logs FOR VALUES FROM ('4714-11-24 00:00+00 BC') TO ('2020-01-01')")
    conn.execute("CREATE TABLE later PARTITION OF logs FOR VALUES FROM ('2400-01-01') TO ('294276-12-31')")
    partitions.Partitions(conn).ensure({"2025-11-14", str(datetime.now(timezone.utc).date())})
    site.set("parser", timezone=zone)
    said = report(site, "--until", "2025-12-31").stderr  # cron mails it
    assert "0 rows of 2025-12-29 to 2025-12-31" in said
    (day,) = re.findall("<code>--until ([0-9-]+)</code>", text(site))
    assert day == str(at.astimezone(ZoneInfo(zone)).date())
    assert report(site, "--until", day).stderr == ""
    assert "<code>--until" not in text(site)


@pytest.mark.parametrize("at", ["infinity", "tomorrow", "9999-12-31 10:00+00", "1969-12-31 10:00+00"])
def test_a_row_that_no_page_could_show_is_not_named_as_the_newest(site: Site, conn: Connection, at: str) -> None:
    fill(conn, [])
    conn.execute("CREATE TABLE others PARTITION OF logs FOR VALUES FROM (MINVALUE) TO ('2025-01-01')")
    conn.execute("CREATE TABLE later PARTITION OF logs FOR VALUES FROM ('2026-01-01') TO (MAXVALUE)")
    conn.execute('INSERT INTO logs ("timestamp", action) VALUES (%s, %s)', [at, "accepted"])
    report(site)
    assert "<code>--until" not in text(site)
    assert "There are no rows of these days." in text(site)


def notes(found: Findings, done: run_history.Runs, written: datetime) -> list[str]:
    listed = page.render(found, done, written, is_masked=False).partition('<ul class="notes">')[2].partition("</ul>")[0]
    return [re.sub("</?bdi>", "", note) for note in re.findall("<li>(.*)</li>", listed)]


HOUR = timedelta(hours=1)


def node(name: str, last: timedelta | None, stored: timedelta | None, rows: int = 7, rejected: int = 0) -> Node:
    """One whose last row, and last run that stored lines, are so long before noon."""
    first, end = (None, None) if last is None else (NOON - last, NOON - last)
    return Node(name, rows, first, end, rejected, None if stored is None else NOON - stored)


def test_what_an_operator_should_look_at_comes_first() -> None:
    window = Window.of(BERLIN, 1, None, NOON)
    good = node("n1", HOUR / 2, HOUR / 3)
    assert notes(Findings(window, [good]), run_history.Runs(known=True, count=3), NOON) == []
    assert "Nothing stands out" in page.render(Findings(window, [good]), run_history.Runs(), NOON, is_masked=False)
    bad = node("<b>", HOUR, HOUR, rejected=12)
    done = run_history.Runs(known=True, count=3, offline=2, buffer_bytes=1_500_000, unseen=(run_history.STATISTICS,))
    assert notes(Findings(window, [good, bad]), done, NOON) == [
        "No row in the last hour: &lt;b&gt;",
        "What cannot be read, and is not known here: the statistics",
        "In the buffer wait 1.5 MB: the next run that reaches PostgreSQL imports them.",
        "Runs that did not reach PostgreSQL: 2 of 3.",
        "Lines not understood: 12. They are in rejected_lines, with reasons.",
    ]
    assert notes(Findings(window), run_history.Runs(), NOON) == ["No rows of these days."]


@pytest.mark.parametrize(
    ("quiet", "is_silent"),
    [
        (node("n", HOUR, HOUR), True),
        (node("n", HOUR, HOUR * 0.9), True),  # its lines were not understood, or its run only found its log still there
        (node("n", HOUR * 0.9, HOUR), False),
        (node("n", None, HOUR * 10, rows=0), True),
        (node("n", None, HOUR * 0.9, rows=0), False),  # since midnight nothing, and before it something
        (node("n", HOUR, None), False),  # no node of ours: rows without one, or of a hand-made table
        (node("n", None, HOUR * 24 * 30, rows=0), False),  # retired
    ],
)
def test_a_node_is_silent_when_nothing_came_of_it_in_the_last_hour(quiet: Node, is_silent: bool) -> None:
    told = notes(
        Findings(Window.of(BERLIN, 1, None, NOON), [node("n1", HOUR / 2, HOUR / 3), quiet]), run_history.Runs(), NOON
    )
    assert told == ["No row in the last hour: n"] * is_silent


def test_of_days_that_are_over_the_nodes_are_named_that_had_no_line_in_them() -> None:
    past = Window.of(BERLIN, 1, LAST, NOON + timedelta(days=9))
    nodes = [node("n1", HOUR, HOUR), node("n2", None, HOUR, rows=0), node("n3", None, HOUR * 24 * 9, rows=0)]
    told = notes(Findings(past, nodes), run_history.Runs(), NOON + timedelta(days=9))
    assert told == ["No row in these days, and runs since then: n2"]


def test_a_day_without_lines_stands_out_and_a_quiet_night_does_not() -> None:
    window = Window.of(BERLIN, 3, None, NOON)
    nodes = [node("n1", HOUR / 2, HOUR / 3), node("n2", HOUR / 2, HOUR / 3), node("old", None, None, rows=0)]
    quiet = [
        Gap("n1", NOON - HOUR * 30, NOON - HOUR * 6.01),  # a night
        Gap("n1", window.since, window.since + HOUR * 30),  # it may have been new
        Gap("old", window.since, NOON),
        Gap(traffic.NO_NODE, NOON - HOUR * 30, NOON),  # of a table that was migrated
    ]
    assert notes(Findings(window, nodes, quiet), run_history.Runs(), NOON) == []
    gaps = [Gap(name, NOON - HOUR * 30, NOON - HOUR * 6) for name in ("n2", "n1", "n2")]
    assert notes(Findings(window, nodes, [*quiet, *gaps]), run_history.Runs(), NOON) == [
        "A day or more without any row: n1, n2"
    ]


def test_a_node_that_is_silent_for_a_day_is_named_once() -> None:
    window = Window.of(BERLIN, 3, None, NOON)
    down = Findings(window, [node("n1", HOUR * 30, HOUR * 30)], [Gap("n1", NOON - HOUR * 30, NOON)])
    assert notes(down, run_history.Runs(), NOON) == ["No row in the last hour: n1"]
    assert notes(down, run_history.Runs(), NOON + HOUR) == ["A day or more without any row: n1"]  # these days are over


def test_of_many_nodes_that_are_silent_some_are_named() -> None:
    nodes = [node(f"n{n}", HOUR, HOUR) for n in range(11)]
    (told,) = notes(Findings(Window.of(BERLIN, 1, None, NOON), nodes), run_history.Runs(), NOON)
    assert told.endswith("n8, n9 and others")


def test_a_buffer_and_statistics_that_may_not_be_read_are_reported() -> None:
    """Not below tmp_path: pytest keeps that for its own user, who may be root."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder, closed = Path(name), Path(name) / "closed"
        folder.chmod(0o755)
        closed.mkdir()
        for path in (closed / "buffer.jsonl", closed / "stats.jsonl", folder / "stats.jsonl"):
            path.write_text("{}\n")
        (folder / "stats.jsonl").chmod(0)
        closed.chmod(0)
        os.seteuid(user or NOBODY)
        try:
            hidden = run_history.read(closed / "stats.jsonl", "json", closed / "buffer.jsonl", WINDOW, NO_METRICS)
            locked = run_history.read(folder / "stats.jsonl", "json", folder / "none", WINDOW, NO_METRICS)
        finally:
            os.seteuid(user)
            closed.chmod(0o700)
    assert hidden == run_history.Runs(buffer_bytes=None, unseen=(run_history.BUFFER, run_history.STATISTICS))
    assert locked == run_history.Runs(unseen=(run_history.STATISTICS,))


def test_the_page_shows_the_runs_and_the_buffer(site: Site, conn: Connection) -> None:
    fill(conn, ROWS)
    started = WINDOW.since.astimezone().replace(tzinfo=None)
    rows = [
        {"run_started_at": (started + timedelta(hours=n)).isoformat(), "mode": mode, "processed": 10 + n, "failed": n}
        for n, mode in enumerate(("online", "offline", "online", "offline"))
    ]
    early = {**rows[0], "run_started_at": (started - timedelta(days=1)).isoformat()}
    site.stats.write_text("".join(json.dumps(row) + "\n" for row in [early, *rows]) + '{"torn')
    site.buffer.write_bytes(b"x" * 123)
    done = run_history.read(site.stats, "json", site.buffer, WINDOW, NO_METRICS)
    assert (done.count, done.offline, done.spooled, done.last_good) == (4, 2, 24, None)
    assert (done.last_stored, done.buffer_bytes) == (WINDOW.since + timedelta(hours=2), 123)
    report(site)
    assert "123 bytes" in text(site)
    assert "last good run" not in text(site)


def test_the_last_good_run_is_that_of_the_metrics(site: Site) -> None:
    """A run that has nothing to do is a good one; one that failed is not, and leaves the time of the one before."""
    site.set("stats", prometheus="xraylog.prom")
    metrics = Metrics(site.folder / "xraylog.prom", "n1", site.log)
    site.run()
    assert abs(metrics.last_success() - time.time()) < 60
    text_of_metrics = (site.folder / "xraylog.prom").read_text()
    (site.folder / "xraylog.prom").write_text(re.sub(r"(last_success\S+}) \S+", r"\1 1763374200", text_of_metrics))
    site.log.mkdir()
    site.run(status=3)
    report(site)
    told = text(site).partition("<dt>last good run</dt>")[2].partition("</dd>")[0]
    assert "2025-11-17T10:10:00" in told


@pytest.mark.parametrize("form", ["json", "csv"])
def test_the_statistics_that_runs_write_are_read(site: Site, form: str) -> None:
    site.set("stats", format=form)
    site.append(
        "not xray's\n",
        *[f"2025/11/17 10:15:2{n} from 10.0.0.1:1 accepted tcp:h:443 [a -> b] email: u\n" for n in range(3)],
    )
    site.run()
    window = Window.of(UTC, 1, None, datetime.now(timezone.utc) + timedelta(seconds=1))
    done = run_history.read(site.stats, form, site.buffer, window, NO_METRICS)
    assert (done.known, done.count, done.offline, done.last_stored is not None) == (True, 1, 0, True)


def test_a_run_that_failed_is_no_good_one(site: Site) -> None:
    """Its row says online, for the database was not away."""
    site.log.mkdir()
    site.run(status=3)
    assert site.last_stats()["mode"] == "online"
    window = Window.of(UTC, 1, None, datetime.now(timezone.utc))
    assert run_history.read(site.stats, "json", site.buffer, window, NO_METRICS).last_stored is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 99,
        b'"' + b"x" * 200_000 + b'"\n',
        b"[" * 100_000 + b"\n",
        b"[1]\n",
        b'{"run_started_at": 7}\n',
        b"\xff\xfe\n",
        b"1,2\n",
    ],
)
@pytest.mark.parametrize("form", ["json", "csv"])
def test_statistics_that_are_not_ours_tell_nothing(tmp_path: Path, content: bytes, form: str) -> None:
    path = tmp_path / "stats"
    path.write_bytes(content)
    assert run_history.read(path, form, tmp_path / "none", WINDOW, NO_METRICS) == run_history.Runs(known=bool(content))
    assert run_history.read(tmp_path / "none", form, tmp_path / "none", WINDOW, NO_METRICS) == run_history.Runs()


def test_without_a_server_no_page_is_written_and_the_command_that_helps_is_named(site: Site) -> None:
    site.away()
    done = report(site, status=1)
    assert "PostgreSQL is not available" in done.stderr
    assert "--check" in done.stderr
    assert not (site.folder / "report.html").exists()


def test_a_query_that_takes_too_long_ends(site: Site, conn: Connection) -> None:
    """Another session holds the table: nothing is asked of it any more when the time is over."""
    fill(conn, ROWS)
    site.set("report", statement_timeout=1)
    with conn.transaction():
        conn.execute("LOCK TABLE logs")
        done = report(site, status=1)
    assert "statement timeout" in done.stderr
    assert "[report] statement_timeout" in done.stderr


def test_ended_while_it_asks_it_leaves_no_query_running(site: Site, conn: Connection) -> None:
    """By SIGTERM, as systemd and timeout end it: else the server would go on for nobody."""
    fill(conn, ROWS)
    with conn.transaction():
        conn.execute("LOCK TABLE logs")
        command = site.command("--output", str(site.folder / "report.html"), script="report_logs")
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
            wait_until(lambda: bool(sessions(site)))
            run.terminate()
            _, said = run.communicate(timeout=30)
        assert (run.returncode, "interrupted; no page was written" in said) == (1, True), said
        wait_until(lambda: not sessions(site))
    assert not (site.folder / "report.html").exists()


def sessions(site: Site) -> list[tuple[Any, ...]]:
    """Those of the script that wait for a lock."""
    return site.query(
        "SELECT pid FROM pg_stat_activity "
        "WHERE application_name = 'report_logs' AND datname = current_database() AND wait_event_type = 'Lock'"
    )


def test_a_folder_that_may_not_be_entered_is_reported(site: Site) -> None:
    cfg, closed = config.read(site.config), site.folder / "closed"
    closed.mkdir(mode=0)
    user = os.geteuid()
    os.seteuid(user or NOBODY)
    try:
        with pytest.raises(config.ConfigError, match="--output: expected a file, or a place for one, found no folder"):
            config.refuse_for_output(cfg, closed / "in" / "report.html")
    finally:
        os.seteuid(user)


def test_a_node_that_is_not_there_is_reported(site: Site, conn: Connection) -> None:
    fill(conn, ROWS)
    done = report(site, "--node", "n9{}", status=3)
    assert "expected one of the nodes n1, n2, found n9{}" in done.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--days", "0"),
        ("--days", "367"),
        ("--days", "x"),
        ("--until", "2025-02-30"),
        ("--until", "0001-01-01"),
        ("--until", "today"),
        ("--output", ""),
        ("--output", "-"),
    ],
)
def test_a_wrong_option_is_reported(site: Site, option: str, value: str) -> None:
    done = report(site, option, value, status=2)
    assert "expected" in done.stderr


@pytest.mark.parametrize("name", ["config.ini", "buffer.jsonl", "stats.jsonl", "access.log"])
def test_the_page_does_not_replace_one_of_our_files(site: Site, name: str) -> None:
    done = site.run("--output", str(site.folder / name), status=78, script="report_logs")
    assert "--output: expected a file of its own, found" in done.stderr
    assert (site.folder / "config.ini").stat().st_size


@pytest.mark.parametrize("name", ["nowhere/report.html", ".", "/dev/null", "pipe"])
def test_a_page_that_cannot_be_put_there_is_reported_before_anything_is_asked(site: Site, name: str) -> None:
    """As root, /dev/null would become a file."""
    os.mkfifo(site.folder / "pipe")
    site.away()
    done = site.run("--output", str(site.folder / name), status=78, script="report_logs")
    assert "--output: expected a file, or a place for one, found" in done.stderr
    assert Path("/dev/null").is_char_device()


def test_what_keeps_the_page_from_being_written_is_named(site: Site, conn: Connection) -> None:
    fill(conn, ROWS)
    (site.folder / ".report.html.new").mkdir()
    assert f"{site.folder / '.report.html.new'}: expected to write the page, found: " in report(site, status=3).stderr


def test_what_a_link_leads_to_is_replaced(site: Site, conn: Connection) -> None:
    del conn
    (site.folder / "real").mkdir()
    (site.folder / "report.html").symlink_to(site.folder / "real" / "page.html")
    report(site)
    assert (site.folder / "report.html").is_symlink()
    assert "Xray traffic" in (site.folder / "real" / "page.html").read_text()


def test_a_full_disk_leaves_the_old_page(site: Site) -> None:
    old = site.folder / "report.html"
    old.write_text("old")
    command = shlex.join([*site.command("--output", str(old), script="report_logs")])
    done = subprocess.run(
        ["/bin/bash", "-c", f"ulimit -f 1; trap '' XFSZ; {command}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert "expected to write the page, found: File too large" in done.stderr
    assert old.read_text() == "old"
    assert not (site.folder / ".report.html.new").exists()


def test_without_its_packages_it_names_the_command_that_installs_them(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "xraylog.report.page")
    monkeypatch.delattr("xraylog.report.page")
    assert report_logs.main(["--config", str(site.config), "--output", str(site.folder / "report.html")]) == 3
    said = capsys.readouterr().err
    assert "expected the package jinja2, found none" in said
    assert "pip install -r" in said
    assert str(ROOT / "requirements-report.txt") in said


def test_progress_is_shown_on_request(site: Site, conn: Connection) -> None:
    fill(conn, ROWS)
    said = re.findall("asked for (.*): ", report(site, "-v").stderr)
    assert "traffic" in said
    assert len({*said}) == len(said)
    assert report(site, env={**os.environ, "PYTHONWARNINGS": "error"}).stderr == ""


def test_help_reads_well_on_80_columns(site: Site) -> None:
    done = site.run("--help", script="report_logs", env={**os.environ, "COLUMNS": "80"})
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_first_minutes_of_a_day_in_a_zone_of_half_hours_have_no_marks() -> None:
    kolkata = ZoneInfo("Asia/Kolkata")
    now = datetime(2025, 11, 16, 18, 35, tzinfo=timezone.utc)
    assert time_series.marks(Findings(Window.of(kolkata, 1, None, now)), UTC) == {}


def test_a_time_of_the_last_good_run_that_is_none_is_left_out(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "x.prom", "n1", tmp_path)
    metrics.begin(0)
    (tmp_path / "x.prom").write_text(
        re.sub(r"(last_success\S+}) \S+", r"\1 1764100000000000000", (tmp_path / "x.prom").read_text())
    )
    assert metrics.last_success() > 1e18
    assert run_history.read(None, None, tmp_path / "none", WINDOW, metrics) == run_history.Runs()


@pytest.mark.timeout(60)
def test_pipes_in_the_place_of_statistics_and_metrics_are_not_waited_for(tmp_path: Path) -> None:
    """Nobody writes into them."""
    for name in ("stats", "x.prom"):
        os.mkfifo(tmp_path / name)
    metrics = Metrics(tmp_path / "x.prom", "n1", tmp_path)
    assert metrics.last_success() == 0
    found = run_history.read(tmp_path / "stats", "json", tmp_path / "stats", WINDOW, metrics)
    assert found == run_history.Runs(buffer_bytes=None, unseen=(run_history.BUFFER, run_history.STATISTICS))
    shown = page.render(Findings(WINDOW), found, NOON, is_masked=False)
    assert "<dt>waiting in the buffer</dt><dd>unknown</dd>" in shown
    assert "There are no statistics" not in shown
    for path, form in (("stats", None), ("/dev/null", "json")):  # none are kept
        assert run_history.read(tmp_path / path, form, tmp_path / "none", WINDOW, metrics) == run_history.Runs()


@pytest.mark.parametrize("zone", [BERLIN, ZoneInfo("America/New_York")], ids=["east", "west"])
def test_moments_and_counts_that_nobody_had_are_no_runs(tmp_path: Path, zone: ZoneInfo) -> None:
    """They may be in a damaged file, and could not be shown."""
    rows = [
        ("9999-12-31T23:59:59", 1),
        ("0001-01-01T00:00:00", 1),
        (WINDOW.since.isoformat(), 10**4000),
        (WINDOW.since.isoformat(), -1),
    ]
    stats = tmp_path / "stats"
    stats.write_text(
        "".join(f'{{"run_started_at": "{at}", "mode": "offline", "processed": {n}, "failed": 0}}\n' for at, n in rows)
    )
    (tmp_path / "x.prom").write_text(
        f'xraylog_last_success_timestamp_seconds{{node="n1",log="{tmp_path}"}} 253402300799\n'
    )
    metrics = Metrics(tmp_path / "x.prom", "n1", tmp_path)
    assert metrics.last_success() == 253402300799
    done = run_history.read(stats, "json", tmp_path / "none", WINDOW, metrics)
    assert done == run_history.Runs(known=True)
    assert page.render(Findings(Window.of(zone, 1, LAST, NOON)), done, NOON, is_masked=False)


@pytest.mark.parametrize("at", ["9999-12-31 23:30+00", "infinity", "-infinity", "4713-01-01 00:00+00 BC"])
def test_a_position_that_moved_at_no_moment_costs_no_page(
    filled: Connection, database: dict[str, str], at: str
) -> None:
    filled.execute(
        "INSERT INTO log_positions (node_id, source, position, head_length, head, updated_at) "
        "SELECT id, '/var/log/x', 1, 0, '', %s FROM nodes LIMIT 1",
        [at],
    )
    assert {node.stored for node in read(database).nodes} == {None}


def test_rejected_rows_without_a_source_are_shown(site: Site, conn: Connection) -> None:
    """A source that xray hid, or a unix socket."""
    fill(conn, [ROWS[0]._replace(at=WINDOW.since, action="rejected", source=None, node="n1")] * 3)
    (source,) = read(site.database).sources
    assert (source.address, source.rows) == ("(no address)", 3)
    report(site)
    assert "Nobody was rejected" not in text(site)


@pytest.mark.parametrize("until", ["2999-01-01", "0003-01-01", "1969-12-31"])
def test_a_day_that_can_have_no_rows_is_refused(site: Site, until: str) -> None:
    done = site.run("--until", until, script="report_logs", status=2)
    assert "--until: expected a day" in done.stderr
    assert not (site.folder / "report.html").exists()


def test_an_unknown_node_is_reported_without_a_hint_that_could_not_fix_it(site: Site, conn: Connection) -> None:
    fill(conn, ROWS)
    said = report(site, "--node", "n\x1b[31m", status=3).stderr
    assert "\x1b" not in said
    assert "expected one of the nodes n1, n2, found" in said
    assert "--check" not in said
