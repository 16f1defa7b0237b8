"""Steps 1 and 2: the new table gets columns, keys, sequence, owner and rights of the old one; no session waits long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.migration import (
    DAYS,
    INSERT,
    MIGRATE,
    OLDER,
    content,
    days_of,
    give_tables,
    is_plain,
    log_in_as,
    make_plain_logs,
)
from helpers.site import Site, facts, lines, wait_until
from psycopg.sql import SQL, Identifier
from server import Server

from xraylog.database import partitions, schema
from xraylog.database.session import Connection


@pytest.mark.parametrize("stands_at", [1, 60, 5000])
def test_the_sequence_goes_over_and_stands_past_the_largest_id(conn: Connection, site: Site, stands_at: int) -> None:
    """This includes a sequence that was set back."""
    make_plain_logs(conn)
    conn.execute("SELECT setval('logs_id_seq', %s)", [stands_at])
    ((before,),) = conn.execute("SELECT 'logs_id_seq'::regclass::oid")
    site.migrate()
    assert conn.execute("SELECT 'logs_id_seq'::regclass::oid").fetchone() == (before,)
    insert = "INSERT INTO logs (\"timestamp\", action) VALUES ('2025-11-17 12:00+00', 'accepted') RETURNING id"
    assert conn.execute(insert).fetchone() == (max(60, stands_at) + 1,)


def test_a_sequence_that_was_missing_belongs_to_the_owner_of_the_table(
    conn: Connection, site: Site, role: Callable[[str], str]
) -> None:
    """It does not belong to the role that migrates, such as a superuser."""
    make_plain_logs(conn)
    conn.execute("DROP SEQUENCE logs_id_seq CASCADE")
    owner = role("owner")
    conn.execute(SQL("GRANT CREATE ON SCHEMA public TO {}").format(Identifier(owner)))
    conn.execute(SQL("ALTER TABLE logs OWNER TO {}").format(Identifier(owner)))
    site.migrate("--drop-old")
    conn.execute(SQL("SET ROLE {}").format(Identifier(owner)))
    conn.execute(INSERT)
    conn.execute("RESET ROLE")
    assert conn.execute("SELECT max(id) FROM logs").fetchall() == [(61,)]


@pytest.mark.parametrize("kind", ["ALWAYS", "BY DEFAULT"])
def test_an_identity_id_goes_on_from_where_it_was(
    conn: Connection, site: Site, role: Callable[[str], str], kind: str
) -> None:
    make_plain_logs(conn, OLDER.replace("bigserial  ", f"bigint GENERATED {kind} AS IDENTITY"))
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
    make_plain_logs(conn, OLDER.replace("bigserial  ", "bigint"), rows=0)
    conn.execute("INSERT INTO logs (id, \"timestamp\", action) VALUES (7, '2025-11-17 12:00+00', 'accepted')")
    site.migrate("--drop-old")
    conn.execute("INSERT INTO logs (\"timestamp\", action) VALUES ('2025-11-17 12:00+00', 'accepted')")
    assert conn.execute("SELECT max(id) FROM logs").fetchone() == (8,)


def test_a_sequence_with_a_name_of_its_own_keeps_it(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    conn.execute('ALTER SEQUENCE logs_id_seq RENAME TO "Log Numbers"')
    site.migrate("--drop-old")
    assert conn.execute("SELECT pg_get_serial_sequence('logs', 'id')").fetchone() == ('public."Log Numbers"',)
    conn.execute("INSERT INTO logs (\"timestamp\", action) VALUES ('2025-11-17 12:00+00', 'accepted')")
    assert conn.execute("SELECT max(id) FROM logs").fetchone() == (61,)


def test_owner_and_grants_are_carried_over(conn: Connection, site: Site, role: Callable[[str], str]) -> None:
    make_plain_logs(conn)
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


def test_everything_that_is_made_belongs_to_the_owner_and_to_nobody_else(
    conn: Connection, site: Site, role: Callable[[str], str]
) -> None:
    """A superuser with default privileges migrates; afterwards the owner's runs still work."""
    make_plain_logs(conn)
    owner, snoop = role("owner"), role("snoop")
    give_tables(conn, owner)
    conn.execute(SQL("ALTER DEFAULT PRIVILEGES GRANT SELECT, DELETE ON TABLES TO {}").format(Identifier(snoop)))
    site.migrate("--drop-old")
    ((granted,),) = conn.execute("SELECT count(*) FROM pg_class WHERE relacl::text LIKE %s", [f"%{snoop}=%"])
    assert granted == 0
    site.append(*lines(0, 5))
    log_in_as(site, owner)
    site.run()
    assert sum(site.emails().values()) == 65


def test_a_tablespace_is_kept(conn: Connection, site: Site) -> None:
    if conn.info.server_version < 150000:
        pytest.skip("a tablespace inside of the server's folder needs PostgreSQL 15")
    make_plain_logs(conn)
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


def test_an_own_default_of_the_id_and_an_own_sequence_are_kept(conn: Connection, site: Site) -> None:
    """This includes a sequence of another table that has the same name."""
    conn.execute("CREATE SCHEMA app")
    conn.execute("CREATE SEQUENCE app.ids START 5000; CREATE TABLE orders (id bigserial)")
    conn.execute("ALTER SEQUENCE orders_id_seq RENAME TO ids")
    make_plain_logs(conn, OLDER.replace("bigserial  ", "bigint DEFAULT nextval('app.ids') + 7"))
    site.migrate("--drop-old")
    conn.execute(INSERT)
    assert conn.execute("SELECT max(id) FROM logs").fetchone() == (5074,)  # the sequence is past the largest id, 5066
    assert conn.execute("INSERT INTO orders DEFAULT VALUES RETURNING id").fetchone() == (1,)


def test_the_options_of_an_identity_are_kept(conn: Connection, site: Site) -> None:
    make_plain_logs(
        conn, OLDER.replace("bigserial  ", "bigint GENERATED ALWAYS AS IDENTITY (INCREMENT 10 START 7 CACHE 5)")
    )
    site.migrate()
    conn.execute(INSERT)
    ((largest,), (second,)) = conn.execute("SELECT id FROM logs ORDER BY id DESC LIMIT 2").fetchall()
    assert largest > second
    assert largest % 10 == 7


def test_a_default_is_read_as_the_rows_are(conn: Connection, site: Site) -> None:
    site.set("parser", timezone="Europe/Berlin")
    table = OLDER.replace("timestamptz NOT NULL", "timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'Europe/Berlin')")
    make_plain_logs(conn, table.replace("source_ip        inet", "source_ip        text DEFAULT '0.0.0.0'"), rows=0)
    conn.execute("INSERT INTO logs (action) VALUES ('accepted')")
    site.migrate("--drop-old")
    conn.execute("SET timezone TO 'America/New_York'")
    conn.execute("INSERT INTO logs (action) VALUES ('accepted')")
    found = conn.execute('SELECT abs(extract(epoch FROM now() - "timestamp")) < 60, host(source_ip) FROM logs')
    assert found.fetchall() == [(True, "0.0.0.0")] * 2  # noqa: S104  # an address of a row


def test_a_generated_column_is_carried_over(conn: Connection, site: Site) -> None:
    if conn.info.server_version < 120000:
        pytest.skip("generated columns came with PostgreSQL 12")
    make_plain_logs(conn, OLDER.rstrip().rstrip(")") + ", twice bigint GENERATED ALWAYS AS (source_port * 2) STORED)")
    site.migrate("--drop-old")
    assert conn.execute("SELECT count(*) FROM logs WHERE twice = source_port * 2").fetchone() == (60,)


def test_columns_with_any_name_are_carried_over(conn: Connection, site: Site) -> None:
    make_plain_logs(
        conn, OLDER.rstrip().rstrip(")") + ', day date, rows integer, "Per %s {x} ""q""" text DEFAULT \'{} %s\')'
    )
    site.migrate("--drop-old")
    assert conn.execute('SELECT count(*) FROM logs WHERE "Per %s {x} ""q""" = \'{} %s\'').fetchone() == (60,)


def test_a_database_from_before_there_were_nodes_gets_what_it_lacks(
    conn: Connection, site: Site, other_database: Connection
) -> None:
    make_plain_logs(conn, OLDER.replace(" REFERENCES nodes", ""))
    conn.execute("ALTER TABLE logs DROP COLUMN node_id; DROP TABLE nodes")
    site.migrate("--drop-old")
    schema.ensure(other_database)
    partitions.Partitions(other_database).ensure(DAYS)
    assert facts(conn) == facts(other_database)


def test_an_autovacuum_gives_way(own_server: Callable[..., Server], tmp_path: Path) -> None:
    """The server cancels it for a session that waits longer than deadlock_timeout; half a second is less."""
    server = own_server("fsync=off", "autovacuum_naptime=1s")
    if server.version < 12:
        pytest.skip("there an autovacuum takes minutes to begin")
    site = Site(tmp_path, server.keywords())
    vacuum = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'autovacuum: VACUUM%%public.logs%%'"
    with psycopg.connect(**server.keywords(), autocommit=True) as conn:  # type: ignore[arg-type]
        make_plain_logs(conn, rows=100_000)
        conn.execute("""
            ALTER TABLE logs SET (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,
                                  autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_cost_delay = 100)
        """)
        conn.execute("DELETE FROM logs WHERE id % 2 = 0")
        wait_until(lambda: conn.execute(vacuum).fetchone() == (1,), 180)
        site.migrate()
        assert sum(days_of(conn).values()) == 50_000


def test_during_a_long_query_it_gives_way_again_and_again(
    conn: Connection, site: Site, database: dict[str, str]
) -> None:
    """No session waits for it for longer than its own lock_timeout."""
    make_plain_logs(conn)
    with psycopg.connect(**database) as holder:  # type: ignore[arg-type]
        holder.execute("SELECT FROM logs LIMIT 1")
        migration = threading.Thread(target=lambda: site.run_here(script=MIGRATE))
        migration.start()
        wait_until(lambda: site.output().count("waiting: ") >= 2)
        conn.execute("SET statement_timeout TO '5s'")
        assert conn.execute("SELECT count(*) FROM logs").fetchone() == (60,)
        assert is_plain(conn)
    migration.join(600)
    assert not is_plain(conn)
    assert len(content(conn)) == 60


@pytest.mark.parametrize("path", ["xray, public", "public, xray"])
def test_a_schema_other_than_public(conn: Connection, site: Site, path: str) -> None:
    """What belongs to logs is created in its schema, which may or may not be the first one of the search_path."""
    conn.execute("CREATE SCHEMA xray")
    conn.execute("SET search_path TO xray")
    make_plain_logs(conn)
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
