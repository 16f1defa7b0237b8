"""In autumn an hour exists twice: lines come in order, so the clock that jumps back shows the second pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from helpers.parsing import NOW, grammar_of
from hypothesis import given, settings
from hypothesis import strategies as st

from xraylog.accesslog import parser
from xraylog.accesslog.grammar import Grammar
from xraylog.accesslog.parser import Parser
from xraylog.records import AccessRecord

# Zones, and the moment at which their clocks are set back: by an hour, by half of one, at midnight, for Ramadan.
CHANGES = {
    "Europe/Berlin": datetime(2025, 10, 26, 1, tzinfo=timezone.utc),
    "America/New_York": datetime(2025, 11, 2, 6, tzinfo=timezone.utc),
    "Australia/Lord_Howe": datetime(2026, 4, 4, 15, tzinfo=timezone.utc),
    "Asia/Tehran": datetime(2021, 9, 21, 19, 30, tzinfo=timezone.utc),
    "Africa/Casablanca": datetime(2025, 2, 23, 2, tzinfo=timezone.utc),
}
ACCEPTED = "from 1.2.3.4:5 accepted tcp:x:443 [in >> out] email: e"
REJECTED = "from 1.2.3.4:5 rejected  proxy/vless/encoding: invalid request user id"  # the slow path
NO_ROUTE = "from 1.2.3.4:5 accepted tcp:x:443 [in->out] email: e"  # the fast path has to read its lines again
DAMAGED = "from 1.2.3.4:5 acc"


def line(at: datetime, zone: str, text: str = ACCEPTED) -> bytes:
    return f"{at.astimezone(ZoneInfo(zone)):%Y/%m/%d %H:%M:%S} {text}".encode()


def stored(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}+00"


def by_grammar(lines: Sequence[bytes], zone: str, now: datetime = NOW) -> list[str]:
    one = grammar_of(zone, now)
    return [said.timestamp for said in map(one.parse_line, lines) if isinstance(said, AccessRecord)]


def by_parser(lines: Sequence[bytes], zone: str, now: datetime = NOW, size: int = 1000) -> list[str]:
    one, text = Parser(ZoneInfo(zone), now), b"".join(one + b"\n" for one in lines)
    return [record.timestamp for batch in one.batches([(0, text)], size) for record in batch.records]


def minutes(zone: str, first: int, last: int, step: int = 1) -> list[datetime]:
    """Moments from `first` to `last` minutes after clocks are set back."""
    return [CHANGES[zone] + timedelta(minutes=minute) for minute in range(first, last, step)]


steps = st.lists(st.tuples(st.integers(0, 600), st.sampled_from([ACCEPTED] * 5 + [REJECTED, NO_ROUTE, DAMAGED])))


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(list(CHANGES)), steps, st.integers(1, 5), st.integers(1, 500))
def test_lines_in_order_get_the_time_at_which_they_were_written(
    zone: str, steps: list[tuple[int, str]], size: int, chunk: int
) -> None:
    """However they are cut, and whichever path reads them. Each minute has a line at least."""
    times = [(at, ACCEPTED) for at in minutes(zone, -70, 70)]
    for second, text in steps:
        at = CHANGES[zone] + timedelta(seconds=14 * second - 4200)
        times.append((at, text))
    times.sort()
    lines = [line(at, zone, text) for at, text in times]
    expected = [stored(at) for at, text in times if text != DAMAGED]
    assert by_grammar(lines, zone) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parser, "CHUNK_BYTES", chunk)
        assert by_parser(lines, zone, size=size) == expected


@pytest.mark.parametrize("zone", CHANGES)
def test_few_lines_are_enough_if_the_clock_jumps_back(zone: str) -> None:
    times = [CHANGES[zone] + timedelta(minutes=minute) for minute in (-5, 7, 19, 29, 200)]
    lines = [line(at, zone) for at in times]
    assert by_grammar(lines, zone) == by_parser(lines, zone) == list(map(stored, times))


def readings(*texts: str, zone: str = "Europe/Berlin", now: datetime = NOW) -> Iterator[str]:
    """Which hour of UTC each of these times is read as."""
    lines = [f"2025/10/{text}:30 {ACCEPTED}".encode() for text in texts]
    said = by_grammar(lines, zone, now)
    assert said == by_parser(lines, zone, now)
    yield from (timestamp[11:16] for timestamp in said)


def test_without_a_jump_all_is_the_first_pass() -> None:
    assert [*readings("26 02:10", "26 02:40")] == ["00:10", "00:40"]
    assert [*readings("26 01:59", "26 02:30", "26 03:00")] == ["23:59", "00:30", "02:00"]


def test_a_clock_that_is_set_right_by_a_minute_is_no_second_pass() -> None:
    assert [*readings("26 02:10", "26 02:09", "26 02:10")] == ["00:10", "00:09", "00:10"]
    assert [*readings("26 02:10", "26 02:08", "26 02:10", "26 02:59")] == ["00:10", "01:08", "01:10", "01:59"]


def test_the_second_pass_goes_on_when_its_clock_is_set_right() -> None:
    assert [*readings("26 02:50", "26 02:20", "26 02:15", "26 02:55")] == ["00:50", "01:20", "01:15", "01:55"]


def test_another_log_that_begins_anew_is_in_the_first_pass() -> None:
    """As `cat a.log b.log` makes it."""
    both = ["26 01:58", "26 02:50", "26 02:20", "26 02:59", "26 03:10"]
    expected = ["23:58", "00:50", "01:20", "01:59", "02:10"]
    assert [*readings(*both, *both)] == expected * 2
    assert [*readings("26 02:50", "26 02:59", "26 02:57", "26 02:02", "26 02:05")][-2:] == ["00:02", "00:05"]
    assert [*readings("27 12:00", "26 02:30")] == ["11:00", "00:30"]


def test_a_pass_that_has_not_come_yet_is_not_the_second() -> None:
    """The clock was set back by hand, half an hour before it is set back for the winter."""
    now = datetime(2025, 10, 26, 0, 40, tzinfo=timezone.utc)
    assert [*readings("26 02:30", "26 02:10", now=now)] == ["00:30", "00:10"]
    assert [*readings("26 02:30", "26 02:10", now=now + timedelta(minutes=30))] == ["00:30", "01:10"]


def test_lines_that_are_read_alone_are_in_the_first_pass() -> None:
    """Unparsed lines, which are read again: they are of any log, and nobody knows what stood before them."""
    one = grammar_of("Europe/Berlin")
    said = [one.parse_alone(f"2025/10/26 {text}:30 {ACCEPTED}".encode()) for text in ("02:50", "02:10")]
    assert [row.timestamp[11:16] for row in said if isinstance(row, AccessRecord)] == ["00:50", "00:10"]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "Etc/GMT-3"])
def test_where_no_hour_is_repeated_nothing_is_remembered(zone: str) -> None:
    one = Parser(ZoneInfo(zone), NOW)
    text = b"".join(f"2025/10/26 02:{n % 60:02}:30 {ACCEPTED}\n".encode() for n in range(120))
    assert sum(len(batch.records) for batch in one.batches([(0, text)], 50)) == 120
    assert one.clock.repeated == {}


def test_an_hour_that_is_skipped_is_not_repeated() -> None:
    one = Grammar(ZoneInfo("Europe/Berlin"), NOW)
    said = [one.parse_line(f"2025/03/30 {text}:00 {ACCEPTED}".encode()) for text in ("02:30", "02:10", "03:00")]
    assert [row.timestamp[11:16] for row in said if isinstance(row, AccessRecord)] == ["01:30", "01:10", "01:00"]
    assert one.clock.repeated == {}
