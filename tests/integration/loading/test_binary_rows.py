"""Rows in COPY's binary format are those that its text format stores, whatever is in them."""

from __future__ import annotations

import ipaddress
import json
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from helpers import load_paths
from helpers.load_paths import ATTACH, KEYS_IN_BULK
from helpers.site import Site, day, lines, users
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xraylog.database import schema
from xraylog.loading import binary_rows, copy_rows
from xraylog.loading import load_paths as detected
from xraylog.records import Ids, Records, Request, Route

Connection = psycopg.Connection[tuple[Any, ...]]
WIDE_IDS = """
    ALTER TABLE users ALTER id TYPE bigint; ALTER TABLE logs ALTER user_id TYPE bigint;
    ALTER SEQUENCE users_id_seq AS bigint RESTART 3000000000
"""
FIRST = datetime(2015, 1, 1, tzinfo=timezone.utc)
IDS: Ids = {
    "users": {"alice": 1, "боб": 2_147_483_647},
    "protocols": {"tcp": 1, "udp": 2},
    "endpoints": {"example.com": 7, "2001:db8::1": 8},
    "tags": {"in": 3, "out": 4},
}


def one_of(table: str) -> st.SearchStrategy[str | None]:
    return st.none() | st.sampled_from(sorted(IDS[table]))


ports = st.none() | st.integers(0, 65_535)
minutes = st.integers(0, 4_000_000_000).map(  # until 9620
    lambda passed: f"{FIRST + timedelta(minutes=passed):%Y-%m-%d %H:%M}"
)
seconds = st.from_regex(r":[0-5][0-9](\.[0-9]{1,6})?", fullmatch=True)
networks = st.builds(
    lambda address, bits: str(ipaddress.ip_network((address, min(bits, address.max_prefixlen)), strict=False)),
    st.ip_addresses(),
    st.integers(0, 128),
)
addresses = st.none() | st.ip_addresses().map(str) | networks | st.sampled_from(["::ffff:203.0.113.5", "::", "::1"])
requests = st.builds(
    Request,
    st.sampled_from(["accepted", "rejected", "api"]),
    one_of("protocols"),
    one_of("endpoints"),
    ports,
    st.sampled_from(["", "invalid user"]),
)
routes = st.builds(Route, one_of("tags"), one_of("tags"), one_of("users"))
rows = st.tuples(
    minutes, seconds, addresses, ports.map(lambda port: None if port is None else str(port)), requests, routes
)


def records_of(found: Iterable[tuple[Any, ...]]) -> Records:
    return Records(*map(list, zip(*found, strict=True))) if found else Records()


@pytest.fixture
def two_tables(conn: Connection) -> Connection:
    """A session with a table for each format."""
    schema.ensure(conn)
    for name in ("text", "binary"):
        conn.execute(f"CREATE TABLE as_{name} (LIKE logs)")
        conn.execute(f"ALTER TABLE as_{name} ALTER id DROP NOT NULL")
    return conn


def copied(conn: Connection, found: Records, has_reject_reason: bool = True) -> None:
    """Assert that both formats store the same rows, the binary one those of each user side by side."""
    conn.execute("TRUNCATE as_text, as_binary")
    for row_format in (copy_rows.text(has_reject_reason), copy_rows.binary(has_reject_reason)):
        parts = [(f"as_{row_format.name}", row_format.rows(found, IDS, 5))]
        assert copy_rows.copy(conn, parts, row_format) == len(found)
    columns = ", ".join(f'"{name}"' for name in binary_rows.COLUMNS)
    as_text, as_binary = (
        conn.execute(f"SELECT ROW({columns})::text FROM as_{name} ORDER BY ctid").fetchall()
        for name in ("text", "binary")
    )
    assert Counter(as_binary) == Counter(as_text)
    assert len(as_text) == len(found)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rows, max_size=12))
def test_both_formats_store_the_same_rows(two_tables: Connection, found: list[tuple[Any, ...]]) -> None:
    copied(two_tables, records_of(found))


def test_as_they_do_where_rows_come_in_several_chunks(two_tables: Connection) -> None:
    request, route = Request("accepted", "tcp", "example.com", 443), Route("in", "out", "alice")
    count = binary_rows.CHUNK_ROWS * 2 + 1
    found = [
        (f"2025-11-17 10:{n % 60:02}", f":{n % 60:02}.{n:06}", f"203.0.113.{n % 256}", str(n), request, route)
        for n in range(count)
    ]
    copied(two_tables, records_of(found))


def test_rows_of_a_user_are_stored_side_by_side_each_in_the_order_of_the_log(two_tables: Connection) -> None:
    request = Request("accepted", "tcp", "example.com", 443)
    alice, other = (Route("in", "out", user) for user in IDS["users"])
    order = [alice, other, alice, alice, other, alice]
    found = [("2025-11-17 10:15", f":{n:02}", "203.0.113.7", "5", request, route) for n, route in enumerate(order)]
    copied(two_tables, records_of(found))
    seconds = two_tables.execute('SELECT extract(second FROM "timestamp")::integer FROM as_binary ORDER BY ctid')
    assert [second for (second,) in seconds] == [0, 2, 3, 5, 1, 4]


def test_and_into_a_table_that_is_older_than_the_reasons(two_tables: Connection) -> None:
    request, route = Request("rejected", None, None, None, "invalid user"), Route(None, None, None)
    found = records_of([("2025-11-17 10:15", ":23", "203.0.113.7", "5", request, route)] * 2)
    copied(two_tables, found, has_reject_reason=False)
    assert two_tables.execute("SELECT DISTINCT reject_reason FROM as_binary").fetchall() == [(None,)]


# --- whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tables and formats of the COPY statements of a run in this process."""
    formats: list[str] = []
    real = psycopg.Cursor.copy

    def copy(cursor: psycopg.Cursor[Any], statement: Any, *arguments: Any) -> Any:
        words = statement.as_string(cursor).replace('"', "").split()
        if words[1].startswith("logs"):
            formats.append(" ".join([words[1], *words[words.index("(FORMAT") + 1 :]]).strip(")"))
        return real(cursor, statement, *arguments)

    monkeypatch.setattr(psycopg.Cursor, "copy", copy)
    return formats


@pytest.fixture(params=[ATTACH, KEYS_IN_BULK])
def large(site: Site, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site whose few lines are loaded as many are."""
    load_paths.take_until_undone(monkeypatch, request.param)
    site.load_path = request.param
    return site


def test_many_rows_are_sent_in_binary_and_those_of_a_new_day_frozen(large: Site, sent: list[str]) -> None:
    large.append(*lines(0, 30))
    assert large.main() == 0
    assert large.emails() == users(0, 30)
    is_new = large.load_path == ATTACH
    assert sent == ["logs_2025_11_17 binary, FREEZE True" if is_new else "logs binary, FREEZE False"]


def test_rows_of_a_day_that_was_there_go_with_those_of_a_new_one(
    large: Site, sent: list[str], paths_taken: Counter[str]
) -> None:
    large.append(*lines(0, 10))
    assert large.main() == 0
    large.append(*lines(10, 20), *lines(20, 30, day(1)))
    sent.clear()
    paths_taken.clear()
    assert large.main() == 0
    assert large.emails() == users(0, 30)
    assert paths_taken == {large.load_path: 1}
    if large.load_path == ATTACH:
        assert sent == ["logs binary, FREEZE False", "logs_2024_01_02 binary, FREEZE True"]


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE logs ALTER action TYPE varchar(20)",
        "ALTER TABLE logs ALTER source_port TYPE bigint",
        "ALTER TABLE logs ALTER source_ip TYPE cidr",
        "ALTER TABLE logs ALTER user_id TYPE bigint; ALTER TABLE users ALTER id TYPE bigint",
        "ALTER TABLE users ALTER id TYPE bigint",
        "CREATE DOMAIN port AS integer; ALTER TABLE logs ALTER destination_port TYPE port",
    ],
)
def test_columns_of_other_types_get_text(large: Site, sent: list[str], conn: Connection, change: str) -> None:
    schema.ensure(conn)
    for statement in change.split("; "):
        conn.execute(statement)
    large.append(*lines(0, 30))
    assert large.main() == 0
    assert large.emails() == users(0, 30)
    assert all(" text," in name for name in sent)


def changed_after_the_first_look(monkeypatch: pytest.MonkeyPatch, conn: Connection, *statements: str) -> list[bool]:
    """Change the tables once a run has looked at their types; return whether it sends binary rows, at each look."""
    real, seen = detected.detect, list[bool]()

    def detect(*arguments: Any) -> detected.LoadPaths:
        found = real(*arguments)
        for statement in () if seen else statements:
            conn.execute(statement)
        seen.append(found.takes_binary)
        return found

    monkeypatch.setattr(detected, "detect", detect)
    return seen


@pytest.mark.parametrize(
    "change", [WIDE_IDS, "ALTER TABLE logs ALTER source_port TYPE bigint"], ids=["wide ids", "a wide port"]
)
def test_types_that_are_changed_during_a_run_are_looked_up_again(
    large: Site, conn: Connection, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """An id that does not fit into four bytes ended the run in a traceback."""
    schema.ensure(conn)
    seen = changed_after_the_first_look(monkeypatch, conn, *change.split(";"))
    large.append(*lines(0, 30))
    assert large.main() == 0
    assert seen[:2] == [True, False]
    assert large.emails() == users(0, 30)
    assert large.rejected() == []


def test_ids_that_outgrow_their_columns_during_a_run_are_for_the_operator(
    large: Site, conn: Connection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    schema.ensure(conn)
    changed_after_the_first_look(
        monkeypatch,
        conn,
        "ALTER TABLE users ALTER id TYPE bigint",
        "ALTER SEQUENCE users_id_seq AS bigint RESTART 3000000000",
    )
    large.append(*lines(0, 30))
    assert large.main() == 3
    said = capsys.readouterr().err
    assert "sequence users_id_seq of users.id is used up at 2147483647: ALTER TABLE logs ALTER user_id TYPE" in said
    assert large.buffered() == users(0, 30)
    conn.execute("ALTER TABLE logs ALTER user_id TYPE bigint")
    assert large.main() == 0
    assert large.emails() == users(0, 30)


def test_a_day_that_was_just_loaded_needs_no_vacuum_for_index_only_scans(
    large: Site, conn: Connection, paths_taken: Counter[str]
) -> None:
    """From PostgreSQL 14 on COPY FREEZE sets the visibility map, too."""
    large.append(*lines(0, 30))
    assert large.main() == 0
    is_frozen = bool(paths_taken[ATTACH]) and conn.info.server_version >= 14_00_00
    conn.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
    (plan,) = conn.execute(
        'EXPLAIN (ANALYZE, FORMAT json) SELECT "timestamp" FROM logs WHERE user_id = 7'
    ).fetchone() or ([],)
    assert f'"Heap Fetches": {0 if is_frozen else 1}' in json.dumps(plan)
