"""What was contacted, and by whom: answers whose numbers are counted by hand in CONNECTIONS."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from typing import Any

import psycopg
import pytest
from helpers.site import ROOT, Site

from xraylog.database.session import Connection
from xraylog.questions import asking, names

# time, client, destination, tag of the outbound, user
CONNECTIONS = (
    ("10:00:01", "203.0.113.1:1001", "tcp:198.51.100.7:22", "direct", "scanner"),
    ("10:00:02", "203.0.113.1:1002", "tcp:198.51.100.8:22", "direct", "scanner"),
    ("10:00:03", "203.0.113.1:1003", "tcp:198.51.100.200:23", "direct", "scanner"),
    ("10:00:04", "203.0.113.1:1004", "tcp:198.51.100.7:22", "direct", "scanner"),
    ("10:10:00", "203.0.113.2:1005", "tcp:198.51.101.7:22", "direct", "admin"),
    ("10:20:00", "203.0.113.2:1006", "tcp:WWW.Telegram.ORG:443", "warp", "admin"),
    ("10:21:00", "203.0.113.3:1007", "tcp:telegram.org:443", "warp", "reader"),
    ("10:22:00", "203.0.113.3:1008", "tcp:api.telegram.org.:443", "direct", "reader"),
    ("10:23:00", "203.0.113.3:1009", "tcp:nottelegram.org:443", "direct", "reader"),
    ("10:24:00", "203.0.113.3:1010", "tcp:10.example.com:22", "direct", "reader"),
    ("10:25:00", "203.0.113.3:1011", "tcp:999.51.100.7:22", "direct", "reader"),
    ("10:26:00", "203.0.113.4:1012", "udp:[2001:db8::7]:6881", "block", "peer"),
    ("10:27:00", "203.0.113.4:1013", "udp:[2001:db8:1::7]:6889", "block", "peer"),
    ("10:28:00", "203.0.113.4:1014", "tcp:tracker.example:51413", "block", "peer"),
    ("10:29:00", "203.0.113.3:1015", "tcp:tracker.example:443", "block", "reader"),
)
DAY = ("--since", "2025-11-17", "--until", "2025-11-17")


@pytest.fixture
def busy(site: Site) -> Site:
    """A site with CONNECTIONS, and a line of xray's own API."""
    site.append(
        *(
            f"2025/11/17 {at} from {client} accepted {to} [in -> {tag}] email: {user}\n"
            for at, client, to, tag, user in CONNECTIONS
        ),
        "2025/11/17 10:30:00 from 127.0.0.1:9 accepted tcp:127.0.0.1:0 [api -> api]\n",
    )
    site.run()
    return site


def answer(site: Site, *arguments: str) -> Any:
    return json.loads(site.run(*arguments, "--json", script="ask_logs").stdout)


def reached(site: Site, *arguments: str) -> list[tuple[str, int, int, int]]:
    """Return user, destinations, ports and rows; the connections are as many as the rows."""
    found = answer(site, "reached", *arguments)
    assert sum(user["rows"] for user in found["users"]) == len(found["connections"])
    return [(user["email"], user["destinations"], user["ports"], user["rows"]) for user in found["users"]]


def test_who_reached_a_target_whatever_its_form(busy: Site) -> None:
    """A host name that looks like an address is in no network, and no error either."""
    assert reached(busy, "198.51.100.0/24", *DAY) == [("scanner", 3, 2, 4)]
    assert reached(busy, "198.51.100.7/23", *DAY) == [("scanner", 3, 2, 4), ("admin", 1, 1, 1)]
    assert reached(busy, "198.51.100.0/24", "--port", "22", *DAY) == [("scanner", 2, 1, 3)]
    assert reached(busy, "198.51.100.7", *DAY) == reached(busy, "::ffff:198.51.100.7", *DAY) == [("scanner", 1, 1, 2)]
    assert reached(busy, "[2001:0db8:0::7]", *DAY) == [("peer", 1, 1, 1)]
    assert reached(busy, "2001:db8::/32", *DAY) == [("peer", 2, 2, 2)]
    assert reached(busy, "*.telegram.org", *DAY) == [("reader", 2, 1, 2), ("admin", 1, 1, 1)]
    assert reached(busy, "www.TELEGRAM.org", *DAY) == [("admin", 1, 1, 1)]
    assert reached(busy, "telegram.org", *DAY) == [("reader", 1, 1, 1)]
    assert reached(busy, "*.telegram_org", *DAY) == []
    assert reached(busy, "999.51.100.7", *DAY) == [("reader", 1, 1, 1)]
    assert reached(busy, "::ffff:198.51.100.9/120", *DAY) == reached(busy, "198.51.100.0/24", *DAY)
    assert reached(busy, "[2001:db8::]/32", *DAY) == reached(busy, "2001:db8::/32", *DAY)
    assert reached(busy, ".telegram.org", *DAY) == reached(busy, "*.telegram.org", *DAY)
    assert reached(busy, "198.51.100.0-198.51.100.255", *DAY) == reached(busy, "198.51.100.0/24", *DAY)
    assert reached(busy, "2001:db8:: - 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", *DAY) == [("peer", 2, 2, 2)]


def test_a_name_is_the_same_in_letters_and_in_the_dns(site: Site) -> None:
    """Clients ask for xn--strae-oqa.example; what a URL, or a client that checks nothing, has is stored as written."""
    for number, host in enumerate(
        (
            "xn--strae-oqa.example",
            "XN--STRAE-OQA.example.",
            "straße.example",
            "a.example",
            "Straße.example.",
            "www.straße.example",
        )
    ):
        site.append(
            f"2025/11/17 10:00:0{number} from 203.0.113.1:1 accepted tcp:{host}:443 [in -> direct] email: u{number}\n"
        )
    site.run()
    for target in ("straße.example", "STRAßE.example", "xn--strae-oqa.example"):
        assert [user for user, *_ in reached(site, target, *DAY)] == ["u0", "u1", "u2", "u4"]
    for pattern in ("*.straße.example", "*.STRAßE.example.", "*.xn--strae-oqa.example", ".straße.example"):
        assert [user for user, *_ in reached(site, pattern, *DAY)] == ["u0", "u1", "u2", "u4", "u5"]
    assert [user for user, *_ in reached(site, "xn--strae-oqa.*", *DAY)] == ["u0", "u1", "u2", "u4"]


def test_a_pattern_within_a_label_of_letters_says_what_it_cannot_find(site: Site) -> None:
    """The DNS form of a label is of the whole label: no pattern of it has a part of the letters."""
    for number, host in enumerate(("xn--strae-oqa.example", "straße.example")):
        site.append(
            f"2025/11/17 10:00:0{number} from 203.0.113.1:1 accepted tcp:{host}:443 [in -> direct] email: u{number}\n"
        )
    site.run()
    found = answer(site, "reached", "*straß*", *DAY)
    assert [row["email"] for row in found["users"]] == ["u1"]
    assert any("xn--" in note for note in found["notes"])
    assert not any("xn--" in note for note in answer(site, "reached", "*.straße.example", *DAY)["notes"])


def test_destinations_in_letters_are_counted_up_to_a_bound(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.append(
        *(
            f"2025/11/17 10:00:0{number} from 203.0.113.1:1 accepted tcp:{number}.straße.example:443 [in -> direct]\n"
            for number in range(3)
        )
    )
    site.run()
    with psycopg.connect(**site.database) as conn:  # type: ignore[arg-type]
        monkeypatch.setattr(names, "MAX_ADDRESSES", 2)
        found, are_all, notes = names.names_in_letters(conn, "*.xn--strae-oqa.example")
    assert (len(found), are_all, len(notes)) == (2, False, 1)


def test_what_the_log_has_as_a_destination_can_be_asked_for(site: Site) -> None:
    destinations = {
        "tcp:[Masked IPv4]:443": "[Masked IPv4]",
        "unix:/run/x.sock": "/run/x.sock",
        "unix:@x": "@x",
        "tcp:[fe80::1%eth0]:443": "fe80::1%eth0",
        "tcp:[fe80::2%eth0]:443": "[fe80::2%1]",
        "tcp:[::ffff:192.0.2.7]:443": "192.0.2.*",
        "tcp:[::ffff:198.51.100.7]:443": "::ffff:198.51.*",
        "tcp:www.telegram.org:443": "*.telegram.org.",
        "udp:[2001:db8:7::1]:443": "2001:db8:*",
    }
    for number, to in enumerate(destinations):
        site.append(f"2025/11/17 10:00:0{number} from 203.0.113.1:1 accepted {to} [in -> direct] email: u{number}\n")
    site.run()
    for number, target in enumerate(destinations.values()):
        assert [user for user, *_ in reached(site, target, *DAY)] == [f"u{number}"]


def test_who_used_a_port_around_a_time(busy: Site) -> None:
    """Both ends are included."""
    at = ("--at", "2025-11-17 10:05:01", "--within")
    assert reached(busy, "--port", "22", *at, "5m") == [("scanner", 2, 1, 3), ("admin", 1, 1, 1)]
    assert reached(busy, "--port", "22", *at, "4m") == []
    (line,) = answer(busy, "reached", "198.51.101.0/24", *at, "5m", "--only", "connections")["connections"]
    assert line == {
        "timestamp": "2025-11-17T10:10:00+00:00", "email": "admin", "source_ip": "203.0.113.2", "source_port": 1005,
        "destination": "198.51.101.7", "destination_port": 22, "outbound": "direct", "node": "n1",
    }  # fmt: skip


def test_what_nobody_reached_may_have_another_name(busy: Site) -> None:
    notes = answer(busy, "reached", "192.0.2.1", *DAY)["notes"]
    assert notes[0].startswith("no row names 192.0.2.1 in this window: clients that asked for a host name are stored")
    assert answer(busy, "reached", "198.51.100.7", *DAY)["notes"] == notes[1:]


def rows(site: Site, part: str, *arguments: str, only: str = "") -> list[list[Any]]:
    """Return the rows of a part without their first and last time."""
    found = answer(site, *arguments, *DAY, *(("--only", only) if only else ()))
    return [[row[name] for name in row if name not in ("first", "last")] for row in found[part]]


def test_who_fans_out(busy: Site) -> None:
    """User, destinations, addresses among them, ports, rows, rows to the ports of scanners."""
    assert rows(busy, "users", "scanners") == [
        ["scanner", 3, 3, 2, 4, 4],
        ["peer", 3, 2, 3, 3, 0],
        ["admin", 2, 1, 2, 2, 1],
        ["reader", 6, 0, 2, 6, 2],
    ]


def test_which_ports_were_used_and_who_used_some(busy: Site) -> None:
    """The API's port 0 is left out."""
    assert rows(busy, "ports", "ports") == [
        [22, 3, 6], [443, 2, 5], [23, 1, 1], [6881, 1, 1], [6889, 1, 1], [51413, 1, 1],
    ]  # fmt: skip
    assert rows(busy, "users", "ports", "6881-6889,51413") == [["peer", 3, 3, 3]]
    assert rows(busy, "users", "ports", "22, 23") == [["scanner", 2, 3, 4], ["reader", 1, 2, 2], ["admin", 1, 1, 1]]
    for wrong in ("22-", "a", "90-80", "65536", ""):
        assert "6881-6889,51413" in busy.run("ports", wrong, script="ask_logs", status=2).stderr


def test_what_went_out_by_a_tag(busy: Site) -> None:
    assert rows(busy, "outbounds", "outbound") == [["direct", 3, 8, 9], ["block", 2, 3, 4], ["warp", 2, 2, 2]]
    assert rows(busy, "users", "outbound", "block") == [["peer", 3, 3], ["reader", 1, 1]]
    assert rows(busy, "destinations", "outbound", "block", only="destinations") == [
        ["2001:db8:1::7", 6889, 1, 1],
        ["2001:db8::7", 6881, 1, 1],
        ["tracker.example", 443, 1, 1],
        ["tracker.example", 51413, 1, 1],
    ]
    assert "no row went out by Block in this window" in answer(busy, "outbound", "Block", *DAY)["notes"][0]


def test_api_calls_that_were_stored_as_accepted_leave_the_answers_after_the_statement_of_the_page(
    busy: Site, conn: Connection
) -> None:
    """Versions without the action stored them so; a user's row that goes out by that tag stays."""
    busy.append("2025/11/17 11:00:01 from 127.0.0.1:1 accepted tcp:127.0.0.1:0 [api -> api]\n")
    busy.append("2025/11/17 11:00:02 from 203.0.113.9:1 accepted tcp:a.example:443 [in -> api] email: reader\n")
    busy.run()
    before = rows(busy, "outbounds", "outbound")
    traffic = rows(busy, "periods", "traffic")
    assert [row for row in before if row[0] == "api"] == [["api", 1, 1, 1]]
    conn.execute("UPDATE logs SET action = 'accepted' WHERE action = 'api'")
    assert ["api", 1, 2, 3] in rows(busy, "outbounds", "outbound")
    page = (ROOT / "docs" / "questions.md").read_text()
    (statement,) = re.findall(r"^UPDATE logs SET action = 'api'\n.*?;", page, re.MULTILINE | re.DOTALL)
    conn.execute(statement)
    assert rows(busy, "outbounds", "outbound") == before
    assert rows(busy, "periods", "traffic") == traffic


def test_what_many_users_suddenly_contact(busy: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Destinations of the day before are known; the note says from when on there are rows. Any DateStyle serves."""
    monkeypatch.setenv("PGOPTIONS", "-c DateStyle=German")
    for user in ("a", "b", "reader"):
        busy.append(
            f"2025/11/18 00:00:01 from 203.0.113.9:1 accepted tcp:c2.example:443 [in -> direct] email: {user}\n"
        )
    busy.append("2025/11/18 00:00:02 from 203.0.113.9:1 accepted tcp:telegram.org:443 [in -> direct] email: a\n")
    busy.append("2025/11/18 00:00:03 from 203.0.113.9:1 accepted tcp:once.example:443 [in -> direct] email: a\n")
    busy.run()
    found = answer(busy, "new", "--since", "2025-11-18", "--until", "2025-11-18")
    assert [(row["destination"], row["users"], row["rows"]) for row in found["destinations"]] == [
        ("c2.example", 3, 3),
        ("once.example", 1, 1),
    ]
    assert "rows from 2025-11-17 10:00:01+00:00 on" in found["notes"][0]


def test_the_first_row_is_found_where_there_are_no_partitions(conn: Connection) -> None:
    conn.execute('CREATE TABLE logs ("timestamp" timestamptz)')
    assert asking.first_row(conn) is None
    conn.execute("INSERT INTO logs VALUES ('2025-11-17 10:00+00'), ('2025-11-16 10:00+00')")
    assert asking.first_row(conn) == datetime(2025, 11, 16, 10, tzinfo=timezone.utc)


REFUSED = {
    (): "expected TARGET or --port, found neither",
    ("198.51.100.7:22",): "a port as --port",
    ("198.51.100.0/33",): "a network as in 198.51.100.0/24",
    ("https://example.com/",): "expected a host",
    ("//example.com:443",): "a port as --port",
    ("tcp:example.com",): "a port as --port",
    ("example.com:https",): "a port as --port",
    ("example.com:",): "a port as --port",
    ("a.example,b.example",): "expected a host",
    ("198.51.100.1-198.51.100.4",): "a network of that range, as 198.51.100.1/32, 198.51.100.2/31, 198.51.100.4/32",
    ("198.51.100.9-198.51.100.1",): "expected a host",
    ("198.51.100.1-2001:db8::1",): "expected a host",
    ("a.example b.example",): "expected a host",
    ("user@example.com",): "expected a host",
    ("a\x1b.example",): "expected a host",
    ("..",): "expected a host",
    ("198.51.100.7", "--at", "today", "--since", "1h"): "found both",
    ("198.51.100.7", "--within", "1h"): "expected --at with --within, found none",
    ("198.51.100.7", "--at", "today", "--within", "5"): "a duration as in 5m",
    ("198.51.100.7", "--at", "0001-01-01", "--within", "99999w"): "found '99999w'",
}


def test_what_cannot_be_meant_is_an_error_that_shows_what_can(site: Site) -> None:
    for arguments, words in REFUSED.items():
        assert words in site.run("reached", *arguments, script="ask_logs", status=2).stderr


# --- rejected connections that name a destination, as some forks write them -----------------------------------


@pytest.mark.parametrize(
    "question",
    [("reached", "refused.example"), ("reached", "--port", "22"), ("scanners",), ("ports",), ("ports", "22"), ("new",)],
)  # fmt: skip
def test_nobody_reached_what_xray_rejected(site: Site, question: tuple[str, ...]) -> None:
    site.append(
        "2025/11/17 10:31:00 from 203.0.113.9:1 rejected tcp:refused.example:22 [in -> direct] email: refused\n",
        "2025/11/17 10:31:01 from 203.0.113.9:1 rejected tcp:refused.example:22\n",
    )
    site.run()
    found = answer(site, *question, *DAY)
    assert [found[name] for name in found if isinstance(found[name], list) and name != "notes"] == [
        [] for name in found if isinstance(found[name], list) and name != "notes"
    ]
    assert any("rejected" in note for note in found["notes"])
    assert [row["rows"] for row in answer(site, "rejected", *DAY)["sources"]] == [2]
