"""Find lines dated far from the lines around them: a client can forge whole lines, and each new day is a partition.

A line is compared with the nearest trusted lines before and after it. Trusted are lines of a day that has more than a
few lines in the batch, and lines dated about now. A line is a stray if its own day has only a few lines, and is far
from the time between these two. Lines after a pause of any length are later than what was before, and are no strays:
only a date that goes back, or ahead of what follows, can be one. If no line can be trusted, all are accepted, as in the
archive of a log with a line a day.

The verdict is reached once, when a line is read, and is committed or buffered with the line. Pure: no files, no
database, no clock, no logging.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import date

from xraylog.records import DAY, Batch

RARE_LINES = 10  # a day with fewer lines in a batch is rare
RARE_SHARE = 1_000  # and so is one with less than a thousandth of the batch
STRAY = "expected a date near those of the lines around it, found "
DISTANCE = re.compile(re.escape(STRAY) + r"[-0-9]{10}, ([0-9]+) days away")


class StrayDays:
    """Finds the strays of one log, batch by batch. A batch is also compared with those before it."""

    def __init__(self, far: int, today: date) -> None:
        """`far`: a line that is no more than this many days from the lines around it is not a stray."""
        self._far = far
        self._recent = today.toordinal() - far  # lines from this day on are dated about now
        self._before: int | None = None  # day of the last trusted line, as an ordinal

    def learn(self, day: date) -> None:
        """Take it that a trusted line of this day came before the next batch."""
        self._before = day.toordinal()

    def reject(self, batch: Batch) -> Batch:
        """Return the batch with its strays as bad lines."""
        counts = batch.days()
        if not counts:
            return batch
        days = {day: date.fromisoformat(day).toordinal() for day in counts}
        few = max(RARE_LINES, len(batch.records) // RARE_SHARE)
        trusted = {day for day, count in counts.items() if count >= few or days[day] >= self._recent}
        first, last, before = min(days.values()), max(days.values()), self._before
        self._before = max((days[day] for day in trusted), default=before)
        if last - first <= self._far and (before is None or first >= before - self._far):  # as a rule
            return batch
        runs = [(day, len(list(lines))) for day, lines in itertools.groupby(batch.records.minutes, _day)]
        neighbours = [days[day] for day, _ in runs if day in trusted]
        self._before = neighbours[-1] if neighbours else before
        strays = dict(self._strays(runs, days, trusted, before))
        return batch.reject(strays) if strays else batch

    def _strays(
        self, runs: Sequence[tuple[str, int]], days: Mapping[str, int], trusted: Set[str], before: int | None
    ) -> Iterator[tuple[int, str]]:
        """Yield index and reason of each stray record. `runs`: consecutive lines of one day, as day and count."""
        following = _following([days[day] if day in trusted else None for day, _ in runs])
        index = 0
        for (day, count), after in zip(runs, following, strict=True):
            if day in trusted:
                before = days[day]
            elif (distance := _distance(days[day], before, after)) > self._far:
                for number in range(index, index + count):
                    yield number, f"{STRAY}{day}, {distance} days away"
            index += count


def distance_in(reason: str) -> int:
    """Return how many days away a line was, by the reason why it was rejected; 0 for another reason."""
    found = DISTANCE.fullmatch(reason)
    return int(found[1]) if found else 0


def _day(minute: str) -> str:
    return minute[:DAY]


def _following(days: Sequence[int | None]) -> list[int | None]:
    """Return, for each item, the next day after it that is not None."""
    following: list[int | None] = []
    after = None
    for day in reversed(days):
        following.append(after)
        after = after if day is None else day
    return following[::-1]


def _distance(day: int, before: int | None, after: int | None) -> int:
    """Return how many days this day is outside the time between the trusted days before and after it.

    Without a trusted day after it, it may be any later day; without one before it, any earlier day.
    """
    around = [known for known in (before, after) if known is not None]
    back = min(around) - day if before is not None else 0
    ahead = day - max(around) if after is not None else 0
    return max(back, ahead)
