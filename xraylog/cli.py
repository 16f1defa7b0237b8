"""Exit statuses, and the options and argparse types that the scripts share."""

from __future__ import annotations

import argparse
import contextlib
import enum
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from xraylog import __version__, printed


class Exit(enum.IntEnum):
    """Exit statuses. argparse itself exits with 2; 75 and 78 are EX_TEMPFAIL and EX_CONFIG of sysexits.h."""

    DONE = 0
    FAILED = 1  # another run may succeed
    OPERATOR = 3  # the operator must act
    BUSY = 75  # another run has the log
    CONFIGURATION = 78


class ArgumentParser(argparse.ArgumentParser):
    """An ArgumentParser that escapes what was typed in its errors, and survives a closed pipe (3.10 raises there)."""

    def _print_message(self, message: str, file: Any = None) -> None:
        with contextlib.suppress(OSError):
            printed.write(file or sys.stderr, printed.printable(message, keep="\n"))


RUN_OPTIONS = frozenset(("config", "logfiles", "keep", "again", "verbose", "quiet"))


class Options(NamedTuple):  # a frozen dataclass of as many fields takes 3 ms more of every start
    """The command line of parse_logs.py."""

    config: Path
    logfiles: tuple[str, ...]  # names, patterns, or -; none: the configured log
    keep: bool
    again: bool
    check: bool
    dry_run: bool
    make_partitions: int | None  # days after today
    replay_rejected: bool
    verbose: bool
    quiet: bool

    @property
    def is_command(self) -> bool:
        """Return whether the options ask for something other than a run. Any option not in RUN_OPTIONS does."""
        others = (value for name, value in self._asdict().items() if name not in RUN_OPTIONS)
        return any(value is not None and value is not False for value in others)


def name(text: str) -> str:
    """Return a path as it was typed. Raises ArgumentTypeError, like the other types here."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("expected the path of a file, found none")
    if text != "-" and not os.path.isabs(text):
        try:
            os.getcwd()
        except FileNotFoundError:
            found = f"found {text!r} in a folder that was removed; cd to another one, or type the full path"
            raise argparse.ArgumentTypeError(f"expected a path, {found}") from None
    return text


def path(text: str) -> Path:
    """Return the path of a file."""
    return Path(name(text))


def lines_of(text: str) -> list[str]:
    """Return the distinct lines of a text file, or of standard input, without blank ones."""
    where = "standard input" if text == "-" else text
    try:
        raw = sys.stdin.buffer.read() if text == "-" else path(text).read_bytes()
        lines = raw.decode("utf-8-sig").split("\n")
    except OSError as error:
        raise argparse.ArgumentTypeError(f"expected a file with one name a line: {where}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise argparse.ArgumentTypeError(f"{where}: expected UTF-8, found other bytes at {error.start}") from None
    if "\0" in "".join(lines):
        raise argparse.ArgumentTypeError(f"{where}: expected a text, found a NUL byte")
    found = list(dict.fromkeys(line.removesuffix("\r") for line in lines if line.strip()))
    if not found:
        raise argparse.ArgumentTypeError(f"{where}: expected one name a line, found none")
    return found


def number(minimum: int, maximum: int) -> Callable[[str], int]:
    """Return an argparse type: a whole number from `minimum` to `maximum`."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and minimum <= int(text) <= maximum):
            raise argparse.ArgumentTypeError(f"expected a whole number from {minimum} to {maximum}, found {text!r}")
        return int(text)

    return parse


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add `--config`."""
    parser.add_argument(
        "--config", type=path, metavar="FILE", default="config.ini", help="settings (default: config.ini)"
    )


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    """Add `-v` and `-q`."""
    verbosity = parser.add_mutually_exclusive_group()
    verbosity.add_argument("-v", "--verbose", action="store_true", help="log more")
    verbosity.add_argument("-q", "--quiet", action="store_true", help="log only errors")


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add `--version`."""
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}", help="print the version")


def unexpected(error: BaseException) -> str:
    """Return a one-line message about an unexpected error."""
    return f"unexpected {type(error).__name__}: {'; '.join(str(error).splitlines())}"


def log_level(verbose: bool, quiet: bool, default: str) -> str:
    """Return the lowest level that is logged."""
    return "DEBUG" if verbose else "ERROR" if quiet else default


def escape_unprintable() -> None:
    """Make standard output escape what it cannot encode: file names can be any bytes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def on_a_terminal() -> bool:
    """Return whether stderr is a terminal, where a good run may log more."""
    return sys.stderr is not None and sys.stderr.isatty()
