"""A database that is older than the log: no position moves over lines that this database never stored."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from helpers.load_paths import LOAD_PATHS
from helpers.site import Site, lines, users

from xraylog.database.session import Connection
from xraylog.loading import copy_rows


@pytest.fixture(params=LOAD_PATHS)
def site_of_load_path(site: Site, request: pytest.FixtureRequest) -> Site:
    """A site whose runs take one of the load paths."""
    site.load_path = request.param
    return site


@contextlib.contextmanager
def dying_in_copy(site: Site) -> Iterator[None]:
    """The server ends the sessions when rows come."""
    real = copy_rows.copy

    def copy(conn: Connection, parts: Iterable[tuple[str, bytes]]) -> int:
        site.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'parse_logs'"
        )
        return real(conn, parts)

    copy_rows.copy = copy  # in a process of its own
    yield


def buffered_after_a_gap(site: Site) -> dict[str, str]:
    """Lines 0-29 are stored and backed up, 30-59 stored, 60-89 buffered; all are still in the log."""
    site.append(*lines(0, 30))
    site.run("--keep")
    backup = site.back_up()
    site.append(*lines(30, 60))
    site.run("--keep")
    site.append(*lines(60, 90))
    assert site.run_here("--keep", inside=dying_in_copy(site)) == 0
    assert site.buffered() == users(60, 90)
    return backup


def rotate(site: Site) -> Path:
    """The log gets its first rotated name, and is recreated with a line of its own."""
    old = site.log.with_name("access.log.1")
    site.log.rename(old)
    site.append(*lines(90, 91))
    return old


def test_an_import_after_a_gap_loads_the_gap_first(site_of_load_path: Site) -> None:
    site = site_of_load_path
    site.restore(buffered_after_a_gap(site))
    done = site.run()
    assert "this database lacks lines before byte" in done.stderr
    assert site.emails() == users(0, 90)
    assert [row[9] for row in site.rows()] == [f"u{n}" for n in range(90)]
    assert site.query("SELECT count(*) FROM log_positions WHERE stored_from > 0") == [(0,)]


@pytest.mark.parametrize("suffix", [".1", "-20260131", ".gz"])
def test_the_gap_is_loaded_from_a_rotated_log(site: Site, suffix: str) -> None:
    site.restore(buffered_after_a_gap(site))
    old = rotate(site)
    if suffix == ".gz":
        old.with_name("access.log.1.gz").write_bytes(gzip.compress(old.read_bytes()))
        old.unlink()
    else:
        old.rename(site.log.with_name("access.log" + suffix))
    site.run()
    assert site.emails() == users(0, 91)


def test_a_gap_that_no_log_has_is_reported_and_stays_a_gap(site_of_load_path: Site) -> None:
    """What comes after it is imported; when a copy turns up, it fills the gap and nothing else."""
    site = site_of_load_path
    backup = buffered_after_a_gap(site)
    site.restore(backup)
    old = rotate(site)
    copy = old.rename(site.folder / "elsewhere")
    start, end = (len("".join(lines(0, n))) for n in (30, 60))
    done = site.run(status=3)
    assert f"{site.log}, bytes {start} to {end}: expected these lines in this database" in done.stderr
    assert site.emails() == users(0, 30) + users(60, 91)
    assert site.run().stderr == ""  # it is reported once
    site.run("--keep", "--logfile", str(copy))
    assert site.emails() == users(0, 91)
    size = copy.stat().st_size
    site.append(*lines(91, 95), to=copy)  # the position is at its end now
    site.run("--logfile", str(copy))
    assert site.emails() == users(0, 95)
    assert copy.stat().st_size < size


@pytest.mark.parametrize("imported_first", [False, True])
def test_an_archive_is_loaded_whole_into_a_new_database(site_of_load_path: Site, imported_first: bool) -> None:
    site = site_of_load_path
    buffered_after_a_gap(site)
    site.restore({})
    old = site.log.rename(site.folder / "archive")
    if imported_first:
        assert "bytes 0 to" in site.run(status=3).stderr
    site.run("--logfile", str(old))
    assert site.emails() == users(0, 90)
    assert old.stat().st_size == 0


def test_a_gap_is_filled_once_wherever_the_run_is_killed(site: Site) -> None:
    """Batches of ten lines: the gap is more than one of them, so are the lines after it."""
    site.set("parser", batch_size="10")
    backup = buffered_after_a_gap(site)
    buffer, log = site.buffer.read_bytes(), site.log.read_bytes()
    for step in range(30, 900, 41):
        site.restore(backup)
        site.buffer.write_bytes(buffer)
        site.log.write_bytes(log)
        status = site.run_here(kill_at=step)
        assert status in (0, -9)
        assert site.run_here() == 0, site.output()
        assert site.emails() == users(0, 90)
        if status == 0:
            return
    raise AssertionError("killed at every step that was tried")


def test_lines_loaded_again_on_purpose_forget_the_gap(site: Site) -> None:
    site.restore(buffered_after_a_gap(site))
    copy = rotate(site).rename(site.folder / "elsewhere")
    site.run(status=3)
    site.run("--again", "--logfile", str(copy))
    assert site.emails() == users(0, 30) + users(60, 91) + users(0, 90)


def test_a_log_drained_before_the_batch_has_no_gap(site: Site) -> None:
    """What stood before the batch is blank; no message names lines that were never there."""
    site.append(*lines(0, 30))
    site.run()
    with site.log.open("ab"):
        site.append(*lines(30, 60))
        site.run()
        site.append(*lines(60, 90))
        site.away()
        site.run()
    site.log.unlink()
    site.back()
    assert site.run().stderr == ""
    assert site.emails() == users(0, 90)


def test_a_database_of_an_older_version_gets_the_column(site: Site) -> None:
    site.append(*lines(0, 10))
    site.run("--keep")
    site.query("ALTER TABLE log_positions DROP COLUMN stored_from")
    site.append(*lines(10, 20))
    site.run()
    assert site.emails() == users(0, 20)
