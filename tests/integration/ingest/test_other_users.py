"""Root's runs over a folder of another user: whatever that user puts there, root's files stay as they are.

Each attack is made by that user, with the file system's own rights; the runs are root's.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.site import Site, lines, users
from helpers.users import OTHER, acting_as, as_root, becoming, folder_of

pytestmark = as_root
SECRET = b"root:x:0:0::/root:/bin/sh\n" * 20


@pytest.fixture
def theirs(database: dict[str, str]) -> Iterator[Site]:
    """A site in a folder of xray's user, with every file that a run can have there."""
    with folder_of(OTHER) as folder:
        site = Site(folder, database)
        site.set("stats", prometheus="metrics.prom")
        site.set("logging", file="own.log", level="INFO")
        append(site, 0, 30)
        yield site


@pytest.fixture
def victim() -> Iterator[Path]:
    """A file of root's, which everybody may reach and read."""
    with folder_of(0) as folder:
        (folder / "victim").write_bytes(SECRET)
        yield folder / "victim"


def append(site: Site, first: int, end: int) -> None:
    """What xray's user writes."""
    with acting_as(OTHER):
        site.append(*lines(first, end))


FILES = {
    "access.log": "log",
    "access.log.lock": "lock",
    "buffer.jsonl": "buffer",
    "buffer.jsonl.lock": "lock",
    "own.log": "own log",
    "stats.jsonl": "statistics",
    "metrics.prom": "metrics",
}


@pytest.mark.parametrize("away", [False, True], ids=["online", "offline"])
@pytest.mark.parametrize("name", FILES)
def test_a_link_to_roots_file_is_not_followed(theirs: Site, victim: Path, name: str, away: bool) -> None:
    if away:
        theirs.away()
    with acting_as(OTHER):
        (theirs.folder / name).unlink(missing_ok=True)
        (theirs.folder / name).symlink_to(victim)
    link = theirs.folder / name
    done = theirs.run(status=78 if name == "own.log" else 3)
    assert f"a link that the user nobody made at {link}; see where it leads: ls -l {link}" in done.stderr
    assert victim.read_bytes() == SECRET
    assert os.listdir(victim.parent) == ["victim"]  # no lock beside it, either


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_created_where_a_link_leads(theirs: Site, victim: Path, name: str) -> None:
    with acting_as(OTHER):
        (theirs.folder / name).unlink(missing_ok=True)
        (theirs.folder / name).symlink_to(victim.with_name("new"))
    theirs.away()
    theirs.run(status=78 if name == "own.log" else 3)
    assert os.listdir(victim.parent) == ["victim"]


@pytest.mark.parametrize("name", FILES)
def test_a_hard_link_to_roots_file_is_not_opened(theirs: Site, name: str) -> None:
    """As where the kernel does not protect hard links, or as they were made before it did."""
    victim = theirs.folder.with_name(f"{theirs.folder.name}.victim")
    victim.write_bytes(SECRET)
    try:
        (theirs.folder / name).unlink(missing_ok=True)
        (theirs.folder / name).hardlink_to(victim)
        done = theirs.run(status={"own.log": 78, "metrics.prom": 0}.get(name, 3))
        assert victim.read_bytes() == SECRET
        assert ("2 names (hard links)" in done.stderr) is (name != "metrics.prom")  # that one is replaced
    finally:
        victim.unlink()


def test_a_log_that_is_exchanged_between_runs_is_refused_and_loaded_when_it_is_back(theirs: Site, victim: Path) -> None:
    theirs.run()
    append(theirs, 30, 60)
    with acting_as(OTHER):
        theirs.log.rename(theirs.folder / "kept")
        theirs.log.symlink_to(victim)
    theirs.run(status=3)
    with acting_as(OTHER):
        (theirs.folder / "kept").replace(theirs.log)
    theirs.run()
    assert theirs.emails() == users(0, 60)
    assert theirs.rejected() == []


def test_a_log_that_root_links_to_is_followed(theirs: Site, tmp_path: Path) -> None:
    (tmp_path / "access.log").symlink_to(theirs.log)
    theirs.set("parser", logfile=str(tmp_path / "access.log"))
    theirs.run()
    assert theirs.emails() == users(0, 30)
    assert theirs.log.stat().st_uid == OTHER


def test_the_torn_file_may_not_be_a_link(theirs: Site, victim: Path) -> None:
    theirs.away()
    theirs.run()
    append(theirs, 30, 60)
    theirs.run()
    text = theirs.buffer.read_bytes()
    theirs.buffer.write_bytes(text.replace(b'"u45"', b'"u99"'))
    with acting_as(OTHER):
        (theirs.folder / "buffer.jsonl.torn").symlink_to(victim)
    theirs.run(status=3)
    assert victim.read_bytes() == SECRET
    theirs.run(status=3)  # nothing was cut off: the lines are nowhere else
    (theirs.folder / "buffer.jsonl.torn").unlink()
    theirs.run(status=3)  # they had left the log
    assert b'"u99"' in (theirs.folder / "buffer.jsonl.torn").read_bytes()


def test_the_state_beside_the_buffer_may_not_be_a_link(theirs: Site, victim: Path) -> None:
    state = theirs.folder / "buffer.jsonl.state"
    with acting_as(OTHER):
        state.symlink_to(victim)
    assert f"a link that the user nobody made at {state}" in theirs.run("--check", status=3).stdout
    assert f"a link that the user nobody made at {state}" in theirs.run(status=3).stderr
    assert victim.read_bytes() == SECRET
    state.unlink()
    theirs.run()
    assert theirs.emails() == users(0, 30)


@pytest.mark.parametrize("name", ["access.log", "buffer.jsonl", "access.log.lock", "own.log", "stats.jsonl"])
def test_a_pipe_is_not_waited_for(theirs: Site, name: str) -> None:
    with acting_as(OTHER):
        (theirs.folder / name).unlink(missing_ok=True)
        os.mkfifo(theirs.folder / name)
    theirs.run(status={"own.log": 78, "stats.jsonl": 0}.get(name, 3))


def test_files_that_root_creates_are_roots_alone(theirs: Site) -> None:
    theirs.away()
    theirs.run()
    for name in FILES:
        found = (theirs.folder / name).stat()
        if name != "access.log":
            assert found.st_uid == 0, name
            assert found.st_mode & 0o777 == (0o644 if name == "metrics.prom" else 0o600), name


def test_in_a_folder_like_tmp_only_files_of_this_user_are_ours(database: dict[str, str]) -> None:
    with folder_of(0, 0o1777) as folder:
        site = Site(folder, database)
        append(site, 0, 30)
        for theirs in (site.stats, folder / "access.log.lock"):
            theirs.unlink(missing_ok=True)
            with acting_as(OTHER):
                theirs.touch()
            done = site.run(status=3)
            assert f"a file of nobody in a folder where others may write, {folder}" in done.stderr
            theirs.unlink()
        site.run()
        assert site.emails() == users(0, 30)  # the log is another program's, and may be theirs


def test_settings_of_another_user_are_not_roots(theirs: Site) -> None:
    os.chown(theirs.config, OTHER, OTHER)
    done = theirs.run(status=78)
    assert "runuser -u nobody -- COMMAND" in done.stderr


def test_settings_that_others_may_write_are_not_roots(theirs: Site) -> None:
    theirs.config.chmod(0o622)
    done = theirs.run(status=78)
    assert (
        f"settings that others may write, and so decide what root writes; read them, and: chmod go-w {theirs.config}"
        in (done.stderr)
    )
    theirs.config.chmod(0o600)
    theirs.run()


def test_a_pipe_in_the_place_of_the_settings_is_not_waited_for(theirs: Site) -> None:
    """The folder is another user's, who would write settings into it."""
    with acting_as(OTHER):
        theirs.config.rename(theirs.folder / "kept")
        os.mkfifo(theirs.config)
    assert "settings of nobody" in theirs.run(status=78).stderr


@pytest.mark.parametrize("script", ["report_logs", "migrate_logs_to_partitioned"])
def test_settings_by_a_link_are_not_followed(theirs: Site, script: str, tmp_path: Path) -> None:
    theirs.config.rename(tmp_path / "real.ini")
    with acting_as(OTHER):
        theirs.config.symlink_to(tmp_path / "real.ini")
    assert "a link that the user nobody made" in theirs.run(script=script, status=78).stderr


def test_the_page_is_not_written_by_a_link_and_is_nobody_elses(theirs: Site, victim: Path) -> None:
    theirs.run()
    page = theirs.folder / "report.html"
    with acting_as(OTHER):
        page.symlink_to(victim)
        (theirs.folder / ".report.html.new").touch()
    done = theirs.run("--output", str(page), script="report_logs", status=3)
    assert f"a link that the user nobody made at {page}" in done.stderr
    assert victim.read_bytes() == SECRET
    page.unlink()
    theirs.run("--output", str(page), script="report_logs")
    assert (page.stat().st_uid, page.stat().st_mode & 0o777) == (0, 0o600)


def test_what_a_lock_says_does_not_act_on_a_terminal(theirs: Site) -> None:
    lock = theirs.folder / "access.log.lock"
    with acting_as(OTHER):
        lock.write_bytes("\x1b]0;owned\x07\n\x1b[2J\u202ereggol".encode())
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for arguments, status in (((), 75), (("--check",), 3), (("--dry-run",), 0)):
            done = theirs.run(*arguments, status=status)
            said = done.stdout + done.stderr
            assert " by an unknown process" in said  # no run writes that
            assert not set("\x1b\x07\u202e") & set(said)
    assert "\x1b" not in (theirs.folder / "own.log").read_text()


def test_the_name_of_a_file_does_not_act_on_a_terminal(theirs: Site) -> None:
    name = "access.log.\x1b[2J\n\u202e.1"
    with acting_as(OTHER):
        (theirs.folder / name).write_text("no line of xray\n" * 30)
    for arguments in ((), ("--dry-run",), ("--check",)):
        pattern = str(theirs.folder / "access.log.*.1")
        done = theirs.run("--logfile", pattern, *arguments)
        said = done.stdout + done.stderr
        assert r"access.log.\x1b[2J\x0a\u202e.1" in said
        assert not set("\x1b\u202e") & set(said)


@pytest.mark.parametrize("name", FILES)
def test_check_tells_what_a_run_would_refuse(theirs: Site, victim: Path, name: str) -> None:
    theirs.run("--check")
    with acting_as(OTHER):
        (theirs.folder / name).unlink(missing_ok=True)
        (theirs.folder / name).symlink_to(victim)
    said = theirs.run("--check", status=3).stdout
    assert f"✗ files: a link that the user nobody made at {theirs.folder / name}; see where it leads" in said
    assert "until then a run exits with status 3, or 78: docs/security.md" in said
    (theirs.folder / name).unlink()
    assert "✓ files: no other user decides" in theirs.run("--check", status=3 if name == "access.log" else 0).stdout


def test_check_tells_root_whose_log_it_is(theirs: Site) -> None:
    said = theirs.run("--check").stdout
    assert f"✓ user: root, and {theirs.log} belongs to nobody; better run as nobody: runuser -u nobody" in said
    os.chown(theirs.log, 0, 0)
    assert "✓ user: root\n" in theirs.run("--check").stdout


def test_a_log_of_root_is_given_to_the_user_of_the_config(theirs: Site) -> None:
    """Root takes no settings of another user: to run as root would be no way out."""
    os.chown(theirs.config, OTHER, OTHER)
    os.chown(theirs.log, 0, 0)
    theirs.log.chmod(0o600)
    command = [*becoming(OTHER), *theirs.command()]
    said = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/").stderr
    assert f"let it have the config: sudo chown -h root {theirs.config}" in said
    assert "sudo -u root" not in said
    mend = said.partition("what to do: sudo ")[2].splitlines()[0]
    assert mend == f"chown -h nobody {theirs.log}"
    subprocess.run(["/bin/sh", "-c", mend], check=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, "WARNING" in done.stderr) == (0, False)
    assert theirs.emails() == users(0, 30)
