"""A plain logs table becomes a partitioned one: every row once, proved, wherever it is stopped, and back again."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import os
import pty
import random
import re
import shlex
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers import faults
from helpers.site import Site, facts, line, lines, users, wait_until
from psycopg import errors
from psycopg.sql import SQL, Identifier
from server import Server

from xraylog.database import partitions, schema
from xraylog.database.session import Connection, Unsuitable, lock_key
from xraylog.migration import backfill

MIGRATE = "migrate_logs_to_partitioned"
DAYS = ["2025-11-15", "2025-11-16", "2025-11-17"]

# Schema.md's logs from before it was partitioned.
OLDER = """
    CREATE TABLE logs (
        id               bigserial   PRIMARY KEY,
        "timestamp"      timestamptz NOT NULL,
        source_ip        inet,
        source_port      integer,
        action           text        NOT NULL,
        protocol_id      integer REFERENCES protocols,
        destination_id   integer REFERENCES endpoints,
        destination_port integer,
        inbound_tag_id   integer REFERENCES tags,
        outbound_tag_id  integer REFERENCES tags,
        user_id          integer REFERENCES users,
        node_id          integer REFERENCES nodes
    )
"""
# What somebody made for himself: other types, NOT NULL source, no key, own names.
BY_HAND = """
    CREATE TABLE logs (
        id serial,
        country varchar(2) COLLATE "C" DEFAULT 'de' CHECK (country <> 'xx'),
        "timestamp" timestamptz DEFAULT now(),
        source_ip varchar(45) NOT NULL,
        source_port smallint NOT NULL,
        action varchar(16) NOT NULL,
        protocol_id integer,
        destination_id bigint,
        destination_port integer,
        inbound_tag_id integer,
        outbound_tag_id integer,
        user_id integer NOT NULL REFERENCES users ON DELETE RESTRICT,
        bytes double precision,
        number serial
    );
    CREATE INDEX logs_timestamp_idx ON logs ("timestamp");
    CREATE INDEX logs_user_id_timestamp_idx ON logs (source_ip, user_id);
    CREATE INDEX "by Country" ON logs (lower(country)) WHERE country IS NOT NULL;
    CREATE UNIQUE INDEX once ON logs ("timestamp", id);
"""
ROWS = """
    INSERT INTO logs ("timestamp", source_ip, source_port, action, protocol_id, destination_id, destination_port,
                      inbound_tag_id, outbound_tag_id, user_id)
    SELECT timestamptz '{first} 00:00+00' + n * interval '{days} days' / {rows}, '203.0.113.7', 1024 + n, 'accepted',
           1, 1, 443, 1, NULL, n % 3 + 1
    FROM generate_series(0, {rows} - 1) AS n
"""
CONTENT = """
    SELECT id, "timestamp", host(source_ip::inet), source_port::integer, action::text, protocol_id, destination_id,
           destination_port, inbound_tag_id, outbound_tag_id, user_id
    FROM {table}
    ORDER BY id
"""


def make_names(conn: Connection) -> None:
    for name in ("users", "protocols", "endpoints", "tags", "nodes"):
        for statement in schema.create(name):
            conn.execute(statement)
    conn.execute("INSERT INTO users (email) VALUES ('alice'), ('bob'), ('carol')")
    conn.execute("INSERT INTO protocols (name) VALUES ('tcp')")
    conn.execute("INSERT INTO endpoints (address) VALUES ('www.example.com')")
    conn.execute("INSERT INTO tags (name) VALUES ('in')")


def make(conn: Connection, table: str = OLDER, rows: int = 60, first: str = DAYS[0], days: int = 3) -> None:
    """A plain logs with rows over three days."""
    make_names(conn)
    conn.execute(table)
    if rows:
        conn.execute(ROWS.format(rows=rows, first=first, days=days))


def content(conn: Connection, table: str = "logs") -> list[tuple[Any, ...]]:
    return conn.execute(CONTENT.format(table=table)).fetchall()


def days_of(conn: Connection) -> Counter[str]:
    """Rows of each partition, by its name."""
    found = conn.execute("SELECT tableoid::regclass::text, count(*) FROM logs GROUP BY 1")
    return Counter(dict(found.fetchall()))


def is_plain(conn: Connection) -> bool:
    ((kind,),) = conn.execute("SELECT relkind::text FROM pg_class WHERE oid = 'logs'::regclass")
    return bool(kind == "r")


@contextlib.contextmanager
def dying_after(module: str, function: str) -> Iterator[None]:
    """For a forked run: the process ends when this function has returned."""
    place = importlib.import_module(f"xraylog.migration.{module}")
    real = getattr(place, function)

    def die(*arguments: Any) -> None:
        real(*arguments)
        faults.kill()

    setattr(place, function, die)
    yield


def stop_behind_the_rename(site: Site) -> None:
    """A migration that is killed when the new logs has just been made."""
    assert site.run_here(script=MIGRATE, inside=dying_after("swap", "swap")) == -9


def stop_in_the_middle(site: Site) -> None:
    """A migration that is killed when the first day has just been copied."""
    assert site.run_here(script=MIGRATE, inside=dying_after("backfill", "copy_day")) == -9


@pytest.fixture
def role(conn: Connection, database: dict[str, str]) -> Iterator[Callable[[str], str]]:
    """Makes roles that end with the test."""
    made: list[str] = []

    def make_role(suffix: str) -> str:
        made.append(f"{suffix}_of_{database['dbname']}")
        conn.execute(SQL("CREATE ROLE {} LOGIN PASSWORD 'only for this test'").format(Identifier(made[-1])))
        return made[-1]

    yield make_role
    for name in made:
        conn.execute(SQL("DROP OWNED BY {} CASCADE").format(Identifier(name)))
        conn.execute(SQL("DROP ROLE {}").format(Identifier(name)))


# --- what it does ------------------------------------------------------------------------------------------


def test_a_migrated_database_is_what_schema_md_says(conn: Connection, site: Site, other_database: Connection) -> None:
    """Tables, columns, defaults, keys, indexes, sequences and their names, on every PostgreSQL."""
    make(conn)
    site.migrate("--drop-old")
    schema.ensure(other_database)
    partitions.Partitions(other_database).ensure(DAYS)
    assert facts(conn) == facts(other_database)


def test_every_row_is_copied_with_its_id_into_the_partition_of_its_utc_day(conn: Connection, site: Site) -> None:
    make(conn)
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
    empty = conn.execute("SELECT count(*) FROM logs_2025_11_19").fetchall()
    assert empty == [(0,)], "a day without rows has its partition, too"


def test_the_old_table_stays_until_it_is_to_be_dropped(conn: Connection, site: Site) -> None:
    make(conn)
    before = content(conn)
    assert "logs_old is kept" in site.migrate().stdout
    assert content(conn, "logs_old") == before
    assert "nothing to do" in site.migrate().stdout
    assert "logs_old is dropped" in site.migrate("--drop-old").stdout
    assert conn.execute("SELECT to_regclass('logs_old')").fetchone() == (None,)
    assert content(conn) == before
    assert "nothing to do" in site.migrate("--drop-old").stdout


def test_drop_old_in_the_config_drops_it(conn: Connection, site: Site) -> None:
    make(conn)
    site.set("migration", drop_old="true")
    site.migrate()
    assert conn.execute("SELECT to_regclass('logs_old')").fetchone() == (None,)


@pytest.mark.parametrize("stands_at", [1, 60, 5000])
def test_the_sequence_goes_over_and_stands_past_the_largest_id(conn: Connection, site: Site, stands_at: int) -> None:
    """Also when it was set back."""
    make(conn)
    conn.execute("SELECT setval('logs_id_seq', %s)", [stands_at])
    ((before,),) = conn.execute("SELECT 'logs_id_seq'::regclass::oid")
    site.migrate()
    assert conn.execute("SELECT 'logs_id_seq'::regclass::oid").fetchone() == (before,)
    insert = "INSERT INTO logs (\"timestamp\", action) VALUES ('2025-11-17 12:00+00', 'accepted') RETURNING id"
    assert conn.execute(insert).fetchone() == (max(60, stands_at) + 1,)


def test_a_run_goes_on_in_the_migrated_table(conn: Connection, site: Site) -> None:
    make(conn)
    site.migrate("--drop-old")
    site.append(*lines(0, 5))
    site.run()
    assert site.emails() == users(0, 5) + Counter(alice=20, bob=20, carol=20)
    assert len({id_ for id_, *_ in content(conn)}) == 65


# --- provable ----------------------------------------------------------------------------------------------

TAMPERING = {
    "a row is missing": "DELETE FROM logs WHERE id = 30",
    "a row is there twice": "INSERT INTO logs SELECT * FROM logs WHERE id = 30",
    "one row stands for another": "UPDATE logs SET id = 31 WHERE id = 30",
    **{
        f"{column} differs": f'UPDATE logs SET "{column}" = {value} WHERE id = 30'
        for column, value in {
            "timestamp": "\"timestamp\" + interval '1 microsecond'",
            "source_ip": "'203.0.113.8'",
            "source_port": "NULL",
            "action": "'rejected'",
            "protocol_id": "NULL",
            "destination_id": "NULL",
            "destination_port": "444",
            "inbound_tag_id": "NULL",
            "outbound_tag_id": "1",
            "user_id": "user_id % 3 + 1",
            "node_id": "1",
        }.items()
    },
}


@pytest.mark.parametrize("tampering", TAMPERING.values(), ids=TAMPERING)
def test_a_difference_in_any_column_stops_everything(conn: Connection, site: Site, tampering: str) -> None:
    make(conn)
    conn.execute("INSERT INTO nodes (name) VALUES ('n1')")
    site.migrate()
    conn.execute(tampering)
    stopped = site.migrate("--drop-old", status=3)
    (different,) = [row for row in stopped.stdout.splitlines() if row.endswith("DIFFERENT")]
    assert different.startswith("2025-11-16")
    assert "logs and logs_old differ on 2025-11-16; nothing was dropped" in stopped.stderr
    assert len(content(conn, "logs_old")) == 60


def test_the_proof_is_a_table_with_a_line_for_each_day(conn: Connection, site: Site) -> None:
    make(conn)
    said = site.migrate().stdout
    proof = [row.split() for row in said.splitlines() if re.match(r"2025-11-\d\d +\d", row)]
    assert [row[:3] for row in proof] == [[day, "20", "20"] for day in DAYS]
    assert all(row[3] == row[4] and len(row) == 5 for row in proof)


def test_rows_stored_since_do_not_disturb_the_proof(conn: Connection, site: Site) -> None:
    make(conn)
    site.migrate()
    site.append(*lines(0, 5))
    site.run()
    site.migrate("--drop-old")
    assert site.emails() == users(0, 5) + Counter(alice=20, bob=20, carol=20)


def test_nobody_changes_the_old_table_between_proof_and_drop(
    conn: Connection, site: Site, database: dict[str, str]
) -> None:
    """A row that comes to logs_old while it is being proved waits, and then finds no table."""
    make(conn)
    site.migrate()
    with psycopg.connect(**database) as holder:  # type: ignore[arg-type]
        holder.execute("LOCK TABLE users IN ACCESS SHARE MODE")  # DROP needs the referenced tables for itself
        done: list[int] = []
        dropping = threading.Thread(target=lambda: done.append(site.run_here("--drop-old", script=MIGRATE)))
        dropping.start()
        wait_until(lambda: "waiting: " in site.output())
        conn.execute("SET lock_timeout TO '200ms'")
        with pytest.raises(errors.LockNotAvailable):
            conn.execute("UPDATE logs_old SET action = 'other'")
        assert not done
    dropping.join(60)
    assert done == [0]
    assert conn.execute("SELECT to_regclass('logs_old')").fetchone() == (None,)


# --- resumable ---------------------------------------------------------------------------------------------


def test_killed_at_every_step_and_started_again_it_ends_the_same(
    conn: Connection, site: Site, other_database: Connection, kill_steps: Iterator[int]
) -> None:
    """Same rows, same catalog; and parse_logs.py stays away until it is finished."""
    make(conn, rows=8, days=2)
    expected = content(conn)
    schema.ensure(other_database)
    partitions.Partitions(other_database).ensure(DAYS[:2])
    catalog = facts(other_database)
    names = set()
    for step in kill_steps:
        status = site.run_here("--drop-old", script=MIGRATE, kill_at=step)
        assert status in (0, -9), site.output()[-2000:]
        names.add(site.steps()[-1]) if status else None
        assert site.run_here("--drop-old", script=MIGRATE) == 0, site.output()[-2000:]
        assert content(conn) == expected, site.steps()[-1]
        assert facts(conn) == catalog, site.steps()[-1]
        if status == 0:
            break
        plain_again(conn)
    assert {"execute", "commit"} <= names
    assert step > 100


def plain_again(conn: Connection) -> None:
    """The older table, with the same rows."""
    conn.execute("CREATE TABLE kept AS SELECT * FROM logs")
    conn.execute("DROP TABLE logs, log_positions, rejected_lines")
    conn.execute(OLDER)
    conn.execute("INSERT INTO logs SELECT * FROM kept")
    conn.execute("DROP TABLE kept")


def test_killed_at_random_moments_it_ends_the_same(conn: Connection, site: Site, rounds: int) -> None:
    """Whole processes, at any instruction; what their servers still do is waited for."""
    chance = random.Random(seed := random.randrange(1 << 30))
    print(f"seed {seed}")
    make(conn, rows=3000, days=10)
    expected = content(conn)
    for _ in range(max(2, rounds // 5)):
        killed = 0
        while True:
            with subprocess.Popen(
                site.command("--drop-old", script=MIGRATE), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as process:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(chance.uniform(0.2, 0.8))
                if process.poll() is None:
                    process.kill()
                    killed += 1
                    continue
            assert process.returncode == 0
            break
        assert content(conn) == expected
        plain_again(conn)


def test_two_migrations_at_once_copy_each_day_once(conn: Connection, site: Site) -> None:
    make(conn, rows=3000, days=10)
    expected = content(conn)
    both = [subprocess.Popen(site.command(script=MIGRATE), stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert content(conn) == expected


# --- reversible --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [OLDER, BY_HAND], ids=["older", "by hand"])
def test_undo_brings_the_old_table_back_as_it_was(conn: Connection, site: Site, table: str) -> None:
    make(conn, table)
    conn.execute("COMMENT ON TABLE logs IS 'mine'")
    for missing in ("log_positions", "rejected_lines"):  # what the migration adds, and nobody takes away
        for statement in schema.create(missing):
            conn.execute(statement)
    before, rows = facts(conn), content(conn)
    site.migrate()
    assert not is_plain(conn)
    said = site.migrate("--undo", "--yes").stdout
    assert "no row was stored in logs since" in said
    assert "logs is the old table again" in said
    assert facts(conn) == before
    assert content(conn) == rows
    assert conn.execute("SELECT obj_description('logs'::regclass, 'pg_class')").fetchone() == ("mine",)
    ((next_id,),) = conn.execute("SELECT nextval('logs_id_seq')")
    assert next_id == 61


def test_undo_says_what_would_be_lost_before_it_does_anything(conn: Connection, site: Site) -> None:
    make(conn)
    site.migrate()
    site.append(*lines(0, 5))
    site.run()
    before = facts(conn)
    refused = site.migrate("--undo", status=3, stdin=subprocess.DEVNULL)
    assert "5 rows were stored in logs since the migration started. They would be LOST" in refused.stdout
    assert "WHERE NOT EXISTS (SELECT FROM logs_old o WHERE o.id = l.id)" in refused.stdout
    assert "expected --yes, because there is no terminal" in refused.stderr
    assert facts(conn) == before
    assert len(content(conn)) == 65
    assert "would be LOST" in site.migrate("--undo", "--yes").stdout
    assert len(content(conn)) == 60
    assert is_plain(conn)


@pytest.mark.parametrize(("answer", "status"), [("yes\n", 0), ("\n", 3), ("no\n", 3)])
def test_at_a_terminal_undo_asks(conn: Connection, site: Site, answer: str, status: int) -> None:
    make(conn)
    site.migrate()
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode())
    with open(theirs, closefd=True) as terminal:
        assert "Undo the migration?" in site.migrate("--undo", status=status, stdin=terminal).stdout
    os.close(ours)
    assert is_plain(conn) == (status == 0)


def test_rows_that_come_while_undo_asks_are_reported_before_it_goes_on(
    conn: Connection, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    import migrate_logs_to_partitioned

    make(conn)
    site.migrate()
    asked = []

    def confirmed() -> bool:
        asked.append(True)
        if len(asked) == 1:
            conn.execute("INSERT INTO logs (\"timestamp\", action) VALUES ('2025-11-17 12:00+00', 'accepted')")
            return True
        return False

    monkeypatch.setattr(migrate_logs_to_partitioned, "confirmed", confirmed)
    assert migrate_logs_to_partitioned.main(["--config", str(site.config), "--undo"]) == 3
    assert len(asked) == 2
    assert len(content(conn)) == 61


def test_undo_in_the_middle_and_then_the_migration_again(conn: Connection, site: Site) -> None:
    make(conn)
    before = content(conn)
    stop_in_the_middle(site)
    assert "the migration is not finished" in site.migrate("--status").stdout
    site.migrate("--undo", "--yes")
    assert is_plain(conn)
    assert content(conn) == before
    site.migrate("--drop-old")
    assert content(conn) == before


def test_undo_killed_at_every_step_and_started_again_ends_the_same(
    conn: Connection, site: Site, kill_steps: Iterator[int]
) -> None:
    make(conn, rows=12)
    site.migrate()
    site.migrate("--undo", "--yes")
    before, rows = facts(conn), content(conn)
    for step in kill_steps:
        assert site.run_here(script=MIGRATE) == 0
        status = site.run_here("--undo", "--yes", script=MIGRATE, kill_at=step)
        assert status in (0, -9)
        if status:
            again = site.run_here("--undo", "--yes", script=MIGRATE)
            assert again == 0 or (again == 3 and "nothing to undo" in site.output()), site.steps()[-1]
        assert facts(conn) == before, site.steps()[-1]
        assert content(conn) == rows
        if status == 0:
            break
    assert step > 30


def test_what_an_interrupted_undo_left_is_reported_and_in_the_way(conn: Connection, site: Site) -> None:
    make(conn)
    site.migrate()
    before = content(conn)
    assert site.run_here("--undo", "--yes", script=MIGRATE, inside=dying_after("revert", "revert")) == -9
    assert is_plain(conn)
    assert "what it had made is not yet dropped" in site.migrate("--status").stdout
    assert "--undo finishes that" in site.migrate(status=3).stderr
    site.migrate("--undo")
    assert "nothing has been migrated" in site.migrate("--status").stdout
    assert content(conn) == before


def test_there_is_nothing_to_undo_once_the_old_table_is_dropped(conn: Connection, site: Site) -> None:
    make(conn)
    site.migrate("--drop-old")
    assert "nothing to undo: logs is partitioned" in site.migrate("--undo", "--yes", status=3).stderr


# --- visible -----------------------------------------------------------------------------------------------


def test_a_dry_run_says_all_of_it_and_changes_nothing(conn: Connection, site: Site) -> None:
    make(conn, BY_HAND)
    before = facts(conn)
    said = site.migrate("--dry-run", "--drop-old").stdout
    assert facts(conn) == before
    assert "60 rows of 3 days, 2025-11-15 to 2025-11-17" in said
    assert "free disk needed" in said
    for sql in (
        "ALTER TABLE logs RENAME TO logs_old",
        'PARTITION BY RANGE ("timestamp")',
        'INSERT INTO "logs_2025_11_17"',
        'ATTACH PARTITION "logs_2025_11_17"',
        "SELECT setval('logs_id_seq', 60)",
        "DROP TABLE logs_old",
    ):
        assert sql in said


def test_the_sql_of_a_dry_run_does_what_the_migration_does(
    conn: Connection, site: Site, other_database: Connection
) -> None:
    """Pasted by hand, for a table of one day."""
    for place in (conn, other_database):
        make(place, days=1)
    said = site.migrate("--dry-run", "--drop-old").stdout
    other_database.execute(said.replace("-- and only when all of them are the same:", ""))
    site.migrate("--drop-old")
    assert facts(other_database) == facts(conn)
    assert content(other_database) == content(conn)


def test_a_dry_run_in_the_middle_says_what_is_left(conn: Connection, site: Site) -> None:
    make(conn)
    stop_in_the_middle(site)
    before = facts(conn)
    said = site.migrate("--dry-run").stdout
    assert re.search("2 days are left, 40 rows", said)
    assert "INSERT INTO" in said
    assert facts(conn) == before


def test_a_dry_run_of_undo_changes_nothing(conn: Connection, site: Site) -> None:
    make(conn)
    stop_in_the_middle(site)
    before = facts(conn)
    assert "ALTER TABLE logs_old RENAME TO logs" in site.migrate("--undo", "--dry-run").stdout
    assert facts(conn) == before


def test_progress_says_rows_rate_days_and_time_left(conn: Connection, site: Site) -> None:
    make(conn)
    assert re.search(r"2025-11-15: 3 of 3 days, 60 of 60 rows, [\d,]+ rows/s, 0 s left", site.migrate().stdout), (
        "the last line of progress, for the newest day comes first"
    )


def test_status_says_where_it_stands(conn: Connection, site: Site) -> None:
    assert "there is no table logs" in site.migrate("--status").stdout
    make(conn)
    assert "nothing has been migrated" in site.migrate("--status").stdout
    stop_in_the_middle(site)
    before = facts(conn)
    said = site.migrate("--status").stdout
    assert "the migration is not finished" in said
    assert re.search(r"1 of 3 days of logs_old have a partition in logs\nthese days have 20 of its 60 rows", said)
    assert "parse_logs.py stays offline" in said
    assert facts(conn) == before
    site.migrate()
    assert (
        "the migration is finished; logs_old is still there\n3 of 3 days of logs_old" in site.migrate("--status").stdout
    )
    site.migrate("--drop-old")
    assert "logs is partitioned" in site.migrate("--status").stdout


# --- polite ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [stop_behind_the_rename, stop_in_the_middle])
def test_as_long_as_it_is_unfinished_runs_stay_offline_by_themselves_and_say_why(
    conn: Connection, site: Site, stop: Callable[[Site], None]
) -> None:
    make(conn, rows=12)
    expected = Counter(alice=4, bob=4, carol=4)
    stop(site)
    rows_before = conn.execute("SELECT count(*) FROM logs").fetchall()
    site.append(*lines(0, 5))
    run = site.run()
    assert "logs is being migrated, and not all of its days are in it" in run.stderr
    assert f"new lines go to {site.buffer}" in run.stderr
    assert site.last_stats()["mode"] == "offline"
    assert site.buffered() == users(0, 5)
    assert conn.execute("SELECT count(*) FROM logs").fetchall() == rows_before
    finish = f"finish it: {shlex.join(site.command(script='migrate_logs_to_partitioned'))}"
    assert finish in run.stderr
    assert finish in site.run("--check", status=3).stdout

    site.migrate()
    site.append(line(5))
    site.run()
    assert site.emails() == expected + users(0, 6)


def test_a_plain_table_keeps_runs_offline_and_names_the_migration(conn: Connection, site: Site) -> None:
    make(conn)
    site.append(*lines(0, 5))
    assert "migrate_logs_to_partitioned.py" in site.run(status=3).stderr
    assert site.buffered() == users(0, 5)
    site.migrate()
    site.run()
    assert site.emails() == Counter(alice=20, bob=20, carol=20) + users(0, 5)


def test_runs_during_a_migration_lose_nothing(conn: Connection, site: Site) -> None:
    """A writer, and runs one after the other, while the days are copied."""
    make(conn, rows=30_000, days=30, first="2025-10-19")
    migration = subprocess.Popen(site.command(script=MIGRATE), stdout=subprocess.DEVNULL)
    written = 0
    while migration.poll() is None:
        site.append(*lines(written, written + 10))
        written += 10
        assert site.run_here() in (0, 3)  # 3: still plain
    assert migration.returncode == 0
    site.run()
    assert site.emails() == Counter(alice=10_000, bob=10_000, carol=10_000) + users(0, written)


class Reader(threading.Thread):
    """Queries logs all the time, and remembers how long it had to wait."""

    def __init__(self, keywords: dict[str, str]) -> None:
        super().__init__()
        self.longest = 0.0
        self.counts: list[int] = []
        self._end = threading.Event()
        self._keywords = keywords

    def run(self) -> None:
        with psycopg.connect(**self._keywords, autocommit=True) as conn:  # type: ignore[arg-type]
            while not self._end.is_set():
                begun = time.monotonic()
                ((count,),) = conn.execute("""
                    SELECT count(*) FROM logs JOIN users ON users.id = user_id
                    WHERE "timestamp" < '2025-10-20 00:00+00'
                """)
                self.longest = max(self.longest, time.monotonic() - begun)
                self.counts.append(count)

    def end(self) -> None:
        self._end.set()
        self.join()


def test_a_reader_is_never_blocked_for_long_and_sees_whole_days(
    conn: Connection, site: Site, database: dict[str, str]
) -> None:
    make(conn, rows=60_000, days=30, first="2025-10-19")
    reader = Reader(database)
    reader.start()
    site.migrate("--drop-old")
    reader.end()
    assert set(reader.counts) == {0, 2000}, "the oldest day is there as a whole or not at all"
    assert reader.counts[-1] == 2000
    if conn.info.server_version >= 120000:
        assert reader.longest < 1


def test_during_a_long_query_it_gives_way_again_and_again(
    conn: Connection, site: Site, database: dict[str, str]
) -> None:
    """No session waits for it for longer than its own lock_timeout."""
    make(conn)
    with psycopg.connect(**database) as holder:  # type: ignore[arg-type]
        holder.execute("SELECT FROM logs LIMIT 1")
        migration = threading.Thread(target=lambda: site.run_here(script=MIGRATE))
        migration.start()
        wait_until(lambda: site.output().count("waiting: ") >= 2)
        conn.execute("SET statement_timeout TO '5s'")
        assert conn.execute("SELECT count(*) FROM logs").fetchone() == (60,)
        assert is_plain(conn)
    migration.join(60)
    assert not is_plain(conn)
    assert len(content(conn)) == 60


def test_a_query_that_goes_on_does_not_stop_the_days(conn: Connection, site: Site, database: dict[str, str]) -> None:
    """From PostgreSQL 12 on, ATTACH goes beside readers; before, a day waits for them."""
    make(conn)
    stop_behind_the_rename(site)
    with psycopg.connect(**database) as holder:  # type: ignore[arg-type]
        holder.execute("SELECT count(*) FROM logs")
        if conn.info.server_version >= 120000:
            site.migrate()
        else:
            migration = threading.Thread(target=lambda: site.run_here(script=MIGRATE))
            migration.start()
            wait_until(lambda: "waiting: " in site.output())
            holder.rollback()
            migration.join(60)
    assert len(content(conn)) == 60


def test_a_lock_that_is_never_given_ends_it_and_the_same_command_goes_on(
    conn: Connection, site: Site, database: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xraylog.migration.state.PATIENCE_S", 0.5)
    monkeypatch.setattr("xraylog.migration.state.PAUSE_S", 0.1)
    make(conn)
    with psycopg.connect(**database) as holder:  # type: ignore[arg-type]
        holder.execute("SELECT FROM logs LIMIT 1")
        assert site.run_here(script=MIGRATE) == 1
    assert "the same command resumes" in site.output()
    assert site.run_here(script=MIGRATE) == 0


def test_a_server_that_goes_away_ends_it_and_the_same_command_goes_on(
    conn: Connection, site: Site, database: dict[str, str]
) -> None:
    make(conn)
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'migrate_logs'"
    for step in range(60, 200, 20):

        def strike() -> None:
            with psycopg.connect(**database, autocommit=True) as striking:  # type: ignore[arg-type]
                striking.execute(end + " AND datname = current_database()")

        status = site.run_here(script=MIGRATE, inside=faults.after_step(step, site.folder / "steps", strike))
        assert status in (0, 1), site.output()[-2000:]
    site.migrate("--drop-old")
    assert len(content(conn)) == 60


# --- what people really have -------------------------------------------------------------------------------


def columns(conn: Connection, table: str = "logs") -> dict[str, str]:
    return dict(
        conn.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            [table],
        ).fetchall()
    )


def indexes(conn: Connection, table: str) -> dict[str, str]:
    """Names, and the part after USING."""
    found = conn.execute(
        "SELECT c.relname, pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "WHERE i.indrelid = %s::regclass",
        [table],
    )
    return {name: text.partition(" USING ")[2] for name, text in found}


def test_a_table_made_by_hand_is_carried_over(conn: Connection, site: Site) -> None:
    """Other types, NOT NULL source, no key, own names that are ours, extra columns and indexes."""
    make(conn, BY_HAND)
    conn.execute("UPDATE logs SET bytes = id / 3.0, country = 'fr' WHERE id % 2 = 0")
    conn.execute("COMMENT ON COLUMN logs.bytes IS 'per connection'")
    before = content(conn), conn.execute("SELECT id, country, bytes FROM logs ORDER BY id").fetchall()
    site.migrate("--drop-old")
    assert (content(conn), conn.execute("SELECT id, country, bytes FROM logs ORDER BY id").fetchall()) == before
    assert columns(conn) == {
        "id": "bigint",
        "country": "character varying(2)",
        "timestamp": "timestamp with time zone",
        "source_ip": "inet",
        "source_port": "integer",
        "action": "text",
        "protocol_id": "integer",
        "destination_id": "bigint",
        "destination_port": "integer",
        "inbound_tag_id": "integer",
        "outbound_tag_id": "integer",
        "user_id": "integer",
        "bytes": "double precision",
        "number": "integer",
        "node_id": "integer",
    }
    on_parent = conn.info.server_version >= 110000
    found = indexes(conn, "logs" if on_parent else "logs_2025_11_17")
    assert {
        'btree ("timestamp")',
        "btree (source_ip, user_id)",
        "btree (lower((country)::text)) WHERE (country IS NOT NULL)",
        'btree ("timestamp", id)',
    } < set(found.values())
    assert set(schema.LOGS_INDEXES) < set(found.values())
    assert len(found) == 7
    if on_parent:
        assert {"by Country", "once", "logs_timestamp_idx", "logs_user_id_timestamp_idx"} < found.keys()
        assert sorted(indexes(conn, "logs_2025_11_17").values()) == sorted(found.values())
    with pytest.raises(errors.CheckViolation):
        conn.execute("UPDATE logs SET country = 'xx'")
    with pytest.raises(errors.ForeignKeyViolation):
        conn.execute("UPDATE logs SET user_id = 4")
    conn.execute("UPDATE logs SET source_ip = NULL")
    ((comment,),) = conn.execute("SELECT col_description('logs'::regclass, 13)")
    assert comment == "per connection"
    conn.execute("INSERT INTO logs (action, user_id, \"timestamp\") VALUES ('accepted', 1, '2025-11-17 12:00+00')")
    assert conn.execute("SELECT country, number FROM logs WHERE id > 60").fetchall() == [("de", 61)]
    assert conn.execute("SELECT seqtypid::regtype::text FROM pg_sequence").fetchall().count(("bigint",)) >= 3


@pytest.mark.parametrize("kind", ["ALWAYS", "BY DEFAULT"])
def test_an_identity_id_goes_on_from_where_it_was(
    conn: Connection, site: Site, role: Callable[[str], str], kind: str
) -> None:
    make(conn, OLDER.replace("bigserial  ", f"bigint GENERATED {kind} AS IDENTITY"))
    writer = Identifier(role("writer"))
    conn.execute(SQL("GRANT INSERT ON logs TO {}").format(writer))
    before, rows = facts(conn), content(conn)
    site.migrate()
    assert content(conn) == rows
    conn.execute(SQL("SET ROLE {}").format(writer))
    conn.execute("INSERT INTO logs (\"timestamp\", action) VALUES ('2025-11-17 12:00+00', 'accepted')")
    conn.execute("RESET ROLE")
    assert conn.execute("SELECT max(id) FROM logs").fetchone() == (61,)
    site.migrate("--undo", "--yes")
    assert content(conn) == rows
    undone = {fact for fact in facts(conn) if fact[1] not in ("log_positions", "rejected_lines")}
    assert {fact for fact in undone if "log_positions" not in str(fact) and "rejected_lines" not in str(fact)} == before
    conn.execute("INSERT INTO logs (\"timestamp\", action) VALUES ('2025-11-17 12:00+00', 'accepted')")
    assert conn.execute("SELECT max(id) FROM logs").fetchone() == (62,)


def test_an_id_without_a_sequence_gets_one(conn: Connection, site: Site) -> None:
    make(conn, OLDER.replace("bigserial  ", "bigint"), rows=0)
    conn.execute("INSERT INTO logs (id, \"timestamp\", action) VALUES (7, '2025-11-17 12:00+00', 'accepted')")
    site.migrate("--drop-old")
    conn.execute("INSERT INTO logs (\"timestamp\", action) VALUES ('2025-11-17 12:00+00', 'accepted')")
    assert conn.execute("SELECT max(id) FROM logs").fetchone() == (8,)


def test_a_sequence_with_a_name_of_its_own_keeps_it(conn: Connection, site: Site) -> None:
    make(conn)
    conn.execute('ALTER SEQUENCE logs_id_seq RENAME TO "Log Numbers"')
    site.migrate("--drop-old")
    assert conn.execute("SELECT pg_get_serial_sequence('logs', 'id')").fetchone() == ('public."Log Numbers"',)
    conn.execute("INSERT INTO logs (\"timestamp\", action) VALUES ('2025-11-17 12:00+00', 'accepted')")
    assert conn.execute("SELECT max(id) FROM logs").fetchone() == (61,)


def test_times_without_a_zone_are_read_in_the_zone_of_the_config(conn: Connection, site: Site) -> None:
    """Also at the turn of the clocks, and when the config says another zone by the time it goes on."""
    site.set("parser", timezone="Europe/Berlin")
    make(conn, OLDER.replace("timestamptz", "timestamp"), rows=0)
    times = ["2025-10-26 01:30", "2025-10-26 02:30", "2025-10-26 03:30", "2025-11-17 00:30", "2025-11-17 01:30"]
    for time_ in times:
        conn.execute("INSERT INTO logs (\"timestamp\", action) VALUES (%s, 'accepted')", [time_])
    stop_in_the_middle(site)
    site.set("parser", timezone="Asia/Tokyo")
    site.migrate("--drop-old")
    conn.execute("SET timezone TO 'UTC'")
    found = [str(at)[:16] for (at,) in conn.execute('SELECT "timestamp" FROM logs ORDER BY id')]
    assert found == ["2025-10-25 23:30", "2025-10-26 01:30", "2025-10-26 02:30", "2025-11-16 23:30", "2025-11-17 00:30"]
    assert days_of(conn) == {
        "logs_2025_10_25": 1,
        "logs_2025_10_26": 2,
        "logs_2025_11_16": 1,
        "logs_2025_11_17": 1,
    }


def test_a_zone_that_the_server_does_not_know_is_refused_only_where_it_matters(conn: Connection) -> None:
    make(conn, OLDER.replace("timestamptz", "timestamp"))
    from xraylog.migration.trial import prepare

    with pytest.raises(Unsuitable, match=r"the server does not know Mars/Phobos: set \[parser\] timezone"):
        prepare(conn, "Mars/Phobos")


def test_owner_and_grants_are_carried_over(conn: Connection, site: Site, role: Callable[[str], str]) -> None:
    make(conn)
    owner, reader, writer = (role(name) for name in ("owner", "reader", "writer"))
    conn.execute(SQL("GRANT CREATE ON SCHEMA public TO {}").format(Identifier(owner)))
    conn.execute(SQL("ALTER TABLE logs OWNER TO {}").format(Identifier(owner)))
    conn.execute(SQL("GRANT SELECT ON logs TO {} WITH GRANT OPTION").format(Identifier(reader)))
    conn.execute(SQL("GRANT INSERT, UPDATE ON logs TO {}").format(Identifier(writer)))
    conn.execute(SQL("GRANT SELECT (id, action) ON logs TO {}").format(Identifier(writer)))
    conn.execute("GRANT SELECT ON logs TO PUBLIC")

    def rights() -> list[tuple[Any, ...]]:
        return conn.execute("""
            SELECT pg_get_userbyid(c.relowner), a.grantee::regrole::text, a.privilege_type, a.is_grantable, NULL
            FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = 'logs'::regclass AND a.grantee <> c.relowner
            UNION ALL
            SELECT NULL, a.grantee::regrole::text, a.privilege_type, a.is_grantable, t.attname
            FROM pg_attribute t, aclexplode(t.attacl) a WHERE t.attrelid = 'logs'::regclass
            ORDER BY 1, 2, 3, 5
        """).fetchall()

    before = rights()
    assert len(before) >= 6
    site.migrate("--drop-old")
    assert rights() == before
    ((of_partition,),) = conn.execute(
        "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'logs_2025_11_17'"
    )
    assert of_partition == owner


def test_an_owner_who_is_nobody_special_can_migrate(conn: Connection, site: Site, role: Callable[[str], str]) -> None:
    make(conn)
    owner = role("owner")
    conn.execute(SQL("GRANT CREATE ON SCHEMA public TO {}").format(Identifier(owner)))
    for table in ("users", "protocols", "endpoints", "tags", "nodes", "logs"):
        conn.execute(SQL("ALTER TABLE {} OWNER TO {}").format(Identifier(table), Identifier(owner)))
    site.set("postgresql", user=owner, password="only for this test")  # noqa: S106  # of a role that ends with the test
    site.migrate("--drop-old")
    assert len(content(conn)) == 60


def test_an_empty_table_is_migrated_too(conn: Connection, site: Site, other_database: Connection) -> None:
    make(conn, rows=0)
    site.migrate("--drop-old")
    schema.ensure(other_database)
    assert facts(conn) == facts(other_database)
    site.append(*lines(0, 5))
    site.run()
    assert site.emails() == users(0, 5)


@pytest.mark.parametrize("path", ["xray, public", "public, xray"])
def test_a_schema_other_than_public(conn: Connection, site: Site, path: str) -> None:
    """Whether it is the first one or not: what belongs to logs is made where logs is."""
    conn.execute("CREATE SCHEMA xray")
    conn.execute("SET search_path TO xray")
    make(conn)
    site.set("postgresql", options=f"-c search_path={path.replace(', ', ',')}")
    before = content(conn)
    site.migrate()
    assert content(conn) == before
    made = conn.execute("""
        SELECT DISTINCT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relname LIKE 'logs%' AND n.nspname NOT LIKE 'pg%'
    """).fetchall()
    assert made == [("xray",)]
    site.migrate("--undo", "--yes")
    assert is_plain(conn)
    site.migrate("--drop-old")
    assert content(conn) == before


def test_what_is_already_partitioned_is_left_alone(conn: Connection, site: Site) -> None:
    schema.ensure(conn)
    before = facts(conn)
    for arguments in ([], ["--drop-old"], ["--dry-run"]):
        assert "nothing to do: logs is partitioned" in site.migrate(*arguments).stdout
    assert facts(conn) == before


def test_without_logs_there_is_nothing_to_migrate(conn: Connection, site: Site) -> None:
    assert "expected a table logs, found none" in site.migrate(status=3).stderr
    conn.execute("CREATE VIEW logs AS SELECT 1 AS id")
    assert "logs: expected a table, found another kind" in site.migrate(status=3).stderr


def test_a_tablespace_is_kept(conn: Connection, site: Site) -> None:
    if conn.info.server_version < 150000:
        pytest.skip("a tablespace inside of the server's folder needs PostgreSQL 15")
    make(conn)
    name = f"space_of_{conn.info.dbname}"
    conn.execute("SET allow_in_place_tablespaces TO true")
    conn.execute(SQL("CREATE TABLESPACE {} LOCATION ''").format(Identifier(name)))
    conn.execute(SQL("ALTER TABLE logs SET TABLESPACE {}").format(Identifier(name)))
    site.migrate("--drop-old")
    where = conn.execute("""
        SELECT DISTINCT t.spcname FROM pg_class c LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
        WHERE c.relname ~ '^logs(_2025_11_1[0-9](_timestamp_idx)?)?$'
    """).fetchall()
    assert where == [(name,)]
    conn.execute("DROP TABLE logs")
    conn.execute("CHECKPOINT")  # only that removes the files
    conn.execute(SQL("DROP TABLESPACE {}").format(Identifier(name)))


def test_what_a_partitioned_table_cannot_have_is_reported(conn: Connection, site: Site) -> None:
    make(conn)
    conn.execute("ALTER TABLE logs SET (fillfactor = 90)")
    conn.execute("ALTER TABLE logs REPLICA IDENTITY FULL")
    said = site.migrate("--dry-run").stdout
    for what in ("the setting fillfactor=90", "its replica identity", "the primary key on id"):
        assert f"not carried over, because a partitioned table cannot have it: {what}" in said


def test_a_generated_column_is_carried_over(conn: Connection, site: Site) -> None:
    if conn.info.server_version < 120000:
        pytest.skip("generated columns came with PostgreSQL 12")
    make(conn, OLDER.rstrip().rstrip(")") + ", twice bigint GENERATED ALWAYS AS (source_port * 2) STORED)")
    site.migrate("--drop-old")
    assert conn.execute("SELECT count(*) FROM logs WHERE twice = source_port * 2").fetchone() == (60,)


def test_rows_in_no_order_are_found_by_another_index(conn: Connection, site: Site) -> None:
    make(conn, rows=0)
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
    make(conn, rows=3000)
    site.migrate()
    assert indexes(conn, "logs_old")["logs_old_by_day"] == 'brin ("timestamp")'
    site.migrate("--undo", "--yes")
    conn.execute('CREATE INDEX ON logs ("timestamp")')
    site.migrate()
    assert "logs_old_by_day" not in indexes(conn, "logs_old")


# --- what is easily overlooked -----------------------------------------------------------------------------

INSERT = "INSERT INTO logs (\"timestamp\", action) VALUES ('2025-11-17 12:00+00', 'accepted')"


def test_ids_that_a_session_was_given_before_are_no_difference_and_are_reported_as_lost(
    conn: Connection, site: Site, database: dict[str, str]
) -> None:
    """A sequence with CACHE: a row that is stored since has a smaller id than the old table's largest."""
    make(conn, rows=0)
    conn.execute("ALTER SEQUENCE logs_id_seq CACHE 50")
    with psycopg.connect(**database, autocommit=True) as early:  # type: ignore[arg-type]
        early.execute(INSERT)  # 1, with 2 to 50 in store
        conn.execute(INSERT)  # 51
        site.migrate()
        early.execute(INSERT)  # 2
    assert [id_ for id_, *_ in content(conn)] == [1, 2, 51]
    told = site.migrate("--undo", status=3, stdin=subprocess.DEVNULL).stdout
    assert "1 rows were stored in logs since" in told
    site.migrate("--drop-old")
    assert [id_ for id_, *_ in content(conn)] == [1, 2, 51]


def test_a_database_from_before_there_were_nodes_gets_what_it_lacks(
    conn: Connection, site: Site, other_database: Connection
) -> None:
    make(conn, OLDER.replace(" REFERENCES nodes", ""))
    conn.execute("ALTER TABLE logs DROP COLUMN node_id; DROP TABLE nodes")
    site.migrate("--drop-old")
    schema.ensure(other_database)
    partitions.Partitions(other_database).ensure(DAYS)
    assert facts(conn) == facts(other_database)


def test_a_default_is_read_as_the_rows_are(conn: Connection, site: Site) -> None:
    site.set("parser", timezone="Europe/Berlin")
    table = OLDER.replace("timestamptz NOT NULL", "timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'Europe/Berlin')")
    make(conn, table.replace("source_ip        inet", "source_ip        text DEFAULT '0.0.0.0'"), rows=0)
    conn.execute("INSERT INTO logs (action) VALUES ('accepted')")
    site.migrate("--drop-old")
    conn.execute("SET timezone TO 'America/New_York'")
    conn.execute("INSERT INTO logs (action) VALUES ('accepted')")
    found = conn.execute('SELECT abs(extract(epoch FROM now() - "timestamp")) < 60, host(source_ip) FROM logs')
    assert found.fetchall() == [(True, "0.0.0.0")] * 2  # noqa: S104  # an address of a row


def test_an_own_default_of_the_id_and_an_own_sequence_are_kept(conn: Connection, site: Site) -> None:
    """Also where another table's sequence has the same name."""
    conn.execute("CREATE SCHEMA app")
    conn.execute("CREATE SEQUENCE app.ids START 5000; CREATE TABLE orders (id bigserial)")
    conn.execute("ALTER SEQUENCE orders_id_seq RENAME TO ids")
    make(conn, OLDER.replace("bigserial  ", "bigint DEFAULT nextval('app.ids') + 7"))
    site.migrate("--drop-old")
    conn.execute(INSERT)
    assert conn.execute("SELECT max(id) FROM logs").fetchone() == (
        5074,
    )  # the sequence stands past the largest id, 5066
    assert conn.execute("INSERT INTO orders DEFAULT VALUES RETURNING id").fetchone() == (1,)


def test_the_options_of_an_identity_are_kept(conn: Connection, site: Site) -> None:
    make(conn, OLDER.replace("bigserial  ", "bigint GENERATED ALWAYS AS IDENTITY (INCREMENT 10 START 7 CACHE 5)"))
    site.migrate()
    conn.execute(INSERT)
    ((largest,), (second,)) = conn.execute("SELECT id FROM logs ORDER BY id DESC LIMIT 2").fetchall()
    assert largest > second
    assert largest % 10 == 7


@pytest.mark.parametrize(("sequence", "id_"), [("bigint", "integer"), ("integer", "bigint")])
def test_undo_gives_the_sequence_back_as_it_was(conn: Connection, site: Site, sequence: str, id_: str) -> None:
    conn.execute(f"CREATE SEQUENCE numbers AS {sequence}")
    make(conn, OLDER.replace("bigserial  ", f"{id_} DEFAULT nextval('numbers')"))
    conn.execute("ALTER SEQUENCE numbers OWNED BY logs.id")
    site.migrate()
    site.migrate("--undo", "--yes")
    found = conn.execute("SELECT seqtypid::regtype::text FROM pg_sequence WHERE seqrelid = 'numbers'::regclass")
    assert found.fetchall() == [(sequence,)]


def test_undo_of_an_integer_sequence_that_has_gone_too_far_leaves_it_wide(conn: Connection, site: Site) -> None:
    make(conn, OLDER.replace("bigserial", "serial"))
    site.migrate()
    conn.execute("SELECT setval('logs_id_seq', 3000000000)")
    site.migrate("--undo", "--yes")
    assert is_plain(conn)


def test_an_autovacuum_gives_way(own_server: Callable[..., Server], tmp_path: Path) -> None:
    """It is cancelled by whoever waits for longer than deadlock_timeout; half a second is less."""
    server = own_server("fsync=off", "autovacuum_naptime=1s")
    if server.version < 12:
        pytest.skip("there an autovacuum takes minutes to begin")
    site = Site(tmp_path, server.keywords())
    vacuum = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'autovacuum: VACUUM%%public.logs%%'"
    with psycopg.connect(**server.keywords(), autocommit=True) as conn:  # type: ignore[arg-type]
        make(conn, rows=100_000)
        conn.execute("""
            ALTER TABLE logs SET (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,
                                  autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_cost_delay = 100)
        """)
        conn.execute("DELETE FROM logs WHERE id % 2 = 0")
        wait_until(lambda: conn.execute(vacuum).fetchone() == (1,), 180)
        site.migrate()
        assert sum(days_of(conn).values()) == 50_000


def test_columns_with_any_name_are_carried_over(conn: Connection, site: Site) -> None:
    make(conn, OLDER.rstrip().rstrip(")") + ', day date, rows integer, "Per %s {x} ""q""" text DEFAULT \'{} %s\')')
    site.migrate("--drop-old")
    assert conn.execute('SELECT count(*) FROM logs WHERE "Per %s {x} ""q""" = \'{} %s\'').fetchone() == (60,)


def test_a_source_padded_with_blanks_is_an_address(conn: Connection, site: Site) -> None:
    make(conn, OLDER.replace("source_ip        inet", "source_ip        char(45)"))
    site.migrate("--drop-old")
    assert conn.execute("SELECT DISTINCT host(source_ip) FROM logs").fetchall() == [("203.0.113.7",)]


def test_everything_that_is_made_belongs_to_the_owner_and_to_nobody_else(
    conn: Connection, site: Site, role: Callable[[str], str]
) -> None:
    """Migrated by a superuser, with default privileges: then the owner's runs go on."""
    make(conn)
    owner, snoop = role("owner"), role("snoop")
    conn.execute(SQL("GRANT CREATE ON SCHEMA public TO {}").format(Identifier(owner)))
    for table in ("users", "protocols", "endpoints", "tags", "nodes", "logs"):
        conn.execute(SQL("ALTER TABLE {} OWNER TO {}").format(Identifier(table), Identifier(owner)))
    conn.execute(SQL("ALTER DEFAULT PRIVILEGES GRANT SELECT, DELETE ON TABLES TO {}").format(Identifier(snoop)))
    site.migrate("--drop-old")
    ((granted,),) = conn.execute("SELECT count(*) FROM pg_class WHERE relacl::text LIKE %s", [f"%{snoop}=%"])
    assert granted == 0
    site.append(*lines(0, 5))
    site.set("postgresql", user=owner, password="only for this test")  # noqa: S106  # of a role that ends with the test
    site.run()
    assert sum(site.emails().values()) == 65


def test_names_in_two_schemas_of_the_search_path_are_refused(conn: Connection, site: Site) -> None:
    make(conn)
    conn.execute("CREATE SCHEMA first")
    conn.execute("CREATE TABLE first.users (id serial PRIMARY KEY, email text NOT NULL UNIQUE)")
    site.set("postgresql", options="-c search_path=first,public")
    assert "users is in two schemas of the search_path" in site.migrate(status=3).stderr


def test_undo_is_refused_while_a_view_reads_the_new_table(conn: Connection, site: Site) -> None:
    make(conn)
    site.migrate()
    conn.execute("CREATE VIEW hours AS SELECT count(*) FROM logs")
    before = facts(conn)
    assert "the view hours would follow the rename" in site.migrate("--undo", "--yes", status=3).stderr
    assert facts(conn) == before


def test_a_day_that_was_dropped_since_does_not_come_back(conn: Connection, site: Site) -> None:
    make(conn)
    site.migrate()
    conn.execute("DROP TABLE logs_2025_11_15")
    stopped = site.migrate("--drop-old", status=3)
    assert "delete their rows from logs_old, if you removed them from logs on purpose" in stopped.stderr
    assert days_of(conn).keys() == {"logs_2025_11_16", "logs_2025_11_17"}
    conn.execute("DELETE FROM logs_old WHERE \"timestamp\" < '2025-11-16 00:00+00'")
    site.migrate("--drop-old")
    assert days_of(conn).keys() == {"logs_2025_11_16", "logs_2025_11_17"}


def test_ids_from_zero_down_are_copied_too(conn: Connection, site: Site) -> None:
    make(conn, rows=0)
    conn.execute("INSERT INTO logs (id, \"timestamp\", action) VALUES (0, '2025-11-15', 'a'), (-5, '2025-11-16', 'b')")
    site.migrate("--drop-old")
    assert [id_ for id_, *_ in content(conn)] == [-5, 0]


def test_timeouts_of_the_role_do_not_stop_it(conn: Connection, site: Site) -> None:
    make(conn, rows=30_000)
    limits = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]
    if conn.info.server_version >= 170000:
        limits.append("transaction_timeout")
    site.set("postgresql", options=" ".join(f"-c {limit}=150" for limit in limits))
    with psycopg.connect(**site.database) as holder:  # type: ignore[arg-type]
        holder.execute("SELECT pg_advisory_xact_lock(%s)", [lock_key(schema.PARTITIONS_LOCK)])
        migration = subprocess.Popen(site.command(script=MIGRATE), stdout=subprocess.DEVNULL)
        wait_until(lambda: site_waits(conn))
    assert migration.wait(60) == 0
    assert len(content(conn)) == 30_000


def site_waits(conn: Connection) -> bool:
    """Whether a migration waits for another one."""
    waiting = "application_name = 'migrate_logs' AND wait_event = 'advisory' AND datname = current_database()"
    return conn.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {waiting}").fetchone() == (1,)


def test_a_migration_that_is_undone_beside_it_says_so(
    conn: Connection, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(conn)
    real = backfill.pending_days

    def undone_meanwhile(*arguments: Any) -> list[datetime.date]:
        monkeypatch.undo()
        left = real(*arguments)
        site.migrate("--undo", "--yes", stdin=subprocess.DEVNULL)  # a process: this one is a fork already
        return left

    monkeypatch.setattr(backfill, "pending_days", undone_meanwhile)
    assert site.run_here(script=MIGRATE) == 0, site.output()
    assert "another session was faster: logs is a plain table" in site.output()
    assert len(content(conn)) == 60


# --- refused -----------------------------------------------------------------------------------------------

WITH_REASONS = {
    "a NULL timestamp": (
        'ALTER TABLE logs ALTER "timestamp" DROP NOT NULL; UPDATE logs SET "timestamp" = NULL WHERE id IN (3, 5)',
        r"2 rows without a timestamp \(id 3, id 5\); which: SELECT \* FROM logs WHERE .*; give them a time, or delete",
    ),
    "an infinite timestamp": (
        (
            "UPDATE logs SET \"timestamp\" = CASE id WHEN 3 THEN 'infinity' ELSE '-infinity' END::timestamptz "
            "WHERE id IN (3, 4)"
        ),
        r"2 rows at infinity \(id 3: infinity, id 4: -infinity\); which: ",
    ),
    "a year that no calendar has": (
        "UPDATE logs SET \"timestamp\" = '20000-01-01' WHERE id = 3",
        r"1 row not from 0001-01-02 to 9999-12-30",
    ),
    "a range of more than 3660 days": (
        "UPDATE logs SET \"timestamp\" = '1970-01-01 00:00+00' WHERE id = 3",
        r"the rows span 20410 days, more than 3660.*first and the last days: 1970-01-01 \(1 rows\), 2025-11-15 \(19",
    ),
    "an id that is NULL": (
        (
            "ALTER TABLE logs DROP CONSTRAINT logs_pkey; ALTER TABLE logs ALTER COLUMN id DROP NOT NULL; "
            "UPDATE logs SET id = NULL WHERE id = 3"
        ),
        r"1 row without an id",
    ),
    "a unique index without the time": (
        "CREATE UNIQUE INDEX ports ON logs (id, source_port)",
        r"the unique index ports has no timestamp.*: DROP INDEX \"ports\", or add the timestamp",
    ),
    "a unique id beside the primary key": (
        "ALTER TABLE logs ADD CONSTRAINT again UNIQUE (id)",
        r"the unique index again has no timestamp.*: ALTER TABLE logs DROP CONSTRAINT \"again\"",
    ),
    "a foreign key that points at it": (
        "CREATE TABLE notes (log bigint REFERENCES logs)",
        r"a foreign key of notes points at logs.*ALTER TABLE notes DROP CONSTRAINT notes_log_fkey",
    ),
    "a view": (
        'CREATE VIEW "My View" AS SELECT count(*) FROM logs',
        r'the view "My View" would follow the rename: DROP VIEW \"My View\", and make it again afterwards',
    ),
    "a materialized view": (
        "CREATE MATERIALIZED VIEW hours AS SELECT count(*) FROM logs",
        r"the materialized view hours would follow the rename: DROP MATERIALIZED VIEW hours",
    ),
    "a trigger": (
        "CREATE TRIGGER mine BEFORE UPDATE ON logs FOR EACH ROW EXECUTE PROCEDURE suppress_redundant_updates_trigger()",
        r"the trigger mine cannot be carried over: DROP TRIGGER mine ON logs",
    ),
    "a rule": (
        "CREATE RULE quiet AS ON DELETE TO logs DO INSTEAD NOTHING",
        r"rule quiet on table logs uses logs and cannot be carried over",
    ),
    "a publication": (
        "CREATE PUBLICATION of_logs_{dbname} FOR TABLE logs",
        r"publication of (table logs in publication of_logs_|)\S*.* uses logs and cannot be carried over",
    ),
    "statistics": (
        "CREATE STATISTICS st ON source_ip, user_id FROM logs",
        r"statistics object .*st uses logs and cannot be carried over",
    ),
    "a policy": (
        "CREATE POLICY mine ON logs; ALTER TABLE logs ENABLE ROW LEVEL SECURITY",
        r"row security is on: ALTER TABLE logs DISABLE ROW LEVEL SECURITY(.|\n)*policy mine on table logs uses logs",
    ),
    "a child": ("CREATE TABLE child () INHERITS (logs)", r"table child uses logs and cannot be carried over"),
    "a parent": (
        "CREATE TABLE parent (); ALTER TABLE logs INHERIT parent",
        r"the table that it inherits from, parent uses logs",
    ),
    "a function on its rows": (
        "CREATE FUNCTION f(logs) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        r"function f\(logs\) uses logs",
    ),
    "an exclusion constraint": (
        "ALTER TABLE logs ADD CONSTRAINT apart EXCLUDE (id WITH =)",
        r"the exclusion constraint apart cannot be kept",
    ),
    "a constraint that was never checked": (
        "ALTER TABLE logs ADD CONSTRAINT positive CHECK (source_port > 0) NOT VALID",
        r"the constraint positive is NOT VALID: ALTER TABLE logs VALIDATE CONSTRAINT \"positive\"",
    ),
    "a constraint for the parent alone": (
        "ALTER TABLE logs ADD CONSTRAINT positive CHECK (source_port > 0) NO INHERIT",
        r"the constraint positive is NO INHERIT",
    ),
    "ids of names that are not there": (
        "ALTER TABLE logs DROP CONSTRAINT logs_user_id_fkey; UPDATE logs SET user_id = 99 WHERE id < 4",
        r"3 rows with a user_id that is not in users \(the smallest is 99\): add those names to users",
    ),
    "text that is no address": (
        "ALTER TABLE logs ALTER COLUMN source_ip TYPE text; UPDATE logs SET source_ip = 'nowhere' WHERE id = 3",
        r'logs.source_ip has text that is no address: invalid input syntax for type inet: "nowhere"',
    ),
    "a type that cannot be converted": (
        "ALTER TABLE logs ALTER COLUMN source_port TYPE text",
        r"logs.source_port: expected integer, found text: ALTER TABLE logs ALTER COLUMN source_port TYPE integer",
    ),
    "a key to itself": (
        "ALTER TABLE logs ADD COLUMN parent bigint REFERENCES logs",
        r"a foreign key of logs points at logs",
    ),
    "a check on an address that is text": (
        "ALTER TABLE logs ALTER source_ip TYPE text; ALTER TABLE logs ADD CHECK (source_ip ~ '^[0-9.]+')",
        r"the constraint logs_source_ip_check is about source_ip, whose type changes",
    ),
    "a check on the whole row": (
        "ALTER TABLE logs ADD CONSTRAINT whole CHECK (logs IS DISTINCT FROM NULL)",
        r"the new table cannot have what logs has.*, at: .*CHECK \(\(logs",
    ),
    "an index on a day without zone": (
        'ALTER TABLE logs ALTER "timestamp" TYPE timestamp; CREATE INDEX ON logs (("timestamp"::date))',
        r"functions in index expression must be marked IMMUTABLE .*, at: CREATE INDEX",
    ),
    "an index that is made for text": (
        "ALTER TABLE logs ALTER source_ip TYPE text; CREATE INDEX ON logs (source_ip text_pattern_ops)",
        r"operator class \"text_pattern_ops\" does not accept data type inet",
    ),
    "a name that the suffix makes another's": (
        "CREATE INDEX a ON logs (action); CREATE INDEX a_old ON logs (source_port)",
        r"a_old is in the way: rename it",
    ),
    "a sequence that counts down": (
        "ALTER SEQUENCE logs_id_seq INCREMENT -1 MINVALUE -100",
        r"the sequence logs_id_seq counts down",
    ),
    "a sequence that ends before the largest id": (
        "ALTER SEQUENCE logs_id_seq MAXVALUE 1000; UPDATE logs SET id = 5000 WHERE id = 3",
        r"the largest id is 5000, and the sequence logs_id_seq ends there: raise its MAXVALUE",
    ),
    "the last bigint": (
        "UPDATE logs SET id = 9223372036854775807 WHERE id = 3",
        r"the largest id is 9223372036854775807, and the sequence logs_id_seq ends there",
    ),
    "the last day that there is": (
        "UPDATE logs SET \"timestamp\" = '9999-12-31 12:00+00' WHERE id = 3",
        r"1 row not from 0001-01-02 to 9999-12-30",
    ),
    "an id that is no number": (
        "ALTER TABLE logs DROP COLUMN id; ALTER TABLE logs ADD COLUMN id text",
        r"logs.id: expected bigint, found text",
    ),
    "no time": ('ALTER TABLE logs DROP COLUMN "timestamp"', r"logs.timestamp: expected a column, found none"),
    "an identity beside the id": (
        "ALTER TABLE logs ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY",
        r"logs.number is an identity column",
    ),
    "a logs_old of another program": ("CREATE TABLE logs_old (id integer)", r"logs_old is in the way: rename it"),
    "a table with the name of a partition": (
        "CREATE TABLE logs_2025_11_16 (id integer)",
        r"logs_2025_11_16 is in the way, a table of its own with the name of a partition: rename it",
    ),
    "a name that is too long": (
        f"CREATE INDEX {'x' * 60} ON logs (action)",
        r"the name x{60} is longer than 59 bytes",
    ),
    "another table that does not fit": (
        "ALTER TABLE users DROP CONSTRAINT users_email_key",
        r"users.email: expected a unique column, found none; ALTER TABLE users ADD UNIQUE \(email\)",
    ),
}


@pytest.mark.parametrize(("obstacle", "reason"), WITH_REASONS.values(), ids=WITH_REASONS)
def test_refused_before_the_first_change_with_the_way_out(
    conn: Connection, site: Site, obstacle: str, reason: str
) -> None:
    make(conn)
    conn.execute(obstacle.replace("{dbname}", conn.info.dbname))
    before = facts(conn)
    refused = site.migrate("--drop-old", status=3)
    assert re.search(reason, refused.stderr), refused.stderr
    assert "nothing was changed" in refused.stderr
    assert facts(conn) == before
    assert site.migrate("--dry-run", status=3).stderr == refused.stderr


def test_all_reasons_are_reported_at_once(conn: Connection, site: Site) -> None:
    make(conn)
    together = [
        "a NULL timestamp",
        "an infinite timestamp",
        "a range of more than 3660 days",
        "a unique index without the time",
        "a foreign key that points at it",
        "a view",
        "a trigger",
        "a logs_old of another program",
        "ids of names that are not there",
    ]
    for name in together:
        conn.execute(WITH_REASONS[name][0])
    refused = site.migrate(status=3)
    for name in together:
        reason = re.sub(r"^\d+ rows?", r"\\d+ rows?", WITH_REASONS[name][1])
        assert re.search(re.split(r" \\\(|span", reason)[0], refused.stderr), name


def test_another_role_s_table_is_refused(conn: Connection, site: Site, role: Callable[[str], str]) -> None:
    make(conn)
    stranger = role("stranger")
    conn.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    conn.execute(SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(Identifier(stranger)))
    site.set("postgresql", user=stranger, password="only for this test")  # noqa: S106  # of a role that ends with the test
    refused = site.migrate(status=3).stderr
    assert (
        f'only the owner of logs can migrate it: connect as postgres, or ALTER TABLE logs OWNER TO "{stranger}"'
        in refused
    )
    assert f'GRANT CREATE ON SCHEMA "public" TO "{stranger}"' in refused


def test_a_bad_row_that_comes_at_the_last_moment_is_reported_and_can_be_fixed(
    conn: Connection, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the rows and the rename."""
    make(conn, OLDER.replace("timestamptz NOT NULL", "timestamptz"))
    from xraylog.migration import swap

    real = swap.swap

    def late(*arguments: Any) -> None:
        conn.execute("INSERT INTO logs (action) VALUES ('accepted')")
        real(*arguments)

    monkeypatch.setattr(swap, "swap", late)
    assert site.run_here(script=MIGRATE) == 3
    assert "1 row without a timestamp (id 61)" in site.output()
    assert "then go on, or go back with --undo" in site.output()
    conn.execute('DELETE FROM logs_old WHERE "timestamp" IS NULL')
    site.migrate("--drop-old")
    assert len(content(conn)) == 60


# --- the command line --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--undo", "--drop-old"], "expected --undo or --drop-old, found both"),
        (["--status", "--undo"], "expected --status alone"),
        (["--yes"], "expected --yes with --undo"),
    ],
)
def test_what_contradicts_itself_is_refused(site: Site, arguments: list[str], complaint: str) -> None:
    assert complaint in site.migrate(*arguments, status=2).stderr


def test_a_wrong_configuration_and_a_server_that_is_away(site: Site) -> None:
    site.away()
    assert "PostgreSQL is not available" in site.migrate(status=1).stderr
    site.config.write_text("[parser]\n")
    assert "[postgresql] host: expected a value" in site.migrate(status=78).stderr


def test_the_day_of_a_moment_is_the_utc_day() -> None:
    assert (
        partitions.day_bounds("2025-11-17")[0]
        == datetime.datetime(2025, 11, 17, tzinfo=datetime.timezone.utc).timestamp()
    )
