"""No other user of the machine decides which file we open."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.users import OTHER, THIRD, acting_as, as_root, folder_of

from xraylog import safe_open, safe_path
from xraylog.config import files
from xraylog.config.files import open_settings
from xraylog.safe_path import Unsafe

WRITE = os.O_WRONLY | os.O_APPEND | os.O_CREAT
OPENERS = {
    "file": lambda path: safe_open.open_file(path, WRITE),
    "log": lambda path: safe_open.open_log(path, os.O_RDWR),
    "config": open_settings,
}
every_opener = pytest.mark.parametrize("kind", OPENERS)


def opened(path: Path, kind: str = "file") -> os.stat_result:
    """What is opened there."""
    descriptor = OPENERS[kind](path)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A folder of another user."""
    with folder_of(OTHER) as folder:
        yield folder


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder like /tmp."""
    with folder_of(0, 0o1777) as folder:
        yield folder


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of root's."""
    path = tmp_path / "secret"
    path.write_text("root's")
    return path


def link_by(user: int, link: Path, target: Path | str) -> None:
    """Make a link as this user."""
    with acting_as(user):
        link.symlink_to(target)


# --- without another user ------------------------------------------------------------------------------------


def test_a_missing_file_is_created_for_its_owner_alone(tmp_path: Path) -> None:
    assert stat.S_IMODE(opened(tmp_path / "new").st_mode) == 0o600
    with pytest.raises(FileNotFoundError):
        safe_open.open_file(tmp_path / "none", os.O_RDONLY)
    assert os.listdir(tmp_path) == ["new"]


def test_links_of_this_user_are_followed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("x")
    (tmp_path / "folder").symlink_to("a/./b")
    (tmp_path / "link").symlink_to("folder/../b//file")
    (tmp_path / "absolute").symlink_to(tmp_path / "link")
    real = (tmp_path / "a" / "b" / "file").stat()
    for name in ("link", "absolute", "folder/file"):
        assert os.path.samestat(opened(tmp_path / name), real)
        assert safe_open.real_path(tmp_path / name) == Path(os.path.realpath(tmp_path / name))
        assert safe_open.why_unsafe(tmp_path / name) is None


def test_a_file_is_created_where_a_link_of_this_user_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    opened(tmp_path / "link")
    assert (tmp_path / "real").read_bytes() == b""


def test_links_in_a_circle_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="Too many levels"):
        opened(tmp_path / "loop")


def test_a_second_name_of_this_user_is_opened(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("x")
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    assert opened(tmp_path / "two").st_nlink == 2


@pytest.mark.parametrize("name", ["/", "/.", "/dev/.."])
def test_the_top_folder_is_a_folder(name: str) -> None:
    with pytest.raises(IsADirectoryError):
        opened(Path(name))


def test_what_was_open_before_is_opened_by_its_descriptor(tmp_path: Path) -> None:
    """As /dev/stdin is."""
    (tmp_path / "file").write_text("x")
    with (tmp_path / "file").open() as file:
        for path in (f"/dev/fd/{file.fileno()}", f"/proc/self/fd/{file.fileno()}"):
            found = safe_open.open_file(Path(path), os.O_RDONLY)
            assert os.path.samestat(os.fstat(found), (tmp_path / "file").stat())
            os.close(found)
            assert safe_open.real_path(Path(path)) == tmp_path / "file"
    read, write = os.pipe()
    assert stat.S_ISFIFO(opened(Path(f"/dev/fd/{write}")).st_mode)
    os.close(read)
    os.close(write)
    assert stat.S_ISCHR(opened(Path("/dev/null")).st_mode)


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("file")
    before = os.listdir("/proc/self/fd")
    opened(tmp_path / "link")
    for bad in ("loop", "none/file", "file/file"):
        with pytest.raises(OSError):  # noqa: PT011  # each another one
            opened(tmp_path / bad)
    assert os.listdir("/proc/self/fd") == before


# --- another user's doing --------------------------------------------------------------------------------------


@as_root
@every_opener
@pytest.mark.parametrize("place", ["theirs", "shared"])
def test_a_link_of_another_user_is_not_followed(
    request: pytest.FixtureRequest, place: str, kind: str, secret: Path
) -> None:
    link = request.getfixturevalue(place) / "link"
    link_by(OTHER, link, secret)
    with pytest.raises(
        Unsafe, match=rf"a link that the user nobody made at {link}.*name the file itself.*otherwise: rm {link}"
    ):
        opened(link, kind)
    assert "a link that the user nobody made" in (safe_open.why_unsafe(link) or "")
    assert secret.read_text() == "root's"


@as_root
def test_nothing_is_created_where_a_link_of_another_user_leads(theirs: Path, tmp_path: Path) -> None:
    link_by(OTHER, theirs / "link", tmp_path / "new")
    with pytest.raises(Unsafe):
        opened(theirs / "link")
    assert os.listdir(tmp_path) == []


@as_root
@every_opener
def test_a_folder_that_is_a_link_of_another_user_is_not_entered(theirs: Path, secret: Path, kind: str) -> None:
    link_by(OTHER, theirs / "folder", secret.parent)
    with pytest.raises(Unsafe, match="a link that the user nobody made"):
        opened(theirs / "folder" / secret.name, kind)
    with pytest.raises(Unsafe):
        safe_open.real_path(theirs / "folder" / secret.name)


@as_root
def test_our_link_to_a_link_of_another_user_is_not_followed(theirs: Path, secret: Path, tmp_path: Path) -> None:
    link_by(OTHER, theirs / "link", secret)
    (tmp_path / "mine").symlink_to(theirs / "link")
    with pytest.raises(Unsafe):
        opened(tmp_path / "mine")


@as_root
def test_a_link_that_root_made_or_put_there_is_followed(theirs: Path, secret: Path, tmp_path: Path) -> None:
    (theirs / "link").symlink_to(secret)
    os.lchown(tmp_path, 0, 0)
    (tmp_path / "given").symlink_to(secret)
    os.lchown(tmp_path / "given", OTHER, OTHER)  # nobody but root may change where it leads
    for link in (theirs / "link", tmp_path / "given"):
        assert os.path.samestat(opened(link), secret.stat())


@as_root
@every_opener
@pytest.mark.parametrize("place", ["theirs", "shared"])
def test_a_hard_link_where_others_may_write_is_not_opened(
    request: pytest.FixtureRequest, place: str, kind: str, shared: Path
) -> None:
    """It may be a file of root's, on a kernel that lets anybody make hard links."""
    folder = request.getfixturevalue(place)
    victim = shared / "victim"
    victim.write_text("root's")
    (folder / "link").hardlink_to(victim)
    with pytest.raises(Unsafe, match=r"2 names \(hard links\)"):
        opened(folder / "link", kind)
    assert victim.read_text() == "root's"


@as_root
@every_opener
@pytest.mark.parametrize("place", ["theirs", "shared"])
def test_a_hard_link_that_is_removed_before_it_is_counted_is_not_opened(
    request: pytest.FixtureRequest, place: str, kind: str, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then the file has one name again: its own."""
    link, victim = request.getfixturevalue(place) / "link", shared / "victim"
    victim.write_text("root's")
    real_open = safe_path.Place.open

    def open_it(place: safe_path.Place, flags: int, mode: int = 0o600) -> int:
        link.hardlink_to(victim)
        try:
            return real_open(place, flags, mode)
        finally:
            link.unlink()

    monkeypatch.setattr(safe_path.Place, "open", open_it)
    with pytest.raises(Unsafe, match="removed whenever it is opened"):
        opened(link, kind)
    assert victim.read_text() == "root's"


@as_root
@every_opener
def test_a_hard_link_that_is_moved_too_deep_for_its_path_to_be_shown_is_not_opened(
    kind: str, theirs: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nobody can see that it has lost its name: a path of more than 4096 bytes."""
    link, victim = theirs / "link", shared / "victim"
    victim.write_text("root's")
    deep, folders = os.open(theirs, os.O_RDONLY), []
    for _ in range(18):
        os.mkdir("d" * 250, dir_fd=deep)
        folders.append(deep)
        deep = os.open("d" * 250, os.O_RDONLY, dir_fd=deep)
    real_open = safe_path.Place.open

    def open_it(place: safe_path.Place, flags: int, mode: int = 0o600) -> int:
        link.hardlink_to(victim)
        descriptor = real_open(place, flags, mode)
        os.rename(link, "x", dst_dir_fd=deep)
        os.unlink("x", dir_fd=deep)
        return descriptor

    monkeypatch.setattr(safe_path.Place, "open", open_it)
    with pytest.raises(Unsafe, match="removed whenever it is opened"):
        opened(link, kind)
    assert victim.read_text() == "root's"
    os.close(deep)
    for folder in reversed(folders):  # deeper than rmtree can name
        os.rmdir("d" * 250, dir_fd=folder)
        os.close(folder)


@as_root
def test_a_file_that_is_exchanged_while_it_is_opened_is_opened_once_more(
    theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by logrotate: what counts is the file that has the name."""
    log, new = theirs / "access.log", theirs / "new"
    log.write_text("old\n")
    new.write_text("new\n")
    real_open, kept = safe_path.Place.open, new.stat()

    def open_it(place: safe_path.Place, flags: int, mode: int = 0o600) -> int:
        descriptor = real_open(place, flags, mode)
        if new.exists():
            new.replace(log)
        return descriptor

    monkeypatch.setattr(safe_path.Place, "open", open_it)
    before = os.listdir("/proc/self/fd")
    assert os.path.samestat(opened(log, "log"), kept)
    assert os.listdir("/proc/self/fd") == before


@as_root
def test_a_hard_link_to_a_link_that_is_removed_before_it_is_counted_is_not_followed(
    theirs: Path, shared: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shared / "of root").symlink_to(secret)
    link = theirs / "link"
    os.link(shared / "of root", link, follow_symlinks=False)
    real_open = os.open

    def open_it(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        descriptor = real_open(path, flags, mode, dir_fd=dir_fd)
        if path == "link":
            link.unlink()
        return descriptor

    monkeypatch.setattr(os, "open", open_it)
    with pytest.raises(Unsafe, match="a link that the user root made"):
        opened(link)


@as_root
def test_a_file_of_another_user_where_others_may_write_is_not_ours(shared: Path) -> None:
    (shared / "buffer").write_text("theirs")
    os.chown(shared / "buffer", OTHER, OTHER)
    shared.chmod(0o777)
    with pytest.raises(Unsafe, match=f"a file of nobody in a folder where others may write.*chmod go-w {shared}"):
        opened(shared / "buffer")
    shared.chmod(0o755)  # what the message says
    opened(shared / "buffer")


@as_root
def test_in_a_folder_that_is_for_everybody_a_file_of_another_user_is_not_made_ours(shared: Path) -> None:
    (shared / "buffer").write_text("theirs")
    os.chown(shared / "buffer", OTHER, OTHER)
    shared.chmod(0o1777)
    told = f"a file of nobody in .*; name another folder in the config, and: rm {shared}/buffer"
    with pytest.raises(Unsafe, match=told):
        opened(shared / "buffer")


@as_root
def test_a_third_users_file_is_not_ours(theirs: Path) -> None:
    (theirs / "buffer").write_text("theirs")
    os.chown(theirs / "buffer", THIRD, THIRD)
    with pytest.raises(Unsafe, match=f"chown {THIRD} {theirs} && chmod go-w {theirs}"):
        opened(theirs / "buffer")


@as_root
def test_the_file_of_a_folders_only_user_is_opened(theirs: Path) -> None:
    """As root, in the folder of xray's user: what is there is theirs, and can be nothing else."""
    (theirs / "buffer").write_text("theirs")
    os.chown(theirs / "buffer", OTHER, OTHER)
    assert opened(theirs / "buffer").st_uid == OTHER
    theirs.chmod(0o775)
    with pytest.raises(Unsafe):
        opened(theirs / "buffer")


@as_root
@pytest.mark.parametrize("place", ["theirs", "shared"])
def test_what_is_created_where_others_may_write_is_ours(request: pytest.FixtureRequest, place: str) -> None:
    path = request.getfixturevalue(place) / "new"
    made = opened(path)
    assert (made.st_uid, stat.S_IMODE(made.st_mode)) == (0, 0o600)
    assert os.path.samestat(opened(path), made)


@as_root
def test_a_user_trusts_root_and_themself_and_nobody_else(theirs: Path, shared: Path) -> None:
    (theirs / "file").write_text("x")
    os.chown(theirs / "file", OTHER, OTHER)
    (shared / "by root").symlink_to(theirs / "file")
    link_by(OTHER, shared / "own", theirs / "file")
    link_by(THIRD, shared / "third", theirs / "file")
    with acting_as(OTHER):
        for kind in OPENERS:
            opened(shared / "by root", kind)
            opened(shared / "own", kind)
            with pytest.raises(Unsafe):
                opened(shared / "third", kind)


@as_root
def test_the_size_of_a_file_that_a_link_of_another_user_leads_to_is_not_told(theirs: Path, secret: Path) -> None:
    """The metrics have it, which everybody may read."""
    link_by(OTHER, theirs / "link", secret)
    assert safe_open.size(secret) == 6
    with pytest.raises(Unsafe):
        safe_open.size(theirs / "link")
    with pytest.raises(FileNotFoundError):
        safe_open.size(theirs / "none")


# --- a log, and the settings --------------------------------------------------------------------------------------


@as_root
def test_a_log_is_opened_as_its_owner(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands there when it is opened is theirs, too, or it is not opened."""
    log, victim = theirs / "access.log", theirs / "victim"
    log.write_text("line\n")
    os.chown(log, OTHER, OTHER)
    victim.write_text("root's")
    victim.chmod(0o600)
    assert opened(log, "log").st_uid == OTHER
    real_find = safe_path.Place.find

    def find(place: safe_path.Place) -> os.stat_result | None:
        there = real_find(place)
        os.replace(victim, log)
        return there

    monkeypatch.setattr(safe_path.Place, "find", find)
    with pytest.raises(PermissionError):
        opened(log, "log")
    assert os.geteuid() == 0


@as_root
def test_a_log_of_another_user_in_a_folder_of_roots_is_opened(tmp_path: Path, shared: Path) -> None:
    for folder in (tmp_path, shared):
        (folder / "access.log").write_text("line\n")
        os.chown(folder / "access.log", OTHER, OTHER)
        assert opened(folder / "access.log", "log").st_uid == OTHER


@as_root
def test_root_takes_settings_only_from_root(theirs: Path, tmp_path: Path) -> None:
    """They say which files root writes."""
    for folder in (theirs, tmp_path):
        path = folder / "config.ini"
        path.write_text("x")
        os.chown(path, OTHER, OTHER)
        with pytest.raises(Unsafe, match=f"settings of nobody.*runuser -u nobody.*chown root {path}"):
            opened(path, "config")
    with acting_as(OTHER):
        opened(theirs / "config.ini", "config")


@as_root
@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_root_takes_no_settings_that_others_may_write(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "config.ini"
    path.write_text("x")
    path.chmod(mode)
    with pytest.raises(Unsafe, match=f"settings that others may write.*chmod go-w {path}"):
        opened(path, "config")


@as_root
def test_root_takes_no_settings_from_a_pipe_of_another_user_and_does_not_wait_for_it(theirs: Path) -> None:
    with acting_as(OTHER):
        os.mkfifo(theirs / "config.ini")
    with pytest.raises(Unsafe, match="settings of nobody"):
        opened(theirs / "config.ini", "config")


@as_root
def test_a_pipe_that_the_run_was_started_with_may_be_another_users() -> None:
    """As of `sudo parse_logs.py --config /dev/stdin`."""
    with acting_as(OTHER):
        read, write = os.pipe()
    assert stat.S_ISFIFO(opened(Path(f"/dev/fd/{read}"), "config").st_mode)
    os.close(read)
    os.close(write)


def test_settings_are_waited_for_in_a_pipe_of_this_user(tmp_path: Path) -> None:
    pipe = tmp_path / "config.ini"
    os.mkfifo(pipe, 0o600)
    writing = ["/bin/sh", "-c", 'exec > "$0"; echo some; echo settings', str(pipe)]
    with subprocess.Popen(writing) as writer, os.fdopen(open_settings(pipe)) as file:
        assert os.get_blocking(file.fileno())
        assert file.read() == "some\nsettings\n"
    assert writer.returncode == 0


@pytest.mark.parametrize("settings", [b"settings\n", b""])
def test_a_program_that_wrote_settings_into_a_pipe_and_is_gone_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: bytes
) -> None:
    pipe = tmp_path / "config.ini"
    os.mkfifo(pipe, 0o600)
    wait_for_writer = files._wait_for_writer

    def once_written(descriptor: int) -> None:
        pipe.write_bytes(settings)
        wait_for_writer(descriptor)

    monkeypatch.setattr(files, "_wait_for_writer", once_written)
    with os.fdopen(open_settings(pipe), "rb") as file:
        assert file.read() == settings


def test_of_a_path_with_nothing_there_nothing_is_known(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert safe_open.kind_of(missing) == ""
    assert safe_open.owner(missing) is None
    assert not safe_open.is_private_folder(missing)


def test_without_proc_a_file_is_taken_to_have_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> str:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    with (tmp_path / "file").open("w") as file:
        assert safe_path.has_name(file.fileno())
        monkeypatch.setattr(os, "readlink", missing)
        assert safe_path.has_name(file.fileno())
