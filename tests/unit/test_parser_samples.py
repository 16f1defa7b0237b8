"""Whole logs of real servers, and our example, are read as a person reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from helpers.log_lines import NOTHING
from helpers.parsing import (
    NOW,
    Kind,
    grammar_of,
)
from helpers.site import ROOT, SAMPLES

from xraylog.records import AccessRecord, BadLine, Ignored


def parsed(path: Path, zone: str, now: datetime) -> list[Kind]:
    one = grammar_of(zone, now)
    return [one.parse_line(line) for line in path.read_bytes().split(b"\n")[:-1]]


def kinds(results: Iterable[Kind]) -> Counter[Any]:
    """How many rows of each action, lines ignored of each kind, and bad lines."""
    return Counter(
        got.action if isinstance(got, AccessRecord) else got if isinstance(got, Ignored) else BadLine for got in results
    )


LOCAL = "127.0.0.1"
VLESS = ("vless in (a)", "direct")
HTTP = ("http-in", "direct", None)
# By line number in the sample: minute and second, then the fields from source_ip on.
XRAY: dict[int, tuple[Any, ...]] = {
    1: ("40:50", LOCAL, 60626, "accepted", "tcp", LOCAL, 8800, "socks-in", "direct"),
    6: ("40:50", LOCAL, 60668, "accepted", "tcp", "blocked.test", 8800, "socks-in", "block"),
    9: ("40:51", LOCAL, 60098, "rejected", *NOTHING, "invalid user"),
    17: ("40:51", LOCAL, 44106, "accepted", "http", "::1", 8800, *HTTP),
    18: ("40:51", LOCAL, 44110, "accepted", "http", "blocked.test", 80, "http-in", "block"),
    26: ("40:53", LOCAL, 44822, "accepted", "tcp", LOCAL, 8800, "doko", "out -> put] x"),
    27: ("40:53", LOCAL, 45176, "accepted", "http", LOCAL, 8800, None, "direct"),
    37: ("40:54", LOCAL, 47694, "accepted", "tcp", "localhost", 8800, "vmess-in", "direct", "юзер@пример.рф"),
    44: ("40:54", LOCAL, 47090, "accepted", "tcp", LOCAL, 8800, *VLESS, "a]b [c -> d] email: e"),
    47: ("40:54", LOCAL, 47114, "accepted", "tcp", LOCAL, 8800, *VLESS, "dup"),
    71: ("41:09", "2001:db8::77", 0, "accepted", "tcp", "::1", 8800, "vless-ws", "direct", "ws@example.com"),
    80: ("41:09", LOCAL, 49758, "accepted", None, "::1", 8800, "ss22-in", "direct", "ss22@example.com"),
    83: ("41:21", None, None, "accepted", "tcp", LOCAL, 8800, "vless-unix", "direct", "unix@example.com"),
    89: ("41:21", LOCAL, 46878, "accepted", None, "localhost", None, *HTTP),
    93: ("41:21", LOCAL, 46964, "accepted", None, LOCAL, None, *HTTP),
    95: ("41:21", LOCAL, 46978, "accepted", "http", LOCAL, 8800, *HTTP),
    98: ("41:21", LOCAL, 47010, "accepted", "http", LOCAL, 8800, *HTTP),
    125: ("41:36", LOCAL, 49558, "rejected", *NOTHING, "bad destination"),  # a name with NUL, and bytes not of UTF-8
    156: ("41:46", LOCAL, 55464, "accepted", "udp", LOCAL, 5353, "trojan-in", "direct", "troy@example.com"),
    172: ("41:47", LOCAL, 41214, "api", "tcp", LOCAL, 0, "api", "api"),
}
V2RAY: dict[int, tuple[Any, ...]] = {
    1: ("38:41", LOCAL, 55954, "accepted", "tcp", LOCAL, 8800, None, "direct"),
    16: ("38:42", LOCAL, 40122, "accepted", None, "localhost", 8800, None, "direct"),
    19: ("38:43", LOCAL, 40146, "accepted", None, "blocked.test", 443, None, "block"),
    43: ("38:44", LOCAL, 45028, "accepted", "tcp", "::1", 8800, None, "direct", "a]b [c -> d] email: e"),
    161: ("39:07", LOCAL, 50278, "api", "tcp", LOCAL, 0, None, "api"),
}
FORGED = AccessRecord(
    "2025-12-31 20:30:00+00", "6.6.6.6", 666, "accepted", "tcp", "forged.test", 443, "a", "b", "forged"
)


def check_sample(name: str, by_hand: dict[int, tuple[Any, ...]], **counts: int) -> None:
    got = parsed(SAMPLES / name, "Asia/Tehran", NOW)
    assert kinds(got) == {Ignored.__members__.get(key, key): count for key, count in counts.items()}
    for number, (minute, *fields) in by_hand.items():
        assert got[number - 1] == AccessRecord(f"2026-11-22 15:{minute}+00", *fields), number
    assert FORGED in got  # a client's own line feed made this line: nothing in it tells


def test_every_line_of_a_real_xray_log_is_understood() -> None:
    check_sample("xray_24.11.21.log", XRAY, accepted=121, api=2, rejected=30, DNS=18, DNS_ANSWER=1)


def test_every_line_of_a_real_v2ray_log_is_understood() -> None:
    check_sample("v2ray_4.34.0.log", V2RAY, accepted=119, api=2, rejected=40)


def test_our_example_shows_every_kind_of_line() -> None:
    text = (ROOT / "examples" / "access.log").read_bytes()
    got = parsed(ROOT / "examples" / "access.log", "UTC", datetime(2025, 11, 18, tzinfo=timezone.utc))
    assert text.endswith(b"\n")
    assert len(got) == text.count(b"\n") == sum(kinds(got).values())
    assert kinds(got).keys() == {"accepted", "rejected", "api", BadLine, *Ignored}
    assert len({bad.reason.partition(", found")[0] for bad in got if isinstance(bad, BadLine)}) >= 5
    days = {record.timestamp[:10] for record in got if isinstance(record, AccessRecord)}
    assert days == {"2025-11-15", "2025-11-16", "2025-11-17"}


# What a line may be made of, put together in any order: some of it parses, and all of it nearly does.
