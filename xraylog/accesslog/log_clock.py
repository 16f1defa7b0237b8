"""Whether the times in a log can be right: its last line against the time of its last write, and this machine's clock.

A line is written as soon as xray has its time. If the two are whole quarter hours apart, the zone is another one.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from xraylog.accesslog.logfile import LogFile
from xraylog.config import Config
from xraylog.config.reader import NAMELESS, system_zone

TIMESTAMP = re.compile(rb"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d(?=\.|\s)")
FORMAT = "%Y/%m/%d %H:%M:%S"
QUARTER = timedelta(minutes=15)
EARLY, LATE = timedelta(seconds=-5), timedelta(seconds=2)  # of a line, without its fraction, against the file's time
MAX_ZONE_OFFSET = timedelta(hours=15)  # a zone from another one: from -12 to +14, and people live between -10 and +13
AHEAD = timedelta(minutes=5)  # of our clock: what is more is worth a word
LAST_BYTES = 1 << 16  # of a log, in which a line with a time is looked for
ZONES = ("Asia/Tehran", "Europe/Moscow", "Asia/Shanghai", "Europe/Berlin", "Europe/London", "America/New_York",
         "America/Los_Angeles", "Asia/Tokyo", "Asia/Kolkata", "Asia/Yangon")  # fmt: skip


class Doubt(NamedTuple):
    """Why the times can hardly be right, and what to do."""

    found: str
    to_do: str
    kind: str  # the same each time that there is the same reason


def look(log: LogFile, cfg: Config, now: datetime) -> Doubt | None:
    """Return the doubt about the last line of a log that has a time. Call it before the log is drained, a write, too.

    A blank line, or a panic of many lines, may come after it.
    """
    ended = log.read(max(0, log.size - LAST_BYTES), LAST_BYTES).rpartition(b"\n")[0]
    stamp = next(filter(None, map(TIMESTAMP.match, reversed(ended.split(b"\n")))), None)
    if stamp is None:
        return None
    try:
        local = datetime.strptime(stamp[0].decode(), FORMAT)  # noqa: DTZ007  # its zone is the question
    except ValueError:
        return None
    return compare(str(log.path), local, datetime.fromtimestamp(log.stat.st_mtime, timezone.utc), cfg, now)


def compare(path: str, local: datetime, written: datetime, cfg: Config, now: datetime) -> Doubt | None:
    """Return the doubt about a line dated `local` that was written then, seen now."""
    try:
        offsets = [local.replace(tzinfo=cfg.zone, fold=fold).astimezone(timezone.utc) - written for fold in (0, 1)]
    except OverflowError:  # in the year 1 or 9999: forged, and unparsed
        return None
    offset = min(offsets, key=abs)
    quarters = round(offset / QUARTER)
    if quarters and abs(offset) <= MAX_ZONE_OFFSET and EARLY <= offset - quarters * QUARTER <= LATE:
        name, off = likely_zone(local - written.replace(tzinfo=None), written), length(quarters * QUARTER)
        side = "after" if quarters > 0 else "before"
        why = ", as in a container" if name == "UTC" else ""
        return Doubt(
            f"{path}: its last line is dated {local}: in [parser] timezone = {cfg.zone.key} {off} {side} "
            "it was written",
            f"xray's zone is likely {name}{why}: set [parser] timezone = {name} in {cfg.path}; rows that were stored "
            "before keep their times",
            f"as if of the zone {name}",
        )
    return None if written + offset <= now + AHEAD else ahead(path, written + offset, cfg, now)


def ahead(what: str, newest: datetime, cfg: Config, now: datetime) -> Doubt:
    """Return the doubt about lines that are dated after now."""
    return Doubt(
        f"{what}: dated until {newest:%Y-%m-%d %H:%M} UTC, {length(newest - now)} ahead of this machine's clock",
        f"if it is slow ({now:%Y-%m-%d %H:%M} UTC, as date -u shows): sudo timedatectl set-ntp true; if xray's zone is "
        f"not {cfg.zone.key}: [parser] timezone in {cfg.path}",
        "ahead of this machine's clock",
    )


def likely_zone(offset: timedelta, at: datetime) -> str:
    """Return the name of a zone that is this far from UTC then: UTC, the machine's, or another one."""
    rounded = round(offset / QUARTER) * QUARTER
    if not rounded:
        return "UTC"
    for zone in _zones():
        if at.astimezone(zone).utcoffset() == rounded:
            return zone.key
    return f"one that is {length(rounded)} {'after' if rounded < timedelta() else 'ahead of'} UTC"


def length(time: timedelta) -> str:
    """Return a length of time for people, to the minute: 3 h 30 min."""
    minutes = round(abs(time) / timedelta(minutes=1))
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    parts = [f"{number} {unit}" for number, unit in ((days, "days"), (hours, "h"), (minutes, "min")) if number]
    return " ".join(parts[:2]) or "less than 1 min"


def _zones() -> Iterator[ZoneInfo]:
    """Yield zones, the likely ones first."""
    if (zone := system_zone()).key != NAMELESS:
        yield zone
    for name in (*ZONES, *sorted(available_timezones())):
        with contextlib.suppress(OSError, ValueError, ZoneInfoNotFoundError):
            yield ZoneInfo(name)
