"""Parse lines with both the grammar and the parser, which must agree, whatever the parser remembers of other lines."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from datetime import datetime, timezone
from typing import Any
from zoneinfo import ZoneInfo

from xraylog.accesslog.grammar import Grammar
from xraylog.accesslog.masking import UNMASKED, Mask
from xraylog.accesslog.parser import Parser
from xraylog.records import AccessRecord, BadLine, Ignored

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
AT, STORED_AT = b"2025/11/17 10:15:23.123456 ", "2025-11-17 10:15:23.123456+00"
Kind = AccessRecord | BadLine | Ignored
WHOLE = AT + b"from 1.2.3.4:5 accepted tcp:x.example:443 [in -> out] email: e"
WHOLE_ROW = AccessRecord(STORED_AT, "1.2.3.4", 5, "accepted", "tcp", "x.example", 443, "in", "out", "e")


def raw(line: str | bytes) -> bytes:
    return line.encode() if isinstance(line, str) else line


@functools.cache
def parser_of(zone: str, now: datetime, mask: Mask = UNMASKED) -> Parser:
    """Return one parser for all tests, because what it remembers of other lines must make no difference."""
    return Parser(ZoneInfo(zone), now, mask)


def grammar_of(zone: str = "UTC", now: datetime = NOW, mask: Mask = UNMASKED) -> Grammar:
    return Grammar(ZoneInfo(zone), now, mask)


def parse(*line: str | bytes, zone: str = "UTC", now: datetime = NOW) -> Kind:
    """Return the grammar's result for a line; assert that the parser agrees, for the line alone and among others."""
    text = b"".join(map(raw, line))
    said = grammar_of(zone, now).parse_line(text)
    if b"\n" not in text:
        known, fast = grammar_of(zone, now).parse_line(WHOLE), parser_of(zone, now)
        assert results(fast, text) == [said]
        assert results(fast, WHOLE, text, WHOLE, WHOLE, text) == [known, said, known, known, said]
    return said


def results(fast: Parser, *lines: bytes) -> list[Kind]:
    """Return a parser's result for each line, in their order."""
    found: dict[int, Kind] = {}
    text = b"".join(line + b"\n" for line in lines)
    fast.clock.last = ""  # another log
    for batch in fast.batches([(0, text)], len(lines)):
        found.update(zip(batch.offsets, batch.records, strict=True))
        found.update(batch.bad_lines)
        ignored = list(Counter(batch.ignored).elements())
    begins = itertools.accumulate((len(line) + 1 for line in lines[:-1]), initial=0)
    # Of ignored lines a batch has only the count: take them in turn, they are equal ones here.
    return [found[begin] if begin in found else ignored.pop() for begin in begins]


def reason(*line: str | bytes, **when: Any) -> str:
    """Return why the line is bad; assert that its bytes are kept unchanged."""
    bad = parse(*line, **when)
    assert isinstance(bad, BadLine), bad
    assert bad.line == b"".join(map(raw, line))
    return bad.reason
