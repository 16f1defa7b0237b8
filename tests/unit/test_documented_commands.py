"""The documents name options, calls and exit statuses as the four scripts have them. Needs no server."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.documents import FENCE, PAGES
from helpers.site import ROOT

import ask_logs
import migrate_logs_to_partitioned
import parse_logs
import report_logs
from xraylog.cli import Exit
from xraylog.questions.catalog import QUESTIONS

SCRIPTS: dict[str, tuple[Callable[[Sequence[str]], Any], Callable[[Sequence[str]], Any]]] = {
    "parse_logs": (parse_logs.main, parse_logs.parse_options),
    "ask_logs": (ask_logs.main, ask_logs.parse_options),
    "report_logs": (report_logs.main, report_logs.parse_options),
    "migrate_logs_to_partitioned": (
        migrate_logs_to_partitioned.main,
        migrate_logs_to_partitioned.parse_options,
    ),
}
USAGE = 2  # argparse's own
PLACEHOLDERS = {"NAME": "alice", "N": "7", "OLD": "old.log", "HOST": "www.example.com", "ADDRESS": "203.0.113.7"}
# Options of other programs, and of scripts/test.
NOT_OURS = {
    "--citus-bin", "--fast", "--follow", "--grep", "--long", "--lines", "--matrix", "--no-comments", "--no-log-prefix",
    "--pg-bin", "--quick", "--remove", "--rounds",
}  # fmt: skip


def options_of(script: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Return the long options that a script's help names, with those of each question."""
    main = SCRIPTS[script][0]
    found: set[str] = set()
    subcommands = [[question.name] for question in QUESTIONS] if script == "ask_logs" else []
    for subcommand in ([], *subcommands):
        with pytest.raises(SystemExit):
            main([*subcommand, "--help"])
        found |= set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", capsys.readouterr().out, re.MULTILINE))
    return found - {"--help"}


def table(page: str, first: str) -> list[str]:
    """Return the first cells of the table of a page that begins with this heading."""
    text = (ROOT / page).read_text().partition(f"\n| {first} |")[2].partition("\n\n")[0]
    return [row.split("|")[1].strip() for row in text.splitlines()[2:]]


def inline(page: str) -> list[str]:
    """Return the code within the sentences of a page."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", (ROOT / page).read_text()))


@pytest.mark.parametrize(("script", "page"), [("parse_logs", "docs/operations.md"), ("report_logs", "docs/report.md")])
def test_the_table_of_options_has_each_once(script: str, page: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = [option for cell in table(page, "option") for option in re.findall(r"`(--?\w[\w-]*)", cell)]
    verbosity = {"--verbose", "--quiet"}  # by their short names
    assert sorted(found) == sorted(options_of(script, capsys) - verbosity | {"-v", "-q"})


def test_each_option_of_the_migration_is_in_its_page(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs/migration.md").read_text()
    assert {option for option in options_of("migrate_logs_to_partitioned", capsys) if option not in text} <= {
        "--version"
    }


def test_each_option_that_a_sentence_names_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    known = set().union(*(options_of(script, capsys) for script in SCRIPTS))
    pages = [page for page in PAGES if page != "benchmarks/README.md"]
    named = {
        (page, option)
        for page in pages
        for code in inline(page)
        if not code.startswith("benchmarks/")
        for option in re.findall(r"(?<!\S)--[a-z][\w-]+", code)
    }
    assert {(page, option) for page, option in named if option not in known | NOT_OURS | {"--help"}} == set()


@pytest.mark.parametrize("page", PAGES)
def test_each_call_in_a_sentence_is_one_that_the_script_takes(page: str, tmp_path: Path) -> None:
    (tmp_path / "FILE").write_text("alice\n")
    words = PLACEHOLDERS | {"FILE": str(tmp_path / "FILE")}
    for code in inline(page):
        match = re.fullmatch(r"(?:.*\| )?(?:\S*python )?(\w+)\.py ([^|]+)", code)
        if match and match[1] in SCRIPTS and match[2] not in ("networks load", "reached", "user"):
            SCRIPTS[match[1]][1]([words.get(word, word) for word in shlex.split(match[2])])


@pytest.mark.parametrize(
    ("page", "first", "some"),
    [
        ("docs/guarantees.md", "status", set()),
        ("docs/architecture.md", "exit status", set()),
        ("docs/migration.md", "status", {Exit.BUSY}),  # it takes no lock of a file
        ("docs/report.md", "exit status", {Exit.BUSY}),
    ],
)
def test_a_table_of_exit_statuses_has_each_once(page: str, first: str, some: set[Exit]) -> None:
    assert [int(cell) for cell in table(page, first)] == sorted({*Exit, USAGE} - some)
