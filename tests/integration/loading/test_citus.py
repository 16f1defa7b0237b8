"""Rows into a `logs` that Citus distributes: as a set where the workers allow it; a refused row costs that row."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers import citus, load_paths
from helpers.load_paths import ATTACH, KEYS_IN_BULK, ROW_BY_ROW
from helpers.site import Site, line, lines, users

from xraylog.database import interference, schema
from xraylog.loading import foreign_keys
from xraylog.loading.load_paths import LOAD_PATHS

Connection = psycopg.Connection[tuple[Any, ...]]

FOR_A_SET = [
    """SET LOCAL "citus"."multi_shard_modify_mode" TO 'sequential'""",
    """SET LOCAL "citus"."propagate_set_commands" TO 'local'""",
    """SET LOCAL "session_replication_role" TO 'replica'""",
]


@pytest.fixture
def take(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has the runs of this test take a load path, where they may."""
    return functools.partial(load_paths.take_until_undone, monkeypatch)


def made(site: Site, conn: Connection, **workers: bool) -> None:
    """The tables with a day in them, distributed."""
    schema.ensure(conn)
    site.append(line(99))
    site.run()
    citus.distribute(conn, **workers)


@pytest.mark.parametrize("load_path", [ATTACH, KEYS_IN_BULK])
def test_rows_are_loaded_as_a_set_and_no_name_is_locked(
    site: Site, conn: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, take: Any, load_path: str
) -> None:
    """Neither a new day nor names: a lock of one row is one of the whole reference table, and runs deadlock."""
    made(site, conn)
    take(load_path)
    sent = citus.record(monkeypatch, tmp_path / "sent")
    site.append(*lines(0, 30), *lines(30, 60, "2025/11/18 10:00:00.5"))
    site.run()
    assert site.emails() == users(0, 60) + users(99, 100)
    assert not [text for text in sent() if "FOR KEY SHARE" in text or "ATTACH" in text]
    before_copy = sent()[: next(n for n, text in enumerate(sent()) if text.startswith('COPY "logs"'))]
    assert citus.settings(before_copy)[-3:] == FOR_A_SET
    assert before_copy[-3:] == FOR_A_SET  # nothing comes between: each is a statement of its own
    assert "FORMAT text" in next(text for text in sent() if text.startswith('COPY "logs"'))


def test_a_worker_that_does_not_grant_it_is_asked_first(
    site: Site, conn: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, take: Any
) -> None:
    """Tried, it would end the transaction: "failure on connection marked as essential"."""
    made(site, conn, workers_agree=False)
    take(KEYS_IN_BULK)
    sent = citus.record(monkeypatch, tmp_path / "sent")
    site.append(*lines(0, 30))
    assert site.run_here() == 0
    assert site.emails() == users(0, 30) + users(99, 100)
    assert FOR_A_SET[-1] not in sent()
    assert "on every server: GRANT SET ON PARAMETER session_replication_role TO" in site.output()


def test_a_name_that_was_deleted_meanwhile_is_created_again(
    site: Site, conn: Connection, monkeypatch: pytest.MonkeyPatch, take: Any
) -> None:
    """Nothing but a DELETE by hand can do that; it is found by counting."""
    made(site, conn)
    take(KEYS_IN_BULK)
    lock = foreign_keys.ForeignKeyChecks.lock

    def delete_first(checks: foreign_keys.ForeignKeyChecks, ids: Any) -> None:
        conn.execute("DELETE FROM users WHERE email = 'u3' AND id NOT IN (SELECT user_id FROM logs)")
        monkeypatch.setattr(foreign_keys.ForeignKeyChecks, "lock", lock)
        lock(checks, ids)

    monkeypatch.setattr(foreign_keys.ForeignKeyChecks, "lock", delete_first)
    site.append(*lines(0, 30))
    site.run()
    assert site.emails() == users(0, 30) + users(99, 100)


@pytest.mark.parametrize("load_path", [KEYS_IN_BULK, ROW_BY_ROW])
def test_a_row_that_a_worker_refuses_costs_its_row_only(
    site: Site, conn: Connection, monkeypatch: pytest.MonkeyPatch, take: Any, load_path: str
) -> None:
    """Citus's COPY loses the SQLSTATE: the suspect is inserted by itself, which tells."""
    made(site, conn)
    citus.refuse_row_7(conn)
    with_worker = LOAD_PATHS.replace("NOT tgisinternal", "NOT tgisinternal AND tgname <> 'worker'")
    monkeypatch.setattr("xraylog.loading.load_paths.LOAD_PATHS", with_worker)
    take(load_path)
    site.append(*lines(0, 30))
    site.run()
    assert site.emails() == users(0, 30) - users(7, 8) + users(99, 100)
    ((reason, refused),) = site.rejected()
    assert reason.endswith('violates check constraint "no_port" (SQLSTATE 23514)')
    assert refused + b"\n" == line(7).encode()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("23502", "logs.shop is not ours, is NOT NULL and has no default: ALTER TABLE logs ALTER shop DROP NOT NULL"),
        ("23505", "SELECT setval('logs_id_seq', (SELECT max(id) FROM logs))"),
    ],
)
def test_tables_that_refuse_every_row_are_for_the_operator(
    site: Site, conn: Connection, monkeypatch: pytest.MonkeyPatch, state: str, said: str
) -> None:
    """Citus gives the SQLSTATE of an INSERT, but neither the column's nor the constraint's name."""
    made(site, conn)
    with_worker = interference.OBJECTS.replace("NOT t.tgisinternal", "NOT t.tgisinternal AND t.tgname <> 'worker'")
    monkeypatch.setattr(interference, "OBJECTS", with_worker)
    if state == "23502":
        conn.execute("ALTER TABLE logs ADD COLUMN shop integer NOT NULL DEFAULT 1")
        conn.execute("ALTER TABLE logs ALTER shop DROP DEFAULT")
    citus.refuse_row_7(conn, state)
    site.append(line(7))
    assert site.run_here() == 3
    assert said in site.output()
    assert site.buffered() == users(7, 8)
    assert site.rejected() == []


def test_what_is_no_refusal_stays_an_error(site: Site, conn: Connection) -> None:
    """Where `logs` is not distributed, XX000 is what it says."""
    made(site, conn)
    conn.execute("DELETE FROM pg_dist_partition")
    citus.refuse_row_7(conn)
    site.append(*lines(0, 30))
    site.run(status=3)
    assert site.buffered() == users(0, 30)


def test_an_unparsed_line_that_a_worker_refuses_stays_where_it_is(site: Site, conn: Connection) -> None:
    made(site, conn)
    citus.refuse_row_7(conn)
    values = [(f"{n}", line(n).rstrip().encode()) for n in range(6, 9)]
    conn.cursor().executemany("INSERT INTO rejected_lines (node_id, source, line_offset, reason, line) "
                              "SELECT id, 'x', %s, 'old', %s FROM nodes", values)  # fmt: skip
    site.run("--replay-rejected")
    assert site.emails() == users(6, 7) + users(8, 9) + users(99, 100)
    assert [kept for _, kept in site.rejected()] == [line(7).rstrip().encode()]
