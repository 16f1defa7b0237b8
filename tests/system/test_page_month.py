"""The page of a month in a real Chromium: what is drawn is what was counted, and everything can be reached."""

from __future__ import annotations

import base64
import csv
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta, timezone
from pathlib import Path

import pytest
from helpers.report_data import BERLIN
from helpers.report_month import BARE, FOUND, NOW, WINDOW
from helpers.site import wait_until
from playwright.sync_api import Page, expect

import ask_logs
from xraylog.questions import parameters
from xraylog.report import charts, figures, time_series
from xraylog.report import page as pages
from xraylog.report.model import Gap
from xraylog.report.run_history import Runs

TIMES = " ".join(
    f"--{end} {getattr(WINDOW, end).astimezone(timezone.utc):%Y-%m-%dT%H:%M:%SZ}" for end in ("since", "until")
)
ASK_USER = f"ask_logs.py user NAME {TIMES}"


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
    assert [count / sum(counts) for count in counts] == pytest.approx(expected, abs=0.03)


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


def test_no_table_is_wider_than_a_small_laptops_screen(month: Path, opened: Callable[..., Page]) -> None:
    """Addresses, networks and reasons are long: what does not fit is read by scrolling to the side.

    A chart's numbers have as many columns as it has series, and are in a part that is closed at first.
    """
    page = opened(month, viewport={"width": 1100, "height": 800})
    widths = page.evaluate(
        """[...document.querySelectorAll("table")].filter(table => !table.closest("details")).map(table => [
            table.closest("section").id + ": " + table.tHead.innerText.replaceAll(/[^a-z]+/gi, " "),
            table.scrollWidth, table.parentElement.clientWidth])"""
    )
    assert len(widths) > 5
    assert [wide for wide in widths if wide[1] > wide[2]] == []


def test_today_is_drawn_as_a_day_that_is_not_over(month: Path, opened: Callable[..., Page]) -> None:
    line = opened(month).locator("#users svg.days").first
    assert line.locator(".partial").get_attribute("points").count(" ") == 1  # type: ignore[union-attr]
    assert "the last day is not over" in str(line.get_attribute("aria-label"))


def test_a_search_for_an_address_says_that_the_page_has_not_all(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month)
    page.get_by_label("Search users").fill("198.51.100.7")
    found = page.locator("#users-found").inner_text()
    assert found.startswith("0 shown. This page has the most frequent addresses of each user, 240 of 800: ask_logs.py")
    command = found.partition(": ask_logs.py ")[2].partition(" shows ")[0]
    assert command == "client 198.51.100.7 --since 2025-10-18T22:00:00Z --until 2025-11-17T12:20:00Z"
    given = ask_logs.parse_options(command.split())
    assert given.question
    assert parameters.values(given.question, given.given, BERLIN)["until"] == NOW
    for beginning in ("198.51.100", "198.51.100.", "2001:db8", "2001:db8:"):
        page.get_by_label("Search users").fill(beginning)
        assert " client ADDRESS --since " in page.locator("#users-found").inner_text()
    page.get_by_label("Search users").fill("2001:db8::7")
    assert " client 2001:db8::7 --since " in page.locator("#users-found").inner_text()
    page.get_by_label("Search users").fill("198.51.100.0/24")
    assert " client 198.51.100.0/24 --since " in page.locator("#users-found").inner_text()
    page.get_by_label("Search users").fill("203.0.113.0/24")  # as windows name it
    assert page.locator("#users-found").inner_text().startswith("40 shown.")


def test_each_search_says_what_the_page_has_not_and_what_finds_it(
    month: Path, tmp_path: Path, opened: Callable[..., Page]
) -> None:
    def found(page: Page, label: str, wanted: str) -> str:
        page.get_by_label(label).first.fill(wanted)
        return page.locator(f"#{page.get_by_label(label).first.get_attribute('data-table')}-found").inner_text()

    page = opened(month)
    assert found(page, "Search users", "nobody") == "0 shown."  # it has all of them
    assert found(page, "Search sources", "nobody") == "0 shown."
    said = found(page, "Search these destinations", "nowhere.example")
    assert said.startswith("0 shown. The tables of this page have 13 of 500 destinations: ask_logs.py reached NAME ")
    assert found(page, "Search these destinations", "") == "13 shown."
    path = tmp_path / "report.html"
    path.write_text(pages.render(replace(FOUND, total_users=90, total_sources=70), Runs(), NOW, is_masked=False))
    page = opened(path)
    assert found(page, "Search users", "nobody") == (
        f"0 shown. This page has the users with the most rows, 40 of 90: {ASK_USER} shows each of the others."
    )
    said = found(page, "Search sources", "timeouts")
    assert said.startswith("0 shown. This page has the sources with the most rows, 12 of 70: ask_logs.py rejected")
    said = found(page, "Search sources", "192.0.2.7")
    command = said.partition(": ask_logs.py ")[2].partition(" shows ")[0]
    assert command.startswith("client 192.0.2.7 --only rejected --since ")
    assert ask_logs.parse_options(command.split()).given["only"] == "rejected"


def test_a_chart_shows_its_values_by_mouse_touch_and_keys(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month, viewport={"width": 1400, "height": 900})
    plot = page.locator("figure[data-chart=traffic] .plot:visible")
    plot.focus()
    page.keyboard.press("Home")
    tip = page.locator("#tip")
    assert tip.inner_text().startswith("2025-10-19 00:00")
    first = Counter[str]()
    for slot in FOUND.slots:
        if slot.start < WINDOW.since + timedelta(hours=6):
            first[slot.outbound or ""] += slot.rows
    assert all(f"{tag}: {rows:,}" in tip.inner_text() for tag, rows in first.items())
    page.keyboard.press("ArrowRight")
    assert tip.inner_text().startswith("2025-10-19 06:00")
    box = plot.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] - 12, box["y"] + 60)
    assert tip.inner_text().startswith("2025-11-17 12:00")
    page.mouse.move(2, 2)
    assert not tip.is_visible()


def test_the_map_of_the_week_shows_its_values_by_mouse_and_keys(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month, viewport={"width": 1400, "height": 900})
    week = time_series.by_weekday(FOUND, WINDOW.zone)
    tip = page.locator("#tip")

    def said(day: int, hour: int) -> str:
        return f"{charts.WEEKDAYS[day]} {hour:02}:00 {round(week[day][hour], 1):,} rows on average".replace(".0 ", " ")

    plot = page.locator("figure.week .plot:visible")
    plot.focus()
    for key, place in (
        ("Home", (0, 0)),
        ("ArrowUp", (0, 0)),
        ("ArrowDown", (1, 0)),
        ("ArrowRight", (1, 1)),
        ("End", (1, 23)),
    ):
        page.keyboard.press(key)
        assert tip.inner_text() == said(*place)
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    box = plot.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] - 12, box["y"] + 10)
    assert tip.inner_text() == said(0, 23)


def test_a_users_line_shows_the_rows_of_its_days(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month, viewport={"width": 1400, "height": 900})
    line = page.locator("#users svg.days").first
    box = line.bounding_box()
    assert box
    line.hover(position={"x": box["width"] - 1, "y": 9})
    rows = FOUND.users[0].by_day[-1]
    assert page.locator("#tip").inner_text() == f"2025-11-17 (not over) {rows} rows"


def test_a_second_tap_opens_the_day(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month, viewport={"width": 390, "height": 844}, has_touch=True)
    plot = page.locator("figure[data-chart=rows] .plot:visible")
    plot.scroll_into_view_if_needed()
    place = {"x": 300, "y": 60}
    plot.tap(position=place)
    expect(page.locator("#tip")).to_be_visible()
    assert not page.get_by_role("dialog").is_visible()
    plot.tap(position=place)
    expect(page.get_by_role("dialog").locator("h2")).to_have_attribute("data-kind", "day")


def test_a_legend_entry_hides_its_series_and_the_others_move_down(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month)
    areas = page.locator("figure[data-chart=traffic] .in-local path[fill^='var(--series']")
    assert areas.count() == 3
    before = areas.nth(1).get_attribute("d")
    entry = page.locator("figure[data-chart=traffic] .legend button").first
    entry.click()
    assert (areas.nth(0).is_visible(), entry.get_attribute("aria-pressed")) == (False, "false")
    moved = areas.nth(1).get_attribute("d")
    assert moved != before
    entry.click()
    assert areas.nth(0).is_visible()


def test_everything_has_an_address_and_back_works(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month)
    dialog = page.get_by_role("dialog")
    heading = dialog.locator("h2")
    page.get_by_role("link", name="user6", exact=True).click()
    steps = [
        ("destination", "host3.example"), ("user", "user7"), ("address", "203.0.113.2"), ("network", "203.0.113.0/24"),
        ("user", "user9"), ("country", "DE"), ("provider", "Example Telecom AG"), ("address", "203.0.113.1"),
        ("provider", "Example Telecom AG"), ("user", "user2"), ("tag", "block"), ("user", "user8"),
        ("ports", "web"), ("user", "user3"), ("day", "2025-11-16"),
    ]  # fmt: skip
    for kind, name in steps:
        dialog.get_by_role("link", name=name, exact=True).first.click()
        expect(heading).to_have_text(name)
        expect(heading).to_have_attribute("data-kind", kind)
    page.go_back()
    expect(heading).to_have_text("user3")
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    # What Back leads away from. Playwright's wait_for_function needs eval, which the page's policy forbids.
    wait_until(lambda: page.evaluate("location.hash") == "")
    page.go_back()
    expect(heading).to_have_text("user3")
    page.evaluate("location.hash = 'user=nobody'")
    page.get_by_text(f"This page has nothing of it. {ASK_USER} shows what the database has of these days.").wait_for()
    for kind, name, asked in (
        ("address", "198.51.100.7", "198.51.100.7"), ("network", "2001:db8:7::/48", "2001:db8:7::/48"),
        ("address", "198.51.100.7; reboot", "ADDRESS"), ("network", "2001:db8:7", "ADDRESS"),
    ):  # fmt: skip
        page.evaluate("address => { location.hash = address; }", f"{kind}={name}")
        page.get_by_text(f"This page has nothing of it. ask_logs.py client {asked} --since 2025-10-18").wait_for()


def test_a_country_shows_its_users_and_addresses(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month)
    page.locator("#countries").get_by_role("link", name="NL", exact=True).click()
    dialog = page.get_by_role("dialog", name="NL")
    expect(dialog).to_be_visible()
    headings = ["Users", "Addresses", "Providers"]
    assert dialog.locator("h3").all_inner_texts() == headings
    assert dialog.locator("table").nth(0).locator("tbody tr").count() == 40
    (address,) = dialog.locator("table").nth(1).locator("tbody tr").all_inner_texts()
    (name,) = {place.provider for place in FOUND.places.values() if place.country == "NL"}
    assert address.split("\n") == ["203.0.113.4", f"NL, {name}", "\t200"]
    page.evaluate("location.hash = 'user=user3'")
    expect(page.locator("#view-facts")).to_contain_text("those on this page are of 2 countries, 2 providers")


def test_an_address_has_its_names_beside_it_and_is_found_by_them(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month)
    names = ", ".join(FOUND.names[BARE])
    page.get_by_label("Search these destinations").first.fill("cdn.example")
    row = page.locator("#top tbody tr:visible")
    assert row.locator("> :nth-child(-n + 2)").all_inner_texts() == [BARE, names]
    row.get_by_role("link", name=BARE, exact=True).click()
    expect(page.locator("#view-facts")).to_contain_text(f"40 of 40 users; names: {names}")
    page.get_by_role("dialog").get_by_role("link", name="user6", exact=True).click()
    expect(page.get_by_role("dialog", name="user6").get_by_text(names)).to_be_visible()
    page.evaluate("location.hash = 'tag=block'")
    expect(page.get_by_role("dialog", name="block").get_by_text(names)).to_be_visible()
    assert page.locator("#blocked-1 tbody tr").nth(1).locator("td").first.inner_text() == names
    assert page.locator("#rising th").first.inner_text().startswith("destination")
    assert page.locator("#rising thead").get_by_text("names").count() == 0  # none of those has any


def test_rejected_sources_are_found_by_country_and_reason(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month)
    for wanted, count in (("za", 3), ("timeout", 12), ("za timeout", 0)):
        page.get_by_label("Search sources").fill(wanted)
        assert page.locator("#sources tbody tr:visible").count() == count


def test_a_destination_opens_all_of_its_visitors_that_the_page_has(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month)
    page.locator("#top").get_by_role("link", name="host1.example").click()
    expect(page.locator("#view-facts")).to_contain_text("40 of 74 users")
    assert page.get_by_role("dialog").locator("tbody tr").count() == 40


@pytest.mark.parametrize("sign", ["=", "＝"])
def test_a_table_is_saved_as_it_is_shown_and_nothing_of_it_is_a_formula(
    month: Path, tmp_path: Path, opened: Callable[..., Page], sign: str
) -> None:
    path = tmp_path / "report.html"
    path.write_text(month.read_text().replace("host0.example", f"{sign}cmd|calc"))
    page = opened(path)
    page.get_by_label("Search these destinations").first.fill("calc")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV: The most visited ones").click()
    saved = Path(download.value.path()).read_text().splitlines()
    assert saved == [
        '"destination","names","rows","before","users","ports"', f'"\'{sign}cmd|calc","","90","30","74","tcp/443"'
    ]  # fmt: skip


def test_every_table_can_be_saved_also_those_of_a_dialog_and_of_a_chart(
    month: Path, opened: Callable[..., Page]
) -> None:
    page = opened(month)
    for summary in page.locator("details > summary:visible").all():
        summary.click()
    page.evaluate("location.hash = 'user=user6'")
    page.get_by_role("dialog", name="user6").wait_for()
    tables = page.locator("main table:visible, dialog table").count()
    assert page.locator("main .tools:visible, dialog .tools").count() == tables
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV: Addresses").or_(
            page.get_by_role("button", name="Save as CSV: Addresses: the 6")
        ).first.click()
    saved = Path(download.value.path()).read_text().splitlines()
    assert saved[:2] == ['"address","rows"', '"203.0.113.0","9"']


def test_a_table_is_saved_with_the_numbers_that_it_shows(tmp_path: Path, opened: Callable[..., Page]) -> None:
    gap = Gap("n1", NOW - timedelta(hours=90), NOW - timedelta(hours=81, minutes=35))
    path = tmp_path / "report.html"
    path.write_text(pages.render(replace(FOUND, gaps=[gap]), Runs(), NOW, is_masked=False))
    page = opened(path)
    for table in ("#gaps", "#nodes"):
        tools = page.locator(".scroll", has=page.locator(table)).locator("+ .tools")
        with page.expect_download() as download:
            tools.get_by_role("button", name="Save as CSV").click()
        saved = [*csv.reader(Path(download.value.path()).read_text().splitlines())]
        shown = page.locator(f"{table} tbody tr").first.locator("th, td").all_inner_texts()
        assert saved[1] == [text.replace(",", "") for text in shown], table


@pytest.mark.parametrize("text", ["a\tb", "\u009b31m", "\x7f=1", "\t=1+1"])
def test_no_control_character_leaves_the_page_in_a_table(
    tmp_path: Path, opened: Callable[..., Page], text: str
) -> None:
    path = tmp_path / "report.html"
    goal = replace(FOUND.top[0], address=text)
    path.write_text(pages.render(replace(FOUND, top=[goal], rising=[], names={}), Runs(), NOW, is_masked=False))
    page = opened(path)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV: The most visited ones").click()
    cell = Path(download.value.path()).read_text().splitlines()[1].split(",")[0].strip('"')
    assert cell.isprintable()
    assert not cell.lstrip().startswith("=")


def test_no_row_of_a_phone_is_mostly_blank(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month, viewport={"width": 390, "height": 844})
    heights = page.evaluate(
        "[...document.querySelectorAll('main tbody tr')].map((row) => row.clientHeight || row.offsetHeight)"
    )
    assert max(heights) < 90


def test_the_page_loads_itself_anew_if_it_was_asked_to(
    month: Path, tmp_path: Path, opened: Callable[..., Page]
) -> None:
    path = tmp_path / "report.html"
    path.write_text(pages.render(FOUND, Runs(), NOW, is_masked=False, refresh_s=60))
    page = opened(path)
    assert page.get_by_label("loads itself anew after 60 s").is_checked()
    assert opened(month).locator("#refresh").count() == 0


def test_what_scrolls_in_a_dialog_is_reached_by_the_keyboard(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month)
    page.get_by_role("link", name="user6", exact=True).click()
    regions = page.get_by_role("dialog").get_by_role("region")
    expect(regions).to_have_count(8)  # addresses, destinations, days, networks, tags, ports, countries and providers
    assert all(region.get_attribute("tabindex") == "0" for region in regions.all())
