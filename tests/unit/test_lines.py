"""Lines are read by pieces: whole where they are short, their beginning and their length where they are long."""

from __future__ import annotations

import itertools
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xraylog import records
from xraylog.accesslog import buffer_lines, lines, parser
from xraylog.accesslog.parser import Parser
from xraylog.records import BadLine, Batch, Ignored, LongLine

LINE = b"2025/11/17 10:15:23 from 203.0.113.10:51000 accepted http://host.example/%s [in >> out] email: u1"


@given(
    texts=st.lists(st.tuples(st.sampled_from(b"ab#"), st.integers(0, 60)), max_size=12),
    cuts=st.lists(st.integers(0, 400), max_size=12),
    hole=st.integers(0, 50),
)
def test_each_line_is_whole_or_its_beginning_and_its_length(
    texts: list[tuple[int, int]], cuts: list[int], hole: int
) -> None:
    """However the pieces are cut; a hole within a line counts as the NULs that it reads as."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lines, "ALONE_BYTES", 20)
        whole = [bytes([first]) + b"x" * (length // 2) + b"\0" * hole + b"y" * length for first, length in texts]
        text = b"".join(line + b"\n" for line in whole) + b"unfinished"
        ends = sorted({0, *(cut for cut in cuts if cut < len(text)), len(text)})
        pieces = [(start, text[start:end]) for start, end in itertools.pairwise(ends)]
        found: list[bytes] = []
        for start, block in lines.complete(((at, piece) for at, piece in pieces if piece.strip(b"\0")), keep=30):
            assert start == sum(len(line) + 1 for line in found)
            if isinstance(block, LongLine):
                line = whole[len(found)]
                assert block == LongLine(line[:30], len(line))
                found.append(line)
            else:
                found += block.split(b"\n")[:-1]
        assert found == whole


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (records, parser):
        monkeypatch.setattr(module, "MAX_LINE_BYTES", 200)


def batches(*blocks: tuple[int, bytes | LongLine]) -> list[Batch]:
    return list(Parser(ZoneInfo("UTC"), datetime.now(timezone.utc)).batches(iter(blocks), 1000))


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"x" * 300, "expected a timestamp first, found none"),
        (LINE % (b"y" * 300) + b"\r", "expected at most 200 bytes in a line"),
        (LINE.replace(b"[in", b"[" + b"i" * 300) % b"", "expected ']' after the tags, found none"),
        (b" " * 300, "expected at most 200 bytes in a line"),
        (b"2025/11/17 10:15:23 [Info] " + b"z" * 300, "expected at most 200 bytes in a line"),
    ],
)
def test_a_line_that_is_cut_is_rejected_whatever_it_begins_with(line: bytes, reason: str) -> None:
    """Nobody knows what stands in its rest: another line that was glued to it, or half of a name."""
    before, alone, after = batches((0, b"a\n"), (2, LongLine(line[:200], len(line))), (len(line) + 3, b"b\n"))
    assert (before.start, before.end, after.start) == (0, 2, len(line) + 3)
    assert (alone.start, alone.end, alone.lines, alone.stored) == (2, len(line) + 3, 1, 1)
    ((offset, bad),) = alone.bad_lines
    assert (offset, bad.line) == (2, line[:200])
    assert bad.reason == f"{reason} (its first 200 of {len(line)} bytes)"


@pytest.mark.usefixtures("_small")
def test_a_long_comment_is_ignored_and_a_long_line_that_is_whole_is_a_row() -> None:
    row = LINE % (b"y" * 50)
    comment, alone = batches((0, LongLine(b"#" * 200, 300)), (301, LongLine(row, len(row))))
    assert comment.ignored == {Ignored.COMMENT: 1}
    assert alone.records[0].destination == "host.example"
    assert alone.line(0) == (301, row)
    assert alone.after(301) is alone
    assert not alone.after(302).stored


@pytest.mark.parametrize("length", [0, 1, 2, 3, 199, 200, 201, 202, 5000])
@pytest.mark.parametrize("reason", ["short", 'quotes ", "reason": "x" and é\\'])
def test_a_long_line_of_the_buffer_is_read_from_its_beginning_and_its_end(
    monkeypatch: pytest.MonkeyPatch, length: int, reason: str
) -> None:
    """Also one of an earlier version, which kept lines of any length."""
    bad = BadLine(bytes(number % 251 for number in range(length)), reason)
    (written,) = b"".join(buffer_lines._bad_line(7, bad)).splitlines()
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 200)
    monkeypatch.setattr(buffer_lines, "ENCODED_BYTES", 268)
    kept = written[: len(buffer_lines.BEGIN) + 268 + 100]
    read = buffer_lines.read_long(LongLine(kept, len(written)), written[-100:])
    suffix = f" (its first 200 of {length} bytes)" if length > 200 else ""
    assert read == (7, BadLine(bad.line[:200], reason + suffix))


@pytest.mark.parametrize("line", [b"{}", b'{"line": "', b"x" * 300])
def test_a_long_line_that_is_not_the_buffers_is_an_error(line: bytes) -> None:
    with pytest.raises((ValueError, KeyError)):
        buffer_lines.read_long(LongLine(line, len(line)), line[-100:])
