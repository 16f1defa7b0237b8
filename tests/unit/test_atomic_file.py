"""A file that is replaced is there as a whole, whoever else replaces it, and whatever killed the run before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.site import ROOT
from helpers.users import OTHER, acting_as, as_root, folder_of

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
    left, fresh, other = (tmp_path / f".page.{letter * 16}.new" for letter in "abg")
    for path in (left, fresh, other):
        path.write_bytes(b"half of a page")
    for path in (left, other):
        os.utime(path, (0, 0))
    atomic_file.replace(tmp_path / "page", b"whole", 0o600)
    assert (tmp_path / "page").read_bytes() == b"whole"
    assert (tmp_path / "page").stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == [fresh.name, other.name, "page"]  # another run may write the one


def test_what_cannot_be_replaced_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        atomic_file.replace(tmp_path / "page", b"whole", 0o600)
    assert raised.value.filename == str(tmp_path / "page")
    assert os.listdir(tmp_path) == ["page"]


def test_the_new_file_is_new_and_nobody_foresees_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, int]] = []
    real_open = os.open

    def spy(path: str, flags: int, *more: int, **options: int) -> int:
        if str(path).endswith(".new"):
            made.append((path, flags))
        return real_open(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", spy)
    for _ in range(2):
        atomic_file.replace(tmp_path / "page", b"whole", 0o600)
    assert len({name for name, _ in made}) == 2
    assert all(flags & os.O_EXCL and flags & os.O_NOFOLLOW for _, flags in made)


@as_root
def test_a_link_of_another_user_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"root's")
    with folder_of(OTHER) as theirs:
        with acting_as(OTHER):
            (theirs / "page").symlink_to(tmp_path / "victim")
        with pytest.raises(OSError, match="a link that the user nobody made"):
            atomic_file.replace(theirs / "page", b"whole", 0o600)
        assert os.listdir(theirs) == ["page"]
    assert (tmp_path / "victim").read_bytes() == b"root's"


@as_root
def test_what_another_user_owned_is_not_what_is_written() -> None:
    with folder_of(OTHER) as theirs:
        with acting_as(OTHER):
            (theirs / "page").touch()
        with (theirs / "page").open("rb") as kept_open:
            atomic_file.replace(theirs / "page", b"whole", 0o600)
            assert kept_open.read() == b""
        assert (theirs / "page").stat().st_uid == 0
