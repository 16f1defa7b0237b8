"""A database that is older than the log: no position moves over lines that this database never stored."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.load_paths import LOAD_PATHS
from helpers.site import Site, lines, users

from xraylog.accesslog import installation
from xraylog.database import confirmations, session
from xraylog.ingest import confirmation
from xraylog.loading import copy_rows


@pytest.fixture(params=LOAD_PATHS)
def site_of_load_path(site: Site, request: pytest.FixtureRequest) -> Site:
    """A site whose runs take one of the load paths."""
    site.load_path = request.param
    return site


def end_sessions(site: Site) -> None:
    site.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'parse_logs'"
    )


@contextlib.contextmanager
def dying_in_copy(site: Site) -> Iterator[None]:
    """The server ends the sessions when rows come."""
    real = copy_rows.copy

    def copy(*arguments: Any) -> int:
        end_sessions(site)
        return real(*arguments)

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
    start, end = (len("".join(lines(0, n))) for n in (30, 60))
    told = site.run("--dry-run").stdout
    assert f"missing: {site.log}, bytes {start} to {end}: this database lacks them" in told
    assert f"from {site.log}: 30 lines = 30 rows" in told
    assert "buffer: 30 lines would be imported" in told
    done = site.run(status=3)  # because the database is older
    assert "this database lacks lines before byte" in done.stderr
    assert site.emails() == users(0, 90)
    assert [row[9] for row in site.rows()] == [f"u{n}" for n in range(90)]
    assert site.query("SELECT count(*) FROM log_positions WHERE stored_from > 0") == [(0,)]


def test_a_run_that_loses_its_database_before_the_gap_is_loaded_leaves_it_in_the_log(site_of_load_path: Site) -> None:
    """The buffer has only what follows the gap."""
    site = site_of_load_path
    site.restore(buffered_after_a_gap(site))
    assert site.run_here(inside=dying_in_copy(site)) == 3
    site.append(*lines(90, 95))
    site.away()
    site.run()
    site.back()
    site.run()
    assert site.emails() == users(0, 95)
    assert site.log.stat().st_size < 100  # a drain mark


@pytest.mark.parametrize("suffix", [".1", "-20260131", ".gz"])
def test_the_gap_is_loaded_from_a_rotated_log(site: Site, suffix: str) -> None:
    site.restore(buffered_after_a_gap(site))
    old = rotate(site)
    if suffix == ".gz":
        old.with_name("access.log.1.gz").write_bytes(gzip.compress(old.read_bytes()))
        old.unlink()
    else:
        old.rename(site.log.with_name("access.log" + suffix))
    site.run(status=3)
    assert site.emails() == users(0, 91)


def test_a_gap_that_no_log_has_is_reported_and_stays_a_gap(site_of_load_path: Site) -> None:
    """What comes after it is imported; when a copy turns up, it fills the gap and nothing else."""
    site = site_of_load_path
    backup = buffered_after_a_gap(site)
    site.restore(backup)
    old = rotate(site)
    copy = old.rename(site.folder / "elsewhere")
    start, end = (len("".join(lines(0, n))) for n in (30, 60))
    assert f"missing: {site.log}, bytes {start} to {end}: in no log any more" in site.run("--dry-run", status=3).stdout
    done = site.run(status=3)
    assert f"{site.log}, bytes {start} to {end}: expected these lines in this database" in done.stderr
    assert site.emails() == users(0, 30) + users(60, 91)
    assert site.run().stderr == ""  # it is reported once
    assert f"from byte {start} on\n  30 lines = 30 rows" in site.run("--dry-run", "--logfile", str(copy)).stdout
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
    site.run("--logfile", str(old), status=0 if imported_first else 3)
    assert site.emails() == users(0, 90)
    assert old.stat().st_size == 0


@pytest.mark.faults
def test_a_gap_is_filled_once_wherever_the_run_is_killed(site: Site) -> None:
    """Batches of ten lines: the gap is more than one of them, so are the lines after it."""
    site.set("parser", batch_size="10")
    backup = buffered_after_a_gap(site)
    buffer, log, state = site.buffer.read_bytes(), site.log.read_bytes(), site.state.read_bytes()
    for step in range(30, 900, 41):
        site.restore(backup)
        site.buffer.write_bytes(buffer)
        site.log.write_bytes(log)
        site.state.write_bytes(state)
        status = site.run_here(kill_at=step)
        assert site.run_here() in (0, 3), site.output()
        assert site.emails() == users(0, 90)
        if status == 3:
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


def test_a_database_of_an_older_version_gets_the_columns(site: Site) -> None:
    site.append(*lines(0, 10))
    site.run("--keep")
    site.state.unlink()  # that version wrote none
    site.query("DELETE FROM log_positions WHERE stored_from <> 0")
    site.query("ALTER TABLE log_positions DROP COLUMN stored_from, DROP COLUMN tail, DROP COLUMN installation")
    site.append(*lines(10, 20))
    site.run()
    assert site.emails() == users(0, 20)


# --- a database that lacks what it confirmed ------------------------------------------------------------------


def drained_and_restored(site: Site) -> None:
    """Lines 0-9 are in the backup, 10-19 only in the database that is lost; the log was drained of both."""
    site.append(*lines(0, 10))
    site.run()
    backup = site.back_up()
    site.append(*lines(10, 20))
    site.run()
    site.restore(backup)


def test_a_restored_database_is_reported_once(site_of_load_path: Site) -> None:
    site = site_of_load_path
    site.set("stats", prometheus="metrics.prom")
    drained_and_restored(site)
    assert "✗ state: node n1" in site.run("--check", status=3).stdout
    site.append(*lines(20, 30))
    done = site.run(status=3)
    times = r"[-0-9]{10} [:0-9]{8} UTC"
    said = rf"node n1, {site.log}: the database is older than the log, or another one: it confirmed lines until {times}"
    assert len(re.findall(rf"ERROR +{said}, but has nothing after {times}; lines", done.stderr)) == 1
    assert site.emails() == users(0, 10) + users(20, 30)
    found = re.search(
        r"^xraylog_database_older_timestamp_seconds.* (\d+)", (site.folder / "metrics.prom").read_text(), re.MULTILINE
    )
    assert found is not None
    assert int(found[1]) > 0
    assert "are missing" in site.run("--check").stdout
    for number in (30, 31):
        site.append(*lines(number, number + 1))
        assert site.run().stderr == ""
    assert site.emails() == users(0, 10) + users(20, 32)


def test_a_new_database_is_reported_and_gets_the_next_lines(site: Site) -> None:
    site.append(*lines(0, 10))
    site.run()
    site.restore({})
    site.append(*lines(10, 20))
    assert "but has nothing; lines" in site.run(status=3).stderr
    assert site.run().stderr == ""
    assert site.emails() == users(10, 20)


def test_a_failover_and_the_way_back_are_both_reported(site: Site) -> None:
    """Each database lacks what only the other one has, whatever number of confirmations it counted."""
    site.append(*lines(0, 10))
    site.run()
    primary = site.database
    standby = site.back_up()
    for number in (10, 11, 12):
        site.append(*lines(number, number + 1))
        site.run()
    site.settings["postgresql"] = dict(standby)
    site.append(*lines(20, 21))
    site.write_config()
    site.run(status=3)
    site.settings["postgresql"] = dict(primary)
    site.append(*lines(30, 31))
    site.write_config()
    site.run(status=3)
    assert site.emails() == users(0, 13) + users(30, 31)


@pytest.mark.faults
def test_a_run_killed_at_any_step_leaves_no_false_alarm(site: Site) -> None:
    for step in range(20, 200, 7):
        site.append(*lines(step, step + 1))
        if site.run_here(kill_at=step) == 0:
            break
        assert site.run_here() == 0, site.output()
    assert "the database is older" not in site.output()
    assert "was copied" not in site.output()


@pytest.mark.parametrize("half", ["", "2025/11/17 10:15"])
def test_a_run_that_only_drains_leaves_no_false_alarm(site: Site, half: str) -> None:
    """The database confirmed these lines when they were stored; a backup that is as old as that lacks none of them."""
    site.append(*lines(0, 10))
    site.run("--keep")
    for _ in range(2):
        backup = site.back_up()
        site.append(half)
        assert site.run().stderr == ""
        site.restore(backup)
        site.run()
    site.append(*(["\n"] if half else []), *lines(20, 25))
    assert "the database is older" not in site.run().stderr
    assert site.emails() == users(0, 10) + users(20, 25)


def test_lines_that_were_loaded_again_on_purpose_are_confirmed(site: Site) -> None:
    site.append(*lines(0, 10))
    site.run("--keep")
    backup = site.back_up()
    site.run("--keep", "--again")
    site.restore(backup)
    site.append(*lines(10, 20))
    assert "but has nothing after" in site.run(status=3).stderr


def test_a_run_that_loses_its_database_before_it_reports_leaves_that_to_the_next(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    drained_and_restored(site)
    site.append(*lines(20, 30))

    def lose(*_: object) -> None:
        raise session.Unavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(confirmations, "confirm", lose)
        assert "the database is older" not in site.run().stderr
    assert "the database is older" in site.run(status=3).stderr
    assert site.run().stderr == ""


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"token": 1}', b"\0" * 100, b'{"other": 1}'])
def test_a_damaged_state_file_is_written_again(site: Site, text: bytes) -> None:
    site.append(*lines(0, 10))
    site.run()
    site.state.write_bytes(text)
    site.append(*lines(10, 20))
    assert "expected our state" in site.run().stderr
    site.append(*lines(20, 30))
    assert site.run().stderr == ""
    assert site.emails() == users(0, 30)
    assert site.state.stat().st_mode & 0o777 == 0o600


def test_an_idle_installation_keeps_its_confirmation(site: Site) -> None:
    """Positions that no run has found for a month are forgotten; what the database confirmed is not."""
    site.append(*lines(0, 10))
    site.run()
    site.query("UPDATE log_positions SET updated_at = now() - interval '40 days'")
    site.append(*lines(10, 20))
    assert site.run().stderr == ""


def test_what_a_killed_run_stored_is_confirmed_before_it_leaves_the_log(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    site.append(*lines(0, 5))
    with monkeypatch.context() as patch:
        patch.setattr(confirmation, "confirm", die)
        assert site.run_here() == -9
    assert site.emails() == users(0, 5)
    assert site.log.stat().st_size
    site.run()
    assert not site.log.stat().st_size
    assert installation.read(site.buffer).confirmed == 1


@contextlib.contextmanager
def dying_before_it_confirms(site: Site) -> Iterator[None]:
    """The server ends the sessions when all lines are stored."""
    real = confirmation.confirm

    def confirm_too_late(*arguments: Any) -> None:
        end_sessions(site)
        real(*arguments)

    confirmation.confirm = confirm_too_late  # in a process of its own
    yield


@pytest.mark.parametrize("fails_over", [False, True])
def test_what_a_run_stored_before_it_lost_its_database_is_buffered_too(site: Site, fails_over: bool) -> None:
    """The primary died, and the standby that takes its place may lack the last commits. An import skips what it has."""
    site.append(*lines(0, 5))
    site.run("--keep")  # confirmed, and still in the log
    standby = site.back_up()
    site.append(*lines(5, 30))
    assert site.run_here(inside=dying_before_it_confirms(site)) == 0
    assert site.emails() == site.buffered() + users(0, 5) == users(0, 30)
    assert site.log.stat().st_size < 100  # a drain mark
    assert site.last_stats()["processed"] == 25
    if fails_over:
        site.fail_over(standby)
    site.run()
    assert site.emails() == users(0, 30)


def test_a_second_restore_is_reported_before_anything_was_confirmed_after_the_first(site: Site) -> None:
    """The run that reported the first one lost its database on the way."""
    oldest = site.back_up()
    drained_and_restored(site)
    site.append(*lines(20, 30))
    assert site.run_here(inside=dying_before_it_confirms(site)) == 3
    site.restore(oldest)
    site.run(status=3)
    assert site.run().stderr == ""
    assert site.emails() == users(20, 30)
