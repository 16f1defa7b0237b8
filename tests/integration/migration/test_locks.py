"""However many days there are: few locks in a transaction, and room for those of the queries that come afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from helpers.migration import content, days_of, is_plain, make_plain_logs, most_locks
from helpers.site import Site, facts
from server import FAST, Server

from xraylog.database import session
from xraylog.database.session import Connection


def test_only_days_with_rows_become_partitions(conn: Connection, site: Site) -> None:
    """Insert a row with a wrong time, years before the others."""
    make_plain_logs(conn)
    conn.execute("UPDATE logs SET \"timestamp\" = '2018-01-01 00:00+00' WHERE id = 1")
    before = content(conn)
    assert "60 rows of 4 days, 2018-01-01 to 2025-11-17" in site.migrate("--dry-run").stdout
    assert "60 rows of 4 days: every day is the same" in site.migrate("--drop-old").stdout
    assert days_of(conn) == {"logs_2018_01_01": 1, "logs_2025_11_15": 19, "logs_2025_11_16": 20, "logs_2025_11_17": 20}
    assert content(conn) == before


def test_no_transaction_takes_more_locks_for_more_days(
    conn: Connection, site: Site, other_database: Connection
) -> None:
    """This holds for the copies, the verification, the undo and the drop of the old table, also without pruning."""
    taken = []
    for place, days in ((conn, 6), (other_database, 9)):
        site.set("postgresql", dbname=place.info.dbname)
        make_plain_logs(place, days=days)
        setting = "enable_partition_pruning" if conn.info.server_version >= 110000 else "constraint_exclusion"
        conn.execute(f"ALTER DATABASE {place.info.dbname} SET {setting} TO off")
        taken.append([most_locks(site, *options) for options in ([], ["--undo", "--yes"], ["--drop-old"])])
    assert taken[0] == taken[1]


@pytest.fixture
def small(own_server: Callable[..., Server]) -> Callable[[int], dict[str, str]]:
    """Restart a server of 20 sessions, with this many locks for each."""
    server = own_server(*FAST, "max_connections=20", "max_wal_senders=0")

    def restart(locks: int) -> dict[str, str]:
        with psycopg.connect(**server.keywords(), autocommit=True) as conn:  # type: ignore[arg-type]
            conn.execute(f"ALTER SYSTEM SET max_locks_per_transaction = {locks}")
        server.stop()
        server.start()
        return server.keywords()

    return restart


def test_too_many_days_for_the_locks_are_refused_with_the_setting(
    small: Callable[[int], dict[str, str]], tmp_path: Path
) -> None:
    site = Site(tmp_path, keywords := small(10))
    with psycopg.connect(**keywords, autocommit=True) as conn:  # type: ignore[arg-type]
        make_plain_logs(conn, days=20)
        for n in range(40):  # each is a lock for each day
            conn.execute(f"CREATE INDEX ON logs (source_port) WHERE id > {n}")
        before, rows = facts(conn), content(conn)
        refused = site.migrate(status=3).stderr
        assert "the rows are of 20 days. The first and the last of them: 2025-11-15 (3 rows)" in refused
        found = re.search(
            r"takes (\d+) locks, and the server has room for 200: ALTER .*transaction = (\d+) \(", refused
        )
        assert found, refused
        assert found.groups() == ("880", "44")
        assert facts(conn) == before
    small(int(found[2]))
    site.migrate()
    with psycopg.connect(**keywords, autocommit=True) as conn:  # type: ignore[arg-type]
        assert content(conn) == rows

    small(10)  # the setting is lowered again: readers fail, the undo does not
    with psycopg.connect(**keywords, autocommit=True) as conn:  # type: ignore[arg-type]
        if conn.info.server_version < 170000:  # later servers have more in reserve
            with pytest.raises(psycopg.errors.OutOfMemory) as raised:
                content(conn)
            assert "max_locks_per_transaction" in session.message(raised.value)
        assert "ALTER SYSTEM SET max_locks_per_transaction = 44" in site.migrate("--status").stdout
        site.migrate("--undo", "--yes")
        assert is_plain(conn)
        assert content(conn) == rows
