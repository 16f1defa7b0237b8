"""Nodes, gaps, traffic and rejected sources are those of plain SQL on the same rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from helpers.report_data import (
    BERLIN,
    INSIDE,
    LAST,
    NEPAL,
    NODES,
    NOON,
    ROWS,
    UTC,
    WINDOW,
    fill,
    read,
)

from xraylog.database.session import Connection
from xraylog.report import figures, time_series, traffic
from xraylog.report.model import Findings, Thresholds
from xraylog.report.page_mask import PageMask
from xraylog.report.window import Window


def test_nodes_have_their_rows_and_moments(found: Findings, stored: Connection) -> None:
    expected = stored.execute(
        """
        SELECT coalesce(n.name, '(no node)'), count(*), min(l."timestamp") FILTER (WHERE l.action = 'accepted'),
               max(l."timestamp") FILTER (WHERE l.action = 'accepted')
        FROM logs l LEFT JOIN nodes n ON n.id = l.node_id
        WHERE l."timestamp" >= %s AND l."timestamp" < %s GROUP BY 1 ORDER BY 1
        """,
        [WINDOW.since, WINDOW.until],
    ).fetchall()
    assert [(node.name, node.rows, node.first, node.last) for node in found.nodes] == expected
    assert found.rows == len(INSIDE)


def test_nodes_have_the_unparsed_lines_of_the_window_and_when_they_were_stored_last(
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


def test_gaps_are_the_times_of_an_hour_or_more_between_two_accepted_rows_of_a_node(found: Findings) -> None:
    expected = set()
    for node in NODES:
        moments = sorted(row.at for row in INSIDE if row.node == node and row.action == "accepted")
        for one, other in zip([WINDOW.since, *moments], [*moments, WINDOW.until], strict=True):
            if other - one >= timedelta(hours=1):
                expected.add((node or traffic.NO_NODE, one, other))
    longest = sorted(expected, key=lambda gap: (gap[1] - gap[2], gap[1]))
    assert [(gap.node, gap.since, gap.until) for gap in found.gaps] == longest
    assert len(longest) > 3


def test_a_node_that_stores_one_row_a_day_has_exact_gaps(conn: Connection, database: dict[str, str]) -> None:
    at = [WINDOW.since + timedelta(days=n, minutes=1, microseconds=n) for n in range(3)]
    fill(conn, [ROWS[0]._replace(at=moment, node="n1", action="accepted") for moment in at])
    assert {(gap.since, gap.until) for gap in read(database).gaps if gap.node == "n1"} == {
        (at[0], at[1]),
        (at[1], at[2]),
        (at[2], WINDOW.until),
    }


@pytest.mark.parametrize("zone", [BERLIN, UTC, NEPAL], ids=str)
def test_traffic_by_hour_and_tag_is_that_of_plain_sql(found: Findings, stored: Connection, zone: ZoneInfo) -> None:
    hours = time_series.over_time(found, zone, found.slots, figures.tag)
    stored.execute("SELECT set_config('TimeZone', %s, false)", [zone.key])
    expected = stored.execute(
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
def test_the_week_is_that_of_plain_sql(found: Findings, stored: Connection, zone: ZoneInfo) -> None:
    stored.execute("SELECT set_config('TimeZone', %s, false)", [zone.key])
    expected = stored.execute(
        """
        SELECT extract(isodow FROM l."timestamp")::integer - 1, extract(hour FROM l."timestamp")::integer, count(*)
        FROM logs l WHERE l."timestamp" >= %s AND l."timestamp" < %s GROUP BY 1, 2
        """,
        [WINDOW.since, WINDOW.until],
    ).fetchall()
    week = time_series.by_weekday(found, zone)  # three days: of each weekday and hour there is one at most
    shown = {(day, hour): rows for day, of in enumerate(week) for hour, rows in enumerate(of) if rows}
    assert shown == pytest.approx({(day, hour): rows for day, hour, rows in expected})


def test_the_week_has_averages(conn: Connection, database: dict[str, str]) -> None:
    """Eight days from a Monday on: two Mondays, and one of each other weekday."""
    window = Window.of(BERLIN, 8, LAST, NOON + timedelta(days=9))
    fill(conn, [ROWS[0]._replace(at=NOON - timedelta(days=n)) for n in (0, 7, 7, 7, 6)])
    week = time_series.by_weekday(read(database, window), BERLIN)
    assert (week[0][13], week[1][13], sum(map(sum, week))) == (2, 1, 3)


@pytest.mark.parametrize("zone", [BERLIN, UTC, NEPAL], ids=str)
def test_more_than_two_months_are_shown_by_day(filled: Connection, database: dict[str, str], zone: ZoneInfo) -> None:
    window = Window.of(BERLIN, 63, LAST, NOON + timedelta(days=9))
    units = {days: Window.of(BERLIN, days, LAST, NOON).unit for days in (10, 11, 60, 61, 240, 241)}
    assert units == {10: "hour", 11: "six hours", 60: "six hours", 61: "day", 240: "day", 241: "week"}
    found = read(database, window)
    days = time_series.over_time(found, zone, found.slots, figures.tag)
    counts = dict(
        filled.execute(
            """SELECT date_trunc('day', "timestamp" AT TIME ZONE %s) AT TIME ZONE %s, count(*)
               FROM logs WHERE "timestamp" >= %s AND "timestamp" < %s GROUP BY 1""",
            [str(zone), str(zone), window.since, window.until],
        ).fetchall()
    )
    assert {day: sum(rows) for day, rows in days.rows if sum(rows)} == counts
    assert len(days.rows) in (63, 64)


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


def test_the_reasons_of_a_source_are_those_of_plain_sql(found: Findings) -> None:
    reasons = defaultdict[str, Counter[str]](Counter)
    for row in INSIDE:
        if row.action == "rejected":
            reasons[row.source or traffic.NO_SOURCE][row.why or "not recorded"] += 1
    assert {of.address: dict(of.reasons) for of in found.sources} == reasons
    assert all(of.reasons == sorted(of.reasons, key=lambda of: (-of[1], of[0])) for of in found.sources)
    assert max(len(of.reasons) for of in found.sources) == 3


def test_rows_and_sources_by_reason_are_those_of_plain_sql(found: Findings, stored: Connection) -> None:
    expected = stored.execute(
        """
        SELECT coalesce(nullif(reject_reason, ''), 'not recorded'), count(*), count(DISTINCT source_ip)
        FROM logs
        WHERE action = 'rejected' AND "timestamp" >= %s AND "timestamp" < %s
        GROUP BY 1 ORDER BY 2 DESC
        """,
        [WINDOW.since, WINDOW.until],
    ).fetchall()
    assert [(of.name, of.rows, of.sources) for of in found.reasons] == expected
    assert sum(of.rows for of in found.reasons) == sum(of.rows for of in found.sources)


def test_a_page_of_few_sources_counts_the_reasons_of_all(shared: dict[str, str], found: Findings) -> None:
    few = read(shared, thresholds=Thresholds(max_sources=2))
    assert few.sources == found.sources[:2]
    assert (few.reasons, few.total_sources) == (found.reasons, found.total_sources)


def test_masked_sources_have_the_same_reasons(shared: dict[str, str], found: Findings) -> None:
    masked = read(shared, mask=PageMask(hides=True))
    assert [(of.name, of.rows) for of in masked.reasons] == [(of.name, of.rows) for of in found.reasons]
    counts = Counter[str]()
    for source in masked.sources:
        counts.update(dict(source.reasons))
        assert sum(rows for _, rows in source.reasons) == source.rows
    assert counts == {of.name: of.rows for of in found.reasons}
    known = [of for of in masked.sources if of.address != traffic.NO_SOURCE]
    assert {of.name: of.sources for of in masked.reasons} == {
        reason: sum(reason in dict(of.reasons) for of in known) for reason in counts
    }


def test_an_older_table_has_no_reasons(filled: Connection, database: dict[str, str], found: Findings) -> None:
    filled.execute("ALTER TABLE logs DROP COLUMN reject_reason")
    older = read(database)
    assert older.sources == [replace(of, reasons=()) for of in found.sources]
    assert (older.reasons, older.total_sources) == ((), found.total_sources)


def test_a_node_that_was_silent_all_the_time_is_a_gap(conn: Connection, database: dict[str, str]) -> None:
    fill(
        conn,
        [
            ROWS[0]._replace(at=WINDOW.since + timedelta(minutes=50 * n), node="n1", action="accepted")
            for n in range(87)
        ],
    )
    assert [(gap.node, gap.since, gap.until) for gap in read(database).gaps] == [("n2", WINDOW.since, WINDOW.until)]


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


def test_a_node_that_let_clients_in_during_the_period_before_is_not_new(
    conn: Connection, database: dict[str, str]
) -> None:
    row = ROWS[0]._replace(at=WINDOW.since + timedelta(hours=2), action="accepted", node="n1")
    before, older = row._replace(at=WINDOW.since - timedelta(hours=23)), row._replace(at=WINDOW.before)
    fill(conn, [
        row, before,
        row._replace(node="n2"), before._replace(node="n2", action="rejected"),
        row._replace(node="n3"), older._replace(node="n3"),
        row._replace(node="n4", at=WINDOW.since), before._replace(node="n4"),
        row._replace(node="n5"), older._replace(node="n5", at=WINDOW.before - timedelta(hours=1)),
    ])  # fmt: skip
    found = read(database)
    assert [node.name for node in found.nodes if node.was_active] == ["n1", "n3"]  # of n4 nobody has to know
    assert {gap.node for gap in found.gaps if found.is_before_first(gap)} == {"n2", "n5"}


def test_a_node_that_let_clients_in_a_week_before_the_only_day_of_a_page_is_not_new(
    conn: Connection, database: dict[str, str]
) -> None:
    window = Window.of(UTC, 1, LAST, NOON + timedelta(days=9))
    row = ROWS[0]._replace(at=window.since + timedelta(hours=8), action="accepted", node="n1")
    fill(conn, [row, row._replace(at=window.since - timedelta(days=7)), row._replace(node="n2")])
    found = read(database, window)
    assert {gap.node for gap in found.gaps if found.is_before_first(gap)} == {"n2"}
