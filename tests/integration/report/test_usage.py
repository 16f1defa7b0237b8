"""Outbound tags, ports, active users and the last day are those of plain SQL on the same rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import timedelta

from helpers.report_data import BERLIN, HOUR, INSIDE, NOON, Row, fill, read

from xraylog.database.session import Connection
from xraylog.report import time_series
from xraylog.report.model import NO_TAG, Comparison, Findings, Window

LET_IN = [row for row in INSIDE if row.action == "accepted"]


def test_tags_and_ports_are_counted_by_user_and_in_total(found: Findings) -> None:
    assert found.tags == Counter(row.tag or NO_TAG for row in LET_IN)
    for user in found.users:
        rows = [row for row in LET_IN if row.email == user.name]
        assert user.tags == Counter(row.tag or NO_TAG for row in rows)
        groups = {443: "web", 80: "web", 53: "DNS", None: "other"}
        assert user.ports == Counter(groups[row.port] for row in rows)


def test_destinations_are_counted_of_tags_that_go_nowhere(found: Findings) -> None:
    expected = Counter(row.host for row in LET_IN if row.host and row.tag == "block")
    assert {tag: dict(goals) for tag, goals in found.tag_goals.items()} == {"block": expected}


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
