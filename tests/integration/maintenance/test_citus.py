"""Days and names of a `logs` that Citus distributes: what it refuses is not tried, and waits on workers are short."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers import citus
from helpers.site import line

from xraylog.database import ddl, partitions, schema
from xraylog.maintenance import drop_table, retention

Connection = psycopg.Connection[tuple[Any, ...]]

NOW = datetime(2025, 1, 1, 12, tzinfo=timezone.utc)
LOCKS = [
    """SET LOCAL "citus"."multi_shard_modify_mode" TO 'sequential'""",
    """SET LOCAL "citus"."propagate_set_commands" TO 'local'""",
]


def test_a_day_and_its_names_go(conn: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    citus.distribute(conn)
    partitions.Partitions(conn).ensure(["2024-03-20", "2025-01-01"])
    conn.execute("INSERT INTO users (email) VALUES ('old'), ('kept')")
    conn.execute("INSERT INTO logs (\"timestamp\", action, user_id) SELECT CASE email WHEN 'old' THEN timestamptz "
                 "'2024-03-20 10:00+00' ELSE '2025-01-01 10:00+00' END, 'accepted', id FROM users")  # fmt: skip
    sent = citus.record(monkeypatch, tmp_path / "sent")
    dropped, removed = retention.enforce(conn, 30, NOW, prune_names=True)
    assert dropped.startswith("logs_2024_03_20 (")
    assert removed == "users: 1 names that no row of logs uses are removed"
    assert conn.execute("SELECT email FROM users").fetchall() == [("kept",)]
    before_drop = sent()[: next(n for n, text in enumerate(sent()) if text.startswith("DROP TABLE"))]
    assert not [text for text in before_drop if "DETACH" in text]
    assert citus.settings(before_drop)[-3:] == [*LOCKS, f"SET LOCAL \"lock_timeout\" TO '{drop_table.LOCK_TIMEOUT}'"]


def test_names_that_a_row_uses_by_now_stay_with_their_thousand(
    conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The foreign keys on the workers refuse them, because with Citus a DELETE of names cannot query `logs`."""
    partitions.Partitions(conn).ensure(["2025-01-01"])
    conn.execute("INSERT INTO users (email) VALUES ('a'), ('b')")
    find = retention.prune._unused

    def find_and_use(conn: Connection, table: str) -> Any:
        ids = find(conn, table)
        if table == "users":
            conn.execute("INSERT INTO logs (\"timestamp\", action, user_id) VALUES ('2025-01-01', 'accepted', %s)",
                         [ids[0]])  # fmt: skip
        return ids

    monkeypatch.setattr(retention.prune, "_unused", find_and_use)
    (said,) = retention.prune.remove(conn)
    assert said == "users: 0 names that no row of logs uses are removed, and 2 are left for another day"
    assert conn.execute("SELECT count(*) FROM users").fetchone() == (2,)


@pytest.mark.empty_database
def test_logs_is_created_where_the_names_are_reference_tables_already(conn: Connection) -> None:
    for table in ddl.REFERENCE_TABLES:
        for statement in ddl.create(table):
            conn.execute(statement)
    conn.execute(citus.REFUSED_DDL)
    schema.ensure(conn)
    if conn.info.server_version >= 110000:
        keys = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'logs'::regclass AND contype = 'f'"
        assert conn.execute(keys).fetchone() == (len(ddl.KEYS),)


def test_a_new_day_is_created_with_waits_as_short_on_the_workers(
    site: Any, conn: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    citus.distribute(conn)
    sent = citus.record(monkeypatch, tmp_path / "sent")
    site.append(line(1))
    site.run()
    made = next(n for n, text in enumerate(sent()) if text.startswith("CREATE TABLE"))
    timeout = f"SET LOCAL \"lock_timeout\" TO '{partitions.DDL_LOCK_TIMEOUT_S}s'"
    assert citus.settings(sent()[:made])[-3:] == [*LOCKS, timeout]
