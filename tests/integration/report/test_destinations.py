"""Destinations and ports are those of plain SQL on the same rows."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta

import pytest
from helpers.report_data import (
    BERLIN,
    HOUR,
    LAST,
    LET_IN,
    LET_IN_BEFORE,
    NOON,
    ROWS,
    WINDOW,
    fill,
    fill_one,
    read,
)

from xraylog.database import partitions
from xraylog.database.session import Connection
from xraylog.report.model import Findings, Thresholds
from xraylog.report.window import Window


def test_destinations_are_those_of_plain_sql(found: Findings) -> None:
    counts, before = (
        Counter(row.host for row in LET_IN if row.host),
        Counter(row.host for row in LET_IN_BEFORE if row.host),
    )
    assert sorted(counts.values(), reverse=True) == [goal.rows for goal in found.top]
    for goal in found.top:
        rows = [row for row in LET_IN if row.host == goal.address]
        assert (goal.rows, goal.rows_before) == (len(rows), before[goal.address])
        visitors = Counter(row.email for row in rows if row.email)
        assert goal.users == len(visitors)
        assert dict(goal.visitors) == visitors
        assert set(goal.ports) == {f"{row.protocol}/{row.port}" for row in rows}
    rising = {host: rows - before[host] for host, rows in counts.items() if before[host] and rows >= before[host] * 1.5}
    assert {goal.address: goal.gain for goal in found.rising}.items() <= rising.items()
    gains = sorted(rising.values(), reverse=True)[: Thresholds().max_changed]
    assert [goal.gain for goal in found.rising] == gains
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


@pytest.mark.parametrize(("late", "is_marked"), [(timedelta(hours=7), False), (timedelta(hours=8), True)])
def test_a_period_before_that_began_to_be_stored_late_is_marked(
    conn: Connection, database: dict[str, str], late: timedelta, is_marked: bool
) -> None:
    """A tenth of three days is 7.2 hours."""
    row = ROWS[0]._replace(host="host.example", port=443)
    fill(conn, [row._replace(at=WINDOW.before + late), row._replace(at=WINDOW.since)])
    found = read(database)
    assert found.before == WINDOW.before + late
    assert found.is_first_period
    assert found.has_partial_period_before == is_marked


def test_a_quiet_night_is_no_beginning(conn: Connection, database: dict[str, str]) -> None:
    row = ROWS[0]._replace(host="host.example", port=443)
    fill(conn, [row._replace(at=at) for at in (WINDOW.before - HOUR, WINDOW.before + 9 * HOUR, WINDOW.since)])
    assert not read(database).has_partial_period_before


def test_how_many_destinations_there_are_is_shown(filled: Connection, database: dict[str, str]) -> None:
    partitions.Partitions(filled).ensure({str(WINDOW.before.date())})
    fill_one(filled, LET_IN[0]._replace(at=WINDOW.before, host="only.before.example", port=443))
    assert read(database).total_destinations == len({row.host for row in LET_IN if row.host})
    assert read(database, Window.of(BERLIN, 1, date(2024, 1, 1), NOON)).total_destinations == 0


def test_ports_are_those_of_plain_sql(found: Findings) -> None:
    counts = Counter(
        (
            row.protocol,
            row.port,
        )
        for row in LET_IN
        if row.port
    )
    assert {(port.protocol, port.port): port.rows for port in found.ports} == counts


def test_a_port_without_a_protocol_is_shown(conn: Connection, database: dict[str, str]) -> None:
    row = ROWS[0]._replace(at=WINDOW.since, host="ss.example", port=8443)
    fill(conn, [row._replace(protocol=None), row._replace(protocol="tcp")])  # type: ignore[arg-type]
    found = read(database)
    assert {(port.protocol, port.port, port.rows) for port in found.ports} == {("(none)", 8443, 1), ("tcp", 8443, 1)}
    assert sorted(found.top[0].ports) == ["(none)/8443", "tcp/8443"]


def test_days_of_the_period_before_without_rows_are_counted(conn: Connection, database: dict[str, str]) -> None:
    window = Window.of(BERLIN, 7, LAST, NOON + timedelta(days=9))
    row = ROWS[0]._replace(host="host1.example", port=443, action="accepted", node="n1")
    ages = (0, 7, 8, 9, 13)  # and all of the days before
    fill(conn, [row._replace(at=NOON - timedelta(days=age)) for age in ages])
    found = read(database, window)
    assert (found.missing_before, found.can_compare) == ((3, 7), False)
    assert read(database, Window.of(BERLIN, 1, LAST, NOON + timedelta(days=9))).missing_before == (0, 0)


def test_neither_a_rejected_connection_nor_a_call_of_the_api_visits_a_destination_or_port(
    conn: Connection, database: dict[str, str]
) -> None:
    """A panel that asks every ten seconds would make 127.0.0.1 the most visited."""
    row = ROWS[0]._replace(at=WINDOW.since, action="accepted", host="host.example", port=443, email="alice")
    api = row._replace(action="api", host="127.0.0.1", port=0, email=None)
    refused = row._replace(action="rejected", host="refused.example", port=22, email="old")
    others = [api, api, refused, refused]
    fill(conn, [*others, *[one._replace(at=WINDOW.before) for one in others], row, row._replace(at=WINDOW.before)])
    found = read(database)
    assert [(goal.address, goal.rows, goal.rows_before) for goal in found.top] == [("host.example", 1, 1)]
    assert (found.total_destinations, found.rising, found.new) == (1, [], [])
    assert [(port.port, port.rows) for port in found.ports] == [(443, 1)]
    assert [user.name for user in found.users] == ["alice"]


def test_a_connection_without_an_action_in_a_table_made_by_hand_is_counted(
    conn: Connection, database: dict[str, str]
) -> None:
    row = ROWS[0]._replace(at=WINDOW.since, action="accepted", host="host.example", port=443, email="alice")
    fill(conn, [row])
    conn.execute("ALTER TABLE logs ALTER action DROP NOT NULL")
    conn.execute("UPDATE logs SET action = NULL")
    found = read(database)
    assert [user.name for user in found.users] == ["alice"]
    assert [(goal.address, goal.rows) for goal in found.top] == [("host.example", 1)]
