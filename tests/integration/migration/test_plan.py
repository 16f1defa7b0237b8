"""--dry-run and --status print all of it, and change nothing."""

from __future__ import annotations

import re

import pytest
from helpers.migration import (
    BY_HAND,
    content,
    make_plain_logs,
    stop_in_the_middle,
)
from helpers.site import Site, facts

from xraylog.database.session import Connection


def test_a_dry_run_says_all_of_it_and_changes_nothing(conn: Connection, site: Site) -> None:
    make_plain_logs(conn, BY_HAND)
    before = facts(conn)
    said = site.migrate("--dry-run", "--drop-old").stdout
    assert facts(conn) == before
    assert "60 rows of 3 days, 2025-11-15 to 2025-11-17" in said
    assert "free disk space needed" in said
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
    """The SQL is pasted by hand, for a table of one day."""
    for place in (conn, other_database):
        make_plain_logs(place, days=1)
    said = site.migrate("--dry-run", "--drop-old").stdout
    other_database.execute(said.replace("-- and only if every day is the same:", ""))
    site.migrate("--drop-old")
    assert facts(other_database) == facts(conn)
    assert content(other_database) == content(conn)


def test_a_dry_run_in_the_middle_says_what_is_left(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    stop_in_the_middle(site)
    before = facts(conn)
    said = site.migrate("--dry-run").stdout
    assert re.search("2 days are left, 40 rows", said)
    assert "INSERT INTO" in said
    assert facts(conn) == before


def test_a_dry_run_of_undo_changes_nothing(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    stop_in_the_middle(site)
    before = facts(conn)
    assert "ALTER TABLE logs_old RENAME TO logs" in site.migrate("--undo", "--dry-run").stdout
    assert facts(conn) == before


@pytest.mark.parametrize("option", ["--status", "--dry-run", "--drop-old"])
def test_an_old_table_that_lost_a_column_meanwhile_is_reported(conn: Connection, site: Site, option: str) -> None:
    make_plain_logs(conn)
    stop_in_the_middle(site)
    conn.execute('ALTER TABLE logs_old RENAME COLUMN "timestamp" TO at')
    assert "logs_old.timestamp: expected a column, found none" in site.migrate(option, status=3).stderr
    conn.execute('ALTER TABLE logs_old RENAME COLUMN at TO "timestamp"')
    site.migrate("--drop-old")
    assert len(content(conn)) == 60


def test_status_says_where_it_stands(conn: Connection, site: Site) -> None:
    assert "there is no table logs" in site.migrate("--status").stdout
    make_plain_logs(conn)
    assert "nothing has been migrated" in site.migrate("--status").stdout
    stop_in_the_middle(site)
    before = facts(conn)
    said = site.migrate("--status").stdout
    assert "the migration is not finished" in said
    assert re.search(r"1 of 3 days of logs_old are copied to logs\nthey have 20 of its 60 rows", said)
    assert "parse_logs.py stays offline" in said
    assert facts(conn) == before
    site.migrate()
    assert (
        "the migration is finished; logs_old is still there\n3 of 3 days of logs_old" in site.migrate("--status").stdout
    )
    site.migrate("--drop-old")
    assert "logs is partitioned" in site.migrate("--status").stdout
