"""Run all queries of a page, in two sessions at once, on one snapshot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from psycopg.sql import Identifier

from xraylog.database import schema
from xraylog.database.session import Connection, Unsuitable
from xraylog.report import address_names, destinations, places, snapshot, today, traffic, usage, users
from xraylog.report.masking import Mask
from xraylog.report.model import Findings, Thresholds, Window
from xraylog.report.snapshot import Progress, Session, Sessions
from xraylog.report.users import Days, Totals


class UnknownNode(Exception):
    """There is no such node; the message says which there are."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a page is to show."""

    window: Window
    mask: Mask = field(default_factory=Mask)
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
    """Return all that the page shows. `timeout_s`: the longest that a query may take; 0 is no limit.

    Raises UnknownNode, and what the sessions raise.
    """
    with snapshot.open_pair(sessions, timeout_s, progress) as (one, other):
        if not _has_tables(one.conn):
            return Findings(scope.window)
        names: dict[int | None, str] = {number: name or f"(id {number})" for number, name in one.query("nodes", NODES)}
        values = {
            "since": scope.window.since,
            "until": scope.window.until,
            "before": scope.window.before,
            "node": _node_id(scope.node, names),
            **scope.mask.bits,
        }
        shown = {number: scope.mask.node(number, name) for number, name in names.items()}
        first, second = replace(one, values=values), replace(other, values=values)
        with _executor(first, second) as executor:
            try:
                found = places.add(first, _query_all(first, second, executor, scope, shown))
                return address_names.add(first, found, scope.mask)
            except BaseException:  # Ctrl-C, too: do not wait for the query of the other session
                executor.shutdown(wait=False, cancel_futures=True)
                second.cancel()
                raise


def _node_id(node: str | None, names: Names) -> int | None:
    """Return the id of the node, or None for all of them."""
    if node is None:
        return None
    for number, name in names.items():
        if name == node:
            return number
    known = ", ".join(map(_printable, names.values())) or "(none)"
    raise UnknownNode(f"expected one of the nodes {known}, found {_printable(node)}")


def _printable(name: str) -> str:
    """Return a name for a terminal: it may be any text."""
    return name if name.isprintable() else repr(name)


def _has_tables(conn: Connection) -> bool:
    """Return whether there is anything to query. Raises Unsuitable for tables that do not fit."""
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


class _Immediate(Executor):
    """Run each call at once, in this thread: for when there is only one session."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def _executor(first: Session, second: Session) -> AbstractContextManager[Executor]:
    return nullcontext(_Immediate()) if second.conn is first.conn else ThreadPoolExecutor(1)


def _uses(session: Session, totals: Future[Totals]) -> tuple[usage.OfUsers, usage.OfUsers]:
    return usage.uses(session, [*totals.result().users])


def _days(session: Session, window: Window, totals: Future[Totals]) -> Days:
    return users.days(session, window, totals.result())


def _query_all(first: Session, second: Session, executor: Executor, scope: Scope, names: Names) -> Findings:
    """Run the queries, split so that both sessions are busy for the same time (benchmarks/report.py)."""
    window, mask, thresholds = scope.window, scope.mask, scope.thresholds
    future_totals = executor.submit(users.totals, second, thresholds)
    future_slots = executor.submit(traffic.read, second)
    future_days = executor.submit(_days, second, window, future_totals)
    future_uses = executor.submit(_uses, second, future_totals)
    ranked = destinations.read(first, mask, thresholds)
    rejected = traffic.rejected(first, thresholds)
    totals = future_totals.result()
    user_destinations = users.destinations(first, totals, mask, thresholds)
    slots = future_slots.result()
    nodes = traffic.health(first, slots, names)
    tags, ports = future_uses.result()
    days = future_days.result()
    return Findings(
        window=window,
        node=names.get(first.values["node"]),
        nodes=nodes,
        gaps=traffic.gaps(slots, nodes, names, window),
        slots=traffic.slots(slots, names),
        users=users.join(totals, days, user_destinations, tags, ports, mask),
        activity=users.activity(window, totals, days),
        today=today.read(first, window, names, traffic.NO_NODE),
        tags=usage.sum_up(tags),
        port_groups=usage.sum_up(ports),
        tag_goals=usage.goals(first, tags, mask, thresholds),
        total_users=totals.total,
        rows_with_user=totals.rows,
        top=ranked.top,
        rising=ranked.rising,
        new=ranked.new,
        total_destinations=ranked.total,
        before=ranked.before,
        is_first_period=ranked.is_first_period,
        ports=ranked.ports,
        sources=rejected.sources,
        total_sources=rejected.total,
        reasons=rejected.reasons,
        newest=None if slots or scope.node else traffic.newest(first),
        has_snapshot=not first.is_distributed,
    )
