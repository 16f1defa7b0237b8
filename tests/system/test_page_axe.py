"""axe-core, which finds what keeps people with a disability from using a page, finds nothing on ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page


@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 390), ("dark", 1400), ("light", 390)])
def test_nothing_keeps_people_from_using_the_page(
    month: Path, opened: Callable[..., Page], violations: Callable[[Page], object], scheme: str, width: int
) -> None:
    page = opened(month, color_scheme=scheme, viewport={"width": width, "height": 900})
    assert violations(page) == []
    page.get_by_label("Search users").fill("user1")
    page.get_by_text("Rows per six hours, by outbound tag, as a table").click()
    assert violations(page) == []
    page.evaluate("location.hash = 'user=user12'")
    page.get_by_role("dialog", name="user12").wait_for()
    assert violations(page) == []
    page.get_by_role("dialog").get_by_role("link", name="DE").first.click()
    page.get_by_role("dialog", name="DE").wait_for()
    assert violations(page) == []
