"""A server that keeps the connection and never answers: the run ends all the same, and every line is stored once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from helpers.load_paths import ATTACH, LOAD_PATHS
from helpers.site import AT, Site, backends, day, line, lines, users, wait_until
from server import FAST, Server

from xraylog.database import dead_sessions, deadline, positions, session
from xraylog.database.capabilities import Capabilities

BUSY = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'parse_logs' AND pid <> pg_backend_pid()
      AND state <> 'idle'
"""


@pytest.fixture
def frozen(site: Site) -> Iterator[Freezer]:
    """Stops processes of the server, and lets all of them go on at the end."""
    freezer = Freezer(site)
    yield freezer
    freezer.thaw()


class Freezer:
    """Stops the backends of a run: their kernel still answers. The run is another process: hence a file of pids."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._file = site.folder / "frozen"

    def freeze(self) -> None:
        """Stop those that are in a transaction."""
        with self._file.open("a") as file:
            for (pid,) in self._site.query(BUSY):
                os.kill(pid, signal.SIGSTOP)
                file.write(f"{pid}\n")

    def thaw(self) -> None:
        """Let all of them go on."""
        if self._file.exists():
            for pid in {*self.pids}:  # a COPY may have been about to write several times
                os.kill(int(pid), signal.SIGCONT)
            self._file.unlink()

    @property
    def pids(self) -> list[str]:
        """The processes that are stopped."""
        return self._file.read_text().split()


def freeze_in_copy(frozen: Freezer, monkeypatch: pytest.MonkeyPatch) -> None:
    """COPY has started, and the first bytes of its rows are still to be sent."""
    write = psycopg.Copy.write

    def frozen_write(self: psycopg.Copy, text: bytes) -> None:
        frozen.freeze()
        write(self, text)

    monkeypatch.setattr(psycopg.Copy, "write", frozen_write)


def freeze_at_commit(frozen: Freezer, monkeypatch: pytest.MonkeyPatch) -> None:
    """COMMIT is the next that is sent: it happens as soon as the process goes on."""
    move = positions.move

    def move_and_freeze(*arguments: Any) -> positions.Position:
        moved = move(*arguments)
        frozen.freeze()
        return moved

    monkeypatch.setattr(positions, "move", move_and_freeze)


@pytest.mark.parametrize("freeze", [freeze_in_copy, freeze_at_commit], ids=["in COPY", "at COMMIT"])
@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_a_process_of_the_server_that_is_frozen(
    site: Site, frozen: Freezer, load_path: str, freeze: Callable[[Freezer, pytest.MonkeyPatch], None]
) -> None:
    site.run_here()
    site.load_path = load_path
    site.set("postgresql", answer_timeout=1)
    site.append(*lines(0, 50, day(1) if load_path == ATTACH else AT), "damaged\n")
    with pytest.MonkeyPatch.context() as patch:
        freeze(frozen, patch)
        assert site.run_here() == 0
    assert f"no answer for 1 s from the server's process {frozen.pids[0]}" in site.output()
    assert site.log.read_bytes() == b"" or site.log.read_bytes().startswith(b"# drained")
    assert site.buffered() == users(0, 50)
    frozen.thaw()
    site.append(*lines(50, 60))
    assert site.run_here() == 0
    assert site.emails() == users(0, 60)
    assert len(site.rejected()) == 1


def test_a_process_that_is_frozen_while_the_buffer_is_imported(site: Site, frozen: Freezer) -> None:
    site.run_here()
    site.set("postgresql", answer_timeout=1)
    site.away()
    site.append(*lines(0, 10))
    site.run_here()
    site.back()
    site.append(*lines(10, 20))
    with pytest.MonkeyPatch.context() as patch:
        freeze_at_commit(frozen, patch)
        assert site.run_here() == 0
    assert site.buffered() == users(0, 20)
    frozen.thaw()
    assert site.run_here() == 0
    assert site.emails() == users(0, 20)


def test_networks_are_loaded_by_a_process_that_is_frozen(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a deadline, the command waited as long as the process was frozen."""
    site.set("postgresql", answer_timeout=1)
    site.set("report", statement_timeout=1)
    (site.folder / "networks.csv").write_text("198.51.100.0/24,DE\n")
    write, frozen = psycopg.Copy.write, site.folder / "frozen"

    def frozen_write(self: psycopg.Copy, text: bytes) -> None:
        os.kill(self.connection.pgconn.backend_pid, signal.SIGSTOP)
        frozen.write_text(str(self.connection.pgconn.backend_pid))
        write(self, text)

    monkeypatch.setattr(deadline, "SILENCE_S", 0)
    monkeypatch.setattr(psycopg.Copy, "write", frozen_write)
    command = ("networks", "load", str(site.folder / "networks.csv"))
    status = site.run_here(*command, script="ask_logs")
    os.kill(int(frozen.read_text()), signal.SIGCONT)
    assert status == 1
    assert f"no answer for 1 s from the server's process {frozen.read_text()}" in site.output()
    monkeypatch.undo()
    site.run(*command, script="ask_logs")


def test_unparsed_lines_are_read_again_by_a_process_that_is_frozen(site: Site, frozen: Freezer) -> None:
    site.append(*lines(0, 10), "damaged\n")
    site.run_here()
    site.query("UPDATE rejected_lines SET line = %s", line(10).rstrip().encode())
    site.set("postgresql", answer_timeout=1)
    with pytest.MonkeyPatch.context() as patch:
        freeze_in_copy(frozen, patch)
        assert site.run_here("--replay-rejected") == 1
    assert "no answer for 1 s" in site.output()
    frozen.thaw()
    assert site.run_here("--replay-rejected") == 0
    assert site.emails() == users(0, 11)


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_a_commit_that_waits_for_a_standby_that_is_gone(
    own_server: Callable[..., Server], tmp_path: Path, load_path: str
) -> None:
    """The standby may never come back: until the administrator changes that, lines wait in the buffer."""
    server = own_server(*FAST)
    site = Site(tmp_path, server.keywords())
    site.append(*lines(0, 3, day(1)))
    assert site.run_here() == 0
    site.load_path = load_path
    site.query("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    site.query("SELECT pg_reload_conf()")
    site.set("postgresql", answer_timeout=1)
    expected = users(0, 3)
    for n in range(10, 30, 10):
        site.append(*lines(n, n + 5, day(n) if load_path == ATTACH else AT))
        expected += users(n, n + 5)
        assert site.run_here() == 0
        assert "no answer for 1 s" in site.output()
        assert site.buffered() == expected - users(0, 3)
    site.query("ALTER SYSTEM RESET synchronous_standby_names")
    site.query("SELECT pg_reload_conf()")
    assert site.run_here() == 0
    assert site.emails() == expected


# --- what is left of it in the server


HOLDER = """
    SELECT a.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objid = %s::bigint & 4294967295 AND l.pid <> pg_backend_pid()
      AND clock_timestamp() - a.state_change > '1.1s'
"""


def dead(site: Site) -> bool:
    """Whether a session of the node is in a transaction, and has not moved for longer than answer_timeout."""
    return bool(site.query(HOLDER, session.lock_key(session.run_mark("n1"))))


@contextlib.contextmanager
def no_standby(site: Site) -> Iterator[None]:
    """Every commit inside waits for a standby that does not come."""
    site.query("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    site.query("SELECT pg_reload_conf()")
    yield
    site.query("ALTER SYSTEM RESET synchronous_standby_names")
    site.query("SELECT pg_reload_conf()")


def killed_in_commit(site: Site, conn: psycopg.Connection[tuple[Any, ...]]) -> None:
    """A run is killed while its COMMIT waits for a standby; its session lives on, and is dead after a second."""
    with subprocess.Popen(site.command(), stderr=subprocess.DEVNULL) as killed:
        wait_until(lambda: backends(conn, "wait_event = 'SyncRep'") == 1)
        killed.kill()
    wait_until(lambda: dead(site))


@pytest.fixture
def alone(own_server: Callable[..., Server], tmp_path: Path) -> Site:
    """A site with a server of its own, with three lines in it."""
    site = Site(tmp_path, own_server(*FAST).keywords())
    site.append(*lines(0, 3))
    site.run()
    return site


def test_the_next_run_ends_the_session_of_a_run_that_was_killed_in_its_commit(alone: Site) -> None:
    with psycopg.connect(**alone.database, autocommit=True) as conn:  # type: ignore[arg-type]
        alone.append(*lines(3, 6))
        with no_standby(alone):
            alone.set("postgresql", answer_timeout=3600)  # the one that is killed does not give up
            killed_in_commit(alone, conn)
            alone.set("postgresql", answer_timeout=1)
            said = alone.run().stderr
            assert "kept the locks of node n1: it was dead, and has been ended" in said
            # What it committed is on no standby: the lines are still ours.
            assert "no answer for 1 s" in said
            assert alone.buffered() == users(3, 6)
        assert alone.run().stderr == ""
    assert alone.emails() == users(0, 6)


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_dead_session_of_another_role_is_named(alone: Site, monkeypatch: pytest.MonkeyPatch, is_silent: bool) -> None:
    monkeypatch.setattr(session, "LOCK_TIMEOUT_S", 1)
    alone.query("CREATE ROLE other LOGIN PASSWORD 'x' SUPERUSER")
    alone.set("postgresql", answer_timeout=2)
    silent = "SELECT clock_timestamp() - state_change > '2.1s' FROM pg_stat_activity WHERE pid = %s"
    with psycopg.connect(**{**alone.database, "user": "other", "password": "x"}) as conn:  # type: ignore[arg-type]
        conn.execute("SELECT pg_advisory_xact_lock(%s)", [session.lock_key(positions.node_lock("n1"))])
        if is_silent:  # for longer than a run waits: it is not ours to end
            wait_until(lambda: alone.query(silent, conn.info.backend_pid) == [(True,)])
        alone.append(line(3))
        said = alone.run().stderr
        assert f"the lock of node n1 is held by process {conn.info.backend_pid} of the server" in said
        assert "a session of role other" in said
        assert alone.buffered() == users(3, 4)
    alone.run()
    assert alone.emails() == users(0, 4)


@pytest.mark.parametrize("freeze", [freeze_in_copy, freeze_at_commit], ids=["in COPY", "at COMMIT"])
def test_a_dead_session_that_does_not_end_is_named_by_each_run(
    site: Site, frozen: Freezer, monkeypatch: pytest.MonkeyPatch, freeze: Callable[[Freezer, pytest.MonkeyPatch], None]
) -> None:
    monkeypatch.setattr(dead_sessions, "END_S", 0.1)
    site.run_here()
    site.set("postgresql", answer_timeout=1)
    site.append(*lines(0, 10))
    with pytest.MonkeyPatch.context() as patch:
        freeze(frozen, patch)
        site.run_here()
    wait_until(lambda: dead(site))
    (pid,) = set(frozen.pids)
    site.append(*lines(10, 20))
    said = site.run().stderr
    assert "and does not end" in said
    assert f"kill -CONT {pid}" in said
    checked = site.run("--check", status=3).stdout
    assert "keeps the locks of node n1" in checked
    assert f"the next run ends it; if it stays, it is frozen: kill -CONT {pid} " in checked
    assert site.buffered() == users(0, 20)
    frozen.thaw()
    assert "not available" not in site.run().stderr
    assert site.emails() == users(0, 20)


@contextlib.contextmanager
def session_of_a_killed_run(site: Site) -> Iterator[None]:
    """It waits in its commit for a standby that is gone, until the end of the block."""
    with psycopg.connect(**site.database, autocommit=True) as conn:  # type: ignore[arg-type]
        site.append(line(3), "damaged\n")
        with no_standby(site):
            site.set("postgresql", answer_timeout=3600)
            killed_in_commit(site, conn)
            site.set("postgresql", answer_timeout=1)
            yield


def test_unparsed_lines_are_read_again_after_a_dead_session(alone: Site) -> None:
    with session_of_a_killed_run(alone):
        pass
    wait_until(lambda: not dead(alone))
    assert alone.run("--replay-rejected").stderr == ""


def test_unparsed_lines_are_read_again_once_a_dead_session_is_ended(alone: Site) -> None:
    with session_of_a_killed_run(alone):
        said = alone.run("--replay-rejected").stderr
    assert "kept the locks of node n1: it was dead, and has been ended" in said


def test_a_copy_that_moves_is_not_dead(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session of another run has been in one COPY for longer than a run waits for an answer."""
    site.run()
    with session.connect(site.database) as conn, session.connect(site.database, node="n1") as other:
        if not Capabilities.of(conn).copy_progress:
            pytest.skip("before PostgreSQL 14 a server does not tell")
        other.execute("CREATE TABLE slow (line text)")
        with session.transaction(other), other.cursor().copy("COPY slow FROM STDIN") as copy:

            def copied() -> int:
                return sum(holder.copied or 0 for holder in dead_sessions.holders(conn, session.run_mark("n1")))

            def move(_: float = 0) -> None:
                before = copied()
                while copied() == before:
                    copy.write(b"x" * 200_000 + b"\n")

            move()
            monkeypatch.setattr(dead_sessions, "time", SimpleNamespace(sleep=move))
            assert dead_sessions.find(conn, "n1", 3600) == []
            assert dead_sessions.find(conn, "n1", 0) == []
