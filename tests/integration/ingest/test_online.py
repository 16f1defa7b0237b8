"""A log is recognised by its beginning, whatever was done to it; stored lines leave it, and its position follows."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.site import Site, line, lines, users

from xraylog.accesslog import logfile
from xraylog.accesslog.drain import Drained
from xraylog.ingest.source import Source
from xraylog.records import HEAD_BYTES


def test_a_renamed_log_goes_on_where_it_was(site: Site) -> None:
    site.append(*lines(0, 10))
    site.run("--keep")
    site.append(*lines(10, 20))
    old = site.folder / "access.log.1"
    site.log.rename(old)
    site.append(*lines(20, 25))
    done = site.run("--keep")
    stored = sum(len(text) for text in lines(0, 10))
    assert f"emptied, replaced or renamed by another program: it was stored up to byte {stored}" in done.stderr
    assert site.emails() == users(0, 10) + users(20, 25)
    site.run("--logfile", str(old))
    assert site.emails() == users(0, 25)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("away", [False, True], ids=["", "the database is away"])
def test_a_log_that_is_rotated_during_the_run_is_not_drained(
    site: Site, monkeypatch: pytest.MonkeyPatch, compressed: bool, away: bool
) -> None:
    """logrotate's `compress` reads it at the same time: nobody could tell that the lines of its archive are stored."""
    old = site.folder / "access.log.1"
    real = Source.drain

    def drain(source: Source, offset: int) -> Drained | None:
        site.log.rename(old)
        if compressed:
            Path(f"{old}.gz").write_bytes(gzip.compress(old.read_bytes()))
            old.unlink()
        site.append(*lines(100, 105))
        return real(source, offset)

    site.append(*lines(0, 100))
    if away:
        site.away()
    with monkeypatch.context() as patch:
        patch.setattr(Source, "drain", drain)
        assert site.run_here() == 0
    site.run()
    site.back()
    for _ in range(2):
        site.run("--logfile", f"{old}.gz" if compressed else str(old))
        site.run()
        assert site.emails() == users(0, 105)


def test_a_log_that_another_link_leads_to_since_the_run_began_is_not_drained(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lines may be read under its own name, at the same time."""
    first, second = site.folder / "first.log", site.folder / "second.log"
    site.append(*lines(0, 10), to=first)
    site.append(*lines(10, 20), to=second)
    site.log.symlink_to(first)
    real = Source.drain

    def drain(source: Source, offset: int) -> Drained | None:
        site.log.unlink()
        site.log.symlink_to(second)
        return real(source, offset)

    with monkeypatch.context() as patch:
        patch.setattr(Source, "drain", drain)
        assert site.run_here() == 0
    site.run()
    assert (first.read_bytes(), second.read_bytes()) == ("".join(lines(0, 10)).encode(), b"")
    assert site.emails() == users(0, 20)


def test_a_copy_of_a_log_adds_nothing(site: Site) -> None:
    site.append(*lines(0, 200))
    site.run("--keep")
    copy = site.folder / "copy.log"
    copy.write_bytes(site.log.read_bytes())
    site.run("--logfile", str(copy))
    assert site.emails() == users(0, 200)


def test_a_copy_that_is_drained_does_not_take_the_position_of_the_original(site: Site) -> None:
    """Nor does one with more lines than the original had when it was stored."""
    site.append(*lines(0, 200))
    site.run("--keep")
    site.append(*lines(200, 250))
    copy = site.folder / "copy.log"
    copy.write_bytes(site.log.read_bytes())
    site.run("--logfile", str(copy))
    assert copy.read_bytes() == b""
    site.append(*lines(250, 260))
    site.run()
    assert site.emails() == users(0, 260)


def test_a_log_without_lines_for_months_is_read_when_they_come(site: Site) -> None:
    site.append(line(1))
    site.run()
    site.query("UPDATE log_positions SET updated_at = now() - interval '40 days'")
    site.append(line(2))
    site.run()
    assert site.emails() == users(1, 3)


def test_the_position_of_a_log_that_is_still_there_outlives_months(site: Site) -> None:
    site.append(line(1))
    site.run("--keep")
    site.query("UPDATE log_positions SET updated_at = now() - interval '40 days'")
    site.run("--keep")
    site.append(line(2))
    site.run("--keep")
    assert site.emails() == users(1, 3)
    site.query(
        "UPDATE log_positions SET updated_at = now() - interval '40 days', head = 'another' WHERE stored_from = 0"
    )
    site.run("--keep")
    assert site.query("SELECT count(*) FROM log_positions WHERE head = 'another'") == [(0,)]


@pytest.mark.parametrize("kept", ["--keep", "-v"])
def test_an_emptied_log_is_reported_once_and_read_from_its_beginning(site: Site, kept: str) -> None:
    site.append(*lines(0, 100))
    with site.log.open():  # so that a drained log keeps its mark
        site.run(kept)
    os.truncate(site.log, 0)
    site.append(*lines(100, 110))
    assert "emptied, replaced or renamed" in site.run("--keep").stderr
    assert "emptied, replaced or renamed" not in site.run("--keep").stderr
    assert site.emails() == users(0, 110)


@pytest.mark.parametrize("is_buffered", [False, True])
def test_a_node_that_gets_another_name_knows_the_lines_that_its_log_keeps(site: Site, is_buffered: bool) -> None:
    """As on tmpfs, where lines stay: they were stored once more, under the new name."""
    site.append(*lines(0, 60))
    if is_buffered:
        site.away()
    site.run("--keep")
    site.back()
    site.set("parser", node="another")
    if not is_buffered:
        assert "nothing new after byte" in site.run("--dry-run").stdout
    site.append(*lines(60, 70))
    assert site.run("--keep").stderr == ""
    assert site.emails() == users(0, 70)
    site.set("parser", node="n1")
    site.append(*lines(70, 80))
    assert site.run("--keep").stderr == ""
    site.append(*lines(80, 90))
    assert site.run().stderr == ""
    assert site.emails() == users(0, 90)
    assert [row[10] for row in site.rows()] == ["n1"] * 60 + ["another"] * 10 + ["n1"] * 20


def test_another_log_that_begins_alike_loses_no_line(site: Site) -> None:
    """A machine that is set back to a snapshot goes on with other lines after the same beginning."""
    site.append(*lines(0, 60))
    site.run("--keep")
    os.truncate(site.log, sum(len(text) for text in lines(0, 50)))  # more than its fingerprint covers
    assert site.log.stat().st_size > HEAD_BYTES
    site.append(*lines(100, 120))
    assert "emptied, replaced or renamed" in site.run("--keep").stderr
    assert site.run("--keep").stderr == ""
    assert site.emails() == users(0, 60) + users(0, 50) + users(100, 120)


def test_a_log_that_we_emptied_ourselves_is_not_reported(site: Site) -> None:
    for start in range(0, 40, 10):
        site.append(*lines(start, start + 10))
        assert site.run().stderr == ""
    assert site.emails() == users(0, 40)
    assert site.query("SELECT count(*), max(position) FROM log_positions WHERE stored_from = 0") == [(1, 0)]


def test_a_log_that_is_replaced_during_a_run_is_not_drained(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the commit and the drain another log takes its place: its lines stay."""
    real_sync = logfile.LogFile.sync

    def sync_and_replace(log: logfile.LogFile) -> None:
        real_sync(log)
        os.truncate(site.log, 0)
        site.append(*lines(100, 103))

    site.append(*lines(0, 10))
    monkeypatch.setattr(logfile.LogFile, "sync", sync_and_replace)
    assert site.run_here() == 0
    monkeypatch.undo()
    assert site.log.read_bytes() == "".join(lines(100, 103)).encode()
    assert "was emptied or replaced during this run" in (site.folder / "output").read_text()
    site.run()
    assert site.emails() == users(0, 10) + users(100, 103)


# --- where the file system cannot drain an open log


@pytest.fixture
def shm_site(database: dict[str, str], tmp_path: Path) -> Iterator[Site]:
    """A log on tmpfs, which xray has open."""
    folder = Path(f"/dev/shm/xraylog-{tmp_path.name}-{os.getpid()}")  # noqa: S108  # the one tmpfs that is there
    folder.mkdir()
    site = Site(folder, database)
    site.set("parser", truncate_mib="1")
    with site.log.open("ab"):
        yield site
    shutil.rmtree(folder)


def test_an_open_log_on_tmpfs_keeps_its_lines_and_is_stored_once(shm_site: Site) -> None:
    for start in range(0, 60, 10):
        shm_site.append(*lines(start, start + 10))
        if start in (20, 30):
            shm_site.away()
        assert shm_site.run_here() == 0
        shm_site.back()
    assert shm_site.emails() == users(0, 60)
    assert shm_site.log.read_bytes() == "".join(lines(0, 60)).encode()
    assert shm_site.buffer.read_bytes() == b""


@pytest.mark.parametrize("away", [False, True], ids=["online", "offline"])
def test_a_large_open_log_on_tmpfs_is_truncated(shm_site: Site, away: bool) -> None:
    """Not before it has the size that the config says; and what comes later looks like nothing from before."""
    count = (1 << 20) // len(line(10_000)) + 10
    for start in (10_000, 40_000):
        shm_site.append("".join(lines(start, start + count)))
        if away:
            shm_site.away()
        assert shm_site.run_here() == 0
        assert shm_site.log.stat().st_size == (logfile.MARK_BYTES if away else 0)
        shm_site.back()
    shm_site.append(*lines(10_000, 10_010))
    assert shm_site.run_here() == 0
    expected = users(10_000, 10_000 + count) + users(40_000, 40_000 + count) + users(10_000, 10_010)
    assert shm_site.emails() == expected
