"""Our own log holds every message, whichever run writes it, and never costs a run."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import subprocess
from pathlib import Path

import pytest
from helpers.site import Site, line, lines, users

from xraylog import atomic_file
from xraylog.telemetry import run_log
from xraylog.telemetry.run_log import LogSink


def test_it_gets_what_stderr_gets(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.set("logging", file="own {x}.log")  # no format string either
    site.append(line(1))
    assert site.main("-v") == 0
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
    mend = f"nobody reads it: begin to read before a run, or name a file: {site.folder / 'own.pipe'}"
    assert (done.returncode, done.stderr) == (78, f"{site.config}: [logging] file: {expected}; {mend}\n")


def test_a_pipe_that_its_reader_leaves_full_costs_a_line_and_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(path := tmp_path / "own.pipe")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = LogSink(path)
    for _ in range(50):
        log.write("x" * 4000 + "\n")
    os.close(reader)
    (said,) = capsys.readouterr().err.splitlines()
    expected = "cannot be written: Resource temporarily unavailable; the run continues; "
    assert said.startswith(f"the log file {path} {expected}")


def write_many(path: Path, writer: int, count: int) -> None:
    log = LogSink(path)
    for number in range(count):
        log.write(f"{writer} {number:06}\n")


def test_runs_that_share_a_log_lose_nothing_while_logrotate_renames_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Four at once: every message is in one of the files, whole."""
    path, context = tmp_path / "own.log", multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(path, writer, 1000)) for writer in range(4)]
    for writer in writers:
        writer.start()
    rotated = 0
    while any(writer.is_alive() for writer in writers):
        with contextlib.suppress(FileNotFoundError):
            path.rename(tmp_path / f"own.log.{rotated}")
            rotated += 1
    for writer in writers:
        writer.join(600)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert capfd.readouterr().err == ""
    found = sorted("".join(file.read_text() for file in tmp_path.iterdir()).splitlines())
    assert found == [f"{writer} {number:06}" for writer in range(4) for number in range(1000)]
    assert rotated > 4


def test_a_log_renamed_by_logrotate_is_created_again(tmp_path: Path) -> None:
    log = LogSink(tmp_path / "own.log")
    log.write("1\n")
    (tmp_path / "own.log").rename(tmp_path / "own.log-20251117")
    log.write("2\n")
    assert (tmp_path / "own.log").read_text() == "2\n"


def test_a_full_disk_is_one_line_and_costs_no_line_of_the_log(site: Site) -> None:
    site.set("logging", file="/dev/full")
    site.append(*lines(0, 3))
    done = site.run("-v")
    about = [text for text in done.stderr.splitlines() if "/dev/full" in text]
    next_words = "the run continues; make room: df -h /dev"
    assert about == [f"the log file /dev/full cannot be written: No space left on device; {next_words}"]
    assert "3 lines read = 3 rows" in done.stderr
    assert site.emails() == users(0, 3)


def test_a_warning_that_each_step_has_again_is_logged_once_a_run(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the buffer is imported, the state file is to be replaced several times: four equal warnings."""
    site.set("logging", file="own.log")
    site.append(*lines(0, 5))
    site.away()
    site.main()
    site.back()
    site.append(*lines(5, 10))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(atomic_file, "replace", refuse)
    told = "expected to replace it, found: Permission denied"
    for count in (1, 2):
        assert site.run().stderr.count(told) == 1
        assert (site.folder / "own.log").read_text().count(told) == count
    assert site.emails() == users(0, 10)


def test_a_line_that_is_cut_short_by_a_full_disk_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, write = LogSink(tmp_path / "own.log"), os.write
    monkeypatch.setattr(run_log.os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    for _ in range(2):
        log.write("message\n")
    assert capsys.readouterr().err.count("cannot be written: No space left on device") == 1
