"""Report how far a migration is while it runs, and print that."""

from __future__ import annotations

import time
from dataclasses import astuple, dataclass
from datetime import date
from typing import Protocol

from xraylog.migration.day_counts import DayCounts
from xraylog.printed import say

INTERVAL_S = 1.0  # at least, between two lines about copied days


@dataclass(frozen=True, slots=True)
class CopyResult:
    """The rows of one or more copied days, and how long each part of the copy took."""

    rows: int = 0
    copy_s: float = 0.0
    index_s: float = 0.0
    keys_s: float = 0.0  # ATTACH, in which the server checks the foreign keys and the bounds

    def __add__(self, other: CopyResult) -> CopyResult:
        return CopyResult(*(one + two for one, two in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class DayChecksums:
    """The rows and the checksum of one day, in the old table and in the new one."""

    day: date
    old_rows: int
    new_rows: int
    old_sum: int
    new_sum: int

    @property
    def equal(self) -> bool:
        """Whether the day is the same in both tables: no row is lost, doubled or changed."""
        return (self.old_rows, self.old_sum) == (self.new_rows, self.new_sum)


class Progress(Protocol):
    """What the steps of a migration report to."""

    def waiting(self, reason: str) -> None:
        """Report that another session holds a lock that the step needs."""

    def verified(self, day: DayChecksums) -> None:
        """Report that a day has been compared, and the result."""


class PrintedProgress:
    """Prints the progress. Call `copying`, then `copied` for each day; `verifying`, then `verified` for each day."""

    def __init__(self) -> None:
        self._days = self._days_done = self._rows = self._rows_done = 0
        self._times = CopyResult()
        self._started_s = self._printed_s = 0.0

    def waiting(self, reason: str) -> None:
        """Print why the step waits."""
        say(f"waiting: {reason}")

    def copying(self, counts: DayCounts, pending: list[date]) -> None:
        """Print how many days need no copy; start measuring the time."""
        if done := len(counts.dates) - len(pending):
            say(f"{done} of {len(counts.dates)} days are skipped: they were copied already, or dropped since")
        self._days, self._days_done = len(pending), 0
        self._rows, self._rows_done = counts.rows_of(pending), 0
        self._started_s, self._printed_s = time.monotonic(), 0.0

    def copied(self, day: date, copied: CopyResult) -> None:
        """Count a copied day. Print the progress about once a second, and after the last day."""
        self._days_done += 1
        self._rows_done += copied.rows
        self._times += copied
        now_s = time.monotonic()
        if self._days_done < self._days and now_s - self._printed_s <= INTERVAL_S:
            return
        self._printed_s = now_s
        rate = self._rows_done / max(now_s - self._started_s, 0.001)
        left_s = (self._rows - self._rows_done) / rate if rate else 0.0
        say(
            f"{day}: {self._days_done} of {self._days} days, {self._rows_done:,} of {self._rows:,} rows, "
            f"{rate:,.0f} rows/s, {left_s:,.0f} s left"
        )

    def verifying(self) -> None:
        """Print how long the copies took, and the heading of the table of verified days; start measuring the time."""
        say(f"rows {self._times.copy_s:.1f} s, indexes {self._times.index_s:.1f} s, keys {self._times.keys_s:.1f} s")
        say(f"{'day':10} {'rows':>11} {'in logs':>11} {'checksum':>22} {'in logs':>22}")
        self._started_s = time.monotonic()

    def verified(self, day: DayChecksums) -> None:
        """Print the line of a verified day."""
        say(
            f"{day.day} {day.old_rows:>11} {day.new_rows:>11} {day.old_sum:>22} {day.new_sum:>22}"
            + ("" if day.equal else "  DIFFERENT")
        )

    def finished(self, counts: DayCounts, drop: bool) -> None:
        """Print that every day is the same, and whether the old table was dropped."""
        say(f"verification {time.monotonic() - self._started_s:.1f} s")
        say(f"{counts.rows:,} rows of {len(counts.dates)} days: every day is the same in logs and in logs_old")
        say("logs_old is dropped" if drop else "logs_old is kept: --drop-old drops it, --undo goes back")
