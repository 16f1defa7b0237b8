"""A file that is replaced is there as a whole, whoever else replaces it, and whatever killed the run before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.site import ROOT

from xraylog import atomic_file

WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from xraylog import atomic_file
for _ in range(300):
    atomic_file.replace(Path(sys.argv[2]), sys.argv[3].encode() * 300_000, 0o600)
"""


def test_two_that_replace_one_file_at_once_leave_it_whole_at_every_moment(tmp_path: Path) -> None:
    page = tmp_path / "page"
    page.write_bytes(b"a" * 300_000)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(ROOT), str(page), letter]) for letter in "ab"]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        content = page.read_bytes()
        assert content in (b"a" * 300_000, b"b" * 300_000)
        reads += 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert reads > 10
    assert os.listdir(tmp_path) == ["page"]


def test_what_a_killed_one_left_is_taken_away(tmp_path: Path) -> None:
    (tmp_path / ".page.new").write_bytes(b"half of a page that was longer")
    (tmp_path / ".page.new").chmod(0o666)
    atomic_file.replace(tmp_path / "page", b"whole", 0o600)
    assert (tmp_path / "page").read_bytes() == b"whole"
    assert (tmp_path / "page").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["page"]


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_what_stands_in_its_place_is_never_written_through(tmp_path: Path, kind: str) -> None:
    other, beside = tmp_path / "other", tmp_path / ".page.new"
    other.write_bytes(b"somebody's")
    if kind == "link":
        beside.symlink_to(other)
    elif kind == "hard link":
        beside.hardlink_to(other)
    else:
        os.mkfifo(beside)
    atomic_file.replace(tmp_path / "page", b"whole", 0o600)
    assert other.read_bytes() == b"somebody's"
    assert (tmp_path / "page").read_bytes() == b"whole"
    assert sorted(os.listdir(tmp_path)) == ["other", "page"]
