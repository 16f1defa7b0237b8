"""The tables are what Schema.md says, a hand-made database gets only what it lacks, and each day has a partition."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import psycopg
import pytest
from helpers import documents
from helpers.schema import bounds
from helpers.site import ROOT, Site, facts, line, users
from psycopg import errors
from psycopg.sql import SQL, Identifier

from xraylog.database import ddl, partitions, schema
from xraylog.database.session import Connection, Unsuitable, transaction

DOCUMENT = (ROOT / "Schema.md").read_text()
BLOCKS = re.findall(r"^```sql\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
CREATING = [block for block in BLOCKS if block.startswith("CREATE TABLE")]
QUERIES = [block for block in BLOCKS if block.startswith("SELECT")]
BY_HAND = [block.text for block in documents.BLOCKS if (block.page, block.language) == ("docs/operations.md", "sql")]
CHANGING = [block for block in BLOCKS if block not in CREATING + QUERIES] + BY_HAND
ELSEWHERE = re.compile("logs_default|logs_set_aside")  # what test_partitions.py and test_too_many_days.py do
DAY = "2025-11-17"
PARTITION = "logs_2025_11_17"  # of DAY; Schema.md makes this one


NOT_ON_10 = "-- From here on: PostgreSQL 11 and later."


LINE = "2025/11/{day} 10:15:23 from {source} accepted tcp:www.example.com:443 [in >> out] email: {email}\n"


def access(day: int = 17, source: str = "203.0.113.7:51000", email: str = "k") -> str:
    return LINE.format(day=day, source=source, email=email)


def statements(block: str) -> list[str]:
    return [statement for statement in re.split(r";\n", block) if statement.strip()]


@pytest.fixture
def other(database: dict[str, str]) -> Iterator[Connection]:
    """A second session in the test's database."""
    with psycopg.connect(**database, autocommit=True) as conn:  # type: ignore[arg-type]
        yield conn


def test_the_statements_of_schema_md_make_what_the_code_makes(conn: Connection, other_database: Connection) -> None:
    schema.ensure(conn)
    partitions.Partitions(conn).ensure([DAY])

    of_each_partition = []
    for block in CREATING:
        of_any_version, _, of_newer = block.partition(NOT_ON_10)
        other_database.execute(of_any_version)
        if of_newer and other_database.info.server_version < 110000:
            of_each_partition.append(re.sub(r"\blogs\b", PARTITION, "--" + of_newer))
        elif of_newer:
            other_database.execute("--" + of_newer)
    for block in of_each_partition:
        other_database.execute(block)

    made = facts(conn)
    assert {fact[1] for fact in made if fact[0] == "table" and fact[2] != "S"} == {*ddl.TABLES, PARTITION}
    assert facts(other_database) == made


def test_schema_md_names_every_column_with_its_type_and_no_other(conn: Connection) -> None:
    schema.ensure(conn)
    documented = set()
    for section in re.split(r"^### ", DOCUMENT, flags=re.MULTILINE)[1:]:
        table = section.split("\n", 1)[0]
        for column, type_name, null in re.findall(r"^\| (\w+) \| (\w+) \| (yes|no) \|", section, re.MULTILINE):
            ((full_type,),) = conn.execute("SELECT to_regtype(%s)::text", [type_name])
            documented.add((table, column, full_type, null))

    there = conn.execute("""
        SELECT relname, attname, format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN 'no' ELSE 'yes' END
        FROM pg_attribute
        JOIN pg_class c ON c.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND attnum > 0
    """)
    assert documented == set(there)


def test_the_query_for_unparsed_lines_prints_no_byte_that_a_terminal_obeys(site: Site) -> None:
    site.append(b"not \x1b[2J a line \xff\x00 of xray\t\\ \xd1\x8e\n")
    site.run()
    (query,) = [query for query in QUERIES if "encode(" in query]
    ((*_, shown),) = site.query(query)
    assert shown == r"not .[2J a line \377\000 of xray.\\ \321\216"


def test_what_the_documents_tell_an_operator_to_do_works(site: Site, conn: Connection) -> None:
    schema.ensure(conn)
    partitions.Partitions(conn).ensure(["2025-10-01", "2025-10-02"])
    site.append(access(), "no line of xray\n")
    site.run()
    conn.execute("INSERT INTO endpoints (address) VALUES ('unused.example')")
    conn.execute("UPDATE rejected_lines SET rejected_at = now() - interval '1 year'")
    version = conn.info.server_version

    done = 0
    for statement in [part for block in CHANGING if not ELSEWHERE.search(block) for part in statements(block)]:
        by_version = statement.replace(" CONCURRENTLY", "") if version < 140000 else statement
        if version < 110000 and "INCLUDE" in by_version:
            continue
        conn.execute(by_version.replace("ON logs (", f"ON {PARTITION} (") if version < 110000 else by_version)
        done += 1

    assert done >= 7 - (version < 110000)
    assert list(bounds(conn)) == [PARTITION]
    assert conn.execute("SELECT address FROM endpoints").fetchall() == [("www.example.com",)]
    assert conn.execute("SELECT count(*) FROM rejected_lines").fetchall() == [(0,)]
    indexed = {fact[2] for fact in facts(conn) if fact[0] == "index" and fact[1] == PARTITION}
    assert any("(source_ip)" in str(index) for index in indexed)


def test_a_second_run_changes_nothing_and_waits_for_nobody(conn: Connection, other: Connection) -> None:
    """Also while another run makes partitions."""
    assert schema.ensure(conn).complete
    made = facts(conn)
    conn.execute("SET default_transaction_read_only = on")
    conn.execute("SET statement_timeout = '10s'")
    with transaction(other, schema.PARTITIONS_LOCK):
        assert schema.ensure(conn).complete
    assert facts(conn) == made


@pytest.fixture
def user(conn: Connection, database: dict[str, str]) -> Iterator[dict[str, str]]:
    """Keywords of a role that may use the tables and create nothing."""
    schema.ensure(conn)
    partitions.Partitions(conn).ensure([DAY])
    name, password = f"role_of_{database['dbname']}", "only for this test"
    role = Identifier(name)
    conn.execute(SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, password))
    conn.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    conn.execute(SQL("GRANT USAGE ON SCHEMA public TO {}").format(role))
    conn.execute(SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {}").format(role))
    conn.execute(SQL("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {}").format(role))
    yield {**database, "user": name, "password": password}
    conn.execute(SQL("DROP OWNED BY {}").format(role))
    conn.execute(SQL("DROP ROLE {}").format(role))


def test_a_role_that_may_create_nothing_can_use_what_is_there(user: dict[str, str]) -> None:
    with psycopg.connect(**user, autocommit=True) as conn:  # type: ignore[arg-type]
        with pytest.raises(errors.InsufficientPrivilege):
            conn.execute("CREATE TABLE public.mine (id integer)")
        assert schema.ensure(conn).complete
        partitions.Partitions(conn).ensure([DAY])


HAND_MADE = """
    CREATE TABLE users (id serial PRIMARY KEY, email varchar(64) NOT NULL UNIQUE);
    CREATE TABLE protocols (id serial PRIMARY KEY, name varchar(10) NOT NULL UNIQUE);
    CREATE TABLE endpoints (id serial PRIMARY KEY, address varchar(255) NOT NULL UNIQUE);
    CREATE TABLE tags (id serial PRIMARY KEY, name varchar(64) NOT NULL UNIQUE, remark varchar(10));
    CREATE TABLE logs (
        id bigserial NOT NULL,
        "timestamp" timestamptz NOT NULL DEFAULT now(),
        source_ip inet NOT NULL,
        source_port integer NOT NULL,
        action varchar(16) NOT NULL,
        protocol_id integer,
        destination_id integer,
        destination_port integer,
        inbound_tag_id integer,
        outbound_tag_id integer,
        user_id integer,
        country varchar(2)
    ) PARTITION BY RANGE ("timestamp");
    CREATE TABLE logs_2025_11_17 PARTITION OF logs FOR VALUES FROM ('2025-11-17 00:00+00') TO ('2025-11-18 00:00+00');
    CREATE TABLE the_18th (LIKE logs INCLUDING ALL);
    ALTER TABLE logs ATTACH PARTITION the_18th FOR VALUES FROM ('2025-11-18 00:00+00') TO ('2025-11-19 00:00+00');
"""


HAND_MADE_KEYS = """
    ALTER TABLE {table} ADD PRIMARY KEY (id, "timestamp"), ADD CHECK (source_port > 0);
    ALTER TABLE {table} ADD FOREIGN KEY (user_id) REFERENCES users (id);
    CREATE INDEX by_source_{table} ON {table} (source_ip, "timestamp");
"""


PARTITIONED = ("logs", "logs_2025_11_17", "the_18th")


def make_other_database(conn: Connection) -> None:
    """A database as a person makes it, from before there were nodes and positions."""
    conn.execute(HAND_MADE)
    for table in PARTITIONED[:1] if conn.info.server_version >= 110000 else PARTITIONED[1:]:
        conn.execute(HAND_MADE_KEYS.format(table=table))


def test_a_hand_made_database_gets_what_it_lacks_and_loses_only_not_null_on_the_source(conn: Connection) -> None:
    make_other_database(conn)
    before = facts(conn)
    assert schema.ensure(conn).complete
    after = facts(conn)

    assert before - after == {
        ("not null", table, column, None, None, None) for table in PARTITIONED for column in schema.MAY_BE_NULL
    }
    added = {(fact[0], fact[1], fact[2]) for fact in after - before if fact[1] in {fact[1] for fact in before}}
    expected = {("column", table, name) for table in PARTITIONED for name in ("node_id", "reject_reason")}
    if conn.info.server_version >= 110000:
        expected |= {("constraint", table, "logs_node_id_fkey") for table in PARTITIONED}
    assert added == expected
    assert {"nodes", "log_positions", "rejected_lines"} <= {fact[1] for fact in after - before}


def test_logs_with_no_column_but_the_time_get_the_others_as_the_code_makes_them(
    conn: Connection, other_database: Connection
) -> None:
    schema.ensure(conn)
    other_database.execute('CREATE TABLE logs ("timestamp" timestamptz NOT NULL) PARTITION BY RANGE ("timestamp")')
    schema.ensure(other_database)

    def columns_and_keys(of: Connection) -> set[tuple[str | None, ...]]:
        """Without the columns' numbers and defaults."""
        return {
            (fact[2], fact[4] if fact[0] == "column" else fact[3])
            for fact in facts(of)
            if fact[0] in ("column", "constraint") and fact[1] == "logs"
        }

    assert columns_and_keys(conn) - columns_and_keys(other_database) == {("id", "bigint")}
    assert columns_and_keys(other_database) < columns_and_keys(conn)


def test_a_run_loads_into_a_hand_made_database(site: Site, conn: Connection) -> None:
    """Into the partitions that are there, and into a new one; some lines have no source."""
    make_other_database(conn)
    days = (17, 18, 19)
    site.append(*(access(day, source=source) for day in days for source in ("203.0.113.7:51000", "@")))
    site.run()
    stored = site.query("SELECT tableoid::regclass::text, host(source_ip), source_port, node_id FROM logs ORDER BY id")
    assert stored == [
        (table, *source, 1)
        for table in ("logs_2025_11_17", "the_18th", "logs_2025_11_19")
        for source in (("203.0.113.7", 51000), (None, None))
    ]
    assert site.rejected() == []


def test_not_null_on_another_column_is_a_warning_and_costs_only_lines_without_it(site: Site, conn: Connection) -> None:
    schema.ensure(conn)
    conn.execute("ALTER TABLE logs ALTER COLUMN user_id SET NOT NULL")
    (warning,) = schema.ensure(conn).warnings
    assert "logs.user_id is NOT NULL" in warning
    assert "ALTER COLUMN user_id DROP NOT NULL" in warning

    without_user = access(email="").replace(" email: ", "")
    site.append(access(), without_user)
    assert warning in site.run().stderr
    assert site.emails() == Counter(k=1)
    assert [bytes(bad) + b"\n" for _, bad in site.rejected()] == [without_user.encode()]


def test_a_name_too_long_for_a_hand_made_column_costs_only_its_own_line(site: Site, conn: Connection) -> None:
    """A client chooses the host that it asks for: it must not be able to stop the loading."""
    make_other_database(conn)
    too_long = access(email="e" * 65)
    site.append(access(), too_long)
    site.run()
    assert site.emails() == Counter(k=1)
    assert [bytes(bad) + b"\n" for _, bad in site.rejected()] == [too_long.encode()]


def test_every_mismatch_is_reported_at_once_and_nothing_is_changed(conn: Connection) -> None:
    conn.execute("""
        CREATE TABLE users (id serial PRIMARY KEY, email text NOT NULL);
        CREATE UNIQUE INDEX ON users (lower(email));
        CREATE UNIQUE INDEX ON users (email) WHERE email <> '';
        CREATE VIEW tags AS SELECT 1 AS id, 'a'::text AS name;
        CREATE TABLE endpoints (id serial PRIMARY KEY, host text NOT NULL UNIQUE);
        CREATE TABLE logs (id bigserial, "timestamp" timestamp NOT NULL, source_ip inet NOT NULL);
    """)
    before = facts(conn)
    with pytest.raises(Unsuitable) as raised:
        schema.ensure(conn)
    said = str(raised.value).split("; ")
    for expected in (
        "logs: expected a table partitioned by day, found a plain one",
        "logs.timestamp: expected timestamp with time zone, found timestamp without time zone",
        "users.email: expected a unique column, found none",
        "ALTER TABLE users ADD UNIQUE (email)",
        "tags: expected a table, found another kind",
        "endpoints.address: expected a column, found none",
    ):
        assert expected in said
    assert facts(conn) == before


@pytest.mark.parametrize("key", ["RANGE (id)", 'LIST ("timestamp")', 'RANGE ("timestamp", id)'])
def test_logs_partitioned_by_something_else_do_not_fit(conn: Connection, key: str) -> None:
    conn.execute(f'CREATE TABLE logs (id bigserial, "timestamp" timestamptz NOT NULL) PARTITION BY {key}')
    with pytest.raises(Unsuitable, match=re.escape(f'logs: expected PARTITION BY RANGE ("timestamp"), found {key}')):
        schema.ensure(conn)


def test_a_view_called_logs_does_not_fit(conn: Connection) -> None:
    conn.execute("CREATE VIEW logs AS SELECT now() AS timestamp")
    assert "logs: expected a partitioned table, found another kind" in "; ".join(schema.inspect(conn).misfits)


def test_where_the_database_refuses_the_node_the_lines_wait_in_the_buffer(site: Site, conn: Connection) -> None:
    schema.ensure(conn)
    conn.execute("ALTER TABLE nodes ADD CONSTRAINT short CHECK (length(name) < 3)")
    site.append(line(0))
    site.set("parser", node="node1")
    said = site.run(status=3).stderr
    assert "node 'node1': " in said
    assert "short" in said
    assert site.buffered() == users(0, 1)


def test_a_unique_key_that_on_conflict_cannot_use_does_not_fit(conn: Connection) -> None:
    conn.execute("CREATE TABLE users (id serial PRIMARY KEY, email text NOT NULL UNIQUE DEFERRABLE)")
    with pytest.raises(Unsuitable, match=r"users\.email: expected a unique column"):
        schema.ensure(conn)


def test_what_does_not_fit_ends_a_run_with_status_3_and_the_log_stays(site: Site, conn: Connection) -> None:
    conn.execute('CREATE TABLE logs (id bigserial, "timestamp" timestamptz)')
    site.append(line(1))
    assert "logs: expected a table partitioned by day" in site.run(status=3).stderr
