"""Many nodes fill one database, each with no more rights than it needs. docs/many-nodes.md creates their roles."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers import load_paths
from helpers.documents import BLOCKS
from helpers.load_paths import ATTACH, KEYS_IN_BULK, ROW_BY_ROW
from helpers.site import AT, Site, line, lines, users
from psycopg.sql import SQL, Identifier

import parse_logs
from xraylog import config
from xraylog.accesslog import discovery, lockfile
from xraylog.cli import Exit
from xraylog.commands import check
from xraylog.database import ddl, schema
from xraylog.database.capabilities import Capabilities
from xraylog.loading import attach

pytestmark = pytest.mark.empty_database

Connection = psycopg.Connection[tuple[Any, ...]]
Node = Callable[[str, str], Site]
PASSWORD = "choose one"  # noqa: S105  # as docs/many-nodes.md has it
ROLES = ("xray", "xray_insert", "xray_fast")


def today() -> date:
    return datetime.now(timezone.utc).date()


# Whatever day it is when a run begins, --make-partitions 1 makes this one.
TOMORROW = f"{today() + timedelta(days=1):%Y/%m/%d} 10:15:23.123456"


def documented(page: str, words: str) -> list[str]:
    """Return the statements of the page's block that has these words in it."""
    (block,) = [block for block in BLOCKS if block.page == page and block.language == "sql" and words in block.text]
    return [statement.strip() for statement in block.statements()]


@pytest.fixture
def node(conn: Connection, database: dict[str, str], tmp_path: Path) -> Iterator[Node]:
    """Makes nodes, of a name and a role of docs/many-nodes.md; xray owns the database and its tables."""

    def make(name: str, role: str) -> Site:
        (tmp_path / name).mkdir()
        return Site(tmp_path / name, as_role(database, role), node=name)

    try:
        conn.execute(documented("docs/install.md", "CREATE ROLE xray LOGIN")[0])  # type: ignore[call-overload]
        conn.execute(SQL("ALTER DATABASE {} OWNER TO xray").format(Identifier(database["dbname"])))
        with psycopg.connect(**as_role(database, "xray"), autocommit=True) as owner:  # type: ignore[arg-type]
            schema.ensure(owner)
        for statement in documented("docs/many-nodes.md", "CREATE ROLE xray_insert"):
            if "from PostgreSQL 15 on" not in statement or Capabilities.of(conn).parameter_privileges:
                conn.execute(statement)  # type: ignore[call-overload]
        yield make
    finally:
        there = conn.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [list(ROLES)]).fetchall()
        for (role,) in there:
            for statement in ("REASSIGN OWNED BY {} TO CURRENT_USER", "DROP OWNED BY {}", "DROP ROLE {}"):
                conn.execute(SQL(statement).format(Identifier(role)))


def as_role(database: dict[str, str], role: str) -> dict[str, str]:
    return {**database, "user": role, "password": PASSWORD}


def go(site: Site, monkeypatch: pytest.MonkeyPatch, load_path: str, *arguments: str) -> int:
    """One run in this process, which would take this way."""
    load_paths.take_until_undone(monkeypatch, load_path)
    return site.main(*arguments)


def make_partitions(owner: Site) -> None:
    assert owner.run_here("--make-partitions", "1") == 0


# --- roles -----------------------------------------------------------------------------------------------------------


def test_three_nodes_with_different_rights_fill_one_database_at_once(node: Node, site: Site) -> None:
    """They share all names, which each of them wants to make first."""
    nodes = [node("n1", "xray"), node("n2", "xray_insert"), node("n3", "xray_fast")]
    make_partitions(nodes[0])
    for one, load_path in zip(nodes, (ROW_BY_ROW, ROW_BY_ROW, KEYS_IN_BULK), strict=True):
        one.load_path = load_path
        one.set("parser", batch_size=50)
        one.append(*lines(0, 300, TOMORROW), "damaged\n")
    with ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(Site.run, nodes))
    by_node = site.query("""
        SELECT n.name, u.email, count(*)
        FROM logs l JOIN nodes n ON n.id = l.node_id JOIN users u ON u.id = l.user_id
        GROUP BY 1, 2
    """)
    assert sorted(by_node) == sorted((name, f"u{n}", 1) for name in ("n1", "n2", "n3") for n in range(300))
    assert site.query("SELECT count(*), count(DISTINCT email) FROM users") == [(300, 300)]
    rejected = site.query("SELECT n.name, count(*) FROM rejected_lines r JOIN nodes n ON n.id = r.node_id GROUP BY 1")
    assert sorted(rejected) == [("n1", 1), ("n2", 1), ("n3", 1)]
    assert not any(one.buffered() for one in nodes)


def test_a_role_that_may_only_insert_can_neither_read_nor_remove_a_row(node: Node, conn: Connection) -> None:
    insert = node("n2", "xray_insert")
    make_partitions(node("n1", "xray"))
    insert.append(line(1, TOMORROW))
    assert insert.run_here() == 0
    assert conn.execute("SELECT count(*) FROM logs").fetchall() == [(1,)]
    for statement in (
        "SELECT * FROM logs",
        "DELETE FROM logs",
        "UPDATE logs SET action = 'a'",
        "TRUNCATE logs",
        "DROP TABLE logs",
        "SELECT * FROM rejected_lines",
        "UPDATE users SET email = 'a'",
        "CREATE TABLE mine (id integer)",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            insert.query(statement)


@pytest.mark.parametrize("role", ["xray", "xray_insert", "xray_fast"])
def test_each_role_takes_the_fastest_way_that_is_open_to_it(
    node: Node, paths_taken: Counter[str], monkeypatch: pytest.MonkeyPatch, conn: Connection, role: str
) -> None:
    make_partitions(node("n1", "xray"))
    site = node("n2", role)
    site.append(*lines(0, 30, TOMORROW))
    assert go(site, monkeypatch, KEYS_IN_BULK) == 0
    may_switch = role == "xray_fast" and Capabilities.of(conn).parameter_privileges
    assert paths_taken == (Counter([KEYS_IN_BULK]) if may_switch else Counter())
    assert conn.execute("SELECT count(*) FROM logs").fetchall() == [(30,)]


@pytest.mark.parametrize("count", [5, 2 * attach.MIN_ATTACH_ROWS])
def test_lines_of_a_day_that_the_role_may_not_make_wait_until_its_owner_did(node: Node, site: Site, count: int) -> None:
    """Few rows or many; and lines that came meanwhile come in after them."""
    owner, insert = node("n1", "xray"), node("n2", "xray_insert")
    insert.append(*lines(0, count, TOMORROW))
    assert insert.run_here() == Exit.OPERATOR
    told = insert.output()
    assert told.count("ERROR") == 1
    assert "expected this partition of logs, found none" in told
    assert "--make-partitions" in told
    assert insert.buffered() == users(0, count)
    insert.append(*lines(count, count + 5, TOMORROW))
    assert insert.run_here() == Exit.OPERATOR
    assert insert.output().count("ERROR") == 2
    assert site.emails() == Counter()
    assert insert.buffered() == users(0, count + 5)
    make_partitions(owner)
    assert insert.run_here() == 0
    assert site.emails() == users(0, count + 5)
    assert not insert.buffered()


def test_without_the_column_for_reasons_rows_come_in_until_the_owner_has_pasted_it(
    node: Node, conn: Connection
) -> None:
    make_partitions(node("n1", "xray"))
    conn.execute("ALTER TABLE logs DROP COLUMN reject_reason")
    insert = node("n2", "xray_insert")
    for _ in range(2):
        insert.append(line(1, TOMORROW), f"{TOMORROW} from 203.0.113.9:4 rejected  proxy/trojan: not a valid user\n")
        assert insert.run_here() == 0
    assert conn.execute("SELECT count(*) FROM logs").fetchall() == [(4,)]
    (warning,) = [text for text in insert.output().splitlines() if "logs.reject_reason" in text]  # one a day
    conn.execute("SET ROLE xray")
    conn.execute(warning[warning.index("ALTER TABLE") :])
    insert.append(f"{TOMORROW} from 203.0.113.9:4 rejected  proxy/trojan: not a valid user\n")
    assert insert.run_here() == 0
    conn.execute("RESET ROLE")
    assert conn.execute("SELECT reject_reason FROM logs WHERE reject_reason <> ''").fetchall() == [("invalid user",)]


def test_the_owner_can_paste_what_makes_an_older_day(node: Node, site: Site) -> None:
    owner, insert = node("n1", "xray"), node("n2", "xray_insert")
    insert.append(*lines(0, 5, AT))
    assert insert.run_here() == Exit.OPERATOR
    statement = re.search(r"CREATE TABLE .* TO \('[^']*'\)", insert.output())
    assert statement is not None
    owner.query(statement[0])
    assert insert.run_here() == 0
    assert site.emails() == users(0, 5)


def test_a_role_that_may_make_tables_but_no_partitions_makes_no_table(
    node: Node, paths_taken: Counter[str], monkeypatch: pytest.MonkeyPatch, conn: Connection
) -> None:
    """It would fill it, and then be refused to attach it."""
    site = node("n2", "xray_insert")
    conn.execute("GRANT CREATE ON SCHEMA public TO xray_insert")
    site.append(*lines(0, 30, TOMORROW))
    assert go(site, monkeypatch, ATTACH) == Exit.OPERATOR
    assert not paths_taken
    assert site.buffered() == users(0, 30)


def test_check_tells_a_role_that_may_only_insert_whether_its_days_are_there(node: Node) -> None:
    owner, insert = node("n1", "xray"), node("n2", "xray_insert")

    def rights() -> tuple[str, str]:
        return {what: rest for what, *rest in check.findings(config.read(insert.config), [])}["rights"]  # type: ignore[return-value]

    found, advice = rights()
    assert found == "not enough for a run"
    assert "GRANT xray TO xray_insert" in advice
    make_partitions(owner)
    found, advice = rights()
    assert found.startswith("enough for a run; ")
    assert not advice


def test_check_is_content_with_a_role_that_may_only_insert_once_its_days_are_there(node: Node) -> None:
    """It tries no line of a day that this role cannot make."""
    make_partitions(node("n1", "xray"))
    insert = node("n2", "xray_insert")
    insert.append(line(1, f"{datetime.now(timezone.utc):%Y/%m/%d %H:%M:%S}"))
    assert "✓ trial: a line was stored as a run stores it, and undone" in insert.run("--check").stdout
    assert insert.run_here() == Exit.DONE


def test_check_tells_a_role_that_may_only_insert_who_sees_why_a_line_is_left_unparsed(
    node: Node, conn: Connection
) -> None:
    make_partitions(node("n1", "xray"))
    insert = node("n2", "xray_insert")
    conn.execute("ALTER TABLE logs ADD CONSTRAINT yours CHECK (source_port <> 1)")
    insert.append(line(1, f"{datetime.now(timezone.utc):%Y/%m/%d %H:%M:%S}"))
    told = insert.run("--check", status=Exit.OPERATOR).stdout
    assert "✗ trial: a good line was left unparsed; a role that may read rejected_lines sees why; " in told


# --- --make-partitions -----------------------------------------------------------------------------------------------


def days_there(conn: Connection) -> list[str]:
    return [
        name for (name,) in conn.execute("SELECT relname FROM pg_class WHERE relname ~ '^logs_2' AND relkind = 'r' "
                                         "ORDER BY 1")
    ]  # fmt: skip


def names(first: date, count: int) -> list[str]:
    return [f"logs_{first + timedelta(days=step):%Y_%m_%d}" for step in range(count)]


@pytest.mark.parametrize("days", [0, 3, 40])
def test_make_partitions_makes_today_and_the_days_to_come_and_says_so(site: Site, conn: Connection, days: int) -> None:
    """In an empty database, too. No line is read."""
    site.append(line(1))
    before = today()
    assert site.run_here("--make-partitions", str(days)) == 0
    there = days_there(conn)
    assert there in (names(before, days + 1), names(today(), days + 1))
    assert f"partitions created: {', '.join(there)}\n" in site.output()
    assert site.log.read_text() == line(1)
    assert not site.stats.exists()


def test_make_partitions_says_nothing_to_cron(site: Site) -> None:
    for _ in range(2):
        done = site.run("--make-partitions", "0")
        assert (done.stdout, done.stderr) == ("", "")
    assert site.run_here("--make-partitions", "0") == 0
    assert "partitions created: none, all exist" in site.output()


def test_make_partitions_runs_beside_a_run(site: Site, conn: Connection) -> None:
    cfg = config.read(site.config)
    with lockfile.locked(*discovery.lock_paths([cfg.log_path], cfg)):
        assert site.run_here() == Exit.BUSY
        assert site.run_here("--make-partitions", "2") == 0
    assert len(days_there(conn)) == 3


def test_make_partitions_fails_when_the_database_is_away(site: Site) -> None:
    """There is nothing to buffer: the user must know."""
    site.append(line(1))
    site.away()
    assert site.run_here("--make-partitions", "2") == Exit.FAILED
    assert "partitions may be missing: try again later" in site.output()
    assert not site.buffer.exists()
    assert site.log.read_text() == line(1)


def test_make_partitions_says_what_its_operator_must_do(node: Node, site: Site, conn: Connection) -> None:
    insert = node("n2", "xray_insert")
    assert insert.run_here("--make-partitions", "2") == Exit.OPERATOR
    assert "may not create it" in insert.output()
    conn.execute("DROP TABLE logs CASCADE; CREATE TABLE logs (id bigint, timestamp timestamptz)")
    assert site.run_here("--make-partitions", "2") == Exit.OPERATOR
    assert "migrate_logs_to_partitioned.py" in site.output()


@pytest.mark.parametrize("days", ["-1", "367", "many", "1.5", "", "٣", "1" * 5000])
def test_make_partitions_wants_a_number_of_days(days: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_logs.main(["--make-partitions", days])
    assert "expected" in capsys.readouterr().err


# --- TLS -------------------------------------------------------------------------------------------------------------


def test_a_server_that_cannot_be_verified_is_for_the_operator(site: Site) -> None:
    """Not one that is away: it will not be another one by itself."""
    with socket.create_server(("127.0.0.1", 0)) as door:

        def offer_tls() -> None:
            with contextlib.suppress(OSError):  # the door was closed
                while True:
                    with door.accept()[0] as client:
                        client.recv(8)
                        client.sendall(b"S")
                        client.recv(1)

        threading.Thread(target=offer_tls, daemon=True).start()
        site.set("postgresql", port=door.getsockname()[1], sslmode="verify-full", sslrootcert="/nowhere.pem")
        site.append(line(1))
        assert site.run_here() == Exit.OPERATOR
        door.shutdown(socket.SHUT_RDWR)
    assert 'root certificate file "/nowhere.pem" does not exist' in site.output()
    assert site.buffered() == users(1, 2)


# --- Citus -----------------------------------------------------------------------------------------------------------

CATALOG_OF_CITUS = """
    CREATE TABLE pg_dist_partition (logicalrelid regclass NOT NULL, partmethod "char" NOT NULL, partkey text);
    ALTER TABLE pg_dist_partition SET SCHEMA pg_catalog;
"""
WATCH = """
    CREATE TABLE seen (tag text, mode text);
    CREATE FUNCTION see() RETURNS event_trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO seen VALUES (tg_tag, current_setting('citus.multi_shard_modify_mode', true)); END $$;
    CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE PROCEDURE see();
"""


@pytest.mark.parametrize("citus", [True, False])
def test_all_ddl_goes_to_one_shard_after_the_other(site: Site, conn: Connection, citus: bool) -> None:
    """Otherwise Citus ends it: "distributed deadlock". Without Citus nothing is set."""
    if citus:
        conn.execute(CATALOG_OF_CITUS)
    conn.execute(WATCH)
    site.append(*lines(0, 5))
    assert site.run_here() == 0
    conn.execute("ALTER TABLE logs DROP COLUMN node_id")
    conn.execute("DELETE FROM seen")
    site.append(*lines(5, 10, TOMORROW))
    assert site.run_here() == 0
    seen = Counter(dict(conn.execute("SELECT tag, count(*) FROM seen GROUP BY 1").fetchall()))
    assert seen.keys() >= {"ALTER TABLE", "CREATE TABLE"}
    modes = {mode or None for (mode,) in conn.execute("SELECT mode FROM seen")}
    assert modes == ({"sequential"} if citus else {None})
    assert site.emails() == users(0, 10)


def test_where_citus_distributes_other_tables_nothing_changes(
    site: Site, paths_taken: Counter[str], monkeypatch: pytest.MonkeyPatch, conn: Connection
) -> None:
    conn.execute(CATALOG_OF_CITUS)
    conn.execute("CREATE TABLE others (id integer)")
    conn.execute("INSERT INTO pg_dist_partition VALUES ('others', 'h', '')")
    site.append(*lines(0, 30))
    assert go(site, monkeypatch, ATTACH) == 0
    assert paths_taken[ATTACH] == 1
    assert site.emails() == users(0, 30)


def test_the_document_distributes_every_table_of_names() -> None:
    statements = documented("docs/many-nodes.md", "create_distributed_table")
    assert len(statements) == 9
    assert re.findall(r"create_reference_table\('(\w+)'\)", "".join(statements)) == list(ddl.REFERENCE_TABLES)
    assert re.findall(r"create_distributed_table\('(\w+)', 'id', shard_count := 8\)", "".join(statements)) == ["logs"]
