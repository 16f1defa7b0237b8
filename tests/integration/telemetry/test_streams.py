"""A pipe, a socket, a terminal or nothing at all in the place of a file: no traceback, no lost row, no hang."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import forked, mounts
from helpers.site import Site, lines, users

from xraylog.cli import Exit


@pytest.fixture
def streaming(site: Site) -> Site:
    """Its statistics go to standard output, by that name."""
    site.set("stats", output="/dev/stdout")
    site.append(*lines(0, 3))
    return site


def run_into(site: Site, output: int, *arguments: str) -> tuple[int, str]:
    """One run with this descriptor as its standard output; return its status and what it complained of."""
    with tempfile.TemporaryFile() as errors:
        work = lambda: site._main("parse_logs", arguments)  # noqa: E731
        status = forked.call("parse_logs", work, site.command(*arguments)[1:], output, errors.fileno())
        errors.seek(0)
        said = errors.read().decode()
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    return status, said


@pytest.fixture(params=["pipe", "socket", "terminal"])
def both_ends(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """What a run can be given as its standard output: the end to read, the end to write."""
    if request.param == "pipe":
        ends = os.pipe()
    elif request.param == "terminal":
        ends = os.openpty()
    else:  # as under systemd
        ours, theirs = socket.socketpair()
        ends = ours.detach(), theirs.detach()
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.parametrize("form", ["json", "csv"])
def test_a_row_goes_into_whatever_standard_output_is(streaming: Site, both_ends: tuple[int, int], form: str) -> None:
    streaming.set("stats", format=form)
    assert run_into(streaming, both_ends[1]) == (Exit.DONE, "")
    row = os.read(both_ends[0], 4096).decode()
    assert json.loads(row)["processed"] == 3 if form == "json" else ",online," in row
    assert streaming.emails() == users(0, 3)


@pytest.mark.parametrize("output", ["/dev/stdout", ""])
def test_a_reader_that_left_is_no_trouble_of_a_run(streaming: Site, output: str) -> None:
    streaming.set("stats", output=output)
    end, written = os.pipe()
    os.close(end)
    status, said = run_into(streaming, written)
    os.close(written)
    assert status == Exit.DONE
    assert "WARNING" in said
    assert f"{output or 'standard output'}: expected to append a row, found: a pipe that nobody reads any more" in said
    assert '"processed": 3' in said
    assert f"begin to read before a run, or name a file: [stats] output in {streaming.config}" in said


@pytest.mark.parametrize("output", ["/dev/stdout", ""])
def test_standard_output_that_is_closed_is_named_and_is_no_other_file(streaming: Site, output: str) -> None:
    """Its number is free then: the next file that is opened, the log or the session, would be taken for it."""
    streaming.set("stats", output=output)
    command = 'exec "$@" >&-'
    done = subprocess.run(
        ["/bin/sh", "-c", command, "sh", *streaming.command()], capture_output=True, text=True, check=False
    )
    assert done.returncode == Exit.OPERATOR
    assert f"{output or 'standard output'}: expected to append a row, found: it is closed; the row: " in done.stderr
    assert f"name a file: [stats] output in {streaming.config}" in done.stderr
    assert streaming.emails() == users(0, 3)
    assert streaming.log.read_bytes() == b""


# As libffi does, on some systems, as soon as ctypes is imported: it keeps its own library open.
OPENS_A_FILE = """
import os, sys

class Opener:
    def find_spec(self, name, path=None, target=None):
        if name == "ctypes" and not hasattr(Opener, "kept"):
            Opener.kept = os.open({file!r}, os.O_RDWR)

sys.meta_path.insert(0, Opener())
"""


@pytest.mark.parametrize("of", ["stats", "logging"])
def test_a_file_that_a_library_opens_is_not_taken_for_a_closed_stream(streaming: Site, of: str) -> None:
    """A library of the system got a row of statistics at its end."""
    library = streaming.folder / "libffi.so"
    library.write_bytes(b"\x7fELF")
    (streaming.folder / "sitecustomize.py").write_text(OPENS_A_FILE.format(file=str(library)))
    streaming.set("stats", output="/dev/stdout" if of == "stats" else str(streaming.stats))
    if of == "logging":
        streaming.set("logging", file="/dev/stdout", level="INFO")
    command = ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *streaming.command()]
    environment = {**os.environ, "PYTHONPATH": str(streaming.folder)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert library.read_bytes() == b"\x7fELF"
    assert "closed" in done.stderr
    assert done.returncode == (Exit.OPERATOR if of == "stats" else Exit.DONE)
    assert streaming.emails() == users(0, 3)


def test_a_terminal_that_is_none_is_named(streaming: Site) -> None:
    streaming.set("stats", output="/dev/tty")
    done = streaming.run(status=Exit.OPERATOR, start_new_session=True)
    assert "/dev/tty: expected to append a row, found: No such device or address; the row: " in done.stderr


def test_a_file_that_standard_output_is_gets_row_after_row(streaming: Site) -> None:
    with streaming.stats.open("ab") as file:
        for _ in range(2):
            assert run_into(streaming, file.fileno())[0] == Exit.DONE
    assert len(streaming.stats.read_text().splitlines()) == 2


def test_a_named_pipe_gets_the_row_if_it_is_read_and_is_not_waited_for(streaming: Site) -> None:
    os.mkfifo(pipe := streaming.folder / "stats.pipe")
    streaming.set("stats", output="stats.pipe")
    done = streaming.run()
    assert f"{pipe}: expected to append a row, found: a pipe that nobody reads; the row: " in done.stderr
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert streaming.run().stderr == ""
    assert json.loads(os.read(reader, 4096))["mode"] == "online"
    writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    while True:
        try:
            os.write(writer, b"x" * 4096)
        except BlockingIOError:
            break
    done = streaming.run(status=Exit.OPERATOR)
    assert "found: a pipe that is full, because nobody reads on; the row: " in done.stderr
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("option", ["--check", "--dry-run", "--help", "--version"])
def test_a_reader_that_has_seen_enough_changes_no_exit_status(site: Site, option: str) -> None:
    site.append(*lines(0, 3))
    expected = site.run(option)
    script = '"$@" | true; exit "${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["/bin/bash", "-c", script, "bash", *site.command(option)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (expected.returncode, "")


def test_the_disk_of_the_file_that_is_printed_to_is_named(site: Site, tmp_path: Path) -> None:
    site.append(*lines(0, 3))
    with mounts.full(tmp_path / "full disk") as folder:
        with (folder / "printed").open("wb") as file:
            status, said = run_into(site, file.fileno(), "--check")
        assert status == Exit.FAILED
        assert "standard output: No space left on device; not all was printed; make room: df -h " in said
        site.set("stats", output="/dev/stdout")
        with (folder / "printed").open("wb") as file:
            status, row = run_into(site, file.fileno())
        assert status == Exit.OPERATOR
        for advice in (said, row):
            assert shlex.split(advice.partition("make room: ")[2].strip()) == ["df", "-h", str(folder)]


@pytest.mark.parametrize("option", ["--check", "--dry-run"])
def test_a_full_disk_under_standard_output_is_one_line(site: Site, option: str) -> None:
    site.append(*lines(0, 3))
    full = os.open("/dev/full", os.O_WRONLY)
    status, said = run_into(site, full, option)
    os.close(full)
    assert status == Exit.FAILED
    (line,) = said.splitlines()
    assert "standard output: No space left on device" in line


def test_messages_that_nobody_reads_end_no_run(site: Site) -> None:
    """As in: parse_logs.py -v 2>&1 | head -n 1."""
    site.append(*lines(0, 3))
    script = '"$@" 2>&1 >/dev/null | true; exit "${PIPESTATUS[0]}"'
    done = subprocess.run(["/bin/bash", "-c", script, "bash", *site.command("-v")], check=False)
    assert done.returncode == Exit.DONE
    assert site.emails() == users(0, 3)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_our_own_log_may_be_a_standard_stream(site: Site, kind: str) -> None:
    site.set("logging", file="/dev/stdout", level="INFO")
    site.append(*lines(0, 3))
    reader, writer = os.pipe() if kind == "pipe" else (end.detach() for end in socket.socketpair())
    assert run_into(site, writer)[0] == Exit.DONE
    assert b"3 lines read = 3 rows" in os.read(reader, 1 << 16)
    os.close(reader)
    os.close(writer)


def test_our_own_log_on_a_stream_that_is_closed_costs_a_line(site: Site) -> None:
    site.set("logging", file="/dev/stdout", level="INFO")
    site.append(*lines(0, 3))
    command = ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *site.command()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == Exit.DONE
    assert "/dev/stdout cannot be written: Bad file descriptor; the run continues" in done.stderr
    assert "; it is closed: name a file in its place, /dev/stdout" in done.stderr
    assert site.emails() == users(0, 3)
