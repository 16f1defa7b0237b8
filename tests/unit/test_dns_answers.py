"""The names of addresses are read from the answers of xray's DNS client, and from nothing else."""

from __future__ import annotations

from datetime import date, datetime, timezone
from zoneinfo import ZoneInfo

import pytest

from xraylog.accesslog import dns_answers
from xraylog.accesslog.dns_answers import DnsAnswers
from xraylog.accesslog.grammar import AHEAD, EARLIEST
from xraylog.accesslog.parser import Parser
from xraylog.records import LongLine

NOW = datetime(2025, 11, 18, 12, tzinfo=timezone.utc)
DAY = date(2025, 11, 17)
AT = "2025/11/17 10:15:23"
ANSWERS = {
    f"{AT} UDP:8.8.8.8:53 got answer: www.example.com -> [203.0.113.5] 23.4ms": [("203.0.113.5", "www.example.com")],
    f"{AT}.123456 DOH//dns.example cache HIT: WWW.Example.com. -> [203.0.113.5, 2001:DB8::0:5] 316.692µs": [
        ("203.0.113.5", "www.example.com"),
        ("2001:db8::5", "www.example.com"),
    ],
    f"{AT} localhost cache OPTIMISTE: a.example -> [::ffff:203.0.113.5]": [("203.0.113.5", "a.example")],
    f"{AT} FakeDNS got answer: a.example -> [198.18.0.7] 0s": [("198.18.0.7", "a.example")],
    f"{AT} UDP:8.8.8.8:53 got answer: none.example -> [] 2ms <rcode: 3>": [],
    f"{AT} UDP:8.8.8.8:53 got answer: x.example -> [] <a > b -> [203.0.113.5]>": [],
    f"{AT} UDP:8.8.*.*:53 got answer: a.example -> [203.0.*.*, 2001:db8::/32] 2ms": [],  # masked
    f"{AT} UDP:[Masked IPv4]:53 got answer: a.example -> [[Masked IPv4]] 2ms": [],
    f"{AT} UDP:8.8.8.8:53 got answer: 203.0.113.9 -> [203.0.113.9] 2ms": [],  # no name
    "2014/11/17 10:15:23 UDP:8.8.8.8:53 got answer: a.example -> [203.0.113.5] 2ms": [],  # forged
    "2025/11/21 10:15:23 UDP:8.8.8.8:53 got answer: a.example -> [203.0.113.5] 2ms": [],
    "2025/11/31 10:15:23 UDP:8.8.8.8:53 got answer: a.example -> [203.0.113.5] 2ms": [],  # there is no such day
    f"{AT} from 203.0.113.1:1 accepted tcp:got:1 [a -> b] email: x got answer: a.example -> [203.0.113.5] 2ms": [],
    f"{AT} [Info] UDP:8.8.8.8:53 got answer: a.example -> [203.0.113.5] 2ms": [],
}


def answers(text: str, zone: str = "UTC") -> DnsAnswers:
    found = DnsAnswers(ZoneInfo(zone), EARLIEST, NOW + AHEAD)
    for batch in Parser(ZoneInfo(zone), NOW).batches([(0, text.encode())], 100):
        found.add(batch)
    return found


@pytest.mark.parametrize("line", ANSWERS)
def test_a_line_gives_the_names_of_the_addresses_in_it(line: str) -> None:
    assert answers(f"{line}\n").found == {(DAY, *found) for found in ANSWERS[line]}


def test_days_are_those_of_utc() -> None:
    line = "2025/11/18 01:00:00 UDP:8.8.8.8:53 got answer: a.example -> [203.0.113.5] 2ms\n"
    assert answers(line, "Asia/Tehran").found == {(DAY, "203.0.113.5", "a.example")}


def test_each_is_kept_once_and_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{AT} UDP:8.8.8.8:53 got answer: n{n}.example -> [203.0.113.5] 2ms\n" for n in range(5)]
    found = answers("".join(lines * 2))
    assert (len(found.found), found.is_full) == (5, False)
    monkeypatch.setattr(dns_answers, "MAX_FOUND", 3)
    found = answers("".join(lines))
    assert (len(found.found), found.is_full) == (3, True)


def test_a_long_line_gives_nothing() -> None:
    line = LongLine(f"{AT} UDP:8.8.8.8:53 got answer: a.example -> [203.0.113.5] 2ms".encode(), 1 << 25)
    found = DnsAnswers(ZoneInfo("UTC"), EARLIEST, NOW + AHEAD)
    for batch in Parser(ZoneInfo("UTC"), NOW).batches([(0, line)], 100):
        found.add(batch)
    assert found.found == set()


def test_the_days_of_many_hours_take_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_answers, "MAX_HOURS", 3)
    hours = [
        f"2025/11/17 {hour:02}:00:00 UDP:8.8.8.8:53 got answer: n{hour}.example -> [203.0.113.5] 2ms\n"
        for hour in range(11)
    ]
    found = answers("".join(hours))
    assert len(found.found) == 11
    assert len(found._days) <= 3
