"""Check whether the times in a log can be right: its last line against the file's modification time, and our clock.

xray writes a line as soon as it has taken its time. If the two differ by whole quarter hours, the configured zone is
not xray's.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from xraylog.accesslog.logfile import LogFile
from xraylog.config import Config, time_zone

TIMESTAMP = re.compile(rb"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d(?=\.|\s)")
FORMAT = "%Y/%m/%d %H:%M:%S"
QUARTER = timedelta(minutes=15)
EARLY, LATE = timedelta(seconds=-5), timedelta(seconds=2)  # limits of a line's time minus the file's
MAX_ZONE_OFFSET = timedelta(hours=15)  # between zones: they are -12 to +14, and people live in -10 to +13
AHEAD = timedelta(minutes=5)  # of our clock: a time further ahead is in doubt
LAST_BYTES = 1 << 16  # of a log, searched for a line with a time
ZONES = ("Asia/Tehran", "Europe/Moscow", "Asia/Shanghai", "Europe/Berlin", "Europe/London", "America/New_York",
         "America/Los_Angeles", "Asia/Tokyo", "Asia/Kolkata", "Asia/Yangon")  # fmt: skip


class Doubt(NamedTuple):
    """Why the times are implausible, and what to do."""

    found: str
    to_do: str
    kind: str  # equal for equal reasons


def look(log: LogFile, cfg: Config, now: datetime) -> Doubt | None:
    """Return the doubt about the last line of a log that has a time; None if there is none.

    Call it before the log is drained, because draining changes the modification time. A blank line, or a panic of many
    lines, may follow the line.
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
    """Return the doubt about a line dated `local` in a file that was written at `written`; None if there is none."""
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
    """Return the doubt about lines that are dated in the future."""
    return Doubt(
        f"{what}: dated until {newest:%Y-%m-%d %H:%M} UTC, {length(newest - now)} ahead of this machine's clock",
        f"if it is slow ({now:%Y-%m-%d %H:%M} UTC, as date -u shows): sudo timedatectl set-ntp true; if xray's zone is "
        f"not {cfg.zone.key}: [parser] timezone in {cfg.path}",
        "ahead of this machine's clock",
    )


def likely_zone(offset: timedelta, at: datetime) -> str:
    """Return the name of a zone with this offset from UTC at that time: UTC, the machine's, or another one."""
    rounded = round(offset / QUARTER) * QUARTER
    if not rounded:
        return "UTC"
    for zone in _zones():
        if at.astimezone(zone).utcoffset() == rounded:
            return zone.key
    return f"one that is {length(rounded)} {'after' if rounded < timedelta() else 'ahead of'} UTC"


def length(time: timedelta) -> str:
    """Return a length of time for a message, to the minute: 3 h 30 min."""
    minutes = round(abs(time) / timedelta(minutes=1))
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    parts = [f"{number} {unit}" for number, unit in ((days, "days"), (hours, "h"), (minutes, "min")) if number]
    return " ".join(parts[:2]) or "less than 1 min"


def _zones() -> Iterator[ZoneInfo]:
    """Yield time zones, the likely ones first."""
    if (zone := time_zone.of_system()).key != time_zone.NAMELESS:
        yield zone
    for name in (*ZONES, *sorted(available_timezones())):
        with contextlib.suppress(OSError, ValueError, ZoneInfoNotFoundError):
            yield ZoneInfo(name)
