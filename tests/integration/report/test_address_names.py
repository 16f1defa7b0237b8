"""Bare addresses have the names that `dns_names` has for them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from helpers import citus
from helpers.report_data import LAST, ROWS, WINDOW, Row, data, fill, read, report, text
from helpers.site import Site

from xraylog.database import dns_names, optional
from xraylog.database.session import Connection
from xraylog.report import address_names
from xraylog.report.model import Findings
from xraylog.report.page_mask import PageMask

BARE = ("198.51.100.9", "198.51.100.10", "2001:db8::9", "198.51.100.11")
ANSWERS = {  # days before the last one, names
    "198.51.100.9": [(0, f"name{n}.example") for n in range(6)],
    "198.51.100.10": [(4, "eve.example"), (5, "too-old.example"), (-1, "too-new.example")],
    "2001:db8::9": [(1, "six.example"), (2, "six.example")],
    "203.0.113.1": [(1, "client.example")],
}
EXPECTED = """
    SELECT d.address, (array_agg(DISTINCT e.address::text ORDER BY e.address::text))[:5]
    FROM dns_names d JOIN endpoints e ON e.id = d.endpoint_id
    WHERE d.day BETWEEN %s AND %s AND host(d.address) = ANY (%s)
    GROUP BY d.address
"""


def rows_to(*hosts: str) -> list[Row]:
    """Return rows of alice to each, accepted and blocked, the first one the most."""
    row = ROWS[0]._replace(at=WINDOW.midnights[1], email="alice", source="203.0.113.1", port=443, action="accepted")
    return [row._replace(host=host, tag=tag) for n, host in enumerate(hosts) for tag in ["direct", "block"] * (9 - n)]


def answer(conn: Connection, address: str, day: object, name: str) -> None:
    conn.execute("INSERT INTO endpoints (address) VALUES (%s) ON CONFLICT DO NOTHING", [name])
    conn.execute("INSERT INTO dns_names SELECT %s, 1, %s, id FROM endpoints WHERE address = %s", [day, address, name])


@pytest.fixture
def visited(conn: Connection) -> Connection:
    """A session in the test's database: alice went to bare addresses, and to a host."""
    fill(conn, rows_to(*BARE, "host.example"))
    return conn


@pytest.fixture
def with_names(visited: Connection) -> Connection:
    """The same, with what DNS answered."""
    visited.execute(dns_names.CREATE)
    for address, names in ANSWERS.items():
        for days, name in names:
            answer(visited, address, LAST - timedelta(days=days), name)
    return visited


def test_the_names_of_an_address_are_those_of_plain_sql(with_names: Connection, database: dict[str, str]) -> None:
    days = [WINDOW.since.date() - timedelta(days=1), WINDOW.until.date(), list(BARE)]
    expected = {str(address): names for address, names in with_names.execute(EXPECTED, days)}
    assert read(database).names == expected
    assert expected == {
        "198.51.100.9": [f"name{n}.example" for n in range(5)],
        "198.51.100.10": ["eve.example"],
        "2001:db8::9": ["six.example"],
    }


def test_the_page_has_them_beside_each_of_its_destinations(with_names: Connection, site: Site) -> None:
    site.set("parser", timezone="Europe/Berlin")
    report(site)
    has = data(site)
    called = {has["names"][int(at)]: [has["names"][name] for name in of] for at, of in has["called"].items()}
    assert called == read(site.database).names
    for table in ("top", "blocked-1"):
        cells = text(site).partition(f'<table id="{table}"')[2].partition("</table>")[0]
        assert '<td class="name left">name0.example, name1.example' in cells
        assert ">names</th>" in cells
    del with_names


def test_a_page_without_that_table_is_as_before_and_asks_one_question_more(
    visited: Connection, site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sent = citus.record(monkeypatch, tmp_path / "sent")
    before = read(site.database)
    state = " ".join(optional.STATE.split())
    assert (sent().count(state), [sql for sql in sent() if "FROM dns_names" in sql]) == (2, [])  # networks, too
    visited.execute("CREATE TABLE dns_names (day date, name text)")  # another application's
    assert read(site.database) == before
    visited.execute("DROP TABLE dns_names")
    visited.execute(dns_names.CREATE)  # our own, but empty
    assert read(site.database) == before
    assert (before.names, [*before.complaints]) == ({}, [])
    report(site)
    assert ">names</th>" not in text(site)


def test_a_page_of_hosts_asks_for_no_names(
    filled: Connection, database: dict[str, str], found: Findings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    filled.execute("UPDATE endpoints SET address = 'host' || id WHERE address ~ '^[0-9]'")
    sent = citus.record(monkeypatch, tmp_path / "sent")
    assert read(database).rows == found.rows
    assert sent().count(" ".join(optional.STATE.split())) == 1  # of networks


def test_a_masked_page_has_no_names_of_addresses(with_names: Connection, site: Site) -> None:
    assert read(site.database, mask=PageMask(hides=True)).names == {}
    report(site, "--mask")
    assert "name0.example" not in text(site)
    assert "eve.example" not in text(site)
    assert "198.51.100.0/24" in text(site)
    del with_names


def test_where_citus_distributes_logs_they_are_the_same(with_names: Connection, database: dict[str, str]) -> None:
    before = read(database)
    citus.distribute(with_names)
    assert read(database) == replace(before, has_snapshot=False)


def test_of_more_names_than_fit_those_of_the_most_visited_are_shown(
    with_names: Connection, database: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client can forge answers."""
    monkeypatch.setattr(address_names, "MAX_CHARACTERS", 5 * len("name0.example"))
    assert [*read(database).names] == ["198.51.100.9"]
    del with_names


@pytest.mark.usefixtures("with_names", "reader")
def test_a_role_that_may_not_read_them_gets_the_grant_it_needs(site: Site, conn: Connection) -> None:
    report(site, "--mask")
    assert "Without what" not in text(site)  # a masked page needs none
    report(site)
    assert "name0.example" not in text(site)
    (grant,) = set(text(site).split("Without what dns_names has; as the owner of dns_names: ")[1:])
    conn.execute(grant.partition("</li>")[0].replace("&#34;", '"'))  # type: ignore[call-overload]
    report(site)
    assert "name0.example" in text(site)
    assert "Without what" not in text(site)
