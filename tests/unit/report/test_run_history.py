"""Files of runs that are damaged, closed, or not our own cost no page."""

from __future__ import annotations

import os
import re
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from helpers.report_data import (
    BERLIN,
    LAST,
    NO_METRICS,
    NOON,
    WINDOW,
)
from server import NOBODY

from xraylog.report import page, run_history
from xraylog.report.model import Findings
from xraylog.report.window import Window
from xraylog.telemetry.prometheus import Metrics


def test_a_buffer_and_statistics_that_may_not_be_read_are_reported() -> None:
    """Not below tmp_path: pytest keeps that for its own user, who may be root."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder, closed = Path(name), Path(name) / "closed"
        folder.chmod(0o755)
        closed.mkdir()
        for path in (closed / "buffer.jsonl", closed / "stats.jsonl", folder / "stats.jsonl"):
            path.write_text("{}\n")
        (folder / "stats.jsonl").chmod(0)
        closed.chmod(0)
        os.seteuid(user or NOBODY)
        try:
            hidden = run_history.read(closed / "stats.jsonl", "json", closed / "buffer.jsonl", WINDOW, NO_METRICS)
            locked = run_history.read(folder / "stats.jsonl", "json", folder / "none", WINDOW, NO_METRICS)
        finally:
            os.seteuid(user)
            closed.chmod(0o700)
    assert hidden == run_history.Runs(buffer_bytes=None, unreadable=(run_history.BUFFER, run_history.STATISTICS))
    assert locked == run_history.Runs(unreadable=(run_history.STATISTICS,))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 99,
        b'"' + b"x" * 200_000 + b'"\n',
        b"[" * 100_000 + b"\n",
        b"[1]\n",
        b'{"run_started_at": 7}\n',
        b"\xff\xfe\n",
        b"1,2\n",
    ],
)
@pytest.mark.parametrize("form", ["json", "csv"])
def test_statistics_that_are_not_ours_tell_nothing(tmp_path: Path, content: bytes, form: str) -> None:
    path = tmp_path / "stats"
    path.write_bytes(content)
    assert run_history.read(path, form, tmp_path / "none", WINDOW, NO_METRICS) == run_history.Runs(known=bool(content))
    assert run_history.read(tmp_path / "none", form, tmp_path / "none", WINDOW, NO_METRICS) == run_history.Runs()


def test_a_time_of_the_last_good_run_that_is_none_is_left_out(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "x.prom", "n1", tmp_path)
    metrics.begin(0)
    (tmp_path / "x.prom").write_text(
        re.sub(r"(last_success\S+}) \S+", r"\1 1764100000000000000", (tmp_path / "x.prom").read_text())
    )
    assert metrics.last_success() > 1e18
    assert run_history.read(None, None, tmp_path / "none", WINDOW, metrics) == run_history.Runs()


MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
BY_DAY = [number * DAY + minute * MINUTE for number in range(9) for minute in range(480, 1200, 5)]  # 08:00 to 19:55


@pytest.mark.parametrize(
    ("starts", "pause"),
    [
        ([], 0 * MINUTE),
        ([0 * MINUTE], 0 * MINUTE),
        ([number * 5 * MINUTE for number in range(3000)], 5 * MINUTE),
        ([number * 60 * MINUTE for number in range(300)], 60 * MINUTE),
        ([number * DAY for number in range(9)], DAY),
        (BY_DAY, DAY - 715 * MINUTE),
        ([*BY_DAY, *(20 * DAY + start for start in BY_DAY[:900])], DAY - 715 * MINUTE),
        ([number * 5 * MINUTE for number in range(2000) if not 500 < number < 1100], 5 * MINUTE),
        ([*(number * DAY for number in range(20)), *(20 * DAY + n * 5 * MINUTE for n in range(288 * 5))], 5 * MINUTE),
    ],
    ids=["none", "one", "5m", "hour", "day", "not at night", "not at night, a pause", "an outage", "now more often"],
)
@pytest.mark.parametrize("form", ["json", "csv"])
def test_the_usual_pause_is_the_longest_of_most_days(
    tmp_path: Path, starts: list[timedelta], pause: timedelta, form: str
) -> None:
    begin = datetime(2025, 11, 1, tzinfo=timezone.utc)
    rows = [(begin + start).isoformat() for start in reversed(starts)]  # whatever their order
    texts = {
        "json": "".join(
            f'{{"run_started_at": "{at}", "mode": "online", "processed": 0, "failed": 0}}\n' for at in rows
        ),
        "csv": "".join(f"{at},online,0.1,0,0\n" for at in rows),
    }
    (tmp_path / "stats").write_text(texts[form])
    found = run_history.read(tmp_path / "stats", form, tmp_path / "none", WINDOW, NO_METRICS)
    assert found.pause == pause


@pytest.mark.timeout(60)
def test_pipes_in_the_place_of_statistics_and_metrics_are_not_waited_for(tmp_path: Path) -> None:
    """Nobody writes into them."""
    for name in ("stats", "x.prom"):
        os.mkfifo(tmp_path / name)
    metrics = Metrics(tmp_path / "x.prom", "n1", tmp_path)
    assert metrics.last_success() == 0
    found = run_history.read(tmp_path / "stats", "json", tmp_path / "stats", WINDOW, metrics)
    assert found == run_history.Runs(buffer_bytes=None, unreadable=(run_history.BUFFER, run_history.STATISTICS))
    shown = page.render(Findings(WINDOW), found, NOON, is_masked=False)
    assert '<dt>waiting in the buffer</dt><dd class="bad">unknown</dd>' in shown
    assert "There are no statistics" not in shown
    for path, form in (("stats", None), ("/dev/null", "json")):  # none are kept
        assert run_history.read(tmp_path / path, form, tmp_path / "none", WINDOW, metrics) == run_history.Runs()


@pytest.mark.parametrize("zone", [BERLIN, ZoneInfo("America/New_York")], ids=["east", "west"])
def test_moments_and_counts_that_nobody_had_are_no_runs(tmp_path: Path, zone: ZoneInfo) -> None:
    """They may be in a damaged file, and could not be shown."""
    rows = [
        ("9999-12-31T23:59:59", 1),
        ("0001-01-01T00:00:00", 1),
        (WINDOW.since.isoformat(), 10**4000),
        (WINDOW.since.isoformat(), -1),
    ]
    stats = tmp_path / "stats"
    stats.write_text(
        "".join(f'{{"run_started_at": "{at}", "mode": "offline", "processed": {n}, "failed": 0}}\n' for at, n in rows)
    )
    (tmp_path / "x.prom").write_text(
        f'xraylog_last_success_timestamp_seconds{{node="n1",log="{tmp_path}"}} 253402300799\n'
    )
    metrics = Metrics(tmp_path / "x.prom", "n1", tmp_path)
    assert metrics.last_success() == 253402300799
    done = run_history.read(stats, "json", tmp_path / "none", WINDOW, metrics)
    assert done == run_history.Runs(known=True)
    assert page.render(Findings(Window.of(zone, 1, LAST, NOON)), done, NOON, is_masked=False)
