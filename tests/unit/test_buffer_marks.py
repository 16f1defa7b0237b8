"""The text of the offline buffer is cut at its marks, and nowhere else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xraylog.accesslog import buffer_marks
from xraylog.accesslog.buffer_marks import MARK

LINES = st.sampled_from([b"\n", b"{}\n", MARK + b"1}\n", b' {"mark": 1}\n', b"x" + MARK + b"\n", b'{"mark":1}\n'])


@given(lines=st.lists(LINES, max_size=12))
def test_a_mark_is_a_piece_by_itself_and_so_are_the_lines_between_two(lines: list[bytes]) -> None:
    pieces = list(buffer_marks.split(b"".join(lines)))
    assert b"".join(pieces) == b"".join(lines)
    assert all(piece.endswith(b"\n") for piece in pieces)
    marks = [line for line in lines if line.startswith(MARK)]
    assert [piece for piece in pieces if piece.startswith(MARK)] == marks
    assert not any(b"\n" + MARK in piece for piece in pieces)
    assert len(pieces) <= 2 * len(marks) + 1
