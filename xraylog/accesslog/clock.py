"""Resolve the repeated hour: when clocks are set back, an hour occurs twice, and lines do not say which one they mean.

xray writes the lines of a file in order, so the second pass of the hour begins where the time jumps back. Pure: no
files, no database, no logging, and no time but that of the lines.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from xraylog.records import MINUTE

MIN_JUMP_BACK = timedelta(minutes=1)  # after a smaller one, the machine's clock was just corrected
MAX_AHEAD = timedelta(minutes=5)  # how far ahead of our clock a line can be; a later second pass is still to come
A_MINUTE = timedelta(minutes=1)


class Clock:
    """Decides for each line to which pass it belongs. Minutes are strings in UTC, "2025-10-26 00:30"."""

    def __init__(self, zone: ZoneInfo, now: datetime) -> None:
        self._zone = zone
        self._latest = now + MAX_AHEAD
        self.is_fixed = is_fixed(zone)
        self.last = ""  # minute of the previous line
        # By minute of the first pass: the same minute in the second pass, and the moment when the clocks were set back.
        # In a log without such minutes it stays empty, and costs nothing.
        self.repeated: dict[str, tuple[datetime, datetime]] = {}
        self._last_result = ("", "")  # the last minute and what it was resolved to, for the next line of that minute

    def learn(self, local: datetime, first: datetime) -> None:
        """Remember a wall-clock time if it occurs twice. `first`: the UTC time of its first pass."""
        if self.is_fixed or not is_repeated(local):
            return
        first = first.replace(second=0, microsecond=0)
        second = local.replace(fold=1).astimezone(timezone.utc).replace(second=0, microsecond=0)
        if second <= self._latest:
            self.repeated[minute_of(first)] = second, self._change_between(first, second)

    def resolve(self, minute: str) -> str:
        """Return the minute of the next line: `minute` itself, which is of the first pass, or that of the second."""
        if minute in self.repeated and self.last:
            if self._last_result != (minute, self.last):
                self._last_result = minute, self._resolve(minute)
            minute = self._last_result[1]
        self.last = minute
        return minute

    def _resolve(self, minute: str) -> str:
        second, change = self.repeated[minute]
        first, last = moment(minute), moment(self.last)
        if last < change:
            return minute_of(second) if last - first > MIN_JUMP_BACK else minute
        # The second pass continues, unless this line is so much earlier that another log must begin here.
        return minute_of(second) if last - second < (second - first) / 2 else minute

    def _change_between(self, first: datetime, second: datetime) -> datetime:
        """Return the moment when clocks were set back, which is between these two."""
        before, after = first, second
        offset = first.astimezone(self._zone).utcoffset()
        while after - before > A_MINUTE:
            middle = before + (after - before) // 2 // A_MINUTE * A_MINUTE
            if middle.astimezone(self._zone).utcoffset() == offset:
                before = middle
            else:
                after = middle
        return after


def is_fixed(zone: ZoneInfo) -> bool:
    """Return whether the clocks of this zone are never changed, as in UTC."""
    return zone.utcoffset(None) is not None


def is_repeated(local: datetime) -> bool:
    """Return whether this wall-clock time occurs twice in its zone (PEP 495)."""
    first, second = local.replace(fold=0).utcoffset(), local.replace(fold=1).utcoffset()
    return first is not None and second is not None and first > second


def moment(minute: str) -> datetime:
    """Convert a minute, "2025-10-26 00:30" in UTC, to a datetime."""
    return datetime.fromisoformat(minute + "+00:00")


def minute_of(moment: datetime) -> str:
    """Convert a datetime in UTC to its minute, "2025-10-26 00:30"."""
    return moment.isoformat(" ")[:MINUTE]
