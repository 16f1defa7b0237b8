"""Our own log holds every message, rotates whoever writes it, and never costs a run."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.site import Site, line, lines, users
from loguru import logger

import parse_logs
from xraylog.telemetry import run_log
from xraylog.telemetry.run_log import OwnLog


@pytest.fixture(autouse=True)
def _no_sink_left() -> Iterator[None]:
    yield
    logger.remove()


def run(site: Site, *arguments: str) -> int:
    return parse_logs.main(["--config", str(site.config), *arguments])


def test_it_gets_what_stderr_gets(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.set("logging", file="own {x}.log")  # no format string either
    site.append(line(1))
    assert run(site, "-v") == 0
    told = capsys.readouterr().err
    assert "1 lines read" in told
    assert (site.folder / "own {x}.log").read_text() == told


def test_a_pipe_that_nobody_reads_is_refused_and_not_waited_for(site: Site) -> None:
    """Runs under cron would wait for a reader, one after the other, before they have a lock."""
    os.mkfifo(site.folder / "own.pipe")
    site.set("logging", file="own.pipe")
    site.append(line(1))
    done = subprocess.run(site.command(), capture_output=True, text=True, check=False, timeout=20)
    expected = "expected a file that can be written, found: No such device or address"
    assert (done.returncode, done.stderr) == (78, f"{site.config}: [logging] file: {expected}\n")


def test_a_pipe_that_its_reader_leaves_full_costs_a_line_and_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(path := tmp_path / "own.pipe")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = OwnLog(path)
    for _ in range(50):
        log.write("x" * 4000 + "\n")
    os.close(reader)
    (said,) = capsys.readouterr().err.splitlines()
    expected = "cannot be written: Resource temporarily unavailable; the run goes on; "
    assert said.startswith(f"the log file {path} {expected}")


def test_a_full_log_is_rotated_and_the_oldest_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_log, "LARGEST_BYTES", 30)
    log = OwnLog(tmp_path / "own.log")
    for number in range(20):
        log.write(f"message {number:4}\n")  # 13 bytes: two to a file
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.log", *(f"own.log.{n}" for n in range(1, 6))]
    found = [run_log.rotated(tmp_path / "own.log", number).read_text() for number in range(5, -1, -1)]
    assert "".join(found) == "".join(f"message {number:4}\n" for number in range(8, 20))


def test_only_files_of_that_very_name_are_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """loguru's retention would take access.log for an old log of `access`."""
    monkeypatch.setattr(run_log, "LARGEST_BYTES", 10)
    others = [tmp_path / name for name in ("access.log", "access.log.1", "access.7", "access.x")]
    for path in others:
        path.write_text(path.name)
    log = OwnLog(tmp_path / "access")
    for _ in range(20):
        log.write("a message\n")
    assert [path.read_text() for path in others] == [path.name for path in others]


def test_a_message_larger_than_a_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_log, "LARGEST_BYTES", 5)
    log = OwnLog(tmp_path / "own.log")
    log.write("a message\n")
    log.write("another\n")
    assert (tmp_path / "own.log").read_text() == "another\n"
    assert (tmp_path / "own.log.1").read_text() == "a message\n"


def write_many(path: Path, writer: int, count: int) -> None:
    log = OwnLog(path)
    for number in range(count):
        log.write(f"{writer} {number:06}\n")


def test_runs_that_share_a_log_and_rotate_it_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Four at once, and all files kept: every message is in one of them, whole."""
    monkeypatch.setattr(run_log, "LARGEST_BYTES", 500)
    monkeypatch.setattr(run_log, "KEPT", 300)
    path, context = tmp_path / "own.log", multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(path, writer, 1000)) for writer in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert capfd.readouterr().err == ""
    found = sorted("".join(file.read_text() for file in tmp_path.iterdir()).splitlines())
    assert found == [f"{writer} {number:06}" for writer in range(4) for number in range(1000)]
    assert len(list(tmp_path.iterdir())) > 4


def test_a_log_renamed_by_logrotate_is_created_again(tmp_path: Path) -> None:
    log = OwnLog(tmp_path / "own.log")
    log.write("1\n")
    (tmp_path / "own.log").rename(tmp_path / "own.log-20251117")
    log.write("2\n")
    assert (tmp_path / "own.log").read_text() == "2\n"


def test_a_full_disk_is_one_line_and_costs_no_line_of_the_log(site: Site) -> None:
    site.set("logging", file="/dev/full")
    site.append(*lines(0, 3))
    done = site.run("-v")
    about = [text for text in done.stderr.splitlines() if "/dev/full" in text]
    next_words = "the run goes on; see: ls -ld /dev; df -h /dev"
    assert about == [f"the log file /dev/full cannot be written: No space left on device; {next_words}"]
    assert "3 lines read = 3 rows" in done.stderr
    assert site.emails() == users(0, 3)


def test_a_line_that_is_cut_short_by_a_full_disk_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, write = OwnLog(tmp_path / "own.log"), os.write
    monkeypatch.setattr(run_log.os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    for _ in range(2):
        log.write("message\n")
    assert capsys.readouterr().err.count("cannot be written: No space left on device") == 1


def test_a_log_that_cannot_be_renamed_grows_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(run_log, "LARGEST_BYTES", 10)
    monkeypatch.setattr(Path, "replace", refuse)  # root may rename everything
    path = tmp_path / "own.log"
    log = OwnLog(path)
    for _ in range(3):
        log.write("a message\n")
    assert path.read_text() == "a message\n" * 3
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"the log file {path} cannot be renamed to {path}.1: Permission denied; the run goes on")


def test_our_own_file_that_would_be_rotated_is_a_complaint(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """own.log.2 would be renamed and, in the end, removed."""
    site.set("logging", file="own.log")
    site.set("parser", offline_file="own.log.2")
    assert run(site) == 78
    own = site.folder / "own.log"
    expected = f"[parser] offline_file: expected a file that is none of {own}.1, {own}.2, …: they are rotated"
    assert capsys.readouterr().err == f"{site.config}: {expected}, found '{own}.2'\n"
