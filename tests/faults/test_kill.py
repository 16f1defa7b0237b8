"""A run that is killed anywhere, and run again, has stored every line once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from helpers.faults import Steps
from helpers.load_paths import ATTACH, KEYS_IN_BULK, LOAD_PATHS, ROW_BY_ROW
from helpers.site import AT, Site, backends, create_database, day, drop_database, line, lines, users, wait_until
from server import Server

from xraylog.accesslog import drain, logfile


@contextlib.contextmanager
def xray(log: Path) -> Iterator[int]:
    """The log, open as xray has it."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    yield descriptor
    os.close(descriptor)


def kill_at_every_step(
    steps: Steps, site: Site, before_each: Callable[[int], Site | None], check: Callable[[int], None], *names: str
) -> None:
    """Kill runs at step 1, 2, 3 …, until one is through; then one at each step of these names that was not struck.

    One run is longer than another, or --steps leaves steps out: a step that matters could be missed by chance.
    """
    left, is_through = set(names), False
    for step in steps:
        if is_through and not left:
            return
        at = min(left) if is_through else step
        site = before_each(step) or site
        status = site.run_here(kill_at=at)
        assert status == -9 or (status == 0 and not is_through), (at, site.output()[-2000:])
        check(step)
        is_through = is_through or status == 0
        if status:
            left.discard(site.steps()[-1])


@pytest.mark.parametrize(
    ("is_open", "count", "load_path"),
    [(True, 300, ROW_BY_ROW), (False, 30, ROW_BY_ROW), (True, 60, ATTACH), (True, 60, KEYS_IN_BULK)],
    ids=["many blocks, open in xray", "within a block, closed", ATTACH, KEYS_IN_BULK],
)
def test_a_run_that_is_killed_at_any_step_stores_each_line_once(
    steps: Steps, site: Site, is_open: bool, count: int, load_path: str
) -> None:
    """With a line that comes after the kill, and equal lines: the same ten in every round."""
    site.run_here()
    site.load_path = load_path
    if load_path != ROW_BY_ROW:
        site.set("parser", batch_size=25)
    same = ["2025/11/17 10:00:00 from 203.0.113.1:1 accepted tcp:same.example:443 [in >> out] email: same\n"] * 10
    expected: Counter[str] = Counter()

    def prepare(step: int) -> None:
        site.append(*same, *lines(step * 1000, step * 1000 + count, day(step)), "damaged\n")
        expected.update(users(step * 1000, step * 1000 + count))
        expected["same"] += 10

    def check(step: int) -> None:
        site.append(line(step * 1000 + 999))
        expected[f"u{step * 1000 + 999}"] += 1
        assert site.run_here() == 0
        assert site.emails() == expected, site.steps()[-1]
        assert len(site.rejected()) == sum(n <= step for n in range(steps.first, step + 1, steps.every))

    drains = ["fsync in _collapse"] if is_open else ["fcntl in _lease", "ftruncate in truncate"]
    with contextlib.ExitStack() as stack:
        if is_open:
            stack.enter_context(xray(site.log))
        kill_at_every_step(
            steps, site, prepare, check, "execute", "commit", "copy write", "pwrite in write_at", *drains
        )


@pytest.mark.parametrize("is_open", [True, False], ids=["open in xray", "closed"])
def test_a_run_that_is_killed_at_any_step_buffers_each_line_once(steps: Steps, site: Site, is_open: bool) -> None:
    """In the middle of a batch in the buffer, before and after its sync, between buffer and drain, in the drain."""
    site.run_here()
    expected: Counter[str] = Counter()

    def prepare(step: int) -> None:
        site.append(*lines(step * 1000, step * 1000 + 60), "damaged\n")
        expected.update(users(step * 1000, step * 1000 + 60))
        site.away()

    def check(step: int) -> None:
        site.append(line(step * 1000 + 999))
        expected[f"u{step * 1000 + 999}"] += 1
        if step // 2 % 2:
            assert site.run_here() == 0  # still away
            assert site.buffered() + site.emails() == expected, site.steps()[-1]
        site.back()
        assert site.run_here() == 0
        assert site.emails() == expected, site.steps()[-1]
        assert len(site.rejected()) == sum(n <= step for n in range(steps.first, step + 1, steps.every))

    with contextlib.ExitStack() as stack:
        if is_open:
            stack.enter_context(xray(site.log))
        kill_at_every_step(steps, site, prepare, check, "pwrite in write_at", "fsync in append", "fdatasync in _blank")


@pytest.mark.parametrize("load_path", LOAD_PATHS)
def test_an_import_that_is_killed_at_any_step_stores_each_line_once(steps: Steps, site: Site, load_path: str) -> None:
    """Before and after COPY and commit, before the buffer is cleared, before its position is."""
    site.run_here()
    site.set("parser", batch_size="20")
    site.load_path = load_path
    expected: Counter[str] = Counter()

    def prepare(step: int) -> None:
        at = day(step) if load_path == ATTACH else AT
        for first, count in ((0, 30), (100, 10)):
            site.append(*lines(step * 1000 + first, step * 1000 + first + count, at))
            expected.update(users(step * 1000 + first, step * 1000 + first + count))
            site.away()
            assert site.run_here(*(["--keep"] if step // 2 % 2 else [])) == 0
        site.append(line(step * 1000 + 200))
        expected[f"u{step * 1000 + 200}"] += 1
        site.back()

    def check(step: int) -> None:
        if step % 3 == 0:
            site.away()
            assert site.run_here() == 0
            site.back()
        assert site.run_here() == 0, site.output()[-3000:]
        assert site.emails() == expected, (step, site.steps()[-1])
        assert site.buffer.stat().st_size == 0
        if load_path == ATTACH:  # with hundreds of days each run would take twice the time
            site.drop_days()
            expected.clear()

    kill_at_every_step(steps, site, prepare, check, "commit", "ftruncate in truncate", "copy write")


def test_a_first_run_that_is_killed_at_any_step_is_finished_by_the_next(
    steps: Steps, site: Site, server_keywords: dict[str, str]
) -> None:
    """The schema, the node and the first position are created again or found, whatever was there."""
    made: list[dict[str, str]] = []

    def prepare(step: int) -> Site:
        made.append(create_database(server_keywords))
        (site.folder / str(step)).mkdir()
        fresh = Site(site.folder / str(step), made[-1])
        fresh.append(*lines(0, 5))
        return fresh

    def check(step: int) -> None:
        again = Site(site.folder / str(step), made[-1])
        assert again.run_here() == 0
        assert again.emails() == users(0, 5)
        drop_database(made.pop())

    kill_at_every_step(steps, site, prepare, check)


def test_a_kill_between_drain_and_position_does_not_hide_equal_lines_later(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The position of the old head must not outlive the drain: the same ten lines come again, at the same place."""
    site.append(*[line(1)] * 10)
    real_drain = drain.drain

    def drain_and_die(self: logfile.LogFile, offset: int, limit: int) -> None:
        real_drain(self, offset, limit)
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch, xray(site.log):
        patch.setattr(drain, "drain", drain_and_die)
        assert site.run_here() == -9
    site.append(line(2))
    assert site.run_here() == 0
    assert site.log.read_bytes() == b""
    site.append(*[line(1)] * 10)
    assert site.run_here() == 0
    assert site.emails() == Counter({"u1": 20, "u2": 1})


def test_runs_that_are_killed_at_random_moments_store_each_line_once(site: Site, rounds: int) -> None:
    """Whole processes, at any instruction; with a writer that goes on."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    written = 0
    with xray(site.log):
        for n in range(rounds):
            if n % 10 == 9:  # else what killed runs left undone grows without end
                site.run()
                assert site.emails() == users(0, written)
            more = chance.randrange(1, 3000)
            site.append("".join(lines(written, written + more)))
            written += more
            site.load_path = chance.choice(LOAD_PATHS)
            site.set("parser", batch_size=chance.choice([50, 500, 20_000]))
            with subprocess.Popen(site.command(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(chance.uniform(0.1, 0.9))
                process.kill()
        site.run()
    assert site.emails() == users(0, written)


@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
def test_killed_while_the_server_is_still_committing(
    own_server: Callable[..., Server], tmp_path: Path, isolation: str
) -> None:
    """A commit that waits for a standby outlives its client: the next run waits for it, and stores nothing twice.

    Whatever isolation the server has by default: a snapshot from before the wait would not see the commit.
    """
    server = own_server(f"default_transaction_isolation='{isolation}'")
    site = Site(tmp_path, server.keywords())
    site.append(*lines(0, 3))
    assert site.run_here() == 0  # the log is empty: its next position is a new row
    site.query("DELETE FROM log_positions WHERE stored_from = 0")
    site.append(*lines(0, 3))  # the same names: the first commit to wait is that of the rows
    site.query("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    server.stop()
    server.start()
    with psycopg.connect(**server.keywords(), autocommit=True) as conn:  # type: ignore[arg-type]
        with subprocess.Popen(site.command("--keep")) as killed:
            wait_until(lambda: backends(conn, "wait_event = 'SyncRep'") == 1)
            killed.kill()
        results: list[int] = []
        again = threading.Thread(target=lambda: results.append(subprocess.call(site.command("--keep"))))
        again.start()
        wait_until(lambda: backends(conn, "wait_event = 'advisory'") == 1)
        conn.execute("SET synchronous_commit TO local")
        conn.execute("ALTER SYSTEM RESET synchronous_standby_names")
        conn.execute("SELECT pg_reload_conf()")
        again.join(600)
    assert results == [0]
    assert site.emails() == users(0, 3) + users(0, 3)
