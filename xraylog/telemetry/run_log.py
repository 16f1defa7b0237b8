"""Our own log, `[logging] file`, as a sink for loguru that rotates.

loguru's own file sink (0.7.3) does not do here. On a full disk it prints a traceback for each message. Processes that
rotate one file lose messages: 58 of 4,000, of four at once. And what it removes as old is every file that looks like
it: of the log `access` also `access.log`, which may be xray's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from loguru import logger

from xraylog import cli, config
from xraylog.cli import Options
from xraylog.config import Config

FORM = "{time:YYYY-MM-DD HH:mm:ss} {level: <7} {message}"
LARGEST_BYTES = 10_000_000
KEPT = 5  # rotated files: FILE.1 is the newest


def start(cfg: Config, options: Options) -> None:
    """Log to stderr, and to a file if the config names one. A good run under cron logs nothing. Raises ConfigError."""
    default = cfg.log_level or ("INFO" if cli.on_a_terminal() else "WARNING")
    level = cli.log_level(options.verbose, options.quiet, default)
    to_stderr(level)
    if cfg.own_log_path and not (options.check or options.dry_run):
        try:
            to_file(cfg.own_log_path, level)
        except OSError as error:
            raise config.ConfigError(
                [f"{cfg.path}: [logging] file: expected a file that can be written, found: {error.strerror}"]
            ) from error
    for warning in cfg.warnings:
        logger.warning("{}", warning)


def to_stderr(level: str) -> None:
    """From here on, messages of this level and above go there, and nowhere else."""
    logger.remove()
    if sys.stderr is not None:  # closed by the caller: 2>&-
        logger.add(sys.stderr, level=level, format=FORM, diagnose=False, backtrace=False)


def to_file(path: Path, level: str) -> None:
    """And to this file. Raises OSError."""
    logger.add(OwnLog(path), level=level, format=FORM, diagnose=False, backtrace=False)


class OwnLog:
    """The log at one path. Any number of runs may write it."""

    def __init__(self, path: Path) -> None:
        """Make the file. Raises OSError."""
        self._path = path
        self._has_failed = False
        with _opened(path):
            pass

    def write(self, message: str) -> None:
        """Append a message. Never raises: says once what fails, and the run goes on."""
        data = message.encode(errors="backslashreplace")
        try:
            self._make_room(len(data))
        except OSError as error:  # it grows on: better than a message less
            self._say_once(f"the log file {self._path} cannot be renamed to {rotated(self._path, 1)}", error)
        try:
            self._append(data)
        except OSError as error:
            self._say_once(f"the log file {self._path} cannot be written", error)

    def _append(self, data: bytes) -> None:
        """In one write, so that the lines of other runs stay whole, to the file that is at the path now."""
        with _opened(self._path) as descriptor:
            if os.write(descriptor, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _make_room(self, more: int) -> None:
        """Rotate when `more` bytes are too many. Where another run does so at this moment, leave it to that one:
        what is appended to a file that was just renamed stands in FILE.1.
        """
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            if self._path.is_file() and _is_full(self._path.stat(), more):
                with _opened(self._path) as descriptor:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    found = os.fstat(descriptor)
                    if _is_full(found, more) and os.path.samestat(found, self._path.stat()):
                        self._rotate()

    def _rotate(self) -> None:
        for number in range(KEPT, 0, -1):  # the file itself last: until then nobody makes a new one
            with contextlib.suppress(FileNotFoundError):
                rotated(self._path, number - 1).replace(rotated(self._path, number))

    def _say_once(self, what: str, error: OSError) -> None:
        if not self._has_failed and sys.stderr is not None:
            folder = shlex.quote(str(self._path.parent))
            print(f"{what}: {error.strerror}; the run goes on; see: ls -ld {folder}; df -h {folder}", file=sys.stderr)
        self._has_failed = True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    # A pipe without a reader is an error at once: a run must not wait for anybody here.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_NONBLOCK, 0o640)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_full(found: os.stat_result, more: int) -> bool:
    return found.st_size > 0 and found.st_size + more > LARGEST_BYTES


def rotated(path: Path, number: int) -> Path:
    """Return the path of the log of `number` rotations ago."""
    return path.with_name(f"{path.name}.{number}") if number else path
