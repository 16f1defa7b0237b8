"""What a role, a database or the server itself is set to changes nothing that our own sessions read."""

from __future__ import annotations

import contextlib
import datetime
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import psycopg
import pytest
from helpers.load_paths import LOAD_PATHS
from helpers.migration import content, days_of, make_plain_logs, stop_in_the_middle
from helpers.site import Site, facts, line, lines, users
from psycopg import errors
from psycopg.sql import SQL, Identifier, Literal
from server import FAST, Server

from xraylog.database import deadline, session
from xraylog.database.session import Connection, Unavailable
from xraylog.report import collect
from xraylog.report.collect import Scope
from xraylog.report.model import Findings
from xraylog.report.window import Window

SETTINGS = {
    "standard_conforming_strings": "off",
    "quote_all_identifiers": "on",
    "array_nulls": "off",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "row_security": "off",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Australia/Sydney",
    "escape_string_warning": "off",  # of the psql that asks
    "search_path": "public, pg_catalog",
}


def set_all(conn: Connection, database: dict[str, str]) -> None:
    """For every session from now on."""
    name = Identifier(database["dbname"])
    for setting, value in SETTINGS.items():
        values = SQL(", ").join(map(Literal, value.split(", ")))
        conn.execute(SQL("ALTER DATABASE {} SET {} TO {}").format(name, Identifier(setting), values))
    conn.execute("CREATE FUNCTION public.quote_ident(text) RETURNS text LANGUAGE sql AS $$ SELECT 'not this' $$")


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_rows_are_the_same_on_each_load_path(
    conn: Connection, site: Site, database: dict[str, str], load_path: str
) -> None:
    set_all(conn, database)
    site.load_path = load_path
    site.append(*lines(0, 20))
    site.run()
    site.append(*lines(20, 40), line(41, at="2025/11/18 00:00:00"), "broken \\ line\n")
    site.run()
    assert site.emails() == users(0, 40) + users(41, 42)
    assert [text for _, text in site.rejected()] == [b"broken \\ line"]
    assert days_of(conn) == {"logs_2025_11_17": 40, "logs_2025_11_18": 1}
    assert site.rows()[0][0].isoformat() == "2025-11-17T10:15:23.123456+00:00"
    assert "complete" in site.run("--check").stdout
    site.run("--replay-rejected")
    assert "nothing new" in site.run("--dry-run").stdout


SEEN = """
    CREATE TABLE seen (source_port integer);
    CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN INSERT INTO seen VALUES (NEW.source_port); RETURN NULL; END';
    CREATE TRIGGER own AFTER INSERT ON logs_2025_11_17 FOR EACH ROW EXECUTE PROCEDURE see()
"""


def test_foreign_keys_and_triggers_are_those_of_any_session(
    conn: Connection, site: Site, database: dict[str, str]
) -> None:
    """Without its foreign key, a name could be removed that a row is about to use."""
    site.append(*lines(0, 5))
    site.run()
    conn.execute(SEEN)
    name = Identifier(database["dbname"])
    conn.execute(SQL("ALTER DATABASE {} SET session_replication_role = replica").format(name))
    site.append(*lines(5, 20))
    site.run()
    assert site.query("SELECT count(*) FROM seen") == [(15,)]
    with session.connect(database) as own, pytest.raises(errors.ForeignKeyViolation), session.transaction(own):
        own.execute("DELETE FROM users WHERE email = 'u7'")


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_a_new_day_is_a_table_like_the_others(
    conn: Connection, site: Site, database: dict[str, str], load_path: str
) -> None:
    """Before PostgreSQL 12 a table could have OIDs, and a partition has them where `logs` does."""
    if conn.info.server_version >= 120000:
        pytest.skip("no table has OIDs")
    site.append(*lines(0, 20))
    site.run()
    name = Identifier(database["dbname"])
    conn.execute(SQL("ALTER DATABASE {} SET default_with_oids = on").format(name))
    site.load_path = load_path
    site.append(*lines(20, 40, "2025/11/18 00:00:00"))
    site.run()
    assert days_of(conn) == {"logs_2025_11_17": 20, "logs_2025_11_18": 20}


def test_the_page_shows_the_same(conn: Connection, site: Site, database: dict[str, str]) -> None:
    site.append(*lines(0, 30))
    site.run()
    day = datetime.date(2025, 11, 17)
    scope = Scope(Window.of(ZoneInfo("Europe/Berlin"), 7, day, datetime.datetime.now(datetime.timezone.utc)))

    def read() -> Findings:
        return collect.read(lambda: session.connect(database, to_write=False), scope, lambda *_: None)

    before = read()
    assert before.rows == 30
    set_all(conn, database)
    assert read() == before


def test_retention_drops_the_same_days(conn: Connection, site: Site, database: dict[str, str]) -> None:
    set_all(conn, database)
    site.append(line(0), line(1, at="2025/11/18 00:00:00"))
    site.run()
    site.set("retention", days="1")
    site.run()
    assert days_of(conn) == {}


def test_a_migration_is_the_same(
    conn: Connection, site: Site, database: dict[str, str], other_database: Connection
) -> None:
    for place in (conn, other_database):
        make_plain_logs(place)
    before = content(conn)
    Site(site.folder, {**database, "dbname": other_database.info.dbname}).migrate()
    set_all(conn, database)
    site.set("postgresql", dbname=database["dbname"])
    stop_in_the_middle(site)
    assert "1 of 3 days of logs_old are copied to logs" in site.migrate("--status").stdout
    assert "2 days are left, 40 rows" in site.migrate("--dry-run").stdout
    site.migrate()
    assert content(conn) == before
    assert facts(conn) == facts(other_database)
    site.migrate("--undo", "--yes")
    assert content(conn) == before


@contextlib.contextmanager
def read_only(conn: Connection, database: dict[str, str]) -> Iterator[None]:
    name = Identifier(database["dbname"])
    conn.execute(SQL("ALTER DATABASE {} SET default_transaction_read_only TO on").format(name))
    yield
    conn.execute(SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name))


def test_a_read_only_server_is_called_by_its_name_before_anything_is_tried(
    conn: Connection, site: Site, database: dict[str, str]
) -> None:
    make_plain_logs(conn)
    before = facts(conn)
    named = "the server is read-only: default_transaction_read_only is on (database)"
    with read_only(conn, database):
        for options in ([], ["--dry-run"], ["--undo", "--yes"], ["--drop-old"]):
            assert named in site.migrate(*options, status=3).stderr
        assert "nothing has been migrated" in site.migrate("--status").stdout
        assert named in site.run("--check", status=3).stdout
        assert named in site.run("--make-partitions", "1", status=1).stderr
        assert named in site.run("--replay-rejected", status=1).stderr
        site.append(*lines(0, 2))
        assert named in site.run("--dry-run").stdout
        assert named in site.run().stderr
    assert facts(conn) == before
    assert site.buffered() == users(0, 2)


def test_the_report_reads_a_read_only_server(conn: Connection, site: Site, database: dict[str, str]) -> None:
    site.append(*lines(0, 3))
    site.run()
    with read_only(conn, database):
        site.run("--output", str(site.folder / "page.html"), script="report_logs")
    assert (site.folder / "page.html").exists()


def test_a_standby_is_called_by_its_name(own_server: Callable[..., Server], tmp_path: Path) -> None:
    server = own_server(*FAST)
    site = Site(tmp_path, server.keywords())
    site.append(*lines(0, 3))
    site.run()
    server.stop()
    name, text = ("standby.signal", "") if server.version >= 12 else ("recovery.conf", "standby_mode = on\n")
    (server.data / name).write_text(text)
    server.start()
    site.append(line(3))
    named = "the server is a standby, which is read-only"
    assert named in site.run().stderr
    assert named in site.migrate(status=3).stderr
    assert "logs is partitioned" in site.migrate("--status").stdout
    site.run("--output", str(tmp_path / "page.html"), script="report_logs")
    assert site.emails() == users(0, 3)
    assert site.buffered() == users(3, 4)
    (told,) = [line for line in site.run("--check", status=3).stdout.splitlines() if line.startswith("✗")]
    assert named in told
    # As during a failover, whatever the order of hosts: the primary is on its way.
    for ports in (f"{server.port},1", f"1,{server.port}", str(server.port)):
        site.set("postgresql", host=",".join(["127.0.0.1"] * (1 + ports.count(","))), port=ports)
        site.set("postgresql", target_session_attrs="read-write")
        assert "PostgreSQL is not available: " in site.run().stderr


@pytest.fixture(params=[True, False], ids=["one round trip", "libpq before 14"])
def pipelines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """libpq with and without pipelines, as far as this one has them."""
    if not request.param:
        monkeypatch.setattr(psycopg.Pipeline, "is_supported", lambda: False)


@pytest.mark.usefixtures("pipelines")
def test_an_answer_is_committed_unless_it_is_of_an_open_transaction(conn: Connection, database: dict[str, str]) -> None:
    conn.execute("CREATE TABLE counted (n int)")
    add = "INSERT INTO counted VALUES (%s) RETURNING n"
    with session.connect(database) as asked:
        assert session.answer(asked, add, [1]) == [(1,)]
        assert conn.execute("SELECT n FROM counted").fetchall() == [(1,)]
        with session.transaction(asked):
            assert session.answer(asked, add, [2]) == [(2,)]
            assert conn.execute("SELECT n FROM counted").fetchall() == [(1,)]
    assert conn.execute("SELECT n FROM counted").fetchall() == [(1,), (2,)]


@pytest.mark.usefixtures("pipelines")
def test_a_session_goes_on_after_an_answer_that_failed(database: dict[str, str]) -> None:
    with session.connect(database) as asked:
        for wrong in ("SELECT 1 / 0", "SELECT FROM nothing", "no statement"):
            with pytest.raises((errors.DivisionByZero, errors.UndefinedTable, errors.SyntaxError)):
                session.answer(asked, wrong)
            assert session.answer(asked, "SELECT %s::int", [1]) == [(1,)]


@pytest.mark.usefixtures("pipelines")
def test_an_answer_from_a_session_that_ended_is_an_outage(conn: Connection, database: dict[str, str]) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.raises(Unavailable))
        asked = stack.enter_context(session.connect(database))
        conn.execute("SELECT pg_terminate_backend(%s)", [asked.info.backend_pid])
        session.answer(asked, "SELECT 1")


def test_a_server_that_lets_only_the_look_at_the_reason_in_is_an_outage(
    database: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler in front of several servers, say, of which one is down."""

    def refuse(*_arguments: Any, **_keywords: Any) -> NoReturn:
        raise errors.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(deadline.Connection, "connect", refuse)
    with pytest.raises(Unavailable, match="server closed the connection"), session.connect(database):
        raise AssertionError


def test_of_memory_that_is_short_the_hint_of_the_server_is_shown(conn: Connection) -> None:
    """It names the setting that has to be raised."""
    with pytest.raises(errors.OutOfMemory) as error:
        conn.execute(
            "DO $$ BEGIN RAISE EXCEPTION 'out of shared memory' USING ERRCODE = '53200', "
            "HINT = 'You might need to increase max_locks_per_transaction.'; END $$"
        )
    said = session.message(error.value)
    assert said == "out of shared memory; You might need to increase max_locks_per_transaction. (SQLSTATE 53200)"


def test_a_server_that_takes_the_connection_and_does_not_answer_is_tried_once() -> None:
    """A run that asked all hosts once more would wait twice as long each time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        keywords = {"host": "127.0.0.1", "port": str(silent.getsockname()[1]), "connect_timeout": "2"}
        with pytest.raises(Unavailable, match="taken, and not answered"), session.connect(keywords):
            raise AssertionError
        silent.setblocking(False)
        taken = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                taken += 1
    assert taken == 2  # the second asks only whether anything takes it
