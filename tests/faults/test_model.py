"""Whatever is done to a log, in any order, a small model says what the database and the buffer must hold."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import faults
from helpers.load_paths import LOAD_PATHS
from helpers.site import Site, create_database, drop_database, line
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from server import Server


class Installation(RuleBasedStateMachine):
    """A log, its writer, the runs, and an operator who interferes.

    A line is certain from when it was written; when another program empties the log, the lines that no run had met by
    then are uncertain: they may be there once, or not at all.
    """

    server: Server

    @initialize()
    def install(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.database = create_database(self.server.keywords())
        self.site = Site(self.folder, self.database)
        self.site.set("parser", batch_size="7")
        self.writer: int | None = None
        self.numbers = 0
        self.certain: Counter[str] = Counter()
        self.uncertain: Counter[str] = Counter()
        self.unmet: list[str] = []  # users of lines in the log since the last run that was not struck
        self.half = b""
        self.rotated: list[Path] = []
        self.start_generation()

    def teardown(self) -> None:
        if hasattr(self, "site"):
            self.settle()
            self.close()
            drop_database(self.database)
            shutil.rmtree(self.folder)

    # --- xray

    def start_generation(self) -> None:
        """A first line that no other log has: lines that look alike from the first on cannot be told apart."""
        self.numbers += 1
        self.write(line(self.numbers), f"u{self.numbers}")

    def write(self, text: str, user: str) -> None:
        self.site.append(self.half + text.encode() if not self.half else text)
        self.certain[user] += 1
        self.unmet.append(user)

    @rule(count=st.integers(1, 30))
    def append_lines(self, count: int) -> None:
        self.finish_half()
        for _ in range(count):
            self.numbers += 1
            self.write(line(self.numbers), f"u{self.numbers}")

    @rule(count=st.integers(1, 60))
    def append_equal_lines(self, count: int) -> None:
        self.finish_half()
        for _ in range(count):
            self.write(line(0), "u0")

    @rule(at=st.integers(1, 60))
    def append_half_a_line(self, at: int) -> None:
        self.finish_half()
        self.numbers += 1
        whole = line(self.numbers).encode()
        self.site.append(whole[:at])
        self.half = whole[at:]

    def finish_half(self) -> None:
        if self.half:
            half, self.half = self.half, b""
            self.write(half.decode(), f"u{self.numbers}")

    @rule()
    def open_or_close_the_log(self) -> None:
        """As xray does after two minutes of silence; an open log is never truncated to nothing."""
        if self.writer is None:
            self.writer = os.open(self.site.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        else:
            self.close()

    def close(self) -> None:
        if self.writer is not None:
            os.close(self.writer)
            self.writer = None

    # --- the runs

    def run_once(self, *arguments: str, **options: object) -> None:
        status = self.site.run_here(*arguments, **options)  # type: ignore[arg-type]
        assert status in (0, -9), self.site.output()[-2000:]
        if status == 0:
            self.unmet.clear()

    @rule(load_path=st.sampled_from(LOAD_PATHS), size=st.sampled_from([5, 20_000]))
    def take_another_load_path(self, load_path: str, size: int) -> None:
        self.site.load_path = load_path
        self.site.set("parser", batch_size=size)

    @rule(keep=st.booleans())
    def run_online(self, keep: bool) -> None:
        self.run_once(*(["--keep"] if keep else []))
        self.check()

    @rule(keep=st.booleans())
    def run_offline(self, keep: bool) -> None:
        self.site.away()
        self.run_once(*(["--keep"] if keep else []))
        self.site.back()

    @rule(step=st.integers(1, 90), away=st.booleans())
    def run_and_kill(self, step: int, away: bool) -> None:
        if away:
            self.site.away()
        self.run_once(kill_at=step)
        self.site.back()

    @rule(step=st.integers(1, 90))
    def run_and_end_its_session(self, step: int) -> None:
        def end() -> None:
            self.site.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'parse_logs'"
            )

        self.run_once(inside=faults.after_step(step, self.folder / "steps", end))

    # --- the others

    @rule(mode=st.sampled_from(["fast", "immediate"]))
    def restart_the_database(self, mode: str) -> None:
        self.server.stop(mode)
        self.server.start()

    @rule()
    def empty_the_log(self) -> None:
        """What no run had met is gone, or was met by a run that was killed."""
        os.truncate(self.site.log, 0)
        self.half = b""
        self.doubt(self.unmet)
        self.start_generation()

    def doubt(self, users: list[str]) -> None:
        self.certain -= Counter(users)
        self.uncertain += Counter(users)
        self.unmet = []

    @precondition(lambda self: len(self.rotated) < 3)
    @rule()
    def rotate_the_log(self) -> None:
        """Renamed, and created again; xray has opened the new one."""
        self.finish_half()
        self.close()
        old = self.site.log.with_name(f"access.log.{self.numbers}")
        self.site.log.rename(old)
        self.rotated.append(old)
        self.unmet = []
        self.start_generation()

    @precondition(lambda self: self.rotated)
    @rule()
    def load_a_rotated_log(self) -> None:
        unmet = self.unmet.copy()
        self.run_once("--logfile", str(self.rotated.pop(0)))
        self.unmet = unmet

    # --- what must hold

    def check(self) -> None:
        """After a good run with no rotated log left: all of the log, once."""
        if self.rotated:
            return
        found = self.site.emails()
        missing, surplus = self.certain - found, found - self.certain - self.uncertain
        assert not missing, f"missing {missing}\n{self.site.output()[-3000:]}"
        assert not surplus, f"surplus {surplus}\n{self.site.output()[-3000:]}"
        assert self.site.rejected() == []
        assert not self.site.buffered()

    def settle(self) -> None:
        self.finish_half()
        while self.rotated:
            self.load_a_rotated_log()
        self.run_once()
        self.check()


@pytest.mark.timeout(0)
def test_any_order_of_events_stores_every_line_once(own_server: Callable[..., Server], rounds: int) -> None:
    Installation.server = own_server("max_connections=50")
    run_state_machine_as_test(
        Installation,
        settings=settings(
            max_examples=rounds,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
