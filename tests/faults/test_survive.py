"""Whatever the server or the disk does to a run, the next good run has every line once."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import random
import re
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers import faults, forked
from helpers.faults import Steps
from helpers.load_paths import ATTACH, LOAD_PATHS
from helpers.site import AT, Site, create_database, day, drop_database, line, lines, users, wait_until
from server import Server

from xraylog.database import deadline, positions, session


def struck_at_every_step(
    steps: Steps, site: Site, strike: Callable[[int], contextlib.AbstractContextManager[None]], status: set[int]
) -> set[str]:
    """Runs struck at step 1, 2, 3 …, until one is not; after each, a run that is not struck has everything once."""
    expected: Counter[str] = Counter()
    for step in steps:
        struck = len(site.steps())
        at = day(step) if site.load_path == ATTACH else AT
        site.append(*lines(step * 1000, step * 1000 + 50, at), "damaged\n", *[line(7)] * 3)
        expected.update(users(step * 1000, step * 1000 + 50))
        expected["u7"] += 3
        found = site.run_here(inside=strike(step))
        if len(site.steps()) == struck:
            assert found == 0
            return set(site.steps())
        assert found in status, (site.steps()[-1], found, site.output()[-1000:])
        assert "Traceback" not in site.output()
        if step // 2 % 2:  # two good runs, or one: the second must not trip over what the first leaves
            assert site.run_here() == 0
        assert site.run_here() == 0, (site.steps()[-1], site.output()[-1000:])
        assert site.emails() == expected, site.steps()[-1]
        assert len(site.rejected()) == len(site.steps())
        if site.load_path == ATTACH:  # with hundreds of days each run would take twice the time
            site.drop_days()
            expected.clear()
    raise AssertionError


# --- the server


def end_our_sessions(site: Site) -> None:
    """As an administrator, or a server that shuts down, does."""
    site.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'parse_logs'"
    )


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_a_session_that_was_ended_causes_only_our_own_messages(site: Site, load_path: str) -> None:
    """psycopg tells its logger of errors that it ignores; without a handler Python prints them as they are."""
    site.run_here()
    site.load_path = load_path

    @contextlib.contextmanager
    def struck(step: int) -> Iterator[None]:
        logging.getLogger().handlers.clear()  # pytest's, in the child: a run has none
        with faults.after_step(step, site.folder / "steps", lambda: end_our_sessions(site)):
            yield

    for step in range(1, 30, 3):
        site.append(*lines(step * 1000, step * 1000 + 50, day(step)))
        assert site.run_here(inside=struck(step)) == 0
    said = site.output().splitlines()
    assert any("PostgreSQL is not available" in text for text in said)
    assert [text for text in said if not re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]+ ", text)] == []


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_a_session_ended_at_every_step(steps: Steps, site: Site, load_path: str) -> None:
    """In the middle of COPY, before COMMIT, after it: the rest of the lines is buffered, and imported later."""
    site.run_here()
    site.load_path = load_path
    site.set("parser", batch_size="20")

    def strike(step: int) -> contextlib.AbstractContextManager[None]:
        return faults.after_step(step, site.folder / "steps", lambda: end_our_sessions(site))

    names = struck_at_every_step(steps, site, strike, {0})
    steps.expect({"copy", "copy write", "copy end", "commit", "execute"}, names, site.folder / "steps")
    assert '"mode": "offline"' in site.stats.read_text()


def test_a_session_ended_at_any_step_and_the_run_killed_at_any_later_one(site: Site, rounds: int) -> None:
    """The database dies in the middle of COPY or at COMMIT, and the run while it puts the rest aside."""
    site.run_here()
    site.set("parser", batch_size="20")
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    expected: Counter[str] = Counter()
    killed = 0
    for n in range(rounds * 2):
        site.append(*lines(n * 1000, n * 1000 + 50, chance.choice([AT, day(n)])), "damaged\n")
        expected.update(users(n * 1000, n * 1000 + 50))
        kill = faults.after_step(chance.randrange(1, 25), site.folder / "steps")

        def end_and_kill_later(kill: contextlib.AbstractContextManager[None] = kill) -> None:
            end_our_sessions(site)
            kill.__enter__()

        strike = faults.after_step(chance.randrange(5, 60), site.folder / "steps", end_and_kill_later)
        site.load_path = chance.choice(LOAD_PATHS)
        status = site.run_here(inside=strike)
        assert status in (0, -9), site.output()[-1000:]
        killed += status == -9
        if n % 3 == 0:
            site.away()
            assert site.run_here() == 0
            site.back()
        assert site.run_here() == 0
        assert site.emails() == expected, site.steps()[-2:]
        assert len(site.rejected()) == n + 1
    assert killed > rounds / 2


@pytest.mark.parametrize("is_open", [True, False], ids=["open in xray", "closed"])
def test_a_session_ended_between_drain_and_position_while_many_lines_come(
    site: Site, monkeypatch: pytest.MonkeyPatch, is_open: bool
) -> None:
    """The drained file is shorter than the position was: what came since must not be looked for after it."""
    site.append(*lines(0, 100))
    real_move = positions.move

    def move_later(
        conn: psycopg.Connection[tuple[object, ...]], update: positions.PositionUpdate
    ) -> positions.Position:
        if update.offset < update.position.offset:  # after a drain
            site.append(*lines(1000, 1300))
            end_our_sessions(site)
        return real_move(conn, update)

    with contextlib.ExitStack() as stack:
        if is_open:
            stack.enter_context(site.log.open("ab"))
        with monkeypatch.context() as patch:
            patch.setattr(positions, "move", move_later)
            assert site.run_here() == 0
        assert site.buffered() == users(1000, 1300)
        site.append(*lines(1300, 1310))
        assert site.run_here() == 0
        assert site.run_here() == 0
    assert site.emails() == users(0, 100) + users(1000, 1310)


class Proxy:
    """Stands between a run and its server, and cuts the connection when the n-th COMMIT went out."""

    def __init__(self, port: int, cut_at: int) -> None:
        self._server_port = port
        self._commits_left = cut_at
        self.has_cut = False
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self.port = self._sockets[0].getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._start(self._serve)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for end in self._sockets:
            end.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments))
        self._threads[-1].start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._sockets[0].accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._sockets += [client, server]
                cut = threading.Event()
                self._start(self._pump, client, server, True, cut)
                self._start(self._pump, server, client, False, cut)

    def _pump(self, source: socket.socket, target: socket.socket, forwards: bool, cut: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if forwards and b"COMMIT" in data:
                    self._commits_left -= 1
                    if self._commits_left == 0:
                        self.has_cut = True
                        cut.set()
                if not forwards and cut.is_set():
                    break  # the server has answered: it is done, and the client will never know
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_a_commit_whose_answer_never_comes(site: Site, load_path: str) -> None:
    """Neither done nor undone, as far as the run can know: the position in the database tells the next one."""
    site.run_here()
    site.set("parser", batch_size="20")
    site.load_path = load_path
    expected: Counter[str] = Counter()
    for commit in itertools.count(1):
        site.append(*lines(commit * 1000, commit * 1000 + 50, day(commit) if load_path == ATTACH else AT))
        expected.update(users(commit * 1000, commit * 1000 + 50))
        with Proxy(int(site.database["port"]), commit) as proxy:
            site.set("postgresql", port=str(proxy.port), sslmode="disable")
            assert site.run_here() == 0
            site.back()
        assert site.run_here() == 0
        assert site.emails() == expected, commit
        if not proxy.has_cut:
            break
    assert commit > 5
    assert '"mode": "offline"' in site.stats.read_text()


def test_a_commit_without_an_answer_while_a_log_is_loaded_again(site: Site) -> None:
    site.set("parser", batch_size="20")
    site.append(*lines(0, 50))
    site.run_here("--keep")
    for commit in itertools.count(1):
        before = site.emails()
        with Proxy(int(site.database["port"]), commit) as proxy:
            site.set("postgresql", port=str(proxy.port), sslmode="disable")
            assert site.run_here("--keep", "--again") == 0
            site.back()
        assert site.run_here("--keep") == 0
        assert site.emails() == before + users(0, 50), commit
        if not proxy.has_cut:
            break
    assert commit > 4


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_restarts_under_a_run(own_server: Callable[..., Server], tmp_path: Path, mode: str) -> None:
    server = own_server()
    site = Site(tmp_path, server.keywords())
    site.set("parser", batch_size="100")
    for first in range(0, 12000, 4000):
        site.append("".join(lines(first, first + 4000)))
        with subprocess.Popen(site.command("-q")) as run:
            wait_until(lambda: sum(site.emails().values()) > first + 500 if server.running else False)  # noqa: B023
            server.stop(mode)
            server.start()
            assert run.wait(600) == 0
    site.run()
    assert site.emails() == users(0, 12000)


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_a_server_that_crashes_after_the_rows_of_a_transaction(
    own_server: Callable[..., Server], tmp_path: Path, load_path: str
) -> None:
    server = own_server()
    site = Site(tmp_path, server.keywords())
    site.append(*lines(0, 50))
    site.run()
    site.load_path = load_path
    site.append(*lines(50, 100, day(1) if load_path == ATTACH else AT), "damaged\n")
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(**site.database) as blocker:  # type: ignore[arg-type]
        blocker.execute("LOCK TABLE rejected_lines")  # which come after the rows
        with subprocess.Popen(site.command("-q")) as run:
            wait_until(lambda: site.runs_that_wait() == 1)
            server.stop("immediate")
            assert run.wait(600) == 0
    server.start()
    assert site.buffered() == users(50, 100)
    site.run()
    assert site.emails() == users(0, 100)
    assert len(site.rejected()) == 1


CANCEL = """
    SELECT pg_cancel_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'parse_logs' AND wait_event_type = 'Lock'
"""


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_a_statement_that_is_cancelled_is_an_outage(site: Site, load_path: str) -> None:
    site.append(*lines(0, 10))
    site.run()
    site.load_path = load_path
    site.append(*lines(10, 20, day(1) if load_path == ATTACH else AT))
    said: list[str] = []
    with psycopg.connect(**site.database) as blocker:  # type: ignore[arg-type]
        blocker.execute("LOCK TABLE users")
        run = threading.Thread(target=lambda: said.append(site.run().stderr))
        run.start()
        wait_until(lambda: bool(said or site.query(CANCEL)))
        run.join()
    assert "57014" in said[0]
    assert site.buffered() == users(10, 20)
    site.run()
    assert site.emails() == users(0, 20)


@pytest.mark.parametrize("load_path", LOAD_PATHS)
@pytest.mark.parametrize("table", ["logs", "users", "log_positions", "rejected_lines"])
def test_a_lock_that_is_not_granted_is_an_outage(
    site: Site, monkeypatch: pytest.MonkeyPatch, table: str, load_path: str
) -> None:
    site.append(*lines(0, 10))
    site.run()
    site.load_path = load_path
    monkeypatch.setattr(session, "LOCK_TIMEOUT_S", 1)
    site.append(*lines(10, 20, day(1) if load_path == ATTACH else AT), "damaged\n")
    with psycopg.connect(**site.database) as blocker:  # type: ignore[arg-type]
        blocker.execute(f"LOCK TABLE {table}")
        assert site.run_here() == 0
    assert "55P03" in site.output()
    assert site.buffered() == users(10, 20)
    assert site.run_here() == 0
    assert site.emails() == users(0, 20)
    assert len(site.rejected()) == 1


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_a_deadlock_with_another_writer_is_tried_again(site: Site, load_path: str) -> None:
    """Another session adds users in another order than ours, and the server ends the one that waits last: ours.

    Each looks for a deadlock once, when it has waited a while. So a third one keeps ours between its users until the
    other waits.
    """
    site.append(line(0))
    site.run()
    site.load_path = load_path
    site.query(f"ALTER DATABASE {site.database['dbname']} SET deadlock_timeout = '50ms'")
    site.append(line(1), line(15), line(2))
    insert = "INSERT INTO users (email) VALUES (%s)"
    with psycopg.connect(**site.database) as other, psycopg.connect(**site.database) as third:  # type: ignore[arg-type]
        other.execute("SET deadlock_timeout = '1h'")
        other.execute(insert, ["u2"])
        third.execute(insert, ["u15"])
        waiting = threading.Thread(target=lambda: other.execute(insert, ["u1"]))
        with subprocess.Popen(site.command("-v"), stderr=subprocess.PIPE, text=True) as run:
            wait_until(lambda: site.runs_that_wait() == 1)
            waiting.start()
            wait_until(lambda: site.sessions_that_wait() == 2)
            third.rollback()
            waiting.join()
            other.commit()
            _, said = run.communicate(timeout=600)
    assert run.returncode == 0, said
    assert "3 lines read = 3 rows" in said
    assert site.last_stats()["mode"] == "online"
    assert site.emails() == users(0, 3) + users(15, 16)


def test_a_server_that_comes_up_after_our_attempt_refuses_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused while it was down, and answering when it is asked why: seen beside restarts, as exit status 3."""
    site.append(*lines(0, 3))
    connect, attempts = deadline.Connection.connect, []

    def too_early(conninfo: str, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        attempts.append(conninfo)
        return connect(conninfo + (" port=1" if len(attempts) == 1 else ""), **options)

    monkeypatch.setattr(deadline.Connection, "connect", too_early)

    assert site.main() == 0
    assert len(attempts) == 2
    monkeypatch.undo()
    assert site.emails() == users(0, 3)


def test_too_many_clients_is_an_outage(site: Site) -> None:
    with psycopg.connect(**site.database, autocommit=True) as conn:  # type: ignore[arg-type]
        role = f"few_{site.database['dbname']}"
        conn.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x' CONNECTION LIMIT 0")  # type: ignore[arg-type]
        conn.execute(f"GRANT ALL ON SCHEMA public TO {role}")  # type: ignore[arg-type]
        site.set("postgresql", user=role, password="x")  # noqa: S106
        site.append(*lines(0, 3))
        assert "too many connections" in site.run().stderr
        assert site.buffered() == users(0, 3)
        site.set("postgresql", **site.database)
        site.run()
        assert site.emails() == users(0, 3)
        conn.execute(f"DROP OWNED BY {role}")  # type: ignore[arg-type]
        conn.execute(f"DROP ROLE {role}")  # type: ignore[arg-type]


# --- the disk


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
@pytest.mark.parametrize(
    ("away", "load_path"),
    [*((False, load_path) for load_path in LOAD_PATHS), (True, None)],
    ids=[*LOAD_PATHS, "offline"],
)
def test_a_disk_that_fails_at_every_step(
    steps: Steps, site: Site, error: int, away: bool, load_path: str | None
) -> None:
    """Nothing is drained that was not made durable; the run says so; the next one recovers."""
    site.run_here()
    site.load_path = load_path

    @contextlib.contextmanager
    def strike(step: int) -> Iterator[None]:
        if away:
            site.away()
        with faults.disk_error(step, error, site.folder / "steps"):
            yield

    real_run = site.run_here

    def run_and_come_back(*arguments: str, **options: object) -> int:
        if not options:
            site.back()
        return real_run(*arguments, **options)  # type: ignore[arg-type]

    site.run_here = run_and_come_back  # type: ignore[method-assign]
    names = struck_at_every_step(steps, site, strike, {0, 1})
    steps.expect(
        {f"pwrite {errno.errorcode[error]}", f"fdatasync {errno.errorcode[error]}"}, names, site.folder / "steps"
    )


def test_a_full_disk_under_the_buffer_leaves_the_log(site: Site) -> None:
    site.away()
    site.append(*lines(0, 5))
    site.run()
    whole = site.buffer.read_bytes()
    site.append(*lines(5, 50))
    log = site.log.read_bytes()
    assert site.run_here(inside=faults.disk_error(3, errno.ENOSPC, site.folder / "steps")) == 1
    assert "No space left on device" in site.output()
    assert site.log.read_bytes() == log
    assert site.buffer.read_bytes() == whole
    site.back()
    site.run()
    assert site.emails() == users(0, 50)


def test_a_full_disk_under_the_statistics_costs_no_line(site: Site) -> None:
    site.set("stats", output="/dev/full")
    site.append(*lines(0, 5))
    assert "No space left on device" in site.run(status=3).stderr
    assert site.emails() == users(0, 5)


# --- many at once


def run_at_once(sites: Sequence[Site]) -> list[tuple[int, str]]:
    """One run of each, forked, none of which waits for another; the exit status of each, and what it printed."""
    with contextlib.ExitStack() as open_files:
        printed = [open_files.enter_context((one.folder / "printed").open("w+")) for one in sites]
        children = [one.start_here(file.fileno()) for one, file in zip(sites, printed, strict=True)]
        statuses = [forked.wait(child) for child in children]
        return [(status, Path(file.name).read_text()) for status, file in zip(statuses, printed, strict=True)]


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_sixteen_runs_of_sixteen_nodes_into_one_empty_database_at_midnight(
    site: Site, tmp_path: Path, load_path: str
) -> None:
    """Everything is new for all of them: schema, names, two days. No error, one partition a day, ids not burnt."""
    sites = []
    for n in range(16):
        (tmp_path / str(n)).mkdir()
        sites.append(Site(tmp_path / str(n), site.database, node=f"n{n}"))
        sites[n].load_path = load_path
        sites[n].append(*lines(0, 200, "2025/11/17 23:59:59.9"), *lines(0, 200, "2025/11/18 00:00:00.1"))
    assert run_at_once(sites) == [(0, "")] * 16
    assert site.emails() == Counter({f"u{n}": 32 for n in range(200)})
    partitions = site.query(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'logs'::regclass ORDER BY 1"
    )
    assert partitions == [("logs_2025_11_17",), ("logs_2025_11_18",)]
    for table, count in (("users", 200), ("endpoints", 200), ("tags", 2), ("protocols", 1), ("nodes", 16)):
        ((found, largest),) = site.query(f"SELECT count(*), max(id) FROM {table}")
        assert found == count
        assert largest <= count * 17  # at worst every writer tried every name once


def test_two_runs_that_share_a_buffer_exclude_each_other(site: Site) -> None:
    other = site.folder / "other.log"
    site.append(line(1), to=other)
    site.append(line(2))
    site.run()
    with psycopg.connect(**site.database) as blocker:  # type: ignore[arg-type]
        blocker.execute("LOCK TABLE log_positions")
        site.append(line(3))
        with subprocess.Popen(site.command()) as run:
            wait_until(lambda: site.runs_that_wait() == 1)
            assert f"held by process {run.pid}" in site.run("--logfile", str(other), status=75).stderr
            blocker.rollback()
    site.run("--logfile", str(other))
    assert site.emails() == users(1, 4)


def test_databases_are_told_apart(server_keywords: dict[str, str], tmp_path: Path) -> None:
    """A log that is loaded into another database is loaded there from its beginning."""
    first, second = (create_database(server_keywords) for _ in range(2))
    try:
        site = Site(tmp_path, first)
        site.append(*lines(0, 5))
        site.run("--keep")
        site.set("postgresql", **second)
        assert "the database is older than the log, or another one" in site.run("--keep", status=3).stderr
        assert site.emails() == users(0, 5)
        assert Site(tmp_path, second).emails() == users(0, 5)
    finally:
        drop_database(first)
        drop_database(second)
