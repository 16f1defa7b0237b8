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

FLAGS = os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK  # never wait for a reader, and never overwrite anything
CLOSED = "it is closed"
FOUND = {  # what an error of writing a row means
    errno.EPIPE: "a pipe that nobody reads any more",
    errno.ENXIO: "a pipe that nobody reads",
    errno.EAGAIN: "a pipe that is full, because nobody reads on",
    errno.EBADF: CLOSED,
}


class NotWritten(Exception):
    """The statistics row could not be written; the rows of the log are safe. The text contains the statistics row."""


class ReaderLeft(NotWritten):
    """The pipe has no reader, not yet or no longer. That is not a failure of the run."""


def row(started: datetime, mode: str, seconds: float, total: LoadResult) -> Row:
    """Return the statistics of a run, by field. `started` is local time; seconds and rate get two decimals."""
    duration = round(seconds, 2)
    return {  # the order is that of the columns of a CSV file, to which older rows belong
        "run_started_at": started.isoformat(timespec="microseconds"),
        "mode": mode,
        "duration_seconds": duration,
        "processed": total.rows,
        "failed": total.rejected,
        "rate_lines_per_second": round(total.rows / (duration or seconds), 2) if total.rows else 0.0,
        "new_users": total.new_names.get("users", 0),
        "new_endpoints": total.new_names.get("endpoints", 0),
        "new_protocols": total.new_names.get("protocols", 0),
        "new_tags": total.new_names.get("tags", 0),
    }


def write(values: Row, stats_format: str, path: Path | None) -> None:
    """Append a row to `path` in `stats_format`, json or csv; without a path, print it. Raises NotWritten."""
    line = _line(values, stats_format)
    try:
        if path is None:  # the config has a format, but no output
            _print(line)
        elif _is_stream(path):
            _send(path, line)
        else:
            _append(path, line, header=_csv_line(tuple(values)) if stats_format == "csv" else "")
    except OSError as error:
        where, found = path or "standard output", FOUND.get(error.errno or 0, error.strerror)
        has_left = error.errno == errno.EPIPE or (error.errno == errno.ENXIO and path is not None and path.is_fifo())
        kind = ReaderLeft if has_left else NotWritten
        if error.errno == errno.ENXIO and not has_left:  # not a pipe: /dev/tty of a process without a terminal
            found = error.strerror
        raise kind(f"{where}: expected to append a row, found: {found}; the row: {json.dumps(values)}") from error


def _line(values: Row, stats_format: str) -> str:
    if stats_format == "json":
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
    """Return whether a path leads to what can only be written to: a pipe, a socket, a terminal or another device."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False  # it will be created, or refused when it is opened
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _send(path: Path, line: str) -> None:
    """Write a row into a stream. It is shorter than PIPE_BUF, so a pipe takes all of it, or fails at once."""
    descriptor = safe_open.open_file(path, FLAGS | os.O_WRONLY)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _append(path: Path, line: str, header: str) -> None:
    """Append a line in one write, so that other runs can append, too; start a new line if the last row is torn.

    Raises NotWritten if the file begins with another header.
    """
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
