"""A plain logs table becomes a partitioned one: the script as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from helpers.migration import (
    DAYS,
    content,
    give_tables,
    log_in_as,
    make_plain_logs,
)
from helpers.site import Site, facts, lines, users

from xraylog.database import partitions, schema
from xraylog.database.session import Connection
from xraylog.migration import backfill


def test_a_migrated_database_is_what_schema_md_says(conn: Connection, site: Site, other_database: Connection) -> None:
    """Tables, columns, defaults, keys, indexes, sequences and their names, on every PostgreSQL."""
    make_plain_logs(conn)
    site.migrate("--drop-old")
    schema.ensure(other_database)
    partitions.Partitions(other_database).ensure(DAYS)
    assert facts(conn) == facts(other_database)


def test_the_old_table_stays_until_it_is_to_be_dropped(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    before = content(conn)
    assert "logs_old is kept" in site.migrate().stdout
    assert content(conn, "logs_old") == before
    assert "nothing to do" in site.migrate().stdout
    assert "logs_old is dropped" in site.migrate("--drop-old").stdout
    assert conn.execute("SELECT to_regclass('logs_old')").fetchone() == (None,)
    assert content(conn) == before
    assert "nothing to do" in site.migrate("--drop-old").stdout


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            KeyboardInterrupt(),
            "interrupted; committed steps are kept; the same command resumes; until then parse_logs.py stays offline",
        ),
        (
            RuntimeError("{no}\nsuch luck"),
            "unexpected RuntimeError: {no}; such luck; committed steps are kept; the same command resumes",
        ),
    ],
    ids=["Ctrl-C", "unexpected"],
)
def test_whatever_ends_it_is_one_line_with_the_way_on(
    conn: Connection, site: Site, monkeypatch: pytest.MonkeyPatch, error: BaseException, said: str
) -> None:
    make_plain_logs(conn)
    before = content(conn)

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(backfill, "copy_day", fail)
        printed = site.migrate(status=1).stderr
    assert said in printed
    assert printed.count("\n") == 1
    site.migrate("--drop-old")
    assert content(conn) == before


def test_drop_old_in_the_config_drops_it(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    site.set("migration", drop_old="true")
    site.migrate()
    assert conn.execute("SELECT to_regclass('logs_old')").fetchone() == (None,)


def test_a_run_goes_on_in_the_migrated_table(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    site.migrate("--drop-old")
    site.append(*lines(0, 5))
    site.run()
    assert site.emails() == users(0, 5) + Counter(alice=20, bob=20, carol=20)
    assert len({id_ for id_, *_ in content(conn)}) == 65


def test_an_empty_table_is_migrated_too(conn: Connection, site: Site, other_database: Connection) -> None:
    make_plain_logs(conn, rows=0)
    site.migrate("--drop-old")
    schema.ensure(other_database)
    assert facts(conn) == facts(other_database)
    site.append(*lines(0, 5))
    site.run()
    assert site.emails() == users(0, 5)


def test_an_owner_who_is_nobody_special_can_migrate(conn: Connection, site: Site, role: Callable[[str], str]) -> None:
    make_plain_logs(conn)
    owner = role("owner")
    give_tables(conn, owner)
    log_in_as(site, owner)
    site.migrate("--drop-old")
    assert len(content(conn)) == 60


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
