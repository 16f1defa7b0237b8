"""A batch is stored exactly once, all of it or nothing, whatever the database refuses."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from helpers.site import line, lines, users
from server import Server

from xraylog import records
from xraylog.accesslog.parser import Parser
from xraylog.database import positions, references, schema
from xraylog.database import session as db
from xraylog.database.partitions import PartitionMissing
from xraylog.database.positions import Position, PositionUpdate
from xraylog.load_result import LoadResult
from xraylog.loading import loader
from xraylog.loading.foreign_keys import NamesMissing
from xraylog.loading.loader import Target
from xraylog.records import Batch, Fingerprint

Connection = psycopg.Connection[tuple[Any, ...]]
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Log:
    """A log in memory, loaded over one connection as a run does it."""

    def __init__(self, conn: Connection, head: str = "head") -> None:
        self.conn = conn
        self.head = head
        schema.ensure(conn)
        target = Target(conn, contextlib.nullcontext)  # type: ignore[arg-type]  # no second session
        self.names = target.references
        node_id = target.node_id("n1")
        self.loader = target.loader("n1")
        self.position = Position.start(node_id, "access.log")

    def batch(self, *text: str) -> Batch:
        (batch,) = Parser(ZoneInfo("UTC"), NOW).batches([(self.position.offset, "".join(text).encode())], 1 << 30)
        return batch

    def load(self, *text: str) -> LoadResult:
        batch = self.batch(*text)
        result, (self.position,) = self.loader.load(
            batch, PositionUpdate(self.position, batch.end, fingerprint(batch.end, self.head))
        )
        return result


def fingerprint(offset: int, head: str = "head") -> Fingerprint:
    return Fingerprint(min(offset, 4096), hashlib.sha256(head.encode()).digest())


@pytest.fixture
def log(conn: Connection) -> Log:
    return Log(conn)


@pytest.fixture
def observer(database: dict[str, str]) -> Iterator[Connection]:
    """Another session, to look and to disturb."""
    with psycopg.connect(**database, autocommit=True) as connection:  # type: ignore[arg-type]
        yield connection


def stored(conn: Connection) -> Counter[str]:
    return Counter(dict(conn.execute("SELECT email, count(*) FROM logs JOIN users ON users.id = user_id GROUP BY 1")))


def rejected(conn: Connection) -> list[tuple[str, bytes]]:
    return conn.execute("SELECT reason, line FROM rejected_lines ORDER BY id").fetchall()  # type: ignore[return-value]


def test_a_batch_becomes_rows_and_moves_the_position(log: Log, observer: Connection) -> None:
    result = log.load(line(1), "damaged\n", "\n", line(2))
    assert (result.lines, result.rows, result.rejected, sum(result.ignored.values())) == (4, 2, 1, 1)
    assert result.adds_up
    assert stored(observer) == Counter(["u1", "u2"])
    assert rejected(observer) == [("expected a timestamp first, found none", b"damaged")]
    assert observer.execute("SELECT line_offset FROM rejected_lines").fetchall() == [(len(line(1)),)]
    assert observer.execute("SELECT position FROM log_positions").fetchall() == [(log.position.offset,)]


def test_new_names_are_counted_once(log: Log) -> None:
    assert log.load(line(1), line(1)).new_names == {"users": 1, "endpoints": 1, "protocols": 1, "tags": 2}
    assert log.load(line(1), line(2)).new_names == {"users": 1, "endpoints": 1}


def test_a_batch_that_another_run_stored_is_not_stored_again(log: Log, observer: Connection) -> None:
    log.load(line(1))
    here, batch = log.position, log.batch(line(2))
    log.load(line(2))
    with pytest.raises(positions.PositionConflict):
        log.loader.load(batch, PositionUpdate(here, batch.end, fingerprint(batch.end)))
    assert stored(observer) == Counter(["u1", "u2"])


def test_two_runs_without_a_lock_in_common_do_not_both_store_the_same_lines(log: Log, observer: Connection) -> None:
    """Copies of one log, given at once through two configs."""
    other = Log(observer)
    log.load(line(1))
    with pytest.raises(positions.PositionConflict):
        other.load(line(1))
    assert stored(observer) == Counter(["u1"])


def test_an_unparsed_line_larger_than_a_field_is_kept_in_part(
    log: Log, observer: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 100)
    log.load("x" * 100 + "\n", "y" * 101 + "\n")
    assert rejected(observer) == [
        ("expected a timestamp first, found none", b"x" * 100),
        ("expected a timestamp first, found none (its first 100 of 101 bytes)", b"y" * 100),
    ]


STEPS = [
    "database.partitions.Partitions.ensure",
    "database.references.References.resolve",
    "database.positions.move",
    "loading.rejects.write_rejects",
]


@pytest.mark.parametrize("step", STEPS)
def test_a_connection_lost_at_any_step_stores_nothing(
    log: Log, observer: Connection, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def lose_connection(*_: object) -> None:
        observer.execute("SELECT pg_terminate_backend(%s)", [log.conn.info.backend_pid])
        log.conn.execute("SELECT 1")

    monkeypatch.setattr(f"xraylog.{step}", lose_connection)
    with pytest.raises(psycopg.OperationalError):
        log.load(line(1), "damaged\n")
    assert stored(observer) == Counter()
    assert rejected(observer) == []
    assert observer.execute("SELECT * FROM log_positions").fetchall() == []


def test_a_row_that_a_check_refuses_is_rejected_and_its_neighbours_load(log: Log, observer: Connection) -> None:
    observer.execute("ALTER TABLE logs ADD CONSTRAINT no_13 CHECK (destination_port <> 13)")
    bad = line(50).replace(":443", ":13")
    result = log.load(*lines(0, 50), bad, "damaged\n", *lines(51, 90))
    assert (result.rows, result.rejected) == (89, 2)
    assert stored(observer) == Counter(f"u{n}" for n in range(90) if n != 50)
    (reason, kept), (_, damaged) = rejected(observer)
    assert "no_13" in reason
    assert "23514" in reason
    assert kept == bad.rstrip("\n").encode()
    assert damaged == b"damaged"
    assert result.adds_up


def test_a_check_that_refuses_every_row_is_a_schema_that_does_not_fit(log: Log, observer: Connection) -> None:
    observer.execute("ALTER TABLE logs ADD CONSTRAINT no_443 CHECK (destination_port <> 443)")
    with pytest.raises(db.Unsuitable, match="no_443"):
        log.load(*lines(0, 300))
    assert stored(observer) == Counter()
    assert rejected(observer) == []
    assert observer.execute("SELECT * FROM log_positions").fetchall() == []


TRIGGER = """
    CREATE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN IF {condition} THEN RAISE EXCEPTION 'not here' USING ERRCODE = '{state}'; END IF; RETURN new; END $$
"""
# As errors of partitions, names, ids, other columns and sequences have them.
STATES = [
    "check_violation",
    "foreign_key_violation",
    "unique_violation",
    "not_null_violation",
    "sequence_generator_limit_exceeded",
]


@pytest.mark.parametrize("state", STATES)
def test_a_row_that_a_trigger_refuses_is_rejected_whatever_state_it_gives(
    log: Log, observer: Connection, state: str
) -> None:
    log.load(line(1))
    observer.execute(TRIGGER.format(condition="new.destination_port = 13", state=state))
    partition = f"logs_{line(1)[:10].replace('/', '_')}"
    observer.execute(f"CREATE TRIGGER refuses BEFORE INSERT ON {partition} FOR EACH ROW EXECUTE PROCEDURE refuses()")
    bad = line(50).replace(":443", ":13")
    result = log.load(*lines(2, 50), bad, *lines(51, 90))
    assert (result.rows, result.rejected) == (87, 1)
    ((reason, kept),) = rejected(observer)
    assert "not here" in reason
    assert kept == bad.rstrip("\n").encode()


@pytest.mark.parametrize("state", STATES)
def test_a_trigger_that_refuses_every_row_is_named(log: Log, observer: Connection, state: str) -> None:
    log.load(line(1))
    observer.execute(TRIGGER.format(condition="true", state=state))
    partition = f"logs_{line(1)[:10].replace('/', '_')}"
    observer.execute(f"CREATE TRIGGER refuses BEFORE INSERT ON {partition} FOR EACH ROW EXECUTE PROCEDURE refuses()")
    with pytest.raises(db.Unsuitable, match=f"ALTER TABLE {partition} DISABLE TRIGGER refuses"):
        log.load(*lines(2, 300))
    assert rejected(observer) == []
    observer.execute(f"ALTER TABLE {partition} DISABLE TRIGGER refuses")
    log.load(*lines(2, 300))
    assert stored(observer) == users(1, 300)


@pytest.mark.parametrize("state", STATES)
def test_a_name_that_a_trigger_refuses_rejects_its_lines_only(log: Log, observer: Connection, state: str) -> None:
    log.load(line(1))
    observer.execute(TRIGGER.format(condition="new.email = 'u7'", state=state))
    observer.execute("CREATE TRIGGER refuses BEFORE INSERT ON users FOR EACH ROW EXECUTE PROCEDURE refuses()")
    result = log.load(*lines(2, 10), line(7))
    assert (result.rows, result.rejected) == (7, 2)
    assert stored(observer) == users(1, 10) - Counter(["u7"])
    assert all("not here" in reason for reason, _ in rejected(observer))


def test_a_few_refused_rows_of_a_small_batch_are_no_misfit(log: Log, observer: Connection) -> None:
    observer.execute("ALTER TABLE logs ADD CONSTRAINT no_443 CHECK (destination_port <> 443)")
    assert log.load(*lines(0, 99)).rejected == 99
    assert stored(observer) == Counter()


def test_a_name_that_the_database_refuses_rejects_its_lines_only(log: Log, observer: Connection) -> None:
    """A CHECK of the operator's that a client's name may not pass."""
    observer.execute("ALTER TABLE endpoints ADD CONSTRAINT short CHECK (length(address) <= 20)")
    long = [line(n).replace(f"host{n}.example", "x" * 21 + str(n % 2)) for n in range(10, 14)]
    result = log.load(*lines(0, 10), *long, *lines(14, 20))
    assert (result.rows, result.rejected) == (16, 4)
    assert stored(observer) == Counter(f"u{n}" for n in range(20) if not 10 <= n < 14)
    assert [kept for _, kept in rejected(observer)] == [text.rstrip("\n").encode() for text in long]
    assert {reason for reason, _ in rejected(observer)} == {
        'new row for relation "endpoints" violates check constraint "short" (SQLSTATE 23514)'
    }


def test_names_that_the_database_takes_for_equal_reject_their_lines(log: Log, observer: Connection) -> None:
    """A hand-made column that ignores case holds one spelling only: the other must not become its user."""
    observer.execute("CREATE UNIQUE INDEX ON users (lower(email))")
    result = log.load(line(1), line(2).replace("email: u2", "email: U1"))
    assert (result.rows, result.rejected) == (1, 1)
    ((reason, _),) = rejected(observer)
    assert (
        reason
        == "users.email holds another spelling of 'u1', under the unique index \"users_lower_idx\" (SQLSTATE 23505)"
    )


def test_a_name_deleted_meanwhile_is_created_again(log: Log, observer: Connection) -> None:
    log.load(line(1))
    observer.execute("DELETE FROM logs")
    observer.execute("DELETE FROM users")
    result = log.load(line(1), line(2))
    assert result.rows == 2
    assert result.rejected == 0
    assert stored(observer) == Counter(["u1", "u2"])


def test_a_partition_dropped_meanwhile_is_created_again(log: Log, observer: Connection) -> None:
    log.load(line(1))
    observer.execute("DROP TABLE logs_2025_11_17")
    result = log.load(line(2))
    assert (result.rows, result.rejected) == (1, 0)
    assert stored(observer) == Counter(["u2"])


def test_what_deletes_names_forever_is_reported(
    log: Log, monkeypatch: pytest.MonkeyPatch, observer: Connection
) -> None:
    log.load(line(1))
    real = references.References.resolve

    def resolve_and_delete(self: references.References, names: Any) -> dict[str, int]:
        new = real(self, names)
        observer.execute("DELETE FROM logs")
        observer.execute("DELETE FROM users")
        return new

    monkeypatch.setattr(references.References, "resolve", resolve_and_delete)
    with pytest.raises(db.Unsuitable, match="vanish"):
        log.load(line(1))


def test_equal_names_in_two_sessions_meet_in_one_id(log: Log, observer: Connection) -> None:
    other = Log(observer, "another head")
    log.load(line(1))
    other.load(line(1))
    assert log.conn.execute("SELECT count(*) FROM users").fetchall() == [(1,)]
    assert stored(observer) == Counter({"u1": 2})


def test_ids_are_not_burnt_on_names_that_exist(observer: Connection) -> None:
    """Plain ON CONFLICT attempts on 300 names left the next id at 500,001 (docs/architecture.md#names-first)."""
    for n in range(20):
        Log(observer, f"head {n}").load(*lines(0, 50))
    assert observer.execute("SELECT count(*), max(id) FROM users").fetchall() == [(50, 50)]


def test_what_is_remembered_of_names_is_bounded(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "CACHE_SIZE", 100)
    for start in range(0, 1000, 50):
        log.load(*lines(start, start + 50))
        assert len(log.names._ids["users"]) <= 150
    assert stored(log.conn) == Counter(f"u{n}" for n in range(1000))


def test_every_session_commits_durably(own_server: Callable[..., Server]) -> None:
    server = own_server("synchronous_commit=off")
    with db.connect(server.keywords()) as conn:
        with db.transaction(conn):
            assert conn.execute("SHOW synchronous_commit").fetchall() == [("on",)]
        assert conn.execute("SHOW synchronous_commit").fetchall() == [("off",)]


def test_a_database_that_is_not_utf8_is_refused(server_keywords: dict[str, str]) -> None:
    name = "test_latin1"
    with psycopg.connect(**server_keywords, autocommit=True) as conn:  # type: ignore[arg-type]
        conn.execute(f"DROP DATABASE IF EXISTS {name}")  # type: ignore[arg-type]
        conn.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")  # type: ignore[arg-type]
        with pytest.raises(db.Unsuitable, match="UTF8"), db.connect({**server_keywords, "dbname": name}):
            pass
        conn.execute(f"DROP DATABASE {name}")  # type: ignore[arg-type]


@pytest.mark.parametrize("state", ["40P01", "40001"], ids=["deadlock", "serialization"])
def test_a_conflict_with_another_program_is_tried_again_and_raised_if_it_stays(conn: Connection, state: str) -> None:
    schema.ensure(conn)
    tries = []

    def store(_: Any) -> str:
        tries.append(1)
        if len(tries) != 2 * loader.MAX_ATTEMPTS:
            conn.execute(f"DO $$ BEGIN RAISE EXCEPTION 'in the way' USING ERRCODE = '{state}'; END $$")
        return "stored"

    target = Target(conn, contextlib.nullcontext)  # type: ignore[arg-type]
    with pytest.raises(psycopg.OperationalError, match="in the way"):
        target.store_resolved([], {}, store)
    assert len(tries) == loader.MAX_ATTEMPTS
    assert target.store_resolved([], {}, store) == ("stored", Counter())


@pytest.mark.parametrize(
    ("vanished", "raised"), [(PartitionMissing, db.Unavailable), (NamesMissing, db.Unsuitable)], ids=["days", "names"]
)
def test_what_vanishes_each_time_ends_the_tries(
    conn: Connection, vanished: type[Exception], raised: type[Exception]
) -> None:
    """Days vanish under another run's retention, which comes to its end: that is no trouble for the operator."""
    schema.ensure(conn)
    tries = []

    def store(_: Any) -> None:
        tries.append(1)
        raise vanished

    with pytest.raises(raised, match="vanish while rows"):
        Target(conn, contextlib.nullcontext).store_resolved(["2025-11-17"], {}, store)  # type: ignore[arg-type]
    assert len(tries) == loader.MAX_ATTEMPTS
