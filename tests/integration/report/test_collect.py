"""A page of one node, and a masked page, show all sections alike."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from helpers.report_data import (
    EMAILS,
    INSIDE,
    LET_IN,
    SOURCES,
    read,
)

from xraylog.database.session import Connection
from xraylog.report import traffic
from xraylog.report.page_mask import PageMask


def test_one_node_is_shown_as_if_there_were_no_other(shared: dict[str, str]) -> None:
    found = read(shared, node="n1")
    rows = [row for row in INSIDE if row.node == "n1"]
    assert [node.name for node in found.nodes] == ["n1"]
    assert found.rows == len(rows)
    let_in = [row for row in rows if row.action == "accepted"]
    assert sum(user.rows for user in found.users) == sum(row.email is not None for row in let_in)
    assert sum(goal.rows for goal in found.top) == sum(row.host is not None for row in let_in)
    assert sum(port.rows for port in found.ports) == sum(row.port is not None for row in let_in)
    assert sum(of.rows for of in found.sources) == sum(row.action == "rejected" for row in rows)


def test_a_mask_shows_networks_and_numbers(shared: dict[str, str]) -> None:
    found, masked = read(shared), read(shared, mask=PageMask(hides=True))
    everything = repr(masked)
    for email in filter(None, EMAILS):
        assert repr(email) not in everything
    for source in filter(None, SOURCES):
        assert f"'{source}'" not in everything or "/" in source
    assert "198.51.100.9" not in everything
    assert "2001:db8::9" not in everything
    assert [(user.rows, user.addresses, user.concurrent_addresses) for user in masked.users] == [
        (user.rows, user.addresses, user.concurrent_addresses) for user in found.users
    ]
    shown = dict(masked.users[0].visited_from)
    rows = [row for row in LET_IN if row.email == found.users[0].name]
    assert shown["203.0.113.0/24"] == sum(
        ip_address(row.source.split("/")[0]) in ip_network("203.0.113.0/24") for row in rows if row.source
    )
    assert {of.address for of in masked.sources} <= {
        "203.0.113.0/24",
        "2001:db8:1::/48",
        "2001:db8:2::/48",
        "198.18.0.0/24",
        *(f"203.0.{n}.0/24" for n in range(5)),
        traffic.NO_SOURCE,
    }


def test_a_mask_numbers_the_nodes(filled: Connection, database: dict[str, str]) -> None:
    """The name of one may be its address."""
    numbers = [number for (number,) in filled.execute("SELECT id FROM nodes")]
    shown = {node.name for node in read(database, mask=PageMask(hides=True)).nodes}
    assert shown == {traffic.NO_NODE, *(f"node {number}" for number in numbers)}


def test_a_node_whose_name_is_gone_is_shown_by_its_id(filled: Connection, database: dict[str, str]) -> None:
    filled.execute("ALTER TABLE nodes ALTER name DROP NOT NULL")
    ((number,),) = filled.execute("UPDATE nodes SET name = NULL WHERE name = 'n1' RETURNING id")
    assert f"(id {number})" in {node.name for node in read(database).nodes}
