"""The state is read from the catalog: runs stay offline meanwhile, and the same command resumes."""

from __future__ import annotations

import datetime
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from helpers import faults
from helpers.migration import (
    MIGRATE,
    content,
    dying_after,
    give_tables,
    log_in_as,
    make_plain_logs,
    stop_after_the_rename,
    stop_in_the_middle,
)
from helpers.site import Site, facts, line, lines, users
from psycopg.conninfo import make_conninfo
from server import embedded_bin

from xraylog.database import schema
from xraylog.database.session import Connection
from xraylog.migration import backfill


@pytest.mark.parametrize("stop", [stop_after_the_rename, stop_in_the_middle])
def test_as_long_as_it_is_unfinished_runs_stay_offline_by_themselves_and_say_why(
    conn: Connection, site: Site, stop: Callable[[Site], None]
) -> None:
    make_plain_logs(conn, rows=12)
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
    assert "logs is being migrated" in site.run("--dry-run").stdout

    site.migrate()
    site.append(line(5))
    site.run()
    assert site.emails() == expected + users(0, 6)


def test_a_plain_table_keeps_runs_offline_and_names_the_migration(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    site.append(*lines(0, 5))
    assert "migrate_logs_to_partitioned.py" in site.run(status=3).stderr
    assert site.buffered() == users(0, 5)
    site.migrate()
    site.run()
    assert site.emails() == Counter(alice=20, bob=20, carol=20) + users(0, 5)


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


def test_a_migration_that_is_undone_beside_it_says_so(
    conn: Connection, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_plain_logs(conn)
    real = backfill.pending_days

    def undone_meanwhile(*arguments: Any) -> list[datetime.date]:
        monkeypatch.undo()
        left = real(*arguments)
        site.migrate("--undo", "--yes", stdin=subprocess.DEVNULL)  # a process: this one is a fork already
        return left

    monkeypatch.setattr(backfill, "pending_days", undone_meanwhile)
    assert site.run_here(script=MIGRATE) == 0, site.output()
    assert "another session changed the state of the migration: logs is a plain table" in site.output()
    assert len(content(conn)) == 60


def test_a_lock_that_is_never_given_ends_it_and_the_same_command_goes_on(
    conn: Connection, site: Site, database: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xraylog.migration.state.MAX_WAIT_S", 0.5)
    monkeypatch.setattr("xraylog.migration.state.PAUSE_S", 0.1)
    make_plain_logs(conn)
    with psycopg.connect(**database) as holder:  # type: ignore[arg-type]
        holder.execute("SELECT FROM logs LIMIT 1")
        assert site.run_here(script=MIGRATE) == 1
    assert "the same command resumes" in site.output()
    assert site.run_here(script=MIGRATE) == 0


def test_a_server_that_goes_away_ends_it_and_the_same_command_goes_on(
    conn: Connection, site: Site, database: dict[str, str]
) -> None:
    make_plain_logs(conn)
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'migrate_logs'"
    for step in range(60, 200, 20):

        def strike() -> None:
            with psycopg.connect(**database, autocommit=True) as striking:  # type: ignore[arg-type]
                striking.execute(end + " AND datname = current_database()")

        status = site.run_here(script=MIGRATE, inside=faults.after_step(step, site.folder / "steps", strike))
        assert status in (0, 1), site.output()[-2000:]
    site.migrate("--drop-old")
    assert len(content(conn)) == 60


def test_a_policy_never_hides_rows_from_the_migration(conn: Connection, site: Site, role: Callable[[str], str]) -> None:
    """A policy is created after the start, also for the owner: copy and verification would both miss hidden rows."""
    make_plain_logs(conn)
    owner = role("owner")
    give_tables(conn, owner)
    log_in_as(site, owner)
    stop_in_the_middle(site)
    conn.execute("CREATE POLICY few ON logs_old USING (user_id = 1)")
    conn.execute("ALTER TABLE logs_old ENABLE ROW LEVEL SECURITY; ALTER TABLE logs_old FORCE ROW LEVEL SECURITY")
    assert "row-level security" in site.migrate("--drop-old", status=3).stderr
    conn.execute("ALTER TABLE logs_old DISABLE ROW LEVEL SECURITY")
    site.migrate("--drop-old")
    assert len(content(conn)) == 60


COMMENTS = """
    SELECT format('COMMENT ON TABLE %s IS NULL', objoid::regclass) FROM pg_description
    WHERE classoid = 'pg_class'::regclass AND objsubid = 0 AND description LIKE 'xraylog:%'
"""


def lose_the_comments(conn: Connection) -> None:
    """Remove the comments, as pg_dump --no-comments does."""
    found = conn.execute(COMMENTS).fetchall()
    assert found
    for (statement,) in found:
        conn.execute(statement)


@pytest.mark.parametrize("stop", [stop_after_the_rename, stop_in_the_middle])
def test_an_unfinished_migration_without_its_comments_is_known(
    conn: Connection, site: Site, stop: Callable[[Site], None]
) -> None:
    make_plain_logs(conn, rows=12)
    before = content(conn)
    stop(site)
    lose_the_comments(conn)
    site.append(line(0))
    assert "logs is being migrated" in site.run().stderr
    assert "the migration is not finished" in site.migrate("--status").stdout
    site.migrate()
    assert content(conn) == before
    lose_the_comments(conn)
    assert "the migration is finished; logs_old is still there" in site.migrate("--status").stdout
    site.migrate("--undo", "--yes")
    assert content(conn) == before
    assert conn.execute("SELECT to_regclass('xraylog_migration')").fetchone() == (None,)


def test_an_unfinished_migration_is_moved_by_a_dump_without_comments(
    conn: Connection, site: Site, other_database: Connection
) -> None:
    if conn.info.server_version >= 170000:
        pytest.skip("the pg_dump at hand is of PostgreSQL 16")
    make_plain_logs(conn)
    before = content(conn)
    stop_in_the_middle(site)
    there = {**site.database, "dbname": other_database.info.dbname}
    dump, restore = ([embedded_bin() / program, make_conninfo("", **to)] for program, to in (
        ("pg_dump", site.database), ("psql", there)))  # fmt: skip
    text = subprocess.run([*dump, "--no-comments"], capture_output=True, check=True).stdout
    subprocess.run([*restore, "-q"], input=text, capture_output=True, check=True)
    site.set("postgresql", dbname=there["dbname"])
    assert "1 of 3 days of logs_old are copied" in site.migrate("--status").stdout
    site.migrate("--drop-old")
    assert content(other_database) == before


def test_an_undo_that_was_stopped_without_its_comments_is_known(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    before = content(conn)
    stop_in_the_middle(site)
    assert site.run_here("--undo", "--yes", script=MIGRATE, inside=dying_after("revert", "revert")) == -9
    lose_the_comments(conn)
    assert "--undo finishes that" in site.migrate(status=3).stderr
    site.migrate("--undo", "--yes")
    site.migrate("--drop-old")
    assert content(conn) == before


def test_a_migration_that_an_older_version_began_is_known_by_its_comment(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    before = content(conn)
    stop_in_the_middle(site)
    conn.execute("DROP TABLE xraylog_migration")
    site.append(line(0))
    assert "logs is being migrated" in site.run().stderr
    site.migrate()
    assert content(conn) == before
    lose_the_comments(conn)
    assert "the migration is finished; logs_old is still there" in site.migrate("--status").stdout


def test_a_comment_that_was_cut_is_asked_for_and_the_migration_goes_on(conn: Connection, site: Site) -> None:
    """An older version started the migration, and wrote only a comment."""
    make_plain_logs(conn)
    before = content(conn)
    stop_in_the_middle(site)
    conn.execute("DROP TABLE xraylog_migration")
    conn.execute("COMMENT ON TABLE logs_old IS 'xraylog: unfinished migration into logs'")
    said = site.migrate(status=3).stderr
    assert "found 'xraylog: unfinished migration into logs'; with the zone of its days and the type of its id" in said
    (comment,) = re.findall(r"COMMENT ON TABLE logs_old IS '.*?'", said)
    conn.execute(comment.replace("ZONE", "UTC").replace("TYPE", "bigint"))
    site.migrate("--drop-old")
    assert content(conn) == before


def test_what_nothing_is_known_of_is_never_called_done(conn: Connection, site: Site) -> None:
    """An older version started the migration, and its comment was lost."""
    make_plain_logs(conn)
    before = content(conn)
    stop_in_the_middle(site)
    conn.execute("DROP TABLE xraylog_migration")
    lose_the_comments(conn)
    for options in ([], ["--undo", "--yes"], ["--drop-old"], ["--dry-run"]):
        said = site.migrate(*options, status=3).stderr
        assert "it is not recorded whether logs_old comes from a migration" in said
    assert "it is not recorded whether logs_old comes from a migration" in site.migrate("--status").stdout
    (comment,) = re.findall(r"COMMENT ON TABLE logs_old IS '.*?'", said)
    conn.execute(comment.replace("ZONE", "UTC"))
    site.migrate("--drop-old")
    assert content(conn) == before


def test_an_unfinished_migration_without_its_old_table_waits_for_it(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    before = content(conn)
    stop_in_the_middle(site)
    conn.execute("ALTER TABLE logs_old RENAME TO elsewhere")
    site.append(line(0))
    assert "logs is being migrated" in site.run().stderr
    for options in ([], ["--undo", "--yes"]):
        assert "its logs_old is not there" in site.migrate(*options, status=3).stderr
    conn.execute("ALTER TABLE elsewhere RENAME TO logs_old")
    site.migrate("--drop-old")
    assert content(conn) == before
