"""Draw the charts as SVG, with Vega-Lite. Pure: no files, no database, no clock.

The colours are those of the page's style sheet (`var(--series-1)`), so that a chart is dark when the page is. A chart
contains only our own text: tags are in legends outside of it, which the page escapes. One area for each series takes
fewer bytes than a bar for each hour. For a screen reader, a chart is one image with a name; the table below it has the
numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import vl_convert

SERIES = 6  # colours that the colour-blind can distinguish; the last one, grey, is for all further series
SHADES = 7
TICKS = 5  # about as many as an axis has
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
    axis_labels: Mapping[datetime, str],
    cuts: Sequence[datetime] = (),
    height: int = HEIGHT,
) -> str:
    """Draw counts over time as SVG: stacked areas, one for each series, in periods of this `length`.

    `label`: the name of the chart; it must not contain text from the log. `title`: of the vertical axis. `axis_labels`:
    for moments on the time axis. `cuts`: where to draw dashed lines. Areas have no stroke: in periods of a few pixels
    it would cover the areas.
    """
    top = axis_end(hours)
    end = [(hour + length, counts) for hour, counts in hours[-1:]]  # gives the last period its width
    values = [
        {"hour": int(hour.timestamp() * MILLISECONDS), "rows": rows, "series": number}
        for hour, counts in [*hours, *end]
        for number, rows in enumerate(counts)
    ]
    named = {str(int(moment.timestamp() * MILLISECONDS)): text for moment, text in axis_labels.items()}
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
                    "axis": {"title": title, "format": "~s", **_ticks(top)},
                },
                "color": _colours("series", count, [f"var(--series-{number})" for number in range(count)]),
                "order": {"field": "series"},
            },
        },
        top,
        [(cut - hours[0][0]) / (hours[-1][0] + length - hours[0][0]) for cut in cuts],
    )


def axis_end(hours: Sequence[tuple[datetime, Sequence[int]]]) -> int:
    """Return the largest value on the vertical axis for these counts, a round number."""
    return _round_up(max((sum(counts) for _, counts in hours), default=0))


def _ticks(top: int) -> dict[str, Any]:
    """Return which numbers a vertical axis shows: whole ones, because there is no half user."""
    return {"tickCount": TICKS} if top >= TICKS else {"values": [*range(top + 1)]}


def with_shared_areas(name: str, one: str, other: str) -> tuple[str, str]:
    """Return two charts of the same periods, of which the second refers to the areas of the first, to save bytes.

    `name`: the prefix of the areas' ids in the page. If the areas differ, as in zones with other hours, both charts are
    returned unchanged.
    """
    areas = AREA.findall(one)
    if areas == AREA.findall(other):
        for number, area in enumerate(areas):
            one = one.replace(area, f'<path id="{name}-{number}"{area.removeprefix("<path")}', 1)
            other = other.replace(area, f'<use href="#{name}-{number}"/>', 1)
    return one, other


def week(label: str, rows: Sequence[Sequence[float]]) -> str:
    """Draw average rows by weekday, Monday first, and hour of the day as SVG, a heat map."""
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


def _round_up(most: int) -> int:
    """Return the smallest suitable round number of at least `most`; charts.js gets it in `data-plot`."""
    step = int("1".ljust(len(str(most)), "0"))
    return next(number for number in (step * n // 2 for n in range(2, 21)) if number >= max(most, 1))


def _svg(label: str, spec: Mapping[str, Any], top: int = 0, cuts: Sequence[float] = ()) -> str:
    """Return the SVG of a Vega-Lite chart, without a size, so that the page scales it, and with shorter coordinates.

    charts.js needs `data-plot` to find a value under the pointer: x, y, width and height of the plot, end of its axis.
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
