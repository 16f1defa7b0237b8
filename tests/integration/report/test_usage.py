"""Outbound tags, ports, active users and the last day are those of plain SQL on the same rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime, timedelta, timezone

from helpers.report_data import BERLIN, HOUR, LET_IN, NOON, Row, fill, read

from xraylog.database.session import Connection
from xraylog.report import time_series
from xraylog.report.model import NO_TAG, Comparison, Findings
from xraylog.report.window import Window


def test_tags_and_ports_are_counted_by_user_and_in_total(found: Findings) -> None:
    assert found.tags == Counter(row.tag or NO_TAG for row in LET_IN)
    for user in found.users:
        rows = [row for row in LET_IN if row.email == user.name]
        assert user.tags == Counter(row.tag or NO_TAG for row in rows)
        groups = {443: "web", 80: "web", 53: "DNS", None: "other"}
        assert user.ports == Counter(groups[row.port] for row in rows)


def test_destinations_are_counted_of_tags_that_go_nowhere(found: Findings) -> None:
    expected = Counter(row.host for row in LET_IN if row.host and row.tag == "block")
    assert {tag: dict(goals) for tag, goals in found.tag_destinations.items()} == {"block": expected}


def test_users_are_active_in_the_hours_in_which_they_were_let_in(found: Findings) -> None:
    expected: dict[object, set[str]] = defaultdict(set)
    for row in LET_IN:
        if row.email:
            expected[row.at.replace(minute=0, second=0, microsecond=0)].add(row.email)
    shown = time_series.active(found, BERLIN)
    assert {hour: count for hour, (count,) in shown.rows if count} == {hour: len(of) for hour, of in expected.items()}


def test_the_last_day_is_compared_with_the_same_hours_a_week_before(conn: Connection, database: dict[str, str]) -> None:
    row = Row(NOON - HOUR, "203.0.113.1", "accepted", "tcp", "h", 443, "direct", "alice", "n1")
    a_week = timedelta(days=7)
    fill(conn, [
        *[row] * 5,
        *[row._replace(at=NOON - HOUR / 10, email="bob", node="n2")] * 2,
        *[row._replace(action="rejected", email=None)] * 3,
        *[row._replace(action="api", email=None)] * 4,
        *[row._replace(at=row.at - a_week)] * 7,
        *[row._replace(at=NOON - a_week + HOUR)] * 9,  # later on that day
        *[row._replace(at=NOON - timedelta(days=1))] * 9,
    ])  # fmt: skip
    assert read(database, Window.of(BERLIN, 2, None, NOON)).today == {
        None: Comparison(rows=7, rejected=3, users=2, online=1, rows_before=7, users_before=1),
        "n1": Comparison(rows=5, rejected=3, users=1, online=0, rows_before=7, users_before=1),
        "n2": Comparison(rows=2, users=1, online=1),
    }


def test_the_same_hours_a_week_before_are_those_of_the_clock(conn: Connection, database: dict[str, str]) -> None:
    """In Berlin, clocks went back on 26 October: its midnight was at 22:00 before, in UTC, and at 23:00 since."""
    now = datetime(2025, 10, 29, 12, tzinfo=timezone.utc)
    row = Row(now - HOUR, "203.0.113.1", "accepted", "tcp", "h", 443, "direct", "alice", "n1")
    borders = [datetime(2025, 10, day, hour, tzinfo=timezone.utc) for day, hour in ((21, 22), (22, 11))]
    outside = [borders[0] - HOUR / 2, borders[1] + HOUR / 2]
    fill(conn, [row, *[row._replace(at=at) for at in (borders[0], borders[0], borders[1] - HOUR / 2, *outside)]])
    today = read(database, Window.of(BERLIN, 2, None, now)).today[None]
    assert (today.rows, today.rows_before) == (1, 3)


def test_who_was_let_in_shortly_before_midnight_is_online_after_it(conn: Connection, database: dict[str, str]) -> None:
    midnight = Window.of(BERLIN, 1, None, NOON).since
    row = Row(midnight - HOUR / 10, "203.0.113.1", "accepted", "tcp", "h", 443, "direct", "alice", "n1")
    fill(conn, [row, row._replace(action="rejected"), row._replace(email="bob", at=midnight + HOUR / 100)])
    today = read(database, Window.of(BERLIN, 1, None, midnight + HOUR / 20)).today
    assert today[None] == today["n1"] == Comparison(rows=1, users=1, online=2)


def test_users_are_active_in_the_hours_of_the_clock_or_their_quarters_wherever_the_page_begins(
    conn: Connection, database: dict[str, str]
) -> None:
    row = Row(NOON, "203.0.113.1", "accepted", "tcp", "h", 443, "direct", "alice", "n1")
    since = NOON - 7 * HOUR + HOUR * 0.9
    fill(conn, [row._replace(at=since), row._replace(at=NOON - HOUR, email="bob"), row._replace(at=NOON - HOUR / 2)])
    shown = time_series.active(read(database, Window(BERLIN, since, NOON)), BERLIN)
    counts = (1, 0, 0, 0, 0, 0, 2)
    assert shown.rows == [(NOON - n * HOUR, [users]) for n, users in zip(range(7, 0, -1), counts, strict=True)]
    quarters = time_series.active(read(database, Window(BERLIN, NOON - 3 * HOUR, NOON)), BERLIN)
    assert [(begin, users) for begin, (users,) in quarters.rows if users] == [(NOON - HOUR, 1), (NOON - HOUR / 2, 1)]
