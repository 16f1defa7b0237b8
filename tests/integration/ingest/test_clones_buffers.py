"""Copies of a machine that were found by attacks: buffers, archives and older databases, in one order after another."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.site import Site, line, lines, users

from xraylog.accesslog import installation
from xraylog.cli import Exit

COPIED = "this installation was copied"
FIRST = (500, 560)


@contextlib.contextmanager
def in_place_of(site: Site, copy: Path) -> Iterator[Site]:
    """The machine of this copy, which has the paths of its original; `copy` has the original meanwhile."""
    aside = copy.with_name("aside")
    for old, new in ((site.folder, aside), (copy, site.folder)):
        old.rename(new)
    site.write_config()  # the database may be another one by now
    try:
        yield site
    finally:
        for old, new in ((site.folder, copy), (aside, site.folder)):
            old.rename(new)
        site.write_config()


def copied(site: Site, name: str = "copy") -> Path:
    """Copy the machine; return where the copy is."""
    return Path(shutil.copytree(site.folder, site.folder.with_name(f"{site.folder.name}-{name}")))


def is_silent(site: Site, *arguments: str) -> None:
    assert site.run(*arguments).stderr == ""


def test_what_both_machines_buffer_of_lines_that_both_have_does_not_stop_the_import(site: Site) -> None:
    """In two batches, the last of which ends where the position of the other machine does: each stores them."""
    site.set("parser", batch_size=5)
    site.append(*lines(500, 505))
    site.run()
    site.append(*lines(505, 515))
    copy = site.clone()
    for machine in (site, copy):
        machine.away()
        machine.run()
        machine.back()
        machine.set("parser", batch_size=20_000)
    site.run()
    assert copy.run().stderr.count(COPIED) == 1
    is_silent(copy)
    assert not copy.buffered()
    copy.append(*lines(600, 605))
    is_silent(copy)
    assert site.emails() == users(500, 505) + users(600, 605) + users(505, 515) + users(505, 515)


@pytest.mark.parametrize("number", [5, 60], ids=["few lines", "more than a fingerprint"])
def test_what_both_machines_have_unread_is_stored_once_where_the_text_shows_it(site: Site, number: int) -> None:
    site.append(*lines(400, 405))
    site.run()
    site.append(*lines(500, 500 + number))
    copy = site.clone()
    for machine in (site, copy):
        machine.away()
        machine.run()
        machine.back()
    site.run()
    assert copy.run().stderr.count(COPIED) == 1
    assert site.emails() == users(400, 405) + users(500, 500 + number)


def test_an_archive_that_the_other_machine_has_loaded_does_not_stop_the_import(site: Site) -> None:
    archive = site.folder / "old.gz"
    archive.write_bytes(gzip.compress("".join(lines(700, 760)).encode()))
    site.append(*lines(500, 502))
    site.run()
    site.run("--logfile", str(archive))
    copy = site.clone()
    for machine, first in ((site, 100), (copy, 200)):
        machine.append(*lines(first, first + 1))
        machine.run()
    copy.away()
    copy.run("--logfile", str(copy.folder / "old.gz"))
    copy.back()
    is_silent(copy)
    assert not copy.buffered()
    assert site.emails() == users(500, 502) + users(700, 760) + users(100, 101) + users(200, 201)


def test_a_buffer_of_a_log_whose_lines_an_older_database_has_adds_its_own_lines_only(site: Site) -> None:
    site.append(*lines(*FIRST))
    site.run("--keep")
    backup = site.back_up()
    copy = site.clone()
    for machine, first in ((site, 100), (copy, 200)):
        machine.append(*lines(first, first + 1))
        machine.run("--keep")
    copy.append(*lines(201, 203))
    copy.away()
    copy.run("--keep")
    copy.back()
    copy.restore(backup)
    assert "the database is older" in copy.run("--keep", status=Exit.OPERATOR).stderr
    assert copy.emails() == users(*FIRST) + users(200, 203)
    copy.drop_backups()


def test_a_buffer_whose_state_was_lost_adds_its_own_lines_only_in_an_older_database(site: Site) -> None:
    site.append(*lines(*FIRST))
    site.run("--keep")
    backup = site.back_up()
    site.state.unlink()
    site.append(*lines(100, 102))
    site.run("--keep")
    site.append(*lines(110, 112))
    site.away()
    site.run("--keep")
    site.back()
    site.restore(backup)
    site.run("--keep", status=Exit.OPERATOR)
    assert site.emails() == users(*FIRST) + users(100, 102) + users(110, 112)


def assert_that_both_store_their_lines(site: Site, copy: Path) -> None:
    """Each finds that the database is older, and loses and doubles none of what it writes from then on."""
    for step in range(3):
        status = 0 if step else Exit.OPERATOR
        site.append(*lines(100 + 2 * step, 102 + 2 * step))
        site.run("--keep", status=status)
        with in_place_of(site, copy):
            site.append(*lines(200 + 2 * step, 202 + 2 * step))
            site.run("--keep", status=status)
    own = users(100, 106) + users(200, 206)
    assert site.emails() & Counter(dict.fromkeys(own, 9)) == own


def run_often(site: Site, number: int, first: int) -> None:
    for step in range(number):
        site.append(*lines(first + step, first + step + 1))
        site.run("--keep")


def test_copies_that_both_find_a_much_older_database_are_told_apart_there(site: Site) -> None:
    """It has none of the receipts that their states remember: these are the last fifty."""
    site.append(*lines(*FIRST))
    site.run("--keep")
    backup = site.back_up()
    run_often(site, 53, 1000)
    copy = copied(site)
    site.restore(backup)
    assert_that_both_store_their_lines(site, copy)
    assert site.emails() >= users(*FIRST) + users(1000, 1053)


def test_copies_of_a_machine_that_was_killed_in_an_older_database_are_told_apart_in_another(site: Site) -> None:
    """Its state has a token that is confirmed, and no receipt yet."""
    site.append(*lines(*FIRST))
    site.run("--keep")
    oldest = site.back_up()
    site.append(*lines(560, 565))
    site.run("--keep")
    site.restore(oldest)
    step = 1
    while not installation.read(site.buffer).older_at:
        assert site.run_here("--keep", kill_at=step) == -9
        step += 1
    copy = copied(site)
    site.restore(oldest)
    assert_that_both_store_their_lines(site, copy)
    assert site.emails() >= users(*FIRST) + users(560, 565)


def test_a_copy_that_was_told_apart_and_stored_nothing_leaves_a_receipt_when_it_drains(site: Site) -> None:
    site.append(*lines(*FIRST))
    site.run("--keep")
    copy = copied(site)
    site.append(*lines(100, 101))
    site.run()
    with in_place_of(site, copy):
        assert site.run("--keep").stderr.count(COPIED) == 1
        third = copied(site, "third")
        is_silent(site)
    with in_place_of(site, third):
        assert site.run().stderr.count(COPIED) == 1
    assert site.emails() == users(*FIRST) + users(100, 101)


def test_a_copy_that_was_told_apart_and_stored_nothing_notices_an_older_database(site: Site) -> None:
    backup = site.back_up()
    site.append(*lines(*FIRST))
    site.run("--keep")
    copy = copied(site)
    site.run()
    with in_place_of(site, copy):
        assert site.run().stderr.count(COPIED) == 1
    site.restore(backup)
    with in_place_of(site, copy):
        assert "database is older" in site.run("--check", status=Exit.OPERATOR).stdout
        site.append(*lines(200, 201))
        assert "the database is older" in site.run(status=Exit.OPERATOR).stderr


def test_a_copy_does_not_say_that_its_log_was_emptied_when_it_was_drained(site: Site) -> None:
    """Nobody had the log open, so it was truncated: what is in it now has come since."""
    site.append(*lines(500, 505))
    site.run()
    copy = copied(site)
    site.append(*lines(100, 102))
    site.run()
    with in_place_of(site, copy):
        site.append(*lines(200, 202))
        told = site.run().stderr
    assert told.count(COPIED) == 1
    assert "emptied" not in told
    assert site.emails() == users(500, 505) + users(100, 102) + users(200, 202)


def test_an_archive_that_is_given_again_after_an_older_copy_of_the_machine_was_put_back(
    site: Site, tmp_path: Path
) -> None:
    """A snapshot from before the archive was loaded."""
    archive = tmp_path / "old.gz"
    archive.write_bytes(gzip.compress("".join(lines(700, 760)).encode()))
    site.append(*lines(500, 502))
    site.run()
    snapshot = site.clone()
    site.run("--logfile", str(archive))
    snapshot.away()
    snapshot.run("--logfile", str(archive))
    snapshot.back()
    assert snapshot.run().stderr.count(COPIED) == 1
    is_silent(snapshot)
    assert not snapshot.buffered()
    assert site.emails() == users(500, 502) + users(700, 760)


def test_a_copy_that_has_another_name_and_machine_shows_before_it_runs(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site.settings["parser"].pop("node")
    site.write_config()
    machine = tmp_path / "machine-id"
    monkeypatch.setattr("xraylog.accesslog.installation.MACHINE_ID", machine)
    machine.write_text("one")
    monkeypatch.setattr(socket, "gethostname", lambda: "h1")
    site.append(*lines(500, 505))
    site.run("--keep")
    site.append(line(505))
    machine.write_text("two")
    monkeypatch.setattr(socket, "gethostname", lambda: "h2")
    assert COPIED in site.run("--check", status=Exit.OPERATOR).stdout
    assert "1 lines = 1 rows" in site.run("--dry-run").stdout
    assert site.run("--keep").stderr.count(COPIED) == 1
    assert site.emails() == users(500, 506)
