"""Tables as people really have them, with other types, names and columns, are recognised and carried over."""

from __future__ import annotations

import pytest
from helpers.migration import (
    BY_HAND,
    OLDER,
    columns,
    content,
    days_of,
    indexes,
    make_plain_logs,
    stop_in_the_middle,
)
from helpers.site import Site
from psycopg import errors

from xraylog.database import ddl
from xraylog.database.session import Connection


def test_a_table_made_by_hand_is_carried_over(conn: Connection, site: Site) -> None:
    """Other types, NOT NULL source, no key, own names that are ours, extra columns and indexes."""
    make_plain_logs(conn, BY_HAND)
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
        "reject_reason": "text",
    }
    on_parent = conn.info.server_version >= 110000
    found = indexes(conn, "logs" if on_parent else "logs_2025_11_17")
    assert {
        'btree ("timestamp")',
        "btree (source_ip, user_id)",
        "btree (lower((country)::text)) WHERE (country IS NOT NULL)",
        'btree ("timestamp", id)',
    } < set(found.values())
    assert set(ddl.LOGS_INDEXES) < set(found.values())
    assert len(found) == 7
    if on_parent:
        assert {"by Country", "once", "logs_timestamp_idx", "logs_user_id_timestamp_idx"} < found.keys()
        assert sorted(indexes(conn, "logs_2025_11_17").values()) == sorted(found.values())
    with pytest.raises(errors.CheckViolation):
        conn.execute("UPDATE logs SET country = 'xx'")
    with pytest.raises(errors.ForeignKeyViolation):
        conn.execute("UPDATE logs SET user_id = 4")
    conn.execute("UPDATE logs SET source_ip = NULL")
    ((comment,),) = conn.execute("SELECT col_description('logs'::regclass, 14)")
    assert comment == "per connection"
    conn.execute("INSERT INTO logs (action, user_id, \"timestamp\") VALUES ('accepted', 1, '2025-11-17 12:00+00')")
    assert conn.execute("SELECT country, number FROM logs WHERE id > 60").fetchall() == [("de", 61)]
    assert conn.execute("SELECT seqtypid::regtype::text FROM pg_sequence").fetchall().count(("bigint",)) >= 3


def test_a_unique_constraint_with_the_time_in_it_is_carried_over(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    conn.execute('ALTER TABLE logs ADD CONSTRAINT once UNIQUE ("timestamp", id)')
    site.migrate("--drop-old")
    uniques = "SELECT count(*) FROM pg_constraint WHERE contype = 'u' AND conrelid = %s::regclass"
    for day in days_of(conn):
        assert conn.execute(uniques, [day]).fetchall() == [(1,)]
    with pytest.raises(errors.UniqueViolation):
        conn.execute("INSERT INTO logs SELECT * FROM logs WHERE id = 7")


def test_a_source_padded_with_blanks_is_an_address(conn: Connection, site: Site) -> None:
    make_plain_logs(conn, OLDER.replace("source_ip        inet", "source_ip        char(45)"))
    site.migrate("--drop-old")
    assert conn.execute("SELECT DISTINCT host(source_ip) FROM logs").fetchall() == [("203.0.113.7",)]


def test_times_without_a_zone_are_read_in_the_zone_of_the_config(conn: Connection, site: Site) -> None:
    """This includes the hour when clocks change, and a config that has another zone when the migration is resumed."""
    site.set("parser", timezone="Europe/Berlin")
    make_plain_logs(conn, OLDER.replace("timestamptz", "timestamp"), rows=0)
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


def test_what_is_not_carried_over_is_reported(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    assert site.migrate("--dry-run").stdout.count("not carried over") == 1
    conn.execute("ALTER TABLE logs SET (fillfactor = 90)")
    conn.execute("ALTER TABLE logs REPLICA IDENTITY FULL")
    conn.execute("ALTER TABLE logs ALTER action SET STORAGE EXTERNAL, ALTER source_port SET STATISTICS 1000")
    conn.execute('ALTER TABLE logs ADD "my note" text, ALTER user_id SET (n_distinct = 1000)')
    expected = [
        "its replica identity",
        "the STATISTICS target of column source_port",
        "the STORAGE of column action",
        "the options of column user_id",
        "the primary key on id",
        "the setting fillfactor=90",
    ]
    if conn.info.server_version >= 14_00_00:
        conn.execute('ALTER TABLE logs ALTER "my note" SET COMPRESSION pglz')
        expected.append('the COMPRESSION of column "my note"')
    found = site.migrate("--dry-run").stdout.splitlines()
    assert sorted(line for line in found if "not carried" in line) == sorted(
        f"-- not carried over: {what}" for what in expected
    )
