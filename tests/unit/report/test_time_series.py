"""Rows by hour and day lose nothing, in any zone, and have few series."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from helpers.report_data import (
    BERLIN,
    NEPAL,
    NOON,
    UTC,
    WINDOW,
)

from xraylog.report import charts, figures, time_series
from xraylog.report.model import Findings, Slot
from xraylog.report.time_series import EPOCH
from xraylog.report.window import SLOT as SLOT_LENGTH
from xraylog.report.window import Window

SLOT = Slot(WINDOW.since, "n1", None, "accepted", 7)


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
    slots = [Slot(window.since + timedelta(minutes=15 * n), "n", None, "accepted", 1) for n in range(quarters)]
    hours = time_series.over_time(Findings(window), window.zone, slots, figures.tag)
    assert hours.totals == [quarters]
    assert len({hour for hour, _ in hours.rows}) == len(hours.rows)


@pytest.mark.parametrize("zone", [UTC, BERLIN, NEPAL], ids=str)
@pytest.mark.parametrize("length", [14, 60, 118, 359, 361, 2_999, 15_000, 90_000])  # minutes
def test_no_row_vanishes_wherever_a_window_begins_and_ends(zone: ZoneInfo, length: int) -> None:
    """Also the rows of its last minutes, which may be the first of a piece of time."""
    for minutes in range(0, 75, 7):
        since = WINDOW.since + timedelta(minutes=minutes)
        window = Window(zone, since, since + timedelta(minutes=length))
        first, end = (-(-(moment - EPOCH) // SLOT_LENGTH) for moment in (since, window.until))
        starts = [EPOCH + SLOT_LENGTH * n for n in range(first - 1, end) if EPOCH + SLOT_LENGTH * (n + 1) > since]
        found = Findings(window, slots=[Slot(start, "n", None, "accepted", 1) for start in starts])
        found = replace(found, activity=[(hour, 1) for n in range(len(window.days)) for hour in window.hours(n)])
        assert time_series.over_time(found, zone, found.slots, figures.tag).totals == [len(starts)]
        assert {rows for _, (rows,) in time_series.active(found, zone).rows} == {1}


@pytest.mark.parametrize("days", [1, 7, 10, 11, 60, 61, 239, 240, 241, 300, 366])
@pytest.mark.parametrize("zone", [UTC, BERLIN, NEPAL], ids=str)
def test_no_bar_is_narrower_than_four_pixels(zone: ZoneInfo, days: int) -> None:
    """Except for the hours of time zones, and of a change of clocks: two bars."""
    window = Window.of(BERLIN, days, date(2025, 10, 28), NOON)
    bars = time_series.over_time(Findings(window), zone, [], figures.tag).rows
    assert len(bars) <= charts.WIDTH // 4 + 2


@pytest.mark.parametrize("zone", [UTC, BERLIN, NEPAL], ids=str)
def test_weeks_begin_on_monday_and_have_the_rows_of_their_days(zone: ZoneInfo) -> None:
    """A year that begins on a Sunday, and ends on a Tuesday at noon."""
    window = Window(
        BERLIN, datetime(2024, 11, 30, 23, tzinfo=timezone.utc), datetime(2025, 11, 18, 11, tzinfo=timezone.utc)
    )
    hours = [window.since + n * timedelta(hours=1) for n in range((window.until - window.since) // timedelta(hours=1))]
    found = Findings(window, slots=[Slot(hour, "n", None, "accepted", 1) for hour in hours])
    found = replace(found, activity=[(hour, 1 << hour.toordinal() % 7) for hour in hours])
    expected = Counter(monday(hour.astimezone(zone).date()) for hour in hours)
    counts = time_series.over_time(found, zone, found.slots, figures.tag).rows
    assert {begin.astimezone(zone).date(): rows for begin, (rows,) in counts} == expected
    assert all(begin.astimezone(zone).time() == time() for begin, _ in counts)
    assert {users for _, (users,) in time_series.active(found, zone).rows[1:-1]} == {7}
    assert time_series.cuts(found, zone) == [counts[1][0], counts[-1][0]]


def monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def test_a_tag_may_be_called_like_the_others() -> None:
    named = iter([time_series.OTHERS] * 2 + [f"tag{number}" for number in range(7)])
    hours = time_series.over_time(Findings(WINDOW), UTC, [SLOT] * 9, lambda _: next(named))
    assert hours.names == [time_series.OTHERS, "tag0", "tag1", "tag2", "tag3", time_series.OTHERS]
    assert hours.totals == [rows * SLOT.rows for rows in (2, 1, 1, 1, 1, 3)]


def test_many_tags_become_the_largest_and_the_others() -> None:
    named = iter([f"tag{number}" for number in range(9) for _ in range(9 - number)])
    hours = time_series.over_time(Findings(WINDOW), UTC, [SLOT] * 45, lambda _: next(named))
    assert hours.names == ["tag0", "tag1", "tag2", "tag3", "tag4", time_series.OTHERS]
    assert hours.totals == [rows * SLOT.rows for rows in (9, 8, 7, 6, 5, 4 + 3 + 2 + 1)]


def test_the_first_minutes_of_a_day_in_a_zone_of_half_hours_are_marked_where_they_begin() -> None:
    kolkata = ZoneInfo("Asia/Kolkata")
    now = datetime(2025, 11, 16, 18, 35, tzinfo=timezone.utc)
    window = Window.of(kolkata, 1, None, now)
    assert time_series.axis_labels(Findings(window), UTC) == {window.since: "18:30"}


def test_an_hour_that_is_not_over_makes_no_average_smaller() -> None:
    """Fifteen days up to Monday noon, and half an hour."""
    window = Window.of(UTC, 15, None, NOON + timedelta(minutes=30))
    hours = (window.until - window.since) // timedelta(hours=1)
    slots = [Slot(window.since + timedelta(hours=n), "n1", None, "accepted", 10) for n in range(hours + 1)]
    slots[-1] = replace(slots[-1], rows=1)
    week = time_series.by_weekday(Findings(window, slots=slots), UTC)
    assert {rows for day in week for rows in day} == {10}
    alone = Window(UTC, NOON, NOON + timedelta(minutes=30))
    assert time_series.by_weekday(Findings(alone, slots=slots[-1:]), UTC)[0][12] == 1


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (0, 24, []), (0.5, 24, [1]), (0, 23.5, [23]), (0.5, 23.5, [1, 23]), (0.5, 7.5, [1, 7]),
        (0.5, 0.75, []), (0.5, 6.5, []), (0.4, 6.3, [0.5, 6.25]), (0.4, 0.45, []),
    ],
)  # fmt: skip
def test_a_chart_is_cut_where_it_has_an_hour_or_a_quarter_of_it_only_in_part(
    since: float, until: float, expected: list[float]
) -> None:
    day = WINDOW.since
    window = Window(BERLIN, day + timedelta(hours=since), day + timedelta(hours=until))
    assert time_series.cuts(Findings(window), BERLIN) == [day + timedelta(hours=hour) for hour in expected]


@pytest.mark.parametrize(("zone", "midnight"), [(BERLIN, "00:00"), (UTC, "23:00"), (NEPAL, "04:45")], ids=str)
def test_a_few_hours_are_shown_by_the_quarter_of_an_hour(zone: ZoneInfo, midnight: str) -> None:
    """Over midnight, too: each of its quarters is one of many, and the axis names some by their time."""
    window = Window(BERLIN, WINDOW.midnights[1] - timedelta(hours=1), WINDOW.midnights[1] + timedelta(hours=2))
    slots = [Slot(window.since + timedelta(minutes=15 * n), "n1", None, "accepted", n + 1) for n in range(12)]
    found = Findings(window, slots=slots)
    found = replace(found, activity=[(hour, 5) for number in (0, 1) for hour in window.hours(number)])
    rows = time_series.over_time(found, zone, slots, figures.tag).rows
    assert rows == [(slot.start, [slot.rows]) for slot in slots]
    assert time_series.active(found, zone).rows == [(slot.start, [2]) for slot in slots]
    marks = time_series.axis_labels(found, zone)
    assert len(marks) == 6
    assert marks[WINDOW.midnights[1]] == midnight
