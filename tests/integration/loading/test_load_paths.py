"""The three load paths differ in nothing but their speed: same rows, same catalog, same promise."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers import load_paths
from helpers.load_paths import ATTACH, KEYS_IN_BULK, LOAD_PATHS, ROW_BY_ROW
from helpers.site import Site, create_database, facts, line, lines, users, wait_until
from psycopg.sql import SQL, Identifier
from server import FAST, Server

from xraylog.cli import Exit
from xraylog.database import partitions, positions, references, schema, session
from xraylog.database.capabilities import Capabilities
from xraylog.database.ddl import REFERENCE_TABLES
from xraylog.loading import attach, bulk, foreign_keys, loader

Connection = psycopg.Connection[tuple[Any, ...]]
FIRST, SECOND, THIRD = (f"2025/11/{day} 10:15:23.123456" for day in (17, 18, 19))


def go(site: Site, monkeypatch: pytest.MonkeyPatch, load_path: str, *arguments: str, batch_size: int = 10) -> int:
    """One run in this process, in batches that are small enough for several."""
    site.set("parser", batch_size=batch_size)
    load_paths.take_until_undone(monkeypatch, load_path)
    return site.main(*arguments)


def test_each_way_leaves_the_same_rows_and_the_same_catalog(
    site: Site, paths_taken: Counter[str], monkeypatch: pytest.MonkeyPatch, conn: Connection
) -> None:
    text = [*lines(0, 35, FIRST), "damaged\n", "\n", *lines(35, 70, SECOND), "damaged too\n"]
    text += [*[f"{SECOND} from 203.0.113.9:4 rejected  proxy/trojan: not a valid user\n"] * 3, line(3, FIRST)]
    reasons = "SELECT action, reject_reason, count(*) FROM logs GROUP BY 1, 2 ORDER BY 1"
    seen = []
    for load_path in LOAD_PATHS:
        site.append(*text)
        assert go(site, monkeypatch, load_path) == 0
        seen.append((site.rows(), site.rejected(), facts(conn)))
        assert site.query(reasons) == [("accepted", "", 71), ("rejected", "invalid user", 3)]
        conn.execute("DROP TABLE logs, log_positions, rejected_lines, users, endpoints, protocols, tags, nodes")
        (site.folder / "buffer.jsonl.state").unlink()  # else it is a database that lost what it confirmed
    assert len(seen[0][0]) == 74
    assert all(found == seen[-1] for found in seen)
    assert set(paths_taken) == {*LOAD_PATHS} - {ROW_BY_ROW}


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_a_value_that_the_database_refuses_costs_its_row_only(
    site: Site, paths_taken: Counter[str], monkeypatch: pytest.MonkeyPatch, conn: Connection, load_path: str
) -> None:
    schema.ensure(conn)
    conn.execute("ALTER TABLE logs ADD CHECK (source_port <> 1031)")
    site.append(*lines(0, 30))
    assert go(site, monkeypatch, load_path) == 0
    assert site.emails() == users(0, 30) - Counter(["u7"])
    ((reason, bytes_of_it),) = site.rejected()
    assert "source_port" in reason
    assert bytes_of_it + b"\n" == line(7).encode()
    assert bool(paths_taken) == (load_path != ROW_BY_ROW)


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_a_name_that_the_database_refuses_costs_its_row_only(
    site: Site, monkeypatch: pytest.MonkeyPatch, conn: Connection, load_path: str
) -> None:
    schema.ensure(conn)
    conn.execute("ALTER TABLE users ADD CHECK (email <> 'u7')")
    site.append(*lines(0, 30))
    assert go(site, monkeypatch, load_path) == 0
    assert site.emails() == users(0, 30) - Counter(["u7"])
    assert [bytes_of_it + b"\n" for _, bytes_of_it in site.rejected()] == [line(7).encode()]


# --- attach ----------------------------------------------------------------------------------------------------------


def test_a_day_with_a_partition_and_a_few_stray_lines_come_along(
    site: Site, paths_taken: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backlog begins on a day that is there, goes on to one that is not, and holds a line of a third."""
    site.append(*lines(0, 5, FIRST))
    assert go(site, monkeypatch, ROW_BY_ROW) == 0
    site.append(*lines(5, 12, FIRST), *lines(12, 18, SECOND), line(18, THIRD), *lines(19, 60, SECOND))
    site.set("parser", batch_size=10)
    monkeypatch.setattr(foreign_keys, "MIN_BULK_ROWS", 1)
    monkeypatch.setattr(attach, "MIN_ATTACH_ROWS", 5)
    assert site.main() == 0
    assert site.emails() == users(0, 60)
    assert paths_taken[ATTACH] == 1
    assert site.query("SELECT count(*) FROM pg_inherits WHERE inhparent = 'logs'::regclass") == [(3,)]


def test_what_comes_next_decides_for_the_few_rows_at_the_end_of_a_batch(
    site: Site, paths_taken: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.append(*lines(0, 8, FIRST))
    assert go(site, monkeypatch, ROW_BY_ROW) == 0
    site.append(*lines(8, 16, FIRST), *lines(16, 40, SECOND))  # two rows of the second day in the first batch
    site.set("parser", batch_size=10)
    monkeypatch.setattr(foreign_keys, "MIN_BULK_ROWS", 1)
    monkeypatch.setattr(attach, "MIN_ATTACH_ROWS", 10)
    assert site.main() == 0
    assert site.emails() == users(0, 40)
    assert paths_taken[ATTACH] == 1


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_the_size_of_a_batch_does_not_decide_the_path(
    site: Site, paths_taken: Counter[str], monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    monkeypatch.setattr(foreign_keys, "MIN_BULK_ROWS", 20)
    monkeypatch.setattr(attach, "MIN_ATTACH_ROWS", 30)
    monkeypatch.setattr(bulk, "MAX_GROUP_S", 3600)
    site.set("parser", batch_size=batch_size)
    for count, paths in ((40, {ATTACH: 1}), (19, {}), (20, {KEYS_IN_BULK: 1})):
        paths_taken.clear()
        site.append(*lines(0, count, FIRST))
        assert site.main() == 0
        assert paths_taken == paths
    assert sum(site.emails().values()) == 40 + 19 + 20


def test_it_gives_other_runs_their_turn(site: Site, paths_taken: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait for new partitions as long as a day is loaded: after a while it ends, and the rest goes another way."""
    monkeypatch.setattr(attach, "MAX_LOCK_S", 0.0)
    site.append(*lines(0, 50))
    assert go(site, monkeypatch, ATTACH) == 0
    assert site.emails() == users(0, 50)
    assert paths_taken[ATTACH] == 1
    assert paths_taken[KEYS_IN_BULK] >= 1


DAY_BEFORE = """
    CREATE TABLE logs_2025_11_16 PARTITION OF logs
    FOR VALUES FROM ('2025-11-16 00:00:00+00') TO ('2025-11-17 00:00:00+00')
"""
OTHERWISE = {
    "a trigger of the user": """
        CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER own AFTER INSERT ON logs_2025_11_16 FOR EACH ROW EXECUTE PROCEDURE nothing()""",
    "a trigger on a part of a day": """
        CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TABLE logs_2025_11_15 PARTITION OF logs
        FOR VALUES FROM ('2025-11-15 00:00:00+00') TO ('2025-11-16 00:00:00+00') PARTITION BY LIST (action);
        CREATE TABLE rejected PARTITION OF logs_2025_11_15 FOR VALUES IN ('rejected');
        CREATE TRIGGER own AFTER INSERT ON rejected FOR EACH ROW EXECUTE PROCEDURE nothing()""",
    "a foreign key of the user": """
        CREATE TABLE places (id integer PRIMARY KEY);
        ALTER TABLE logs_2025_11_16 ADD FOREIGN KEY (source_port) REFERENCES places NOT VALID""",
    "a constraint that is checked later": """
        ALTER TABLE logs_2025_11_16 ADD UNIQUE (id) DEFERRABLE""",
}


@pytest.mark.parametrize("load_path", [ATTACH, KEYS_IN_BULK])
@pytest.mark.parametrize("statements", OTHERWISE.values(), ids=OTHERWISE)
def test_what_triggers_do_beside_checking_our_keys_is_left_to_them(
    site: Site,
    paths_taken: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
    conn: Connection,
    statements: str,
    load_path: str,
) -> None:
    schema.ensure(conn)
    conn.execute(DAY_BEFORE)
    conn.execute(statements)  # type: ignore[arg-type]
    site.append(*lines(0, 30))
    assert go(site, monkeypatch, load_path) == 0
    assert site.emails() == users(0, 30)
    assert not paths_taken


def test_a_table_in_the_place_of_a_partition_is_reported(
    site: Site, monkeypatch: pytest.MonkeyPatch, conn: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    schema.ensure(conn)
    conn.execute("CREATE TABLE logs_2025_11_17 (a integer)")
    site.append(*lines(0, 30))
    assert go(site, monkeypatch, ATTACH) == Exit.OPERATOR
    assert "logs_2025_11_17: expected a partition of logs, found a table of its own" in capsys.readouterr().err
    assert site.buffered() == users(0, 30)


def test_a_day_that_another_run_began_in_the_meantime_is_loaded_another_way(
    site: Site, paths_taken: Counter[str], monkeypatch: pytest.MonkeyPatch, conn: Connection
) -> None:
    schema.ensure(conn)
    real = partitions.Partitions.missing

    def slow(days: partitions.Partitions, wanted: set[str]) -> set[str]:
        missing = real(days, wanted)
        if missing:
            conn.execute(partitions.create_partition("logs_2025_11_17", *partitions.day_bounds("2025-11-17")))
        return missing

    monkeypatch.setattr(partitions.Partitions, "missing", slow)
    site.append(*lines(0, 30))
    assert go(site, monkeypatch, ATTACH) == 0
    assert site.emails() == users(0, 30)
    assert paths_taken[ATTACH] == 1
    assert paths_taken[KEYS_IN_BULK] >= 1


IN_VIEW_OF_LOGS = {  # what is on `logs` and meets its rows, but not those of a table of its own
    "a publication": "CREATE PUBLICATION of_{dbname} FOR TABLE logs",
    "a publication of everything, in the name of logs": (
        "CREATE PUBLICATION of_{dbname} FOR ALL TABLES WITH (publish_via_partition_root = true)"
    ),
    "a policy": (
        "ALTER TABLE logs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
        "CREATE POLICY own ON logs USING (true) WITH CHECK (true)"
    ),
}


@pytest.mark.parametrize("statements", IN_VIEW_OF_LOGS.values(), ids=IN_VIEW_OF_LOGS)
def test_rows_that_are_to_be_seen_on_their_way_into_logs_are_not_attached(
    site: Site, paths_taken: Counter[str], monkeypatch: pytest.MonkeyPatch, conn: Connection, statements: str
) -> None:
    """A subscriber would never get them, and no policy would be asked: the table is a partition only afterwards."""
    if "PUBLICATION" in statements and conn.info.server_version < 130000:
        pytest.skip("before PostgreSQL 13 a partitioned table is in no publication")
    schema.ensure(conn)
    conn.execute(statements.format(**site.database))  # type: ignore[arg-type]
    with role(conn, days=()) as name:
        site.set("postgresql", user=name, password=name)
        site.append(*lines(0, 30))
        is_refused = "POLICY" in statements  # COPY does not work with one, and says so
        assert go(site, monkeypatch, ATTACH) == (Exit.OPERATOR if is_refused else 0)
    assert not paths_taken[ATTACH]
    assert site.rows() == [] if is_refused else len(site.rows()) == 30


@pytest.mark.parametrize("load_path", [ATTACH, ROW_BY_ROW])
def test_a_subscriber_gets_the_rows_of_a_new_day(
    tmp_path: Path, own_server: Callable[..., Server], load_path: str
) -> None:
    server = own_server(*FAST, "wal_level=logical")
    if server.version < 13:
        pytest.skip("before PostgreSQL 13 a partitioned table is in no publication")
    site = Site(tmp_path, create_database(server.keywords()))
    site.load_path = load_path
    site.append(*lines(0, 5))
    site.run()
    site.query("CREATE PUBLICATION of_logs FOR TABLE logs")
    site.query("SELECT pg_create_logical_replication_slot('subscriber', 'pgoutput')")
    site.append(*lines(5, 40, SECOND))
    site.run()
    inserted = """
        SELECT count(*)
        FROM pg_logical_slot_get_binary_changes('subscriber', NULL, NULL, 'proto_version', '1', 'publication_names',
                                                'of_logs')
        WHERE get_byte(data, 0) = ascii('I')
    """
    assert site.query(inserted) == [(35,)]


HOW_STORED = """
    SELECT c.relam::regclass::text, to_jsonb(c) -> 'relhasoids', to_jsonb(a) ->> 'attcompression'
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'action'
    WHERE c.relname = %s
"""
STORED_OTHERWISE = {
    "compressed": (140000, 190000, "ALTER TABLE logs ALTER action SET COMPRESSION pglz"),
    "by another access method": (
        170000, 190000,
        "CREATE ACCESS METHOD own TYPE TABLE HANDLER heap_tableam_handler; ALTER TABLE logs SET ACCESS METHOD own",
    ),
    "with OIDs": (110000, 120000, "ALTER TABLE logs SET WITH OIDS"),
}  # fmt: skip


@pytest.mark.parametrize(("first", "end", "statements"), STORED_OTHERWISE.values(), ids=STORED_OTHERWISE)
def test_a_day_is_stored_as_logs_says_whatever_the_load_path(
    site: Site, monkeypatch: pytest.MonkeyPatch, conn: Connection, first: int, end: int, statements: str
) -> None:
    if not first <= conn.info.server_version < end:
        pytest.skip("this version has no such thing")
    schema.ensure(conn)
    conn.execute(statements)  # type: ignore[arg-type]
    for load_path, at in ((ROW_BY_ROW, FIRST), (ATTACH, SECOND)):
        site.append(*lines(0, 30, at))
        assert go(site, monkeypatch, load_path) == 0
    assert site.emails() == users(0, 30) + users(0, 30)
    expected, found = (site.query(HOW_STORED, name) for name in ("logs_2025_11_17", "logs_2025_11_18"))
    assert found == expected


# --- bulk --------------------------------------------------------------------------------------------------------


def ready_as_a_set(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The day has its partition, and some names are known."""
    site.append(*lines(0, 5))
    assert go(site, monkeypatch, ROW_BY_ROW) == 0


def test_a_name_in_use_cannot_be_deleted_as_with_the_trigger(
    site: Site, monkeypatch: pytest.MonkeyPatch, conn: Connection
) -> None:
    """The DELETE waits for our commit, and then fails."""
    ready_as_a_set(site, monkeypatch)
    failed: list[Exception] = []
    deleting: list[threading.Thread] = []

    def delete() -> None:
        with pytest.raises(psycopg.errors.ForeignKeyViolation) as error:
            conn.execute("DELETE FROM users WHERE email = 'u9'")
        failed.append(error.value)

    real = positions.move

    def late(*arguments: Any) -> Any:
        moved = real(*arguments)
        deleting.append(threading.Thread(target=delete))
        deleting[0].start()
        wait_until(lambda: site.query("SELECT count(*) FROM pg_locks WHERE NOT granted")[0][0] > 0)
        return moved

    site.append(*lines(5, 20))
    monkeypatch.setattr(positions, "move", late)
    assert go(site, monkeypatch, KEYS_IN_BULK, "--keep", batch_size=100) == 0
    deleting[0].join()
    assert failed
    assert site.emails() == users(0, 20)


def test_a_name_that_was_deleted_after_it_was_resolved_is_created_again(
    site: Site, paths_taken: Counter[str], monkeypatch: pytest.MonkeyPatch, conn: Connection
) -> None:
    ready_as_a_set(site, monkeypatch)
    real = bulk.prepare
    done: list[int] = []

    def prepare(*arguments: Any) -> Any:
        ready = real(*arguments)
        if not done:
            done.append(1)
            conn.execute("DELETE FROM users WHERE email = 'u7'")
        return ready

    monkeypatch.setattr(bulk, "prepare", prepare)
    site.append(*lines(5, 30))
    assert go(site, monkeypatch, KEYS_IN_BULK) == 0
    assert site.emails() == users(0, 30)
    assert paths_taken[KEYS_IN_BULK] >= 1


@contextlib.contextmanager
def role(conn: Connection, *grants: str, days: Sequence[str] = ("logs_2025_11_17",)) -> Iterator[str]:
    """A role that is no superuser, the owner of all tables but those of the names, to which it may only add."""
    conn.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
    conn.execute("GRANT CREATE ON SCHEMA public TO plain")
    for table in ("logs", "log_positions", "rejected_lines", *days):
        conn.execute(f"ALTER TABLE {table} OWNER TO plain")  # type: ignore[arg-type]
    conn.execute("GRANT SELECT, INSERT, REFERENCES ON users, endpoints, protocols, tags, nodes TO plain")
    conn.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO plain")
    for grant in grants:
        conn.execute(grant)  # type: ignore[arg-type]
    try:
        yield "plain"
    finally:
        conn.execute("REASSIGN OWNED BY plain TO CURRENT_USER")
        conn.execute("DROP OWNED BY plain")
        conn.execute("DROP ROLE plain")


def test_a_role_without_the_privileges_loads_row_by_row_and_learns_what_is_missing(
    site: Site, paths_taken: Counter[str], monkeypatch: pytest.MonkeyPatch, conn: Connection,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    ready_as_a_set(site, monkeypatch)
    with role(conn) as name:
        site.set("postgresql", user=name, password=name)
        site.append(*lines(5, 30))
        assert go(site, monkeypatch, KEYS_IN_BULK, "-v") == 0
        told = capsys.readouterr().err
    assert not paths_taken
    assert told.count("GRANT UPDATE ON users, protocols, endpoints, tags, nodes TO plain") == 1
    assert told.count("GRANT SET ON PARAMETER session_replication_role TO plain") == 1
    site.set("postgresql", **{key: site.database[key] for key in ("user", "password")})
    assert site.emails() == users(0, 30)


def test_the_two_grants_are_enough(
    site: Site, paths_taken: Counter[str], monkeypatch: pytest.MonkeyPatch, conn: Connection,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if not Capabilities.of(conn).parameter_privileges:
        pytest.skip("before PostgreSQL 15 only a superuser may set session_replication_role")
    ready_as_a_set(site, monkeypatch)
    lock = "GRANT UPDATE ON users, protocols, endpoints, tags, nodes TO plain"
    with role(conn, lock, "GRANT SET ON PARAMETER session_replication_role TO plain") as name:
        site.set("postgresql", user=name, password=name)
        site.append(*lines(5, 30))
        assert go(site, monkeypatch, KEYS_IN_BULK, "-v") == 0
    assert paths_taken[KEYS_IN_BULK] >= 1
    assert "GRANT" not in capsys.readouterr().err


def test_one_session_is_enough(
    site: Site, paths_taken: Counter[str], monkeypatch: pytest.MonkeyPatch, conn: Connection
) -> None:
    """Names want a second one; where none is left, they wait for the rows."""
    ready_as_a_set(site, monkeypatch)
    with role(conn) as name:
        conn.execute("ALTER ROLE plain CONNECTION LIMIT 1")
        site.set("postgresql", user=name, password=name)
        site.append(*lines(5, 40, SECOND))
        for load_path in (ATTACH, KEYS_IN_BULK):
            assert go(site, monkeypatch, load_path) == 0
    site.set("postgresql", **{key: site.database[key] for key in ("user", "password")})
    assert site.emails() == users(0, 40)
    assert not paths_taken[ATTACH]


def test_names_are_locked_in_the_order_in_which_a_partition_is_attached(site: Site, conn: Connection) -> None:
    """ATTACH locks the tables that the foreign keys refer to, in their order. In another, two runs would deadlock."""
    schema.ensure(conn)
    with psycopg.connect(**site.database, autocommit=True) as other:  # type: ignore[arg-type]
        names = references.References(other)
        wanted = {"endpoints": ["e"], "users": ["u"], "tags": ["t"], "protocols": ["p"]}
        resolving = threading.Thread(target=names.resolve, args=[wanted])
        with conn.transaction():
            conn.execute("LOCK TABLE protocols IN SHARE ROW EXCLUSIVE MODE")
            resolving.start()
            wait_until(lambda: site.query("SELECT count(*) FROM pg_locks WHERE NOT granted")[0][0] == 1)
            conn.execute("LOCK TABLE endpoints, tags, users, nodes IN SHARE ROW EXCLUSIVE MODE NOWAIT")
        resolving.join()
    assert conn.execute("SELECT count(*) FROM users").fetchall() == [(1,)]


def test_a_new_day_is_attached_beside_open_readers(
    site: Site, paths_taken: Counter[str], conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a page or a pg_dump, which read for minutes. Before PostgreSQL 12 ATTACH waits for readers of logs."""
    site.append(*lines(0, 5))
    site.run()
    tables = [*REFERENCE_TABLES, *(["logs"] if conn.info.server_version >= 120000 else [])]
    monkeypatch.setattr(session, "LOCK_TIMEOUT_S", 1)
    with conn.transaction():
        for table in tables:
            conn.execute(SQL("SELECT FROM {}").format(Identifier(table)))
        site.append(*lines(5, 40, SECOND))
        assert go(site, monkeypatch, ATTACH) == 0
    assert site.emails() == users(0, 40)
    assert paths_taken[ATTACH] == 1


# --- together --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load_path", [ATTACH, KEYS_IN_BULK])
def test_the_second_session_may_end_at_any_time(site: Site, monkeypatch: pytest.MonkeyPatch, load_path: str) -> None:
    """While its names are looked up, or while the rows of the batch before are on their way."""
    ready_as_a_set(site, monkeypatch)
    prepare_all, calls = bulk.prepare_all, []

    def ended(names: references.References, *arguments: Any) -> Any:
        real = names.resolve

        def resolve(*arguments: Any) -> Any:
            calls.append(1)
            if len(calls) == at:
                site.query("SELECT pg_terminate_backend(%s)", names._conn.info.backend_pid)
            return real(*arguments)

        monkeypatch.setattr(names, "resolve", resolve)
        return prepare_all(names, *arguments)

    monkeypatch.setattr(loader, "prepare_all", ended)
    monkeypatch.setattr(bulk, "MAX_GROUP_S", 60.0)
    expected = users(0, 5)
    for at in range(1, 6):
        calls.clear()
        site.append(*lines(at * 100, at * 100 + 50, FIRST if load_path == KEYS_IN_BULK else f"2025/12/0{at} 10:15:23"))
        expected += users(at * 100, at * 100 + 50)
        for _ in range(2):
            assert go(site, monkeypatch, load_path) == 0
        assert site.emails() == expected
        assert not site.buffered()


def test_batches_of_a_second_are_one_transaction(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ready_as_a_set(site, monkeypatch)
    real, moves = positions.move, []

    def move(*arguments: Any) -> Any:
        moves.append(1)
        return real(*arguments)

    monkeypatch.setattr(positions, "move", move)
    for seconds, first, expected in ((60.0, 5, 1), (0.0, 55, 5)):
        monkeypatch.setattr(bulk, "MAX_GROUP_S", seconds)
        moves.clear()
        site.append(*lines(first, first + 50))
        assert go(site, monkeypatch, KEYS_IN_BULK, "--keep") == 0
        assert len(moves) == expected
    assert site.emails() == users(0, 105)


def test_the_days_of_one_transaction_are_bounded(
    site: Site, paths_taken: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It locks the partition of each, and the server does not have room for any number of locks."""
    ready_as_a_set(site, monkeypatch)
    monkeypatch.setattr(bulk, "MAX_GROUP_S", 600.0)
    monkeypatch.setattr(bulk, "MAX_GROUP_DAYS", 3)
    days = [f"2025/11/{day:02} 10:15:23" for day in range(1, 9)]
    for number, day in enumerate(days * 2):
        site.append(*lines(10 * number + 5, 10 * number + 15, day))
    paths_taken.clear()
    assert go(site, monkeypatch, KEYS_IN_BULK) == 0
    assert site.emails() == users(0, 165)
    assert paths_taken[KEYS_IN_BULK] == 7 + 3  # seven days of which the next one is new; then three together


def test_what_was_refused_together_is_loaded_one_by_one(
    site: Site, paths_taken: Counter[str], monkeypatch: pytest.MonkeyPatch, conn: Connection
) -> None:
    """And what comes after it is loaded together again."""
    ready_as_a_set(site, monkeypatch)
    conn.execute("ALTER TABLE logs ADD CHECK (source_port <> 1054)")
    monkeypatch.setattr(bulk, "MAX_GROUP_S", 60.0)
    monkeypatch.setattr(bulk.BulkLoader, "_continues", up_to_batches(3, bulk.BulkLoader._continues))
    site.append(*lines(5, 105))
    assert go(site, monkeypatch, KEYS_IN_BULK) == 0
    assert site.emails() == users(0, 105) - Counter(["u30"])
    assert len(site.rejected()) == 1
    assert [row[0] for row in conn.execute("SELECT position FROM log_positions WHERE stored_from = 0")] == [0]
    # three together, refused; one by one; then as many together as there are left, in threes
    assert paths_taken[KEYS_IN_BULK] == 3 + 3


def up_to_batches(most: int, real: Any) -> Any:
    """Of one transaction: what takes a second, without a clock."""

    def goes_on(self: bulk.BulkLoader, group: bulk.Group, *arguments: Any) -> bool:
        return group.result.lines < most * 10 and bool(real(self, group, *arguments))

    return goes_on
