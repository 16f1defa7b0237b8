"""Two machines with one name: a copy has positions of its own, and no line of either is lost or doubled."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.load_paths import LOAD_PATHS
from helpers.site import Site, lines, users

from xraylog.accesslog import installation
from xraylog.cli import Exit
from xraylog.database.positions import Position
from xraylog.ingest import confirmation, online
from xraylog.ingest.confirmation import RunTarget
from xraylog.ingest.source import Source

COPIED = "this installation was copied"


@contextlib.contextmanager
def on_machine(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """What runs inside finds this in /etc/machine-id."""
    path = tmp_path / "machine-id"
    path.write_text(text)
    with monkeypatch.context() as patch:
        patch.setattr(installation, "MACHINE_ID", path)
        yield


def alternately(one: Site, other: Site, keep: bool = False) -> str:
    """Each gets lines and runs, in turns; return what they said. Lines 100-129 are of the one, 200-229 of the other."""
    said = ""
    for step in range(3):
        for site, first in ((one, 100), (other, 200)):
            site.append(*lines(first + 10 * step, first + 10 * step + 10))
            said += site.run(*(["--keep"] if keep else [])).stderr
    return said


@pytest.mark.parametrize("load_path", LOAD_PATHS)
@pytest.mark.parametrize("keep", [False, True])
def test_a_clone_and_its_original_store_each_line_once(site: Site, load_path: str, keep: bool) -> None:
    """Their lines are of the same length: positions of the one fit into the log of the other."""
    site.load_path = load_path
    site.append(*lines(500, 560))
    site.run(*(["--keep"] if keep else []))
    said = alternately(site, site.clone(), keep)
    assert said.count(COPIED) == 1
    assert f"[parser] node in {site.folder}-clone/config.ini" in said
    assert site.emails() == users(500, 560) + users(100, 130) + users(200, 230)


@pytest.mark.parametrize("keep", [[], ["--keep"]])
def test_a_dry_run_knows_that_it_is_a_copy(site: Site, keep: list[str]) -> None:
    """The original's position is further than the copy's log, or within lines that only the copy has."""
    site.append(*lines(500, 510))
    site.run("--keep")
    copy = site.clone()
    site.append(*lines(100, 103 if keep else 101))
    site.run("--keep")
    copy.append(*lines(200, 202))
    told = copy.run("--dry-run", *keep).stdout
    assert COPIED in told
    assert "2 lines = 2 rows" in told
    copy.run(*keep)
    assert COPIED not in copy.run("--dry-run").stdout


def test_the_clone_may_be_the_first_to_run(site: Site) -> None:
    """Then the original is the one that finds out."""
    site.append(*lines(500, 560))
    site.run("--keep")
    said = alternately(site.clone(), site, keep=True)
    assert said.count(COPIED) == 1
    assert f"[parser] node in {site.config}" in said
    assert site.emails() == users(500, 560) + users(100, 130) + users(200, 230)


@pytest.mark.parametrize("is_rotated", [False, True])
@pytest.mark.parametrize("has_new_lines", [False, True])
def test_the_copy_knows_its_lines_when_the_original_has_only_taken_them_out_of_its_log(
    site: Site, is_rotated: bool, has_new_lines: bool
) -> None:
    site.append(*lines(500, 510))
    site.run("--keep")
    copy = site.clone()
    site.run()
    log = copy.log
    if is_rotated:
        log = log.rename(f"{log}.1")
    if has_new_lines:
        copy.append(*lines(510, 515), to=log)
    said = copy.run(*(["--logfile", str(log)] if is_rotated else [])).stderr
    assert said.count(COPIED) == 1
    assert site.run().stderr == ""
    assert site.emails() == users(500, 515 if has_new_lines else 510)


def test_a_database_from_before_a_run_that_only_drained_makes_no_copy_of_the_original(site: Site) -> None:
    """Nor does one from before several of them: each leaves a receipt, and the database has one of them."""
    logs = [site.log.with_name(f"old{n}.log") for n in range(3)]
    for n, log in enumerate(logs):
        site.append(*lines(500 + n, 501 + n), to=log)
        site.run("--keep", "--logfile", str(log))
    backups = []
    for log in logs:
        backups.append(site.back_up())
        site.run("--logfile", str(log))
    site.append(*lines(600, 601))
    for backup in reversed(backups):
        site.restore(backup)
        assert "state: the database has all that it confirmed" in site.run("--check").stdout
    told = site.run().stderr
    assert COPIED not in told
    assert "older" not in told
    assert site.emails() == users(500, 503) + users(600, 601)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("first", ["original", "clone"])
def test_a_buffer_that_came_along_is_imported_once(site: Site, keep: bool, first: str) -> None:
    """Lines 500-509 are stored, 510-529 buffered when the machine is copied; then each buffers lines of its own."""
    kept = ["--keep"] if keep else []
    site.append(*lines(500, 510))
    site.run(*kept)
    site.away()
    for start in (510, 520):
        site.append(*lines(start, start + 10))
        site.run(*kept)
    copy = site.clone()
    pairs = [(site, 100), (copy, 200)]
    for one, start in pairs:
        one.append(*lines(start, start + 10))
        one.run(*kept)
    said = ""
    for one, start in pairs if first == "original" else reversed(pairs):
        one.back()
        one.append(*lines(start + 10, start + 20))
        said += one.run(*kept).stderr
        assert one.run(*kept).stderr == ""
    assert said.count(COPIED) == 1
    assert "missing" not in said
    assert site.emails() == users(500, 530) + users(100, 120) + users(200, 220)
    assert not site.buffered()
    assert not copy.buffered()


@pytest.mark.parametrize("stored", [0, 10], ids=["nothing stored before", "ten lines stored before"])
@pytest.mark.parametrize("first", ["original", "clone"])
def test_a_buffer_that_came_along_is_known_in_a_log_that_was_rotated_since(site: Site, first: str, stored: int) -> None:
    """Both have the buffered lines in their logs, too. Who comes second rotates its log before it runs."""
    site.append(*lines(400, 401), to=site.folder / "other.log")
    site.run("--logfile", str(site.folder / "other.log"))
    if stored:
        site.append(*lines(500, 500 + stored))
        site.run("--keep")
    site.away()
    site.append(*lines(500 + stored, 530))
    site.run("--keep")
    copy = site.clone()
    one, other = (site, copy) if first == "original" else (copy, site)
    for machine in (one, other):
        machine.back()
    one.run()
    rotated = other.log.rename(f"{other.log}.1")
    other.append(*lines(600, 603))
    assert other.run().stderr.count(COPIED) == 1
    other.run("--logfile", str(rotated))
    assert site.emails() == users(400, 401) + users(500, 530) + users(600, 603)


def test_a_clone_of_a_clone_is_noticed_too(site: Site) -> None:
    site.append(*lines(500, 510))
    site.run("--keep")
    copy = site.clone()
    alternately(site, copy, keep=True)
    third = copy.clone("third")
    for one, start in ((copy, 300), (third, 400), (site, 600), (third, 410)):
        one.append(*lines(start, start + 10))
        one.run("--keep")
    expected = users(500, 510) + users(100, 130) + users(200, 230) + users(300, 310) + users(600, 610)
    assert site.emails() == expected + users(400, 420)


def test_an_installation_that_moved_to_another_machine_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The old machine is gone, or it was a container: nobody else has confirmed anything since."""
    for number, text in enumerate(("0123456789abcdef\n", "fedcba9876543210\n", "", "uninitialized\n")):
        with on_machine(text, monkeypatch, tmp_path):
            site.append(*lines(10 * number, 10 * number + 10))
            assert site.run_here("--keep") == 0
    assert "WARNING" not in site.output()
    assert site.emails() == users(0, 40)


def test_a_copied_state_of_another_machine_is_called_so(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site.append(*lines(0, 10))
    with on_machine("0123456789abcdef\n", monkeypatch, tmp_path):
        site.run_here()
        copy = site.clone()
        site.append(*lines(10, 20))
        site.run_here()
    with on_machine("fedcba9876543210\n", monkeypatch, tmp_path):
        copy.append(*lines(20, 30))
        assert copy.run_here("--check") == 3
        assert f"✗ state: node n1, {copy.log}: {COPIED}" in copy.output()
        copy.run_here()
        assert copy.output().count("which was written on another machine") == 2
        assert copy.run_here("--check") == 0
    assert site.emails() == users(0, 30)


@pytest.fixture
def nameless(site: Site) -> Site:
    """A site whose node is the name of its host."""
    del site.settings["parser"]["node"]
    site.write_config()
    return site


def offline(site: Site) -> None:
    site.away()
    site.run("--keep")
    site.back()


def killed(site: Site) -> None:
    """Before its lines are confirmed."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(confirmation, "confirm", die)
        assert site.run_here("--keep") == -9


@contextlib.contextmanager
def host_name(host: str) -> Iterator[None]:
    """Inside, the host has this name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: host)
        yield


def run_on(host: str, site: Site, *arguments: str) -> str:
    """A run on a host of this name; return what it said."""
    before = len(site.output())
    with host_name(host):
        assert site.run_here(*arguments) == 0
    return site.output()[before:]


def test_another_name_of_the_host_is_not_another_node(nameless: Site) -> None:
    """A container that is recreated; its log keeps its lines."""
    site = nameless
    for number, host in enumerate(("a", "b", "b", "c", "c")):
        site.append(*lines(10 * number, 10 * number + 10))
        if number == 3:
            site.away()
        said = run_on(host, site, "--keep")
        site.back()
        assert ("the host name is now" in said) == (number in (1, 3, 4))  # the fourth run was offline
    assert "WARNING" not in run_on("c", site, "--keep")
    assert site.emails() == users(0, 50)
    assert {row[-1] for row in site.rows()} == {"a"}


@pytest.mark.parametrize("strike", [offline, killed])
def test_the_name_is_known_before_anything_is_confirmed(nameless: Site, strike: Callable[[Site], None]) -> None:
    """The first run buffered its lines, or was killed after it had stored them; then the host gets another name."""
    site = nameless
    site.append(*lines(0, 10))
    with host_name("a"):
        strike(site)
    run_on("b", site, "--keep")
    assert site.emails() == users(0, 10)
    assert {row[-1] for row in site.rows()} == {"a"}


def test_the_name_is_known_in_a_new_database_too(nameless: Site) -> None:
    """The run that found that it is another one was killed before its lines were confirmed."""
    site = nameless
    site.append(*lines(0, 10))
    run_on("a", site, "--keep")
    site.restore({})
    with host_name("a"):
        killed(site)
    run_on("b", site, "--keep")
    assert site.emails() == users(0, 10)
    assert {row[-1] for row in site.rows()} == {"a"}


@pytest.mark.parametrize("machines", [("1111", "2222"), ("1111", "1111")])
@pytest.mark.parametrize("first", ["original", "copy"])
def test_a_copy_with_a_name_of_its_own_gets_a_node_of_its_own(
    nameless: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machines: tuple[str, str], first: str
) -> None:
    """Where the machine id is the same, too, the run that finds out is the second one."""
    site = nameless
    site.append(*lines(0, 10))
    with on_machine(machines[0], monkeypatch, tmp_path):
        run_on("a", site, "--keep")
    copy = site.clone()
    pairs = [(site, "a", machines[0], 100), (copy, "b", machines[1], 200)]
    for one, host, machine, start in (pairs if first == "original" else pairs[::-1]) * 2:
        one.append(*lines(start, start + 10))
        with on_machine(machine, monkeypatch, tmp_path):
            run_on(host, one, "--keep")
    by_node = {name: {row[9] for row in site.rows() if row[-1] == name} for name in ("a", "b")}
    assert site.emails() == users(0, 10) + users(100, 110) + users(100, 110) + users(200, 210) + users(200, 210)
    if first == "original" or machines[0] != machines[1]:
        assert by_node == {"a": {*users(0, 10), *users(100, 110)}, "b": {*users(200, 210)}}


@pytest.mark.parametrize("keep", [[], ["--keep"]])
def test_a_copy_with_a_name_and_a_buffer_of_its_own_reads_its_log_once(nameless: Site, keep: list[str]) -> None:
    """A batch that came along, and one that it made before it noticed, are of the first node; its log is not."""
    site = nameless
    site.append(*lines(0, 10))
    run_on("a", site, "--keep")
    site.away()
    site.append(*lines(10, 20))
    run_on("a", site, *keep)
    copy = site.clone()
    site.back()
    run_on("a", site)
    copy.append(*lines(20, 30))
    run_on("b", copy, *keep)
    copy.back()
    copy.append(*lines(30, 40))
    assert COPIED in run_on("b", copy, *keep)
    assert site.emails() == users(0, 40)
    assert {row[-1] for row in site.rows()} == {"a", "b"}


def test_a_node_that_is_set_counts(nameless: Site) -> None:
    site = nameless
    site.append(*lines(0, 10))
    run_on("a", site)
    site.set("parser", node="chosen")
    site.append(*lines(10, 20))
    assert "WARNING" not in run_on("b", site)
    assert [row[-1] for row in site.rows()] == ["a"] * 10 + ["chosen"] * 10


def lose(site: Site) -> None:
    site.state.unlink()


def damage(site: Site) -> None:
    site.state.write_text("{")


def age(site: Site) -> None:
    """An older copy of the state is put back."""
    older = site.state.read_bytes()
    site.append(*lines(10, 20))
    site.run("--keep")
    site.state.write_bytes(older)


@pytest.mark.parametrize("change", [lose, damage, age])
def test_an_installation_without_its_latest_state_goes_on(site: Site, change: Callable[[Site], None]) -> None:
    site.append(*lines(0, 10))
    site.run("--keep")
    change(site)
    site.append(*lines(20, 30))
    site.run("--keep")
    expected = users(0, 10) + users(20, 30) + (users(10, 20) if change is age else users(0, 0))
    assert site.emails() == expected
    site.append(*lines(30, 40))
    assert site.run("--keep").stderr == ""
    assert site.emails() == expected + users(30, 40)


def test_a_copy_without_the_state_file_loses_nothing(site: Site) -> None:
    """Its log has the same beginning, and other lines where the original's position is."""
    site.append(*lines(500, 560))
    site.run("--keep")
    copy = site.clone()
    copy.state.unlink()
    site.append(*lines(0, 20))
    site.run("--keep")
    copy.append(*lines(20, 50))
    copy.run("--keep")
    copy.append(*lines(60, 70))
    copy.run("--keep")
    site.append(*lines(70, 80))
    site.run("--keep")
    assert not users(0, 50) + users(60, 80) - site.emails()


# --- copies that meet other databases, rotated logs and archives; each found with two real clusters ----------------


FIRST = [500, 560]  # lines of more than 4 KiB: what follows has the same beginning on both machines


@pytest.mark.parametrize("keep", [[], ["--keep"]], ids=["drained", "kept"])
@pytest.mark.parametrize("names", [("n1", "n1"), ("a", "b")], ids=["one name", "a name each"])
def test_a_copy_does_not_hide_that_the_database_is_older(site: Site, keep: list[str], names: tuple[str, str]) -> None:
    """The database is a standby that lacks the original's last run, and the copy has gone on in it."""
    site.set("parser", node=names[0])
    site.append(*lines(*FIRST))
    site.run(*keep)
    standby, copy = site.back_up(), site.clone()
    copy.set("parser", node=names[1])
    site.append(*lines(100, 105))
    site.run(*keep)
    for machine in (site, copy):
        machine.fail_over(standby)
    copy.append(*lines(200, 205))
    copy.run(*keep)
    site.append(*lines(110, 111))
    told = site.run(*keep, status=Exit.OPERATOR).stderr
    assert "the database is older than the log, or another one" in told
    assert site.run(*keep).stderr == ""
    kept = users(100, 105) if keep else Counter()
    found, first = site.emails(), users(*FIRST)  # the first lines are in both logs, if they are kept
    assert found - first - (first if keep else Counter()) == kept + users(110, 111) + users(200, 205)
    assert found >= first
    site.backups.remove(standby)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_copy_from_before_the_first_confirmation_is_noticed(site: Site, is_killed: bool) -> None:
    site.append(*lines(*FIRST))
    if is_killed:
        for step in itertools.count(1):
            site.run_here("--keep", kill_at=step)
            site.wait_for_sessions()
            if site.emails():
                break
        assert not installation.read(site.buffer).confirmed
    else:
        site.away()
        site.run("--keep")
        site.back()
    copy = site.clone()
    copy.back()
    said = ""
    for _ in range(2):
        site.append(*lines(100, 105))
        said += site.run("--keep").stderr
        copy.append(*lines(200, 208))
        said += copy.run("--keep").stderr
    assert said.count(COPIED) == 1
    assert "1970" not in said
    own = users(100, 105) + users(100, 105) + users(200, 208) + users(200, 208)
    assert site.emails() - own - users(*FIRST) == (users(*FIRST) if is_killed else Counter())  # what no run confirmed
    assert site.emails() >= own + users(*FIRST)


def test_lines_that_are_kept_after_others_left_the_log_are_known(site: Site) -> None:
    """They went to the buffer, and left a mark at its beginning."""
    site.away()
    site.append(*lines(500, 505))
    site.run()
    site.back()
    site.append(*lines(505, 510))
    site.run("--keep")
    copy = site.clone()
    site.append(*lines(100, 101))
    site.run()
    copy.append(*lines(200, 201))
    assert copy.run().stderr.count(COPIED) == 1
    assert site.emails() == users(500, 510) + users(100, 101) + users(200, 201)


def test_a_log_that_was_rotated_before_the_copy_was_noticed_is_known(site: Site) -> None:
    site.append(*lines(500, 505))
    site.run("--keep")
    copy = site.clone()
    rotated = copy.log.rename(f"{copy.log}.1")
    site.append(*lines(100, 101))
    site.run()
    copy.append(*lines(200, 201))
    assert copy.run().stderr.count(COPIED) == 1
    copy.run("--logfile", str(rotated))
    assert site.emails() == users(500, 505) + users(100, 101) + users(200, 201)


@pytest.mark.parametrize("keep", [[], ["--keep"]], ids=["drained", "kept"])
def test_a_machine_that_moves_together_with_its_database_has_one_node(
    site: Site, keep: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its host has another name, its machine another id, and the database is another one."""
    site.settings["parser"].pop("node")
    site.write_config()
    monkeypatch.setattr(socket, "gethostname", lambda: "h1")
    with on_machine("one", monkeypatch, tmp_path):
        site.append(*lines(*FIRST))
        site.run(*keep)
    monkeypatch.setattr(socket, "gethostname", lambda: "h2")
    site.restore({})
    with on_machine("two", monkeypatch, tmp_path):
        site.append(*lines(100, 105))
        site.run(*keep, status=Exit.OPERATOR)
        site.append(*lines(110, 115))
        assert site.run(*keep).stderr == ""
    assert site.query("SELECT name FROM nodes") == [("h2",)]
    assert site.emails() == users(100, 105) + users(110, 115) + (users(*FIRST) if keep else Counter())


def test_a_database_that_is_older_does_not_make_the_buffer_forget_its_size(site: Site) -> None:
    backup = site.back_up()
    site.append(*lines(0, 3))
    site.run()
    site.away()
    site.append(*lines(3, 6))
    site.run()
    site.back()
    site.restore(backup)
    for step in itertools.count(1):
        site.run_here(kill_at=step)
        if "the database is older" in site.output():
            break
    site.buffer.unlink()
    assert "expected the " in site.run(status=Exit.OPERATOR).stderr


@pytest.mark.parametrize("keep", [[], ["--keep"]], ids=["drained", "kept"])
def test_copies_that_both_find_an_older_database_are_told_apart_there(site: Site, keep: list[str]) -> None:
    site.append(*lines(*FIRST))
    site.run("--keep")
    standby = site.back_up()
    site.append(*lines(560, 565))
    site.run(*keep)
    copy = site.clone()
    for machine, first in ((site, 100), (copy, 200)):
        machine.fail_over(standby)
        machine.append(*lines(first, first + 1))
        assert "the database is older" in machine.run(*keep, status=Exit.OPERATOR).stderr
    for step in range(3):
        site.append(*lines(110 + 10 * step, 113 + 10 * step))
        assert "emptied" not in site.run(*keep).stderr
        copy.append(*lines(210 + 10 * step, 214 + 10 * step))
        assert "emptied" not in copy.run(*keep).stderr
    found = {user: count for user, count in site.emails().items() if int(user[1:]) < 500}
    own = [users(start, start + 3) + users(start + 100, start + 104) for start in (110, 120, 130)]
    assert found == sum(own, users(100, 101) + users(200, 201))
    assert site.emails() >= users(*FIRST) + (users(560, 565) if keep else Counter())
    site.backups.remove(standby)


def test_a_copy_knows_its_buffer_in_a_database_to_which_the_original_came_back(site: Site) -> None:
    site.append(*lines(500, 505))
    site.run("--keep")
    site.away()
    site.append(*lines(505, 510))
    site.run()
    site.back()
    copy, first = site.clone(), site.database
    second = site.back_up()
    site.fail_over(second)
    site.run()
    site.fail_over(first)
    site.append(*lines(100, 101))
    site.run(status=Exit.OPERATOR)
    copy.append(*lines(200, 201))
    assert copy.run().stderr.count(COPIED) == 1
    assert site.emails() == users(500, 505) + users(100, 101) + users(200, 201) + users(505, 510)


def test_what_another_machine_of_the_node_stores_is_no_time_until_which_the_database_knows_this_one(site: Site) -> None:
    site.append(*lines(500, 505))
    site.run()
    copy = site.clone()
    alternately(site, copy)
    site.restore({})
    copy.fail_over(site.database)
    for machine, line in ((site, 130), (copy, 230)):
        machine.append(*lines(line, line + 1))
        told = machine.run(status=Exit.OPERATOR).stderr
        assert ", but has nothing; lines stored" in told
        assert "those until " in machine.run("--check").stdout


def test_a_copy_that_was_made_before_more_receipts_were_kept_lacks_nothing(site: Site) -> None:
    """Of a version that kept the last one."""
    for step in range(3):
        site.append(*lines(500 + step, 501 + step))
        site.run()
    copy = site.clone()
    site.append(*lines(100, 101))
    site.run()
    site.query("UPDATE log_positions SET tail = substring(tail FOR 16) WHERE stored_from = -1")
    known = json.loads(copy.state.read_text())
    copy.state.write_text(json.dumps({**known, "previous_receipts": []}))
    copy.append(*lines(200, 201))
    assert copy.run().stderr.count(COPIED) == 1


def test_a_copy_that_runs_while_the_original_is_at_work_is_noticed_before_a_position_is_taken(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.append(*lines(*FIRST))
    site.run("--keep")
    copy = site.clone()
    site.append(*lines(100, 105))
    copy.append(*lines(200, 205))
    real = online.find_position

    def find_position(target: RunTarget, source: Source) -> Position:
        subprocess.run(copy.command("--keep"), check=True)
        target.is_just_compared = False  # as after an import
        return real(target, source)

    monkeypatch.setattr(online, "find_position", find_position)
    assert "expected no other run with this state" in site.run("--keep", status=Exit.BUSY).stderr
    monkeypatch.undo()
    assert site.run("--keep").stderr.count(COPIED) == 1
    assert site.emails() == users(*FIRST) + users(100, 105) + users(200, 205)


@pytest.mark.parametrize("damage", [
    "[" * 60_000, {"confirmed_at": 1e300}, {"confirmed_at": float("nan")}, {"token": "\ud800"}, {"node": "a\0b"},
    {"previous_receipts": [{}]}, {"receipt": "zz"}, {"logs": [["x", 1 << 70, 1, "", ""]]}, {"unread": {"x": "y"}},
    {"last_days": {"x": 1}}, {"earlier_receipts": ["0"]},
], ids=lambda damage: str(damage)[:30].replace("\0", "0"))  # fmt: skip
def test_a_state_that_others_wrote_stops_no_run(site: Site, damage: str | dict[str, object]) -> None:
    site.append(*lines(0, 5))
    site.run("--keep")
    known = json.loads(site.state.read_text())
    site.state.write_text(damage if isinstance(damage, str) else json.dumps({**known, **damage}))
    site.append(*lines(5, 10))
    assert "expected our state file, found other text" in site.run("--keep").stderr
    assert site.run("--keep").stderr == ""
    assert site.emails() == users(0, 10)
