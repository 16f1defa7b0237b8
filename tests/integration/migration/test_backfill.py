"""Steps 3 to 6: every row is copied once, a day at a time, whoever reads or writes meanwhile."""

from __future__ import annotations

import datetime
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.migration import (
    MIGRATE,
    OLDER,
    content,
    days_of,
    indexes,
    make_plain_logs,
    stop_after_the_rename,
    stop_in_the_middle,
)
from helpers.site import Site, lines, users, wait_until
from server import Server

from xraylog.database import partitions, schema
from xraylog.database.session import Connection, lock_key
from xraylog.migration import backfill


def test_every_row_is_copied_with_its_id_into_the_partition_of_its_utc_day(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    conn.execute("SET timezone TO 'Asia/Tokyo'")
    conn.execute("""
        INSERT INTO logs (id, "timestamp", action) VALUES (1000, '2025-11-14 23:59:59.999999+00', 'accepted'),
                                                        (1001, '2025-11-18 00:00:00+00', 'accepted'),
                                                        (1002, '2025-11-20 00:00:00+00', 'accepted')
    """)
    before = content(conn)
    site.migrate()
    assert content(conn) == before
    assert days_of(conn) == {
        "logs_2025_11_14": 1,
        "logs_2025_11_15": 20,
        "logs_2025_11_16": 20,
        "logs_2025_11_17": 20,
        "logs_2025_11_18": 1,
        "logs_2025_11_20": 1,
    }
    assert conn.execute("SELECT to_regclass('logs_2025_11_19')").fetchall() == [(None,)], "a day without rows has none"


def test_ids_from_zero_down_are_copied_too(conn: Connection, site: Site) -> None:
    make_plain_logs(conn, rows=0)
    conn.execute("INSERT INTO logs (id, \"timestamp\", action) VALUES (0, '2025-11-15', 'a'), (-5, '2025-11-16', 'b')")
    site.migrate("--drop-old")
    assert [id_ for id_, *_ in content(conn)] == [-5, 0]


def test_rows_in_no_order_are_found_by_another_index(conn: Connection, site: Site) -> None:
    make_plain_logs(conn, rows=0)
    conn.execute("""
        INSERT INTO logs ("timestamp", action)
        SELECT timestamptz '2025-11-15 00:00+00' + n * 7919 % 3000 * interval '1 minute', 'accepted'
        FROM generate_series(1, 3000) AS n
    """)
    site.migrate()
    assert indexes(conn, "logs_old")["logs_old_by_day"] == 'btree ("timestamp")'
    site.migrate("--drop-old")
    assert len(content(conn)) == 3000


def test_rows_in_the_order_of_time_are_found_by_a_brin_index_and_an_own_index_is_used(
    conn: Connection, site: Site
) -> None:
    make_plain_logs(conn, rows=3000)
    site.migrate()
    assert indexes(conn, "logs_old")["logs_old_by_day"] == 'brin ("timestamp")'
    site.migrate("--undo", "--yes")
    conn.execute('CREATE INDEX ON logs ("timestamp")')
    site.migrate()
    assert "logs_old_by_day" not in indexes(conn, "logs_old")


def test_two_migrations_at_once_copy_each_day_once(conn: Connection, site: Site) -> None:
    make_plain_logs(conn, rows=3000, days=10)
    expected = content(conn)
    both = [subprocess.Popen(site.command(script=MIGRATE), stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(600) for process in both] == [0, 0]
    assert content(conn) == expected


def test_a_query_that_goes_on_does_not_stop_the_days(conn: Connection, site: Site, database: dict[str, str]) -> None:
    """From PostgreSQL 12 on, ATTACH does not wait for readers; before, a day waits for them."""
    make_plain_logs(conn)
    stop_after_the_rename(site)
    with psycopg.connect(**database) as holder:  # type: ignore[arg-type]
        holder.execute("SELECT count(*) FROM logs")
        if conn.info.server_version >= 120000:
            site.migrate()
        else:
            migration = threading.Thread(target=lambda: site.run_here(script=MIGRATE))
            migration.start()
            wait_until(lambda: "waiting: " in site.output())
            holder.rollback()
            migration.join(600)
    assert len(content(conn)) == 60


class Reader(threading.Thread):
    """Queries logs all the time. A query that would wait a minute for another session's lock ends it."""

    def __init__(self, keywords: dict[str, str]) -> None:
        super().__init__()
        self.counts: list[int] = []
        self.error: psycopg.Error | None = None
        self._end = threading.Event()
        self._keywords = keywords

    def run(self) -> None:
        keywords = {**self._keywords, "options": "-c lock_timeout=1min"}
        with psycopg.connect(**keywords, autocommit=True) as conn:  # type: ignore[arg-type]
            try:
                is_last = False
                while not is_last:
                    is_last = self._end.is_set()  # the last query begins after the end
                    ((count,),) = conn.execute("""
                        SELECT count(*) FROM logs JOIN users ON users.id = user_id
                        WHERE "timestamp" < '2025-10-20 00:00+00'
                    """)
                    self.counts.append(count)
            except psycopg.Error as error:
                self.error = error

    def end(self) -> None:
        self._end.set()
        self.join()


def test_a_reader_goes_on_and_sees_whole_days(conn: Connection, site: Site, database: dict[str, str]) -> None:
    """That no day waits for a reader, nor a reader for a day, is the claim of the test above."""
    make_plain_logs(conn, rows=60_000, days=30, first="2025-10-19")
    reader = Reader(database)
    reader.start()
    wait_until(lambda: len(reader.counts) > 0)
    site.migrate("--drop-old")
    reader.end()
    assert reader.error is None
    assert set(reader.counts) <= {0, 2000}, "the oldest day is there as a whole or not at all"
    assert reader.counts[-1] == 2000


def test_a_bad_row_that_comes_at_the_last_moment_is_reported_and_can_be_fixed(
    conn: Connection, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes between the check of the rows and the rename."""
    make_plain_logs(conn, OLDER.replace("timestamptz NOT NULL", "timestamptz"))
    from xraylog.migration import swap

    real = swap.swap

    def late(*arguments: Any) -> None:
        conn.execute("INSERT INTO logs (action) VALUES ('accepted')")
        real(*arguments)

    monkeypatch.setattr(swap, "swap", late)
    assert site.run_here(script=MIGRATE) == 3
    assert "1 row without a timestamp (id 61)" in site.output()
    assert "then continue, or go back with --undo" in site.output()
    conn.execute('DELETE FROM logs_old WHERE "timestamp" IS NULL')
    site.migrate("--drop-old")
    assert len(content(conn)) == 60


def test_a_value_that_is_changed_meanwhile_to_one_that_has_no_new_type_is_reported_and_can_be_fixed(
    conn: Connection, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is changed after the last check of the rows."""
    make_plain_logs(conn, OLDER.replace("source_ip        inet", "source_ip        text"))
    real = backfill.copy_day

    def late(*arguments: Any) -> backfill.CopyResult:
        conn.execute("UPDATE logs_old SET source_ip = 'nowhere' WHERE id = 7")
        return real(*arguments)

    monkeypatch.setattr(backfill, "copy_day", late)
    assert site.run_here(script=MIGRATE) == 3
    assert "2025-11-15: its rows cannot be copied: invalid input syntax for type inet" in site.output()
    assert "correct them in logs_old and continue, or go back with --undo" in site.output()
    monkeypatch.undo()
    conn.execute("UPDATE logs_old SET source_ip = '203.0.113.7' WHERE id = 7")
    site.migrate("--drop-old")
    assert {row[2] for row in content(conn)} == {"203.0.113.7"}


def test_a_name_that_another_program_takes_meanwhile_is_reported_and_can_be_freed(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    stop_in_the_middle(site)
    conn.execute("CREATE TYPE logs_2025_11_16 AS ENUM ('theirs')")
    refused = site.migrate(status=3).stderr
    assert 'its partition cannot be created: type "logs_2025_11_16" already exists' in refused
    assert "rename what has its name, and continue" in refused
    conn.execute("ALTER TYPE logs_2025_11_16 RENAME TO theirs")
    site.migrate("--drop-old")
    assert len(content(conn)) == 60


def test_a_publication_of_all_tables_is_no_obstacle(own_server: Callable[..., Server], tmp_path: Path) -> None:
    """The server refuses UPDATE and DELETE on a published table without a key."""
    server = own_server("wal_level=logical")
    site = Site(tmp_path, server.keywords())
    with psycopg.connect(**server.keywords(), autocommit=True) as conn:  # type: ignore[arg-type]
        make_plain_logs(conn)
        conn.execute("CREATE PUBLICATION of_everything FOR ALL TABLES")
        site.migrate()
        site.migrate("--undo", "--yes")
        site.migrate("--drop-old")
        assert len(content(conn)) == 60


def test_runs_during_a_migration_lose_nothing(conn: Connection, site: Site) -> None:
    """A writer, and runs one after the other, while the days are copied."""
    make_plain_logs(conn, rows=30_000, days=30, first="2025-10-19")
    migration = subprocess.Popen(site.command(script=MIGRATE), stdout=subprocess.DEVNULL)
    written = 0
    while migration.poll() is None:
        site.append(*lines(written, written + 10))
        written += 10
        assert site.run_here() in (0, 3)  # 3: still plain
    assert migration.returncode == 0
    site.run()
    assert site.emails() == Counter(alice=10_000, bob=10_000, carol=10_000) + users(0, written)


def test_timeouts_of_the_role_do_not_stop_it(conn: Connection, site: Site) -> None:
    make_plain_logs(conn, rows=30_000)
    limits = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]
    if conn.info.server_version >= 170000:
        limits.append("transaction_timeout")
    site.set("postgresql", options=" ".join(f"-c {limit}=150" for limit in limits))
    with psycopg.connect(**site.database) as holder:  # type: ignore[arg-type]
        holder.execute("SELECT pg_advisory_xact_lock(%s)", [lock_key(schema.PARTITIONS_LOCK)])
        migration = subprocess.Popen(site.command(script=MIGRATE), stdout=subprocess.DEVNULL)
        wait_until(lambda: site_waits(conn))
    assert migration.wait(600) == 0
    assert len(content(conn)) == 30_000


def site_waits(conn: Connection) -> bool:
    """Return whether a migration waits for another one."""
    waiting = "application_name = 'migrate_logs' AND wait_event = 'advisory' AND datname = current_database()"
    return conn.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {waiting}").fetchone() == (1,)


def test_the_day_of_a_moment_is_the_utc_day() -> None:
    assert (
        partitions.day_bounds("2025-11-17")[0]
        == datetime.datetime(2025, 11, 17, tzinfo=datetime.timezone.utc).timestamp()
    )
