"""The alerts of docs/metrics.md fire when they should, counted as PromQL counts: over the samples that there are."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from itertools import groupby, zip_longest
from pathlib import Path

import pytest
from helpers.site import ROOT
from prometheus_client.parser import text_string_to_metric_families

from xraylog.ingest.run_counts import RunCounts, as_metrics
from xraylog.report.model import goes_nowhere
from xraylog.telemetry import prometheus
from xraylog.telemetry.prometheus import EndedRun, Metrics

PAGE = (ROOT / "docs" / "metrics.md").read_text()
RULES = dict(re.findall(r"^  - alert: (\w+)\n    expr: (.+(?:\n {10}.+)*)$", PAGE, re.MULTILINE))
OVER_TIME = re.compile(
    r'(\w+)_over_time\((?:0\.5, )?(\w+)(?:\{(\w+)=~?"([^"]*)"\})?\[(\d+)([mhd])\](?: offset (\d+)([mhd]))?\)'
)
MINUTES = {"m": 1, "h": 60, "d": 24 * 60}
REDUCED = {"sum": sum, "count": len, "max": max, "avg": statistics.mean, "quantile": statistics.median}
NO_LINES = dict.fromkeys(prometheus.OUTCOMES, 0)
STEP = 5  # minutes from run to run
DAY = 24 * 60 // STEP  # runs
Samples = Sequence[tuple[str, Mapping[str, str], float]]


def scraped(
    path: Path, runs: Sequence[Mapping[str, int]], users: Sequence[int] = (), let_in: Sequence[int] = ()
) -> list[Samples]:
    """What Prometheus has after these runs. `runs`: rows by outbound tag, or `users` or rows `let_in` of each run."""
    metrics, samples = Metrics(path, "n1", path.parent / "access.log"), list[Samples]()
    for (rows, number, accepted), alike in groupby(zip_longest(runs, users, let_in)):
        repeats = len(list(alike))
        made = [scraped_after(metrics, path, rows or {}, number or 0, accepted or 0) for _ in range(min(repeats, 3))]
        # A run starts from the samples of the one before: where two in a row leave the same, all that follow do.
        assert repeats < 3 or without_time(made[1]) == without_time(made[2])
        samples += [*made, *made[-1:] * (repeats - len(made))]
    return samples


def scraped_after(metrics: Metrics, path: Path, rows: Mapping[str, int], users: int, accepted: int) -> Samples:
    """What Prometheus has after one run. Scanners knock all the time."""
    counts = RunCounts()
    counts.outbound_tags.update(rows)
    counts.actions.update({"accepted": accepted, "rejected": 7})
    found = {**as_metrics([counts]), (prometheus.USERS, ""): users}
    metrics.end(EndedRun(1, 2, 0, True, NO_LINES, line_metrics=found), path.parent / "buffer")
    families = text_string_to_metric_families(path.read_text())
    return [(one.name, one.labels, one.value) for family in families for one in family.samples]


def without_time(samples: Samples) -> Samples:
    """Leave out the only one that differs from run to run."""
    return [sample for sample in samples if sample[0] != prometheus.LAST_SUCCESS]


def fires(rule: str, samples: Sequence[Samples]) -> bool:
    """Return whether a rule of ranges is true of one tag; one without a sample has no value in PromQL."""
    values: list[float] = []

    def reduced(found: re.Match[str]) -> str:
        function, name, label, pattern, length, unit, back, unit_back = found.groups()
        end = len(samples) - int(back or 0) * MINUTES[unit_back or "m"] // STEP
        times = samples[max(0, end - int(length) * MINUTES[unit] // STEP) : max(0, end)]
        values[:] = [
            value for each in times for metric, labels, value in each
            if metric == name and (label is None or re.fullmatch(pattern, labels.get(label, "")))
        ]  # fmt: skip
        return str(REDUCED[function](values)) if values else "nan"  # of which no comparison is true

    plain = OVER_TIME.sub(reduced, re.sub(r"ignoring\(\w+\)( group_left)?", "", " ".join(rule.split())))
    assert re.fullmatch(r"(?:[\d.e+*/<>=() -]|nan|and|or)+", plain), plain
    return bool(eval(plain, {"nan": math.nan}))  # noqa: S307  # numbers and operators


QUIET, BUSY = {"direct": 100}, {"direct": 100, "block": 60}


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([QUIET] * DAY + [BUSY] * 3, True),
        ([{**QUIET, "block": 4}] * DAY + [BUSY] * 3, True),
        ([*[QUIET] * (DAY - 1), BUSY, *[QUIET] * (DAY - 1), *[BUSY] * 3], True),
        ([BUSY] * DAY, False),
        ([QUIET] * DAY, False),
        ([{**QUIET, "block": 4}] * (DAY + 3), False),
        ([QUIET] * DAY + [{**QUIET, "block": 20}] + [QUIET] * 2, False),  # 7 rows a run: no more than one of 20
        ([BUSY] * 3, False),  # a new installation
    ],
    ids=["quiet before", "few before", "once before", "always many", "none", "few", "one run", "new"],
)
def test_the_alert_of_a_block_tag_fires_when_the_tag_rises(
    tmp_path: Path, runs: Sequence[Mapping[str, int]], expected: bool
) -> None:
    assert fires(RULES["XraylogBlocking"], scraped(tmp_path / "x.prom", runs)) == expected


NIGHT, NOON = [2] * (DAY // 4), [40] * (DAY * 3 // 4)


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        ([*NIGHT, *NOON, *NIGHT], False),
        ([*NIGHT, *NOON, *NIGHT, *NOON[: DAY // 4], *[4] * 6], True),
        ([*NIGHT, *NOON, *NIGHT, *NOON[: DAY // 4], *[0] * 6], True),
        ([*NIGHT, *NOON, *NIGHT, *NOON[: DAY // 4], *[20] * 6], False),
        ([*NIGHT, *NOON, *NIGHT, *NOON[: DAY // 4], 0, 0], False),
        ([*[5] * DAY, *[0] * 6], False),
        ([40] * 6 + [0] * 6, False),
    ],
    ids=["each night", "a tenth", "none", "half", "for ten minutes", "few users", "new"],
)
def test_the_alert_of_users_who_have_gone_compares_with_the_day_before_and_not_with_the_night(
    tmp_path: Path, users: Sequence[int], expected: bool
) -> None:
    assert fires(RULES["XraylogUsersGone"], scraped(tmp_path / "x.prom", (), users)) == expected


ASLEEP, AWAKE = [0] * (DAY // 4), [0, 30, 9, 12] * (DAY * 3 // 16)  # of one run in four nobody asks for anything
HOUR = 60 // STEP
ONCE = [*[0] * 5, 40, *[0] * 100, 40, *[0] * (DAY - 107)]  # one client, for some minutes twice a day


@pytest.mark.parametrize(
    ("let_in", "expected"),
    [
        ([*ASLEEP, *AWAKE, *ASLEEP], False),
        ([*ASLEEP, *AWAKE, *ASLEEP, *AWAKE[: DAY // 4], *[0] * HOUR], True),
        ([*ASLEEP, *AWAKE, *ASLEEP, *AWAKE[: DAY // 4], 2, *[0] * (HOUR - 2)], False),
        ([*ONCE, *[0] * HOUR], False),
        ([*AWAKE, *[0] * (DAY + HOUR)], True),
        ([*ONCE, *ONCE], False),
        ([*[9] * HOUR, *[0] * HOUR], False),
        ([0] * HOUR, False),
        ([0] * (DAY - HOUR), False),
        ([0] * DAY, True),
    ],
    ids=[
        "each night",
        "an hour by day",
        "for less than an hour",
        "few clients",
        "for days",
        "rarely",
        "new",
        "newer",
        "not yet a day",
        "a day from the first run on",
    ],
)
def test_the_alert_that_nobody_was_let_in_is_quiet_when_nobody_came_at_that_time_a_day_before(
    tmp_path: Path, let_in: Sequence[int], expected: bool
) -> None:
    assert fires(RULES["XraylogNobodyLetIn"], scraped(tmp_path / "x.prom", (), (), let_in)) == expected


@pytest.mark.parametrize("tag", ["blocked", "Block-ads", "blackhole", "reject", "deny-bt", "unblock"])
def test_it_is_about_the_tags_that_the_page_takes_for_blocking(tmp_path: Path, tag: str) -> None:
    runs = [{name.replace("block", tag): rows for name, rows in run.items()} for run in [QUIET] * DAY + [BUSY] * 3]
    assert fires(RULES["XraylogBlocking"], scraped(tmp_path / "x.prom", runs)) == goes_nowhere(tag)


def test_each_alert_names_metrics_and_labels_that_a_run_writes(tmp_path: Path) -> None:
    written: dict[str, set[str]] = {}
    for name, labels, _ in scraped(tmp_path / "x.prom", [BUSY])[0]:
        written.setdefault(name, set()).update(labels)
    assert len(RULES) == PAGE.count("- alert: ") == 7
    for rule in RULES.values():
        names = re.findall(r"xraylog_\w+", rule)
        assert names
        assert set(names) <= {*written, prometheus.LAST_SUCCESS, prometheus.LAST_ROW}
        for name, label in re.findall(r"(xraylog_\w+)\{(\w+)=", rule):
            assert label in written[name]
        for label in re.findall(r"ignoring\((\w+)\)", rule):
            assert any(label in written[name] for name in names)


def test_the_alerts_are_yaml() -> None:
    """What YAML takes in this form: a scalar without quotes has no ": " and no " #", and no tab indents."""
    (block,) = re.findall(r"```text\ngroups:\n(.*?)```", PAGE, re.DOTALL)
    assert "\t" not in block
    for text in block.splitlines():
        key = re.fullmatch(r" *(?:- )?(\w+):(?: (.+))?|( {10,})(\S.*)", text)
        assert key, text
        begins, value = key[2] or "", key[2] or key[4] or ""
        assert begins[:1] == "{" or not (": " in value or " #" in value)
        assert begins[:1] not in tuple("&*!|>'\"%@`[")
