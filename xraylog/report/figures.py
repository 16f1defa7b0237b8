"""Draw the charts of the page in each time zone, and collect the numbers that they show. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import Markup

from xraylog.report import charts, time_series
from xraylog.report.model import NO_TAG, Findings, Slot
from xraylog.report.time_series import Series

REJECTED = "(rejected)"
LOW = 80  # height of the charts at the top of the page


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart over time with its numbers."""

    title: str
    series: Series
    svg: Markup
    unit: str  # of the numbers: rows or users
    top: int  # the largest value on its vertical axis
    cuts: Sequence[datetime]  # where a period begins or ends of which the page has only a part


@dataclass(frozen=True, slots=True)
class InZone:
    """The charts in one time zone, on which the start of hours and days depends."""

    side: str  # the CSS class by which the page shows or hides them: in-local or in-utc
    zone: ZoneInfo
    figures: Mapping[str, Figure]
    week: Sequence[Sequence[float]]
    week_svg: Markup


def draw(found: Findings, zones: Mapping[str, ZoneInfo]) -> Sequence[InZone]:
    """Return the charts in one zone or two, by side; the second reuses the areas that the first has drawn."""
    drawn = [_in_zone(found, zone, side) for side, zone in zones.items()]
    if len(drawn) < 2:
        return drawn
    one, other = drawn
    for name in one.figures:  # str, because Markup would escape what is inserted
        shared = charts.with_shared_areas(name, str(one.figures[name].svg), str(other.figures[name].svg))
        one, other = _with(one, name, shared[0]), _with(other, name, shared[1])
    return [one, other]


def tag(slot: Slot) -> str:
    """Return the series of a slot in the chart by outbound tag."""
    return REJECTED if slot.is_rejected else slot.outbound or NO_TAG


def _outcome(slot: Slot) -> str:
    return "accepted" if slot.is_accepted else str(slot.action)


def _in_zone(found: Findings, zone: ZoneInfo, side: str) -> InZone:
    unit, over_time = found.window.unit, partial(time_series.over_time, found, zone)
    rejected = [slot for slot in found.slots if slot.is_rejected]
    week = time_series.by_weekday(found, zone)
    return InZone(
        side,
        zone,
        {
            "active": _figure(found, zone, f"Active users per {unit}", time_series.active(found, zone), "users", LOW),
            "rows": _figure(found, zone, f"Rows per {unit}", over_time(found.slots, _outcome), height=LOW),
            "traffic": _figure(found, zone, f"Rows per {unit}, by outbound tag", over_time(found.slots, tag)),
            "nodes": _figure(found, zone, f"Rows per {unit}, by node", over_time(found.slots, lambda slot: slot.node)),
            "rejected": _figure(found, zone, f"Rejected rows per {unit}", over_time(rejected, tag)),
        },
        week,
        _markup(charts.week("Average rows by weekday and hour of the day", week)),
    )


def _figure(
    found: Findings, zone: ZoneInfo, title: str, series: Series, unit: str = "rows", height: int = charts.HEIGHT
) -> Figure:
    length, axis_labels = time_series.LENGTH_OF[found.window.unit], time_series.axis_labels(found, zone)
    cuts = time_series.cuts(found, zone)
    svg = charts.over_time(title, unit, series.rows, length, axis_labels, cuts, height)
    return Figure(title, series, _markup(svg), unit, charts.axis_end(series.rows), cuts)


def numbers(zones: Sequence[InZone]) -> dict[str, Any]:
    """Return the data for charts.js: by chart and zone, when each period begins, and the counts of each series."""
    return {
        name: {
            "title": figure.title,
            "unit": figure.unit,
            "names": figure.series.names,
            "zones": {zone.side: _columns(zone.figures[name].series) for zone in zones},
        }
        for name, figure in (zones[0].figures.items() if zones else ())
    }


def _columns(series: Series) -> list[Any]:
    counts = [*zip(*(counts for _, counts in series.rows), strict=True)]
    return [[int(begin.timestamp()) for begin, _ in series.rows], counts]


def _with(of: InZone, name: str, svg: str) -> InZone:
    return replace(of, figures={**of.figures, name: replace(of.figures[name], svg=_markup(svg))})


def _markup(svg: str) -> Markup:
    return Markup(svg)  # noqa: S704  # it holds only our own text
