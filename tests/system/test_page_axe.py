"""axe-core, which finds what keeps people with a disability from using a page, finds nothing on ours."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import axe
import pytest
from playwright.sync_api import Page


@pytest.fixture(scope="module")
def rules() -> str:
    """The script of axe-core; .ci/run has fetched it, or fails."""
    try:
        return axe.fetch().read_text()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs axe-core, a package of npm: {error}; python scripts/axe.py fetches it")


def violations(page: Page, rules: str) -> list[tuple[str, list[Any]]]:
    page.evaluate(rules)  # not as a script of the page, which its policy would not allow
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [(of["id"], [node["html"][:150] for node in of["nodes"]]) for of in found["violations"]]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 390), ("dark", 1400), ("light", 390)])
def test_nothing_keeps_people_from_using_the_page(
    month: Path, opened: Callable[..., Page], rules: str, scheme: str, width: int
) -> None:
    page = opened(month, color_scheme=scheme, viewport={"width": width, "height": 900})
    assert violations(page, rules) == []
    page.get_by_label("Search users").fill("user1")
    page.get_by_text("Rows per six hours, by outbound tag, as a table").click()
    assert violations(page, rules) == []
    page.evaluate("location.hash = 'user=user12'")
    page.get_by_role("dialog", name="user12").wait_for()
    assert violations(page, rules) == []
    page.get_by_role("dialog").get_by_role("link", name="DE").first.click()
    page.get_by_role("dialog", name="DE").wait_for()
    assert violations(page, rules) == []
