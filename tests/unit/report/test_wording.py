"""Numbers as the page writes them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from helpers.report_data import BERLIN, HOUR, NOON

from xraylog.report import wording
from xraylog.report.window import Window


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        (5, 0, "none a week before"),
        (1000, 1000, "as a week before"),
        (1004, 1000, "as a week before"),
        (1500, 1000, "50 % more than a week before (1,000)"),
        (0, 1000, "100 % less than a week before (1,000)"),
        (21_000, 100, "20,900 % more than a week before (100)"),
    ],
)
def test_a_number_is_compared_with_that_of_a_week_before(now: int, before: int, said: str) -> None:
    assert wording.than(now, before) == said


@pytest.mark.parametrize(
    ("since", "until", "said"),
    [
        (HOUR * 25, HOUR * 0, "2025-11-16 12:00 to 2025-11-17 13:00"),
        (HOUR * 37, HOUR * 0, "2025-11-16 to 2025-11-17"),  # up to now: the page says when it was written
        (HOUR * 37, HOUR * 1, "2025-11-16 to 2025-11-17 12:00"),
        (HOUR * 37, HOUR * 13, "2025-11-16 to 2025-11-16"),
        (HOUR * 36, HOUR * 13, "2025-11-16 01:00 to 2025-11-16"),
    ],
)
def test_a_page_that_begins_or_ends_within_a_day_says_when(since: timedelta, until: timedelta, said: str) -> None:
    """Noon in UTC is 13:00 in Berlin."""
    assert wording.period(Window(BERLIN, NOON - since, NOON - until), NOON) == said


def test_a_time_in_an_hour_that_occurs_twice_says_which_of_them_it_is() -> None:
    """In Berlin, clocks went back at 01:00 in UTC; on Lord Howe Island they went back by half an hour."""
    end = datetime(2026, 10, 25, 1, tzinfo=timezone.utc)
    assert [wording.clock(end + HOUR * n / 2, BERLIN) for n in (-3, -1, 1, 2)] == [
        "01:30", "02:30+02:00", "02:30+01:00", "03:00",
    ]  # fmt: skip
    assert wording.clock(datetime(2026, 3, 29, 1, 30, tzinfo=timezone.utc), BERLIN) == "03:30"
    window = Window(BERLIN, end - HOUR / 2, end + HOUR / 2)
    assert wording.period(window, NOON + HOUR * 24 * 999) == "2026-10-25 02:30+02:00 to 2026-10-25 02:30+01:00"
    howe = ZoneInfo("Australia/Lord_Howe")
    assert wording.clock(datetime(2026, 4, 4, 14, 45, tzinfo=timezone.utc), howe) == "01:45+11:00"


def test_sizes_and_lists_are_for_people() -> None:
    assert wording.size(99_999) == "99,999 bytes"
    assert wording.size(1_057_743) == "1.1 MB"
    assert wording.reasons([("invalid user", 3), ("timeout", 1)]) == "invalid user 3, timeout 1"
    assert wording.reasons([("invalid user", 3)]) == "invalid user"
    assert wording.reasons([]) == ""
