"""What is stored of a log, and what is not, after a restore left gaps in it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from xraylog.database.positions import Position, Range, _past, gaps

END = 40
PIECES = st.lists(st.tuples(st.integers(0, END), st.integers(1, 10)), max_size=6)


def ranges(pieces: Sequence[tuple[int, int]]) -> list[Range]:
    """In the order of the file, as they are read."""
    return [Range(number, start, start + length) for number, (start, length) in enumerate(sorted(pieces))]


@given(st.integers(0, END), PIECES, st.integers(0, END))
def test_a_gap_is_what_no_range_has(offset: int, pieces: list[tuple[int, int]], end: int) -> None:
    stored = {at for found in ranges(pieces) for at in range(found.start, found.end)}
    missing = [at for start, stop in gaps(offset, ranges(pieces), end) for at in range(start, stop or 0)]
    assert missing == [at for at in range(offset, end) if at not in stored]


@given(st.integers(0, END), PIECES)
def test_the_last_gap_has_no_end_where_the_file_has_none(offset: int, pieces: list[tuple[int, int]]) -> None:
    *_, (start, stop) = gaps(offset, ranges(pieces), None)
    assert stop is None
    assert start == max([offset, *(found.end for found in ranges(pieces))])


@given(st.integers(0, END), PIECES)
def test_a_position_moves_over_the_ranges_that_follow_it_and_to_no_gap(
    offset: int, pieces: list[tuple[int, int]]
) -> None:
    stored = {at for found in ranges(pieces) for at in range(found.start, found.end)}
    moved = _past(Position(7, 1, "log", "log", offset, offset), ranges(pieces))
    assert moved.offset == next(at for at in itertools.count(offset) if at not in stored)
    assert moved.later == tuple(found for found in ranges(pieces) if found.start > moved.offset)


def test_lines_after_a_gap_move_the_position_that_ends_there() -> None:
    position = Position(7, 1, "log", "log", 10, 10, later=(Range(8, 20, 30),))
    assert position.after(5) is position
    assert position.after(10) is position
    after_the_gap = position.after(25)
    assert (after_the_gap.id, after_the_gap.offset, after_the_gap.stored_from) == (8, 30, 20)
    of_its_own = position.after(15)
    assert (of_its_own.id, of_its_own.offset, of_its_own.stored_from) == (None, 15, 15)
