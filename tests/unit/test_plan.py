"""docs/architecture.md draws the rows that are tested, and names files, tests and headings that exist."""

from __future__ import annotations

import ast
import re

import pytest
from helpers.documents import anchors
from helpers.site import ROOT

RULES = "tests/unit/test_architecture.py"
PAGE = ROOT / "docs" / "architecture.md"
PATH = re.compile(r"`([a-z.][\w.-]+(?:/[\w.-]*)+|[\w-]+\.(?:py|sql|md|toml|example))`")
TEST = re.compile(r"`([\w/]+\.py)`[^`\n|]*`::(\w+)`")
SOURCES = [
    path for folder in ("xraylog", "tests", "scripts", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))
] + sorted(ROOT.glob("*.py"))


def test_the_page_draws_the_rows_that_are_tested() -> None:
    (drawing,) = re.findall(r"```text\n(commands\n.*?)```", PAGE.read_text(), re.DOTALL)
    (rows,) = re.findall(r"^ROWS = (\(\n.*?^\))", (ROOT / RULES).read_text(), re.MULTILINE | re.DOTALL)
    assert tuple({name.strip() for name in row.split("|")} for row in drawing.splitlines()) == ast.literal_eval(rows)


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md", "Schema.md"])
def test_the_files_that_a_page_names_exist(page: str) -> None:
    named = PATH.findall((ROOT / page).read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_the_tests_that_a_page_names_exist(page: str) -> None:
    for file, name in TEST.findall((ROOT / page).read_text()):
        assert f"def {name}(" in (ROOT / file).read_text(), name


def entries_of(heading: str) -> list[str]:
    """Return what is below a heading of the page, by smaller headings, and a table by its rows."""
    part = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    sections = re.split(r"^### ", part, flags=re.MULTILINE)[1:]
    return [entry for section in sections for entry in re.findall(r"^\| .*", section, re.MULTILINE)[1:] or [section]]


@pytest.mark.parametrize(
    "entry", entries_of("Where to add something"), ids=lambda entry: re.split(r"\||\n", entry.lstrip("| "))[0].strip()
)
def test_what_an_entry_says_to_change_is_in_the_files_that_it_names(entry: str) -> None:
    named = [ROOT / name for name in PATH.findall(entry)] + [
        ROOT / "docs" / name for name in re.findall(r"\]\(([\w.-]+\.md)", entry)
    ]
    files = [file for path in named for file in (path.rglob("*.*") if path.is_dir() else [path])]
    text = "\n".join(file.read_text(errors="replace") for file in files if file.suffix != ".pyc")
    for code in re.findall(r"`([^`]+)`", PATH.sub("", entry)):
        word = code.removeprefix("::").rpartition(".")[2]
        assert " " in code or re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text), code


def test_the_decisions_that_a_comment_refers_to_are_there() -> None:
    headings = anchors(PAGE)
    for path in SOURCES:
        for anchor in re.findall(r"docs/architecture\.md#([\w-]+)", path.read_text()):
            assert anchor in headings, f"{path}: {anchor}"


def test_the_hooks_of_pre_commit_run_what_is_here_and_download_nothing() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert set(re.findall(r"- repo: (\S+)", text)) == {"local"}
    for entry in re.findall(r"entry: (.*)", text):
        assert entry.startswith(".venv/bin/")
        assert [name for name in re.findall(r"tests/\S+", entry) if not (ROOT / name).exists()] == []
