"""Render the page as one HTML file that loads nothing from the network. It reads only its template, style and script.

Any string may come from an attacker, because clients can put text of their choice into the log. Jinja2 escapes all
strings; the data for the scripts is JSON in a script element, escaped for that (`tojson`), which the scripts insert as
text, never as markup. The Content-Security-Policy allows only the page's own style sheet and script, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import jinja2
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup, escape

from xraylog import __version__
from xraylog.report import charts, client_data, figures, notes, origins, wording
from xraylog.report.model import Comparison, Findings, User, goes_nowhere
from xraylog.report.run_history import Runs

HERE = Path(__file__).parent
STYLES = ("page.css",)
SCRIPTS = ("page.js", "charts.js", "views.js", "tables.js", "state.js")  # one script, in this order
UTC = ZoneInfo("UTC")
JSON: dict[str, Any] = {"separators": (",", ":"), "ensure_ascii": False}
SENTENCE_BYTES = 100  # for the sentence that says how many of all users are shown
MAX_BLOCKING = 10  # blocking tags for whose destinations there is a table
MAX_BYTES = 2_000_000  # of the page; it shows fewer users if it would be larger


def render(found: Findings, runs: Runs, written: datetime, is_masked: bool, refresh_s: int = 0) -> str:
    """Return the page as HTML, of at most MAX_BYTES. `written`: now. `refresh_s`: when it reloads itself; 0: never."""
    found = found.without_unread(written - runs.pause)
    style, script = _text(STYLES), _text(SCRIPTS)
    zones = {"in-local": found.window.zone, "in-utc": UTC}
    if found.window.zone.key in ("UTC", "Etc/UTC"):
        del zones["in-utc"]
    drawn = figures.draw(found, zones) if found.rows else []
    template = _environment(found.window.zone).get_template("page.html")
    values = {
        "runs": runs,
        "written": written,
        "is_masked": is_masked,
        "version": __version__,
        "has_choice": len(zones) > 1,
        "zones": drawn,
        "active_of": len(found.users),  # also if the page shows fewer: the charts are drawn
        "refresh_s": refresh_s,
        "tag_counts": [(tag, found.tags[tag]) for tag in client_data.by_blocking(found.tags)],
        "blocking": [(tag, found.tags[tag]) for tag in client_data.by_blocking(found.tags) if goes_nowhere(tag)],
        "most_blocking": MAX_BLOCKING,
        "group_counts": sorted(found.port_groups.items(), key=lambda item: -item[1]),
        "nobody": Comparison(),
        "period": wording.period(found.window, written),
        "that_day": wording.that_day(found.window, written),
        "all_nodes": found.today.get(None, Comparison()),
        "sign": max((node.stored for node in found.nodes if node.stored), default=None),
        "can_compare": found.can_compare,
        "notes": [*notes.of(found, runs, written)],
        "place_columns": [
            kind for kind in ("country", "provider") if any(getattr(place, kind) for place in found.places.values())
        ],
        "most_origins": origins.MAX_SHOWN,
        "style": Markup(style),  # noqa: S704  # our own file
        "script": Markup(script),  # noqa: S704  # our own file
        "policy": f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'",
    }
    data = partial(client_data.of, zones=drawn, is_masked=is_masked, refresh_s=refresh_s)

    def fill(found: Findings) -> str:
        return str(template.render(found=found, data=data(found), origins=origins.of(found), **values))

    text = fill(found)
    excess = _bytes(text) - MAX_BYTES
    return text if excess <= 0 else fill(replace(found, users=_first_users(found, data, excess)))


def _environment(zone: ZoneInfo) -> jinja2.Environment:
    """Return what reads the template. `zone`: of times in the text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_with_returns,
    )
    environment.policies["json.dumps_kwargs"] = JSON
    environment.filters["than"] = wording.than
    environment.filters["count"] = wording.count
    environment.filters["size"] = wording.size
    environment.filters["reasons"] = wording.reasons
    environment.filters["utc"] = lambda moment: moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    environment.filters["local"] = lambda moment: f"{moment.astimezone(zone).date()} {wording.clock(moment, zone)}"
    environment.filters["clock"] = lambda moment: wording.clock(moment, zone)
    environment.filters["day"] = lambda moment: str(moment.astimezone(zone).date())
    environment.globals["weekdays"] = charts.WEEKDAYS
    return environment


def _with_returns(value: Any) -> Any:
    """Return a value for the template with carriage returns as `&#13;`: a browser would change them to line feeds."""
    if isinstance(value, str) and not isinstance(value, Markup) and "\r" in value:
        return escape(value).replace("\r", Markup("&#13;"))
    return value


def _text(names: Sequence[str]) -> str:
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)


def _bytes(text: str) -> int:
    return len(text.encode(errors="replace"))


def _first_users(found: Findings, data: Callable[[Findings], Any], excess: int) -> Sequence[User]:
    """Return as many of the first users as fit if the page is to shrink by `excess` bytes."""

    def size(count: int) -> int:
        return _bytes(htmlsafe_json_dumps(data(replace(found, users=found.users[:count])), **JSON))

    limit = size(len(found.users)) - excess
    low, high = 0, len(found.users)
    while low < high:  # invariant: `low` users fit
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(middle) <= limit - SENTENCE_BYTES else (low, middle - 1)
    return found.users[:low]


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
