"""A command line becomes frozen options, or exits with 2 and says what was expected."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import parse_logs
from xraylog import __version__, cli
from xraylog.cli import Exit, Options

CONFIGURED = Options(
    config=Path("config.ini"),
    logfiles=(),
    keep=False,
    again=False,
    check=False,
    dry_run=False,
    make_partitions=None,
    replay_rejected=False,
    verbose=False,
    quiet=False,
)


def said_and_status(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str, Any]:
    with pytest.raises(SystemExit) as ended:
        parse_logs.main(arguments)
    told = capsys.readouterr()
    return told.out, told.err, ended.value.code


def test_the_version_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    out, err, status = said_and_status(capsys, "--version")
    assert out.split()[-1:] == [__version__]
    assert (err, status) == ("", 0)


def test_the_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    out, err, status = said_and_status(capsys, "--help")
    options = ("--config", "--logfile", "--keep", "--again", "--check", "--make-partitions", "-v", "-q", "--version")
    for option in options:
        assert re.search(rf"^  (-\w, )?{option}\b", out, re.MULTILINE), option
    assert (err, status) == ("", 0)


@pytest.mark.parametrize("arguments", [("--chekc",), ("access.log",), ("-v", "-q"), ("--config",), ("--logfile",)])
def test_a_command_line_that_is_none_exits_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    out, err, status = said_and_status(capsys, *arguments)
    assert (out, status) == ("", 2)
    assert "usage: " in err
    assert list(tmp_path.iterdir()) == []


def test_the_exit_statuses_are_those_of_the_documents() -> None:
    """Monitoring and timers depend on them; 2 is argparse's."""
    assert {status.name: status.value for status in Exit} == {
        "DONE": 0,
        "FAILED": 1,
        "OPERATOR": 3,
        "BUSY": 75,
        "CONFIGURATION": 78,
    }


def test_no_options_read_the_configured_log() -> None:
    options = parse_logs.parse_options([])
    assert options == CONFIGURED
    assert not options.is_command


def test_logs_are_read_in_the_order_of_the_command_line() -> None:
    for _ in range(2):  # argparse appends to a list of its own
        options = parse_logs.parse_options(["--logfile", "b.log", "--logfile", "a*.gz", "--keep", "--again", "-v"])
        assert options == CONFIGURED._replace(logfiles=("b.log", "a*.gz"), keep=True, again=True, verbose=True)


@pytest.mark.parametrize(
    ("option", "changed"),
    [
        (["--check"], {"check": True}),
        (["--dry-run"], {"dry_run": True}),
        (["--make-partitions", "0"], {"make_partitions": 0}),
        (["--replay-rejected"], {"replay_rejected": True}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_some_options_ask_for_something_else_than_a_run(option: list[str], changed: dict[str, Any]) -> None:
    options = parse_logs.parse_options(option)
    assert options == CONFIGURED._replace(**changed)
    assert options.is_command


@pytest.mark.parametrize("text", ["0", "367", "-1", "1.0", "١", "", "9" * 5000])
def test_a_number_is_within_its_bounds(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number from 1 to 366, found "):
        cli.number(1, 366)(text)
    assert [cli.number(1, 366)(text) for text in ("1", "007", "366")] == [1, 7, 366]


@pytest.mark.parametrize(
    ("arguments", "level"), [([], "WARNING"), (["-v"], "DEBUG"), (["-q"], "ERROR")], ids=["default", "-v", "-q"]
)
def test_verbosity_decides_the_level(arguments: list[str], level: str) -> None:
    options = parse_logs.parse_options(arguments)
    assert cli.log_level(options.verbose, options.quiet, "WARNING") == level


def test_a_closed_stderr_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert not cli.on_a_terminal()


def test_what_was_typed_does_not_act_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A pattern that the shell expands names files of others."""
    _, err, status = said_and_status(capsys, "--logfile", "access.log.1", "access.log.2\x1b]0;title\x07\u202e")
    assert r"unrecognized arguments: access.log.2\x1b]0;title\x07\u202e" in err
    assert status == 2
    _, err, _ = said_and_status(capsys, "postgresql://xray:Zq7xK@db")
    assert "Zq7xK" not in err
