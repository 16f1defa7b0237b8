"""Lines of the offline buffer come back as what they were written from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xraylog.accesslog import buffer_lines
from xraylog.accesslog.masking import UNMASKED, Mask
from xraylog.records import AccessRecord, BadLine, Batch, Records

# Names that look like the format itself, and whatever else a client may send.
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ['", "offset": 5}', ', "inbound_tag": ', '"action": "', "\\", '\\"', "a\tb", "\u2028", "\x85", "+00", "null"]
)
name = st.none() | text
seconds = st.sampled_from([":23", ":23.1", ":23.123456"])
port = st.none() | st.integers(0, 65535)
records = st.builds(
    AccessRecord,
    st.builds("2025-11-17 10:{:02}{}+00".format, st.integers(0, 59), seconds),
    st.sampled_from([None, "203.0.113.10", "2001:db8::1", "203.0.0.0/16"]),
    port, st.sampled_from(["accepted", "rejected", "api"]), name, name, port, name, name, name, st.just(""),
)  # fmt: skip
bad_lines = st.builds(BadLine, st.binary(max_size=60), text)


def batch_of(found: list[AccessRecord], bad: list[BadLine]) -> Batch:
    rows = Records()
    for record in found:
        rows.append(record)
    lines, offsets = len(found) + len(bad), [number * 100 for number in range(len(found) + len(bad))]
    numbered = [*enumerate(bad, len(found))]
    return Batch(0, lines * 100, b"", lines, rows, numbered, [number for number, _ in numbered], {}, offsets)


def read(written: bytes, mask: Mask = UNMASKED) -> buffer_lines.BufferedLines:
    return buffer_lines.read(written, {}, mask)


@given(found=st.lists(records, max_size=5), bad=st.lists(bad_lines, max_size=3))
def test_what_was_written_is_read(found: list[AccessRecord], bad: list[BadLine]) -> None:
    batch = batch_of(found, bad)
    back = read(b"".join(buffer_lines.encoded_parts(batch)))
    assert list(back.records) == found
    assert back.bad_lines == batch.numbered_bad_lines
    assert back.offsets == batch.log_offsets


@pytest.mark.parametrize(
    "rewritten",
    [
        lambda line: line.replace(b', "source_ip"', b',"source_ip"'),  # with other blanks
        lambda line: line.replace(b'"action": "accepted", ', b"").replace(b"{", b'{"action": "accepted", '),
        lambda line: line.replace(b"}", b" }"),
    ],
    ids=["blanks", "order", "end"],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_line_in_another_form_is_read_in_its_place(rewritten: Callable[[bytes], bytes], place: int) -> None:
    found = [AccessRecord(f"2025-11-17 10:15:2{n}+00", None, None, "accepted", email=f"u{n}") for n in range(3)]
    lines = b"".join(buffer_lines.encoded_parts(batch_of(found, [BadLine(b"bad", "why")]))).splitlines(keepends=True)
    lines[place] = rewritten(lines[place])
    lines.insert(1, lines.pop())  # older versions wrote bad lines in the order of the log
    back = read(b"".join(lines))
    assert list(back.records) == found
    assert back.bad_lines == [(1, BadLine(b"bad", "why"))]


def test_a_source_that_is_older_than_the_mask_is_masked() -> None:
    (written,) = buffer_lines.encoded_parts(
        batch_of([AccessRecord("2025-11-17 10:15:23+00", "203.0.113.10", 5, "api")], [])
    )
    assert [record.source_ip for record in read(written, Mask(v4=16)).records] == ["203.0.0.0/16"]


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{}\n", b"no JSON\n", b'{"timestamp": "2025-11-17 10:15:23+00", "offset": 1}\n', b'{"line": "YQ=="}\n'],
)
def test_what_we_did_not_write_is_no_line(line: bytes) -> None:
    (good,) = buffer_lines.encoded_parts(batch_of([AccessRecord("2025-11-17 10:15:23+00", None, None, "accepted")], []))
    for written in (line, good + line, line + good):
        with pytest.raises((ValueError, KeyError, TypeError)):
            read(written)


def test_a_long_line_that_we_did_not_write_is_no_line() -> None:
    with pytest.raises(ValueError, match="that we did not write"):
        buffer_lines.read(b"{}\n", {0: None}, UNMASKED)
