"""Steps 7 and 8: a day that differs in anything stops the migration, and nothing is dropped."""

from __future__ import annotations

import subprocess
import threading
from collections import Counter

import psycopg
import pytest
from helpers.migration import (
    INSERT,
    MIGRATE,
    content,
    days_of,
    make_plain_logs,
    stop_in_the_middle,
)
from helpers.site import Site, lines, users, wait_until
from psycopg import errors

from xraylog.database.session import Connection

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
    make_plain_logs(conn)
    conn.execute("INSERT INTO nodes (name) VALUES ('n1')")
    site.migrate()
    conn.execute(tampering)
    stopped = site.migrate("--drop-old", status=3)
    (different,) = [row for row in stopped.stdout.splitlines() if row.endswith("DIFFERENT")]
    assert different.startswith("2025-11-16")
    assert "logs and logs_old differ on 2025-11-16; nothing was dropped" in stopped.stderr
    assert len(content(conn, "logs_old")) == 60


def test_rows_stored_since_do_not_disturb_the_proof(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    site.migrate()
    site.append(*lines(0, 5))
    site.run()
    site.migrate("--drop-old")
    assert site.emails() == users(0, 5) + Counter(alice=20, bob=20, carol=20)


def test_nobody_changes_the_old_table_between_proof_and_drop(
    conn: Connection, site: Site, database: dict[str, str]
) -> None:
    """An INSERT into logs_old during the verification waits, and then finds no table."""
    make_plain_logs(conn)
    site.migrate()
    with psycopg.connect(**database) as holder:  # type: ignore[arg-type]
        holder.execute("LOCK TABLE users IN ACCESS SHARE MODE")  # DROP needs an exclusive lock on the referenced tables
        done: list[int] = []
        dropping = threading.Thread(target=lambda: done.append(site.run_here("--drop-old", script=MIGRATE)))
        dropping.start()
        wait_until(lambda: "waiting: " in site.output())
        conn.execute("SET lock_timeout TO '200ms'")
        with pytest.raises(errors.LockNotAvailable):
            conn.execute("UPDATE logs_old SET action = 'other'")
        assert not done
    dropping.join(600)
    assert done == [0]
    assert conn.execute("SELECT to_regclass('logs_old')").fetchone() == (None,)


def test_a_sequence_that_was_made_to_end_meanwhile_is_named(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    stop_in_the_middle(site)
    conn.execute("ALTER SEQUENCE logs_id_seq RESTART 1 MAXVALUE 30")
    said = site.migrate("--drop-old", status=3).stderr
    assert "sequence logs_id_seq: expected one that can be moved past 60: " in said
    conn.execute("ALTER SEQUENCE " + said.rpartition("ALTER SEQUENCE ")[2])  # type: ignore[arg-type]
    site.migrate("--drop-old")
    conn.execute(INSERT)
    assert [id_ for id_, *_ in content(conn)] == list(range(1, 62))


def test_a_day_that_was_dropped_since_does_not_come_back(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    site.migrate()
    conn.execute("DROP TABLE logs_2025_11_15")
    stopped = site.migrate("--drop-old", status=3)
    assert "if you removed rows from logs on purpose, delete them from logs_old, too" in stopped.stderr
    assert days_of(conn).keys() == {"logs_2025_11_16", "logs_2025_11_17"}
    conn.execute("DELETE FROM logs_old WHERE \"timestamp\" < '2025-11-16 00:00+00'")
    site.migrate("--drop-old")
    assert days_of(conn).keys() == {"logs_2025_11_16", "logs_2025_11_17"}


def test_ids_that_a_session_was_given_before_are_no_difference_and_are_reported_as_lost(
    conn: Connection, site: Site, database: dict[str, str]
) -> None:
    """With CACHE, a row that is stored later may have a smaller id than the largest one of the old table."""
    make_plain_logs(conn, rows=0)
    conn.execute("ALTER SEQUENCE logs_id_seq CACHE 50")
    with psycopg.connect(**database, autocommit=True) as early:  # type: ignore[arg-type]
        early.execute(INSERT)  # id 1; the session has got 2 to 50 in advance
        conn.execute(INSERT)  # 51
        site.migrate()
        early.execute(INSERT)  # 2
    assert [id_ for id_, *_ in content(conn)] == [1, 2, 51]
    told = site.migrate("--undo", status=3, stdin=subprocess.DEVNULL).stdout
    assert "1 rows were stored in logs since" in told
    site.migrate("--drop-old")
    assert [id_ for id_, *_ in content(conn)] == [1, 2, 51]
