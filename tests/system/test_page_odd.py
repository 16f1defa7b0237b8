"""Pages of unusual data in a real Chromium: nothing is hidden, every link leads somewhere, and nobody is kept out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from helpers.report_data import BERLIN, LAST
from helpers.report_month import FOUND, GOALS, NOW, WINDOW
from helpers.site import wait_until
from playwright.sync_api import Page, expect

from xraylog.report import page as pages
from xraylog.report.model import Findings, Node, Slot
from xraylog.report.run_history import Runs
from xraylog.report.window import Window

HOUR = timedelta(hours=1)
NAMES = (
    "constructor",
    "__proto__",
    "toString",
    "#",
    "%",
    "100%",
    "a&b=c",
    "  blanks  ",
    "cr\rname",
    "(others)",
    "🙂",
    "x" * 250,
)


def cut(window: Window) -> Findings:
    """The part of the month that is in a window."""
    slots = [slot for slot in FOUND.slots if window.since - HOUR < slot.start < window.until]
    users = [replace(user, by_day=[*user.by_day][: len(window.days)]) for user in FOUND.users]
    activity = [of for of in FOUND.activity if window.since - HOUR < of[0] < window.until]
    return replace(FOUND, window=window, slots=slots, users=users, activity=activity)


def many_nodes() -> Findings:
    slots = [replace(slot, node=f"node{number % 30}") for number, slot in enumerate(FOUND.slots)]
    nodes = [
        Node(name, sum(slot.rows for slot in slots if slot.node == name), WINDOW.since, NOW, 3, NOW)
        for name in sorted({slot.node for slot in slots})
    ]
    return replace(FOUND, nodes=nodes, slots=slots)


def many_tags() -> Findings:
    tags = {f"tag{number}": 1000 - number for number in range(200)} | {f"block-{number}": 99 for number in range(200)}
    goals = {tag: [(f"host{n}.{tag}.example", 9) for n in range(50)] for tag in tags if tag.startswith("block")}
    slots = [replace(slot, outbound=f"tag{number % 200}") for number, slot in enumerate(FOUND.slots)]
    return replace(FOUND, tags=tags, tag_destinations=goals, slots=slots)


def odd_names() -> Findings:
    users = [
        replace(FOUND.users[0], name=name, tags={name: 5}, destinations=[(name, 4)], visited_from=[("203.0.113.1", 4)])
        for name in NAMES
    ]
    return replace(
        FOUND, users=users, total_users=len(users), tags=dict.fromkeys(NAMES, 5), rising=[], names={},
        tag_destinations={"block": [(name, 3) for name in NAMES]},
        nodes=[replace(FOUND.nodes[0], name=name) for name in NAMES],
        top=[replace(GOALS[0], address=name, visitors=[(name, 3)]) for name in NAMES],
    )  # fmt: skip


PAGES: dict[str, Callable[[], Findings]] = {
    "empty": lambda: Findings(WINDOW),
    "of one user": lambda: replace(
        FOUND,
        users=FOUND.users[:1],
        total_users=1,
        top=GOALS[:1],
        rising=[],
        sources=[],
        reasons=[],
        places={},
        names={},
    ),
    "of an hour": lambda: cut(Window(BERLIN, NOW - HOUR, NOW)),
    "of a day": lambda: cut(Window.of(BERLIN, 1, LAST, NOW)),
    "of many nodes": many_nodes,
    "of many tags": many_tags,
    "of odd names": odd_names,
}


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(found: Findings) -> Path:
        path = tmp_path / "report.html"
        path.write_text(pages.render(found, Runs(), NOW, is_masked=False), newline="")
        return path

    return write


@pytest.mark.parametrize("name", PAGES)
def test_nothing_keeps_people_from_using_a_page_of_unusual_data(
    written: Callable[..., Path],
    opened: Callable[..., Page],
    violations: Callable[[Page], object],
    name: str,
) -> None:
    page = opened(written(PAGES[name]()), color_scheme="dark", viewport={"width": 390, "height": 844})
    assert violations(page) == []
    page.evaluate("location.hash = 'day=2025-11-17'")
    page.get_by_role("dialog").wait_for()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


@pytest.mark.parametrize("kind", ["user", "destination", "tag", "node"])
def test_a_name_leads_to_itself_whatever_it_is(
    written: Callable[..., Path], opened: Callable[..., Page], kind: str
) -> None:
    page = opened(written(odd_names()))
    heading = page.locator("#view h2")
    table = {"user": "users", "destination": "top", "tag": "tags", "node": "nodes"}[kind]
    links = page.locator(f"#{table} tbody th a").evaluate_all("links => links.map((link) => link.href.split('#')[1])")
    assert sorted(links) == sorted(f"{kind}={quote(name, safe='~()*!' + chr(39))}" for name in NAMES)
    for name, address in zip(NAMES, (f"{kind}={quote(name, safe='')}" for name in NAMES), strict=True):
        page.evaluate("address => { location.hash = address; }", address)
        wait_until(lambda: heading.evaluate("heading => heading.textContent") == name)  # noqa: B023  # called at once
        expect(heading).to_have_attribute("data-kind", kind)
        assert "nothing of it" not in page.locator("#view-facts").inner_text()


@pytest.mark.parametrize("name", ["constructor", "__proto__", "toString"])
@pytest.mark.parametrize(
    "kind", ["user", "destination", "address", "network", "country", "day", "tag", "ports", "node"]
)
def test_a_name_that_the_page_has_not_leads_to_nothing(
    written: Callable[..., Path], opened: Callable[..., Page], kind: str, name: str
) -> None:
    page = opened(written(FOUND))
    page.evaluate("address => { location.hash = address; }", f"{kind}={name}")
    page.get_by_text("This page has nothing of it.").wait_for()


def test_a_node_opens_its_days_however_many_nodes_there_are(
    written: Callable[..., Path], opened: Callable[..., Page]
) -> None:
    found = many_nodes()
    page = opened(written(found))
    page.locator("#nodes").get_by_role("link", name="node29", exact=True).click()
    dialog = page.get_by_role("dialog", name="node29")
    (rows,) = [node.rows for node in found.nodes if node.name == "node29"]
    expect(page.locator("#view-facts")).to_contain_text(
        f"{rows:,} rows, 3 unparsed lines, last accepted 2025-11-17 13:20."
    )
    counts = dialog.locator("table").first.locator("td:nth-child(2)").all_inner_texts()
    assert sum(int(count.replace(",", "")) for count in counts) == rows
    day = dialog.locator("table").first.get_by_role("link").first
    day.click()
    expect(page.locator("#view h2")).to_have_attribute("data-kind", "day")
    expect(page.get_by_role("dialog").get_by_role("link", name="node29", exact=True)).to_be_visible()


def test_what_is_no_tag_is_no_link(written: Callable[..., Path], opened: Callable[..., Page]) -> None:
    page = opened(written(many_tags()))
    page.evaluate("location.hash = 'day=2025-11-16'")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("cell", name="(others)")).to_be_visible()
    assert dialog.get_by_role("link", name="(others)").count() == 0


@pytest.mark.parametrize(("since", "parts"), [(WINDOW.since + HOUR / 2, 2), (WINDOW.since, 1)])
def test_days_that_the_page_has_in_part_are_drawn_so(
    written: Callable[..., Path], opened: Callable[..., Page], since: object, parts: int
) -> None:
    page = opened(written(replace(FOUND, window=replace(WINDOW, since=since))))
    assert page.locator("#users svg.days").first.locator(".partial").count() == parts
    assert page.locator("figure[data-chart=traffic] .in-local path.cut").count() == parts
    page.locator("figure[data-chart=traffic] .plot:visible").focus()
    for key, said in (("Home", " (not all of it) " if parts == 2 else ":00 "), ("End", " (not all of it) ")):
        page.keyboard.press(key)
        assert said in page.locator("#tip").inner_text(), key


YEAR = Window.of(ZoneInfo("America/New_York"), 300, date(2025, 11, 18), datetime(2025, 11, 18, 17, tzinfo=timezone.utc))


def of_a_year() -> Findings:
    """One row in each hour, of a tag and a user that change with the week, counted from a Monday of New York's."""
    hours = [YEAR.since + timedelta(hours=n) for n in range((YEAR.until - YEAR.since) // timedelta(hours=1))]
    tags = ["odd" if hour.astimezone(YEAR.zone).isocalendar().week % 2 else "even" for hour in hours]
    slots = [Slot(hour, "n1", tag, "accepted", 1) for hour, tag in zip(hours, tags, strict=True)]
    by_day = Counter(hour.astimezone(YEAR.zone).date() for hour in hours)
    users = [
        replace(
            FOUND.users[0], name=name, by_day=[by_day[day] * (day.isocalendar().week % 2 == odd) for day in YEAR.days]
        )
        for odd, name in enumerate(("even", "odd"))
    ]
    nodes = [replace(FOUND.nodes[0], rows=len(slots))]
    return replace(FOUND, window=YEAR, slots=slots, users=users, total_users=2, nodes=nodes, activity=())


@pytest.mark.parametrize("zone", ["America/New_York", "UTC"])
def test_a_bar_of_a_long_time_opens_its_week(
    written: Callable[..., Path], opened: Callable[..., Page], violations: Callable[[Page], object], zone: str
) -> None:
    page = opened(written(of_a_year()))
    page.get_by_label(zone).check()
    plot = page.locator("figure[data-chart=traffic] .plot:visible")
    plot.focus()
    plot.press("Home")
    for _ in range(5):
        plot.press("ArrowRight")
    plot.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(page.locator("#view h2")).to_have_attribute("data-kind", "week")
    monday = date.fromisoformat(page.locator("#view h2").inner_text())
    assert monday.weekday() == 0
    name = "odd" if monday.isocalendar().week % 2 else "even"
    hours = str(7 * 24 + (monday == date(2025, 3, 3)) * -1)
    tables = [table.locator("tbody tr").all_inner_texts() for table in dialog.locator("table").all()]
    assert [[row.split() for row in rows] for rows in tables[:3]] == [[[name, hours]], [[name, hours]], [["n1", hours]]]
    assert [row.split()[0] for row in tables[3]] == [str(monday + timedelta(days=n)) for n in range(7)]
    assert violations(page) == []
    dialog.get_by_role("link", name=str(monday), exact=True).click()
    expect(page.locator("#view h2")).to_have_attribute("data-kind", "day")
    assert "Outbound tags" not in dialog.locator("h3").all_inner_texts()  # charts have those of weeks alone


def test_the_first_week_of_a_long_time_has_the_days_that_the_page_has(
    written: Callable[..., Path], opened: Callable[..., Page]
) -> None:
    page = opened(written(of_a_year()))
    first = YEAR.first - timedelta(days=YEAR.first.weekday())
    assert first < YEAR.first
    page.evaluate("address => { location.hash = address; }", f"week={first}")
    rows = page.get_by_role("dialog").locator("table").nth(1).locator("tbody tr").all_inner_texts()
    days = 7 - YEAR.first.weekday()
    assert [row.split()[1] for row in rows] == [str(24 * days)]
    for other in (first + timedelta(days=1), first - timedelta(days=7), "constructor"):
        page.evaluate("address => { location.hash = address; }", f"week={other}")
        page.get_by_text("This page has nothing of it.").wait_for()


def test_an_hour_that_occurs_twice_says_which_of_them_it_is(tmp_path: Path, opened: Callable[..., Page]) -> None:
    """As the page was written, and as the script writes it again: 02:30 in Berlin, before and after clocks go back."""
    end = datetime(2026, 10, 25, 1, tzinfo=timezone.utc)
    window = Window(BERLIN, end - 3 * HOUR, end + 3 * HOUR)
    nodes = [Node(f"n{n}", 1, at, at, 0, at) for n, at in enumerate((end - HOUR / 2, end + HOUR / 2, end + 2 * HOUR))]
    path = tmp_path / "report.html"
    path.write_text(pages.render(Findings(window, nodes), Runs(), window.until, is_masked=False))
    for has_scripts in (False, True):
        times = opened(path, java_script_enabled=has_scripts).locator("#nodes tbody tr td:nth-child(7)")
        assert times.all_text_contents() == [
            "2026-10-25 02:30+02:00", "2026-10-25 02:30+01:00", "2026-10-25 04:00"
        ]  # fmt: skip
