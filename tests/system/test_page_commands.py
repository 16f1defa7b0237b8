"""The commands that a page names, typed as they are: they answer about the days of that page, and no others."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from helpers.report_data import LET_IN, ROWS, fill, report
from helpers.site import Site
from playwright.sync_api import Page, expect

COMMAND = re.compile(r"ask_logs\.py (.*?) shows ")


@pytest.fixture
def filled(site: Site) -> Site:
    """A site with ROWS, which are older than any default window; its page shows a part of them."""
    with psycopg.connect(**site.database, autocommit=True) as conn:  # type: ignore[arg-type]
        fill(conn, ROWS)
    site.set("parser", timezone="Europe/Berlin")
    return site


def facts(page: Page, link: str) -> str:
    """What a window of the page says in its first line."""
    page.evaluate(f"location.hash = {json.dumps(link)}")
    expect(page.locator("#view-name")).to_have_text(link.partition("=")[2])
    return page.locator("#view-facts").inner_text()


def rows_of(said: str) -> int:
    found = re.search(r"([0-9,]+) rows?\b", said)
    assert found is not None, said
    return int(found[1].replace(",", ""))


def asked(site: Site, said: str, **names: str) -> dict[str, list[dict[str, int]]]:
    """The answer to the command in a text, with names in place of its words in capitals."""
    found = COMMAND.search(said)
    assert found is not None, said
    words = [names.get(word, word) for word in shlex.split(found[1])]
    answer: dict[str, list[dict[str, int]]] = json.loads(site.run(*words, "--json", script="ask_logs").stdout)
    return answer


def test_a_command_counts_the_rows_that_the_page_has(filled: Site, opened: Callable[..., Page]) -> None:
    report(filled)
    page = opened(Path(filled.folder / "report.html"))
    said = facts(page, "user=alice")
    assert rows_of(said) == sum(row.email == "alice" for row in LET_IN)
    assert asked(filled, said, NAME="alice")["total"][0]["rows"] == rows_of(said)
    said = facts(page, "destination=host1.example")
    assert len(asked(filled, said, NAME="host1.example")["connections"]) == rows_of(said) > 0
    said = facts(page, "tag=block")
    assert sum(one["rows"] for one in asked(filled, said, TAG="block")["users"]) >= rows_of(said) > 0
    assert asked(filled, facts(page, "ports=web"), PORTS="443")["users"]


def test_a_page_of_one_node_names_commands_about_that_node(filled: Site, opened: Callable[..., Page]) -> None:
    report(filled, "--node", "n1")
    page = opened(Path(filled.folder / "report.html"))
    said = facts(page, "user=alice")
    assert asked(filled, said, NAME="alice", NODE="n1")["total"][0]["rows"] == rows_of(said)
    said = facts(page, "node=n1")
    assert sum(one["rows"] for one in asked(filled, said, NAME="n1")["periods"]) > 0
