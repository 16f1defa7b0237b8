"""Render what was found as one HTML file that loads nothing from the network. Pure, except that it opens its template.

Any string may be an attacker's, for a client can put bytes of its choice into the log. Jinja2 escapes all of them; the
users are JSON in a script element, escaped for it (`tojson`), and page.js makes text of them, never markup. The
Content-Security-Policy allows the one style sheet and the one script of the page, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import jinja2
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from xraylog import __version__
from xraylog.report import charts, time_series
from xraylog.report.model import Findings, Slot, User
from xraylog.report.run_history import Runs
from xraylog.report.time_series import Series

HERE = Path(__file__).parent
UTC = ZoneInfo("UTC")
JSON: dict[str, Any] = {"separators": (",", ":"), "ensure_ascii": False}
SENTENCE_BYTES = 100  # how many of all users are shown
MAX_BYTES = 2_000_000  # of the page: fewer users are shown where they would make it larger
REJECTED, NO_TAG = "(rejected)", "(no tag)"


@dataclass(frozen=True, slots=True)
class InZone:
    """What depends on the zone: where hours begin, and which weekday a moment is in."""

    side: str  # the CSS class that shows or hides it
    zone: ZoneInfo
    traffic: Series
    traffic_chart: Markup
    nodes: Series
    nodes_chart: Markup
    rejected: Series
    rejected_chart: Markup
    week: Sequence[Sequence[int]]
    week_chart: Markup


def render(found: Findings, runs: Runs, written: datetime, is_masked: bool) -> str:
    """Return the page as HTML, of at most MAX_BYTES. `written`: now."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = JSON
    environment.filters["count"] = _count
    environment.filters["size"] = _size
    environment.filters["utc"] = lambda moment: moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    environment.filters["local"] = lambda moment: moment.astimezone(found.window.zone).strftime("%Y-%m-%d %H:%M")
    environment.filters["day"] = lambda moment: str(moment.astimezone(found.window.zone).date())
    environment.globals["weekdays"] = charts.WEEKDAYS
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    zones = {"in-local": found.window.zone, "in-utc": UTC}
    if found.window.zone.key in ("UTC", "Etc/UTC"):
        del zones["in-utc"]
    template = environment.get_template("page.html")
    values = {
        "runs": runs,
        "written": written,
        "is_masked": is_masked,
        "version": __version__,
        "has_choice": len(zones) > 1,
        "zones": _sharing([_in_zone(found, zone, side) for side, zone in zones.items()]) if found.rows else [],
        "sign": max((node.stored for node in found.nodes if node.stored), default=None),
        "notes": [*_notes(found, runs, written)],
        "style": Markup(style),  # noqa: S704  # our own file
        "script": Markup(script),  # noqa: S704  # our own file
        "policy": f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'",
    }
    text = str(template.render(found=found, data=_data(found, is_masked), **values))
    if (excess := _bytes(text) - MAX_BYTES) > 0:
        found = replace(found, users=_first_users(found, is_masked, excess))
        text = str(template.render(found=found, data=_data(found, is_masked), **values))
    return text


def _bytes(text: str) -> int:
    return len(text.encode(errors="replace"))


def _first_users(found: Findings, is_masked: bool, excess: int) -> Sequence[User]:
    """Return the users with the most rows, without as many of the others as take `excess` bytes of the page."""

    def size(count: int) -> int:
        return _bytes(htmlsafe_json_dumps(_data(replace(found, users=found.users[:count]), is_masked), **JSON))

    most = size(len(found.users)) - excess
    few, many = 0, len(found.users)
    while few < many:  # `few` of them fit
        middle = (few + many + 1) // 2
        few, many = (middle, many) if size(middle) <= most - SENTENCE_BYTES else (few, middle - 1)
    return found.users[:few]


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _in_zone(found: Findings, zone: ZoneInfo, side: str) -> InZone:
    traffic = time_series.over_time(found, zone, found.slots, _tag)
    nodes = time_series.over_time(found, zone, found.slots, lambda slot: slot.node)
    rejected = time_series.over_time(
        found, zone, (slot for slot in found.slots if slot.is_rejected), lambda _: REJECTED
    )
    unit = found.window.unit
    week = time_series.by_weekday(found.slots, zone)
    marks = time_series.marks(found, zone)
    return InZone(
        side,
        zone,
        traffic,
        _drawn(charts.over_time(f"Rows by {unit} and outbound tag", unit, traffic.rows, marks)),
        nodes,
        _drawn(charts.over_time(f"Rows by {unit} and node", unit, nodes.rows, marks)),
        rejected,
        _drawn(charts.over_time(f"Rejected rows by {unit}", unit, rejected.rows, marks)),
        week,
        _drawn(charts.week("Rows by weekday and hour of the day", week)),
    )


def _sharing(zones: Sequence[InZone]) -> Sequence[InZone]:
    """Return both zones; the second reuses the areas that the first has drawn."""
    if len(zones) < 2:
        return zones
    one, other = zones  # their charts as plain text: Markup escapes what is put into it
    traffic = charts.sharing("traffic", str(one.traffic_chart), str(other.traffic_chart))
    nodes = charts.sharing("nodes", str(one.nodes_chart), str(other.nodes_chart))
    rejected = charts.sharing("rejected", str(one.rejected_chart), str(other.rejected_chart))
    return [
        replace(of, traffic_chart=_drawn(drawn[0]), nodes_chart=_drawn(drawn[1]), rejected_chart=_drawn(drawn[2]))
        for of, drawn in zip(zones, zip(traffic, nodes, rejected, strict=True), strict=True)
    ]


def _drawn(svg: str) -> Markup:
    return Markup(svg)  # noqa: S704  # it holds only our own text


def _tag(slot: Slot) -> str:
    return REJECTED if slot.is_rejected else slot.outbound or NO_TAG


def _notes(found: Findings, runs: Runs, written: datetime) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield what an operator should look at first, each with the names that it is about."""
    if not found.rows:
        yield "No rows in these days.", ()
    is_over = found.window.until < written
    silent = [] if is_over else found.silent
    if silent:
        yield "No row in the last hour:", silent
    if is_over and found.absent:
        yield "No row in these days, but runs since then:", found.absent
    if interrupted := [name for name in found.interrupted if name not in silent]:
        yield "A day or more without any row:", interrupted
    if runs.unseen:
        yield "Unknown, because it cannot be read:", runs.unseen
    if runs.buffer_bytes:
        yield (
            f"{_size(runs.buffer_bytes)} in the offline buffer: the next run that reaches PostgreSQL imports them.",
            (),
        )
    if runs.offline:
        yield f"Runs that did not reach PostgreSQL: {_count(runs.offline)} of {_count(runs.count)}.", ()
    if found.rejected_lines:
        yield (
            f"Unparsed lines: {_count(found.rejected_lines)}. They are in rejected_lines, each with the reason.",
            (),
        )


def _data(found: Findings, is_masked: bool) -> dict[str, Any]:
    """Return the users as page.js takes them: a list for each, and every destination once."""
    names: dict[str, int] = {}
    users = [_row(user, names) for user in found.users]
    return {
        "zone": found.window.zone.key,
        "masked": is_masked,
        "days": [str(day) for day in found.window.days],
        "users": users,
        "names": [*names],
    }


def _row(user: User, names: dict[str, int]) -> list[Any]:
    return [
        user.name,
        user.rows,
        user.concurrent_addresses,
        user.addresses,
        user.networks_24,
        user.networks_48,
        int(user.first.timestamp()),
        int(user.last.timestamp()),
        user.by_day,
        user.visited_from,
        [[names.setdefault(address, len(names)), rows] for address, rows in user.destinations],
    ]


def _count(number: int) -> str:
    return f"{number:,}"


def _size(number: int) -> str:
    return f"{number / 1_000_000:.1f} MB" if number >= 100_000 else f"{number:,} bytes"
