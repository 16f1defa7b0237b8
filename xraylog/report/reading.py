"""All questions of a page, asked side by side in one snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace

from xraylog.report import accounts, goals, snapshot, traffic
from xraylog.report.findings import Findings, Mask, Window
from xraylog.report.snapshot import Asking, Say, Sessions

TABLES = "SELECT to_regclass('logs') IS NOT NULL AND to_regclass('nodes') IS NOT NULL"
NODES = "SELECT id, name FROM nodes ORDER BY name"


def read(
    sessions: Sessions, window: Window, mask: Mask, say: Say, node: str | None = None, timeout_s: int = 0
) -> Findings:
    """All that the page tells of. `node`: of this one only. `timeout_s`: what a query may take; 0 is no limit.

    Raises LookupError for a node that is not there, and what the sessions raise.
    """
    with snapshot.taken(sessions, timeout_s, say) as (one, other):
        if not one.ask("tables", TABLES)[0][0]:
            return Findings(window)
        names: dict[int | None, str] = dict(one.ask("nodes", NODES))
        found = [number for number, name in names.items() if name == node]
        if node is not None and not found:
            raise LookupError(f"expected one of the nodes {', '.join(names.values()) or '(none)'}, found {node}")
        values = {"since": window.since, "until": window.until, "before": window.before, **mask.bits}
        values["node"] = found[0] if found else None
        first, second = replace(one, values=values), replace(other, values=values)
        with ThreadPoolExecutor(1) as beside:
            try:
                return _all(first, second, beside, window, mask, names)
            finally:
                second.stop()  # when this one failed, nobody waits for the other


def _all(
    first: Asking, second: Asking, beside: Executor, window: Window, mask: Mask, names: Mapping[int | None, str]
) -> Findings:
    coming = beside.submit(accounts.totals, second)
    knocking, days = beside.submit(traffic.sources, second), beside.submit(accounts.days, second, window)
    found = traffic.ask(first)
    nodes = traffic.health(first, found, names)
    ranked = goals.ask(first, mask)
    totals = coming.result()
    went_to = accounts.goals(first, totals, mask)
    sources, sources_in_all = knocking.result()
    return Findings(
        window=window,
        nodes=nodes,
        gaps=traffic.gaps(found, names, window),
        slots=traffic.slots(found, names),
        users=accounts.users(totals, days.result(), went_to, mask),
        users_in_all=next((row[1] for row in totals.users.values()), 0),
        top=ranked.top,
        rising=ranked.rising,
        new=ranked.new,
        has_before=ranked.has_before,
        ports=ranked.ports,
        sources=sources,
        sources_in_all=sources_in_all,
    )
