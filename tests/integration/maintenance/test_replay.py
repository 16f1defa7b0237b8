"""Unparsed lines that can be parsed now move into `logs`, each once; all others stay where they are."""

from __future__ import annotations

import datetime
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import psycopg
import pytest
from helpers import faults, forked
from helpers.load_paths import KEYS_IN_BULK, ROW_BY_ROW
from helpers.site import AT, Site, line, lines, users, wait_until

from xraylog import records
from xraylog.accesslog.grammar import Grammar
from xraylog.commands import maintain
from xraylog.database import schema, session
from xraylog.load_result import LoadResult
from xraylog.maintenance import replay
from xraylog.records import AccessRecord, BadLine, Ignored

Connection = psycopg.Connection[tuple[Any, ...]]
REASON = "expected something else"
REPLAY = "--replay-rejected"

REJECT = """
    INSERT INTO rejected_lines (node_id, source, line_offset, reason, line)
    SELECT (SELECT id FROM nodes WHERE name = %s), '/var/log/xray/access.log', 0, %s, %s
"""


@pytest.fixture
def site(site: Site, conn: Connection) -> Site:
    """Return a site that has its tables, and two nodes."""
    schema.ensure(conn)
    conn.execute("INSERT INTO nodes (name) VALUES ('n1'), ('n2')")
    return site


def reject(site: Site, *text: str | bytes, node: str = "n1", reason: str = REASON) -> None:
    """Store these lines as unparsed ones, as a version that could not parse them did."""
    with psycopg.connect(**site.database) as conn:  # type: ignore[arg-type]
        for one in text:
            raw = one if isinstance(one, bytes) else one.encode()
            conn.execute(REJECT, [node, reason, raw.removesuffix(b"\n")])


def table(site: Site) -> list[tuple[Any, ...]]:
    """Return all rows of rejected_lines."""
    return site.query("SELECT * FROM rejected_lines ORDER BY id")


def counts(read: int, rows: int, ignored: int, still: int) -> str:
    return f"{read} unparsed lines read = {rows} rows + {ignored} ignored + {still} still unparsed"


# --- what moves


def test_a_line_that_an_older_version_did_not_understand_becomes_a_row(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Grammar.parse_line

    def without_rejected(self: Grammar, raw: bytes) -> AccessRecord | BadLine | Ignored:
        return BadLine(raw, "expected accepted, found rejected") if b" rejected " in raw else real(self, raw)

    refused = "2025/11/17 10:15:23 from 203.0.113.1:50000 rejected  proxy/vless: invalid request user id\n"
    site.append(line(0), refused, "damaged\n", line(1))
    with monkeypatch.context() as older:
        older.setattr(Grammar, "parse_line", without_rejected)
        assert site.run_here() == 0
    assert len(site.rejected()) == 2
    site.run(REPLAY)
    assert [row[3] for row in site.rows()] == ["accepted", "accepted", "rejected"]
    assert [kept for _, kept in site.rejected()] == [b"damaged"]


@pytest.mark.parametrize("load_path", [ROW_BY_ROW, KEYS_IN_BULK])
def test_what_is_a_record_moves_what_is_ignored_goes_and_what_is_bad_stays_as_it_is(site: Site, load_path: str) -> None:
    reject(site, line(2), "damaged\n", line(0), "# a comment\n", line(1), "damaged too\n")
    bad = [row for row in table(site) if row[-1].startswith(b"damaged")]
    site.load_path = load_path
    assert site.run_here(REPLAY) == 0
    assert [row[-2] for row in site.rows()] == ["u2", "u0", "u1"]
    assert {row[-1] for row in site.rows()} == {"n1"}
    assert table(site) == bad
    assert counts(6, 3, 1, 2) in site.output()
    assert f"unparsed line {bad[0][0]}: expected a timestamp first, found none" in site.output()


def test_shapes_that_older_versions_rejected_move(site: Site) -> None:
    start = "2025/11/17 10:15:23 from 203.0.113.1:50000 "
    reject(
        site,
        start + "accepted tcp:www.example.com:443 [in >> out] request_bytes: 7 response_bytes: 9",
        start + "accepted unix:/run/x.sock [in >> out] email: bob",
        "2025/11/17 10:15:23 http: TLS handshake error from 203.0.113.154:59240: EOF",
        "2025/11/17 10:15:23 UDP:[Masked IPv4]:53 got answer: www.example.com. -> [[Masked IPv4]] 23.4ms",
        start + "accepted mailto:alice:25 [in >> out]",
    )
    assert site.run_here(REPLAY) == 0
    assert counts(5, 2, 2, 1) in site.output()
    assert site.query("SELECT address FROM endpoints ORDER BY 1") == [("/run/x.sock",), ("www.example.com",)]
    assert site.query("SELECT email FROM users") == [("bob",)]


def test_it_says_nothing_under_cron_and_writes_no_statistics(site: Site) -> None:
    reject(site, line(0), "damaged\n")
    site.append(line(1))
    done = site.run(REPLAY)
    assert (done.stdout, done.stderr) == ("", "")
    assert not site.stats.exists()
    assert site.log.read_text() == line(1)


def test_nothing_is_replayed_twice(site: Site) -> None:
    reject(site, line(0), "damaged\n")
    assert counts(2, 1, 0, 1) in site.run("-v", REPLAY).stderr
    assert counts(1, 0, 0, 1) in site.run("-v", REPLAY).stderr
    assert site.emails() == users(0, 1)


def test_equal_lines_become_equal_rows(site: Site) -> None:
    reject(site, *[line(7)] * 10)
    site.run(REPLAY)
    assert site.emails() == Counter({"u7": 10})


def test_an_empty_database_has_nothing_to_replay(site: Site, conn: Connection) -> None:
    conn.execute("DROP TABLE logs, log_positions, rejected_lines, users, endpoints, protocols, tags, nodes")
    assert counts(0, 0, 0, 0) in site.run("-v", REPLAY).stderr


def test_lines_of_other_nodes_are_left_alone_for_they_have_other_zones(site: Site) -> None:
    site.set("parser", timezone="Asia/Tehran")
    reject(site, line(0))
    reject(site, line(1), line(2), node="n2")
    said = site.run("-v", REPLAY).stderr
    assert "2 unparsed lines of other nodes are left alone" in said
    assert counts(1, 1, 0, 0) in said
    ((at, *_),) = site.rows()
    assert at.isoformat() == "2025-11-17T06:45:23.123456+00:00"
    site.set("parser", timezone="UTC", node="n2")
    site.run(REPLAY)
    assert [row[-1] for row in site.rows()] == ["n1", "n2", "n2"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"{line(0)}{line(1)}", id="two lines in one, put there by hand"),
        pytest.param(
            '{"timestamp": "2025-11-17 10:15:23+00", "source_ip": "203.0.113.10", "source_port": 1, "action": "api", '
            '"protocol": null, "destination": null, "destination_port": null, "inbound_tag": null, '
            '"outbound_tag": null, "email": "alice", "offset": 0}',
            id="a row of the buffer, which a client could forge",
        ),
        pytest.param(b"\xff" * 100, id="any bytes"),
    ],
)
def test_what_is_no_line_of_xrays_stays(site: Site, text: str | bytes) -> None:
    reject(site, text)
    before = table(site)
    assert counts(1, 0, 0, 1) in site.run("-v", REPLAY).stderr
    assert table(site) == before


def test_a_line_of_a_day_to_come_is_a_row_when_the_day_has_come(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return datetime.datetime.now(tz) + datetime.timedelta(days=3)

    ahead = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=4)
    site.append(line(0, f"{ahead:%Y/%m/%d %H:%M:%S}"))
    site.run()
    assert counts(1, 0, 0, 1) in site.run("-v", REPLAY).stderr
    monkeypatch.setattr(maintain, "datetime", Later)
    assert site.run_here(REPLAY) == 0
    assert site.emails() == users(0, 1)
    assert site.rejected() == []


def test_a_line_that_was_not_kept_whole_stays(site: Site, monkeypatch: pytest.MonkeyPatch, conn: Connection) -> None:
    """Its beginning could be parsed as a whole line, with half of a name."""
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 10)
    site.append("damaged, and longer than what is kept\n")
    assert site.run_here() == 0
    conn.execute("UPDATE rejected_lines SET line = %s", [line(0).rstrip().encode()])
    assert counts(1, 0, 0, 1) in site.run("-v", REPLAY).stderr
    assert site.emails() == Counter()


# --- what the database refuses


@pytest.mark.parametrize("load_path", [ROW_BY_ROW, KEYS_IN_BULK])
def test_a_row_that_the_database_refuses_stays_rejected_and_its_neighbours_load(
    site: Site, conn: Connection, load_path: str
) -> None:
    conn.execute("ALTER TABLE logs ADD CONSTRAINT no_13 CHECK (destination_port <> 13)")
    reject(site, *lines(0, 20), line(20).replace(":443", ":13"), *lines(21, 40), "# a comment\n")
    before = table(site)
    site.load_path = load_path
    assert site.run_here(REPLAY) == 0
    assert counts(41, 39, 1, 1) in site.output()
    assert "no_13" in site.output()
    assert site.emails() == users(0, 40) - Counter(["u20"])
    assert table(site) == [before[20]]
    conn.execute("ALTER TABLE logs DROP CONSTRAINT no_13")
    assert site.run_here(REPLAY) == 0
    assert site.emails() == users(0, 40)
    assert table(site) == []


@pytest.mark.parametrize(
    ("host", "email", "moves"),
    [
        ("www.example.com", "bob", True),
        ("198.51.100.7", "bob", False),
        ("[2606:4700::6810:84e5]", "bob", False),
        ("www.example.com", "bob1.5", False),
        ("cdn.1.2.example.com", "bob", False),
    ],
)
def test_of_masked_lines_those_move_that_are_as_xray_wrote_them(
    site: Site, conn: Connection, host: str, email: str, moves: bool
) -> None:
    """Otherwise a user, a destination or a tag could be stored that is in no log."""
    site.set("privacy", mask_source="24/48")
    conn.execute("ALTER TABLE logs ADD CONSTRAINT no_7777 CHECK (source_port <> 7777)")
    site.append(
        f"2025/11/17 10:15:23 from 203.0.113.77:7777 accepted tcp:{host}:443 [in >> out] email: {email}\n", line(0)
    )
    assert site.run_here() == 0
    kept = table(site)
    assert len(kept) == 1
    conn.execute("ALTER TABLE logs DROP CONSTRAINT no_7777")
    assert site.run_here(REPLAY) == 0
    if moves:
        assert [(row[1], row[5], row[9]) for row in site.rows()][1:] == [("203.0.113.0/24", host, email)]
        assert table(site) == []
    else:
        assert table(site) == kept
        assert counts(1, 0, 0, 1) in site.run(REPLAY, "-v").stderr


def test_a_line_with_a_name_that_the_database_refuses_stays(site: Site, conn: Connection) -> None:
    conn.execute("ALTER TABLE endpoints ADD CHECK (length(address) <= 20)")
    reject(site, line(0), line(1).replace("host1.example", "x" * 21), line(2))
    before = table(site)
    said = site.run("-v", REPLAY).stderr
    assert counts(3, 2, 0, 1) in said
    assert "violates check constraint" in said
    assert site.emails() == Counter(["u0", "u2"])
    assert table(site) == [before[1]]


def test_a_check_that_refuses_all_of_them_leaves_all_of_them(site: Site, conn: Connection) -> None:
    """They may be unparsed lines because of that CHECK, so it is no reason to refuse the table."""
    conn.execute("ALTER TABLE logs ADD CHECK (destination_port <> 443)")
    reject(site, *lines(0, 150))
    before = table(site)
    assert counts(150, 0, 0, 150) in site.run("-v", REPLAY).stderr
    assert table(site) == before


def test_an_internal_error_of_a_trigger_leaves_all_of_them_and_is_named(site: Site, conn: Connection) -> None:
    """Such an error does not show which row caused it."""
    conn.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'broken' USING ERRCODE = 'XX000'; END $$"
    )
    site.append(line(9))
    site.run()
    conn.execute("CREATE TRIGGER failing BEFORE INSERT ON logs_2025_11_17 FOR EACH ROW EXECUTE PROCEDURE fail()")
    reject(site, *lines(0, 3))
    before = table(site)
    said = site.run(REPLAY, status=3).stderr
    assert "broken (SQLSTATE XX000); what was not moved stays in rejected_lines" in said
    assert table(site) == before


def test_counts_that_do_not_add_up_are_an_error(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """No input can cause this, only a bug of our own."""
    monkeypatch.setattr(replay, "replay", lambda *_: iter([(LoadResult(lines=2, rows=1), [])]))
    assert "the counts do not add up: 2 lines were read; please report this" in site.run(REPLAY, status=1).stderr


# --- batches


def test_batches_are_bounded_by_lines_and_bytes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "BATCH_BYTES", 1000)
    site.set("parser", batch_size=7)
    long = line(99).replace("tcp:host99.example:443", f"http://host99.example/{'x' * 2000}")
    reject(site, *lines(0, 20), long, long, *lines(20, 40))
    read: list[list[int]] = []
    real = replay._read

    def measure(*arguments: Any) -> Sequence[tuple[int, bytes | None, str]]:
        rows = real(*arguments)
        read.append([len(text or b"") for _, text, _ in rows])
        return rows

    monkeypatch.setattr(replay, "_read", measure)
    assert site.main(REPLAY) == 0
    assert [len(sizes) for sizes in read] == [7, 7, 6, 1, 1, 7, 7, 6, 0]
    assert site.emails() == users(0, 40) + Counter({"u99": 2})
    assert table(site) == []


def test_what_is_rejected_meanwhile_is_left_to_the_next_replay(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a replay might never end while a log is loaded."""
    site.set("parser", batch_size=1)
    reject(site, line(0), "damaged\n")
    real = replay._read

    def one_more(*arguments: Any) -> Sequence[tuple[int, bytes | None, str]]:
        reject(site, "damaged\n")
        return real(*arguments)

    monkeypatch.setattr(replay, "_read", one_more)
    assert site.main(REPLAY) == 0
    assert len(table(site)) == 4  # three were asked for: two lines, and the end


# --- what happens meanwhile


def struck(site: Site, steps: Iterable[int], strike: Callable[[], None]) -> set[str]:
    """Run replays, calling `strike` at one step of each, until one ends; check after each that a replay moves the rest.

    Return the steps that were reached.
    """
    site.set("parser", batch_size=4)
    expected: Counter[str] = Counter()
    for step in steps:
        before = len(site.steps())
        at = AT.replace("17 ", f"{1 + step % 28:02d} ")
        reject(site, *lines(step * 100, step * 100 + 3, at), "damaged\n", "# a comment\n", line(7))
        expected.update([*users(step * 100, step * 100 + 3), "u7"])
        status = site.run_here(REPLAY, inside=faults.after_step(step, site.folder / "steps", strike))
        if len(site.steps()) == before:
            assert status == 0
            return set(site.steps())
        assert status in (0, 1, -9), site.output()[-1000:]
        assert "Traceback" not in site.output()
        assert site.run_here(REPLAY) == 0, site.output()[-1000:]
        assert site.emails() == expected, site.steps()[-1]
        assert [kept for _, kept in site.rejected()] == [b"damaged"]
        site.query("DELETE FROM rejected_lines")  # otherwise each replay would have more steps than the one before
    raise AssertionError


@pytest.mark.faults
def test_a_replay_that_is_killed_at_any_step_moves_each_line_once(site: Site, steps: faults.Steps) -> None:
    names = struck(site, steps, faults.kill)
    steps.expect({"execute", "commit", "copy", "copy write", "copy end"}, names, site.folder / "steps")


@pytest.mark.faults
def test_a_session_ended_at_every_third_step(site: Site) -> None:
    def end_our_sessions() -> None:
        site.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'parse_logs'"
        )

    names = struck(site, itertools.count(2, 3), end_our_sessions)
    assert {"execute", "commit"} <= names
    assert "what was not moved stays in rejected_lines" in site.output()


@pytest.mark.faults
def test_killed_at_every_fourth_step_while_the_database_refuses_a_row(site: Site, conn: Connection) -> None:
    """Lines that were moved before the refused row was found are not moved again."""
    conn.execute("ALTER TABLE logs ADD CHECK (destination_port <> 13)")
    bad = line(7).replace(":443", ":13")
    expected: Counter[str] = Counter()
    for step in itertools.count(2, 4):
        reject(site, line(step), line(step), bad, line(step))
        expected[f"u{step}"] += 3
        status = site.run_here(REPLAY, kill_at=step)
        assert site.run_here(REPLAY) == 0
        assert site.emails() == expected, site.steps()[-1:]
        assert [kept for _, kept in site.rejected()] == [bad.rstrip().encode()]
        site.query("DELETE FROM rejected_lines")
        if status == 0:
            return


def all_at_once(site: Site, conn: Connection, *runs: Sequence[str], meanwhile: Callable[[], object]) -> None:
    """Start runs that wait for one another after reading what they will store; then call `meanwhile`."""
    key = session.lock_key("node n1")
    conn.execute("SELECT pg_advisory_lock(%s)", [key])
    with (site.folder / "printed").open("w") as printed:
        children = [site.start_here(printed.fileno(), *run) for run in runs]
    wait_until(lambda: site.runs_that_wait() == len(runs))
    meanwhile()
    conn.execute("SELECT pg_advisory_unlock(%s)", [key])
    assert [forked.wait(child) for child in children] == [0] * len(runs)


def test_two_replays_and_a_run_at_once_store_every_line_once(site: Site, conn: Connection) -> None:
    reject(site, *lines(0, 50), "damaged\n")
    site.append(*lines(50, 100), "damaged\n")
    all_at_once(site, conn, [REPLAY], [REPLAY], [], meanwhile=lambda: None)
    assert site.emails() == users(0, 100)
    assert len(site.rejected()) == 2


def test_a_line_that_a_person_removes_meanwhile_does_not_come_back(site: Site, conn: Connection) -> None:
    reject(site, *lines(0, 10))
    remove = "DELETE FROM rejected_lines WHERE id = (SELECT min(id) FROM rejected_lines)"
    all_at_once(site, conn, [REPLAY], meanwhile=lambda: site.query(remove))
    assert site.emails() == users(1, 10)


def test_a_partition_dropped_and_a_name_deleted_meanwhile_are_recreated(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are there when they are looked up, and gone in the transaction that needs them."""
    reject(site, *lines(0, 10))
    real, drops = replay._store, ["DROP TABLE logs_2025_11_17; DELETE FROM users"]

    def too_late(*arguments: Any) -> Any:
        while drops:
            site.query(drops.pop())
        return real(*arguments)

    monkeypatch.setattr(replay, "_store", too_late)
    assert site.main(REPLAY) == 0
    assert site.emails() == users(0, 10)


# --- a database that cannot be used


def test_a_database_that_is_away_is_an_error_and_changes_nothing(site: Site) -> None:
    reject(site, line(0))
    site.append(line(1))
    site.away()
    assert "what was not moved stays in rejected_lines" in site.run(REPLAY, status=1).stderr
    assert not site.buffer.exists()
    assert site.log.read_text() == line(1)
    site.back()
    site.run(REPLAY)
    assert site.emails() == users(0, 1)


def test_a_migration_that_is_not_finished_is_waited_for(site: Site, conn: Connection) -> None:
    conn.execute("CREATE TABLE logs_old ()")
    conn.execute("COMMENT ON TABLE logs_old IS 'xraylog: unfinished migration into logs, times read in UTC'")
    reject(site, line(0))
    assert "logs is being migrated" in site.run(REPLAY, status=1).stderr
    assert len(table(site)) == 1


def test_a_line_without_a_reason_or_a_reason_without_a_line_stops_nothing(site: Site, conn: Connection) -> None:
    """In a table created by hand, any column may be NULL."""
    site.append(*lines(0, 1))
    site.run()
    conn.execute("ALTER TABLE rejected_lines ALTER reason DROP NOT NULL, ALTER line DROP NOT NULL")
    conn.execute(
        "INSERT INTO rejected_lines (node_id, source, line_offset, reason, line) "
        "SELECT id, 'by hand', number, reason, line FROM nodes, (VALUES (0, NULL, %s::bytea), (1, 'lost', NULL)) "
        "AS made (number, reason, line) WHERE name = 'n1'",
        [lines(1, 2)[0].rstrip().encode()],
    )
    site.run(REPLAY)
    assert site.emails() == users(0, 2)
    assert site.query("SELECT reason FROM rejected_lines") == [("lost",)]


def test_a_trigger_that_keeps_the_lines_is_named_and_nothing_is_moved(site: Site, conn: Connection) -> None:
    reject(site, line(0))
    conn.execute("CREATE FUNCTION keeps() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    conn.execute("CREATE TRIGGER k BEFORE DELETE ON rejected_lines FOR EACH ROW EXECUTE PROCEDURE keeps()")
    said = site.run(REPLAY, status=3).stderr
    assert "rejected_lines keeps lines that a replay deletes" in said
    assert "ALTER TABLE rejected_lines DISABLE TRIGGER k" in said
    assert site.emails() == users(0, 0)
    conn.execute("ALTER TABLE rejected_lines DISABLE TRIGGER k")
    site.run(REPLAY)
    assert site.emails() == users(0, 1)


KEPT_BY_RULE = """
    CREATE RULE keep AS ON DELETE TO rejected_lines
    DO INSTEAD UPDATE rejected_lines SET source = 'old' WHERE id = old.id RETURNING old.*
"""
KEPT_BY_TRIGGER = """
    CREATE FUNCTION back() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO rejected_lines VALUES (OLD.*); RETURN NULL; END $$;
    CREATE TRIGGER keep AFTER DELETE ON rejected_lines FOR EACH ROW EXECUTE PROCEDURE back()
"""


@pytest.mark.parametrize(
    "keep", ["CREATE RULE keep AS ON DELETE TO rejected_lines DO INSTEAD NOTHING", KEPT_BY_RULE, KEPT_BY_TRIGGER]
)
def test_what_keeps_the_lines_while_it_says_that_they_are_deleted_is_named(
    site: Site, conn: Connection, keep: str
) -> None:
    """Each replay stored these lines once more."""
    reject(site, line(0), "# ignored\n")
    conn.execute(keep)
    said = site.run("--replay-rejected", status=3).stderr
    remove = re.findall("(?:DROP RULE keep ON|ALTER TABLE rejected_lines DISABLE TRIGGER keep)[^;]*", said)
    assert len(remove) == 1, said
    assert site.emails() == Counter()
    conn.execute(remove[0])
    site.run("--replay-rejected")
    assert site.emails() == users(0, 1)
    assert site.rejected() == []


def test_a_hand_made_table_whose_lines_cannot_be_told_apart_is_refused(site: Site, conn: Connection) -> None:
    reject(site, line(0))
    conn.execute("ALTER TABLE rejected_lines DROP COLUMN id")
    said = site.run(REPLAY, status=3).stderr
    assert "rejected_lines.id: expected a unique column, found none" in said
    conn.execute("ALTER TABLE rejected_lines ADD id bigserial UNIQUE")
    conn.execute("ALTER TABLE rejected_lines ALTER COLUMN line TYPE text USING line::text")
    site.run(REPLAY)
    assert site.emails() == users(0, 1)
