"""The page of a month in a real Chromium: what is drawn is what was counted, and everything can be reached."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pytest
from helpers.report_data import BERLIN
from playwright.sync_api import Page

from xraylog.report import figures
from xraylog.report import page as pages
from xraylog.report.model import Destination, Findings, Node, Slot, User, Window
from xraylog.report.run_history import Runs

NOW = datetime(2025, 11, 17, 12, 20, tzinfo=timezone.utc)
WINDOW = Window.of(BERLIN, 30, date(2025, 11, 17), NOW)
SHARES = {"direct": 70, "block": 18, "warp": 12}  # rows of each piece of the day


def slots() -> list[Slot]:
    """Rows of each hour, more in the evening; one tag is rare, and none of them is always the same part."""
    hours = range((WINDOW.until - WINDOW.since) // timedelta(hours=1))
    starts = [WINDOW.since + timedelta(hours=number) for number in hours]
    return [
        Slot(start, "n1", tag, "accepted", rows * (1 + start.hour % 12) // (1 + start.day % 3))
        for start in starts
        for tag, rows in SHARES.items()
    ]


def user(number: int) -> User:
    by_day = [(number + day) % 7 * 10 for day in range(30)]
    from_ = [(f"203.0.113.{place}", 9 - place) for place in range(6)]
    to = [(f"host{place}.example", 9 - place) for place in range(6)]
    return User(f"user{number}", sum(by_day), 20, 1, 0, 2, WINDOW.since, NOW, by_day, from_, to)


GOALS = [
    Destination(f"host{place}.example", 90 - place, 30, 74, ["tcp/443"], [(f"user{n}", 9 - n) for n in range(8)])
    for place in range(12)
]
FOUND = Findings(
    WINDOW,
    [Node("n1", sum(slot.rows for slot in slots()), WINDOW.since, NOW, 0, NOW)],
    slots=slots(),
    users=[user(number) for number in range(40)],
    total_users=40,
    top=GOALS,
    rising=GOALS[:3],
    total_destinations=500,
    before=WINDOW.before,
)


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("month") / "report.html"
    path.write_text(pages.render(FOUND, Runs(), NOW, is_masked=False))
    return path


def test_the_pixels_of_a_chart_are_in_proportion_to_the_rows(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month, viewport={"width": 1400, "height": 1000}, color_scheme="light")
    taken = page.locator("#traffic figure svg:visible").first.screenshot()
    colours = page.evaluate("""() => [0, 1, 2].map((number) =>
        getComputedStyle(document.documentElement).getPropertyValue(`--series-${number}`))""")
    blank = page.context.browser.new_page()  # type: ignore[union-attr]  # its policy allows images
    counts = blank.evaluate(COUNT_PIXELS, [base64.b64encode(taken).decode(), colours])
    blank.close()
    rows = Counter[str]()
    for slot in FOUND.slots:
        rows[figures.tag(slot)] += slot.rows
    expected = [count / rows.total() for _, count in rows.most_common()]
    assert [count / sum(counts) for count in counts] == pytest.approx(expected, abs=0.02)


COUNT_PIXELS = """async ([png, colours]) => {
    const image = new Image();
    image.src = `data:image/png;base64,${png}`;
    await image.decode();
    const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
    canvas.drawImage(image, 0, 0);
    const pixels = canvas.getImageData(0, 0, image.width, image.height).data;
    const wanted = colours.map((colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));
    const counts = wanted.map(() => 0);
    for (let at = 0; at < pixels.length; at += 4) {
        const found = wanted.findIndex((rgb) => rgb.every((part, n) => Math.abs(part - pixels[at + n]) < 24));
        if (found >= 0) counts[found] += 1;
    }
    return counts;
}"""


def test_today_is_drawn_as_a_day_that_is_not_over(month: Path, opened: Callable[..., Page]) -> None:
    line = opened(month).locator("#users svg.days").first
    assert line.locator(".partial").get_attribute("points").count(" ") == 1  # type: ignore[union-attr]
    assert "the last day is not over" in str(line.get_attribute("aria-label"))


def test_a_search_for_an_address_says_that_the_page_has_not_all(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month)
    page.get_by_label("Search users").fill("198.51.100.7")
    found = page.locator("#users-found").inner_text()
    assert found.startswith("0 shown. This page has the most frequent addresses of each user, 240 of 800.")
    assert "host(l.source_ip) LIKE '198.51.100.7%'" in found


def test_what_scrolls_in_a_dialog_is_reached_by_the_keyboard(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month)
    page.get_by_role("button", name="user6", exact=True).click()
    regions = page.get_by_role("dialog").get_by_role("region")
    assert regions.count() == 3
    assert all(region.get_attribute("tabindex") == "0" for region in regions.all())
