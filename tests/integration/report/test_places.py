"""Countries and providers of a page are those of `networks` for the addresses that it shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import citus
from helpers.report_data import LET_IN, ROWS, WINDOW, data, fill, read, report, text
from helpers.site import Site
from psycopg.sql import SQL, Identifier

from xraylog.database import networks, optional
from xraylog.database.session import Connection
from xraylog.report import origins, places
from xraylog.report.model import Findings, Place
from xraylog.report.page_mask import PageMask

NETWORKS = """
    INSERT INTO networks VALUES
        ('203.0.113.0/30', 'AU', NULL, NULL), ('203.0.113.8/29', 'NZ', NULL, NULL), ('203.0.0.0/22', 'AU', NULL, NULL),
        ('203.0.112.0/20', NULL, 64496, 'Example, Inc.'), ('203.0.0.0/24', NULL, 64497, 'Other'),
        ('2001:db8:1::/48', 'FR', NULL, NULL), ('2001:db8::/32', NULL, 64498, 'Six'), ('198.18.0.0/15', 'ZA', 64499, '')
"""
# By GiST's operator, one address at a time.
EXPECTED = """
    SELECT n.{0}, count(DISTINCT l.user_id), count(DISTINCT l.source_ip), count(*)
    FROM logs l JOIN networks n ON n.network >>= l.source_ip
    WHERE n.{0} <> '' AND l.user_id IS NOT NULL AND l."timestamp" >= %s AND l."timestamp" < %s
          AND l.action = 'accepted'
    GROUP BY 1 ORDER BY 4 DESC, 1
"""


@pytest.fixture
def with_networks(filled: Connection) -> Connection:
    """A session in the test's database, which holds ROWS and some networks."""
    filled.execute(networks.CREATE)
    filled.execute(NETWORKS)
    return filled


@pytest.mark.parametrize("kind", ["country", "provider"])
def test_countries_and_providers_are_those_of_plain_sql(
    with_networks: Connection, database: dict[str, str], kind: str
) -> None:
    found = origins.of(read(database))
    query = SQL(EXPECTED).format(Identifier(kind))  # type: ignore[arg-type]
    expected = with_networks.execute(query, [WINDOW.since, WINDOW.until]).fetchall()
    shown = {"country": found.countries, "provider": found.providers}[kind]
    assert [(of.name, of.users, of.addresses, of.rows) for of in shown] == expected
    assert len(expected) >= 3
    assert found.addresses == len({row.source for row in LET_IN if row.email and row.source})
    assert found.with_country < found.addresses


def test_each_address_of_a_user_and_each_source_has_its_place(
    with_networks: Connection, database: dict[str, str]
) -> None:
    found = read(database)
    shown = {address for user in found.users for address, _ in user.visited_from}
    shown |= {source.address for source in found.sources if not source.address.startswith("(")}
    expected = {}
    for address in shown:
        ((country, provider),) = with_networks.execute(
            """SELECT max(country), max(nullif(provider, '')) FROM networks WHERE network >>= %s::inet""", [address]
        )
        if country or provider:
            expected[address] = Place(country, provider)
    assert found.places == expected
    assert {"2001:db8:1:1::1", "198.18.0.0/24", "203.0.113.1"} <= expected.keys()


def test_a_page_without_that_table_is_as_before_and_asks_whether_there_is_one(
    filled: Connection, database: dict[str, str], found: Findings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sent = citus.record(monkeypatch, tmp_path / "sent")
    assert read(database) == found
    asked = " ".join(optional.STATE.split())  # of `networks`, and of `dns_names`
    assert (sent().count(asked), [text for text in sent() if "FROM networks" in text]) == (2, [])
    filled.execute("CREATE TABLE networks (network cidr, country text)")  # another application's
    assert read(database) == found
    filled.execute("ALTER TABLE networks ADD asn bigint, ADD provider text")  # our own, but empty
    assert read(database) == found
    assert (found.places, [*found.complaints]) == ({}, [])


def test_a_page_without_that_table_has_no_such_section(site: Site, filled: Connection) -> None:
    report(site)
    assert "provider" not in text(site).partition("<body>")[2].partition('<script type="application/json"')[0]
    filled.execute(networks.CREATE)
    filled.execute("INSERT INTO networks VALUES ('192.0.2.0/24', 'DE', NULL, NULL)")  # of nobody
    report(site)
    assert "Countries and providers" not in text(site)


@pytest.mark.usefixtures("with_networks", "reader")
def test_a_role_that_may_not_read_them_gets_the_grant_it_needs(site: Site, conn: Connection) -> None:
    report(site)
    assert "Countries and providers" not in text(site)
    (grant,) = set(text(site).split("Without what networks has; as the owner of networks: ")[1:])
    conn.execute(grant.partition("</li>")[0].replace("&#34;", '"'))  # type: ignore[call-overload]
    report(site)
    assert "Countries and providers" in text(site)
    assert "Without what networks has" not in text(site)


@pytest.mark.usefixtures("with_networks")
def test_a_masked_page_has_them_by_network(database: dict[str, str], site: Site) -> None:
    masked = read(database, mask=PageMask(hides=True))
    assert masked.places == {
        "203.0.113.0/24": Place(None, "Example, Inc."),  # in two countries
        "203.0.0.0/24": Place("AU", "Other"),
        "203.0.1.0/24": Place("AU"),
        "203.0.2.0/24": Place("AU"),
        "203.0.3.0/24": Place("AU"),
        "2001:db8:1::/48": Place("FR", "Six"),
        "2001:db8:2::/48": Place(None, "Six"),
        "198.18.0.0/24": Place("ZA"),
    }
    report(site, "--mask")
    assert '<th scope="col">networks</th>' in text(site)
    assert "203.0.113.0/30" not in text(site)
    shown = Counter[str]()
    for user in masked.users:
        for address, rows in user.visited_from:
            shown[masked.places.get(address, Place()).country or ""] += rows
    assert {of.name: of.rows for of in origins.of(masked).countries} == {k: v for k, v in shown.items() if k}


def test_where_citus_distributes_logs_they_are_the_same(with_networks: Connection, database: dict[str, str]) -> None:
    before = read(database)
    citus.distribute(with_networks)
    assert read(database) == replace(before, has_snapshot=False)


def test_a_name_of_any_length_is_cut(conn: Connection, database: dict[str, str]) -> None:
    fill(conn, [ROWS[0]._replace(at=WINDOW.since, source="203.0.113.1", email="alice", action="accepted")])
    conn.execute(networks.CREATE)
    conn.execute("INSERT INTO networks VALUES ('203.0.113.0/24', 'DE', 1, repeat('é<', 500000))")
    (place,) = read(database).places.values()
    assert place == Place("DE", "é<" * (places.MAX_LENGTH // 2) + "…")


@pytest.mark.usefixtures("with_networks")
def test_the_page_has_each_place_once(site: Site) -> None:
    site.set("parser", timezone="Europe/Berlin")
    report(site)
    names, numbered = data(site)["names"], data(site)["places"]
    assert len(numbered) == len({tuple(place) for place in numbered})
    found, unknown = read(site.database), [None, None]
    for (_, *_, visited_from, _, _, _), user in zip(data(site)["users"], found.users, strict=True):
        assert [address for address, *_ in visited_from] == [address for address, _ in user.visited_from]
        for address, _, *place in visited_from:
            known = found.places.get(address, Place())
            of = [None if at is None else names[at] for at in numbered[place[0]]] if place else unknown
            assert of == [known.country, known.provider]
