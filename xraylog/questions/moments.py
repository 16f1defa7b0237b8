"""Parse --since and --until: times as people write them, in the zone of the log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone, tzinfo

UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
DURATION = re.compile(r"([0-9]{1,5})([mhdw])")
AGO = re.compile(rf"{DURATION.pattern}(?: ago)?")
DAYS_BACK = {"today": 0, "yesterday": 1}
DAY = re.compile(r"[0-9]{4}(?:-[0-9]{2}-[0-9]{2}|/[0-9]{2}/[0-9]{2})")  # also as the log has it
MOMENT = re.compile(rf"({DAY.pattern})[ T]([0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}}(?:\.[0-9]{{1,6}})?)?) ?"
                    r"(Z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)?")  # fmt: skip
EXPECTED = (
    "expected 30m, 12h, 7d or 2w (ago), today, yesterday, a day as in 2025-11-17, or a moment as in "
    "2025-11-17 10:15 or 2025-11-17T10:15:00+03:30"
)


class Unreadable(ValueError):
    """The text is not a time; the message shows what one looks like."""


@dataclass(frozen=True, slots=True)
class Span:
    """What a text stands for: a day, or a moment. Begin and end of a moment differ only if it occurs twice."""

    begin: datetime
    end: datetime


def read(text: str, now: datetime, zone: tzinfo) -> Span:
    """Parse a time, relative to `now`. Raises Unreadable."""
    try:
        if text == "now":
            return Span(now, now)
        if ago := AGO.fullmatch(text):
            moment = now - int(ago[1]) * UNITS[ago[2]]
            return Span(moment, moment)
        if text in DAYS_BACK:
            return _day(now.astimezone(zone).date() - timedelta(days=DAYS_BACK[text]), zone)
        if DAY.fullmatch(text):
            return _day(date.fromisoformat(text.replace("/", "-")), zone)
        if found := MOMENT.fullmatch(text):
            return _moment(found[1].replace("/", "-"), found[2], found[3], zone)
    except (ValueError, OverflowError):
        pass
    raise Unreadable(f"{EXPECTED}, found {text!r}")


def around(text: str, within: str, now: datetime, zone: tzinfo) -> Span:
    """Return the window from `within` before a day or moment to `within` after it. Raises Unreadable."""
    span, apart = read(text, now, zone), duration(within)
    try:
        return Span(span.begin - apart, span.end + apart + timedelta(microseconds=1))  # `until` is not in a window
    except OverflowError:
        raise Unreadable(f"expected a duration of at most some years, found {within!r}") from None


def duration(text: str) -> timedelta:
    """Parse a duration like 5m or 2h. Raises Unreadable."""
    if found := DURATION.fullmatch(text):
        return int(found[1]) * UNITS[found[2]]
    raise Unreadable(f"expected a duration as in 5m, 2h or 1d, found {text!r}")


def _day(day: date, zone: tzinfo) -> Span:
    begin, end = (
        datetime(each.year, each.month, each.day, tzinfo=zone).astimezone(timezone.utc)
        for each in (day, day + timedelta(days=1))
    )
    return Span(begin, end)


def _moment(day: str, time: str, offset: str | None, zone: tzinfo) -> Span:
    head, _, fraction = time.partition(".")  # fromisoformat of Python 3.10 wants three digits or six
    moment = datetime.fromisoformat(f"{day} {head}").replace(microsecond=int(f"{fraction:0<6}"))
    possible = [moment.replace(tzinfo=each, fold=fold) for each, fold in _zones(offset, zone)]
    instants = [each.astimezone(timezone.utc) for each in possible]
    return Span(min(instants), max(instants))


def _zones(offset: str | None, zone: tzinfo) -> list[tuple[tzinfo, int]]:
    """Return the possible zones of a time. Without an offset: before and after a change of clocks, to miss no row."""
    if offset is None:
        return [(zone, 0), (zone, 1)]
    if offset in ("Z", "UTC", "GMT"):
        return [(timezone.utc, 0)]
    digits = offset[1:].replace(":", "").ljust(4, "0")
    apart = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return [(timezone(-apart if offset[0] == "-" else apart), 0)]
