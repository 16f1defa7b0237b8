"""Times that cannot be right are found: in another zone, or ahead of the clock; those that can be are not."""

from __future__ import annotations

import dataclasses
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from helpers.config import written as written_config

from xraylog import config
from xraylog.accesslog import log_clock, logfile
from xraylog.accesslog.log_clock import Doubt
from xraylog.config import Config, time_zone

NOW = datetime(2026, 6, 1, 12, 0, 3, 500_000, tzinfo=timezone.utc)
BERLIN, TEHRAN, SHANGHAI, UTC = "Europe/Berlin", "Asia/Tehran", "Asia/Shanghai", "UTC"


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    text = "[postgresql]\nhost = nowhere\ndbname = none\nuser = nobody\n"
    text += "[parser]\nlogfile = access.log\noffline_file = buffer.jsonl\ntimezone = UTC\n"
    return config.read(written_config(tmp_path, text))


def doubt(cfg: Config, zone: str, local: str, written: datetime = NOW, now: datetime = NOW) -> Doubt | None:
    cfg = dataclasses.replace(cfg, zone=ZoneInfo(zone))
    return log_clock.compare("access.log", datetime.fromisoformat(f"{local}"), written, cfg, now)


@pytest.mark.parametrize(
    ("zone", "local", "expected", "off"),
    [
        (BERLIN, "2026-06-01 12:00:03", UTC, "2 h before"),
        (UTC, "2026-06-01 14:00:02", BERLIN, "2 h after"),
        (UTC, "2026-06-01 15:30:01", TEHRAN, "3 h 30 min after"),
        (TEHRAN, "2026-06-01 12:00:03", UTC, "3 h 30 min before"),
        (SHANGHAI, "2026-06-01 15:00:03", "Europe/Moscow", "5 h before"),
        ("America/Los_Angeles", "2026-06-01 20:00:03", SHANGHAI, "15 h after"),
        (UTC, "2026-06-01 17:45:03", "Asia/Kathmandu", "5 h 45 min after"),
    ],
)
def test_a_constant_offset_is_another_zone(
    cfg: Config, zone: str, local: str, expected: str, off: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_zone, "of_system", lambda: ZoneInfo(UTC))
    found = doubt(cfg, zone, local)
    assert found is not None
    assert f" {off} it was written" in found.found
    named = found.to_do.partition("timezone = ")[2].partition(" in ")[0]
    assert NOW.astimezone(ZoneInfo(named)).utcoffset() == NOW.astimezone(ZoneInfo(expected)).utcoffset()
    assert doubt(cfg, named, local) is None  # the advice mends it


@pytest.mark.parametrize(
    ("zone", "local"), [("America/New_York", "9999-12-31 23:59:59"), (TEHRAN, "0001-01-01 00:00:00")]
)
def test_a_line_at_the_end_of_time_is_no_reason_to_stop(cfg: Config, zone: str, local: str) -> None:
    """A client can forge one: in UTC it has no date."""
    assert doubt(cfg, zone, local) is None


def test_the_zone_of_this_machine_comes_first(cfg: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_zone, "of_system", lambda: ZoneInfo("Africa/Cairo"))
    found = doubt(cfg, UTC, "2026-06-01 15:00:03")
    assert found is not None
    assert "timezone = Africa/Cairo in " in found.to_do


def test_an_offset_that_no_zone_has_is_named_by_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_zone, "of_system", lambda: ZoneInfo(UTC))
    for minutes, said in ((135, "2 h 15 min ahead of UTC"), (-135, "2 h 15 min after UTC")):
        assert log_clock.likely_zone(timedelta(minutes=minutes), NOW) == f"one that is {said}"


@pytest.mark.parametrize(
    ("zone", "local", "written"),
    [
        (BERLIN, "2026-06-01 14:00:03", NOW),
        (UTC, "2026-06-01 12:00:00", NOW),
        (UTC, "2026-06-01 11:52:00", NOW),  # written to since by something that has no time
        (UTC, "2026-05-28 12:00:03", NOW),  # a copy
        (BERLIN, "2025-10-26 02:30:00", datetime(2025, 10, 26, 1, 30, tzinfo=timezone.utc)),  # each of the passes
        (BERLIN, "2025-10-26 02:30:00", datetime(2025, 10, 26, 0, 30, tzinfo=timezone.utc)),
    ],
)
def test_what_can_be_right_is_in_no_doubt(cfg: Config, zone: str, local: str, written: datetime) -> None:
    assert doubt(cfg, zone, local, written) is None


@pytest.mark.parametrize(
    ("local", "off"),
    [
        ("2026-06-01 15:12:03", "3 h 12 min"),
        ("2026-06-09 12:00:03", "8 days"),
        ("2029-01-01 00:00:00", "944 days 12 h"),
    ],
)
def test_lines_ahead_of_the_clock(cfg: Config, local: str, off: str) -> None:
    """Written by another machine, or before this one's clock was set."""
    for written in (NOW, datetime.fromisoformat(f"{local}+00:00")):
        found = doubt(cfg, UTC, local, written)
        assert found is not None
        assert f" {off}" in found.found
        assert found.found.endswith(" ahead of this machine's clock")
        assert "if it is slow (2026-06-01 12:00 UTC" in found.to_do


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        (b"2026/06/01 14:00:03.123456 from 203.0.113.9:1 accepted tcp:a:1\nhalf a li", True),
        (b"2026/06/01 14:00:03 UDP:8.8.8.8:53 got answer: a -> [] 1ms\n", True),
        (b"2026/06/01 14:00:03 from 203.0.113.9:1 accepted tcp:a:1\npanic: x\n\n", True),
        (b"2026/13/01 14:00:03 from\n", False),
        (b"# drained\n\n\n", False),
        (b"", False),
    ],
)
def test_the_last_whole_line_of_a_log_with_a_time_counts(cfg: Config, text: bytes, is_found: bool) -> None:
    cfg.log_path.write_bytes(text)
    os.utime(cfg.log_path, (NOW.timestamp(), NOW.timestamp()))
    with logfile.opened(cfg.log_path) as log:
        assert log is not None
        found = log_clock.look(log, dataclasses.replace(cfg, zone=ZoneInfo(UTC)), NOW + timedelta(days=1))
    assert (found is not None) is is_found
