"""Render what was found as one HTML file that loads nothing from the network. Pure, except that it opens its template.

Any string may be an attacker's, for a client can put bytes of its choice into the log. Jinja2 escapes all of them; the
users are JSON in a script element, escaped for it (`tojson`), and page.js makes text of them, never markup. The
Content-Security-Policy allows the one style sheet and the one script of the page, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import jinja2
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from xraylog import __version__
from xraylog.report import charts, figures, notes, wording
from xraylog.report.model import Findings, User
from xraylog.report.run_history import Runs

HERE = Path(__file__).parent
UTC = ZoneInfo("UTC")
JSON: dict[str, Any] = {"separators": (",", ":"), "ensure_ascii": False}
SENTENCE_BYTES = 100  # how many of all users are shown
MAX_BYTES = 2_000_000  # of the page: fewer users are shown where they would make it larger


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
    environment.filters["count"] = wording.count
    environment.filters["size"] = wording.size
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
        "zones": figures.draw(found, zones) if found.rows else [],
        "sign": max((node.stored for node in found.nodes if node.stored), default=None),
        "can_compare": found.before is not None and not found.has_partial_period_before,
        "notes": [*notes.of(found, runs, written)],
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


def _data(found: Findings, is_masked: bool) -> dict[str, Any]:
    """Return the users as page.js takes them: a list for each, and every destination once."""
    names: dict[str, int] = {}
    users = [_row(user, names) for user in found.users]
    return {
        "zone": found.window.zone.key,
        "masked": is_masked,
        "partial": found.window.has_partial_day,
        "hasAllUsers": len(found.users) >= found.total_users,
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
