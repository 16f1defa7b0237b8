"""A line dated far from the lines around it is rejected, if its day is rare; in a log that goes on, none is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from helpers.site import line
from hypothesis import given
from hypothesis import strategies as st

from xraylog.accesslog.masking import Mask
from xraylog.accesslog.parser import Parser
from xraylog.accesslog.stray_days import RARE_LINES, STRAY, StrayDays, distance_in
from xraylog.records import Batch

TODAY = date(2026, 11, 28)
FAR = 45


def batches(*days: date, mask: Mask | None = None) -> Iterator[Batch]:
    """A line on each of these days, of the users u0, u1, …"""
    text = "".join(line(n, f"{day:%Y/%m/%d} 12:00:00") for n, day in enumerate(days)).encode()
    now = datetime.combine(TODAY, datetime.min.time(), timezone.utc)
    return Parser(ZoneInfo("UTC"), now, *([mask] if mask else [])).batches([(0, text)], 1 << 30)


def batch(*days: date, mask: Mask | None = None) -> Batch:
    (only,) = batches(*days, mask=mask)
    return only


def kept(found: Batch) -> list[str | None]:
    return [record.email for record in found.records]


def ago(days: int) -> date:
    return TODAY - timedelta(days=days)


def strays(*days: date) -> list[int]:
    """Numbers of the lines that are strays."""
    found = map(StrayDays(FAR, TODAY).reject, batches(*days))
    bad_lines = [bad.line for each in found for _, bad in each.bad_lines if bad.reason.startswith(STRAY)]
    return [int(text.rpartition(b"u")[2]) for text in bad_lines]


BUSY = [ago(400)] * RARE_LINES
LATER = [ago(200)] * RARE_LINES


@pytest.mark.parametrize(
    ("days", "found"),
    [
        pytest.param([TODAY, ago(3000), TODAY], [1], id="one between lines of today"),
        pytest.param([TODAY, ago(3000)], [1], id="one after a line of today"),
        pytest.param([TODAY, *map(ago, range(4000, 46, -1)), TODAY], range(1, 3955), id="thousands, in their order"),
        pytest.param([TODAY, ago(FAR + 1)], [1], id="just too far"),
        pytest.param([TODAY, ago(FAR)], [], id="just near enough"),
        pytest.param([*BUSY, ago(1000), *BUSY], [RARE_LINES], id="before its time, in an old log"),
        pytest.param([*BUSY, ago(100), *BUSY], [RARE_LINES], id="after its time, in an old log"),
        pytest.param([*BUSY, ago(300), *LATER], [], id="between two busy days"),
        pytest.param([*BUSY, *LATER], [], id="a pause"),
        pytest.param([ago(400), ago(100)], [], id="a pause between two lines"),
        pytest.param([*BUSY, ago(100), ago(50), TODAY], [], id="a pause, then a line now and then"),
        pytest.param([ago(900), *BUSY], [], id="a line long before the others"),
        pytest.param([ago(3000)], [], id="alone"),
        pytest.param([ago(900), ago(3000), ago(700)], [], id="no line to be trusted"),
        pytest.param([TODAY, *[ago(900)] * RARE_LINES, TODAY], [], id="many: a clock that was wrong for a while"),
    ],
)
def test_a_rare_day_far_from_its_neighbours_is_rejected(days: Sequence[date], found: Sequence[int]) -> None:
    assert strays(*days) == [*found]


def test_a_stray_keeps_its_line_and_says_how_far_it_was() -> None:
    found = StrayDays(FAR, TODAY).reject(batch(TODAY, date(2016, 3, 4), TODAY))
    assert kept(found) == ["u0", "u2"]
    ((offset, bad),) = found.bad_lines
    assert offset == found.text.index(b"2016")
    assert bad.line == line(1, "2016/03/04 12:00:00").rstrip("\n").encode()
    assert bad.reason == "expected a date near those of the lines around it, found 2016-03-04, 3921 days away"
    assert distance_in(bad.reason) == 3921
    assert distance_in("expected a timestamp first, found none") == 0
    assert found.lines == found.stored == 3
    assert found.after(offset + 1).bad_lines == []
    assert kept(found.after(offset + 1)) == ["u2"]


def test_a_stray_is_masked() -> None:
    found = StrayDays(FAR, TODAY).reject(batch(TODAY, date(2016, 3, 4), mask=Mask(24, 48)))
    ((_, bad),) = found.bad_lines
    assert b"203.0.113.0:" in bad.line


def test_a_batch_is_compared_with_the_one_before_it() -> None:
    days = StrayDays(FAR, TODAY)
    assert kept(days.reject(batch(TODAY))) == ["u0"]
    assert kept(days.reject(batch(ago(3000), ago(2990)))) == []
    assert kept(days.reject(batch(*[ago(900)] * RARE_LINES))) == [f"u{n}" for n in range(RARE_LINES)]


def test_a_batch_is_compared_with_the_day_that_is_known_before_it() -> None:
    days = StrayDays(FAR, TODAY)
    days.learn(ago(100))
    assert kept(days.reject(batch(ago(99), ago(3000), ago(2), ago(900)))) == ["u0", "u2"]


@given(
    st.lists(st.integers(1, 4000), min_size=1, max_size=60),
    st.lists(st.integers(0, 60), max_size=5),
    st.integers(0, FAR // 2),
)
def test_of_a_log_that_goes_on_no_line_is_a_stray(steps: list[int], cuts: list[int], back: int) -> None:
    """Whatever the pauses, however it is cut into batches, and though a clock is set back by some days."""
    days = [ago(step + (back if number % 3 else 0)) for number, step in enumerate(sorted(steps, reverse=True))]
    looking = StrayDays(FAR, TODAY)
    edges = sorted({0, *(cut for cut in cuts if cut < len(days)), len(days)})
    for first, end in itertools.pairwise(edges):
        assert looking.reject(batch(*days[first:end])).bad_lines == []
