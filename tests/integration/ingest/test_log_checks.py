"""A run reports a log that never appears, times that cannot be right, and bytes that other programs took out."""

from __future__ import annotations

import json
import os
import re
from datetime import datetime, timedelta, timezone

import pytest
from helpers.site import Site, line, lines, users

from xraylog.accesslog import logfile
from xraylog.cli import Exit

DAY_S = 86_400


def make_older(site: Site, seconds: float) -> None:
    """As if the reminders in the state file were from so long ago."""
    state = json.loads(site.state.read_text())
    state["reminders"] = {key: [time - seconds for time in times] for key, times in state["reminders"].items()}
    site.state.write_text(json.dumps(state))


def written_now(n: int, ahead: timedelta) -> str:
    return line(n, (datetime.now(timezone.utc) + ahead).strftime("%Y/%m/%d %H:%M:%S.%f"))


# --- a log that is not there ---------------------------------------------------------------------------------------


def test_a_log_that_never_appears_is_one_warning_a_day(site: Site) -> None:
    said = site.run().stderr
    assert f"WARNING {site.log}: expected xray's log, found none since " in said
    assert f"change [parser] logfile in {site.config}" in said
    assert site.run().stderr == ""
    make_older(site, DAY_S + 1)
    (again,) = site.run().stderr.splitlines()
    assert again.partition("since ")[2][:10] != said.partition("since ")[2][:10]
    assert site.run().stderr == ""
    site.append(line(1))
    assert site.run().stderr == ""
    assert json.loads(site.state.read_text())["reminders"] == {}


def test_a_log_that_was_there_may_be_away_for_a_day(site: Site) -> None:
    site.append(line(1))
    site.run()
    site.log.unlink()
    assert site.run().stderr == ""
    make_older(site, DAY_S + 1)
    assert "expected xray's log, found none since " in site.run().stderr
    assert site.run().stderr == ""


# --- times ---------------------------------------------------------------------------------------------------------


def test_another_zone_is_one_warning_a_day_and_a_check_finds_it(site: Site) -> None:
    site.set("parser", timezone="Asia/Tehran")
    site.append(written_now(1, timedelta()))
    done = site.run("--check", status=Exit.OPERATOR)
    named = "in [parser] timezone = Asia/Tehran 3 h 30 min before it was written; xray's zone is likely UTC"
    assert named in done.stdout
    assert named in site.run("--keep").stderr
    site.append(written_now(2, timedelta()))
    assert site.run().stderr == ""
    gone = site.run("--check", status=Exit.OPERATOR).stdout
    assert re.search("time: .*access.log: since .* its lines were dated as if of the zone UTC", gone)
    site.append(written_now(3, timedelta(hours=8)))
    assert "zone is likely Asia/Shanghai" in site.run("--keep").stderr  # another reason, at once
    site.set("parser", timezone="UTC")
    site.log.unlink()
    site.append(written_now(4, timedelta()))
    assert "time: " not in site.run("--check").stdout


@pytest.mark.parametrize("last", ["\n", "goroutine 1 [running]:\nmain.main()\n" * 1000], ids=["blank", "panic"])
def test_another_zone_is_found_before_lines_without_a_time(site: Site, last: str) -> None:
    site.append(written_now(0, timedelta(hours=3)), last)
    assert "xray's zone is likely " in site.run("--check", status=Exit.OPERATOR).stdout
    assert "xray's zone is likely " in site.run().stderr


def test_rows_ahead_of_the_clock(site: Site) -> None:
    site.append(written_now(1, timedelta(hours=3, minutes=12)))
    assert " 3 h 12 min ahead of this machine's clock; if it is slow " in site.run().stderr
    assert site.run("--logfile", "-", input=written_now(2, timedelta(hours=5))).stderr.count(" ahead of ") == 1
    assert site.emails() == users(1, 3)


def test_rows_of_now_are_in_no_doubt(site: Site) -> None:
    """Nor are those of a clock that is a little fast: piped text has no other time to be compared with."""
    text = "".join(written_now(n, timedelta(minutes=n - 1)) for n in range(4))
    assert site.run("--logfile", "-", input=text).stderr == ""
    assert site.emails() == users(0, 4)


def test_a_log_from_days_ahead_is_not_taken_for_another_log(site: Site) -> None:
    site.append(*(written_now(n, timedelta(days=400)) for n in range(30)))
    said = site.run().stderr
    assert "400 days ahead of this machine's clock" in said
    assert "30 of 30 lines are dated before 2015 or more than two days ahead" in said
    assert "--replay-rejected" in said
    assert "access log?" not in said


# --- bytes that others took out --------------------------------------------------------------------------------------


def test_a_log_that_is_emptied_while_it_is_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real, at = logfile.LogFile.is_unchanged, 8192

    def empty_then_look(log: logfile.LogFile, reached: int) -> bool:
        if log.path == site.log and reached > at:
            os.truncate(site.log, 0)
        return real(log, reached)

    site.append(*lines(0, 200))
    size = site.log.stat().st_size
    monkeypatch.setattr(logfile, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(logfile.LogFile, "is_unchanged", empty_then_look)
    assert site.run_here() == Exit.DONE
    stored = sum(len(line(n)) for n in range(len(site.emails())))
    assert 0 < stored <= at
    assert (
        f"after byte {stored} of at least {size}: {size - stored} bytes were not read, and are missing" in site.output()
    )


@pytest.mark.parametrize("away", [False, True], ids=["online", "offline"])
def test_a_log_that_is_emptied_between_runs(site: Site, away: bool) -> None:
    """What the last run saw and did not store is missing: here a line that had no end yet."""
    site.append(*lines(0, 3))
    site.run("--keep")
    site.append(*lines(3, 5), "2025/11/17 10:15:23 from 203.0")
    if away:
        site.away()
    site.run("--keep")
    site.back()
    os.truncate(site.log, 0)
    site.append(line(9))
    assert "; 30 more bytes were seen, and are missing unless it was renamed" in site.run("--keep").stderr
    assert json.loads(site.state.read_text())["unread"] == {}
    assert site.emails() == users(0, 5) + users(9, 10)
