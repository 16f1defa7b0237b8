"""The page knows what the runs of this machine stored, and how much waits in the buffer."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime, timedelta, timezone

import pytest
from helpers.report_data import (
    NO_METRICS,
    UTC,
    WINDOW,
    report,
    text,
)
from helpers.site import Site

from xraylog.accesslog import installation
from xraylog.accesslog.installation import Installation
from xraylog.report import run_history
from xraylog.report.window import Window
from xraylog.telemetry.prometheus import Metrics


@pytest.mark.usefixtures("filled")
def test_the_page_shows_the_runs_and_the_buffer(site: Site) -> None:
    started = WINDOW.since.astimezone().replace(tzinfo=None)
    rows = [
        {"run_started_at": (started + timedelta(hours=n)).isoformat(), "mode": mode, "processed": 10 + n, "failed": n}
        for n, mode in enumerate(("online", "offline", "online", "offline"))
    ]
    early = {**rows[0], "run_started_at": (started - timedelta(days=1)).isoformat()}
    site.stats.write_text("".join(json.dumps(row) + "\n" for row in [early, *rows]) + '{"torn')
    site.buffer.write_bytes(b"x" * 123)
    done = run_history.read(site.stats, "json", site.buffer, WINDOW, NO_METRICS)
    assert (done.count, done.offline, done.spooled, done.last_good) == (4, 2, 24, None)
    assert (done.last_stored, done.buffer_bytes) == (WINDOW.since + timedelta(hours=2), 123)
    assert done.last == WINDOW.since + timedelta(hours=3)
    report(site)
    assert "123 bytes" in text(site)
    assert "last good run" not in text(site)


def test_the_last_good_run_is_that_of_the_metrics(site: Site) -> None:
    """A run that has nothing to do is a good one; one that failed is not, and leaves the time of the one before."""
    site.set("stats", prometheus="xraylog.prom")
    metrics = Metrics(site.folder / "xraylog.prom", "n1", site.log)
    site.run()
    assert abs(metrics.last_success() - time.time()) < 60
    text_of_metrics = (site.folder / "xraylog.prom").read_text()
    (site.folder / "xraylog.prom").write_text(re.sub(r"(last_success\S+}) \S+", r"\1 1763374200", text_of_metrics))
    site.log.mkdir()
    site.run(status=3)
    report(site)
    told = text(site).partition("<dt>last good run</dt>")[2].partition("</dd>")[0]
    assert "2025-11-17T10:10:00" in told


@pytest.mark.parametrize(("older_from", "since"), [(1763373600.0, "2025-11-17T10:00:00"), (0.0, "1970-01-01T00:00:00")])
def test_the_page_says_what_a_restored_database_lacks(site: Site, older_from: float, since: str) -> None:
    site.run()
    report(site)
    assert "missing after a restore" not in text(site)
    found_at, until = 1763377200.0, 1763374200.0
    installation.write(site.buffer, Installation(older_at=found_at, older_from=older_from, older_to=until))
    report(site)
    told = text(site).partition("<dt>lines missing after a restore</dt>")[2].partition("</dd>")[0]
    assert re.findall(r'datetime="([^"Z]+)Z"', told) == [since, "2025-11-17T10:10:00"]


@pytest.mark.parametrize("form", ["json", "csv"])
def test_the_statistics_that_runs_write_are_read(site: Site, form: str) -> None:
    site.set("stats", format=form)
    site.append(
        "not xray's\n",
        *[f"2025/11/17 10:15:2{n} from 10.0.0.1:1 accepted tcp:h:443 [a -> b] email: u\n" for n in range(3)],
    )
    site.run()
    window = Window.of(UTC, 1, None, datetime.now(timezone.utc) + timedelta(seconds=1))
    done = run_history.read(site.stats, form, site.buffer, window, NO_METRICS)
    assert (done.known, done.count, done.offline, done.last_stored is not None) == (True, 1, 0, True)


def test_a_run_that_failed_is_no_good_one(site: Site) -> None:
    """Its row says online, for the database was not away."""
    site.log.mkdir()
    site.run(status=3)
    assert site.last_stats()["mode"] == "online"
    window = Window.of(UTC, 1, None, datetime.now(timezone.utc))
    assert run_history.read(site.stats, "json", site.buffer, window, NO_METRICS).last_stored is None
