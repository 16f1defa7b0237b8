"""With dns_answers the names of addresses are kept, shown beside them, and never in the way of a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from helpers.site import ROOT, Site, lines
from psycopg.sql import SQL, Identifier

from xraylog.answers import statements
from xraylog.database import dns_names
from xraylog.questions import names

DAY = ("--since", "2025-11-17", "--until", "2025-11-17")
STORED = """
    SELECT d.day::text, n.name, host(d.address), e.address
    FROM dns_names d JOIN nodes n ON n.id = d.node_id JOIN endpoints e ON e.id = d.endpoint_id
    ORDER BY d.day, d.address, e.address
"""


def answer(name: str, *addresses: str, day: str = "17") -> str:
    return f"2025/11/{day} 10:15:20 UDP:8.8.8.8:53 got answer: {name} -> [{', '.join(addresses)}] 23.4ms\n"


def line(to: str, user: str = "ann") -> str:
    return f"2025/11/17 10:15:23 from 203.0.113.1:1000 accepted tcp:{to}:443 [in -> out] email: {user}\n"


@pytest.fixture
def keeping(site: Site) -> Site:
    site.set("parser", dns_answers="true")
    return site


def fetch(site: Site, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(**site.database, autocommit=True) as conn:  # type: ignore[arg-type]
        return conn.execute(query).fetchall()  # type: ignore[call-overload,no-any-return]


def ask(site: Site, *arguments: str) -> Any:
    return json.loads(site.run(*arguments, "--json", script="ask_logs").stdout)


def test_by_default_nothing_is_kept(site: Site) -> None:
    site.append(answer("a.example", "198.51.100.7"), *lines(0, 2))
    site.run()
    assert fetch(site, "SELECT to_regclass('dns_names')") == [(None,)]


def test_a_name_of_an_address_is_kept_once_by_day_and_node(keeping: Site) -> None:
    twice = answer("a.example", "198.51.100.7", "2001:db8::7")
    keeping.append(twice, *lines(0, 2), twice, answer("b.example", "198.51.100.7", day="16"))
    keeping.run()
    keeping.set("parser", node="n2")
    keeping.append(twice)
    keeping.run()
    assert set(fetch(keeping, STORED)) == {
        ("2025-11-16", "n1", "198.51.100.7", "b.example"),
        *(("2025-11-17", node, address, "a.example")
          for node in ("n1", "n2") for address in ("198.51.100.7", "2001:db8::7")),
    }  # fmt: skip
    assert len(keeping.emails()) == 2


def test_questions_show_names_and_find_addresses_by_name(keeping: Site) -> None:
    keeping.append(answer("cdn.example", "198.51.100.7"), answer("web.example", "198.51.100.7"), line("198.51.100.7"))
    keeping.append(line("cdn.example", "bob"), line("198.51.100.8", "eve"))
    keeping.run()
    names = {row["destination"]: row["names"] for row in ask(keeping, "user", "ann", *DAY)["destinations"]}
    assert names == {"198.51.100.7": ["cdn.example", "web.example"]}
    found = ask(keeping, "reached", "*.CDN.example", *DAY)
    assert {row["email"] for row in found["users"]} == {"ann", "bob"}
    assert {(row["destination"], *(row["names"] or [])) for row in found["connections"]} == {
        ("198.51.100.7", "cdn.example", "web.example"),
        ("cdn.example",),
    }
    note = "Also counted, because DNS answers gave them this name: 198.51.100.7. They may have other names, too."
    assert note in found["notes"]
    assert {row["destination"]: row["names"] for row in ask(keeping, "new", *DAY)["destinations"]} == {
        "198.51.100.7": ["cdn.example", "web.example"],
        "198.51.100.8": None,
        "cdn.example": None,
    }
    by_address = ask(keeping, "reached", "198.51.100.7", *DAY)
    assert [row["email"] for row in by_address["users"]] == ["ann"]
    note = (
        "DNS answers called 198.51.100.7 cdn.example, web.example (five at most are shown): clients that asked for a "
        "name are stored under that name."
    )
    assert note in by_address["notes"]
    assert not any(
        note.startswith("DNS answers called") for note in ask(keeping, "reached", "198.51.100.8", *DAY)["notes"]
    )
    nobody = ask(keeping, "reached", "::ffff:198.51.100.7", "--port", "9", *DAY)
    assert (nobody["users"], note in nobody["notes"]) == ([], True)


def test_of_the_addresses_of_a_name_those_that_were_contacted_count(
    keeping: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name of a large provider has thousands; a note says if some are left out."""
    for number in range(30):
        keeping.append(answer("cdn.example", f"198.51.100.{number}"))
    keeping.append(*(line(f"198.51.100.{number}", f"u{number}") for number in (27, 28, 29)), line("other.example"))
    keeping.run()
    for most, users in ((3, ["u27", "u28", "u29"]), (2, ["u27", "u28"])):
        monkeypatch.setattr(names, "MAX_ADDRESSES", most)
        found = ask(keeping, "reached", "cdn.example", *DAY)
        assert [row["email"] for row in found["users"]] == users
        assert any(f": 198.51.100.27{', 198.51.100.28' * (most > 1)}" in note for note in found["notes"])
        assert any("more than 2 addresses of this name" in note for note in found["notes"]) == (most == 2)
        assert found["is_cut"] == (most == 2)


def test_a_role_that_may_not_read_the_names_gets_the_grant(keeping: Site, role: psycopg.Connection[Any]) -> None:
    """Without it, rows would be missing from the answer in silence."""
    keeping.set("parser", dns_answers="false")
    keeping.append(line("198.51.100.7"), line("cdn.example", "bob"))
    keeping.run()
    role.execute(dns_names.CREATE)
    role.execute("INSERT INTO dns_names SELECT '2025-11-17', 1, '198.51.100.7', id FROM endpoints "
                 "WHERE address = 'cdn.example'")  # fmt: skip
    for name in ("cdn.example", "none.example"):
        (note,) = (note for note in ask(keeping, "reached", name, *DAY)["notes"] if "GRANT" in note)
    role.execute(note.partition("as the owner of dns_names: ")[2])  # type: ignore[call-overload]
    found = ask(keeping, "reached", "cdn.example", *DAY)
    assert {row["email"] for row in found["users"]} == {"ann", "bob"}
    assert not any("GRANT" in note for note in found["notes"])


def test_the_functions_give_the_same(keeping: Site) -> None:
    keeping.append(answer("cdn.example", "198.51.100.7"), line("198.51.100.7"))
    keeping.run()
    with psycopg.connect(**keeping.database, autocommit=True) as conn:  # type: ignore[arg-type]
        conn.execute((ROOT / "answers.sql").read_bytes())
        for name, first in (("names_of", ["198.51.100.7", "other.example"]), ("addresses_named", "cdn.example")):
            statement, values = statements.read()[name], [first, "2025-11-17", "2025-11-18"]
            own = conn.execute(statement.text, dict(zip(statement.parameters, values, strict=True))).fetchall()
            casts = SQL(", ").join(SQL(f"%s::{kind}") for kind in statement.parameters.values())
            assert own == conn.execute(SQL("SELECT * FROM {}({})").format(Identifier(name), casts), values).fetchall()
            assert own
        also = "ARRAY(SELECT address FROM addresses_named('cdn.example', '2025-11-17', '2025-11-18'))"
        reached = f"SELECT email FROM users_that_reached('cdn.example', NULL, '2025-11-17', '2025-11-18', {also})"
        assert conn.execute(reached).fetchall() == [("ann",)]  # type: ignore[call-overload]


@pytest.fixture
def role(keeping: Site) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's session; runs are those of a role that may only insert."""
    keeping.append(*lines(0, 1))
    keeping.run()
    name = f"inserts_{keeping.database['dbname']}"
    with psycopg.connect(**keeping.database, autocommit=True) as conn:  # type: ignore[arg-type]
        for statement in (
            "CREATE ROLE {} LOGIN PASSWORD 'only for this test'",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {}",
            "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {}",
        ):
            conn.execute(SQL(statement).format(Identifier(name)))  # type: ignore[arg-type]
        conn.execute("REVOKE CREATE ON SCHEMA public FROM public")
        keeping.set("postgresql", user=name, password="only for this test")  # noqa: S106
        yield conn
        conn.execute(SQL("DROP OWNED BY {}").format(Identifier(name)))
        conn.execute(SQL("DROP ROLE {}").format(Identifier(name)))


def test_what_prevents_it_is_a_warning_with_the_statements_to_run(keeping: Site, role: psycopg.Connection[Any]) -> None:
    """The lines are stored all the same, and a check says it, too."""
    keeping.append(answer("a.example", "198.51.100.7"), *lines(1, 2))
    said = keeping.run().stderr
    assert "the names of its DNS answers are not stored: dns_names: expected the table" in said
    assert len(keeping.emails()) == 2
    statements_to_run = said.partition("as its owner: ")[2].strip()
    assert statements_to_run in keeping.run("--check", status=3).stdout
    role.execute(statements_to_run)  # type: ignore[call-overload]
    keeping.append(answer("a.example", "198.51.100.7"))
    assert "not stored" not in keeping.run().stderr
    assert [row[3] for row in fetch(keeping, STORED)] == ["a.example"]
    assert "✓ dns_names: can be written" in keeping.run("--check", status=3).stdout  # it makes no days


def test_offline_they_are_left_out(keeping: Site) -> None:
    port = keeping.settings["postgresql"]["port"]
    keeping.append(answer("a.example", "198.51.100.7"), *lines(0, 2))
    keeping.set("postgresql", port=1)
    keeping.run()
    keeping.set("postgresql", port=port)
    keeping.append(answer("b.example", "198.51.100.7"))
    keeping.run()
    assert [row[3] for row in fetch(keeping, STORED)] == ["b.example"]
    assert len(keeping.emails()) == 2


def test_retention_removes_them_and_names_that_they_use_stay_until_then(keeping: Site) -> None:
    keeping.append(answer("a.example", "198.51.100.7"), *lines(0, 2))
    keeping.run()
    with psycopg.connect(**keeping.database, autocommit=True) as conn:  # type: ignore[arg-type]
        conn.execute("UPDATE dns_names SET day = current_date")
    keeping.set("retention", days=10, prune_names="true")
    keeping.run()
    assert fetch(keeping, "SELECT address FROM endpoints") == [("a.example",)]
    with psycopg.connect(**keeping.database, autocommit=True) as conn:  # type: ignore[arg-type]
        conn.execute("UPDATE dns_names SET day = '2025-11-17'")
    assert "1 names of dns_names would be removed" in keeping.run("--dry-run").stdout
    keeping.append(*lines(0, 2))  # of a day that is dropped, so names are looked at
    said = keeping.run("-v").stderr
    assert "dns_names: 1 names from before" in said
    assert fetch(keeping, "SELECT count(*) FROM dns_names") == [(0,)]
    assert fetch(keeping, "SELECT address FROM endpoints") == []
