"""Run all queries of a page, in two sessions at once, on one snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from psycopg.sql import Identifier

from xraylog.database import schema
from xraylog.database.session import Connection, Unsuitable
from xraylog.printed import escaped
from xraylog.report import address_names, concurrent, destinations, places, snapshot, today, traffic, usage, users
from xraylog.report.model import Findings, Thresholds
from xraylog.report.page_mask import PageMask
from xraylog.report.snapshot import Ask, Progress, Sessions
from xraylog.report.window import Window


class UnknownNode(Exception):
    """There is no such node; the message says which ones there are."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a page is about."""

    window: Window
    mask: PageMask = field(default_factory=PageMask)
    node: str | None = None  # this one only
    thresholds: Thresholds = field(default_factory=Thresholds)


Names = Mapping[int | None, str]

NODES = "SELECT id, name FROM nodes ORDER BY name"
ELSEWHERE = """
    SELECT c.oid::regclass::text
    FROM pg_class c
    WHERE c.relname = 'logs' AND c.relkind IN ('p', 'r') AND NOT pg_table_is_visible(c.oid)
    LIMIT 1
"""


def read(sessions: Sessions, scope: Scope, progress: Progress, timeout_s: int = 0) -> Findings:
    """Return everything the page shows. `timeout_s`: the longest that a query may take; 0 for no limit.

    Raises UnknownNode, and what opening the sessions raises.
    """
    with snapshot.open_pair(sessions, timeout_s, progress) as (one, other):
        if not _has_tables(one.conn):
            return Findings(scope.window)
        names: dict[int | None, str] = {number: name or f"(id {number})" for number, name in one.query("nodes", NODES)}
        node = _node_id(scope.node, names)
        values = {
            "since": scope.window.since,
            "until": scope.window.until,
            "before": scope.window.before,
            "node": node,
            **scope.mask.bits,
        }
        shown = {number: scope.mask.node(number, name) for number, name in names.items()}
        first, second = replace(one, values=values), replace(other, values=values)
        with snapshot.side_by_side(first, second) as ask:
            found = _query_all(ask, scope, shown)
        found = replace(found, node=shown.get(node), has_snapshot=not first.is_distributed)
        return address_names.add(first, places.add(first, found), scope.mask)


def _node_id(node: str | None, names: Names) -> int | None:
    """Return the id of the node, or None for all of them."""
    if node is None:
        return None
    for number, name in names.items():
        if name == escaped(node):
            return number
    known = ", ".join(map(_printable, names.values())) or "(none)"
    raise UnknownNode(f"expected one of the nodes {known}, found {_printable(node)}")


def _printable(name: str) -> str:
    """Return a name that is safe to print: it may be any text."""
    return name if name.isprintable() else repr(name)


def _has_tables(conn: Connection) -> bool:
    """Return whether there are tables to query. Raises Unsuitable if they do not fit."""
    found = schema.inspect(conn)
    if found.misfits:
        raise Unsuitable("; ".join(found.misfits))
    if "logs" in found.missing:
        for (name,) in conn.execute(ELSEWHERE):
            role, place = Identifier(conn.info.user).as_string(conn), name.rpartition(".")[0]
            raise Unsuitable(
                f"expected logs among the schemas of this role, found {name}; as the owner of that schema: "
                f"GRANT USAGE ON SCHEMA {place} TO {role}; ALTER ROLE {role} SET search_path = {place}"
            )
        return False
    if found.missing:
        raise Unsuitable(
            f"expected the tables {', '.join(found.missing)}, found none; a run of parse_logs.py creates them"
        )
    return True


def _query_all(ask: Ask, scope: Scope, names: Names) -> Findings:
    """Run the queries: first those whose results others need, then the longest (benchmarks/report.py)."""
    window, mask, thresholds = scope.window, scope.mask, scope.thresholds
    future_totals = ask(users.totals, window, thresholds)
    future_ranked = ask(destinations.read, window, mask, thresholds)
    future_traffic = ask(traffic.read)
    totals = future_totals.result()
    future_concurrent = ask(concurrent.read, window, totals.concurrent)
    future_destinations = ask(users.destinations, totals, mask, thresholds)
    future_uses = ask(usage.uses, [*totals.users], thresholds)
    future_tag_destinations = ask(usage.tag_destinations, mask, thresholds)
    future_rejected = ask(traffic.rejected, thresholds)
    future_today = ask(today.read, window, names, traffic.NO_NODE)
    parts = future_traffic.result()
    nodes = ask(traffic.health, parts, names, window).result()
    newest = None if parts or scope.node else ask(traffic.newest).result()
    ranked, rejected = future_ranked.result(), future_rejected.result()
    uses = future_uses.result()
    return Findings(
        window=window,
        nodes=nodes,
        gaps=traffic.gaps(parts, nodes, names, window),
        slots=traffic.slots(parts, names),
        users=users.join(
            totals, future_concurrent.result(), future_destinations.result(), uses.tags, uses.port_groups, mask
        ),
        activity=users.activity(window, totals),
        today=future_today.result(),
        tags=usage.sum_up(uses.tags),
        port_groups=usage.sum_up(uses.port_groups),
        tag_destinations=future_tag_destinations.result(),
        total_users=totals.total,
        rows_with_user=totals.rows,
        top=ranked.top,
        rising=ranked.rising,
        new=ranked.new,
        total_destinations=ranked.total,
        before=ranked.before,
        is_first_period=ranked.is_first_period,
        missing_before=ranked.missing_before,
        ports=uses.ports,
        sources=rejected.sources,
        total_sources=rejected.total,
        reasons=rejected.reasons,
        newest=newest,
    )
