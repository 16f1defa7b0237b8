"""A page that loads itself anew stays as its reader has set it, also if it has other content by then."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.report_month import FOUND, NOW, user
from playwright.sync_api import Page, expect

from xraylog.report import page as pages
from xraylog.report.model import Slot
from xraylog.report.run_history import Runs

KEPT = "sessionStorage.getItem(`xraylog page ${location.pathname}`)"


@pytest.fixture
def month(tmp_path: Path) -> Path:
    """A page that may be written anew; a reload is one, whoever asks for it."""
    path = tmp_path / "report.html"
    write(path)
    return path


def write(path: Path, **changes: Any) -> None:
    path.write_text(pages.render(replace(FOUND, **changes), Runs(), NOW, is_masked=False, refresh_s=86_400))


def reload(page: Page) -> None:
    page.reload()
    page.wait_for_function("isRestored")


def shown(page: Page, table: str) -> list[str]:
    cells: list[str] = page.locator(f"#{table} tbody tr:visible > :first-child").all_inner_texts()
    return cells


def sort(page: Page, table: str, column: str) -> None:
    page.locator(f"#{table} thead button").filter(has_text=re.compile(f"^{column}$")).first.click()


def test_what_was_typed_sorted_hidden_and_opened_stays(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month)
    page.get_by_label("Search users").fill("user1")
    sort(page, "users", "user")
    sort(page, "users", "first seen")
    sort(page, "nodes", "unparsed lines")
    sort(page, "nodes", "unparsed lines")
    traffic = page.locator("figure[data-chart=traffic]")
    traffic.get_by_role("button", name="warp").click()
    page.locator("details.numbers[data-chart=rows] summary").click()
    page.get_by_label("loads itself anew").uncheck()
    before = shown(page, "users")
    assert before[:3] == ["user1", "user10", "user11"]  # of equal times, as the sort by name before left them
    reload(page)
    assert shown(page, "users") == before
    assert page.get_by_label("Search users").input_value() == "user1"
    assert page.locator("#users-found").inner_text().startswith("11 shown.")
    assert page.locator("#users [aria-sort]").inner_text() == "first seen"
    assert page.locator("#nodes [aria-sort=ascending]").inner_text() == "unparsed lines"
    assert traffic.get_by_role("button", name="warp").get_attribute("aria-pressed") == "false"
    assert traffic.locator('path[fill="var(--series-2)"]').first.evaluate("path => path.style.display") == "none"
    assert traffic.locator("[aria-pressed=true]").count() == 2
    expect(page.locator("details.numbers[data-chart=rows] table")).to_be_visible()
    assert not page.get_by_label("loads itself anew").is_checked()
    reload(page)  # and what was restored is kept again
    assert shown(page, "users") == before


def test_what_was_scrolled_and_where_the_keyboard_was_stays(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month, viewport={"width": 390, "height": 700})
    page.locator("#top").scroll_into_view_if_needed()
    search = page.get_by_label("Search users")
    search.fill("user")
    search.evaluate("search => search.setSelectionRange(1, 3)")
    page.evaluate("""
        document.querySelector("#users").parentElement.scrollTo(70, 90);
        document.querySelector("[data-chart=traffic] .plot").scrollLeft = 33;
        document.querySelector("#outbound").scrollIntoView();
    """)
    top = page.locator("#outbound h2").bounding_box()
    reload(page)
    users = page.locator(".scroll:has(#users)")
    assert users.evaluate("part => [part.scrollLeft, part.scrollTop]") == [70, 90]
    assert page.locator("[data-chart=traffic] .plot:visible").evaluate("plot => plot.scrollLeft") == 33
    assert page.evaluate("document.activeElement.dataset.table") == "users"
    assert search.evaluate("search => [search.selectionStart, search.selectionEnd]") == [1, 3]
    assert top is not None
    assert page.locator("#outbound h2").bounding_box() == pytest.approx(top, abs=1)
    write(month, complaints=["A note that was not there before."] * 9)  # above all of it
    reload(page)
    assert page.locator("#outbound h2").bounding_box() == pytest.approx(top, abs=1)


def test_an_open_dialog_stays_where_it_was(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month, viewport={"width": 700, "height": 300})
    page.locator("#users").get_by_role("link", name="user6", exact=True).click()
    view = page.get_by_role("dialog")
    link = view.get_by_role("link", name="web", exact=True)
    link.focus()
    view.evaluate("view => { view.scrollTop = 200; }")
    reload(page)
    assert view.get_by_role("heading", level=2).inner_text() == "user6"
    assert view.evaluate("view => view.scrollTop") == 200
    assert page.evaluate("document.activeElement.textContent") == "web"


def test_the_newest_part_of_a_chart_stays_in_sight(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month, viewport={"width": 390, "height": 700})
    reload(page)
    plot = page.locator("[data-chart=traffic] .plot:visible")
    assert plot.evaluate("plot => plot.scrollWidth - plot.clientWidth - plot.scrollLeft") == pytest.approx(0, abs=1)


def test_a_page_with_other_content_takes_what_it_has(month: Path, opened: Callable[..., Page]) -> None:
    """Its series and columns are others, or in another order; some of its tables and rows are gone."""
    page = opened(month)
    page.get_by_label("Search these destinations").nth(1).fill("host1")  # of those that rise
    sort(page, "rising", "gain")
    sort(page, "top", "before")
    sort(page, "users", "addresses")
    for tag in ("block", "warp"):
        page.locator("figure[data-chart=traffic]").get_by_role("button", name=tag).click()
    slots = [Slot(FOUND.window.since, "n1", tag, "accepted", rows) for tag, rows in (("block", 9), ("new", 5))]
    write(month, slots=slots, names={}, rising=[], users=[user(3)], total_users=1)
    reload(page)
    pressed = page.locator("figure[data-chart=traffic] .legend button")
    states = {button.inner_text(): button.get_attribute("aria-pressed") for button in pressed.all()}
    assert states == {"block: 9": "false", "new: 5": "true"}
    assert page.locator("#top [aria-sort]").inner_text() == "before"
    assert page.locator("#users [aria-sort]").inner_text() == "addresses"
    write(month, nodes=(), slots=())
    reload(page)
    assert "There are no rows in these days." in page.locator("#traffic").inner_text()
    write(month)
    reload(page)
    assert page.locator("#users tbody tr").count() == 40


FORMS = ("null", "7", "[]", "{}", "{", '"x"', '{"sorts": 1}', '{"sorts": [["users", [[["rows", 9], "up"]]]]}',
         '{"sorts": [], "searches": [["__proto__", "x"]], "hidden": [["\\"]", ["direct"]], ["constructor", ["x"]]]}',
         '{"sorts": [], "searches": [], "hidden": [], "opened": ["[x\\n"], "scrolled": [[7, "x"]]}')  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_what_another_version_kept_breaks_nothing(month: Path, opened: Callable[..., Page], form: str) -> None:
    page = opened(month)
    page.evaluate("([form]) => sessionStorage.setItem(`xraylog page ${location.pathname}`, form)", [form])
    page.evaluate("isRestored = false")  # so that the page does not replace it
    reload(page)
    assert page.locator("#users tbody tr").count() == 40
    page.get_by_label("Search users").fill("user7")
    assert shown(page, "users") == ["user7"]
    reload(page)
    assert shown(page, "users") == ["user7"]


NOTHING = (
    "Object.defineProperty(window, 'sessionStorage', {get() { throw new DOMException('denied', 'SecurityError'); }})"
)
FULL = "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }"


@pytest.mark.parametrize("broken", [NOTHING, FULL], ids=["nothing", "full"])
def test_a_browser_that_keeps_nothing_shows_the_page_as_it_is(
    month: Path, opened: Callable[..., Page], broken: str
) -> None:
    page = opened(month)
    page.context.add_init_script(broken)
    reload(page)
    page.get_by_label("Search users").fill("user7")
    reload(page)
    assert page.locator("#users tbody tr:visible").count() == 40


def test_whoever_opens_the_page_anew_gets_it_as_it_is(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month)
    page.get_by_label("Search users").fill("user7")
    page.goto("about:blank")
    page.goto(month.as_uri())
    assert page.locator("#users tbody tr:visible").count() == 40


def test_what_is_kept_is_of_this_page_alone(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month)
    page.get_by_label("Search users").fill("user7")
    reload(page)
    assert json.loads(page.evaluate(KEPT))["searches"] == [["users", "user7"]]
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
