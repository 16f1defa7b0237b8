"""The time that a page shows, and its division into days, hours and the periods of charts. No database or clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

SLOT = timedelta(minutes=15)  # in every time zone, hours begin with a new slot
ONE_DAY, A_WEEK = timedelta(days=1), timedelta(days=7)
LONGEST_DAY = timedelta(hours=30)  # longer than any day, even if clocks are set back
# The periods of charts, the shortest first, each with the largest number of days for which it is at least 4 of a
# chart's 960 pixels wide. The last one has no limit. For windows of up to six hours, see QUARTER.
WEEK = "week"
UNITS = {"hour": 10, "six hours": 60, "day": 240, WEEK: None}
QUARTER = "quarter of an hour"
FEW_HOURS = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Window:
    """The time that a page shows, divided into days of one time zone."""

    zone: ZoneInfo
    since: datetime
    until: datetime  # exclusive

    @classmethod
    def of(cls, zone: ZoneInfo, days: int, last: date | None, now: datetime) -> Window:
        """Return the window of `days` days up to the end of `last`, or until `now` if that is today or None."""
        today = now.astimezone(zone).date()
        end = _midnight((last or today) + ONE_DAY, zone)
        return cls.ending(zone, min(end, now) if last in (None, today) else end, days)

    @classmethod
    def ending(cls, zone: ZoneInfo, until: datetime, days: int) -> Window:
        """Return the window of `days` days that ends at `until`, and begins at a midnight."""
        last = cls(zone, until, until).last
        return cls(zone, _midnight(last - (days - 1) * ONE_DAY, zone), until)

    @property
    def first(self) -> date:
        """Return the first day."""
        return self.since.astimezone(self.zone).date()

    @property
    def last(self) -> date:
        """Return the last day, inclusive."""
        return (self.until - timedelta(microseconds=1)).astimezone(self.zone).date()

    @property
    def before(self) -> datetime:
        """Return the start of the period before, which is as long as the window."""
        return self.since - (self.until - self.since)

    @property
    def days(self) -> list[date]:
        """Return each day."""
        return [self.first + timedelta(days=number) for number in range((self.last - self.first).days + 1)]

    @property
    def has_partial_day(self) -> bool:
        """Return whether the last day was not over when the window ends."""
        return self.until < _midnight(self.last + ONE_DAY, self.zone)

    @property
    def has_partial_first_day(self) -> bool:
        """Return whether the window begins after the first day does."""
        return self.since > _midnight(self.first, self.zone)

    @property
    def unit(self) -> str:
        """Return the period by which the charts count rows: QUARTER, or a key of UNITS."""
        if self.until - self.since <= FEW_HOURS:
            return QUARTER
        return next(unit for unit, most in UNITS.items() if most is None or len(self.days) <= most)

    @property
    def midnights(self) -> list[datetime]:
        """Return the start of each day; of the first day, the start of the window."""
        return [self.since, *(_midnight(day, self.zone) for day in self.days[1:])]

    def hours(self, number: int) -> list[datetime]:
        """Return the start of each hour of a day, given by its number; of the first day, from the window's start on.

        If the charts count by quarters of an hour, so does this; there are at most thirty in either case.
        """
        begin, end = [*self.midnights, self.until][number : number + 2]
        midnight = _midnight(self.days[number], self.zone)
        length = SLOT if self.unit == QUARTER else timedelta(hours=1)
        starts = (midnight + count * length for count in range(1, LONGEST_DAY // length))
        return [begin, *(start for start in starts if begin < start < end)]

    def hours_of_days(self, first: int, end: int) -> list[datetime]:
        """Return the hours of days, given by number; shorter days are filled up with empty hours to the same length."""
        of_days = [self.hours(number) for number in range(first, end)]
        length = max(map(len, of_days))
        ends = [*self.midnights[1:], self.until][first:end]
        return [
            hour
            for hours, end_of_day in zip(of_days, ends, strict=True)
            for hour in hours + [end_of_day] * (length - len(hours))
        ]


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return when a day begins, in UTC, because differences of local times are wrong across a change of clocks."""
    return datetime.combine(day, time(), zone).astimezone(timezone.utc)
