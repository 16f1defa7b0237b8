"""Draw the charts as SVG, with Vega-Lite. Pure: no files, no database, no clock.

A chart has colours of the page's style sheet (`var(--series-1)`), so that it is dark where the page is, and no text of
anybody else: tags are legends in the page, which escapes them. One area for each series takes fewer bytes than a bar
for each hour. To a screen reader a chart is one image with a name; the table executor it has the numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import vl_convert

SERIES = 6  # colours that the colour-blind tell apart; more are one grey series
SHADES = 7
WIDTH, HEIGHT = 960, 170
MILLISECONDS = 1000
AREA = re.compile(r'<path [^>]*fill="var\(--series-[0-9]\)"[^>]*/>')
AXIS = {
    "labelColor": "var(--text)",
    "titleColor": "var(--text)",
    "gridColor": "var(--line)",
    "domainColor": "var(--line)",
    "tickColor": "var(--line)",
    "labelFontSize": 12,
    "titleFontSize": 12,
    "titleFontWeight": "normal",
}
CONFIG = {"background": None, "font": "system-ui, sans-serif", "view": {"stroke": None}, "axis": AXIS}


def over_time(
    label: str,
    title: str,
    hours: Sequence[tuple[datetime, Sequence[int]]],
    length: timedelta,
    marks: Mapping[datetime, str],
    cuts: Sequence[datetime] = (),
    height: int = HEIGHT,
) -> str:
    """Draw counts of pieces of time that are so long, the series stacked, as SVG.

    `label`: what it shows, in our own words. `title`: of the axis. `marks`: moments that the other axis names. `cuts`:
    where dashed lines are. No area has a stroke: where a piece is some pixels wide, it would hide what it is to
    separate.
    """
    top = top_of(hours)
    end = [(hour + length, of_series) for hour, of_series in hours[-1:]]  # as wide as the others
    values = [
        {"hour": int(hour.timestamp() * MILLISECONDS), "rows": rows, "series": number}
        for hour, of_series in [*hours, *end]
        for number, rows in enumerate(of_series)
    ]
    named = {str(int(moment.timestamp() * MILLISECONDS)): text for moment, text in marks.items()}
    count = len(hours[0][1]) if hours else 0
    return _svg(
        label,
        {
            "width": WIDTH,
            "height": height,
            "data": {"values": values},
            "mark": {"type": "area", "interpolate": "step-after"},
            "encoding": {
                "x": {
                    "field": "hour",
                    "type": "quantitative",
                    "scale": {"zero": False, "nice": False},
                    "axis": {
                        "title": None,
                        "values": [int(moment) for moment in named],
                        "labelExpr": f"({json.dumps(named)})['' + datum.value]",
                    },
                },
                "y": {
                    "field": "rows",
                    "type": "quantitative",
                    "scale": {"domain": [0, top], "nice": False},
                    "axis": {"title": title, "format": "~s", "tickCount": 5},
                },
                "color": _colours("series", count, [f"var(--series-{number})" for number in range(count)]),
                "order": {"field": "series"},
            },
        },
        top,
        [(cut - hours[0][0]) / (hours[-1][0] + length - hours[0][0]) for cut in cuts],
    )


def top_of(hours: Sequence[tuple[datetime, Sequence[int]]]) -> int:
    """Return the end of the axis for these counts."""
    return _top(max((sum(of_series) for _, of_series in hours), default=0))


def sharing(name: str, one: str, other: str) -> tuple[str, str]:
    """Return two charts of the same hours with other axes, the second reusing the areas of the first: fewer bytes.

    `name`: of the areas, in the page. Where a zone has other hours, both stay as they are.
    """
    areas = AREA.findall(one)
    if areas == AREA.findall(other):
        for number, area in enumerate(areas):
            one = one.replace(area, f'<path id="{name}-{number}"{area.removeprefix("<path")}', 1)
            other = other.replace(area, f'<use href="#{name}-{number}"/>', 1)
    return one, other


def week(label: str, rows: Sequence[Sequence[float]]) -> str:
    """Draw average rows by weekday, Monday first, and hour of the day, as SVG: the more, the stronger the colour."""
    most = max((max(day) for day in rows), default=0)
    values = [
        {"day": day, "hour": hour, "shade": _shade(count, most)}
        for day, of_day in enumerate(rows)
        for hour, count in enumerate(of_day)
    ]
    return _svg(
        label,
        {
            "width": WIDTH,
            "height": HEIGHT,
            "data": {"values": values},
            "mark": {"type": "rect", "stroke": "var(--page)"},
            "encoding": {
                "x": {"field": "hour", "type": "ordinal", "axis": {"title": "hour of the day", "labelAngle": 0}},
                "y": {
                    "field": "day",
                    "type": "ordinal",
                    "axis": {"title": None, "labelExpr": f"{json.dumps(WEEKDAYS)}[datum.value]"},
                },
                "color": _colours("shade", SHADES, [f"var(--shade-{shade})" for shade in range(SHADES)]),
            },
        },
    )


WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _shade(count: float, most: float) -> int:
    return 0 if not count else 1 + int(count * (SHADES - 2) // most)


def _colours(field: str, count: int, colours: Sequence[str]) -> dict[str, Any]:
    return {
        "field": field,
        "type": "nominal",
        "scale": {"domain": [*range(count)], "range": [*colours]},
        "legend": None,
    }


def _top(most: int) -> int:
    """Return a round number for the end of an axis, which charts.js knows, too."""
    step = int("1".ljust(len(str(most)), "0"))
    return next(number for number in (step * n // 2 for n in range(2, 21)) if number >= max(most, 1))


def _svg(label: str, spec: Mapping[str, Any], top: int = 0, cuts: Sequence[float] = ()) -> str:
    """Return SVG without a size, so that it is as wide as the page, and with coordinates of one decimal.

    `data-plot` has what charts.js needs to find a value: where the plot is, how large, and the end of its axis.
    """
    drawn = vl_convert.vegalite_to_svg({**spec, "padding": 2, "config": CONFIG})
    shape = re.search(r'viewBox="[^"]*"', drawn)
    inside = re.sub(r' (?:aria-[a-z]+|role|class)="[^"]*"', "", drawn[drawn.index("<g") : drawn.rindex("</svg>")])
    inside = re.sub(r"\d+\.\d\d+", lambda number: f"{float(number[0]):.1f}", inside)
    origin = re.search(r"translate\(([\d.]+),([\d.]+)\)", inside)
    height = spec["height"]
    plot = f"{origin[1]} {origin[2]} {WIDTH} {height} {top}" if origin else ""
    lines = "".join(
        f'<path class="cut" d="M{float(origin[1]) + cut * WIDTH:.1f},{origin[2]}v{height}"/>' for cut in cuts if origin
    )
    return f'<svg role="img" aria-label="{label}" data-plot="{plot}" {shape[0] if shape else ""}>{inside}{lines}</svg>'
