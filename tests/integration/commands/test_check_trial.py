"""No green light while every run fails: --check stores a line as a run does, and what it then says mends it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from helpers.site import ROOT, Site, lines, users, wait_until
from server import FAST, Server

from xraylog.accesslog import lockfile
from xraylog.cli import Exit
from xraylog.commands import server_limits
from xraylog.database import collation, session
from xraylog.database.session import Connection

REFUSING = """
    CREATE FUNCTION refuse() RETURNS {returns} LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'not on a {what}'; END $$
"""
SCHEMA = (ROOT / "Schema.md").read_text()
STATEMENT = re.compile(r"(?:ALTER |DROP RULE |SELECT setval|SET )[^;]*")
PASSWORD = "only for this test"  # noqa: S105  # of roles that end with it


@pytest.fixture
def used(site: Site) -> Site:
    """With some rows."""
    site.append(*lines(0, 5))
    site.run()
    return site


def check(site: Site) -> list[str]:
    """Return what --check marks as broken; it exits with 3 if that is anything."""
    done = site.run("--check", status=Exit.OPERATOR)
    return [line for line in done.stdout.splitlines() if line.startswith("✗")]


def assert_that_runs_fail_as_told(site: Site) -> None:
    site.append(*lines(5, 10))
    status = site.run_here()
    assert status == Exit.OPERATOR or site.buffered(), site.output()


def follow(told: str, site: Site) -> None:
    """Paste the statements of a message."""
    statements = STATEMENT.findall(told)
    assert statements, told
    for statement in statements:
        with psycopg.connect(**site.database, autocommit=True) as conn:  # type: ignore[arg-type]
            conn.execute(statement)


def assert_mended(site: Site) -> None:
    assert not [line for line in site.run("--check").stdout.splitlines() if line.startswith("✗")]
    site.run()
    assert site.emails() == users(0, 10)


def test_the_line_leaves_nothing(used: Site) -> None:
    before = used.query("SELECT count(*) FROM pg_class"), used.rows(), used.query("SELECT * FROM log_positions")
    assert "✓ trial: a line was stored as a run stores it, and undone" in used.run("--check").stdout
    assert before == (
        used.query("SELECT count(*) FROM pg_class"),
        used.rows(),
        used.query("SELECT * FROM log_positions"),
    )


def test_a_trigger_that_refuses_rows(used: Site) -> None:
    used.query(REFUSING.format(returns="trigger", what="Sunday"))
    for (day,) in used.query("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'logs'::regclass"):
        used.query(f"CREATE TRIGGER sunday BEFORE INSERT ON {day} FOR EACH ROW EXECUTE PROCEDURE refuse()")
    used.query("CREATE TRIGGER sunday BEFORE INSERT ON users FOR EACH ROW EXECUTE PROCEDURE refuse()")
    (told,) = check(used)
    assert "not on a Sunday" in told
    assert_that_runs_fail_as_told(used)
    follow(told, used)
    assert_mended(used)


def test_a_session_that_keeps_a_lock_makes_a_run_go_offline(used: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "LOCK_TIMEOUT_S", 1)
    with psycopg.connect(**used.database) as conn:  # type: ignore[arg-type]
        conn.execute("LOCK TABLE users IN EXCLUSIVE MODE")
        (told,) = check(used)
        assert "a line cannot be stored: canceling statement due to lock timeout" in told
        assert "a run now would go offline; another session keeps the lock; see who: SELECT" in told
        used.append(*lines(5, 10))
        assert used.run_here() == Exit.DONE
        assert used.buffered() == users(5, 10)
    assert_mended(used)


def test_a_server_that_ends_the_session_makes_a_run_go_offline(used: Site) -> None:
    used.query(
        "CREATE FUNCTION shut_down() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN new; END'"
    )
    used.query("CREATE TRIGGER down AFTER INSERT ON rejected_lines FOR EACH ROW EXECUTE PROCEDURE shut_down()")
    (told,) = check(used)
    assert "a line cannot be stored: terminating connection due to administrator command" in told
    assert "a run now would go offline; the server, or its administrator, ended the session" in told


def test_a_column_of_yours_whose_default_the_role_may_not_take(used: Site, as_role: Callable[[Site], str]) -> None:
    """The server does not say what it is the default of: only a person can know whether the role may have it."""
    used.query("CREATE SEQUENCE counted")
    used.query("ALTER TABLE logs ADD number bigint DEFAULT nextval('counted')")
    role = as_role(used)
    (told,) = check(used)
    assert "a line cannot be stored: permission denied for sequence counted" in told
    assert told.endswith(f"; let {role} do this, or drop what refuses it")
    assert_that_runs_fail_as_told(used)
    used.query("ALTER TABLE logs ALTER number DROP DEFAULT")
    assert_mended(used)


def test_an_event_trigger_that_refuses_tables(used: Site) -> None:
    used.query(REFUSING.format(returns="event_trigger", what="production server"))
    used.query("CREATE EVENT TRIGGER frozen ON ddl_command_start EXECUTE PROCEDURE refuse()")
    (told,) = check(used)
    assert "not on a production server" in told
    follow(told, used)
    used.append(*lines(5, 10))
    assert_mended(used)


def test_a_policy_that_hides_names_from_their_owner(used: Site, as_role: Callable[[Site], str]) -> None:
    used.query("ALTER TABLE users ENABLE ROW LEVEL SECURITY")
    used.query("ALTER TABLE users FORCE ROW LEVEL SECURITY")
    as_role(used)
    (told,) = check(used)
    assert "row-level security" in told
    assert_that_runs_fail_as_told(used)
    follow(told, used)
    assert_mended(used)


@pytest.mark.parametrize("table", ["logs", "log_positions"])
def test_a_policy_that_lets_rows_in_and_no_more(used: Site, as_role: Callable[[Site], str], table: str) -> None:
    """Without one for UPDATE a position stays where it was: that was taken for another run's, again and again."""
    used.query(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    used.query(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    used.query(f"CREATE POLICY reading ON {table} FOR SELECT USING (true)")
    used.query(f"CREATE POLICY adding ON {table} FOR INSERT WITH CHECK (true)")
    as_role(used)
    (told,) = check(used)
    assert f"row-level security hides or refuses rows of {table}; " in told
    assert_that_runs_fail_as_told(used)
    follow(told, used)
    assert_mended(used)


@pytest.mark.parametrize("table", ["users", "log_positions", "rejected_lines"])
def test_a_trigger_that_drops_rows_of_a_table(used: Site, table: str) -> None:
    used.query("CREATE FUNCTION drop_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    used.query(f"CREATE TRIGGER dropping BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE PROCEDURE drop_it()")
    (told,) = check(used)
    used.append("from nowhere\n")
    assert_that_runs_fail_as_told(used)
    follow(told, used)
    assert_mended(used)
    assert used.query("SELECT count(*) FROM rejected_lines") == [(1,)]


def test_a_trigger_that_drops_rows_of_a_day(used: Site) -> None:
    """It is on the partition that is there: a new day's has none."""
    used.run("--make-partitions", "1")
    used.query("CREATE FUNCTION drop_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    for (day,) in used.query("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'logs'::regclass"):
        used.query(f"CREATE TRIGGER dropping BEFORE INSERT ON {day} FOR EACH ROW EXECUTE PROCEDURE drop_it()")
    (told,) = check(used)
    assert "rows were dropped by trigger dropping on logs_" in told
    assert told.endswith("; until then such rows are lost")


def test_a_column_of_others_that_positions_have_no_value_for(used: Site) -> None:
    used.query("ALTER TABLE log_positions ADD shop integer NOT NULL DEFAULT 1")
    used.query("ALTER TABLE log_positions ALTER shop DROP DEFAULT")
    (told,) = check(used)
    assert "log_positions.shop is not ours" in told
    follow(told.partition("; or give it")[0], used)
    used.append(*lines(5, 10))
    assert_mended(used)


@pytest.mark.parametrize("table", ["users", "log_positions"])
def test_a_rule_that_drops_rows_of_a_table(used: Site, table: str) -> None:
    used.query(f"CREATE RULE dropping AS ON INSERT TO {table} DO INSTEAD NOTHING")
    (told,) = check(used)
    assert f"DROP RULE dropping ON {table}" in told
    follow(told, used)
    used.append(*lines(5, 10))
    assert_mended(used)


def test_a_rule_that_keeps_a_position_where_it_is(used: Site) -> None:
    """A run that moves one says what is in the way, and is not taken for another run."""
    used.query("CREATE RULE staying AS ON UPDATE TO log_positions DO INSTEAD NOTHING")
    (told,) = check(used)
    used.append(*lines(5, 10))
    said = used.run(status=Exit.OPERATOR).stderr
    for text in (told, said):
        assert "log_positions does not take how far a log is stored" in text
        assert "DROP RULE staying ON log_positions" in text
    follow(told, used)
    assert_mended(used)


@pytest.mark.parametrize("does", ["RETURN NULL", "RAISE EXCEPTION 'no'"])
@pytest.mark.parametrize("on", ["UPDATE", "DELETE"])
def test_a_trigger_that_keeps_positions_as_they_are(used: Site, does: str, on: str) -> None:
    used.query(f"CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {does}; END $$")
    used.query(f"CREATE TRIGGER keeping BEFORE {on} ON log_positions FOR EACH ROW EXECUTE PROCEDURE keep()")
    (told,) = check(used)
    assert "ALTER TABLE log_positions DISABLE TRIGGER keeping" in told
    if on == "UPDATE":
        assert_that_runs_fail_as_told(used)
    else:
        used.append(*lines(5, 10))
    follow(told, used)
    assert_mended(used)


@pytest.mark.parametrize("table", ["users", "log_positions"])
def test_a_trigger_that_waits_for_the_commit(used: Site, table: str) -> None:
    used.query(REFUSING.format(returns="trigger", what="Sunday"))
    used.query(
        f"CREATE CONSTRAINT TRIGGER late AFTER INSERT OR UPDATE ON {table} DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE PROCEDURE refuse()"
    )
    (told,) = check(used)
    assert "not on a Sunday" in told
    assert_that_runs_fail_as_told(used)
    follow(told, used)
    assert_mended(used)


@pytest.mark.parametrize("lost", ["REPLICA IDENTITY NOTHING", "DROP CONSTRAINT log_positions_pkey"])
def test_a_publication_of_a_table_without_a_replica_identity(used: Site, lost: str) -> None:
    used.query("CREATE PUBLICATION everything FOR ALL TABLES")
    used.query(f"ALTER TABLE log_positions {lost}")
    assert_that_runs_fail_as_told(used)
    (told,) = check(used)
    follow(told, used)
    assert_mended(used)
    used.run()
    assert used.emails() == users(0, 10)


def test_a_check_of_yours_that_refuses_positions(used: Site) -> None:
    used.query("ALTER TABLE log_positions ADD CONSTRAINT small CHECK (position < 1) NOT VALID")
    (told,) = check(used)
    assert "ALTER TABLE log_positions DROP CONSTRAINT small" in told
    assert_that_runs_fail_as_told(used)
    follow(told, used)
    assert_mended(used)


@pytest.fixture
def keeping(used: Site) -> Site:
    """A site that is to drop what is older than a day: the day of its rows."""
    used.set("retention", days=1)
    used.set("parser", stray_days=36_500)
    used.query("ALTER TABLE logs_2025_11_17 ADD UNIQUE (id)")
    return used


def retained_when_mended(site: Site, set_up: list[str], *expected: str) -> None:
    """A run and --check name the same statements; after these, the day is dropped."""
    for statement in set_up:
        site.query(statement)
    (told,) = check(site)
    said = site.run(status=Exit.OPERATOR).stderr
    assert "ERROR   retention: " in said
    for text in (told, said):
        for part in expected:
            assert part in text
    for part in expected:
        site.query(part)
    assert not [line for line in site.run("--check").stdout.splitlines() if line.startswith("✗")]
    site.run()
    assert site.query("SELECT to_regclass('logs_2025_11_17') IS NULL") == [(True,)]


def test_an_event_trigger_that_keeps_days_from_being_dropped(keeping: Site) -> None:
    set_up = [
        REFUSING.format(returns="event_trigger", what="production server"),
        "CREATE EVENT TRIGGER frozen ON sql_drop EXECUTE PROCEDURE refuse()",
    ]
    retained_when_mended(keeping, set_up, "ALTER EVENT TRIGGER frozen DISABLE")


def test_views_and_keys_that_keep_days_from_being_dropped(keeping: Site) -> None:
    set_up = [
        "CREATE VIEW november AS SELECT * FROM logs_2025_11_17",
        "CREATE MATERIALIZED VIEW much AS SELECT count(*) FROM november",
    ]
    retained_when_mended(keeping, set_up, "DROP MATERIALIZED VIEW much", "DROP VIEW november")


def test_a_key_that_keeps_a_day_from_being_dropped(keeping: Site) -> None:
    set_up = ["CREATE TABLE noted (id bigint CONSTRAINT noting REFERENCES logs_2025_11_17 (id))"]
    retained_when_mended(keeping, set_up, "ALTER TABLE noted DROP CONSTRAINT noting")


@pytest.mark.parametrize("each", ["STATEMENT", "ROW"])
def test_a_trigger_that_keeps_unparsed_lines(keeping: Site, each: str) -> None:
    keeping.append("from nowhere\n")
    keeping.run()
    set_up = [
        "UPDATE rejected_lines SET rejected_at = now() - interval '9 days'",
        REFUSING.format(returns="trigger", what="Sunday"),
        f"CREATE TRIGGER kept BEFORE DELETE ON rejected_lines FOR EACH {each} EXECUTE PROCEDURE refuse()",
    ]
    retained_when_mended(keeping, set_up, "ALTER TABLE rejected_lines DISABLE TRIGGER kept")


@pytest.mark.parametrize(("when", "does"), [("BEFORE", ""), ("AFTER", "INSERT INTO rejected_lines SELECT OLD.*;")])
def test_a_trigger_that_keeps_what_is_to_be_deleted(keeping: Site, when: str, does: str) -> None:
    keeping.query(f"CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {does} RETURN NULL; END'")
    keeping.query(f"CREATE TRIGGER k {when} DELETE ON rejected_lines FOR EACH ROW EXECUTE PROCEDURE keep()")
    (told,) = check(keeping)
    assert "rejected_lines keeps lines that are older than [retention] days" in told
    follow(told, keeping)
    assert "✗" not in keeping.run("--check").stdout


def test_a_standby_that_each_commit_waits_for(own_server: Callable[..., Server], tmp_path: Path) -> None:
    site = Site(tmp_path, own_server(*FAST).keywords())
    site.append(*lines(0, 5))
    site.run()
    site.query("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (a, b)'")
    site.query("SELECT pg_reload_conf()")
    wait_until(lambda: site.query("SHOW synchronous_standby_names") == [("ANY 1 (a, b)",)])
    (told,) = check(site)
    assert "standbys: each COMMIT waits for a standby of synchronous_standby_names = ANY 1 (a, b)" in told
    for statement in told.partition("of PostgreSQL: ")[2].split("; "):
        site.query(statement)
    wait_until(lambda: site.query("SHOW synchronous_standby_names") == [("",)])
    site.append(*lines(5, 10))
    assert_mended(site)


def test_a_trigger_that_refuses_rows_of_some_kind_only_is_named(used: Site) -> None:
    used.query(
        "CREATE FUNCTION choose() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF new.email <> 'check' THEN RAISE EXCEPTION 'no'; END IF; RETURN new; END $$"
    )
    used.query("CREATE TRIGGER choosing BEFORE INSERT ON users FOR EACH ROW EXECUTE PROCEDURE choose()")
    done = used.run("--check").stdout
    (told,) = (text for text in done.splitlines() if " triggers: " in text)
    assert told.startswith("✓ triggers: users has one of others")
    used.append(*lines(5, 10))
    follow(told, used)
    assert_mended(used)


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("SELECT setval('users_id_seq', 2147483647)", "sequence users_id_seq of users.id is used up"),
        ("SELECT setval('users_id_seq', 2)", "sequence users_id_seq is at 2, and users.id has 5"),
        ("ALTER SEQUENCE endpoints_id_seq MAXVALUE 5", "sequence endpoints_id_seq of endpoints.id is used up at 5"),
    ],
)
def test_ids_that_are_used_up_or_there_already(used: Site, broken: str, expected: str) -> None:
    used.query(broken)
    (told,) = check(used)
    assert expected in told
    assert_that_runs_fail_as_told(used)
    for statement in STATEMENT.findall(told.partition("; ")[2] or told.partition(": ")[2]):
        used.query(statement)
    assert_mended(used)


def test_ids_that_are_nearly_used_up(used: Site) -> None:
    used.query("SELECT setval('users_id_seq', 2000000000)")
    (told,) = check(used)
    assert "sequence users_id_seq of users.id is at 2000000000 of 2147483647: " in told
    for statement in STATEMENT.findall(told.partition("2147483647: ")[2]):
        used.query(statement)
    used.append(*lines(5, 10))
    assert_mended(used)


def test_rows_of_a_day_to_come_in_a_default_partition_are_moved_as_schema_md_says(used: Site) -> None:
    """A run stores today's lines, and fails from that day on. Rows of days before today are in nobody's way."""
    if used.query("SELECT current_setting('server_version_num')::integer < 110000") == [(True,)]:
        pytest.skip("PostgreSQL 10 has no DEFAULT partition")
    used.query("CREATE TABLE logs_default PARTITION OF logs DEFAULT")
    used.query("""INSERT INTO logs ("timestamp", action) VALUES ('2020-01-01 12:00+00', 'by hand')""")
    assert "✗" not in used.run("--check").stdout
    ((day,),) = used.query("""
        INSERT INTO logs ("timestamp", action) VALUES (now() + interval '3 days', 'by hand')
        RETURNING ("timestamp" AT TIME ZONE 'UTC')::date
    """)
    (told,) = check(used)
    assert f"rows of {day} are in logs_default, the DEFAULT partition of logs" in told
    assert "as Schema.md says" in told
    (move,) = re.findall(
        r"^BEGIN;\n(?:(?!```).)*DETACH PARTITION logs_default.*?^COMMIT;$", SCHEMA, re.DOTALL | re.MULTILINE
    )
    move = move.replace("2025_11_17", f"{day:%Y_%m_%d}").replace("2025-11-18", str(day + timedelta(days=1)))
    with psycopg.connect(**used.database, autocommit=True) as conn:  # type: ignore[arg-type]
        conn.execute(move.replace("2025-11-17", str(day)))
    assert "✗" not in used.run("--check").stdout


def test_users_of_another_application_stay_alone(site: Site) -> None:
    site.query("CREATE TABLE users (id serial PRIMARY KEY, email varchar(255) UNIQUE, password_hash text)")
    site.append(*lines(0, 10))
    (told,) = check(site)
    assert "users is another application's, with the columns password_hash: " in told
    assert site.run(status=Exit.OPERATOR).stderr.count("CREATE SCHEMA xraylog") == 1
    assert site.query("SELECT count(*) FROM users") == [(0,)]
    mended = re.search("(CREATE SCHEMA .*); then .postgresql. options = (.*)", told)
    assert mended is not None
    site.query(mended[1])
    site.set("postgresql", options=mended[2])
    site.run()
    assert site.query("SELECT count(*) FROM users") == [(0,)]
    assert site.query("SELECT count(*) FROM xraylog.logs") == [(10,)]


def test_users_of_another_application_that_the_search_path_finds_first_get_no_names(site: Site) -> None:
    """Their ids would be those of other users in the table that logs refers to: rows would be stored under these."""
    site.append(*lines(0, 20))
    site.run()
    site.query("CREATE SCHEMA app; CREATE TABLE app.users (id serial PRIMARY KEY, email text UNIQUE)")
    site.set("postgresql", options="-c search_path=app,public")
    site.append(*lines(10, 30))
    (told,) = check(site)
    assert "logs.user_id: expected the search_path to find users of public, to which it refers, found another" in told
    assert site.run(status=Exit.OPERATOR).stderr.count("search_path=public,app") == 1
    assert site.query("SELECT count(*) FROM app.users") == [(0,)]
    mended = re.search("in .postgresql.: options = (.*)", told)
    assert mended is not None
    site.set("postgresql", options=mended[1])
    site.run()
    assert site.emails() == users(0, 20) + users(10, 30)
    site.run("--check")


@pytest.mark.parametrize(
    "made",
    [
        "TYPE users AS ENUM ('a')",
        "TYPE rejected_lines AS ENUM ('a')",
        "DOMAIN tags AS text",
        "TYPE logs AS (a integer)",
        "SEQUENCE log_positions",
        "INDEX logs ON other (a)",
    ],
)
def test_an_object_of_another_program_that_has_the_name_of_a_table(
    site: Site, as_role: Callable[[Site], str], made: str
) -> None:
    site.query("CREATE TABLE other (a integer)")
    site.query(f"CREATE {made}")
    site.append(*lines(0, 10))
    as_role(site)
    (told,) = check(site)
    assert "; if it is another program's, give this role a schema of its own: " in site.run(status=Exit.OPERATOR).stderr
    for statement in told.partition("a schema of its own: ")[2].split("; "):
        site.query(statement)
    site.run()
    assert site.query("SELECT count(*) FROM xraylog.logs") == [(10,)]


def test_a_statement_timeout_that_ends_the_first_statement(used: Site) -> None:
    name = used.database["dbname"]
    used.query(f"ALTER DATABASE {name} SET statement_timeout = '249ms'")
    (told,) = check(used)
    assert "timeout: statement_timeout is 249 ms (database), too short" in told
    used.query(told.partition("; ")[2])
    used.append(*lines(5, 10))
    assert_mended(used)


def test_transactions_that_are_nearly_used_up(used: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_limits, "OLDEST", 0)
    (told,) = check(used)
    assert "of 2,000,000,000 are used up" in told


@pytest.mark.parametrize("of", ["ROLE", "DATABASE"])
def test_a_database_or_a_role_that_is_read_only(used: Site, of: str, as_role: Callable[[Site], str]) -> None:
    role = as_role(used)
    name = role if of == "ROLE" else used.database["dbname"]
    used.query(f"ALTER {of} {name} SET default_transaction_read_only = on")
    (told,) = check(used)
    assert "read-only" in told
    with psycopg.connect(**used.database, autocommit=True) as conn:  # type: ignore[arg-type]
        for statement in STATEMENT.findall(told):
            conn.execute(statement)
    used.append(*lines(5, 10))
    assert_mended(used)


def test_ids_of_another_application_that_are_no_numbers(site: Site) -> None:
    site.query("CREATE TABLE users (id uuid PRIMARY KEY, email text UNIQUE)")
    site.append(*lines(0, 5))
    (told,) = check(site)
    assert "users.id: expected a whole number, found uuid; if it is another program's, " in told
    assert 'CREATE SCHEMA xraylog AUTHORIZATION "postgres"; ALTER ROLE "postgres" SET ' in told


def test_no_trial_waits_for_a_run_that_is_at_work(used: Site) -> None:
    with lockfile.locked(lockfile.lock_path(used.log, used.folder)):
        done = used.run("--check", status=Exit.OPERATOR)
    assert "is held by" in done.stdout
    assert " trial: " not in done.stdout


def test_an_order_of_text_that_has_changed(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an update of the operating system: servers of tests sort by bytes, which no update changes."""
    assert collation.changed(conn) is None
    versions = "SELECT current_database()::text, {}, '153.120'"
    monkeypatch.setattr(collation, "VERSIONS", versions.format("'153.80'"))
    changed = collation.changed(conn)
    if conn.info.server_version < 150000:
        assert changed is None
        return
    assert changed is not None
    assert "version 153.80 of the operating system's order of text, which is 153.120 now" in changed.found
    conn.execute(changed.to_do.partition(";")[0].encode())
    monkeypatch.setattr(collation, "VERSIONS", versions.format("NULL"))
    assert collation.changed(conn) is None


def test_an_order_of_text_of_one_column_that_has_changed(used: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "SELECT 'users', 'email', 'pg_catalog.\"C\"', '153.80', '153.120' WHERE %s::text[] IS NOT NULL"
    monkeypatch.setattr(collation, "OF_COLUMNS", text)
    (told,) = check(used)
    assert "the index of users.email was built with version 153.80 of" in told
    assert told.endswith('; REINDEX TABLE users; ALTER COLLATION pg_catalog."C" REFRESH VERSION')


@pytest.fixture
def as_role(site: Site) -> Iterator[Callable[[Site], str]]:
    """Give the tables, and the right to make more, to a role of its own, and run as it."""
    superuser, made = dict(site.database), []

    def become(site: Site) -> str:
        role = f"owner_{site.database['dbname']}"
        site.query(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        made.append(role)
        for (table,) in site.query(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
        ):
            site.query(f"ALTER TABLE {table} OWNER TO {role}")
        site.query(f"GRANT ALL ON SCHEMA public TO {role}")
        site.set("postgresql", user=role, password=PASSWORD)
        return role

    yield become
    site.database = superuser
    for role in made:
        site.query(f"DROP OWNED BY {role} CASCADE")
        site.query(f"DROP ROLE {role}")


def test_a_line_that_a_check_of_yours_rejects(used: Site) -> None:
    used.query("ALTER TABLE logs ADD CHECK (source_port <> 1)")
    (told,) = check(used)
    assert "a good line was left unparsed: new row for relation" in told
    assert " until then lines go to rejected_lines; then: " in told


@pytest.mark.parametrize("table", ["nodes", "log_positions"])
def test_a_table_that_a_role_may_not_read_is_named(used: Site, as_role: Callable[[Site], str], table: str) -> None:
    """The check itself reads it, to compare what the database has confirmed: its advice was to check."""
    role = as_role(used)
    used.query(f"ALTER TABLE {table} OWNER TO postgres")
    used.query(f"GRANT REFERENCES ON {table} TO {role}")  # for the keys of a partition on PostgreSQL 10
    used.append(*lines(5, 10))
    used.run(status=Exit.OPERATOR)
    told = "\n".join(check(used))
    grants = re.findall(r"GRANT [^;\n]+", told)
    assert grants, told
    for grant in grants:
        used.query(grant)
    assert_mended(used)
