"""Who connects from an address or a network: answers whose numbers are counted by hand in LINES."""

from __future__ import annotations

import json
from typing import Any

import pytest
from helpers.site import Site

LINES = (
    "2025/11/17 10:00:01 from 203.0.113.7:1001 accepted tcp:a.example:443 [in -> direct] email: alice",
    "2025/11/17 10:00:02 from [::ffff:203.0.113.7]:1002 accepted tcp:a.example:443 [in -> direct] email: alice",
    "2025/11/17 10:00:03 from 203.0.113.8:1003 accepted tcp:b.example:443 [in -> direct] email: alice",
    "2025/11/17 10:00:04 from 203.0.113.8:1004 accepted tcp:b.example:443 [in -> direct] email: bob",
    "2025/11/17 10:00:05 from 203.0.113.9:1005 accepted tcp:b.example:443 [in -> direct]",
    "2025/11/17 10:00:06 from 203.0.*.*:1006 accepted tcp:b.example:443 [in -> direct] email: carol",
    "2025/11/17 10:00:07 from [2001:db8::7]:1007 accepted tcp:b.example:443 [in -> direct] email: dave",
    "2025/11/17 10:00:08 from [2001:db8::8]:1008 accepted tcp:b.example:443 [in -> direct] email: dave",
    "2025/11/17 10:00:09 from 203.0.113.7:1009 rejected  proxy/vless/encoding: failed to read request version",
    "2025/11/17 10:00:10 from [::ffff:203.0.113.7]:1010 rejected  proxy/vless/encoding: failed to read request version",
    "2025/11/17 10:00:11 from 198.51.100.1:1011 rejected  proxy/vless/encoding: invalid request user id",
    "2025/11/17 10:00:12 from 127.0.0.1:1012 accepted tcp:b.example:443 [in -> direct] email: erin",
    "2025/11/17 10:00:13 from 127.0.0.1:1013 accepted tcp:127.0.0.1:0 [api -> api]",
)
DAY = ("--since", "2025-11-17", "--until", "2025-11-17")


@pytest.fixture
def seen(site: Site) -> Site:
    """A site with LINES."""
    site.append(*(f"{line}\n" for line in LINES))
    site.run()
    return site


def answer(site: Site, *arguments: str) -> Any:
    window = () if "--at" in arguments else DAY
    return json.loads(site.run("client", *arguments, *window, "--json", script="ask_logs").stdout)


def users(site: Site, client: str, *arguments: str) -> list[tuple[str | None, int, int]]:
    return [(row["email"], row["addresses"], row["rows"]) for row in answer(site, client, *arguments)["users"]]


def test_a_client_is_found_however_its_address_is_written(seen: Site) -> None:
    for client in ("203.0.113.7", "::ffff:203.0.113.7", "[::ffff:cb00:7107]", "203.0.113.7/32", " 203.0.113.7 "):
        found = answer(seen, client)
        assert [(row["email"], row["addresses"], row["rows"]) for row in found["users"]] == [("alice", 1, 2)], client
        assert [(row["source_ip"], row["rows"]) for row in found["rejected"]] == [("203.0.113.7", 2)]
    assert users(seen, "[2001:0db8:0::7]") == [("dave", 1, 1)]


def test_a_network_has_all_of_its_clients_and_those_that_xray_masked(seen: Site) -> None:
    """A line without a user counts under none; neither a proxy nor the API is a client."""
    for client in ("203.0.113.0/24", "203.0.113.99/24", "::ffff:203.0.113.0/120", "203.0.113.0 - 203.0.113.255"):
        assert users(seen, client) == [("alice", 2, 3), ("bob", 1, 1), (None, 1, 1)], client
    assert users(seen, "203.0.0.0/16") == [("alice", 2, 3), ("bob", 1, 1), ("carol", 1, 1), (None, 1, 1)]
    assert users(seen, "2001:db8::/32") == [("dave", 2, 2)]
    assert users(seen, "0.0.0.0/0") == users(seen, "203.0.0.0/16")
    assert users(seen, "::/0") == [("dave", 2, 2)]
    assert [row["source_ip"] for row in answer(seen, "0.0.0.0/0")["rejected"]] == ["203.0.113.7", "198.51.100.1"]
    assert users(seen, "203.0.113.0/24", "--node", "n1") == users(seen, "203.0.113.0/24")


def test_a_time_narrows_it_to_the_minutes_around(seen: Site) -> None:
    assert users(seen, "203.0.113.8", "--at", "2025-11-17 10:05Z") == [("alice", 1, 1), ("bob", 1, 1)]
    assert users(seen, "203.0.113.8", "--at", "2025-11-17 10:01:04Z", "--within", "1m") == [("bob", 1, 1)]


def test_where_nothing_is_from_there_the_answer_says_what_it_leaves_out(seen: Site) -> None:
    for client in ("192.0.2.1", "127.0.0.1", "203.0.113.0/32"):
        found = answer(seen, client)
        assert (found["users"], found["rejected"]) == ([], [])
        assert found["notes"][0] == f"no row in this window is from {client}"
        assert "127.0.0.1" in found["notes"][1]
        assert "203.0.0.0/16" in found["notes"][2]


@pytest.mark.parametrize(
    "client",
    [
        "example.com",
        "203.0.113",
        "203.0.113.0/33",
        "",
        "203.0.113.7:443",
        "*",
        "203.0.113.9-203.0.113.7",
        "::1-1.2.3.4",
    ],
)
def test_what_is_no_address_is_an_error_that_shows_one(site: Site, client: str) -> None:
    said = site.run("client", client, script="ask_logs", status=2).stderr
    assert f"expected an address, or a network as in 203.0.113.0/24, found {client!r}" in said
