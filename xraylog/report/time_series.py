"""Count the rows of slots by period, and by weekday and hour, in a time zone, for charts and tables. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone
from functools import lru_cache
from zoneinfo import ZoneInfo

from xraylog.report.charts import SERIES
from xraylog.report.model import Findings, Slot
from xraylog.report.window import QUARTER, SLOT, WEEK, Window

OTHERS = "(others)"
MAX_LABELS = 10  # on a time axis
QUARTERS = 4  # of an hour
MIN_PERIODS = 2  # for dashed lines: a single period has no neighbour to be separated from
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True)
class Series:
    """Rows by period, split into series: the largest first, and the sum of the smallest as the last one."""

    names: Sequence[str]
    rows: Sequence[tuple[datetime, Sequence[int]]]

    @property
    def totals(self) -> list[int]:
        """Return the rows of each series."""
        return [sum(column) for column in zip(*(counts for _, counts in self.rows), strict=True)]


def over_time(found: Findings, zone: ZoneInfo, slots: Iterable[Slot], name: Callable[[Slot], str]) -> Series:
    """Return rows by the window's unit, including empty periods; `name` says which series a slot belongs to."""
    begin = START_OF[found.window.unit]
    rows: dict[datetime, Counter[str]] = defaultdict(Counter)
    for slot in slots:
        rows[begin(slot.start, zone)][name(slot)] += slot.rows
    totals = sum(rows.values(), Counter[str]())
    largest = [name for name, _ in sorted(totals.items(), key=lambda item: (-item[1], item[0]))]
    own = largest if len(largest) <= SERIES else largest[: SERIES - 1]
    others = largest[len(own) :]
    return Series(
        [*own, *([OTHERS] if others else [])],
        [(hour, _series_counts(rows[hour], own, others)) for hour in _starts(found.window, zone)],
    )


def _series_counts(counts: Mapping[str, int], own: Sequence[str], others: Sequence[str]) -> list[int]:
    sum_of_others = [sum(counts[name] for name in others)] if others else []
    return [counts[name] for name in own] + sum_of_others


@lru_cache(maxsize=2)  # every chart of a page needs them, in two zones
def _starts(window: Window, zone: ZoneInfo) -> Sequence[datetime]:
    """Return when each period of the window begins. If clocks are set back by half an hour, one hour has only half."""
    begin = START_OF[window.unit]
    # Including slots of which the window has only a part.
    slots = range((window.since - EPOCH) // SLOT, -((EPOCH - window.until) // SLOT))
    return tuple(dict.fromkeys(begin(EPOCH + number * SLOT, zone) for number in slots))


def _quarter(moment: datetime, _: ZoneInfo) -> datetime:
    """Return when the quarter of an hour began, in UTC; it is the same in every zone."""
    return moment - (moment - EPOCH) % SLOT


def _hour(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return when the zone's hour began, in UTC."""
    local = moment.astimezone(zone)
    past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    return moment.astimezone(timezone.utc) - past


def _six_hours(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return when the zone's quarter of the day began, in UTC; if clocks change, one has five or seven hours."""
    local = moment.astimezone(zone)
    return datetime.combine(local.date(), time(local.hour // 6 * 6), zone).astimezone(timezone.utc)


def _day(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return when the zone's day began, in UTC."""
    return datetime.combine(moment.astimezone(zone).date(), time(), zone).astimezone(timezone.utc)


def _week(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return when the zone's week began, on a Monday, in UTC."""
    day = moment.astimezone(zone).date()
    return datetime.combine(day - timedelta(days=day.weekday()), time(), zone).astimezone(timezone.utc)


START_OF: Mapping[str, Callable[[datetime, ZoneInfo], datetime]] = {
    QUARTER: _quarter,
    "hour": _hour,
    "six hours": _six_hours,
    "day": _day,
    WEEK: _week,
}
LENGTH_OF = {
    QUARTER: SLOT,
    "hour": timedelta(hours=1),
    "six hours": timedelta(hours=6),
    "day": timedelta(days=1),
    WEEK: timedelta(weeks=1),
}


def active(found: Findings, zone: ZoneInfo) -> Series:
    """Return how many users were let in, by the window's unit. Users are known by hours of the config's zone."""
    begin = START_OF[found.window.unit]
    users: dict[datetime, int] = defaultdict(int)
    for hour, bits in found.activity:
        users[begin(hour, zone)] |= bits
    return Series(["users"], [(start, [users[start].bit_count()]) for start in _starts(found.window, zone)])


def by_weekday(found: Findings, zone: ZoneInfo) -> list[list[float]]:
    """Return the average rows by weekday, Monday first, and hour of the day.

    An hour that the window contains only partly counts only if there is no whole one.
    """
    rows = Counter[datetime]()
    for slot in found.slots:
        rows[_hour_of_the_clock(slot.start, zone)] += slot.rows
    quarters = _whole_quarters(found, zone)
    hours: dict[tuple[int, int], list[datetime]] = defaultdict(list)
    for hour in {*rows, *quarters}:
        hours[hour.weekday(), hour.hour].append(hour)
    return [[_average(hours[day, hour], rows, quarters) for hour in range(24)] for day in range(7)]


def _average(hours: Sequence[datetime], rows: Mapping[datetime, int], quarters: Mapping[datetime, int]) -> float:
    whole = [hour for hour in hours if quarters[hour] >= QUARTERS] or hours
    return sum(rows[hour] for hour in whole) / max(1, len(whole))


def _whole_quarters(found: Findings, zone: ZoneInfo) -> Counter[datetime]:
    """Return how many quarters of each wall-clock hour are completely in the window."""
    since, until = found.window.since, found.window.until
    first = -((EPOCH - since) // SLOT)
    begins = (EPOCH + number * SLOT for number in range(first, (until - EPOCH) // SLOT))
    return Counter(_hour_of_the_clock(begin, zone) for begin in begins)


def _hour_of_the_clock(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return the wall-clock hour; when clocks are set back, two hours have the same one."""
    return moment.astimezone(zone).replace(minute=0, second=0, microsecond=0, tzinfo=None)


def cuts(found: Findings, zone: ZoneInfo) -> list[datetime]:
    """Return the end of the first period, and the start of the last, if the window contains only a part of them."""
    starts = _starts(found.window, zone)
    ends = [*starts[1:], starts[-1] + LENGTH_OF[found.window.unit]] if starts else []
    if len(starts) < MIN_PERIODS:
        return []
    first = [ends[0]] if found.window.since > starts[0] else []
    last = [starts[-1]] if found.window.until < ends[-1] else []
    return sorted({*first, *last})


def axis_labels(found: Findings, zone: ZoneInfo) -> dict[datetime, str]:
    """Return the labels of the time axis: midnights of the zone, or hours if there is only one day."""
    inside = [hour for hour in _starts(found.window, zone) if hour >= found.window.since]
    midnights = [hour for hour in inside if hour.astimezone(zone).time() == time()]
    named, time_format = (midnights, "%b %d") if len(midnights) > 1 else (inside, "%H:%M")
    step = max(1, -(-len(named) // MAX_LABELS))  # 1 if there are none: just after midnight in Kolkata, no hour began
    return {hour: hour.astimezone(zone).strftime(time_format) for hour in named[::step]}
