"""No timeout that a role or a database prescribes ends a run: each transaction sets its own."""

from __future__ import annotations

import contextlib
import datetime
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from helpers.load_paths import ATTACH, LOAD_PATHS
from helpers.site import AT, Site, day, line, lines, users, wait_until

from xraylog.database import deadline, positions, schema, session
from xraylog.database.capabilities import Capabilities
from xraylog.ingest import online

# Each is longer than what a run does before it can set its own.
PRESCRIBED = {
    "lock_timeout": "200ms",
    "statement_timeout": "500ms",
    "idle_in_transaction_session_timeout": "500ms",
    "idle_session_timeout": "1s",
    "transaction_timeout": "500ms",
}
WAITED = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'parse_logs' AND pid <> pg_backend_pid()
      AND state = %s AND now() - state_change > %s::interval
"""


def prescribe(site: Site, conn: psycopg.Connection[tuple[Any, ...]]) -> None:
    """The sessions of runs begin with short timeouts, as far as the server has them: as a role's settings do it."""
    known = {name for (name,) in conn.execute("SELECT name FROM pg_settings")}
    options = " ".join(f"-c {name}={value}" for name, value in PRESCRIBED.items() if name in known)
    site.set("postgresql", options=options)


def waited(site: Site, state: str) -> bool:
    """Whether a session of a run has been in this state for longer than the timeouts for it."""
    ((count,),) = site.query(WAITED, state, "1200ms" if state == "idle" else "600ms")
    return bool(count)


def test_a_transaction_sets_every_timeout_and_the_timers_of_tcp(site: Site) -> None:
    with session.connect(site.database) as conn, session.transaction(conn):
        server = Capabilities.of(conn)
        expected = {
            "lock_timeout": "30s",
            "statement_timeout": "0",
            "idle_in_transaction_session_timeout": "10min",
            "tcp_keepalives_idle": "20",
            "tcp_keepalives_interval": "10",
            "tcp_keepalives_count": "3",
            **({"tcp_user_timeout": "60000"} if server.tcp_user_timeout else {}),
            **({"idle_session_timeout": "0"} if server.idle_session_timeout else {}),
            **({"transaction_timeout": "0"} if server.transaction_timeout else {}),
        }
        found = {name: conn.execute(f"SHOW {name}").fetchone() for name in expected}  # type: ignore[arg-type]
    assert found == {name: (value,) for name, value in expected.items()}


def test_an_answer_has_the_timeouts_of_a_transaction(site: Site) -> None:
    short = "-c lock_timeout=200ms -c statement_timeout=500ms"
    with session.connect({**site.database, "options": short}) as conn:
        assert session.answer(conn, "SELECT current_setting('lock_timeout') FROM pg_sleep(0.6)") == [("30s",)]
        assert conn.execute("SHOW lock_timeout").fetchall() == [("200ms",)]


@pytest.mark.skipif(not psycopg.Pipeline.is_supported(), reason="this libpq has no pipelines")
def test_no_answer_in_a_pipeline_ends_it_and_the_session(site: Site) -> None:
    """The end of a pipeline asks the server once more: that waits for nothing."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.raises(session.Unavailable, match=r"no answer for 0\.2 s from the server's process"))
        conn = stack.enter_context(session.connect(site.database, answer_timeout_s=0.2))
        pipeline = stack.enter_context(conn.pipeline())
        conn.execute("SELECT pg_sleep(600)")
        pipeline.sync()
    assert conn.closed


def test_the_trial_of_a_check_has_the_timeouts_of_a_run(
    site: Site, conn: psycopg.Connection[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With those of the role, it was ended, and reported that a run would be."""
    prescribe(site, conn)
    site.append(*lines(0, 10))
    site.run()
    ensure, seen = schema.ensure, []

    def ensure_seen(trial: session.Connection) -> schema.Findings:
        seen.append(trial.execute("SHOW idle_in_transaction_session_timeout").fetchone())
        return ensure(trial)

    monkeypatch.setattr(schema, "ensure", ensure_seen)
    assert site.main("--check") == 0
    assert {*seen} == {("10min",)}


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_timeouts_of_the_role_or_the_database_decide_nothing(
    site: Site, conn: psycopg.Connection[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, load_path: str
) -> None:
    """While a run computes in a transaction, and between two of them."""
    site.append(*lines(0, 10))
    site.run()
    site.load_path = load_path
    prescribe(site, conn)
    move, drain = positions.move, online.drain

    def move_later(*arguments: Any) -> positions.Position:
        wait_until(lambda: waited(site, "idle in transaction"))
        return move(*arguments)

    def drain_later(*arguments: Any) -> None:
        wait_until(lambda: waited(site, "idle"))
        drain(*arguments)

    monkeypatch.setattr(positions, "move", move_later)
    monkeypatch.setattr(online, "drain", drain_later)
    site.append(*lines(10, 20, day(1) if load_path == ATTACH else AT), "damaged\n")
    assert site.run_here() == 0
    assert "not available" not in site.output()
    assert site.emails() == users(0, 20)


def test_each_statement_of_a_run_is_in_a_transaction_with_its_own_timeouts(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But the one that asks before anything else whether the server takes changes, and what PostgreSQL runs in none."""
    outside = site.folder / "outside"  # runs are processes of their own
    transaction, answer, execute = session.transaction, session.answer, psycopg.Cursor.execute
    within: list[psycopg.Connection[Any]] = []

    @contextlib.contextmanager
    def opened(conn: session.Connection, *locks: str, **keywords: bool) -> Iterator[None]:
        within.append(conn)
        with contextlib.ExitStack() as stack:
            stack.callback(within.remove, conn)
            stack.enter_context(transaction(conn, *locks, **keywords))
            yield

    def answered(conn: session.Connection, *arguments: Any, **keywords: bool) -> list[tuple[Any, ...]]:
        within.append(conn)
        with contextlib.ExitStack() as stack:
            stack.callback(within.remove, conn)
            return answer(conn, *arguments, **keywords)

    def executed(self: psycopg.Cursor[Any], query: Any, *arguments: Any, **keywords: Any) -> psycopg.Cursor[Any]:
        if isinstance(self.connection, deadline.Connection) and self.connection not in within:
            with outside.open("a") as found:
                found.write(f"{query}\n")
        return execute(self, query, *arguments, **keywords)

    monkeypatch.setattr(session, "transaction", opened)
    monkeypatch.setattr(session, "answer", answered)
    monkeypatch.setattr(psycopg.Cursor, "execute", executed)
    site.append(*lines(0, 10), "damaged\n")
    assert site.run_here() == 0
    site.away()
    site.append(*lines(10, 20), "damaged\n")
    assert site.run_here() == 0
    site.back()
    site.append(*lines(20, 30, day(1)))
    for options in [], ["--make-partitions", "1"], ["--replay-rejected"], ["--dry-run"]:
        assert site.run_here(*options) == 0, site.output()
    assert site.emails() == users(0, 30)
    old = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime(2025, 1, 1, tzinfo=datetime.timezone.utc)
    site.set("retention", days=old.days, prune_names="true")
    assert site.run_here() == 0, site.output()
    assert site.emails() == users(0, 20)
    site.query("ALTER TABLE logs ADD CONSTRAINT not_this_port CHECK (source_port <> 1)")
    site.append(line(30).replace(":1054 ", ":1 "))
    assert site.run_here() == 0, site.output()
    assert "DROP CONSTRAINT not_this_port" in site.output()
    found = outside.read_text().splitlines()
    assert {text for text in found if "DETACH PARTITION" not in text} == {
        "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')"
    }


@pytest.mark.parametrize("table", ["users", "rejected_lines"])
def test_timeouts_of_the_role_or_the_database_end_no_wait_for_a_lock(
    site: Site, conn: psycopg.Connection[tuple[Any, ...]], table: str
) -> None:
    with_blocker(site, conn, f"LOCK TABLE {table}")


def test_timeouts_of_the_role_or_the_database_end_no_wait_for_another_run(
    site: Site, conn: psycopg.Connection[tuple[Any, ...]]
) -> None:
    """The node's lock is asked for in the first round trip of a transaction, together with its settings."""
    with_blocker(site, conn, f"SELECT pg_advisory_xact_lock({session.lock_key(positions.node_lock('n1'))})")


def with_blocker(site: Site, conn: psycopg.Connection[tuple[Any, ...]], statement: str) -> None:
    """A run waits for what the statement locks, for longer than the timeouts."""
    site.append(*lines(0, 10))
    site.run()
    prescribe(site, conn)
    site.append(*lines(10, 20), "damaged\n")
    said: list[str] = []
    with conn.transaction(force_rollback=True):  # in a session from before the timeouts
        conn.execute(statement)  # type: ignore[arg-type]
        run = threading.Thread(target=lambda: said.append(site.run().stderr))
        run.start()
        wait_until(lambda: bool(said) or (site.runs_that_wait() == 1 and waited(site, "active")))
    run.join()
    assert said == [""]
    assert site.emails() == users(0, 20)
