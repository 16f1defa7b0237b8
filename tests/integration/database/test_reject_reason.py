"""Why xray rejected a connection is in its row: in a new database, in an older one, and after a wait in the buffer."""

from __future__ import annotations

import json
import re

import pytest
from helpers.site import Site, line

from xraylog.database import ddl, reject_reason
from xraylog.database.session import Connection

REJECTED = "2025/11/17 10:15:23.123456 from 203.0.113.9:4 rejected  "
WHY = {
    "proxy/vless/encoding: invalid request user id: 5783a3e7-e373-51cd-8642-c83782b807c5": "invalid user",
    "proxy/socks: insufficient header > EOF": "connection closed",
}
TEXT = [line(0), *(f"{REJECTED}{why}\n" for why in WHY)]
STORED = [("accepted", ""), *(("rejected", name) for name in WHY.values())]
UNKNOWN = [("accepted", ""), *[("rejected", "")] * len(WHY)]


def reasons(site: Site) -> list[tuple[str, str | None]]:
    return site.query("SELECT action, reject_reason FROM logs ORDER BY id")  # type: ignore[return-value]


def forget_column(conn: Connection) -> None:
    """Leave `logs` as it was before there was the column."""
    conn.execute(f"ALTER TABLE logs DROP COLUMN {ddl.REJECT_REASON}")


def test_an_older_database_gets_the_column_and_no_row_is_rewritten(site: Site, conn: Connection) -> None:
    files = "SELECT relname, relfilenode FROM pg_class WHERE relname LIKE 'logs%' AND relkind = 'r' ORDER BY 1"
    site.append(*TEXT)
    site.run()
    forget_column(conn)
    before = conn.execute(files).fetchall()
    site.append(*TEXT)
    site.run()
    assert reasons(site) == [*((action, None) for action, _ in STORED), *STORED]
    assert conn.execute(files).fetchall() == before
    assert site.output() == ""


def test_a_reader_in_the_way_holds_up_no_row_and_the_next_run_adds_the_column(
    site: Site, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reject_reason, "RETRY_S", 0)
    monkeypatch.setattr(reject_reason, "LOCK_TIMEOUT", "10ms")
    site.append(*TEXT)
    site.run()
    forget_column(conn)
    with conn.transaction():
        conn.execute("SELECT FROM logs")
        site.append(*TEXT)
        assert site.run_here() == 0
        assert site.query("SELECT count(*) FROM logs") == [(2 * len(TEXT),)]
    assert site.output().count("the next run tries to add it again") == 1
    site.append(*TEXT)
    site.run()
    assert reasons(site)[2 * len(TEXT) :] == STORED


def test_a_server_that_goes_away_while_the_column_is_added_is_an_outage(site: Site, conn: Connection) -> None:
    site.append(*TEXT)
    site.run()
    forget_column(conn)
    conn.execute(
        "CREATE FUNCTION shut_down() RETURNS event_trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); END'"
    )
    conn.execute("CREATE EVENT TRIGGER down ON ddl_command_start EXECUTE PROCEDURE shut_down()")
    site.append(*TEXT)
    assert "PostgreSQL is not available: terminating connection" in site.run().stderr
    assert len(site.buffer.read_bytes().splitlines()) == len(TEXT) + 2
    conn.execute("DROP EVENT TRIGGER down")
    site.run()
    assert reasons(site) == [*((action, None) for action, _ in STORED), *STORED]


@pytest.mark.parametrize("arguments", [["--make-partitions", "1"], ["--replay-rejected"]])
def test_each_command_says_what_to_do_with_a_column_of_that_name_and_another_type(
    site: Site, conn: Connection, arguments: list[str]
) -> None:
    site.append(*TEXT)
    site.run()
    conn.execute(f"ALTER TABLE logs ALTER {ddl.REJECT_REASON} TYPE varchar(20)")
    said = site.run(*arguments).stderr
    assert f"logs.{ddl.REJECT_REASON}: expected the type text, found character varying, " in said
    conn.execute(re.findall("ALTER TABLE [^;]*", said)[0])
    assert site.run(*arguments).stderr == ""


@pytest.mark.parametrize("choice", [0, 1])
@pytest.mark.parametrize("kind", ["varchar(20)", "integer", "name"])
def test_a_column_of_that_name_and_another_type_holds_up_no_row_until_the_owner_has_pasted_what_mends_it(
    site: Site, conn: Connection, kind: str, choice: int
) -> None:
    site.append(*TEXT)
    site.run()
    forget_column(conn)
    conn.execute(f"ALTER TABLE logs ADD COLUMN {ddl.REJECT_REASON} {kind}")  # type: ignore[arg-type]  # from above
    site.append(*TEXT)
    said = site.run().stderr
    assert said.strip().partition("logs.")[2] in site.run("--check", status=3).stdout
    assert reasons(site) == [*((action, None) for action, _ in 2 * STORED)]
    conn.execute(re.findall("ALTER TABLE [^;]*", said)[choice])
    site.append(*TEXT)
    assert site.run().stderr == ""
    assert reasons(site)[2 * len(TEXT) :] == STORED


def test_the_buffer_keeps_the_reasons_where_older_versions_do_not_look(site: Site) -> None:
    site.away()
    site.append(*TEXT)
    site.run()
    records = [json.loads(text) for text in site.buffer.read_bytes().splitlines()[1:-1]]
    assert not any("reject_reason" in record for record in records)  # they take no key that they do not know
    site.back()
    site.run()
    assert reasons(site) == STORED


def test_a_buffer_of_an_older_version_has_rows_without_a_reason(site: Site) -> None:
    site.away()
    site.append(*TEXT)
    site.run()
    *before, mark = site.buffer.read_bytes().splitlines(keepends=True)
    found = json.loads(mark)
    del found["mark"]["reject_reasons"]
    site.buffer.write_bytes(b"".join(before) + json.dumps(found).encode() + b"\n")
    known = json.loads(site.state.read_text())
    del known["buffered"], known["last_batch"]
    site.state.write_text(json.dumps(known))
    site.back()
    site.run()
    assert reasons(site) == UNKNOWN
