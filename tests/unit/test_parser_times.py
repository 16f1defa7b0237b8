"""A timestamp is the wall clock of the zone in the config, and is stored in UTC."""

from __future__ import annotations

from datetime import datetime, time, timedelta, timezone, tzinfo
from typing import Any

import pytest
from helpers.parsing import (
    NOW,
    WHOLE,
    grammar_of,
    parse,
    reason,
)

from xraylog.accesslog import grammar
from xraylog.accesslog.values import ParseError
from xraylog.records import AccessRecord, BadLine


def at(wall: str, **when: Any) -> str:
    """The timestamp stored for a wall-clock time."""
    record = parse(wall, " from 1.2.3.4:5 accepted tcp:x:443", **when)
    assert isinstance(record, AccessRecord), record
    return record.timestamp


@pytest.mark.parametrize(
    ("zone", "wall", "stored"),
    [
        ("UTC", "2025/11/17 10:15:23", "2025-11-17 10:15:23+00"),
        ("Asia/Tehran", "2025/11/17 02:15:23", "2025-11-16 22:45:23+00"),
        ("Asia/Kathmandu", "2025/01/01 00:00:00", "2024-12-31 18:15:00+00"),
        ("America/New_York", "2025/07/01 20:00:00", "2025-07-02 00:00:00+00"),
        ("America/New_York", "2025/12/01 20:00:00", "2025-12-02 01:00:00+00"),
        ("Europe/Berlin", "2025/10/26 01:59:59", "2025-10-25 23:59:59+00"),
        ("Europe/Berlin", "2025/10/26 02:30:00", "2025-10-26 00:30:00+00"),  # twice: the first
        ("Europe/Berlin", "2025/10/26 03:00:00", "2025-10-26 02:00:00+00"),
        ("America/New_York", "2025/11/02 01:30:00", "2025-11-02 05:30:00+00"),  # twice: the first
        ("UTC", "2024/02/29 23:59:59", "2024-02-29 23:59:59+00"),
        ("UTC", "2015/01/01 00:00:00", "2015-01-01 00:00:00+00"),
    ],
)
def test_a_time_is_the_zones_wall_clock_and_is_stored_in_utc(zone: str, wall: str, stored: str) -> None:
    assert at(wall, zone=zone) == stored
    assert at(wall + ".000001", zone=zone) == stored.replace("+", ".000001+")


class ChangedWithinAMinute(tzinfo):
    """A zone in which clocks are set forward by an hour at 10:15:30. No zone has done that yet."""

    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=moment is not None and moment.time() >= time(10, 15, 30))

    def dst(self, moment: datetime | None) -> timedelta:  # noqa: ARG002  # of tzinfo
        return timedelta()


def test_a_minute_in_which_clocks_change_is_not_read_as_one() -> None:
    one = grammar.Grammar(ChangedWithinAMinute(), NOW)  # type: ignore[arg-type]
    assert one.minute(b"2025/11/17 10:14") == "2025-11-17 10:14"
    with pytest.raises(ParseError, match="expected a minute without a change of the clock"):
        one.minute(b"2025/11/17 10:15")


@pytest.mark.parametrize("fraction", [".1234567", ".123456789", ",123", ".", "Z", "+03:30"])
def test_a_longer_fraction_is_bad_and_the_reason_names_it(fraction: str) -> None:
    assert reason("2025/11/17 10:15:23", fraction, " from 1.2.3.4:5 accepted tcp:x:443").endswith(
        f"found '{fraction} '"
    )


@pytest.mark.parametrize("fraction", ["1", "12", "123", "1234", "12345", "123456", "000000"])
def test_a_fraction_is_kept_as_written(fraction: str) -> None:
    assert at(f"2025/11/17 10:15:23.{fraction}") == f"2025-11-17 10:15:23.{fraction}+00"


NO_TIMES = [
    *("2025/02/29 10:15:23", "2025/02/30 10:15:23", "2025/11/31 10:15:23", "2025/13/01 10:15:23"),
    *("2025/00/10 10:15:23", "2025/10/00 10:15:23", "0000/00/00 00:00:00", "0001/01/01 00:00:00"),
    *("2025/11/17 24:00:00", "2025/11/17 23:60:00", "2025/11/17 23:59:60", "9999/12/31 23:59:59"),
    *("2014/12/31 12:00:00", "1970/01/01 00:00:00", "2025/11/17 10:15:23.", "2025/11/17 10:15:23.1234567"),
    *("2025-11-17 10:15:23", "2025/11/17T10:15:23", "2025/1/17 10:15:23", "٢٠٢٥/11/17 10:15:23"),
]


@pytest.mark.parametrize("wall", NO_TIMES)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tehran", "America/New_York"])
def test_an_impossible_time_is_bad_and_the_next_line_is_not(zone: str, wall: str) -> None:
    line = wall + " from 1.2.3.4:5 accepted tcp:x:443"
    assert reason(line, zone=zone).startswith("expected ")
    one = grammar_of(zone)
    for _ in range(2):  # whatever the parser remembers of the line before
        assert isinstance(one.parse_line(line.encode()), BadLine)
        assert isinstance(one.parse_line(WHOLE), AccessRecord)


@pytest.mark.parametrize(("zone", "hour"), [("UTC", 12), ("Asia/Tokyo", 21)])
def test_a_time_before_2015_or_more_than_two_days_ahead_is_bad(zone: str, hour: int) -> None:
    now = datetime(2025, 11, 17, 12, tzinfo=timezone.utc)
    assert at(f"2025/11/19 {hour}:00:00", zone=zone, now=now) == "2025-11-19 12:00:00+00"
    assert "ahead" in reason(f"2025/11/19 {hour}:00:01 from 1.2.3.4:5 accepted tcp:x:443", zone=zone, now=now)
    assert "2015" in reason("2014/12/31 23:59:59 from 1.2.3.4:5 accepted tcp:x:443", zone=zone, now=now)
