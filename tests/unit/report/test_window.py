"""The window of a page is whole days of its zone."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

from helpers.report_data import (
    BERLIN,
    LAST,
    NOON,
    WINDOW,
)

from xraylog.report.window import Window


def test_the_window_is_whole_days_of_its_zone_up_to_the_last_one() -> None:
    assert WINDOW.since == datetime(2025, 11, 14, 23, tzinfo=timezone.utc)
    assert WINDOW.until == datetime(2025, 11, 17, 23, tzinfo=timezone.utc)
    assert WINDOW.days == [date(2025, 11, 15), date(2025, 11, 16), LAST]
    assert WINDOW.before == WINDOW.since - timedelta(days=3)


def test_a_window_may_begin_and_end_within_a_day() -> None:
    window = Window(BERLIN, NOON - timedelta(hours=30), NOON)
    assert window.days == [date(2025, 11, 16), LAST]
    assert window.midnights == [NOON - timedelta(hours=30), datetime(2025, 11, 16, 23, tzinfo=timezone.utc)]
    assert window.hours(1)[-1] == NOON - timedelta(hours=1)
    assert Window.ending(BERLIN, NOON, 2).since == datetime(2025, 11, 15, 23, tzinfo=timezone.utc)


def test_hours_are_those_of_the_clock_although_the_window_begins_within_one() -> None:
    window = Window(BERLIN, NOON - timedelta(hours=7, minutes=20), NOON - timedelta(minutes=10))
    assert window.hours(0) == [window.since, *(NOON - timedelta(hours=n) for n in range(7, 0, -1))]
    autumn = Window.of(BERLIN, 1, date(2025, 10, 26), NOON)
    assert autumn.hours(0) == [autumn.since + timedelta(hours=n) for n in range(25)]


def test_six_hours_and_less_have_quarters_of_an_hour_in_place_of_hours() -> None:
    window = Window(BERLIN, NOON - timedelta(minutes=40), NOON - timedelta(minutes=10))
    assert window.unit == "quarter of an hour"
    assert window.hours(0) == [window.since, *(NOON - timedelta(minutes=n) for n in (30, 15))]
    most = Window(BERLIN, NOON - timedelta(minutes=1), NOON + timedelta(hours=5, minutes=59))
    assert len(most.hours(0)) == 25
    assert Window(BERLIN, NOON, NOON + timedelta(hours=6, seconds=1)).unit == "hour"


def test_today_ends_now() -> None:
    window = Window.of(BERLIN, 2, None, NOON)
    assert (window.last, window.until) == (LAST, NOON)
    assert window.until - window.since == window.since - window.before


def test_a_day_on_which_the_clocks_change_has_its_own_length() -> None:
    autumn = Window.of(BERLIN, 1, date(2025, 10, 26), NOON)
    spring = Window.of(BERLIN, 1, date(2025, 3, 30), NOON)
    assert autumn.until - autumn.since == timedelta(hours=25)
    assert spring.until - spring.since == timedelta(hours=23)
