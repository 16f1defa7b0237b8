"""Rows by hour and day lose nothing, in any zone, and have few series."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from helpers.report_data import (
    BERLIN,
    NOON,
    UTC,
    WINDOW,
)

from xraylog.report import figures, time_series
from xraylog.report.model import Findings, Slot, Window

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


def test_the_first_minutes_of_a_day_in_a_zone_of_half_hours_have_no_marks() -> None:
    kolkata = ZoneInfo("Asia/Kolkata")
    now = datetime(2025, 11, 16, 18, 35, tzinfo=timezone.utc)
    assert time_series.marks(Findings(Window.of(kolkata, 1, None, now)), UTC) == {}


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
    [(0, 24, []), (0.5, 24, [1]), (0, 23.5, [23]), (0.5, 23.5, [1, 23]), (0.5, 0.75, []), (0.5, 1.5, [1])],
)
def test_a_chart_is_cut_where_it_has_an_hour_only_in_part(since: float, until: float, expected: list[int]) -> None:
    day = WINDOW.since
    window = Window(BERLIN, day + timedelta(hours=since), day + timedelta(hours=until))
    assert time_series.cuts(Findings(window), BERLIN) == [day + timedelta(hours=hour) for hour in expected]
