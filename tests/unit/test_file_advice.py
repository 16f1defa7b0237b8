"""What an error of the file system needs, where a test cannot easily make the error itself."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from xraylog import file_advice
from xraylog.file_advice import Needs

SUDO = "sudo " if os.geteuid() else ""


def mend(path: Path | str, number: int, needs: Needs = Needs.FILE) -> str:
    return file_advice.how_to_fix(Path(path), OSError(number, os.strerror(number), str(path)), needs)


@pytest.mark.skipif(shutil.which("findmnt") is None, reason="no util-linux here")
def test_what_is_mounted_read_only_is_found(tmp_path: Path) -> None:
    said, _, seen = mend(tmp_path / "buffer.jsonl", errno.EROFS).partition("; which one: ")
    assert said == "it is mounted read-only (a container: mount it without :ro)"
    (tmp_path / "buffer.jsonl").touch()
    assert subprocess.run(["/bin/sh", "-c", seen], check=True, capture_output=True).stdout


def test_too_many_open_files_name_the_limit_to_raise() -> None:
    assert mend("/x/y", errno.EMFILE) == "too many files are open; what to do: ulimit -n 1024"


def test_limits_and_broken_disks_are_called_so() -> None:
    assert mend("/x/y", errno.EFBIG) == "it is larger than this process may write; what to do: ulimit -f unlimited"
    assert mend("/x/y", errno.EIO) == "the disk may be broken, see: sudo dmesg"


@pytest.mark.parametrize("number", [errno.ELOOP, errno.ENAMETOOLONG])
def test_for_any_other_error_the_way_to_the_file_is_shown(number: int, tmp_path: Path) -> None:
    assert mend(tmp_path / "x", number) == f"see: namei -l {tmp_path}/x"


def test_a_folder_of_the_system_is_given_to_nobody() -> None:
    name, user = "/var/xraylog-test.jsonl", file_advice.user()
    given = f"{SUDO}install -o {user} -m 600 /dev/null {name}"
    own = f"{SUDO}install -d -o {user} -m 700 /var/lib/xraylog"
    assert mend(name, errno.EACCES) == f"what to do: {given}"
    assert mend(name, errno.EACCES, Needs.REPLACED) == f"what to do: {SUDO}setfacl -m u:{user}:rwx /var"
    moved = "what to do: in the config: offline_file = /var/lib/xraylog/xraylog-test.jsonl, after: "
    assert mend(name, errno.EACCES, Needs.FOLDER) == moved + own
    for beside in (".lock", ".state"):
        assert mend(f"{name}{beside}", errno.EACCES, Needs.FOLDER) == moved + own
    of_folder = mend("/var/.1be2ee877fa6b789.lock", errno.EACCES, Needs.FOLDER)
    assert of_folder == moved.replace("xraylog-test.jsonl", "buffer.jsonl") + own


def test_a_command_can_be_pasted_whatever_the_path_is(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    path = tmp_path / "a b" / "it's"
    path.touch(mode=0o400)
    command = mend(path, errno.EACCES).removeprefix("what to do: ").removeprefix("sudo ")
    assert subprocess.run(["/bin/sh", "-c", command], check=False).returncode in (0, 1)  # it is ours already


def test_a_folder_is_made_where_others_cannot_put_a_link_to_another_one(tmp_path: Path) -> None:
    """`install -d` gives whatever a link there leads to a new owner and mode."""
    tmp_path.chmod(0o700)
    assert "install -d -o" in file_advice.make_folder(tmp_path / "a" / "b")
    tmp_path.chmod(0o1777)
    assert "mkdir -m 700" in file_advice.make_folder(tmp_path / "a")
    assert "install" not in file_advice.make_folder(tmp_path / "a")


def test_what_is_not_there_is_not_mounted_read_only() -> None:
    assert not file_advice.is_read_only(Path("/missing/file"))
