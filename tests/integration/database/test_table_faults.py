"""Tables that refuse, or lose, what is right: the lines wait, and what the message says mends it."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import psycopg
import pytest
from helpers.load_paths import LOAD_PATHS
from helpers.site import Site, line, lines, users

from xraylog.cli import Exit

SEQUENCES = {"users": "users_id_seq", "endpoints": "endpoints_id_seq", "logs": "logs_id_seq"}


@pytest.fixture
def used(site: Site) -> Site:
    """With some rows."""
    site.append(*lines(0, 5))
    site.run()
    return site


def advice(said: str) -> list[str]:
    """Return the statements that a message names, as they can be pasted into psql."""
    return [
        statement.strip()
        for statement in re.findall(
            r"((?:ALTER (?:TABLE|SEQUENCE)|CREATE SEQUENCE|DROP INDEX|SELECT setval)[^;,\n]*(?:, \([^;\n]*\)\))?)", said
        )
    ]


def marked(site: Site) -> str:
    """Return what --check marks as broken."""
    return "\n".join(line for line in site.run("--check", status=Exit.OPERATOR).stdout.splitlines() if line[0] == "✗")


def refused_until_mended(site: Site, *expected: str, first: int = 5, is_checked: bool = True) -> None:
    """A run stores nothing of new lines and says why, as --check does; after the statements that it names the next run
    stores all.
    """
    site.append(*lines(first, first + 10))
    said = site.run(status=Exit.OPERATOR).stderr
    for text in expected:
        assert text in said
    assert site.buffered() == users(first, first + 10)
    assert site.rejected() == []
    statements = advice(said)
    assert statements, said
    checked = marked(site) if is_checked else said
    assert set(statements) & set(advice(checked)), checked
    for statement in statements:
        site.query(statement)
    site.append(*lines(first + 10, first + 20))
    site.run()
    assert site.emails() == users(0, first + 20)
    assert site.rejected() == []


@pytest.mark.parametrize("table", ["users", "endpoints", "protocols", "tags", "nodes"])
def test_names_that_were_dropped_are_not_replaced_by_others(used: Site, table: str) -> None:
    """A new table began at 1 again: each old row showed the name of another user."""
    before = used.rows()
    used.query(f"DROP TABLE {table} CASCADE")
    used.append(*lines(5, 10))
    said = used.run(status=Exit.OPERATOR).stderr
    found = re.findall("CREATE TABLE [^;]*|SELECT setval[^;]*FROM logs\\)\\)", said)
    assert len(found) == 2, said
    assert f"{table}: expected the names to which logs refers" in marked(used)
    assert used.buffered() == users(5, 10)
    for statement in found:
        used.query(statement)
    used.run(status=Exit.OPERATOR if table == "nodes" else Exit.DONE)  # the confirmations of a node went with it
    column = {"users": 9, "endpoints": 5, "protocols": 4, "nodes": 10}.get(table, 7)
    rows = used.rows()
    assert [row[column] for row in rows[:5]] == [None] * 5
    assert [row[:4] for row in rows[:5]] == [row[:4] for row in before]
    assert [row[9] for row in rows[5:]] == [f"u{n}" for n in range(5, 10)]


def test_a_day_that_is_partitioned_itself_and_lacks_a_partition(used: Site, conn: psycopg.Connection[Any]) -> None:
    """Each run said that the database was not available, and ended well."""
    if conn.info.server_version < 11_00_00:
        pytest.skip("this version has no DEFAULT partitions")
    conn.execute("""
        CREATE TABLE "Day" PARTITION OF logs FOR VALUES FROM ('2025-12-05 00:00+00') TO ('2025-12-06 00:00+00')
        PARTITION BY LIST (action)""")
    used.append(*lines(5, 10, "2025/12/05 03:00:00.000001"))
    said = used.run(status=Exit.OPERATOR).stderr
    assert used.buffered() == users(5, 10)
    (statement,) = re.findall("CREATE TABLE [^;]* DEFAULT", said)
    conn.execute(statement)  # type: ignore[call-overload]
    used.run()
    assert used.emails() == users(0, 10)


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_ids_of_rows_that_are_used_up(used: Site, load_path: str) -> None:
    used.load_path = load_path
    used.query("ALTER SEQUENCE logs_id_seq MAXVALUE 7")
    refused_until_mended(used, "sequence logs_id_seq of logs.id is used up at 7")


def test_a_sequence_that_was_set_to_the_largest_number(used: Site) -> None:
    used.query("SELECT setval('logs_id_seq', 9223372036854775807)")
    refused_until_mended(used, "sequence logs_id_seq of logs.id is used up at 9223372036854775807")


@pytest.mark.parametrize("table", ["users", "endpoints"])
def test_ids_of_names_that_are_used_up(used: Site, table: str) -> None:
    used.query("SELECT setval(%s, 2147483647)", SEQUENCES[table])
    refused_until_mended(used, f"sequence {SEQUENCES[table]} of {table}.id is used up at 2147483647")


@pytest.mark.parametrize("table", ["users", "endpoints"])
def test_a_sequence_that_a_restore_left_at_an_old_value(used: Site, table: str) -> None:
    """As after COPY of a table's rows without their sequence."""
    used.query("SELECT setval(%s, 2)", SEQUENCES[table])
    refused_until_mended(used, f"sequence {SEQUENCES[table]} gives ids that are there")


@pytest.mark.parametrize("is_owned", [True, False])
def test_a_default_that_gives_old_ids(used: Site, is_owned: bool) -> None:
    """As a function of another program that makes ids may do, in the place of the sequence."""
    used.query("ALTER TABLE users ALTER id SET DEFAULT 3")
    if not is_owned:
        used.query("DROP SEQUENCE users_id_seq")
    refused_until_mended(used, "users.id gets ids that are there, from the default 3: ")


def test_a_sequence_of_another_column_gives_no_ids(used: Site) -> None:
    used.query("ALTER TABLE users ADD a_number serial")
    used.query("DROP SEQUENCE users_id_seq CASCADE")
    refused_until_mended(used, "users.id has no default, and no sequence: CREATE SEQUENCE users_id_seq AS ")


def test_a_sequence_at_an_old_value_while_a_check_refuses_a_name(used: Site) -> None:
    """Names are added one by one then, and those whose ids are there are skipped: their lines are not refused."""
    used.append(*lines(5, 40))
    used.run()
    used.query("ALTER TABLE users ADD CHECK (email <> 'a')")
    used.query("SELECT setval('users_id_seq', 1)")
    used.append(line(40).replace("u40", "a"), *lines(41, 43))
    said = used.run(status=Exit.OPERATOR).stderr
    assert re.search(r"sequence users_id_seq is at \d+, and users.id has 40: SELECT setval", said)
    for statement in advice(said):
        used.query(statement)
    used.run()
    assert used.emails() == users(0, 40) + users(41, 43)
    assert len(used.rejected()) == 1


def test_a_sequence_of_rows_that_gives_old_ids_under_a_primary_key(used: Site) -> None:
    used.query("ALTER TABLE logs_2025_11_17 ADD CONSTRAINT one PRIMARY KEY (id)")
    used.query("SELECT setval('logs_id_seq', 2)")
    refused_until_mended(used, "sequence logs_id_seq gives ids that are there", is_checked=False)


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_ids_that_are_too_large_for_the_columns_that_refer_to_them(used: Site, load_path: str) -> None:
    used.load_path = load_path
    used.query("ALTER TABLE users ALTER id TYPE bigint")
    used.query("ALTER SEQUENCE users_id_seq AS bigint")
    used.query("SELECT setval('users_id_seq', 2147483648)")
    expected = "sequence users_id_seq of users.id is used up at 2147483647: ALTER TABLE logs ALTER user_id TYPE bigint"
    refused_until_mended(used, expected)


def test_ids_that_are_too_large_for_their_own_column(used: Site) -> None:
    used.query("ALTER SEQUENCE users_id_seq AS bigint")
    used.query("SELECT setval('users_id_seq', 2147483648)")
    refused_until_mended(used, "sequence users_id_seq of users.id is used up at 2147483647")


def test_a_small_sequence_is_widened_and_not_told_to_end_where_it_ends(used: Site) -> None:
    used.query("ALTER SEQUENCE users_id_seq AS smallint")
    used.query("SELECT setval('users_id_seq', 32767)")
    refused_until_mended(used, "is used up at 32767: ALTER SEQUENCE users_id_seq AS integer")


def test_a_sequence_that_is_no_longer_its_columns_own(used: Site) -> None:
    used.query("ALTER SEQUENCE users_id_seq OWNED BY NONE")
    used.query("SELECT setval('users_id_seq', 2147483647)")
    refused_until_mended(used, "sequence users_id_seq of users.id is used up at 2147483647")


@pytest.mark.parametrize("last", [5, 1])
def test_a_sequence_that_goes_backwards(used: Site, last: int) -> None:
    used.query("ALTER SEQUENCE users_id_seq INCREMENT BY -1")
    used.query("SELECT setval('users_id_seq', %s)", last)
    refused_until_mended(used, "ALTER SEQUENCE users_id_seq INCREMENT BY 1; SELECT setval('users_id_seq', ")


def test_a_sequence_that_begins_again_at_its_end(used: Site) -> None:
    used.query("ALTER SEQUENCE users_id_seq MAXVALUE 5 CYCLE")
    refused_until_mended(used, "gives ids that are there: ALTER SEQUENCE users_id_seq NO MAXVALUE NO CYCLE; ")


@pytest.mark.parametrize("table", ["users", "logs"])
def test_an_id_that_has_lost_its_default(used: Site, table: str) -> None:
    used.query(f"ALTER TABLE {table} ALTER id DROP DEFAULT")
    refused_until_mended(used, f"{table}.id has no default: ALTER TABLE {table} ALTER id SET DEFAULT nextval(")


@pytest.mark.parametrize("table", ["users", "logs"])
def test_a_sequence_that_was_dropped(used: Site, table: str) -> None:
    used.query(f"DROP SEQUENCE {table}_id_seq CASCADE")
    refused_until_mended(used, f"{table}.id has no default, and no sequence: CREATE SEQUENCE {table}_id_seq AS ")


def test_a_sequence_of_positions_that_was_dropped(used: Site) -> None:
    """A position that is there moves: a run fails later, and --check says it now."""
    used.query("DROP SEQUENCE log_positions_id_seq CASCADE")
    for statement in advice(marked(used)):
        used.query(statement)
    used.set("parser", node="n2")
    used.append(*lines(5, 10))
    used.run()
    assert used.emails() == users(0, 10)


def test_a_sequence_that_was_dropped_and_is_there_again_without_its_column(used: Site) -> None:
    used.query("DROP SEQUENCE users_id_seq CASCADE")
    used.query("CREATE SEQUENCE users_id_seq")
    refused_until_mended(used, "no sequence: ALTER SEQUENCE users_id_seq OWNED BY users.id; ")


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_a_port_that_does_not_fit_into_its_column(used: Site, load_path: str) -> None:
    used.load_path = load_path
    used.query("ALTER TABLE logs ALTER destination_port TYPE smallint USING 1")
    used.append(*(line(n).replace(":443", ":40000") for n in range(30, 33)))
    expected = "logs.destination_port: expected the type integer, found smallint; "
    refused_until_mended_with(used, users(30, 33), expected)


@pytest.mark.parametrize("load_path", LOAD_PATHS)
@pytest.mark.parametrize(("table", "column"), [("users", "email"), ("endpoints", "address")])
def test_a_name_that_does_not_fit_into_its_column_is_named_and_costs_its_line(
    used: Site, table: str, column: str, load_path: str
) -> None:
    """A client chooses the host that it asks for: it must not be able to stop the loading."""
    used.load_path = load_path
    used.query(f"ALTER TABLE {table} ALTER {column} TYPE varchar(14)")
    used.append(*(line(n).replace(f"u{n}\n", f"a-longer-user{n}\n").replace(f"host{n}.", f"a-longer-host{n}.")
                  for n in range(30, 33)), *lines(33, 36))  # fmt: skip
    expected = f"ALTER TABLE {table} ALTER {column} TYPE text"
    assert expected in marked(used)
    said = used.run().stderr
    assert "rows were refused, and are in rejected_lines: " in said
    assert advice(said) == [expected]
    assert used.emails() == users(0, 5) + users(33, 36)
    used.query(expected)
    used.run("--replay-rejected")
    assert used.emails() == users(0, 5) + users(33, 36) + Counter(f"a-longer-user{n}" for n in range(30, 33))


def test_a_word_that_does_not_fit_into_its_column(used: Site) -> None:
    used.query("ALTER TABLE logs ALTER action TYPE varchar(4) USING left(action, 4)")
    refused_until_mended(used, "logs.action: expected the type text, found character varying(4); ")


@pytest.mark.parametrize("column", ["head", "tail", "installation"])
def test_a_column_of_digests_that_has_become_text(used: Site, column: str) -> None:
    """Its digests are the same again: no line is stored twice."""
    used.append(line(5))
    used.run("--keep")
    used.query(f"ALTER TABLE log_positions ALTER {column} TYPE text")
    used.append(*lines(6, 10))
    expected = f"log_positions.{column}: expected the type bytea, found text; "
    assert expected in marked(used)
    said = used.run("--keep", status=Exit.OPERATOR).stderr
    assert expected in said
    for statement in advice(said):
        used.query(statement)
    used.run("--keep")
    assert used.emails() == users(0, 10)
    assert used.rejected() == []


def test_an_address_that_does_not_fit_into_its_column(used: Site) -> None:
    used.query("ALTER TABLE logs ALTER source_ip TYPE varchar(5) USING ''")
    refused_until_mended(used, "logs.source_ip: expected the type text, found character varying(5)")


def test_an_unparsed_line_that_does_not_fit_into_its_column(used: Site) -> None:
    used.query("ALTER TABLE rejected_lines ALTER line TYPE varchar(9) USING ''")
    used.append("damaged, and long\n")
    assert used.run(status=Exit.OPERATOR).stderr.endswith(" --check\n")
    (statement,) = advice(marked(used))
    assert statement == "ALTER TABLE rejected_lines ALTER line TYPE text"
    used.query(statement)
    used.run()
    assert len(used.rejected()) == 1


REFUSED_RECORDS = {
    "a sequence that gives old ids": "SELECT setval('rejected_lines_id_seq', 1, false)",
    "a unique index": "CREATE UNIQUE INDEX once ON rejected_lines (source) WHERE id > 30",
    "a constraint": "ALTER TABLE rejected_lines ADD CHECK (id <= 30)",
    "a column that must not be null": "ALTER TABLE rejected_lines ADD x integer NOT NULL DEFAULT 0; "
    "ALTER TABLE rejected_lines ALTER x DROP DEFAULT",
    "a constraint on positions": "ALTER TABLE log_positions ADD CONSTRAINT small CHECK (position < 250)",
}


@pytest.mark.parametrize("why", REFUSED_RECORDS)
@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_what_refuses_unparsed_lines_or_positions_is_named(used: Site, why: str, load_path: str) -> None:
    """No row of a log is at fault then, and a check, with its own line, may not meet it."""
    used.load_path = load_path
    used.append(*["damaged\n"] * 30)
    used.run("--keep")
    used.query(REFUSED_RECORDS[why])
    used.append(*lines(5, 10), "damaged\n", "damaged\n")
    said = used.run("--keep", status=Exit.OPERATOR).stderr
    assert used.buffered() == users(5, 10)
    statements = advice(said)
    assert statements, said
    for statement in statements:
        used.query(statement)
    used.run("--keep")
    assert used.emails() == users(0, 10)
    assert len(used.rejected()) == 32


@pytest.mark.parametrize("column", ["tail", "installation"])
def test_our_column_that_must_not_be_null_is_found_by_a_check(used: Site, column: str) -> None:
    used.query(f"UPDATE log_positions SET {column} = '' WHERE {column} IS NULL")
    used.query(f"ALTER TABLE log_positions ALTER {column} SET NOT NULL")
    (statement,) = advice(marked(used))
    used.query(statement)
    assert "✗" not in used.run("--check").stdout


OTHER_THINGS = [
    "users.email bytea convert_to({}, 'UTF8')",
    "nodes.name bytea convert_to({}, 'UTF8')",
    "log_positions.position text {}::text",
    "log_positions.position numeric(20,2) {}",
    "log_positions.head_length text {}",
    "log_positions.updated_at text {}",
    "log_positions.stored_from text {}",
    "rejected_lines.rejected_at text {}",
    "rejected_lines.reason bytea convert_to({}, 'UTF8')",
    "rejected_lines.line json '1'",
]


@pytest.mark.parametrize("changed", OTHER_THINGS)
def test_a_column_that_has_become_another_thing(used: Site, changed: str) -> None:
    """A run cannot compare it, or finds nothing equal to it: with a length that is text, lines were stored twice."""
    place, kind, using = changed.split(" ", 2)
    table, column = place.split(".")
    used.append(line(5))
    used.run("--keep")
    used.query(f"ALTER TABLE {table} ALTER {column} TYPE {kind} USING {using.format(column)}")
    used.append(*lines(6, 10), "damaged\n")
    expected = f"{place}: expected the type "
    assert expected in marked(used)
    said = used.run("--keep", status=Exit.OPERATOR).stderr
    (statement,) = re.findall(rf"{expected}[^;]*; (ALTER TABLE .*); new lines go to", said)
    used.query(statement)
    used.run("--keep")
    assert used.emails() == users(0, 10)
    assert len(used.rejected()) == 1
    assert "✗" not in used.run("--check").stdout


@pytest.mark.parametrize("table", ["users", "endpoints", "nodes", "log_positions"])
@pytest.mark.parametrize("same_id", [True, False])
def test_a_table_that_inherits_names_or_positions(used: Site, table: str, same_id: bool) -> None:
    """Its ids are those of other names: a row would have shown one of them."""
    names = {"users": "u7", "endpoints": "host7.example", "nodes": "n1"}
    used.query(f"CREATE TABLE child () INHERITS ({table})")
    used.append(line(5))
    used.run("--keep")  # empty, it is in nobody's way
    if table == "log_positions":
        used.query("INSERT INTO child SELECT * FROM log_positions")
    else:
        used.query(f"INSERT INTO child VALUES ({'1' if same_id else 'DEFAULT'}, '{names[table]}')")
    used.append(*lines(6, 10))
    expected = f"{table}: expected all of its rows in it, found some in child, which inherits from it"
    assert expected in marked(used)
    said = used.run("--keep", status=Exit.OPERATOR).stderr
    assert expected in said
    for statement in advice(said):
        used.query(statement)
    used.run("--keep")
    assert used.emails() == users(0, 10)
    shown = "SELECT count(*) FROM logs l JOIN users u ON u.id = user_id JOIN endpoints e ON e.id = destination_id "
    assert used.query(f"{shown} WHERE replace(email, 'u', 'host') || '.example' = address") == [(10,)]


RENAMED = "users.id users.email nodes.name logs.timestamp log_positions.id log_positions.head log_positions.position "
RENAMED += "log_positions.updated_at rejected_lines.node_id rejected_lines.rejected_at"


@pytest.mark.parametrize("place", RENAMED.split())
def test_a_column_that_was_renamed(used: Site, place: str) -> None:
    """It would be another program's, by the message: a schema of its own would have been an empty one."""
    table, column = place.split(".")
    used.query(f'ALTER TABLE {table} RENAME "{column}" TO "my ""{column}"')
    refused_until_mended(used, f"{place}: expected a column, found none; if it was renamed: ALTER TABLE")


DROPPED = "users.email nodes.name log_positions.id log_positions.head log_positions.source rejected_lines.reason "
DROPPED += "rejected_lines.line_offset rejected_lines.line rejected_lines.node_id log_positions.updated_at"


@pytest.mark.parametrize("place", DROPPED.split())
def test_a_column_that_was_dropped(used: Site, place: str) -> None:
    table, column = place.split(".")
    used.query(f"ALTER TABLE {table} DROP COLUMN {column}")
    used.append(*lines(5, 15))
    expected = f"{place}: expected a column, found none; restore {table} from a backup; if there is none"
    assert expected in marked(used)
    said = used.run(status=Exit.OPERATOR).stderr
    (statement,) = re.findall(rf"{expected}[^:]*: (.*); new lines go to", said)
    used.query(statement)
    used.append(*lines(15, 25), "damaged\n")
    has_positions = not statement.startswith("DROP TABLE")  # otherwise it counts as an older database, once
    used.run(status=Exit.DONE if has_positions else Exit.OPERATOR)
    used.run()
    assert used.query("SELECT count(*), count(email) FROM logs JOIN users ON users.id = user_id") == [
        (25, 20 if place == "users.email" else 25)
    ]
    assert used.query("SELECT count(*) FROM rejected_lines") == [(1,)]


@pytest.mark.parametrize("column", ["stored_from", "tail", "installation"])
def test_a_column_that_a_run_adds_again_is_no_older_database(used: Site, column: str) -> None:
    """A run reported that the database lacks lines, although it has all of them."""
    used.append(line(5))
    used.run("--keep")
    used.query(f"ALTER TABLE log_positions DROP COLUMN {column}")
    for first in (6, 7, 8):
        used.append(line(first))
        assert used.run("--keep").stderr == ""
    assert "✗" not in used.run("--check").stdout
    assert used.emails() == users(0, 9)


def test_a_path_that_does_not_fit_into_its_column_is_found_by_a_check(used: Site) -> None:
    used.query("ALTER TABLE log_positions ALTER source TYPE varchar(14) USING ''")
    used.query("ALTER TABLE endpoints ALTER address TYPE varchar(255)")  # no name is longer
    used.append(*lines(5, 10))
    assert used.run(status=Exit.OPERATOR).stderr.endswith(" --check\n")
    assert advice(marked(used)) == ["ALTER TABLE log_positions ALTER source TYPE text"]
    used.query(*advice(marked(used)))
    used.run()
    assert used.emails() == users(0, 10)


def refused_until_mended_with(site: Site, added: Counter[str], expected: str) -> None:
    """The same, with the lines that were appended."""
    assert expected in marked(site)
    said = site.run(status=Exit.OPERATOR).stderr
    assert expected in said
    assert site.buffered() == added
    for statement in advice(said):
        site.query(statement)
    site.run()
    assert site.emails() == users(0, 5) + added
    assert site.rejected() == []


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_a_unique_index_of_others_is_named_when_it_refuses_names(site: Site, load_path: str) -> None:
    site.load_path = load_path
    site.append(line(1))
    site.run()
    site.query("CREATE UNIQUE INDEX u ON users (lower(email))")
    assert "indexes: users has a unique one of others; if it refuses rows: " in site.run("--check").stdout
    site.append(line(2).replace("u2\n", "U1\n"))
    said = site.run().stderr
    assert "rows were refused, and are in rejected_lines: users.email holds another spelling of 'U1', under the" in said
    assert advice(said) == ["DROP INDEX u"]
    site.query(*advice(said))
    site.run("--replay-rejected")
    assert site.emails() == Counter(["u1", "U1"])


@pytest.mark.parametrize("quoted", ['"other"', "(SQLSTATE 22001)"])
def test_a_name_that_quotes_an_error_does_not_decide_which_statement_is_named(site: Site, quoted: str) -> None:
    """A client chooses its text, and the operator pastes the statement."""
    site.append(line(1).replace("u1\n", f"u1 {quoted}\n"))
    site.run()
    site.query("CREATE UNIQUE INDEX u ON users (lower(email))")
    site.query("ALTER TABLE users ADD CONSTRAINT other CHECK (email <> '')")
    site.query("ALTER TABLE endpoints ALTER address TYPE varchar(254)")
    site.append(line(2).replace("u2\n", f"U1 {quoted}\n"))
    assert advice(site.run().stderr) == ["DROP INDEX u"]


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_a_column_that_takes_names_for_others_is_named(site: Site, load_path: str) -> None:
    """As citext does with letters, char(n) with blanks: no line was stored, and no message told so."""
    site.load_path = load_path
    site.append(line(1))
    site.run()
    site.query("ALTER TABLE users ALTER email TYPE char(255)")
    site.append(line(2))
    said = site.run().stderr
    assert "rows were refused, and are in rejected_lines: users.email holds another spelling of 'u2', by the" in said
    assert advice(said) == ['ALTER TABLE users ALTER email TYPE text COLLATE "default"']
    assert "by the type or the collation of the column" in site.run("--check", status=Exit.OPERATOR).stdout
    site.query(*advice(said))
    site.run("--replay-rejected")
    assert site.emails() == users(1, 3)


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_a_column_that_another_program_added(used: Site, load_path: str) -> None:
    used.load_path = load_path
    used.query("ALTER TABLE logs ADD COLUMN tenant text NOT NULL DEFAULT 'x'")
    used.query("ALTER TABLE logs ALTER COLUMN tenant DROP DEFAULT")
    for (partition,) in used.query(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'logs'::regclass"
    ):
        used.query(f"ALTER TABLE {partition} ALTER COLUMN tenant DROP DEFAULT")
    used.append(*lines(5, 15))
    said = used.run(status=Exit.OPERATOR).stderr
    assert "tenant is not ours, is NOT NULL and has no default" in said
    used.query("ALTER TABLE logs ALTER tenant DROP NOT NULL")
    used.run()
    assert used.emails() == users(0, 15)


def test_a_domain_of_yours_that_is_not_null_costs_the_lines_of_new_names(used: Site) -> None:
    """The error names no column: it is a constraint of the operator's like a CHECK."""
    used.query("CREATE DOMAIN city AS text DEFAULT 'here' NOT NULL")
    used.query("ALTER TABLE users ADD COLUMN place city")
    used.query("ALTER DOMAIN city DROP DEFAULT")
    used.append(*lines(0, 8))
    said = used.run().stderr
    assert "rows were refused, and are in rejected_lines: domain city does not allow null values" in said
    assert "; once they are accepted: " in said
    assert used.emails() == users(0, 5) + users(0, 5)
    used.query("ALTER DOMAIN city DROP NOT NULL")
    used.run("--replay-rejected")
    assert used.emails() == users(0, 8) + users(0, 5)


NOTHING = """
    CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF {condition} THEN RETURN NULL; END IF;
        RETURN NEW;
    END $$
"""


def test_a_trigger_that_drops_names_is_named(used: Site) -> None:
    used.query(NOTHING.format(condition="NEW.email = 'u7'"))
    used.query("CREATE TRIGGER keep_out BEFORE INSERT ON users FOR EACH ROW EXECUTE PROCEDURE nothing()")
    refused_until_mended(used, "trigger keep_out on users drops names that rows need", is_checked=False)


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_rows_that_a_trigger_drops_are_counted_with_its_name(used: Site, load_path: str) -> None:
    used.load_path = load_path
    used.query(NOTHING.format(condition="mod(NEW.source_port, 2) = 0"))
    used.query("CREATE TRIGGER odd BEFORE INSERT ON logs_2025_11_17 FOR EACH ROW EXECUTE PROCEDURE nothing()")
    before = len(used.rows())
    used.append(*lines(10, 20))
    said = used.run("-v").stderr
    dropped = 10 - (len(used.rows()) - before)
    assert 0 < dropped < 10
    assert f"10 lines read = {10 - dropped} rows + 0 unparsed + 0 ignored + {dropped} dropped by a trigger" in said
    assert "dropped by trigger odd on logs_2025_11_17, and are in no table" in said
    assert "report" not in said


def test_a_line_whose_row_a_trigger_drops_stays_among_the_rejected_ones(used: Site) -> None:
    used.query(NOTHING.format(condition="true"))
    used.query("CREATE TRIGGER all_of_them BEFORE INSERT ON logs_2025_11_17 FOR EACH ROW EXECUTE PROCEDURE nothing()")
    (line,) = lines(30, 31)
    used.query(
        "INSERT INTO rejected_lines (node_id, source, line_offset, reason, line) "
        "SELECT id, 'access.log', 0, 'of an older version', %s FROM nodes",
        line.rstrip().encode(),
    )
    said = used.run("-v", "--replay-rejected").stderr
    assert "a trigger on logs drops it" in said
    assert [kept for _, kept in used.rejected()] == [line.rstrip().encode()]
