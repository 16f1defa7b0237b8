"""The page in a real Chromium: nothing is asked of anybody, nothing of the log runs, tables sort, search and tell."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote
from zoneinfo import ZoneInfo

import psycopg
import pytest
from helpers.report_data import BERLIN, INSIDE, LAST, LET_IN, NODES, NOON, ROWS, WINDOW, Row, data, fill, report
from helpers.site import ROOT, Site, create_database, drop_database
from playwright.sync_api import Page, expect

from xraylog.database import dns_names, networks
from xraylog.database.session import Connection
from xraylog.printed import escaped
from xraylog.report.window import Window

HOSTILE = (
    "<script>document.title='broken'</script>",
    "</script><script>document.title='broken'</script>",
    "<!--<script>document.title='broken'//",
    "\"><img src=x onerror=document.title='broken'>",
    "'><svg onload=document.title='broken'>",
    "<a href=javascript:document.title='broken'>x</a>",
    "javascript:document.title='broken'",
    "{{ 7 * 7 }}{% raw %}${7*7}",
    "&lt;b&gt;&amp;\u2028\u2029\u202ertl",
    "--></style></title><style>*{display:none}</style>",
    "a\\u003cscript\\u003e\\",
)
SHOWN = [escaped(text) for text in HOSTILE]


@pytest.fixture(scope="module")
def rendered(server_keywords: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of ROWS, in Berlin's time."""
    site = Site(tmp_path_factory.mktemp("site"), create_database(server_keywords))
    with psycopg.connect(**site.database, autocommit=True) as conn:  # type: ignore[arg-type]
        fill(conn, ROWS)
    site.set("parser", timezone="Europe/Berlin")
    report(site)
    drop_database(site.database)
    return page_of(site).read_text()


@pytest.fixture
def written(tmp_path: Path, rendered: str) -> Site:
    """A site with that page, which a test may change."""
    site = Site(tmp_path, {})
    page_of(site).write_text(rendered)
    return site


def page_of(site: Site) -> Path:
    return site.folder / "report.html"


def column(page: Page, table: str, number: int) -> list[str]:
    cells: list[str] = page.locator(f"#{table} tbody tr:visible > :nth-child({number})").all_inner_texts()
    return cells


def test_every_section_is_there_and_nothing_is_asked_of_anybody(written: Site, opened: Callable[..., Page]) -> None:
    page = opened(page_of(written))
    headings = ["Now", "Traffic", "Users", "Destinations", "Outbound tags", "Ports", "Rejected"]
    assert page.locator("main h2:visible").all_inner_texts() == headings
    assert page.locator("figure svg:visible").count() == 6  # active users, rows, by tag, node and weekday, and rejected
    for name in headings:
        page.get_by_role("navigation").get_by_role("link", name=name, exact=True).click()
    policy = page.locator("meta[http-equiv]").get_attribute("content") or ""
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_the_users_are_shown_as_they_were_found(written: Site, opened: Callable[..., Page]) -> None:
    page = opened(page_of(written))
    users = data(written)["users"]
    shown = list(zip(*(column(page, "users", number) for number in range(1, 9)), strict=True))
    for row, user in zip(shown, users, strict=True):
        assert row[:6] == (user[0], *(f"{number:,}" for number in user[1:6]))
    first = min(row.at for row in LET_IN if row.email == users[0][0])
    assert shown[0][6] == first.astimezone(BERLIN).strftime("%Y-%m-%d %H:%M")
    assert page.locator("#users svg polyline").count() == len(users)


def test_times_follow_the_readers_choice(written: Site, opened: Callable[..., Page]) -> None:
    page = opened(page_of(written))
    local = column(page, "users", 7)
    labels = page.locator("#traffic figure svg:visible").nth(0).inner_html()
    page.get_by_label("UTC").check()
    assert page.locator("#traffic figure svg:visible").count() == 3
    moments = [row.at for row in LET_IN if row.email == column(page, "users", 1)[0]]
    assert column(page, "users", 7)[0] == min(moments).strftime("%Y-%m-%d %H:%M")
    assert column(page, "users", 7) != local
    assert page.locator("#traffic figure svg:visible").nth(0).inner_html() != labels
    page.reload()  # as the page itself does with --refresh
    assert page.get_by_label("UTC").is_checked()
    assert column(page, "users", 7) != local
    assert page.locator("#traffic figure svg:visible").nth(0).inner_html() != labels
    page.get_by_label("Europe/Berlin").check()
    assert column(page, "users", 7) == local
    assert page.locator("#traffic figure svg:visible").nth(0).inner_html() == labels


def test_times_are_in_utc_where_the_browser_does_not_know_the_zone(written: Site, opened: Callable[..., Page]) -> None:
    text = page_of(written).read_text()
    page_of(written).write_text(text.replace('"zone":"Europe/Berlin"', '"zone":"Europe/Younger"'))
    page = opened(page_of(written))
    assert page.get_by_label("UTC").is_checked()
    assert page.get_by_label("Europe/Berlin (not known to this browser)").is_disabled()
    moments = [row.at for row in LET_IN if row.email == column(page, "users", 1)[0]]
    assert column(page, "users", 7)[0] == min(moments).strftime("%Y-%m-%d %H:%M")
    assert page.locator("#traffic .in-utc svg:visible").count() == 3
    assert page.locator("#traffic .in-local svg:visible").count() == 0


def test_days_of_each_zone_have_a_table_of_their_own(site: Site, conn: Connection, opened: Callable[..., Page]) -> None:
    fill(conn, ROWS)
    site.set("parser", timezone="Asia/Kathmandu")
    report(site, "--days", "63")
    page = opened(page_of(site))
    page.locator("details.numbers[data-chart=traffic] summary").click()
    for zone, name in (("UTC", "UTC"), ("Asia/Kathmandu", "Asia/Kathmandu")):
        page.get_by_label(name).check()
        days = page.locator("details.numbers[data-chart=traffic] tbody th").all_inner_texts()
        window = Window.of(ZoneInfo("Asia/Kathmandu"), 63, LAST, NOON + timedelta(days=9))
        rows = [row for row in ROWS if window.since <= row.at < window.until]
        assert days == [f"{day} 00:00" for day in sorted({row.at.astimezone(ZoneInfo(zone)).date() for row in rows})]


def test_both_zones_show_the_same_areas(written: Site, opened: Callable[..., Page]) -> None:
    """Those of UTC are drawn once, in the other chart, which is hidden by then."""
    page = opened(page_of(written))
    drawn = page.locator("#traffic .in-local path[id]").evaluate_all(BOXES)
    page.get_by_label("UTC").check()
    shown = page.locator("#traffic .in-utc use").evaluate_all(BOXES)
    assert shown == drawn
    assert len(shown) > 5
    assert all(width > 100 and height > 0 for width, height in shown)


BOXES = """marks => marks.map((mark) => {
    const box = mark.getBoundingClientRect();
    return [Math.round(box.width), Math.round(box.height)];
})"""


def test_tables_sort_by_every_column_both_ways(written: Site, opened: Callable[..., Page]) -> None:
    page = opened(page_of(written))
    for table in (
        "users",
        "top",
        "reasons",
        "sources",
        "gaps",
        "protocols",
        "groups",
        "tags",
        "nodes",
        "rising",
        "new",
    ):
        for header in page.locator(f"#{table} thead button").all():
            place = int(header.evaluate("button => button.parentElement.cellIndex")) + 1
            ways = []
            for _ in range(2):
                header.click()
                ways.append(header.locator("..").get_attribute("aria-sort"))
                values = page.locator(f"#{table} tbody tr > :nth-child({place})").evaluate_all(
                    "cells => cells.map(cell => cell.dataset.value === undefined"
                    " ? cell.textContent.trim().toLowerCase() : Number(cell.dataset.value))"
                )
                assert values == sorted(values, reverse=ways[-1] == "descending"), (table, place)
            assert sorted(map(str, ways)) == ["ascending", "descending"]


def test_tables_are_sorted_by_keyboard(written: Site, opened: Callable[..., Page]) -> None:
    page = opened(page_of(written))
    page.locator("#users thead button").nth(2).focus()
    page.keyboard.press("Enter")
    addresses = [int(text.replace(",", "")) for text in column(page, "users", 3)]
    assert addresses == sorted(addresses, reverse=True)


def test_tables_are_searched(written: Site, opened: Callable[..., Page]) -> None:
    page = opened(page_of(written))
    page.get_by_label("Search users").fill("ALI")
    assert column(page, "users", 1) == ["alice"]
    assert page.locator("#users-found").inner_text() == "1 shown."
    page.get_by_label("Search users").fill("")
    assert len(column(page, "users", 1)) == 4
    page.get_by_label("Search these destinations").first.fill("host2")
    hosts = column(page, "top", 1)
    assert hosts
    assert all("host2" in host for host in hosts)


def test_a_destination_is_found_by_a_port_and_a_visitor_and_not_by_a_count(
    written: Site, opened: Callable[..., Page]
) -> None:
    page = opened(page_of(written))
    search = page.get_by_label("Search these destinations").first
    search.fill("tcp/443")
    assert column(page, "top", 1)
    search.fill("alice")
    assert 0 < len(column(page, "top", 1)) <= len({row.host for row in LET_IN if row.email == "alice"})
    search.fill(" of ")
    assert column(page, "top", 1) == []


def test_a_user_is_found_by_an_address(written: Site, opened: Callable[..., Page]) -> None:
    page = opened(page_of(written))
    address = next(row.source for row in LET_IN if row.email and row.source and row.source.startswith("2001:db8"))
    page.get_by_label("Search users").fill(address.upper())
    assert set(column(page, "users", 1)) == {row.email for row in LET_IN if row.email and row.source == address}


def test_a_click_or_a_key_shows_a_users_addresses_and_destinations(written: Site, opened: Callable[..., Page]) -> None:
    page = opened(page_of(written))
    user = data(written)["users"][0]
    page.get_by_role("link", name=user[0]).first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name=user[0])
    expect(dialog).to_be_visible()  # the page learns of a new address a moment later
    tables = dialog.locator("table")
    assert tables.nth(0).locator("tbody td:first-child").all_inner_texts() == [address for address, _ in user[9]]
    assert tables.nth(1).locator("tbody td:first-child").all_inner_texts() == [
        data(written)["names"][place] for place, _ in user[10]
    ]
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    assert page.evaluate("document.activeElement.textContent") == user[0]


@pytest.mark.parametrize(
    ("options", "heading"),
    [((), "Addresses: the 100 most frequent of 120"), (("--mask",), "Most frequent networks")],
    ids=["addresses", "masked"],
)
def test_a_user_with_more_addresses_than_are_shown_says_so(
    site: Site, conn: Connection, opened: Callable[..., Page], options: tuple[str, ...], heading: str
) -> None:
    fill(conn, [INSIDE[0]._replace(at=WINDOW.midnights[1], email="alice", source=f"10.0.0.{n}") for n in range(120)])
    report(site, *options)
    page = opened(page_of(site))
    page.locator("#users tbody a").click()
    assert page.get_by_role("dialog").get_by_role("heading").nth(1).inner_text() == heading


def test_a_page_without_rows_leads_to_no_section_that_is_not_there(
    site: Site, conn: Connection, opened: Callable[..., Page]
) -> None:
    fill(conn, [])
    report(site)
    links = opened(page_of(site)).locator("a[href^='#']:not([href*='='])")
    places = links.evaluate_all("links => links.map((link) => document.querySelector(link.hash)?.id)")
    assert places == ["traffic", "now", "traffic"]


def test_a_page_without_rows_works_where_the_browser_does_not_know_the_zone(
    site: Site, conn: Connection, opened: Callable[..., Page]
) -> None:
    fill(conn, [])
    site.set("parser", timezone="Europe/Berlin")
    report(site)
    page_of(site).write_text(page_of(site).read_text().replace('"zone":"Europe/Berlin"', '"zone":"Europe/Younger"'))
    page = opened(page_of(site))
    assert page.get_by_label("UTC").is_checked()
    assert page.locator("#nodes thead button").count() == 10


def test_who_visits_a_destination_is_shown(written: Site, opened: Callable[..., Page]) -> None:
    page = opened(page_of(written))
    host = column(page, "top", 1)[0]
    page.get_by_role("link", name=host, exact=True).first.click()
    dialog = page.get_by_role("dialog", name=host)
    expect(dialog).to_be_visible()
    shown = dialog.locator("tbody td:first-child").all_inner_texts()
    assert set(shown) == {row.email for row in LET_IN if row.host == host and row.email}


def test_every_chart_has_its_numbers_as_a_table(written: Site, opened: Callable[..., Page]) -> None:
    page = opened(page_of(written))
    for summary in page.locator("details > summary:visible").all():
        summary.click()
    rows = page.locator("details[data-chart=traffic] td").all_inner_texts()
    assert sum(int(text.replace(",", "")) for text in rows) == len(INSIDE)
    week = page.locator("#traffic .in-local details table tbody td").all_inner_texts()
    most = page.get_by_text("The stronger, the more rows: on average at most ").first.inner_text()
    assert most.endswith(f" {max(int(text.replace(',', '')) for text in week):,}.")
    assert sum(int(text.replace(",", "")) for text in week) == len(INSIDE)


def test_hostile_strings_stay_text(site: Site, conn: Connection, opened: Callable[..., Page]) -> None:
    """A client can put bytes of its choice into the log: as user, host and tag."""
    rows = [
        Row(WINDOW.midnights[1] + timedelta(hours=n), "10.0.0.1", "accepted", "tcp", text, 443, text, text, text)
        for n, text in enumerate(HOSTILE)
    ]
    rows += [row._replace(action="rejected", why=row.email) for row in rows]
    rows = [row._replace(source=f"10.0.0.{n % len(HOSTILE)}") for n, row in enumerate(rows)]
    fill(conn, [row for row in rows for _ in range(3)])
    conn.execute(networks.CREATE)  # the operator can load a file of anybody's
    for n, text in enumerate(HOSTILE):
        conn.execute("INSERT INTO networks VALUES (%s, %s, 1, %s)", [f"10.0.0.{n}/32", text, text])
    report(site)
    page = opened(page_of(site))
    assert page.title() == "Xray traffic"
    assert page.evaluate("document.scripts.length") == 2
    assert (
        page.evaluate("document.querySelectorAll('img, iframe, object, embed, link, base, a[href^=javascript]').length")
        == 0
    )
    for table in ("users", "top", "nodes", "reasons", "countries", "providers"):
        names = page.locator(f"#{table} tbody th").evaluate_all("cells => cells.map(cell => cell.textContent)")
        assert sorted(names) == sorted([*SHOWN, *(NODES[:2] if table == "nodes" else ())]), table
    for text in SHOWN:
        for kind in ("user", "destination", "tag", "node", "country", "provider"):
            page.evaluate("address => { location.hash = address; }", f"{kind}={quote(text, safe='')}")
            expect(page.locator("#view h2")).to_have_attribute("data-kind", kind)
            assert page.locator("#view h2").evaluate("heading => heading.textContent") == text
            assert page.locator("#view td").count()
    assert page.title() == "Xray traffic"


def test_hostile_names_of_an_address_stay_text(site: Site, conn: Connection, opened: Callable[..., Page]) -> None:
    row = ROWS[0]._replace(at=WINDOW.midnights[1], email="alice", host="198.51.100.7", port=443, action="accepted")
    hosts = [f"198.51.100.{number}" for number in (7, 8, 9)]
    fill(conn, [row._replace(host=host, tag=tag) for host in hosts for tag in ("direct", "block")])
    conn.execute(dns_names.CREATE)
    for text in HOSTILE:  # five of an address are shown
        conn.execute(ADD_NAME, [text, hosts[HOSTILE.index(text) // 5]])
    report(site)
    page = opened(page_of(site))
    shown = set[str]()
    for host in hosts:
        ((names,),) = conn.execute(NAMES_OF, [host])
        shown |= {*names}
        page.evaluate("address => { location.hash = address; }", f"destination={host}")
        expect(page.locator("#view-facts")).to_contain_text("names: ")
        facts = page.locator("#view-facts").evaluate("facts => facts.textContent")
        cells = page.locator("#top tbody td:nth-child(2)").evaluate_all(
            "cells => cells.map((cell) => cell.textContent)"
        )
        assert escaped(", ".join(names)) in facts
        assert escaped(", ".join(names)) in cells
    assert shown == {*HOSTILE}
    page.evaluate("location.hash = 'user=alice'")
    expect(page.get_by_role("dialog", name="alice")).to_be_visible()
    assert (
        page.evaluate("document.querySelectorAll('img, iframe, object, embed, link, base, a[href^=javascript]').length")
        == 0
    )
    assert (page.title(), page.evaluate("document.scripts.length")) == ("Xray traffic", 2)


ADD_NAME = """
    WITH named AS (INSERT INTO endpoints (address) VALUES (%s) RETURNING id)
    INSERT INTO dns_names SELECT '2025-11-16', 1, %s, id FROM named
"""
NAMES_OF = """
    SELECT array_agg(e.address::text ORDER BY e.address::text)
    FROM dns_names d JOIN endpoints e ON e.id = d.endpoint_id WHERE d.address = %s
"""


def test_a_script_that_got_into_the_page_would_not_run(
    written: Site, opened: Callable[..., Page], tmp_path: Path
) -> None:
    """The policy is there for the day on which an escape is missing."""
    broken = tmp_path / "broken.html"
    broken.write_text(
        page_of(written).read_text().replace("<main>", "<main><script>document.title='broken'</script>", 1)
    )
    page = opened(page_of(written)).context.new_page()
    page.goto(broken.as_uri())
    assert page.title() == "Xray traffic"
    page.close()


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen(written: Site, opened: Callable[..., Page], width: int, scheme: str) -> None:
    page = opened(page_of(written), viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(written: Site, opened: Callable[..., Page], scheme: str) -> None:
    """WCAG 2.2, 1.4.3 and 1.4.11: 4.5 for text, 3 for what is drawn."""
    page = opened(page_of(written), color_scheme=scheme)
    colours = page.evaluate(COLOURS)
    for name, least in (("text", 4.5), ("quiet", 4.5), ("accent", 4.5), ("bad", 4.5)):
        assert contrast(colours[name], colours["page"]) >= least, name
        assert contrast(colours[name], colours["raised"]) >= least, name
    for number in range(6):
        assert contrast(colours[f"series-{number}"], colours["page"]) >= 3, number


COLOURS = """() => {
    const series = Array.from({length: 6}, (_, n) => `series-${n}`);
    const names = ["page", "text", "quiet", "accent", "bad", "raised", ...series];
    const probe = document.body.appendChild(document.createElement("p"));
    return Object.fromEntries(names.map((name) => {
        probe.style.color = `var(--${name})`;
        return [name, getComputedStyle(probe).color.match(/[0-9.]+/g).slice(0, 3).map(Number)];
    }));
}"""


def contrast(one: list[float], other: list[float]) -> float:
    """WCAG's contrast ratio of two sRGB colours."""

    def light(colour: list[float]) -> float:
        parts = [value / 255 for value in colour]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    lighter, darker = sorted((light(one), light(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_what_is_drawn_and_what_is_typed_in_has_a_name(written: Site, opened: Callable[..., Page]) -> None:
    page = opened(page_of(written))
    for role in ("img", "button", "searchbox", "region", "radio", "link"):
        found = page.get_by_role(role).all()
        assert found, role
        for one in found:
            assert one.evaluate(NAME), (role, one.evaluate("element => element.outerHTML")[:200])


NAME = """element => element.getAttribute("aria-label") || element.textContent.trim()
    || (element.labels && element.labels[0] && element.labels[0].textContent.trim())"""


def test_a_print_has_the_rows_without_what_can_be_clicked(written: Site, opened: Callable[..., Page]) -> None:
    page = opened(page_of(written))
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.get_by_role("navigation").is_visible()
    assert page.locator("input:visible, summary:visible").count() == 0
    assert page.locator("#users tbody tr:visible").count() == 4
    assert len(page.pdf()) > 10_000


def test_an_empty_page_says_so(site: Site, conn: Connection, opened: Callable[..., Page]) -> None:
    del conn  # a database without tables
    report(site)
    page = opened(page_of(site))
    assert "There are no rows in these days" in page.inner_text("main")


def test_a_masked_page_shows_networks_and_numbers(site: Site, conn: Connection, opened: Callable[..., Page]) -> None:
    fill(conn, ROWS)
    report(site, "--mask")
    page = opened(page_of(site))
    assert all(name.startswith("user ") for name in column(page, "users", 1))
    assert "users as numbers" in page.inner_text("header")
    for wanted, said in (
        ("203.0.113.7", "0 shown. This page has networks and no addresses."),
        ("203.0.113.0/24", "4 shown."),
    ):
        page.get_by_label("Search users").fill(wanted)
        expect(page.locator("#users-found")).to_have_text(said)


def test_the_readme_shows_the_page_that_there_is() -> None:
    picture = ROOT / "examples" / "report.png"
    assert "examples/report.png" in (ROOT / "README.md").read_text()
    assert picture.stat().st_size < 300_000
