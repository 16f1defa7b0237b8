"""The history of this machine's runs, from their statistics, metrics and offline buffer. Only reads files."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from xraylog import safe_open
from xraylog.accesslog import installation
from xraylog.report.model import Window
from xraylog.telemetry.prometheus import Metrics

UNUSABLE = (ValueError, KeyError, TypeError, OverflowError, StopIteration, RecursionError, OSError, csv.Error)
MAX_BYTES = 1 << 24  # read from the end of the statistics: more than a month of runs, one a minute
BUFFER, STATISTICS = "the buffer", "the statistics"
YEARS = range(1970, 9999)  # of moments that every zone can show
LINES = range(1 << 63)  # how many a run can have read


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs that the statistics file has. The counts are those of the window."""

    known: bool = False  # there are statistics
    last_good: datetime | None = None  # when the database last had every line, according to the metrics
    last_stored: datetime | None = None  # the last run of all that stored lines
    count: int = 0
    offline: int = 0
    spooled: int = 0  # lines
    buffer_bytes: int | None = 0  # now; None: unknown
    older_from: datetime | None = None  # the database lacks lines that it had stored from then on; None: it lacks none
    older_to: datetime | None = None
    unseen: tuple[str, ...] = ()  # what exists but cannot be read


def read(stats_path: Path | None, form: str | None, buffer_path: Path, window: Window, metrics: Metrics) -> Runs:
    """Return what the runs did. Raises nothing: what cannot be read is reported as unknown."""
    sizes = {BUFFER: _size(buffer_path), STATISTICS: _size(stats_path) if stats_path and form else 0}
    unseen = tuple(name for name, size in sizes.items() if size is None)
    now = _with_older(
        Runs(last_good=_moment(metrics.last_success()), buffer_bytes=sizes[BUFFER], unseen=unseen), buffer_path
    )
    if stats_path is None or form is None or not sizes[STATISTICS]:
        return now
    try:
        rows = list(_rows(stats_path, form))
    except OSError:
        return replace(now, unseen=(*unseen, STATISTICS))
    here = [row for row in rows if window.since <= row[0] < window.until]
    return replace(
        now,
        known=True,
        # A row does not show whether its run failed; one with lines has stored them.
        last_stored=max((row[0] for row in rows if row[1] == "online" and row[2] + row[3]), default=None),
        count=len(here),
        offline=sum(mode != "online" for _, mode, *_ in here),
        spooled=sum(processed for _, mode, processed, _ in here if mode != "online"),
    )


def _with_older(runs: Runs, buffer_path: Path) -> Runs:
    """Return the runs, with what the state file says about a database that was older than its log."""
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


def _rows(path: Path, form: str) -> Iterator[tuple[datetime, str, int, int]]:
    """Yield start, mode and lines of each run; skip rows that are torn or not ours."""
    for line in _last_lines(path):
        with contextlib.suppress(*UNUSABLE):
            if form == "json":
                row = json.loads(line)
                started, mode, *counts = (row[key] for key in ("run_started_at", "mode", "processed", "failed"))
            else:
                started, mode, _, *counts = next(csv.reader([line]))
            moment, (processed, failed) = datetime.fromisoformat(started).astimezone(timezone.utc), map(int, counts[:2])
            if moment.year in YEARS and processed in LINES and failed in LINES:
                yield moment, str(mode), processed, failed


def _last_lines(path: Path) -> list[str]:
    with os.fdopen(safe_open.open_file(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - MAX_BYTES))
        lines = file.read(MAX_BYTES).decode(errors="replace").splitlines()
    return lines if size <= MAX_BYTES else lines[1:]


def _size(path: Path) -> int | None:
    """Return the bytes of a file; 0 if it does not exist, or is /dev/null; None for a pipe, or if unknown."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0
    except OSError:
        return None
    if stat.S_ISCHR(found.st_mode):  # /dev/null
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else None
