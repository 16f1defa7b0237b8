"""The repeated hour: when clocks are set back, wall-clock times occur twice, and a line does not say which it means.

xray writes the lines of a file in order, so the second pass begins where the time jumps back. Pure: no files, no
database, no logging, and no clock but that of the lines.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from xraylog.records import MINUTE

STEP = timedelta(minutes=1)  # a smaller jump back is a clock that was corrected
AHEAD = timedelta(minutes=5)  # of our clock: the second pass cannot be further ahead
A_MINUTE = timedelta(minutes=1)


class Clock:
    """Decides line by line in which pass it is. Minutes are UTC, "2025-10-26 00:30", as our timestamps begin."""

    def __init__(self, zone: ZoneInfo, now: datetime) -> None:
        self._zone = zone
        self._latest = now + AHEAD
        self.is_fixed = is_fixed(zone)
        self.last = ""  # minute of the line before
        self.repeated: dict[str, tuple[datetime, datetime]] = {}  # by minutes of the first pass: those of the second
        # pass, and the moment when it begins. Empty in a log without such minutes, so that it costs nothing.
        self._same = ("", "")  # the last minute and its result, for the next line of the same minute

    def learn(self, local: datetime, first: datetime) -> None:
        """Remember a wall-clock time, which is `first` in UTC, if it occurs twice."""
        if self.is_fixed or not is_repeated(local):
            return
        first = first.replace(second=0, microsecond=0)
        second = local.replace(fold=1).astimezone(timezone.utc).replace(second=0, microsecond=0)
        if second <= self._latest:
            self.repeated[text(first)] = second, self._change(first, second)

    def read(self, minute: str) -> str:
        """Return the minute of the next line: `minute`, or the same in the second pass."""
        if minute in self.repeated and self.last:
            if self._same != (minute, self.last):
                self._same = minute, self._pass(minute)
            minute = self._same[1]
        self.last = minute
        return minute

    def _pass(self, minute: str) -> str:
        second, change = self.repeated[minute]
        first, last = moment(minute), moment(self.last)
        if last < change:
            return text(second) if last - first > STEP else minute
        # The second pass goes on, unless the line is from so much earlier that another log begins here.
        return text(second) if last - second < (second - first) / 2 else minute

    def _change(self, first: datetime, second: datetime) -> datetime:
        """Return the moment between these two when clocks were set back."""
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
    """Return whether clocks of this zone never change, as in UTC."""
    return zone.utcoffset(None) is not None


def is_repeated(local: datetime) -> bool:
    """Return whether the wall clock of this zone shows this time twice (PEP 495)."""
    first, second = local.replace(fold=0).utcoffset(), local.replace(fold=1).utcoffset()
    return first is not None and second is not None and first > second


def moment(minute: str) -> datetime:
    """Return the moment of a minute."""
    return datetime.fromisoformat(minute + "+00:00")


def text(moment: datetime) -> str:
    """Return the minute of a moment in UTC."""
    return moment.isoformat(" ")[:MINUTE]
