"""Our own log, `[logging] file`, as a sink for loguru. It only appends; examples/logrotate-xraylog rotates the file.

loguru's own file sink (0.7.3) is unsuitable. On a full disk it prints a traceback for each message. Processes that
rotate the same file lose messages: 58 of 4,000 with four processes. And its retention removes every file whose name
looks like a rotated one: for the log `access` also `access.log`, which may be xray's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from loguru import logger

from xraylog import cli, config, file_advice, safe_open, safe_path
from xraylog.cli import Options
from xraylog.config import Config
from xraylog.printed import complain, printable, write

if TYPE_CHECKING:
    from loguru import Record

WARNING = logger.level("WARNING").no
FORMAT = "{time:YYYY-MM-DD HH:mm:ss} {level: <7} {message}"


def start(cfg: Config, options: Options) -> None:
    """Log to stderr, and to a file if the config names one. Raises ConfigError.

    By default, a run under cron logs only warnings and errors, so that cron sends no mail after a good run.
    """
    default = cfg.log_level or ("INFO" if cli.on_a_terminal() else "WARNING")
    level = cli.log_level(options.verbose, options.quiet, default)
    to_stderr(level)
    if cfg.own_log_path and not (options.check or options.dry_run):
        try:
            to_file(cfg.own_log_path, level)
        except OSError as error:
            found = f"{cfg.path}: [logging] file: expected a file that can be written, found: {error.strerror}"
            raise config.ConfigError([found + _advice(cfg.own_log_path, error)]) from error
    for warning in cfg.warnings:
        logger.warning("{}", warning)


def _advice(path: Path, error: OSError) -> str:
    """Return how to fix the error, if its own text does not say so; the result begins with a semicolon."""
    if isinstance(error, safe_path.Unsafe):
        return ""
    if error.errno == errno.EBADF:
        return f"; it is closed: name a file in its place, {path}"
    if error.errno in (errno.ENXIO, errno.EAGAIN, errno.EPIPE):
        return f"; nobody reads it: begin to read before a run, or name a file: {path}"
    return f"; {file_advice.how_to_fix(path, error)}"


def to_stderr(level: str) -> None:
    """Write messages of this level and above to stderr from now on, and nowhere else."""
    logger.remove()
    logger.configure(patcher=_make_printable)
    if sys.stderr is not None:  # closed by the caller: 2>&-
        stream = sys.stderr
        _add(lambda message: _write(stream, message), level)


def _make_printable(record: Record) -> None:
    """Escape control characters in a message, so that it stays on one line, whatever it quotes."""
    record["message"] = printable(record["message"])


def _write(stream: TextIO, message: str) -> None:
    """Write a message, and the traceback that may follow it on further lines."""
    write(stream, printable(message, keep="\n"))


def to_file(path: Path, level: str) -> None:
    """Write messages to this file, too. Raises OSError."""
    _add(LogSink(path).write, level)


def _add(write_to: Callable[[str], None], level: str) -> None:
    logger.add(write_to, level=level, format=FORMAT, filter=_once(), diagnose=False, backtrace=False)


def _once() -> Callable[[Record], bool]:
    """Return a filter that lets each warning and error pass once: each step of a run may meet the same full disk."""
    logged: set[str] = set()

    def is_new(record: Record) -> bool:
        if record["level"].no < WARNING:
            return True
        before = len(logged)
        logged.add(record["message"])
        return len(logged) > before

    return is_new


class LogSink:
    """Appends messages to the file at a path. Several runs may do so at once, and logrotate may rename the file."""

    def __init__(self, path: Path) -> None:
        """Create the file. Raises OSError."""
        self._path = path
        self._has_failed = False
        with _opened(path):
            pass

    def write(self, message: str) -> None:
        """Append a message in one write, so that the lines of other runs stay whole. Never raises: if that fails, one
        line on stderr says so, and the run continues.
        """
        data = printable(message, keep="\n").encode(errors="backslashreplace")
        try:
            with _opened(self._path) as descriptor:
                is_whole = os.write(descriptor, data) == len(data)
        except OSError as error:
            self._warn_once(error)
        else:
            if not is_whole:
                self._warn_once(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def _warn_once(self, error: OSError) -> None:
        if not self._has_failed and sys.stderr is not None:
            what = f"the log file {self._path} cannot be written"
            complain(f"{what}: {error.strerror or error}; the run continues{_advice(self._path, error)}")
        self._has_failed = True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    # O_NONBLOCK: a pipe without a reader is an error at once, because a run must not wait for a reader.
    descriptor = safe_open.open_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
