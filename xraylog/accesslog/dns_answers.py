"""Collect the names of addresses from the answers that xray's DNS client logs with `log.dnsLog`. Pure.

xray-core builds such a line in common/log/dns.go:

    TIMESTAMP SERVER SP ("got answer:" | "cache HIT:" | "cache OPTIMISTE:") SP NAME " -> [" ADDRESS, … "]" [SP ELAPSED]

The parser counts these lines as ignored; if a batch has some, its text is searched a second time. An address that xray
has masked (maskAddress) is not an address any more, and is skipped.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timezone, tzinfo
from ipaddress import ip_address
from typing import NamedTuple

from xraylog.records import Batch, Ignored

MAX_FOUND = 50_000  # of a run: a log may have any number, and each takes memory here and a row
MAX_HOURS = 1_000  # whose day is cached
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
    """Collects the names of one log, each once a day."""

    def __init__(self, zone: tzinfo, earliest: datetime, latest: datetime) -> None:
        """`zone`: in which xray writes. Lines dated outside of `earliest` to `latest` are forged, and skipped."""
        self._zone = zone
        self._span = (earliest, latest)
        self._days: dict[bytes, date | None] = {}
        self.found: set[Found] = set()
        self.is_full = False  # MAX_FOUND is reached: later ones are skipped

    def add(self, batch: Batch) -> None:
        """Collect the names in the lines of a batch."""
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
        """Return the UTC day of a line; None if the date is invalid or out of range."""
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
    """Return an address in its usual form, IPv4 if it is mapped; None if it is not an address."""
    try:
        found = ip_address(text.strip())
    except ValueError:
        return None
    return str(getattr(found, "ipv4_mapped", None) or found)
