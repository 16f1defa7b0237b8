"""The charts of the page in each zone, with the numbers that they show. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from zoneinfo import ZoneInfo

from markupsafe import Markup

from xraylog.report import charts, time_series
from xraylog.report.model import Findings, Slot
from xraylog.report.time_series import Series

REJECTED, NO_TAG = "(rejected)", "(no tag)"


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart over time, and its numbers."""

    title: str
    series: Series
    svg: Markup


@dataclass(frozen=True, slots=True)
class InZone:
    """What depends on the zone: where hours begin, and which weekday a moment is in."""

    side: str  # the CSS class that shows or hides it
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
    for name in one.figures:  # charts as plain text: Markup escapes what is put into it
        shared = charts.sharing(name, str(one.figures[name].svg), str(other.figures[name].svg))
        one, other = _with(one, name, shared[0]), _with(other, name, shared[1])
    return [one, other]


def tag(slot: Slot) -> str:
    """Return the series that rows belong to in the chart by outbound tag."""
    return REJECTED if slot.is_rejected else slot.outbound or NO_TAG


def _in_zone(found: Findings, zone: ZoneInfo, side: str) -> InZone:
    unit = found.window.unit
    week = time_series.by_weekday(found, zone)
    return InZone(
        side,
        zone,
        {
            "traffic": _figure(found, zone, f"Rows per {unit}, by outbound tag", found.slots, tag),
            "nodes": _figure(found, zone, f"Rows per {unit}, by node", found.slots, lambda slot: slot.node),
            "rejected": _figure(
                found, zone, f"Rejected rows per {unit}", (slot for slot in found.slots if slot.is_rejected), tag
            ),
        },
        week,
        _markup(charts.week("Average rows by weekday and hour of the day", week)),
    )


def _figure(found: Findings, zone: ZoneInfo, title: str, slots: Iterable[Slot], name: Callable[[Slot], str]) -> Figure:
    unit = found.window.unit
    series = time_series.over_time(found, zone, slots, name)
    length, marks = time_series.LENGTH_OF[unit], time_series.marks(found, zone)
    return Figure(title, series, _markup(charts.over_time(title, f"rows per {unit}", series.rows, length, marks)))


def _with(of: InZone, name: str, svg: str) -> InZone:
    return replace(of, figures={**of.figures, name: replace(of.figures[name], svg=_markup(svg))})


def _markup(svg: str) -> Markup:
    return Markup(svg)  # noqa: S704  # it holds only our own text
