"""A partition is a day in UTC, read from the catalog, created once, and never in the way of readers for long."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest
from helpers.schema import bounds
from helpers.site import ROOT, Site, facts
from psycopg import errors

from xraylog.database import ddl, partitions, schema
from xraylog.database.session import Connection, Unsuitable

BLOCKS = re.findall(r"^```sql\n(.*?)^```$", (ROOT / "Schema.md").read_text(), re.MULTILINE | re.DOTALL)
DAY = "2025-11-17"
PARTITION = "logs_2025_11_17"  # of DAY; Schema.md makes this one
LINE = "2025/11/{day} 10:15:23 from {source} accepted tcp:www.example.com:443 [in >> out] email: {email}\n"


def access(day: int = 17, source: str = "203.0.113.7:51000", email: str = "k") -> str:
    return LINE.format(day=day, source=source, email=email)


@pytest.fixture
def other(database: dict[str, str]) -> Iterator[Connection]:
    """A second session in the test's database."""
    with psycopg.connect(**database, autocommit=True) as conn:  # type: ignore[arg-type]
        yield conn


def covered(conn: Connection) -> list[tuple[str, str]]:
    """The partitions' bounds, with what lies side by side put together."""
    ranges: list[tuple[str, str]] = []
    for low, high in bounds(conn).values():
        if ranges and ranges[-1][1] == low:
            ranges.append((ranges.pop()[0], high))
        else:
            ranges.append((low, high))
    return ranges


def whole_day(day: str) -> tuple[str, str]:
    following = date.fromisoformat(day) + timedelta(days=1)
    return f"{day} 00:00:00+00", f"{following} 00:00:00+00"


def partition_other_database(conn: Connection, name: str, low: str, high: str) -> None:
    conn.execute(f"CREATE TABLE {name} PARTITION OF logs FOR VALUES FROM ('{low}') TO ('{high}')")


SESSIONS = [
    ("UTC", "ISO, MDY"),
    ("Asia/Tehran", "ISO, DMY"),
    ("America/New_York", "SQL, MDY"),
    ("Asia/Kolkata", "ISO, MDY"),
    ("Asia/Kolkata", "SQL, DMY"),  # IST; so is Israel's time
    ("Asia/Shanghai", "German, DMY"),  # CST; so is Chicago's
    ("Pacific/Kiritimati", "Postgres, DMY"),
]


@pytest.mark.parametrize(("zone", "style"), SESSIONS)
def test_a_partition_is_a_day_in_utc_whatever_the_session_is_set_to(conn: Connection, zone: str, style: str) -> None:
    schema.ensure(conn)
    conn.execute("SELECT set_config('TimeZone', %s, false), set_config('DateStyle', %s, false)", [zone, style])
    partitions.Partitions(conn).ensure([DAY, "2025-11-18"])
    assert bounds(conn) == {PARTITION: whole_day(DAY), "logs_2025_11_18": whole_day("2025-11-18")}


@pytest.mark.parametrize(("zone", "style"), SESSIONS)
def test_the_next_run_finds_the_day_whatever_the_session_is_set_to(conn: Connection, zone: str, style: str) -> None:
    schema.ensure(conn)
    partitions.Partitions(conn).ensure([DAY])
    conn.execute("SELECT set_config('TimeZone', %s, false), set_config('DateStyle', %s, false)", [zone, style])
    partitions.Partitions(conn).ensure(["2025-11-16", DAY, "2025-11-18"])
    assert list(bounds(conn)) == ["logs_2025_11_16", PARTITION, "logs_2025_11_18"]


def test_a_partition_of_another_name_that_covers_the_day_is_used(conn: Connection) -> None:
    schema.ensure(conn)
    partition_other_database(conn, "mine", *whole_day(DAY))
    partitions.Partitions(conn).ensure([DAY])
    assert list(bounds(conn)) == ["mine"]


def test_a_partition_of_a_month_is_used_up_to_its_bounds(conn: Connection) -> None:
    schema.ensure(conn)
    partition_other_database(conn, "november", "2025-11-01 00:00+00", "2025-12-01 00:00+00")
    partitions.Partitions(conn).ensure(["2025-10-31", "2025-11-01", DAY, "2025-11-30", "2025-12-01"])
    assert list(bounds(conn)) == ["logs_2025_10_31", "november", "logs_2025_12_01"]


def test_partitions_without_an_end_are_used(conn: Connection) -> None:
    schema.ensure(conn)
    conn.execute("CREATE TABLE past PARTITION OF logs FOR VALUES FROM (MINVALUE) TO ('2025-11-17 00:00+00')")
    conn.execute("CREATE TABLE future PARTITION OF logs FOR VALUES FROM ('2025-11-19 00:00+00') TO (MAXVALUE)")
    partitions.Partitions(conn).ensure(["2025-01-01", "2025-11-16", DAY, "2025-11-18", "2025-11-19", "2026-11-19"])
    assert list(bounds(conn)) == ["past", PARTITION, "logs_2025_11_18", "future"]


def test_what_partitions_of_local_days_leave_of_a_utc_day_is_filled(conn: Connection) -> None:
    """Tehran's days begin at 20:30 UTC; the 18th is missing."""
    schema.ensure(conn)
    partition_other_database(conn, "logs_2025_11_17", "2025-11-17 00:00+03:30", "2025-11-18 00:00+03:30")
    partition_other_database(conn, "logs_2025_11_19", "2025-11-19 00:00+03:30", "2025-11-20 00:00+03:30")
    partitions.Partitions(conn).ensure([f"2025-11-{day}" for day in range(16, 20)])
    assert covered(conn) == [("2025-11-16 00:00:00+00", "2025-11-20 00:00:00+00")]
    assert list(bounds(conn)) == [
        "logs_2025_11_16_0000",
        "logs_2025_11_17",
        "logs_2025_11_17_2030",
        "logs_2025_11_18_0000",
        "logs_2025_11_19",
        "logs_2025_11_19_2030",
    ]


@pytest.mark.parametrize("last", ["23:59:59", "23:59:59.5", "23:59:59.999", "23:59:59.999999"])
def test_a_day_whose_partition_ends_before_midnight_is_filled(conn: Connection, last: str) -> None:
    schema.ensure(conn)
    partition_other_database(conn, "mine", f"{DAY} 00:00+00", f"{DAY} {last}+00")
    partitions.Partitions(conn).ensure([DAY])
    assert covered(conn) == [whole_day(DAY)]


def test_a_table_with_the_name_of_a_partition_is_reported(conn: Connection) -> None:
    schema.ensure(conn)
    conn.execute(f"CREATE TABLE {PARTITION} (LIKE logs)")
    with pytest.raises(Unsuitable, match=f"table {PARTITION}: expected a partition of logs, found a table of its own"):
        partitions.Partitions(conn).ensure(["2025-11-16", DAY])
    assert list(bounds(conn)) == []


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TYPE {name} AS ENUM ('a')",
        "CREATE DOMAIN {name} AS text",
        "CREATE TYPE {name} AS (a integer)",
        "CREATE VIEW {name} AS SELECT 1 AS one",
        "CREATE MATERIALIZED VIEW {name} AS SELECT 1 AS one",
        "CREATE SEQUENCE {name}",
        "CREATE INDEX {name} ON nodes (name, id)",
    ],
)
def test_what_has_the_name_of_a_partition_is_renamed_as_the_error_says(conn: Connection, made: str) -> None:
    schema.ensure(conn)
    conn.execute(made.format(name=PARTITION))  # type: ignore[call-overload]
    with pytest.raises(Unsuitable, match=f"{PARTITION}: expected to create this partition of logs, found a ") as caught:
        partitions.Partitions(conn).ensure([DAY])
    conn.execute(str(caught.value).partition("; as its owner: ")[2])  # type: ignore[call-overload]
    partitions.Partitions(conn).ensure([DAY])
    assert covered(conn) == [whole_day(DAY)]


def test_days_are_there_once_each_has_its_partition(conn: Connection) -> None:
    """Citus names no constraint that a row violates: so it is asked whether a partition was missing."""
    schema.ensure(conn)
    partitions.Partitions(conn).ensure(["2025-11-17"])
    assert partitions.are_there(conn, ["2025-11-17"])
    assert not partitions.are_there(conn, ["2025-11-17", "2025-11-18"])


def test_forty_days_at_once_get_a_partition_each(conn: Connection) -> None:
    schema.ensure(conn)
    days = [str(date(2025, 11, 1) + timedelta(days=n)) for n in range(40)]
    partitions.Partitions(conn).ensure(days)
    assert list(bounds(conn).values()) == [whole_day(day) for day in days]
    made_together = conn.execute("SELECT count(*) FROM pg_class WHERE relispartition AND relkind = 'r' GROUP BY xmin")
    assert max(count for (count,) in made_together) <= 30  # each is a dozen locks of the server


def wait_for_logs(watching: Connection) -> None:
    """Return when some session waits for a lock on logs."""
    deadline = time.monotonic() + 600
    while not watching.execute("SELECT FROM pg_locks WHERE relation = 'logs'::regclass AND NOT granted").fetchall():
        assert time.monotonic() < deadline, "nobody waits for logs"


def test_a_new_partition_waiting_for_a_long_query_gives_way_to_others_until_it_is_made(
    conn: Connection, other: Connection, database: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "DDL_LOCK_TIMEOUT_S", 1)
    schema.ensure(conn)
    with psycopg.connect(**database, autocommit=True) as own, ThreadPoolExecutor(1) as pool:  # type: ignore[arg-type]
        with other.transaction():
            other.execute("SELECT FROM logs")
            made = pool.submit(partitions.Partitions(own).ensure, [DAY])
            wait_for_logs(conn)
            conn.execute("SET statement_timeout = '20s'")
            conn.execute("SELECT FROM logs")  # waits for the waiting DDL until that gives way
            wait_for_logs(conn)  # it tries again
            assert not made.done()
        made.result(timeout=600)
    assert list(bounds(conn)) == [PARTITION]


def test_a_new_partition_waiting_for_a_query_without_end_gives_up(
    conn: Connection, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "DDL_LOCK_TIMEOUT_S", 1)
    monkeypatch.setattr("xraylog.database.session.LOCK_TIMEOUT_S", 1)
    schema.ensure(conn)
    with other.transaction():
        other.execute("SELECT FROM logs")
        with pytest.raises(errors.LockNotAvailable):
            partitions.Partitions(conn).ensure([DAY])


def test_a_day_is_recreated_once_it_is_forgotten(conn: Connection) -> None:
    schema.ensure(conn)
    days_made = partitions.Partitions(conn)
    days_made.ensure([DAY])
    conn.execute(f"DROP TABLE {PARTITION}")
    days_made.forget()
    days_made.ensure([DAY])
    assert list(bounds(conn)) == [PARTITION]


def test_rows_of_a_new_day_in_a_default_partition_are_reported_and_schema_md_moves_them(
    site: Site, conn: Connection
) -> None:
    schema.ensure(conn)
    if conn.info.server_version < 110000:
        with pytest.raises(errors.SyntaxError):
            conn.execute("CREATE TABLE logs_default PARTITION OF logs DEFAULT")
        return
    conn.execute("CREATE TABLE logs_default PARTITION OF logs DEFAULT")
    conn.execute("""
        INSERT INTO logs ("timestamp", action)
        VALUES ('2025-11-17 12:00+00', 'by hand'), ('2025-11-20 12:00+00', 'by hand')
    """)
    site.append(access(17), access(18))
    assert '"logs_default"' in site.run(status=3).stderr

    (move,) = [block for block in BLOCKS if "DETACH PARTITION logs_default" in block]
    conn.execute(move)
    site.run()
    where = site.query("""
        SELECT tableoid::regclass::text, action, count(*) FROM logs GROUP BY 1, 2 ORDER BY 1, 2
    """)
    assert where == [
        (PARTITION, "accepted", 1),
        (PARTITION, "by hand", 1),
        ("logs_2025_11_18", "accepted", 1),
        ("logs_default", "by hand", 1),
    ]


def test_sixteen_sessions_at_once_make_the_tables_and_one_partition_a_day(
    conn: Connection, database: dict[str, str]
) -> None:
    days = ["2025-11-16", DAY, "2025-11-18"]
    sessions = 16
    together = threading.Barrier(sessions, timeout=60)

    def make(_: int) -> bool:
        with psycopg.connect(**database, autocommit=True) as own:  # type: ignore[arg-type]
            together.wait()
            complete = schema.ensure(own).complete
            together.wait()
            partitions.Partitions(own).ensure(days)
            return complete

    with ThreadPoolExecutor(sessions) as pool:
        assert all(pool.map(make, range(sessions)))
    assert list(bounds(conn).values()) == [whole_day(day) for day in days]


def test_each_partition_has_the_keys_and_indexes_and_logs_where_it_can(conn: Connection) -> None:
    schema.ensure(conn)
    partitions.Partitions(conn).ensure([DAY, "2025-11-18"])

    def of(table: str, kind: str) -> list[Any]:
        return [fact for fact in facts(conn) if fact[:2] == (kind, table)]

    for table in (PARTITION, "logs_2025_11_18"):
        assert len(of(table, "constraint")) == len(ddl.KEYS)
        assert len(of(table, "index")) == len(ddl.LOGS_INDEXES)
    on_logs = conn.info.server_version >= 110000
    assert len(of("logs", "constraint")) == len(ddl.KEYS) * on_logs
    assert len(of("logs", "index")) == len(ddl.LOGS_INDEXES) * on_logs

    conn.execute("INSERT INTO users (email) VALUES ('someone')")
    conn.execute("INSERT INTO logs (\"timestamp\", action, user_id) VALUES ('2025-11-17 12:00+00', 'accepted', 1)")
    with pytest.raises(errors.ForeignKeyViolation):
        conn.execute("DELETE FROM users")
    with pytest.raises(errors.ForeignKeyViolation):
        conn.execute("UPDATE logs SET user_id = 2")
