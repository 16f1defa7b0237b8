"""A real cluster: a coordinator and two workers on this machine, set up by the statements of docs/many-nodes.md.

    scripts/test --citus-bin DIR tests/system/test_citus.py

DIR has the programs of a PostgreSQL, 15 or later, in which Citus is installed: no registry of packages has Citus's
server. Without it, tests that need no worker run on one server with an emulated catalog, which tries the tests
themselves; the others are skipped. They come in the order of that page. Each compares what is stored with an
independent count of the lines; when one fails, the end of each server's log is printed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from helpers import citus as emulation
from helpers.documents import BLOCKS
from helpers.report_data import read as read_page
from helpers.site import ROOT, Site, create_database, drop_database, line, lines, users, wait_until
from psycopg.sql import SQL, Identifier
from server import Server

from xraylog.answers import statements
from xraylog.database import ddl, dns_names, networks, schema
from xraylog.report.model import Findings
from xraylog.report.window import Window

PASSWORD = "of-the-cluster"  # noqa: S105  # of servers that end with the tests
SETTINGS = (
    "shared_preload_libraries=citus", "citus.node_conninfo=sslmode=prefer", "wal_level=logical", "max_connections=100",
    "max_prepared_transactions=200", "fsync=off",
)  # fmt: skip
NAMES = ("pg0.example.org", "pg1.example.org", "pg2.example.org")  # the hosts of the page
UTC = timezone.utc


@dataclass(frozen=True)
class Cluster:
    """Three servers with the database xray; the first one is the coordinator. An emulated cluster has no servers."""

    as_xray: dict[str, str]  # libpq's keywords for the role that runs have, and for a superuser of each server
    superusers: Sequence[dict[str, str]]
    servers: Sequence[Server] = ()

    @property
    def workers(self) -> Sequence[Server]:
        return self.servers[1:]

    def do(self, *texts: str, server: int = 0) -> list[tuple[Any, ...]]:
        """Run statements as the superuser; return the rows of the last one."""
        keywords = {**self.superusers[server], "options": "-c timezone=UTC"}
        with psycopg.connect(**keywords, autocommit=True) as conn:  # type: ignore[arg-type]
            for text in texts:
                cursor = conn.execute(text)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def grant(self, verb: str, to_or_from: str, server: int) -> None:
        self.do(f"{verb} SET ON PARAMETER session_replication_role {to_or_from} xray", server=server)

    def logs(self) -> str:
        """The end of each server's log."""
        paths = [server.data / "log" for server in self.servers]
        texts = [path.read_text(errors="replace")[-3000:] if path.exists() else "it has none" for path in paths]
        return "\n".join(f"--- server {number}\n{text}" for number, text in enumerate(texts))


PAGE = ROOT / "docs" / "many-nodes.md"


def distributing(servers: Sequence[Server]) -> list[str]:
    """Return the statements of the page that distribute the tables, on these servers."""
    (block,) = [block for block in BLOCKS if ROOT / block.page == PAGE and "create_distributed_table" in block.text]
    statements = [statement.strip() for statement in block.statements()]
    for name, server in zip(NAMES, servers, strict=True):
        here = f"'127.0.0.1', {server.port}"
        statements = [text.replace(f"'{name}', 5432", here).replace(f"'{name}'", here) for text in statements]
    return statements


def inline(function: str) -> str:
    """Return the statement with this function that stands in the text of the page."""
    (found,) = re.findall(rf"`(SELECT {function}\([^`]*)`", PAGE.read_text())
    return str(found)


@pytest.fixture(scope="module")
def real(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The cluster of the page, with a row in it before it is distributed."""
    binaries = request.config.getoption("--citus-bin")
    folder = Path(tempfile.mkdtemp(prefix="xraylog-citus-"))
    servers = [Server(folder / str(number), binaries, SETTINGS) for number in range(3)]
    made = Cluster({}, (), servers)
    try:
        for server in servers:
            server.start()
            with psycopg.connect(**server.keywords(), autocommit=True) as conn:  # type: ignore[arg-type]
                conn.execute(SQL("ALTER ROLE postgres PASSWORD {}").format(PASSWORD))
        postgres = [{**server.keywords(dbname="postgres"), "password": PASSWORD} for server in servers]
        for number in range(3):
            Cluster({}, postgres).do("CREATE DATABASE xray ENCODING 'UTF8' TEMPLATE template0", server=number)
        superusers = [{**keywords, "dbname": "xray"} for keywords in postgres]
        made = Cluster({**superusers[0], "user": "xray"}, superusers, servers)
        _set_up(made, folder)
        yield made
    finally:
        print(made.logs())
        for server in servers:
            with contextlib.suppress(Exception):  # the others still have to stop
                server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


def _set_up(made: Cluster, folder: Path) -> None:
    for number in range(3):
        made.do("CREATE EXTENSION citus", f"CREATE ROLE xray LOGIN PASSWORD '{PASSWORD}'", server=number)
        for role, node in itertools.product(("postgres", "xray"), (0, -1)):  # -1: a server to itself
            made.do(f"INSERT INTO pg_dist_authinfo VALUES ({node}, '{role}', 'password={PASSWORD}')", server=number)
        made.grant("GRANT", "TO", number)
    made.do("ALTER DATABASE xray OWNER TO xray", "GRANT CREATE ON SCHEMA public TO xray")
    (folder / "first").mkdir()
    first = Site(folder / "first", made.as_xray)
    first.append(line(0))
    first.run()
    for statement in distributing(made.servers):
        print(made.do(statement), statement)
    assert first.emails() == users(0, 1)


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A real one, or else one server with Citus's catalog."""
    if request.config.getoption("--citus-bin"):
        yield request.getfixturevalue("real")
        return
    keywords = create_database(request.getfixturevalue("server_keywords"))
    with psycopg.connect(**keywords, autocommit=True) as conn:  # type: ignore[arg-type]
        schema.ensure(conn)
        emulation.distribute(conn)
    yield Cluster(keywords, [keywords])
    drop_database(keywords)


@pytest.fixture
def _workers(cluster: Cluster) -> None:
    if not cluster.workers:
        pytest.skip("needs --citus-bin DIR: the programs of a PostgreSQL with Citus")


needs_workers = pytest.mark.usefixtures("_workers")


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    """An installation whose runs find the cluster's tables empty, and every server at work."""
    for server in cluster.servers:
        if not server.running:
            server.start()
    cluster.do("DROP TABLE IF EXISTS networks, dns_names", "TRUNCATE logs, log_positions, rejected_lines")
    for table in ("users", "protocols", "endpoints", "tags"):
        cluster.do(f"DELETE FROM {table}")
    yield Site(tmp_path, cluster.as_xray)
    print((tmp_path / "output").read_text() if (tmp_path / "output").exists() else "")


def at(days: int, clock: str = "10:00:00.5") -> str:
    """A moment some days ago, as in a line."""
    return f"{datetime.now(UTC) - timedelta(days=days):%Y/%m/%d} {clock}"


# --- loading ---------------------------------------------------------------------------------------------------------


def test_each_line_is_stored_once_with_keys_checked_as_a_set(site: Site) -> None:
    site.append(line(0, at(1)), line(1, at(2)))
    assert site.run_here() == 0, site.output()
    site.append(*lines(2, 3000, at(2)), "damaged\n", *lines(3000, 6000, at(1)))
    began = time.monotonic()
    assert site.run_here() == 0, site.output()
    print(f"as a set: {6000 / (time.monotonic() - began):.0f} lines/s")
    assert site.emails() == users(0, 6000)
    assert len(site.rejected()) == 1
    assert "row by row" not in site.output()
    dangling = "SELECT count(*) FROM logs l LEFT JOIN users u ON u.id = l.user_id WHERE u.id IS NULL"
    assert site.query(dangling) == [(0,)]


@needs_workers
def test_without_the_grant_on_one_worker_it_is_row_by_row_and_says_so(site: Site, cluster: Cluster) -> None:
    """On a machine of two cores it was a quarter of the speed above."""
    cluster.grant("REVOKE", "FROM", 2)
    try:
        site.append(line(0, at(1)), line(1, at(2)))
        assert site.run_here() == 0, site.output()
        site.append(*lines(2, 3000, at(2)), *lines(3000, 6000, at(1)))
        began = time.monotonic()
        assert site.run_here() == 0, site.output()
        print(f"row by row: {6000 / (time.monotonic() - began):.0f} lines/s")
        assert "on every server: GRANT SET ON PARAMETER session_replication_role TO" in site.output()
        assert site.emails() == users(0, 6000)
    finally:
        cluster.grant("GRANT", "TO", 2)


@needs_workers
@pytest.mark.parametrize("count", [30, 2000])
def test_a_row_that_a_worker_refuses_costs_its_row_only(site: Site, cluster: Cluster, count: int) -> None:
    cluster.do("ALTER TABLE logs ADD CONSTRAINT no_port_7 CHECK (source_port <> 1031)")
    try:
        site.append(*lines(0, count, at(1)))
        assert site.run_here() == 0, site.output()
        assert site.emails() == users(0, count) - users(7, 8)
        ((reason, _),) = site.rejected()
        assert "23514" in reason
        assert site.run_here("--replay-rejected") == 0, site.output()
        assert len(site.rejected()) == 1
    finally:
        cluster.do("ALTER TABLE logs DROP CONSTRAINT no_port_7")
    assert site.run_here("--replay-rejected") == 0, site.output()
    assert site.emails() == users(0, count)


def test_several_nodes_at_once(site: Site, tmp_path: Path, cluster: Cluster) -> None:
    """They share all names, and nobody locks them."""
    nodes = []
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        nodes.append(Site(tmp_path / str(number), cluster.as_xray, node=f"several{number}"))
        nodes[-1].append(*lines(0, 200, at(1)) * 10)
    with ThreadPoolExecutor(len(nodes)) as pool:
        assert [done.stderr for done in pool.map(Site.run, nodes)] == [""] * len(nodes)
    assert site.emails() == Counter({f"u{n}": 40 for n in range(200)})


# --- what breaks -----------------------------------------------------------------------------------------------------


def test_killed_at_many_steps_each_line_is_stored_once(site: Site) -> None:
    site.set("parser", batch_size=500)
    for number in range(8):
        site.append(*lines(1000 * number, 1000 * number + 1000, at(number)))
        site.run_here(kill_at=5 * number + 3)
    assert site.run_here() == 0, site.output()
    assert site.emails() == users(0, 8000)


@needs_workers
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_server_that_stops_in_the_middle_is_an_outage(site: Site, cluster: Cluster, number: int) -> None:
    """Whatever Citus says of it, exit status 0; nothing is lost or doubled, and no prepared transaction is left."""
    site.set("parser", batch_size=500)
    site.append(*lines(0, 30_000, at(1)))
    run = subprocess.Popen(site.command("-v"), stderr=subprocess.PIPE, text=True)
    wait_until(lambda: bool(cluster.do("SELECT 1 FROM log_positions")))
    cluster.servers[number].stop("immediate")
    said = run.communicate(timeout=600)[1]
    assert run.returncode == 0, said
    cluster.servers[number].start()
    assert site.run_here() == 0, site.output()
    cluster.do("SELECT recover_prepared_transactions()")  # otherwise rows can be hidden for a minute
    assert site.emails() == users(0, 30_000), said
    assert [cluster.do("SELECT count(*) FROM pg_prepared_xacts", server=number) for number in range(3)] == [[(0,)]] * 3


@needs_workers
def test_a_worker_that_is_away_from_the_start_is_an_outage(site: Site, cluster: Cluster) -> None:
    cluster.servers[2].stop("immediate")
    site.append(*lines(0, 20, at(1)))
    assert site.run_here() == 0, site.output()
    cluster.servers[2].start()
    assert site.run_here() == 0, site.output()
    assert site.emails() == users(0, 20)


@needs_workers
def test_a_coordinator_that_has_no_password_for_a_worker_is_an_error_that_names_it(
    site: Site, cluster: Cluster
) -> None:
    site.append(*lines(0, 20, at(1)))
    cluster.do("DELETE FROM pg_dist_authinfo WHERE rolename = 'xray'")
    try:
        assert site.run_here() == 3, site.output()
        assert "INSERT INTO pg_dist_authinfo VALUES (0, 'xray', 'password=…')" in site.output()
    finally:
        cluster.do(f"INSERT INTO pg_dist_authinfo VALUES (0, 'xray', 'password={PASSWORD}')")
    assert site.run_here() == 0, site.output()
    assert site.emails() == users(0, 20)


@needs_workers
def test_a_reader_on_a_worker_is_not_waited_for_with_the_lock_in_hand(site: Site, cluster: Cluster) -> None:
    """Before, a DROP waited until the reader left, and every other reader waited for the DROP."""
    site.append(*lines(0, 5, at(60)))
    assert site.run_here() == 0, site.output()
    site.set("retention", days=30)
    with psycopg.connect(**cluster.superusers[1]) as reader:  # type: ignore[arg-type]
        assert reader.execute("SELECT count(*) FROM logs").fetchone() == (5,)  # its transaction keeps the locks
        run = subprocess.Popen(site.command())
        while run.poll() is None:
            assert cluster.do("SET statement_timeout = '2s'", "SELECT count(*) FROM logs") == [(5,)]
    assert site.run_here() == 0, site.output()
    assert cluster.do("SELECT count(*) FROM logs") == [(0,)]


# --- retention, names, privacy ---------------------------------------------------------------------------------------


def test_partitions_are_made_ahead(site: Site) -> None:
    assert site.run_here("--make-partitions", "2") == 0, site.output()
    made = {name for (name,) in site.query("SELECT inhrelid::regclass::text FROM pg_inherits")}
    assert {f"logs_{datetime.now(UTC) + timedelta(days=days):%Y_%m_%d}" for days in range(3)} <= made


def test_a_day_goes_with_its_names(site: Site) -> None:
    site.append(*lines(100, 105, at(60)), *lines(200, 205, at(1)))
    assert site.run_here() == 0, site.output()
    site.set("retention", days=30, prune_names="true")
    site.append(line(300, at(60)), line(301, at(1)))
    assert site.run_here() == 0, site.output()
    assert site.emails() == users(200, 205) + users(301, 302)
    assert {name for (name,) in site.query("SELECT email FROM users")} == {f"u{n}" for n in (*range(200, 205), 301)}


@pytest.mark.parametrize("number", [0, 1])
def test_a_user_is_forgotten_as_the_page_says(site: Site, cluster: Cluster, number: int) -> None:
    texts = [block for block in BLOCKS if block.page == "docs/privacy.md" and block.text.startswith("BEGIN;")]
    site.append(*lines(0, 5, at(1)))
    assert site.run_here() == 0, site.output()
    cluster.do(*texts[number].text.replace("alice@example.com", "u3").split(";\n")[:-1])
    assert "u3" not in {name for (name,) in site.query("SELECT email FROM users")}


# --- questions -------------------------------------------------------------------------------------------------------

NOON = datetime.combine(date.today() - timedelta(days=1), datetime.min.time(), UTC) + timedelta(hours=12)  # noqa: DTZ011
VALUES: dict[str, Any] = {
    "since": NOON - timedelta(days=1), "until": NOON + timedelta(days=1), "email": "u1", "emails": ["u1", "stranger"],
    "target": "*.example", "address": "host1.example", "port": 443, "ports": "80,400-500", "tag": "out",
    "per": "outbound", "at": NOON, "within": timedelta(hours=11), "by": "hour", "also": ["host2.example"],
    "addresses": ["198.51.100.7", "203.0.113.9"], "client": "0.0.0.0/0",
}  # fmt: skip
BESIDE = (  # what an operator may have loaded, and what lines of dnsLog say
    networks.CREATE,
    "INSERT INTO networks VALUES ('0.0.0.0/0', 'DE', 64496, 'Example')",
    dns_names.CREATE,
    "UPDATE endpoints SET address = '198.51.100.7' WHERE address = 'host1.example'",
    "INSERT INTO dns_names SELECT %s, min(n.id), '198.51.100.7', min(e.id) FROM nodes n, endpoints e",
)


@pytest.fixture
def both(site: Site, database: dict[str, str], tmp_path: Path) -> tuple[Site, Site]:
    """The cluster, and a plain server with the same lines."""
    (tmp_path / "plain").mkdir()
    plain = Site(tmp_path / "plain", database)
    for one in (site, plain):
        one.append(*[line(n % 40, f"{NOON + timedelta(minutes=n):%Y/%m/%d %H:%M:%S.5}") for n in range(400)],
                   line(41, f"{NOON - timedelta(days=3):%Y/%m/%d %H:%M:%S.5}"))  # fmt: skip
        assert one.run_here() == 0, one.output()
        for text in BESIDE:
            one.query(text, *([NOON.date()] if "%s" in text else ()))
    return site, plain


def test_each_answer_is_that_of_a_plain_server(both: tuple[Site, Site], cluster: Cluster) -> None:
    """Those that ask_logs.py sends, and the functions; all that fail are named."""
    wrong = []
    for file in ("answers.sql", "answers_citus.sql"):
        cluster.do((ROOT / file).read_text())
    with (
        psycopg.connect(**both[0].database, autocommit=True) as citus,  # type: ignore[arg-type]
        psycopg.connect(**both[1].database, autocommit=True) as plain,  # type: ignore[arg-type]
    ):
        for name, statement in statements.read(is_distributed=True).items():
            values = {key: VALUES[key] for key in statement.parameters}
            values |= {"by": "simultaneous"} if name == "sharing" else {}
            expected = plain.execute(statements.read()[name].text, values).fetchall()
            call = SQL("SELECT * FROM {}({})").format(
                Identifier(name),
                SQL(", ").join(SQL("{} => %({})s::" + kind).format(Identifier(key), SQL(key))
                               for key, kind in statement.parameters.items()),
            )  # fmt: skip
            for way, query in (("sent", statement.text), ("function", call)):
                try:
                    found = citus.execute(query, values).fetchall()  # type: ignore[call-overload]
                except psycopg.Error as error:
                    wrong.append(f"{name}, {way}: {error}")
                else:
                    if sorted(map(repr, found)) != sorted(map(repr, expected)):
                        wrong.append(f"{name}, {way}: expected {expected[:3]}, found {found[:3]}")
    assert not wrong, "\n".join(wrong)


DAYS = ("--since", f"{NOON - timedelta(days=1):%Y-%m-%d}", "--until", f"{NOON:%Y-%m-%d} 15:00")
QUESTIONS = {
    "user": ("u1", *DAYS), "last-seen": DAYS[:2], "new": DAYS, "traffic": ("--per", "node", *DAYS),
    "reached": ("host3.example", *DAYS), "client": ("0.0.0.0/0", *DAYS), "sharing": ("u*", *DAYS), "scanners": DAYS,
    "online": ("--since", "2020-01-01", "--until", "2020-01-02"),  # nobody was
}  # fmt: skip


def test_ask_logs_answers_as_from_a_plain_server(both: tuple[Site, Site]) -> None:
    for question, arguments in QUESTIONS.items():
        asked = [one.run(question, *arguments, "--json", script="ask_logs").stdout for one in both]
        found, expected = ({**json.loads(text), "until": None} for text in asked)
        assert found == expected, question


def test_the_page_is_that_of_a_plain_server_and_says_that_it_has_no_snapshot(both: tuple[Site, Site]) -> None:
    window = Window.of(ZoneInfo("UTC"), 3, NOON.date(), NOON + timedelta(days=3))
    found, expected = (read_page(one.database, window) for one in both)
    assert not found.has_snapshot
    assert found.places
    assert found.names
    for part in {field.name for field in fields(Findings)} - {"has_snapshot", "nodes"}:
        assert getattr(found, part) == getattr(expected, part), part
    of_rows = [[replace(node, stored=None) for node in one.nodes] for one in (found, expected)]
    assert of_rows[0] == of_rows[1]


# --- --check, and what comes last ------------------------------------------------------------------------------------


@needs_workers
def test_check_sees_a_worker_that_is_away_and_one_without_the_grant(site: Site, cluster: Cluster) -> None:
    site.append(line(1, at(1)))
    assert site.run_here() == 0, site.output()
    assert "✓ citus: logs has 8 shards on 2 servers, which reach each other" in site.run("--check").stdout
    cluster.grant("REVOKE", "FROM", 1)
    try:
        assert "not every server lets foreign keys be checked as a set" in site.run("--check", status=3).stdout
    finally:
        cluster.grant("GRANT", "TO", 1)
    cluster.servers[1].stop("immediate")
    assert "does not reach" in site.run("--check", status=3).stdout


PLACES = "SELECT count(DISTINCT nodeport) FROM citus_shards WHERE table_name = 'logs'::regclass"


@needs_workers
def test_shards_move_to_another_worker_as_the_page_says(site: Site, cluster: Cluster) -> None:
    site.append(*lines(0, 50, at(1)))
    assert site.run_here() == 0, site.output()
    worker = f"'127.0.0.1', {cluster.workers[1].port}"
    cluster.do(f"SELECT citus_drain_node({worker}, shard_transfer_mode := 'force_logical')")
    assert cluster.do(PLACES) == [(1,)]
    assert site.emails() == users(0, 50)
    cluster.do(f"SELECT citus_set_node_property({worker}, 'shouldhaveshards', true)")
    cluster.do(inline("citus_rebalance_start"), "SELECT citus_rebalance_wait()")
    assert cluster.do(PLACES) == [(2,)]
    assert site.emails() == users(0, 50)


@needs_workers
def test_too_many_shards_are_named_and_become_fewer_as_the_page_says(site: Site, cluster: Cluster) -> None:
    site.append(*lines(0, 50, at(1)))
    assert site.run_here() == 0, site.output()
    cluster.do("SELECT alter_distributed_table('logs', shard_count := 32)")
    change = inline("alter_distributed_table")
    said = site.run("--check", status=3).stdout
    assert "32 shards are many" in said
    assert change in said
    cluster.do(change)
    assert "✓ citus: logs has 8 shards" in site.run("--check").stdout
    assert site.emails() == users(0, 50)


@needs_workers
def test_the_way_back_and_distributing_again_while_runs_go_on(site: Site, cluster: Cluster) -> None:
    site.append(*lines(0, 50, at(1)))
    assert site.run_here() == 0, site.output()
    cluster.do(inline("undistribute_table"))
    assert cluster.do("SELECT count(*) FROM citus_tables WHERE citus_table_type <> 'local'") == [(0,)]
    for number, statement in enumerate(distributing(cluster.servers)[2:]):
        site.append(*lines(50 + 10 * number, 60 + 10 * number, at(number)))
        assert site.run_here() == 0, site.output()
        cluster.do(statement)
    assert site.run_here() == 0, site.output()
    assert site.emails() == users(0, 60 + 10 * number)


@needs_workers
def test_a_migration_is_refused_and_logs_is_created_beside_reference_tables(site: Site, cluster: Cluster) -> None:
    """The last test: it makes `logs` anew."""
    plain = ("CREATE TABLE logs (id bigserial PRIMARY KEY, timestamp timestamptz NOT NULL, source_ip inet, "
             "source_port integer, action text NOT NULL)")  # fmt: skip
    cluster.do("DROP TABLE logs CASCADE", "SET ROLE xray", plain)
    refused = site.migrate("--dry-run", status=3).stderr
    assert "are reference tables of Citus" in refused
    cluster.do("DROP TABLE logs")
    site.append(*lines(0, 5, at(1)))
    assert site.run_here() == 0, site.output()
    keys = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'logs'::regclass AND contype = 'f'"
    assert site.query(keys) == [(len(ddl.KEYS),)]
    cluster.do("SELECT create_distributed_table('logs', 'id', shard_count := 8)")
    site.append(*lines(5, 10, at(1)))
    assert site.run_here() == 0, site.output()
    assert site.emails() == users(0, 10)
    cluster.do("SET ROLE xray", "ALTER TABLE logs DROP COLUMN reject_reason")  # as a version made it that had none
    site.append(*lines(10, 15, at(1)))
    assert site.run_here() == 0, site.output()
    assert site.emails() == users(0, 15)
