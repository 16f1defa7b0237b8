"""Statistics: the result of a run as one row of JSON lines or CSV."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shlex
import stat
import sys
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from xraylog import safe_open
from xraylog.load_result import LoadResult

Row: TypeAlias = dict[str, "str | int | float"]

FIELDS = (
    "run_started_at",
    "mode",
    "duration_seconds",
    "processed",
    "failed",
    "rate_lines_per_second",
    "new_users",
    "new_endpoints",
    "new_protocols",
    "new_tags",
)
FLAGS = os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK  # to wait for nobody, and to overwrite nothing
CLOSED = "it is closed"
FOUND = {  # what an error means where rows are written
    errno.EPIPE: "a pipe that nobody reads any more",
    errno.ENXIO: "a pipe that nobody reads",
    errno.EAGAIN: "a pipe that is full, because nobody reads on",
    errno.EBADF: CLOSED,
}


class NotWritten(Exception):
    """The statistics row could not be written; the lines themselves are safe. Its text holds the row."""


class ReaderLeft(NotWritten):
    """Nobody reads the pipe any more, or yet: that is the reader's affair, and no trouble of a run."""


def row(started: datetime, mode: str, seconds: float, total: LoadResult) -> Row:
    """Return the fields in their order; `started` is local time, seconds and rate have two decimals."""
    duration = round(seconds, 2)
    values: tuple[str | int | float, ...] = (
        started.isoformat(timespec="microseconds"),
        mode,
        duration,
        total.rows,
        total.rejected,
        round(total.rows / (duration or seconds), 2) if total.rows else 0.0,
        total.new_names.get("users", 0),
        total.new_names.get("endpoints", 0),
        total.new_names.get("protocols", 0),
        total.new_names.get("tags", 0),
    )
    return dict(zip(FIELDS, values, strict=True))


def write(values: Row, form: str, path: Path | None) -> None:
    """Append a row to `path` in `form`, json or csv; without a path, print it. Raises NotWritten."""
    line = _line(values, form)
    try:
        if path is None:  # asked for: a format without an output
            _print(line)
        elif _is_stream(path):
            _send(path, line)
        else:
            _append(path, line, header=_csv_line(FIELDS) if form == "csv" else "")
    except OSError as error:
        where, found = path or "standard output", FOUND.get(error.errno or 0, error.strerror)
        has_left = error.errno == errno.EPIPE or (error.errno == errno.ENXIO and path is not None and path.is_fifo())
        kind = ReaderLeft if has_left else NotWritten
        if error.errno == errno.ENXIO and not has_left:  # a terminal that is none
            found = error.strerror
        raise kind(f"{where}: expected to append a row, found: {found}; the row: {json.dumps(values)}") from error


def _line(values: Row, form: str) -> str:
    if form == "json":
        return json.dumps(values) + "\n"
    return _csv_line(tuple(f"{value:.2f}" if isinstance(value, float) else value for value in values.values()))


def _csv_line(cells: tuple[object, ...]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _print(line: str) -> None:
    if sys.stdout is None:
        raise OSError(errno.EBADF, CLOSED)
    print(line, end="", flush=True)


def _is_stream(path: Path) -> bool:
    """Return whether it can only be written to: a pipe, a socket, a terminal, another device."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False  # to be made, or to be refused when it is opened
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _send(path: Path, line: str) -> None:
    """Write a row into a stream. It is shorter than PIPE_BUF: a pipe takes it whole, or at once none of it."""
    descriptor = safe_open.open_file(path, FLAGS | os.O_WRONLY)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _append(path: Path, line: str, header: str) -> None:
    """Append in one write, so that rows of other runs stay whole; on a line of its own, even after a torn one."""
    with os.fdopen(safe_open.open_file(path, FLAGS | os.O_RDWR | os.O_CREAT), "ab+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        first = file.readline(len(header) + 2).decode(errors="replace").rstrip("\r\n")
        if size == 0:
            line = header + line
        elif header and first != header.rstrip("\n"):
            away = shlex.join(["mv", "-T", str(path), f"{path}.old"])
            raise NotWritten(f"{path}: expected the header {header.rstrip()!r}, found {first!r}; move it away: {away}")
        else:
            file.seek(size - 1)
            line = line if file.read(1) == b"\n" else "\n" + line
        file.write(line.encode())
        file.flush()
