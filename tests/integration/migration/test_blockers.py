"""What prevents a migration is reported before the first change, with the way out."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from helpers.migration import (
    OLDER,
    give_tables,
    log_in_as,
    make_plain_logs,
    stop_in_the_middle,
)
from helpers.site import Site, facts, line
from psycopg.sql import SQL, Identifier

from xraylog.database import schema
from xraylog.database.session import Connection, Unsuitable
from xraylog.migration import state, swap, trial

WITH_REASONS = {
    "a NULL timestamp": (
        'ALTER TABLE logs ALTER "timestamp" DROP NOT NULL; UPDATE logs SET "timestamp" = NULL WHERE id IN (3, 5)',
        r"2 rows without a timestamp \(id 3, id 5\); which: SELECT \* FROM logs WHERE .*; give them a time, or delete",
    ),
    "an infinite timestamp": (
        (
            "UPDATE logs SET \"timestamp\" = CASE id WHEN 3 THEN 'infinity' ELSE '-infinity' END::timestamptz "
            "WHERE id IN (3, 4)"
        ),
        r"2 rows at infinity \(id 3: infinity, id 4: -infinity\); which: ",
    ),
    "a year that no calendar has": (
        "UPDATE logs SET \"timestamp\" = '20000-01-01' WHERE id = 3",
        r"1 row with a time not from 0001-01-02 to 9999-12-30",
    ),
    "rows of more than 3660 days": (
        (
            'INSERT INTO logs ("timestamp", source_ip, source_port, action, user_id)'
            " SELECT timestamptz '1970-01-01 00:00+00' + n * interval '1 day', '203.0.113.7', 1024, 'accepted', 1"
            " FROM generate_series(1, 3658) AS n"
        ),
        r"the rows are of 3661 days, more than 3660.*first and the last of them: 1970-01-02 \(1 rows\), 1970-01-03",
    ),
    "an id that is NULL": (
        (
            "ALTER TABLE logs DROP CONSTRAINT logs_pkey; ALTER TABLE logs ALTER COLUMN id DROP NOT NULL; "
            "UPDATE logs SET id = NULL WHERE id = 3"
        ),
        r"1 row without an id",
    ),
    "a unique index without the time": (
        "CREATE UNIQUE INDEX ports ON logs (id, source_port)",
        r"the unique index ports has no timestamp.*: DROP INDEX \"ports\", or add the timestamp",
    ),
    "a unique id beside the primary key": (
        "ALTER TABLE logs ADD CONSTRAINT again UNIQUE (id)",
        r"the unique index again has no timestamp.*: ALTER TABLE logs DROP CONSTRAINT \"again\"",
    ),
    "a foreign key that points at it": (
        "CREATE TABLE notes (log bigint REFERENCES logs)",
        r"a foreign key of notes points at logs.*ALTER TABLE notes DROP CONSTRAINT notes_log_fkey",
    ),
    "a view": (
        'CREATE VIEW "My View" AS SELECT count(*) FROM logs',
        r'the view "My View" would follow the rename: DROP VIEW \"My View\", and recreate it afterwards',
    ),
    "a view on a view": (
        'CREATE VIEW inner_one AS SELECT * FROM logs; CREATE VIEW "Outer\'s" AS SELECT * FROM inner_one',
        (
            r"the view \"Outer's\" would follow .*: DROP VIEW \"Outer's\", .*pg_get_viewdef\('\"Outer''s\"'\)\)\n"
            r"the view inner_one would follow the rename: DROP VIEW inner_one, "
        ),
    ),
    "a materialized view": (
        "CREATE MATERIALIZED VIEW hours AS SELECT count(*) FROM logs",
        r"the materialized view hours would follow the rename: DROP MATERIALIZED VIEW hours",
    ),
    "a trigger": (
        "CREATE TRIGGER mine BEFORE UPDATE ON logs FOR EACH ROW EXECUTE PROCEDURE suppress_redundant_updates_trigger()",
        r"the trigger mine cannot be carried over: DROP TRIGGER mine ON logs",
    ),
    "a rule": (
        "CREATE RULE quiet AS ON DELETE TO logs DO INSTEAD NOTHING",
        r"rule quiet on table logs uses logs and cannot be carried over",
    ),
    "a publication": (
        "CREATE PUBLICATION of_logs_{dbname} FOR TABLE logs",
        r"publication of (table logs in publication of_logs_|)\S*.* uses logs and cannot be carried over",
    ),
    "statistics": (
        "CREATE STATISTICS st ON source_ip, user_id FROM logs",
        r"statistics object .*st uses logs and cannot be carried over",
    ),
    "a policy": (
        "CREATE POLICY mine ON logs; ALTER TABLE logs ENABLE ROW LEVEL SECURITY",
        r"row security is on: ALTER TABLE logs DISABLE ROW LEVEL SECURITY(.|\n)*policy mine on table logs uses logs",
    ),
    "a child": ("CREATE TABLE child () INHERITS (logs)", r"table child uses logs and cannot be carried over"),
    "a parent": (
        "CREATE TABLE parent (); ALTER TABLE logs INHERIT parent",
        r"the table that it inherits from, parent uses logs",
    ),
    "a function on its rows": (
        "CREATE FUNCTION f(logs) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        r"function f\(logs\) uses logs",
    ),
    "an exclusion constraint": (
        "ALTER TABLE logs ADD CONSTRAINT apart EXCLUDE (id WITH =)",
        r"the exclusion constraint apart cannot be kept",
    ),
    "a constraint that was never checked": (
        "ALTER TABLE logs ADD CONSTRAINT positive CHECK (source_port > 0) NOT VALID",
        r"the constraint positive is NOT VALID: ALTER TABLE logs VALIDATE CONSTRAINT \"positive\"",
    ),
    "a constraint for the parent alone": (
        "ALTER TABLE logs ADD CONSTRAINT positive CHECK (source_port > 0) NO INHERIT",
        r"the constraint positive is NO INHERIT",
    ),
    "ids of names that are not there": (
        "ALTER TABLE logs DROP CONSTRAINT logs_user_id_fkey; UPDATE logs SET user_id = 99 WHERE id < 4",
        r"3 rows with a user_id that is not in users \(the smallest is 99\): add those names to users",
    ),
    "text that is no address": (
        "ALTER TABLE logs ALTER COLUMN source_ip TYPE text; UPDATE logs SET source_ip = 'nowhere' WHERE id = 3",
        r'logs.source_ip has text that is no address: invalid input syntax for type inet: "nowhere"',
    ),
    "a type that cannot be converted": (
        "ALTER TABLE logs ALTER COLUMN source_port TYPE text",
        r"logs.source_port: expected integer, found text: ALTER TABLE logs ALTER COLUMN source_port TYPE integer",
    ),
    "a key to itself": (
        "ALTER TABLE logs ADD COLUMN parent bigint REFERENCES logs",
        r"a foreign key of logs points at logs",
    ),
    "a check on an address that is text": (
        "ALTER TABLE logs ALTER source_ip TYPE text; ALTER TABLE logs ADD CHECK (source_ip ~ '^[0-9.]+')",
        r"the constraint logs_source_ip_check checks source_ip, whose type changes",
    ),
    "a check on the whole row": (
        "ALTER TABLE logs ADD CONSTRAINT whole CHECK (logs IS DISTINCT FROM NULL)",
        r"logs has something that the new table cannot have.*, at: .*CHECK \(\(logs",
    ),
    "an index on a day without zone": (
        'ALTER TABLE logs ALTER "timestamp" TYPE timestamp; CREATE INDEX ON logs (("timestamp"::date))',
        r"functions in index expression must be marked IMMUTABLE .*, at: CREATE INDEX",
    ),
    "an index that is made for text": (
        "ALTER TABLE logs ALTER source_ip TYPE text; CREATE INDEX ON logs (source_ip text_pattern_ops)",
        r"operator class \"text_pattern_ops\" does not accept data type inet",
    ),
    "a name that the suffix makes another's": (
        "CREATE INDEX a ON logs (action); CREATE INDEX a_old ON logs (source_port)",
        r"a_old exists already, a .* that the migration needs: ALTER",
    ),
    "a sequence that counts down": (
        "ALTER SEQUENCE logs_id_seq INCREMENT -1 MINVALUE -100",
        r"the sequence logs_id_seq counts down",
    ),
    "a sequence that ends before the largest id": (
        "ALTER SEQUENCE logs_id_seq MAXVALUE 1000; UPDATE logs SET id = 5000 WHERE id = 3",
        r"the largest id is 5000, and the sequence logs_id_seq ends there: raise its MAXVALUE",
    ),
    "the last bigint": (
        "UPDATE logs SET id = 9223372036854775807 WHERE id = 3",
        r"the largest id is 9223372036854775807, and the sequence logs_id_seq ends there",
    ),
    "the last id that there is, which came from no sequence": (
        "DROP SEQUENCE logs_id_seq CASCADE; UPDATE logs SET id = 9223372036854775807 WHERE id = 3",
        r"the largest id is 9223372036854775807, the last one of a bigint: give that row another id",
    ),
    "the last day that there is": (
        "UPDATE logs SET \"timestamp\" = '9999-12-31 12:00+00' WHERE id = 3",
        r"1 row with a time not from 0001-01-02 to 9999-12-30",
    ),
    "an id that is no number": (
        "ALTER TABLE logs DROP COLUMN id; ALTER TABLE logs ADD COLUMN id text",
        r"logs.id: expected bigint, found text",
    ),
    "no time": ('ALTER TABLE logs DROP COLUMN "timestamp"', r"logs.timestamp: expected a column, found none"),
    "an identity beside the id": (
        "ALTER TABLE logs ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY",
        r"logs.number is an identity column",
    ),
    "a logs_old of another program": (
        "CREATE TABLE logs_old (id integer)",
        r"logs_old exists already, a .* that the migration needs: ALTER",
    ),
    "a table with the name of a partition": (
        "CREATE TABLE logs_2025_11_16 (id integer)",
        r"logs_2025_11_16 exists already, a table with the name of a partition: ALTER",
    ),
    "an enum with the name of a partition": (
        "CREATE TYPE logs_2025_11_16 AS ENUM ('a')",
        r"logs_2025_11_16 exists already, a type with the name of a partition: ALTER",
    ),
    "a type with the name of the old table": (
        "CREATE DOMAIN logs_old AS text",
        r"logs_old exists already, a .* that the migration needs: ALTER",
    ),
    "a table with the name of the index on the old table": (
        "CREATE TABLE logs_old_by_day (id integer)",
        r"logs_old_by_day exists already, a .* that the migration needs: ALTER",
    ),
    "a table with the name of a day of the trial": (
        "CREATE TABLE logs_new_day (id integer)",
        r"logs_new_day exists already, a .* that the migration needs: ALTER",
    ),
    "a table of another program with the name of the record": (
        "CREATE TABLE xraylog_migration (state text, more integer); INSERT INTO xraylog_migration VALUES ('theirs', 1)",
        r"xraylog_migration exists already, a .* that the migration needs: ALTER",
    ),
    "a table with the name of the record that has no state": (
        "CREATE TABLE xraylog_migration (id integer)",
        r"xraylog_migration exists already, a .* that the migration needs: ALTER",
    ),
    "a view with the name of the record": (
        "CREATE VIEW xraylog_migration AS SELECT 'theirs'::text AS state",
        r"xraylog_migration exists already, a .* that the migration needs: ALTER",
    ),
    "an id of a name that is text": (
        "ALTER TABLE logs DROP COLUMN node_id; ALTER TABLE logs ADD COLUMN node_id text",
        r"logs.node_id: expected integer, found text: ALTER TABLE logs ALTER COLUMN node_id TYPE integer",
    ),
    "an event trigger that refuses new tables": (
        (
            "CREATE FUNCTION no_tables() RETURNS event_trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'no new tables, says %', current_database(); END $$; "
            "CREATE EVENT TRIGGER refuses ON ddl_command_start WHEN TAG IN ('CREATE TABLE') "
            "EXECUTE PROCEDURE no_tables()"
        ),
        r"no new tables, says \S+ \(SQLSTATE P0001\); .*: ALTER EVENT TRIGGER refuses DISABLE, at: CREATE TABLE",
    ),
    "a name that is too long": (
        f"CREATE INDEX {'x' * 60} ON logs (action)",
        r"the name x{60} is longer than 59 bytes",
    ),
    "another table that does not fit": (
        "ALTER TABLE users DROP CONSTRAINT users_email_key",
        r"users.email: expected a unique column, found none; ALTER TABLE users ADD UNIQUE \(email\)",
    ),
}


OF_CITUS = """
    CREATE TABLE pg_dist_partition (logicalrelid regclass NOT NULL);
    ALTER TABLE pg_dist_partition SET SCHEMA pg_catalog;
    INSERT INTO pg_dist_partition VALUES {names};
"""
WITH_REASONS |= {
    "a logs that Citus distributes": (
        OF_CITUS.format(names="('logs'), ('users')"),
        r"logs is distributed by Citus, which lets nobody change its sequence any more",
    ),
    "names that are reference tables of Citus": (
        OF_CITUS.format(names="('users'), ('tags')"),
        r"tags, users are reference tables of Citus.*: SELECT undistribute_table\('tags', cascade_via_foreign_keys",
    ),
}


@pytest.mark.parametrize(("obstacle", "reason"), WITH_REASONS.values(), ids=WITH_REASONS)
def test_refused_before_the_first_change_with_the_way_out(
    conn: Connection, site: Site, obstacle: str, reason: str
) -> None:
    make_plain_logs(conn)
    conn.execute(obstacle.replace("{dbname}", conn.info.dbname))
    before = facts(conn)
    refused = site.migrate("--drop-old", status=3)
    assert re.search(reason, refused.stderr), refused.stderr
    first, *reasons = refused.stderr.splitlines()
    assert "nothing was changed" in first
    assert all(found.isprintable() for found in reasons)
    assert bool(reasons) == (first == "logs cannot be migrated yet; nothing was changed:")
    assert facts(conn) == before
    assert site.migrate("--dry-run", status=3).stderr == refused.stderr


def test_a_constraint_that_is_not_enforced_is_refused_with_the_way_out(conn: Connection, site: Site) -> None:
    if conn.info.server_version < 180000:
        pytest.skip("before PostgreSQL 18 every CHECK is enforced")
    make_plain_logs(conn)
    conn.execute("ALTER TABLE logs ADD CONSTRAINT positive CHECK (source_port > 0) NOT ENFORCED")
    said = site.migrate(status=3).stderr
    assert "the constraint positive is NOT ENFORCED, and cannot be carried over: " in said
    conn.execute(re.findall('ALTER TABLE logs DROP CONSTRAINT "positive"', said)[0])
    site.migrate()


def test_a_type_that_the_owner_may_not_use_is_refused_with_what_is_missing(
    conn: Connection, site: Site, role: Callable[[str], str]
) -> None:
    """Only the first reason is reported, although each column of the type would be one."""
    make_plain_logs(conn)
    owner = role("owner")
    conn.execute("CREATE TYPE city AS ENUM ('here')")
    conn.execute("ALTER TABLE logs ADD place city")
    conn.execute("REVOKE USAGE ON TYPE city FROM PUBLIC")
    give_tables(conn, owner)
    log_in_as(site, owner)
    said = site.migrate(status=3).stderr
    assert "grant this role what it needs: permission denied for type city (SQLSTATE 42501), at: CREATE TABLE" in said
    assert len(said.splitlines()) == 2
    conn.execute(SQL("GRANT USAGE ON TYPE city TO {}").format(Identifier(owner)))
    site.migrate()


def test_what_comes_between_the_look_and_the_rename_changes_nothing(conn: Connection) -> None:
    """Another session creates a view, and an event trigger that refuses every CREATE TABLE."""
    make_plain_logs(conn)
    conn.execute("CREATE VIEW hours AS SELECT count(*) FROM logs")
    before = facts(conn)
    with pytest.raises(Unsuitable, match="the view hours would follow the rename: DROP VIEW hours"):
        swap.swap(conn, "UTC", 60)
    assert facts(conn) == before
    conn.execute("DROP VIEW hours")
    before = facts(conn)
    conn.execute(
        "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '42501'; END $$"
    )
    conn.execute("CREATE EVENT TRIGGER frozen ON ddl_command_start EXECUTE PROCEDURE refuse()")
    with pytest.raises(Unsuitable, match=r"the new logs cannot be created: not now .*; nothing was changed"):
        swap.swap(conn, "UTC", 60)
    conn.execute("DROP EVENT TRIGGER frozen")
    assert facts(conn) == before


def test_a_logs_that_another_session_has_migrated_is_not_looked_at(conn: Connection) -> None:
    schema.ensure(conn)
    with pytest.raises(state.StateChanged, match="logs is partitioned"):
        trial.prepare(conn, "UTC")


def test_all_reasons_are_reported_at_once(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    together = [
        "a NULL timestamp",
        "an infinite timestamp",
        "rows of more than 3660 days",
        "a unique index without the time",
        "a foreign key that points at it",
        "a view",
        "a trigger",
        "a logs_old of another program",
        "ids of names that are not there",
    ]
    for name in together:
        conn.execute(WITH_REASONS[name][0])
    refused = site.migrate(status=3)
    for name in together:
        reason = re.sub(r"^\d+ rows?", r"\\d+ rows?", WITH_REASONS[name][1])
        assert re.search(re.split(r" \\\(|rows are", reason)[0], refused.stderr), name


def test_another_role_s_table_is_refused(conn: Connection, site: Site, role: Callable[[str], str]) -> None:
    make_plain_logs(conn)
    stranger = role("stranger")
    conn.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    conn.execute(SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(Identifier(stranger)))
    log_in_as(site, stranger)
    refused = site.migrate(status=3).stderr
    assert (
        f'only the owner of logs can migrate it: connect as postgres, or ALTER TABLE logs OWNER TO "{stranger}"'
        in refused
    )
    assert f'GRANT CREATE ON SCHEMA "public" TO "{stranger}"' in refused


def test_another_role_cannot_continue_and_is_asked_for_the_owner(
    conn: Connection, site: Site, role: Callable[[str], str]
) -> None:
    make_plain_logs(conn)
    stop_in_the_middle(site)
    stranger = role("stranger")
    log_in_as(site, stranger)
    for option in ("--status", "--dry-run"):
        refused = site.migrate(option, status=3).stderr
        assert "logs_old: expected the right to read it, found none; as postgres: " in refused
        assert f'GRANT SELECT ON logs_old TO "{stranger}"' in refused
    conn.execute(SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(Identifier(stranger)))
    site.migrate("--status")
    for arguments in ([], ["--undo", "--yes"]):
        refused = site.migrate(*arguments, status=3).stderr
        assert (
            "only the owner of logs_old can migrate it: connect as postgres, or ALTER TABLE logs_old OWNER TO"
            in refused
        )
    site.set("postgresql", **site.database)
    site.migrate("--drop-old")


def test_a_right_that_is_taken_away_meanwhile_is_asked_for(
    conn: Connection, site: Site, role: Callable[[str], str]
) -> None:
    owner = role("owner")
    make_plain_logs(conn)
    conn.execute("CREATE FUNCTION is_port(integer) RETURNS boolean LANGUAGE sql AS 'SELECT $1 > 0'")
    conn.execute("ALTER TABLE logs ADD CHECK (is_port(source_port))")
    give_tables(conn, owner)
    log_in_as(site, owner)
    stop_in_the_middle(site)
    for right in ("CREATE ON SCHEMA public", "EXECUTE ON FUNCTION is_port(integer)"):
        conn.execute(SQL(f"REVOKE {right} FROM PUBLIC, {{}}").format(Identifier(owner)))
    assert f'GRANT CREATE ON SCHEMA "public" TO "{owner}"' in site.migrate(status=3).stderr
    conn.execute(SQL("GRANT CREATE ON SCHEMA public TO {}").format(Identifier(owner)))
    refused = site.migrate(status=3).stderr
    assert "permission denied for function is_port" in refused
    assert "grant this role what it needs, and continue, or go back with --undo" in refused
    conn.execute(SQL("GRANT EXECUTE ON FUNCTION is_port(integer) TO {}").format(Identifier(owner)))
    site.migrate("--drop-old")


@pytest.mark.parametrize("is_plain", [True, False], ids=["a migration", "a first run"])
@pytest.mark.empty_database
def test_the_databases_own_tablespace_as_the_default_one_is_no_obstacle(
    conn: Connection, site: Site, is_plain: bool
) -> None:
    """With such a default_tablespace, the server refuses to create any partitioned table."""
    site.set("postgresql", options="-c default_tablespace=pg_default")
    if is_plain:
        make_plain_logs(conn)
        site.migrate("--drop-old")
    site.append(line(1))
    site.run("--check")
    site.run()
    assert site.emails()["u1"] == 1


def test_names_in_two_schemas_of_the_search_path_are_refused(conn: Connection, site: Site) -> None:
    make_plain_logs(conn)
    conn.execute("CREATE SCHEMA first")
    conn.execute("CREATE TABLE first.users (id serial PRIMARY KEY, email text NOT NULL UNIQUE)")
    site.set("postgresql", options="-c search_path=first,public")
    assert "users is in two schemas of the search_path" in site.migrate(status=3).stderr


def test_a_zone_that_the_server_does_not_know_is_refused_only_where_it_matters(conn: Connection) -> None:
    make_plain_logs(conn, OLDER.replace("timestamptz", "timestamp"))
    with pytest.raises(Unsuitable, match=r"the server does not know Mars/Phobos: set \[parser\] timezone"):
        trial.prepare(conn, "Mars/Phobos")
