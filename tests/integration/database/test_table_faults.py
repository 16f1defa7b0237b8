"""Tables that refuse, or lose, what is right: the lines wait, and what the message says mends it."""

from __future__ import annotations

import re

import pytest
from helpers.load_paths import LOAD_PATHS
from helpers.site import Site, lines, users

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
        for statement in re.findall(r"((?:ALTER (?:TABLE|SEQUENCE)|SELECT setval)[^;,\n]*(?:, \([^;\n]*\)\))?)", said)
    ]


def refused_until_mended(site: Site, *expected: str, first: int = 5) -> None:
    """A run stores nothing of new lines and says why; after the statements that it names the next run stores all."""
    site.append(*lines(first, first + 10))
    said = site.run(status=Exit.OPERATOR).stderr
    for text in expected:
        assert text in said
    assert site.buffered() == users(first, first + 10)
    assert site.rejected() == []
    statements = advice(said)
    assert statements, said
    for statement in statements:
        site.query(statement)
    site.append(*lines(first + 10, first + 20))
    site.run()
    assert site.emails() == users(0, first + 20)
    assert site.rejected() == []


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


def test_a_sequence_of_rows_that_gives_old_ids_under_a_primary_key(used: Site) -> None:
    used.query("ALTER TABLE logs_2025_11_17 ADD CONSTRAINT one PRIMARY KEY (id)")
    used.query("SELECT setval('logs_id_seq', 2)")
    refused_until_mended(used, "sequence logs_id_seq gives ids that are there")


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
    refused_until_mended(used, "trigger keep_out on users drops names that rows need")


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
