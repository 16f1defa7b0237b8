"""The old table comes back as it was, after it was shown what that loses."""

from __future__ import annotations

import os
import pty
import re
import subprocess

import psycopg
import pytest
from helpers.migration import (
    BY_HAND,
    INSERT,
    MIGRATE,
    OLDER,
    content,
    dying_after,
    is_plain,
    make_plain_logs,
    stop_in_the_middle,
)
from helpers.site import Site, facts, lines
from psycopg import errors

from xraylog.database import ddl, partitions
from xraylog.database.session import Connection
from xraylog.migration import revert, swap

OTHER_IDS = """
    CREATE TABLE given (last bigint);
    INSERT INTO given VALUES (0);
    CREATE FUNCTION next_id() RETURNS bigint LANGUAGE sql AS 'UPDATE given SET last = last + 1 RETURNING last';
"""


def test_ids_that_come_from_no_sequence_come_from_there_in_the_new_table_and_after_undo(
    conn: Connection, site: Site
) -> None:
    conn.execute(OTHER_IDS)
    make_plain_logs(conn, OLDER.replace("bigserial  ", "bigint DEFAULT next_id()"))
    for arguments in ([], ["--undo", "--yes"], ["--drop-old"]):
        site.migrate(*arguments)
        if arguments != ["--undo", "--yes"]:
            continue
        assert is_plain(conn)
        conn.execute(INSERT)
    conn.execute(INSERT)
    assert [id_ for id_, *_ in content(conn)] == list(range(1, 63))
    assert conn.execute("SELECT to_regclass('logs_id_seq')").fetchall() == [(None,)]


def test_a_row_that_comes_after_the_report_is_not_lost_where_ids_come_from_no_sequence(conn: Connection) -> None:
    """Without a sequence there is no last id that shows a new row."""
    conn.execute(OTHER_IDS)
    make_plain_logs(conn, OLDER.replace("bigserial  ", "bigint DEFAULT next_id()"))
    swap.swap(conn, "UTC", 60)
    partitions.Partitions(conn).ensure(["2025-11-17"])
    _, risk = revert.rows_at_risk(conn)
    conn.execute(INSERT)
    assert not revert.revert(conn, risk)
    assert not is_plain(conn)
    _, risk = revert.rows_at_risk(conn)
    assert risk.rows == 1
    assert revert.revert(conn, risk)
    assert is_plain(conn)


def test_a_row_whose_transaction_is_open_during_the_report_is_not_lost(
    conn: Connection, database: dict[str, str]
) -> None:
    """Its id is taken, and nobody sees it: the report would lack it, and the id would show nothing new afterwards."""
    make_plain_logs(conn)
    swap.swap(conn, "UTC", 60)
    partitions.Partitions(conn).ensure(["2025-11-17"])
    with psycopg.connect(**database) as run:  # type: ignore[arg-type]
        run.execute(INSERT)
        with pytest.raises(errors.LockNotAvailable):  # undo waits, and tries again
            revert.rows_at_risk(conn)
    _, risk = revert.rows_at_risk(conn)
    assert risk.rows == 1
    with psycopg.connect(**database) as run:  # type: ignore[arg-type]
        run.execute("SET lock_timeout = '1s'")
        run.execute(INSERT)  # it does not have to wait for an answer of the operator
    assert not revert.revert(conn, risk)


def test_an_undo_that_another_session_has_ended_has_nothing_left_to_drop(conn: Connection) -> None:
    make_plain_logs(conn)
    before = facts(conn)
    assert not revert.drop_new_tables(conn)
    assert facts(conn) == before


@pytest.mark.parametrize("table", [OLDER, BY_HAND], ids=["older", "by hand"])
def test_undo_brings_the_old_table_back_as_it_was(conn: Connection, site: Site, table: str) -> None:
    make_plain_logs(conn, table)
    conn.execute("COMMENT ON TABLE logs IS 'mine'")
    for missing in ("log_positions", "rejected_lines"):  # what the migration adds, and nobody takes away
        for statement in ddl.create(missing):
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
    make_plain_logs(conn)
    site.migrate()
    site.append(*lines(0, 5))
    site.run()
    before = facts(conn)
    refused = site.migrate("--undo", status=3, stdin=subprocess.DEVNULL)
    assert "5 rows were stored in logs since the migration started. They would be LOST" in refused.stdout
    assert "AND NOT EXISTS (SELECT FROM logs_old o WHERE o.id = l.id)" in refused.stdout
    assert "expected --yes, because there is no terminal" in refused.stderr
    assert facts(conn) == before
    assert len(content(conn)) == 65
    assert "would be LOST" in site.migrate("--undo", "--yes").stdout
    assert len(content(conn)) == 60
    assert is_plain(conn)


PSQL_SESSION = "America/New_York"  # a zone that has nothing to do with that of the log


def test_the_rows_that_an_undo_would_lose_are_kept_by_what_it_prints(conn: Connection, site: Site) -> None:
    """This includes an old table with times without a zone, for which COPY ignores the zone in the file."""
    make_plain_logs(conn, OLDER.replace("timestamptz", "timestamp"))
    site.set("parser", timezone="Europe/Berlin")
    site.migrate()
    site.append(*lines(0, 5))
    site.run()
    stored = content(conn)
    printed = site.migrate("--undo", "--dry-run").stdout
    away, back = re.findall(r"^--   \\(copy .*)$", printed, re.MULTILINE)
    conn.execute(f"SET timezone TO '{PSQL_SESSION}'")
    with conn.cursor().copy(re.sub(r"TO 'since.csv'", "TO STDOUT", away)) as copy:
        kept = b"".join(bytes(part) for part in copy)
    site.migrate("--undo", "--yes")
    with conn.cursor().copy(re.sub(r"FROM 'since.csv'", "FROM STDIN", back)) as copy:
        copy.write(kept)
    site.migrate("--drop-old")
    assert content(conn) == stored


@pytest.mark.parametrize(("answer", "status"), [("yes\n", 0), ("\n", 3), ("no\n", 3)])
def test_at_a_terminal_undo_asks(conn: Connection, site: Site, answer: str, status: int) -> None:
    make_plain_logs(conn)
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

    make_plain_logs(conn)
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
    make_plain_logs(conn)
    before = content(conn)
    stop_in_the_middle(site)
    assert "the migration is not finished" in site.migrate("--status").stdout
    site.migrate("--undo", "--yes")
    assert is_plain(conn)
    assert content(conn) == before
    site.migrate("--drop-old")
    assert content(conn) == before


def test_what_an_interrupted_undo_left_is_reported_and_in_the_way(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    site.migrate()
    before = content(conn)
    assert site.run_here("--undo", "--yes", script=MIGRATE, inside=dying_after("revert", "revert")) == -9
    assert is_plain(conn)
    assert "the tables that it created are not dropped yet" in site.migrate("--status").stdout
    assert "--undo finishes that" in site.migrate(status=3).stderr
    assert site.migrate("--undo", "--dry-run").stdout == f"{revert.DROP_NEW_TABLES}\n"
    site.migrate("--undo")
    assert "nothing has been migrated" in site.migrate("--status").stdout
    assert content(conn) == before


def test_there_is_nothing_to_undo_once_the_old_table_is_dropped(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    site.migrate("--drop-old")
    assert "nothing to undo: logs is partitioned" in site.migrate("--undo", "--yes", status=3).stderr


@pytest.mark.parametrize(("sequence", "id_"), [("bigint", "integer"), ("integer", "bigint")])
def test_undo_gives_the_sequence_back_as_it_was(conn: Connection, site: Site, sequence: str, id_: str) -> None:
    conn.execute(f"CREATE SEQUENCE numbers AS {sequence}")
    make_plain_logs(conn, OLDER.replace("bigserial  ", f"{id_} DEFAULT nextval('numbers')"))
    conn.execute("ALTER SEQUENCE numbers OWNED BY logs.id")
    site.migrate()
    site.migrate("--undo", "--yes")
    found = conn.execute("SELECT seqtypid::regtype::text FROM pg_sequence WHERE seqrelid = 'numbers'::regclass")
    assert found.fetchall() == [(sequence,)]


def test_undo_of_an_integer_sequence_that_has_gone_too_far_leaves_it_wide(conn: Connection, site: Site) -> None:
    make_plain_logs(conn, OLDER.replace("bigserial", "serial"))
    site.migrate()
    conn.execute("SELECT setval('logs_id_seq', 3000000000)")
    site.migrate("--undo", "--yes")
    assert is_plain(conn)


def test_undo_is_refused_while_a_view_reads_the_new_table(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    site.migrate()
    conn.execute("CREATE VIEW hours AS SELECT count(*) FROM logs")
    before = facts(conn)
    assert "the view hours would follow the rename" in site.migrate("--undo", "--yes", status=3).stderr
    assert facts(conn) == before


def test_undo_finds_free_names(conn: Connection, site: Site) -> None:
    """This includes an index with the name of another one plus the suffix, and a name of the maximum length."""
    make_plain_logs(conn)
    for name in ("a", "a_new", "a_new_new"):
        conn.execute(f"CREATE INDEX {name} ON logs (action)")
    before, rows = facts(conn), content(conn)
    site.migrate()
    long = "b" * 60
    if conn.info.server_version >= 110000:  # before, a partitioned table has no indexes
        conn.execute(f"CREATE INDEX {long}123 ON logs (action); CREATE INDEX {long}_ne ON logs (action)")
    site.migrate("--undo", "--yes")
    tables = ("log_positions", "rejected_lines")  # what the migration adds, and nobody takes away
    assert {fact for fact in facts(conn) if not str(fact[1]).startswith(tables)} == before
    assert content(conn) == rows


def test_undo_that_cannot_drop_a_day_says_what_uses_it_and_goes_on_later(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    rows = content(conn)
    site.migrate()
    conn.execute("CREATE VIEW last_day AS SELECT * FROM logs_2025_11_17")
    refused = site.migrate("--undo", "--yes", status=3).stderr
    assert "view last_day depends on table logs_2025_11_17" in refused
    assert "--undo continues" in refused
    assert content(conn) == rows
    conn.execute("DROP VIEW last_day")
    site.migrate("--undo", "--yes")
    assert conn.execute("SELECT to_regclass('logs_new')").fetchone() == (None,)


@pytest.mark.parametrize("bounds", ["FROM (MINVALUE) TO ('0002-01-01 BC')", "DEFAULT"])
def test_undo_looks_for_rows_in_whatever_partition_there_is(conn: Connection, site: Site, bounds: str) -> None:
    if bounds == "DEFAULT" and conn.info.server_version < 110000:
        pytest.skip("PostgreSQL 10 has no DEFAULT partition")
    make_plain_logs(conn)
    site.migrate()
    conn.execute(f"CREATE TABLE by_hand PARTITION OF logs {bounds if bounds == 'DEFAULT' else 'FOR VALUES ' + bounds}")
    at = "0044-03-15 BC" if bounds != "DEFAULT" else "2024-01-01"
    conn.execute("INSERT INTO logs (\"timestamp\", action) VALUES (%s, 'accepted')", [at])
    assert "1 rows were stored in logs since" in site.migrate("--undo", "--yes").stdout
    assert is_plain(conn)
