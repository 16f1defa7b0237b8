"""Summarise the runs of this machine from their statistics, metrics and offline buffer. Only reads files."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import stat
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from xraylog import safe_open
from xraylog.accesslog import installation
from xraylog.report.window import Window
from xraylog.telemetry.prometheus import Metrics

UNUSABLE = (ValueError, KeyError, TypeError, OverflowError, StopIteration, RecursionError, OSError, csv.Error)
MAX_BYTES = 1 << 24  # read from the end of the statistics: more than a month with a run every minute
BUFFER, STATISTICS = "the buffer", "the statistics"
YEARS = range(1970, 9999)  # of times that can be converted to any time zone
DAYS = 7  # with runs, of which the pauses are compared
LINES = range(1 << 63)  # plausible numbers of lines


@dataclass(frozen=True, slots=True)
class Runs:
    """A summary of this machine's runs. The counts are of the window."""

    known: bool = False  # whether there are statistics
    last_good: datetime | None = None  # when the database last had every line, according to the metrics
    last: datetime | None = None  # when the last run began, in the window or not
    last_stored: datetime | None = None  # the same of the last run that stored lines
    pause: timedelta = timedelta()  # the longest between two runs on a usual day
    count: int = 0
    offline: int = 0
    spooled: int = 0  # lines
    buffer_bytes: int | None = 0  # now; None: unknown
    older_from: datetime | None = None  # the database lost rows that were stored between these times; None: it did not
    older_to: datetime | None = None
    unreadable: tuple[str, ...] = ()  # what exists but cannot be read


class Run(NamedTuple):
    """One run, as its row of the statistics records it."""

    began: datetime
    mode: str
    processed: int  # lines that were stored or spooled
    failed: int  # unparsed lines

    @property
    def is_online(self) -> bool:
        """Return whether it stored lines in the database, and did not spool them to the buffer."""
        return self.mode == "online"


def read(
    stats_path: Path | None, stats_format: str | None, buffer_path: Path, window: Window, metrics: Metrics
) -> Runs:
    """Summarise the runs. Never raises: what cannot be read is listed in `unreadable`."""
    sizes = {BUFFER: _size(buffer_path), STATISTICS: _size(stats_path) if stats_path and stats_format else 0}
    unreadable = tuple(name for name, size in sizes.items() if size is None)
    now = _with_older(
        Runs(last_good=_moment(metrics.last_success()), buffer_bytes=sizes[BUFFER], unreadable=unreadable), buffer_path
    )
    if stats_path is None or stats_format is None or not sizes[STATISTICS]:
        return now
    try:
        runs = list(_runs(stats_path, stats_format))
    except OSError:
        return replace(now, unreadable=(*unreadable, STATISTICS))
    in_window = [run for run in runs if window.since <= run.began < window.until]
    return replace(
        now,
        known=True,
        last=max((run.began for run in runs), default=None),
        # A row does not show whether its run failed; one with lines has stored them.
        last_stored=max((run.began for run in runs if run.is_online and run.processed + run.failed), default=None),
        pause=_usual_pause(run.began for run in runs),
        count=len(in_window),
        offline=sum(not run.is_online for run in in_window),
        spooled=sum(run.processed for run in in_window if not run.is_online),
    )


def _usual_pause(starts: Iterable[datetime]) -> timedelta:
    """Return the longest pause between runs on a usual day: cron may start none at night, and once none for days."""
    longest: dict[date, timedelta] = {}  # by the day on which it ended
    for before, start in pairwise(sorted(starts)):
        longest[start.date()] = max(longest.get(start.date(), timedelta()), start - before)
    return statistics.median_low([longest[day] for day in sorted(longest)[-DAYS:]] or [timedelta()])


def _with_older(runs: Runs, buffer_path: Path) -> Runs:
    """Return the summary with the times from the state file, which records if the database lost stored rows."""
    with contextlib.suppress(OSError):
        known = installation.read(buffer_path)
        if known.older_at:
            return replace(
                runs,
                older_from=_moment(known.older_from) or datetime.fromtimestamp(0, timezone.utc),
                older_to=_moment(known.older_to),
            )
    return runs


def _moment(seconds: float) -> datetime | None:
    with contextlib.suppress(*UNUSABLE):
        moment = datetime.fromtimestamp(seconds, timezone.utc)
        return moment if seconds and moment.year in YEARS else None
    return None


def _runs(path: Path, stats_format: str) -> Iterator[Run]:
    """Yield the runs in the statistics; skip rows that are torn or not ours."""
    for line in _last_lines(path):
        with contextlib.suppress(*UNUSABLE):
            if stats_format == "json":
                row = json.loads(line)
                started, mode, *counts = (row[key] for key in ("run_started_at", "mode", "processed", "failed"))
            else:
                started, mode, _, *counts = next(csv.reader([line]))
            moment, (processed, failed) = datetime.fromisoformat(started).astimezone(timezone.utc), map(int, counts[:2])
            if moment.year in YEARS and processed in LINES and failed in LINES:
                yield Run(moment, str(mode), processed, failed)


def _last_lines(path: Path) -> list[str]:
    with os.fdopen(safe_open.open_file(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - MAX_BYTES))
        lines = file.read(MAX_BYTES).decode(errors="replace").splitlines()
    return lines if size <= MAX_BYTES else lines[1:]


def _size(path: Path) -> int | None:
    """Return the size of a file in bytes; 0 if it does not exist, or is a device; None for a pipe, or if unknown."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0
    except OSError:
        return None
    if stat.S_ISCHR(found.st_mode):  # /dev/null
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else None
