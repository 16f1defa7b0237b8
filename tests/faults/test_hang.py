"""A server that keeps the connection and never answers: the run ends all the same, and every line is stored once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.load_paths import ATTACH, LOAD_PATHS
from helpers.site import AT, Site, day, line, lines, users
from server import FAST, Server

from xraylog.database import positions

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
            for pid in self._file.read_text().split():
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


def test_rejected_lines_are_read_again_by_a_process_that_is_frozen(site: Site, frozen: Freezer) -> None:
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
    site.append(*lines(0, 3))
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
