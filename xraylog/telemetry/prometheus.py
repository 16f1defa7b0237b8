"""Metrics for Prometheus, in a file for node_exporter's textfile collector.

The file is also where the counters and the time of the last success are kept from one run to the next.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from xraylog import atomic_file, safe_open
from xraylog.load_result import LoadResult

Series: TypeAlias = tuple[str, str]  # name of the metric, and value of its label ("" if it has none)

# Base units, and _total for counters, as promtool requires.
LAST_SUCCESS = "xraylog_last_success_timestamp_seconds"
LAST_RUN = "xraylog_last_run_timestamp_seconds"
EXIT_STATUS = "xraylog_last_run_exit_status"
DURATION = "xraylog_run_duration_seconds"
LINES = "xraylog_lines_total"
REJECTED = "xraylog_rejected_lines_total"
BUFFER = "xraylog_buffer_bytes"
LOG = "xraylog_log_bytes"
OLDER = "xraylog_database_older_timestamp_seconds"
LAST_ROW = "xraylog_last_row_timestamp_seconds"
USERS = "xraylog_last_run_users"
ADDRESSES = "xraylog_last_run_addresses"
ROWS = "xraylog_last_run_rows"
OUTBOUND_ROWS = "xraylog_last_run_outbound_rows"
FAMILIES = {  # TYPE and HELP of each metric, in the order in which they are written
    LAST_SUCCESS: ("gauge", "When the database last had every line, 0 for never."),
    LAST_RUN: ("gauge", "When the last run began, whatever became of it."),
    EXIT_STATUS: ("gauge", "Exit status of the last run that came to its end."),
    DURATION: ("gauge", "How long that run took."),
    LINES: ("counter", "Lines by outcome; rejected: unparsed. Buffered ones count again when imported."),
    REJECTED: ("counter", "Unparsed lines, which are no rows and went to rejected_lines."),
    BUFFER: ("gauge", "Size of the offline buffer after the last run."),
    LOG: ("gauge", "Size of the access log after the last run."),
    OLDER: ("gauge", "When the database last lacked lines that it had confirmed, 0 for never."),
    LAST_ROW: ("gauge", "Minute of the newest row that a run stored, 0 for none."),
    USERS: ("gauge", "Distinct users let in, in the lines that the last run read."),
    ADDRESSES: ("gauge", "Distinct addresses of clients let in, in these lines."),
    ROWS: (
        "gauge",
        "Rows of these lines by action: accepted, rejected (connections that xray refused), or xray's own API.",
    ),
    OUTBOUND_ROWS: ("gauge", "Rows of these lines by outbound tag; the less frequent as other."),
}
OUTCOMES = ("rows", "rejected", "ignored", "buffered")
ACTIONS = ("accepted", "rejected", "api")
LABELS = {LINES: "outcome", ROWS: "action", OUTBOUND_ROWS: "outbound"}
MAX_TAGS = 20  # each becomes a series that Prometheus stores
VALUES = {LINES: OUTCOMES, ROWS: ACTIONS, OUTBOUND_ROWS: ()}  # values of the labels; tags depend on the last run
SERIES = tuple((name, value) for name in FAMILIES for value in VALUES.get(name, ("",)))
ZERO_AT_FIRST = tuple(
    (name, outcome) for name, outcome in SERIES if name in (LAST_SUCCESS, LINES, REJECTED, OLDER, LAST_ROW)
)
ESCAPE, UNESCAPED = re.compile(r"\\(.)"), {"\\": "\\", '"': '"', "n": "\n"}  # in the value of a label
MAX_BYTES = 1 << 16  # to read: our own file has about 4 KiB, so a larger one is another program's


class NotWritten(Exception):
    """The metrics could not be written; the rows of the log are safe."""


@dataclass(frozen=True, slots=True)
class EndedRun:
    """The results of a run that came to its end, for its metrics."""

    began: float  # seconds since 1970
    seconds: float
    status: int
    caught_up: bool  # the database has every line
    lines: Mapping[str, int]  # by outcome
    is_older: bool = False  # the database lacked lines that it had confirmed
    newest: str = ""  # minute of the newest row that it stored, UTC, "2025-11-17 10:15"
    # USERS, ADDRESSES, ROWS and OUTBOUND_ROWS of the lines that it read
    line_metrics: Mapping[Series, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of one log on one node, in the file at `path`; without a path nothing is written.

    `of_log` is False for a run that reads other logs, from the command line: it adds to the counters, but does not
    count as the last run.
    """

    path: Path | None
    node: str
    log: Path
    of_log: bool = True

    def begin(self, now: float) -> None:
        """Record that a run begins at `now` (seconds since 1970), so that a run which is killed leaves a trace.

        Errors are ignored: a file that cannot be written is reported when the run ends.
        """
        if self.path and self.of_log:
            with contextlib.suppress(NotWritten):
                _replace(self.path, self._render({**self._read(self.path), (LAST_RUN, ""): now}))

    def end(self, run: EndedRun, buffer: Path) -> None:
        """Record how a run ended. A failed run does not change the time of the last success. Raises NotWritten."""
        if self.path is None:
            return
        values = self._read(self.path)
        for outcome, count in run.lines.items():
            values[LINES, outcome] += count
        values[REJECTED, ""] += run.lines["rejected"]
        if run.is_older:
            values[OLDER, ""] = run.began
        if run.newest:
            newest = datetime.fromisoformat(f"{run.newest}+00:00").timestamp()
            values[LAST_ROW, ""] = max(values[LAST_ROW, ""], newest)
        values |= {(BUFFER, ""): _size(buffer), (LOG, ""): _size(self.log)}
        if self.of_log:
            values |= {(LAST_RUN, ""): run.began, (DURATION, ""): run.seconds, (EXIT_STATUS, ""): run.status}
            if run.line_metrics:
                values = {series: value for series, value in values.items() if series[0] != OUTBOUND_ROWS}
                values.update(run.line_metrics)
            if run.caught_up:
                values[LAST_SUCCESS, ""] = time.time()
        _replace(self.path, self._render(values))

    def last_success(self) -> float:
        """Return when the database last had every line, in seconds since 1970; 0 for never or unknown."""
        return self._read(self.path)[LAST_SUCCESS, ""] if self.path else 0.0

    def _read(self, path: Path) -> dict[Series, float]:
        """Return the values that the previous run left. Damaged or missing values are 0, or left out (most gauges)."""
        text = ""
        if os.path.isfile(path):  # reading a pipe could block
            with (
                contextlib.suppress(OSError),
                os.fdopen(safe_open.open_file(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file,
            ):
                text = file.read(MAX_BYTES).decode(errors="replace")
        # Ignore a last line without its newline: its number may be cut off, too.
        found = dict(line.rpartition(" ")[::2] for line in text.split("\n")[:-1])
        series = [*SERIES, *((OUTBOUND_ROWS, tag) for tag in self._tags(found))]
        values = {each: _number(found.get(self._series_name(*each), "")) for each in series}
        kept = dict.fromkeys(ZERO_AT_FIRST, 0.0)
        return {**kept, **{series: value for series, value in values.items() if value is not None}}

    def _tags(self, found: Iterable[str]) -> Iterator[str]:
        """Yield the outbound tags of these series, given as names with their labels."""
        begin = self._series_name(OUTBOUND_ROWS, "x").removesuffix('x"}')
        for name in found:
            if name.startswith(begin) and name.endswith('"}'):
                yield ESCAPE.sub(lambda escape: UNESCAPED[escape[1]], name[len(begin) : -2])

    def _render(self, values: Mapping[Series, float]) -> str:
        return "".join(
            f"# HELP {name} {words}\n# TYPE {name} {kind}\n{samples}"
            for name, (kind, words) in FAMILIES.items()
            if (samples := self._samples(name, values))
        )

    def _samples(self, name: str, values: Mapping[Series, float]) -> str:
        """Return the lines of one metric, with three decimals: times are exact to a millisecond."""
        known = dict.fromkeys((*SERIES, *values))
        lines = (
            f"{self._series_name(*series)} {round(values[series], 3):.15g}\n"
            for series in known
            if series[0] == name and series in values
        )
        return "".join(lines)

    def _series_name(self, name: str, value: str) -> str:
        log = os.fsencode(self.log).decode(errors="backslashreplace")
        labels = {"node": self.node, "log": log, **({LABELS[name]: value} if value else {})}
        return f"{name}{{" + ",".join(f'{label}="{_escaped(value)}"' for label, value in labels.items()) + "}"


def outcomes(stored: LoadResult, buffered: LoadResult) -> dict[str, int]:
    """Count lines by outcome. Those in `rows` and `rejected` are in the database, including imports from the buffer."""
    return {  # the keys are OUTCOMES
        "rows": stored.rows + stored.imported,
        "rejected": stored.rejected + stored.imported_rejected,
        "ignored": sum(stored.ignored.values()) + sum(buffered.ignored.values()),
        "buffered": buffered.rows + buffered.rejected,
    }


def _replace(path: Path, text: str) -> None:
    """Replace the file of metrics. Others may read it: node_exporter runs as another user. Raises NotWritten."""
    try:
        atomic_file.replace(path, text.encode(), mode=0o644)
    except OSError as error:
        raise NotWritten(f"{path}: expected to replace the metrics, found: {error.strerror}") from error


def _size(path: Path) -> int:
    """Return the size of a file in bytes; 0 if it is missing."""
    try:
        return safe_open.size(path)
    except OSError:
        return 0


def _escaped(text: str) -> str:
    """Return a label's value in Prometheus' text format. The format is UTF-8, so other bytes are written as escapes."""
    text = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(text: str) -> float | None:
    """Return the value if we can have written it: a finite number of at least 0. Otherwise return None."""
    with contextlib.suppress(ValueError):
        if math.isfinite(value := float(text)) and value >= 0:
            return value
    return None
