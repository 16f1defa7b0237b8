"""What the scripts have in common: exit statuses, and the options and argparse types that they share."""

from __future__ import annotations

import argparse
import enum
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class Exit(enum.IntEnum):
    """Exit statuses; argparse exits with 2 itself. 75 and 78 are those of sysexits.h, EX_TEMPFAIL and EX_CONFIG."""

    DONE = 0
    FAILED = 1  # another run may succeed
    OPERATOR = 3  # the operator must act
    BUSY = 75  # another run has the log
    CONFIGURATION = 78


@dataclass(frozen=True, slots=True)
class Options:
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
        """Whether they ask for something else than a run."""
        return self.check or self.dry_run or self.make_partitions is not None or self.replay_rejected


def name(text: str) -> str:
    """A path as it was typed. Raises ArgumentTypeError, as the others here do."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("expected the path of a file, found none")
    return text


def path(text: str) -> Path:
    """The path of a file."""
    return Path(name(text))


def number(least: int, most: int) -> Callable[[str], int]:
    """A whole number within both."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, found {text!r}")
        return int(text)

    return parse


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config`."""
    parser.add_argument(
        "--config", type=path, metavar="FILE", default=Path("config.ini"), help="settings (default: config.ini)"
    )


def add_loudness(parser: argparse.ArgumentParser) -> None:
    """`-v` and `-q`."""
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="say more")
    loudness.add_argument("-q", "--quiet", action="store_true", help="say only errors")


def level(options: argparse.Namespace | Options, otherwise: str) -> str:
    """What loguru is to say at least."""
    return "DEBUG" if options.verbose else "ERROR" if options.quiet else otherwise


def escape_what_cannot_be_printed() -> None:
    """From here on: names of files can be any bytes, and standard output of any encoding."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def on_a_terminal() -> bool:
    """Return whether somebody is watching: a good run may print more then."""
    return sys.stderr is not None and sys.stderr.isatty()
