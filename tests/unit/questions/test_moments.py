"""What an operator types as a time is that time, or an error that shows how to type one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xraylog.questions import moments
from xraylog.questions.moments import Span, Unreadable

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2025, 11, 17, 22, 30, tzinfo=timezone.utc)  # 23:30 in Berlin


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=timezone.utc)  # type: ignore[misc]


MOMENTS = {
    "now": NOW,
    "90m": utc(2025, 11, 17, 21),
    "2h": utc(2025, 11, 17, 20, 30),
    "7d": utc(2025, 11, 10, 22, 30),
    "7d ago": utc(2025, 11, 10, 22, 30),
    "90m ago": utc(2025, 11, 17, 21),
    "2025-11-17 10:15": utc(2025, 11, 17, 9, 15),  # in the config's zone
    "2025-07-17 10:15": utc(2025, 7, 17, 8, 15),
    "2025-11-17 10:15Z": utc(2025, 11, 17, 10, 15),
    "2025-11-17 10:15 UTC": utc(2025, 11, 17, 10, 15),  # as letters have it
    "2025-11-17 10:15 GMT": utc(2025, 11, 17, 10, 15),
    "2025-11-17 10:15+02": utc(2025, 11, 17, 8, 15),
    "2025-11-17 10:15+02:00": utc(2025, 11, 17, 8, 15),
    "2025-11-17 10:15-0530": utc(2025, 11, 17, 15, 45),
    "2025/11/17 10:15:23.123456": utc(2025, 11, 17, 9, 15, 23, 123_456),  # copied from the log
    "2025-11-17T10:15:30.5+05:45": utc(2025, 11, 17, 4, 30, 30, 500_000),
}


@pytest.mark.parametrize("text", MOMENTS)
def test_a_moment_is_read_as_it_is_typed(text: str) -> None:
    assert moments.read(text, NOW, BERLIN) == Span(MOMENTS[text], MOMENTS[text])


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("today", utc(2025, 11, 16, 23), utc(2025, 11, 17, 23)),
        ("yesterday", utc(2025, 11, 15, 23), utc(2025, 11, 16, 23)),
        ("2025-10-26", utc(2025, 10, 25, 22), utc(2025, 10, 26, 23)),  # of 25 hours
        ("2025-03-30", utc(2025, 3, 29, 23), utc(2025, 3, 30, 22)),  # of 23
        ("2025/11/17", utc(2025, 11, 16, 23), utc(2025, 11, 17, 23)),
    ],
)
def test_a_day_is_one_of_the_zone(text: str, begin: datetime, end: datetime) -> None:
    assert moments.read(text, NOW, BERLIN) == Span(begin, end)


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("2025-10-26 02:30", utc(2025, 10, 26, 0, 30), utc(2025, 10, 26, 1, 30)),  # it came twice
        ("2025-10-26 03:00", utc(2025, 10, 26, 2), utc(2025, 10, 26, 2)),  # it came once
        ("2025-10-26 02:30+02:00", utc(2025, 10, 26, 0, 30), utc(2025, 10, 26, 0, 30)),  # the zone says which one
        ("2025-03-30 02:30", utc(2025, 3, 30, 0, 30), utc(2025, 3, 30, 1, 30)),  # it never came: 01:30 or 03:30
    ],
)
def test_a_time_at_which_the_clocks_changed_is_all_that_it_can_mean(text: str, begin: datetime, end: datetime) -> None:
    assert moments.read(text, NOW, BERLIN) == Span(begin, end)


def test_a_window_around_a_time_that_came_twice_has_both_of_them() -> None:
    span = moments.around("2025-10-26 02:30", "5m", NOW, BERLIN)
    assert span == Span(utc(2025, 10, 26, 0, 25), utc(2025, 10, 26, 1, 35, 0, 1))


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)),  # noqa: DTZ001  # the zone comes next
    st.integers(-14 * 60, 14 * 60),
)
def test_what_isoformat_writes_is_read_back(naive: datetime, minutes: int) -> None:
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    for text in (moment.isoformat(), moment.isoformat(sep=" "), moment.strftime("%Y-%m-%d %H:%M:%S.%f%z")):
        assert moments.read(text, NOW, BERLIN) == Span(moment, moment)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "2025-13-01",
        "2025-11-17 25:00",
        "2025-11-17 10:15+99:00",
        "5 m",
        "5m  ago",
        "ago",
        "-5m",
        "9999999999999d",
        "17.11.2025",
        "2025/11-17",
    ],
)
def test_what_is_no_time_is_an_error_that_shows_some(text: str) -> None:
    with pytest.raises(Unreadable, match="yesterday"):
        moments.read(text, NOW, BERLIN)


def test_a_window_around_a_moment_has_both_ends_in_it() -> None:
    span = moments.around("2025-11-17 10:15Z", "5m", NOW, BERLIN)
    assert span == Span(utc(2025, 11, 17, 10, 10), utc(2025, 11, 17, 10, 20, 0, 1))
    with pytest.raises(Unreadable, match="at most some years"):
        moments.around("0001-01-02", "99999d", NOW, BERLIN)
    with pytest.raises(Unreadable, match="5m, 2h or 1d"):
        moments.around("now", "5", NOW, BERLIN)
    with pytest.raises(Unreadable, match="5m, 2h or 1d"):
        moments.around("now", "5m ago", NOW, BERLIN)
