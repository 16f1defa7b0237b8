"""Questions about users, each answered for a few lines whose numbers can be counted by eye."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from helpers.site import Site

DAY = ("--since", "2025-11-17", "--until", "2025-11-17")


def line(at: str, source: str, user: str, host: str = "a.example:443", tags: str = "in -> direct") -> str:
    return f"2025/11/17 {at} from {source}:1000 accepted tcp:{host} [{tags}] email: {user}"


@pytest.fixture
def ask(site: Site) -> Any:
    """Load these lines, and return the answer of a question about them."""

    def answer(lines: list[str], *arguments: str) -> Any:
        site.append(*(f"{line}\n" for line in lines))
        site.run()
        return json.loads(site.run(*arguments, "--json", script="ask_logs").stdout)

    return answer


def rows(part: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in part]


def moment(time: str) -> str:
    return f"2025-11-17T{time}+00:00"


# --- traffic -----------------------------------------------------------------------------------------------

TRAFFIC = [
    line("09:59:59", "203.0.113.1", "ann"),
    line("10:00:00", "203.0.113.1", "ann", tags="in -> block"),
    line("10:10:00", "[::ffff:203.0.113.1]", "ann"),  # the same address
    line("10:20:00", "203.0.113.2", "ann"),
    line("10:59:59", "127.0.0.1", "bob"),  # no client's address
    "2025/11/17 10:30:00 from 127.0.0.1:1 accepted tcp:127.0.0.1:0 [api -> api]",
    "2025/11/17 10:40:00 from 203.0.113.9:1 rejected  proxy/vless/encoding: invalid request version",
]


def test_traffic_by_hour_counts_neither_rejections_nor_calls_of_the_api(ask: Any) -> None:
    found = ask(TRAFFIC, "traffic", *DAY)
    assert rows(found["periods"]) == [(moment("09:00:00"), 1, 1, 1), (moment("10:00:00"), 4, 2, 2)]
    assert any("rejected" in note and "API" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("per", "names"),
    [
        ("outbound", [("direct", 4, 2, 2), ("block", 1, 1, 1)]),
        ("inbound", [("in", 5, 2, 2)]),
        ("node", [("n1", 5, 2, 2)]),
    ],
)
def test_traffic_of_a_day_by_name(ask: Any, per: str, names: list[tuple[Any, ...]]) -> None:
    found = ask(TRAFFIC, "traffic", *DAY, "--by", "day", "--per", per)
    assert rows(found["periods"]) == [(moment("00:00:00"), *name) for name in names]


# --- online ------------------------------------------------------------------------------------------------

ONLINE = [
    *[line(f"{at}:00", "203.0.113.1", "ann") for at in ("10:29", "11:00", "11:20", "11:49", "11:56")],
    line("11:57:00", "[::ffff:203.0.113.2]", "ann"),
    line("11:58:00", "[2001:db8:1::1]", "ann"),
    line("11:54:59", "203.0.113.3", "bob"),  # before the window
    line("12:00:00", "203.0.113.3", "bob"),  # after it
    *[line(f"{5 + n // 3:02}:{n % 3 * 20:02}:30", "203.0.113.4", "eve") for n in range(21)],  # each 20 minutes
    line("11:59:00", "127.0.0.1", "eve"),
]
NOON = ("--until", "2025-11-17 12:00")


def test_online_since_the_last_pause_of_half_an_hour(ask: Any) -> None:
    found = ask(ONLINE, "online", *NOON)
    assert rows(found["users"]) == [
        ("eve", moment("06:00:30"), moment("11:59:00"), 1, None, None),  # looked for up to six hours back
        ("ann", moment("11:00:00"), moment("11:58:00"), 3,
         ["203.0.113.1", "203.0.113.2", "2001:db8:1::1"], ["203.0.113.0/24", "2001:db8:1::/48"]),
    ]  # fmt: skip
    assert found["since"] == moment("11:55:00")


def test_users_over_time_and_the_most_at_once(ask: Any) -> None:
    found = ask(ONLINE, "online", *NOON, "--by", "hour", "--since", "2025-11-17 10:00")
    assert rows(found["periods"]) == [(moment("10:00:00"), 2, 1), (moment("11:00:00"), 3, 2)]
    note, _ = found["notes"]
    assert "at_once: the most of them in five minutes" in note


def test_minutes_are_the_window_of_online(ask: Any) -> None:
    found = ask(ONLINE, "online", *NOON, "--minutes", "6")
    assert [row[0] for row in rows(found["users"])] == ["eve", "ann", "bob"]


def test_who_is_online_now_is_known_up_to_the_newest_row(site: Site) -> None:
    """Runs come every few minutes, and what xray wrote since the last one is not counted."""
    now = datetime.now(timezone.utc)
    at, later = now - timedelta(minutes=3), now - timedelta(minutes=2)
    site.append(f"{at:%Y/%m/%d %H:%M:%S} from 203.0.113.1:1 accepted tcp:a.example:443 [in -> direct] email: ann\n")
    site.append(f"{later:%Y/%m/%d %H:%M:%S} from 203.0.113.9:1 rejected  proxy/vless: invalid request user id\n")
    site.run()

    def known(*arguments: str) -> list[str]:
        found = json.loads(site.run("online", *arguments, "--json", script="ask_logs").stdout)
        return [note for note in found["notes"] if note.startswith("Stored up to ")]

    (note,) = known("--since", "1d")
    assert note.startswith(f"Stored up to {later:%Y-%m-%d %H:%M:%S}+00:00, the newest row: ")
    assert known("--since", "1d", "--node", "n1") == [note]
    assert known("--since", "1d", "--until", f"{now:%Y-%m-%d %H:%M}Z") == []
    assert known("--by", "hour") == []


# --- rejected connections that name a user --------------------------------------------------------------------

TOO_OLD = "2025/11/17 {} from {}:1000 rejected  Insecure encryption email: {}"
REFUSED = [
    line("10:00:00", "203.0.113.1", "ann"),
    TOO_OLD.format("10:00:01", "198.51.100.1", "ann"),
    TOO_OLD.format("11:58:00", "198.51.100.2", "ann"),
    TOO_OLD.format("11:59:00", "198.51.100.3", "old"),
]


def test_nobody_is_online_whose_client_was_rejected(ask: Any) -> None:
    found = ask(REFUSED, "online", *NOON)
    assert found["users"] == []
    assert any("rejected" in note for note in found["notes"])
    assert rows(ask([], "online", *DAY, "--by", "hour")["periods"]) == [(moment("10:00:00"), 1, 1)]


def test_an_address_that_was_rejected_shares_no_account(ask: Any) -> None:
    found = ask(REFUSED, "sharing", *DAY)
    assert [(row["email"], row["simultaneous"], row["addresses"], row["rows"]) for row in found["users"]] == [
        ("ann", 1, 1, 1)
    ]
    assert ask([], "sharing", "old", *DAY)["notes"][0] == "no accepted row of old in this window"


def test_a_user_was_last_seen_when_last_let_in(ask: Any) -> None:
    found = ask(REFUSED, "last-seen", "--since", "2025-11-17")
    assert rows(found["users"]) == [("ann", moment("10:00:00"), "203.0.113.1"), ("old", None, None)]


def test_what_was_rejected_of_a_user_is_in_a_table_of_its_own(ask: Any) -> None:
    """`user` counts as `online`, `sharing` and `last-seen` do, and does not hide why the customer cannot connect."""
    found = ask(REFUSED, "user", "ann", *DAY)
    assert [(row["rows"], row["addresses"]) for row in found["total"]] == [(1, 1)]
    for part in ("destinations", "ports", "outbound", "addresses", "networks", "days"):
        assert sum(row["rows"] for row in found[part]) == 1, part
    assert rows(found["rejected"]) == [
        (address, "insecure encryption", 1, moment(at), moment(at))
        for at, address in (("10:00:01", "198.51.100.1"), ("11:58:00", "198.51.100.2"))
    ]
    assert any("rejected" in note for note in found["notes"])
    found = ask([], "user", "old", *DAY)
    assert [row["rows"] for row in found["total"]] == [0]
    assert [row["rows"] for row in found["rejected"]] == [1]


# --- sharing -----------------------------------------------------------------------------------------------

SHARING = [
    *[line(f"10:0{n}:00", f"203.0.113.{n}", "phone") for n in range(1, 6)],  # addresses of one pool
    line("10:09:59", "203.0.113.1", "home"),
    line("10:09:59", "[2001:db8:1::1]", "home"),  # both kinds
    line("10:10:00", "198.51.100.1", "home"),  # the next slot
    line("10:21:00", "203.0.113.1", "shared"),
    line("10:22:00", "198.51.100.1", "shared"),
    line("10:29:00", "192.0.2.1", "shared"),
    line("10:31:00", "203.0.113.1", "shared"),
    line("10:32:00", "192.0.2.1", "shared"),
    line("10:33:00", "127.0.0.1", "shared"),
]


def test_sharing_is_what_happens_at_the_same_time(ask: Any) -> None:
    found = ask(SHARING, "sharing", *DAY)
    assert [row[:7] for row in rows(found["users"])] == [
        ("shared", 3, 2, moment("10:20:00"), 3, 3, 6),
        ("phone", 1, 0, moment("10:00:00"), 5, 1, 5),
        ("home", 1, 0, moment("10:00:00"), 3, 3, 3),
    ]


def test_sharing_of_one_account_or_of_those_of_a_pattern(ask: Any, site: Site) -> None:
    found = ask(SHARING, "sharing", "phone", *DAY)
    assert [row[:3] for row in rows(found["users"])] == [("phone", 1, 0)]
    assert [row[0] for row in rows(ask([], "sharing", "*h*", *DAY, "--node", "n1")["users"])] == [
        "shared", "phone", "home"
    ]  # fmt: skip
    unseen = ask([], "sharing", "phone", "--since", "2025-11-17 10:06", "--until", "2025-11-17 10:30")
    assert (unseen["users"], unseen["notes"][0]) == ([], "no accepted row of phone in this window")
    refused = site.run("sharing", "phon", script="ask_logs", status=3).stderr
    assert "found 'phon'; there are 'phone'" in refused


def test_a_pattern_of_accounts_that_fits_many_says_so(ask: Any) -> None:
    many = [line("10:00:00", "203.0.113.1", f"u{n:02}") for n in range(30)]
    found = ask(many, "sharing", "u*", *DAY)
    assert (len(found["users"]), found["is_cut"]) == (20, True)
    assert "The first 20 users whose names fit are shown; for the others, narrow the pattern." in found["notes"]


def test_sharing_by_addresses(ask: Any) -> None:
    found = ask(SHARING, "sharing", *DAY, "--by", "addresses")
    assert [row[0] for row in rows(found["users"])] == ["phone", "shared", "home"]


# --- one user ----------------------------------------------------------------------------------------------

USER = [
    line("10:00:00", "203.0.113.1", "ann", "a.example:443"),
    line("10:01:00", "203.0.113.1", "ann", "b.example:443"),
    line("10:02:00", "203.0.113.2", "ann", "b.example:22", "in -> block"),
    line("10:03:00", "127.0.0.1", "ann", "a.example:443"),
    line("10:04:00", "203.0.113.9", "bob", "c.example:80"),
]


def test_the_answer_about_a_user_has_all_parts(ask: Any) -> None:
    found = ask(USER, "user", "ann", *DAY)
    first, last = moment("10:00:00"), moment("10:03:00")
    assert [row[:3] for row in rows(found["destinations"])] == [
        ("a.example", 443, 2), ("b.example", 22, 1), ("b.example", 443, 1)
    ]  # fmt: skip
    assert [row[:3] for row in rows(found["ports"])] == [(443, 3, 2), (22, 1, 1)]
    assert [row[:3] for row in rows(found["outbound"])] == [("direct", 3, 2), ("block", 1, 1)]
    assert [row[:3] for row in rows(found["addresses"])] == [
        ("203.0.113.1", "203.0.113.0/24", 2), ("203.0.113.2", "203.0.113.0/24", 1), (None, None, 1)
    ]  # fmt: skip
    assert rows(found["days"]) == [("2025-11-17", 4, 2, 2, first, last)]
    assert rows(found["total"]) == [(4, 2, 2, 1, first, last)]


# --- last seen ---------------------------------------------------------------------------------------------


def test_last_seen_has_each_user_of_a_list(ask: Any, site: Site) -> None:
    names = site.log.with_name("names")
    names.write_bytes("\ufeffstranger\r\n\r\nann\nann\n".encode())
    found = ask(USER, "last-seen", "--since", "2025-11-17", "--users", str(names))
    assert rows(found["users"]) == [("ann", moment("10:03:00"), None), ("stranger", None, None)]


def test_a_name_in_a_list_keeps_its_blanks_if_there_is_such_a_user(
    ask: Any, site: Site, conn: psycopg.Connection[Any]
) -> None:
    """Xray takes any name; an editor or a spreadsheet adds blanks, too."""
    ask(USER, "last-seen")
    conn.execute("INSERT INTO users (email) VALUES (' ann')")
    names = site.log.with_name("names")
    names.write_text(" ann\n  zed \t\r\n\tann\n")
    found = ask([], "last-seen", "--since", "2025-11-17", "--users", str(names))
    assert rows(found["users"]) == [("ann", moment("10:03:00"), None), (" ann", None, None), ("zed", None, None)]


def test_a_name_in_a_list_may_be_as_an_answer_shows_it(ask: Any, site: Site) -> None:
    """As in a list that was made of an answer."""
    names = site.log.with_name("names")
    names.write_text("red\\x1b[31m\n never\\x1b\n")
    found = ask([line("10:00:00", "203.0.113.1", "red\x1b[31m")], "last-seen", *DAY[:2], "--users", str(names))
    assert [row[:2] for row in rows(found["users"])] == [
        ("red\x1b[31m", moment("10:00:00")), ("never\\x1b", None)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "shown"),
    [("red\x1b[31m", r"red\x1b[31m"), ("\u202egpj.exe", r"\u202egpj.exe"), ("юз\x1b", r"\u044e\u0437\x1b")],
)
def test_a_user_is_found_by_the_name_that_an_answer_shows(site: Site, name: str, shown: str) -> None:
    """Escapes, which stand for control characters, and for letters on a terminal that has none; a real one is first."""
    site.append(*(f"{line('10:00:00', '203.0.113.1', each)}\n" for each in (name, r"a\x41")))
    site.run()

    def total(wanted: str, status: int = 0) -> Any:
        return site.run("user", wanted, *DAY, "--only", "total", "--csv", script="ask_logs", status=status).stdout

    assert total(shown) == total(name) != ""
    assert total(r"a\x41").splitlines()[1].startswith("1,")
    total(r"\x00", status=3)
    total(r"\ud800\x1b", status=3)


def test_a_list_of_users_that_is_none_is_an_error(site: Site) -> None:
    for content in (b"", b"\xff\n", b"a\0b\n"):
        names = site.log.with_name("names")
        names.write_bytes(content)
        done = site.run("last-seen", "--users", str(names), script="ask_logs", status=2)
        assert "expected" in done.stderr
    assert "No such file" in site.run("last-seen", "--users", "missing", script="ask_logs", status=2).stderr


# --- rejected ----------------------------------------------------------------------------------------------


def test_rejected_says_why_and_counts_by_reason_or_by_network(ask: Any) -> None:
    why = [("203.0.113.9", "proxy/trojan: not a valid user")] * 2
    why += [
        ("203.0.113.8", "proxy/trojan: not a valid user"),
        ("198.51.100.7", "proxy/socks: insufficient header > EOF"),
    ]
    lines = [f"2025/11/17 10:00:0{n} from {source}:1 rejected  {text}" for n, (source, text) in enumerate(why)]
    times = [moment(f"10:00:0{n}") for n in range(4)]

    found = rows(ask(lines, "rejected", *DAY)["sources"])
    assert found[0] == ("203.0.113.9", "203.0.113.0/24", "invalid user", 2, *times[:2])
    assert sorted(found[1:]) == [
        ("198.51.100.7", "198.51.100.0/24", "connection closed", 1, times[3], times[3]),
        ("203.0.113.8", "203.0.113.0/24", "invalid user", 1, times[2], times[2]),
    ]
    assert rows(ask([], "rejected", *DAY, "--by", "reason")["reason"]) == [
        ("invalid user", 3, 2, 1, times[0], times[2]),
        ("connection closed", 1, 1, 1, times[3], times[3]),
    ]
    assert rows(ask([], "rejected", *DAY, "--by", "network")["network"]) == [
        ("203.0.113.0/24", "invalid user", 3, 2, times[0], times[2]),
        ("198.51.100.0/24", "connection closed", 1, 1, times[3], times[3]),
    ]


def test_rejected_in_a_database_that_is_older_than_the_reasons(ask: Any, site: Site) -> None:
    ask(["2025/11/17 10:00:00 from 203.0.113.9:1 rejected  proxy/trojan: not a valid user"], "rejected", *DAY)
    site.query("ALTER TABLE logs DROP COLUMN reject_reason")
    found = site.run("rejected", *DAY, "--by", "reason", "--json", script="ask_logs").stdout
    assert [(row["reason"], row["rows"]) for row in json.loads(found)["reason"]] == [("not recorded", 1)]
