"""Which names an address had: from the answers that xray's DNS client writes into the log with `log.dnsLog`. Pure.

xray-core builds such a line in common/log/dns.go:

    TIMESTAMP SERVER SP ("got answer:" | "cache HIT:" | "cache OPTIMISTE:") SP NAME " -> [" ADDRESS, … "]" [SP ELAPSED]

The parser has counted these lines as ignored; their batch is searched again, and only if it has some. What maskAddress
made of an address is none, and gives nothing.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timezone, tzinfo
from ipaddress import ip_address
from typing import NamedTuple

from xraylog.records import Batch, Ignored

MAX_FOUND = 50_000  # of a run: a log may have any number, and each takes memory here and a row
MAX_HOURS = 1_000  # whose day is remembered
ANSWER = re.compile(
    rb"^(?P<hour>\d{4}/\d\d/\d\d \d\d):\d\d:\d\d(?:\.\d{1,6})? \S+ (?:got answer:|cache HIT:|cache OPTIMISTE:) "
    rb"(?P<name>[A-Za-z0-9._-]{1,255}) -> \[(?P<addresses>[0-9A-Fa-f.:, ]{2,4096})\](?: [^\n]*)?$",
    re.MULTILINE,
)


class Found(NamedTuple):
    """A name that an address had on a day, in UTC."""

    day: date
    address: str
    name: str


class DnsAnswers:
    """Gathers the names of one log, each once."""

    def __init__(self, zone: tzinfo, earliest: datetime, latest: datetime) -> None:
        """`zone`: in which xray writes. What is dated before the earliest or after the latest moment is forged."""
        self._zone = zone
        self._span = (earliest, latest)
        self._days: dict[bytes, date | None] = {}
        self.found: set[Found] = set()
        self.is_full = False  # and there were more

    def add(self, batch: Batch) -> None:
        """Gather what the lines of a batch say."""
        if not batch.ignored.get(Ignored.DNS_ANSWER) or self.is_full:
            return
        for answer in ANSWER.finditer(batch.text):
            day = self._day(answer["hour"])
            name = answer["name"].decode().rstrip(".").lower()
            if day is None or not name or _address(name):
                continue
            texts = answer["addresses"].decode().split(",")
            self.found.update(Found(day, address, name) for address in map(_address, texts) if address)
            if len(self.found) >= MAX_FOUND:
                self.is_full = True
                return

    def _day(self, hour: bytes) -> date | None:
        """Return the day of a line; None for one that no line can be of."""
        if hour not in self._days:
            if len(self._days) >= MAX_HOURS:
                self._days.clear()
            self._days[hour] = self._read(hour)
        return self._days[hour]

    def _read(self, hour: bytes) -> date | None:
        try:
            moment = datetime.strptime(hour.decode(), "%Y/%m/%d %H").replace(tzinfo=self._zone).astimezone(timezone.utc)
        except (ValueError, OverflowError):
            return None
        return moment.date() if self._span[0] <= moment <= self._span[1] else None


def _address(text: str) -> str | None:
    """Return an address in its usual form, a mapped one as IPv4; None for what is none."""
    try:
        found = ip_address(text.strip())
    except ValueError:
        return None
    return str(getattr(found, "ipv4_mapped", None) or found)
