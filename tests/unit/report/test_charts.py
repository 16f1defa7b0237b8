"""Every hour and day of a chart is as wide as the others, and its axis counts by whole numbers."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from helpers.report_data import (
    UTC,
    WINDOW,
)

from xraylog.report import charts


def test_the_last_hour_is_drawn_as_wide_as_the_others() -> None:
    hour = WINDOW.since
    drawn = charts.over_time("rows", "rows", [(hour, [7])], timedelta(hours=1), {})
    (path,) = [path for path in re.findall(r"<path[^>]*>", drawn) if "--series-0" in path]
    places = {float(x) for x, _ in re.findall(r"[ML]([0-9.]+),([0-9.]+)", path)}
    assert {min(places), max(places)} == {0, charts.WIDTH}


def test_the_last_day_is_drawn_as_wide_as_the_others() -> None:
    day = datetime(2025, 11, 17, tzinfo=UTC)
    drawn = charts.over_time("rows", "rows", [(day, [7]), (day + timedelta(days=1), [7])], timedelta(days=1), {})
    assert " ".join(charts.AREA.findall(drawn)).count("L480,0") == 2


def test_the_axis_of_one_user_has_no_part_of_a_user() -> None:
    drawn = charts.over_time("users", "users", [(WINDOW.since, [1])], timedelta(hours=1), {})
    assert re.findall(r">([0-9.]+)</text>", drawn) == ["0", "1"]
