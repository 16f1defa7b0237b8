"""All questions of a page, asked side by side in one snapshot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from xraylog.database import schema
from xraylog.database.session import Connection, Unsuitable
from xraylog.report import destinations, snapshot, traffic, users
from xraylog.report.masking import Mask
from xraylog.report.model import Findings, Window
from xraylog.report.snapshot import Progress, Session, Sessions
from xraylog.report.users import Days, Totals


class UnknownNode(Exception):
    """There is no such node; the message says which there are."""


NODES = "SELECT id, name FROM nodes ORDER BY name"
ELSEWHERE = """
    SELECT c.oid::regclass::text
    FROM pg_class c
    WHERE c.relname = 'logs' AND c.relkind IN ('p', 'r') AND NOT pg_table_is_visible(c.oid)
    LIMIT 1
"""


def read(
    sessions: Sessions, window: Window, mask: Mask, progress: Progress, node: str | None = None, timeout_s: int = 0
) -> Findings:
    """Return all that the page shows. `node`: of this one only. `timeout_s`: what a query may take; 0 is no limit.

    Raises UnknownNode, and what the sessions raise.
    """
    with snapshot.open_pair(sessions, timeout_s, progress) as (one, other):
        if not _has_tables(one.conn):
            return Findings(window)
        nodes: dict[int | None, str] = {number: name or f"(id {number})" for number, name in one.query("nodes", NODES)}
        found = [number for number, name in nodes.items() if name == node]
        if node is not None and not found:
            there = ", ".join(map(_printed, nodes.values())) or "(none)"
            raise UnknownNode(f"expected one of the nodes {there}, found {_printed(node)}")
        names = {number: mask.node(number, name) for number, name in nodes.items()}
        values = {"since": window.since, "until": window.until, "before": window.before, **mask.bits}
        values["node"] = found[0] if found else None
        first, second = replace(one, values=values), replace(other, values=values)
        with _executor(first, second) as executor:
            try:
                return _all(first, second, executor, window, mask, names)
            except BaseException:  # Ctrl-C, too: nobody waits for what the other one was asked
                executor.shutdown(wait=False, cancel_futures=True)
                second.stop()
                raise


def _printed(name: str) -> str:
    """For a terminal: a name is any text."""
    return name if name.isprintable() else repr(name)


def _has_tables(conn: Connection) -> bool:
    """Whether there is anything to ask. Raises Unsuitable for tables that are not what is asked for."""
    found = schema.look(conn)
    if found.misfits:
        raise Unsuitable("; ".join(found.misfits))
    if "logs" in found.missing:
        for (name,) in conn.execute(ELSEWHERE):
            raise Unsuitable(f"expected logs among the schemas of this role, found {name}; GRANT USAGE ON its schema")
        return False
    if found.missing:
        raise Unsuitable(
            f"expected the tables {', '.join(found.missing)}, found none; a run of parse_logs.py makes them"
        )
    return True


class _Immediate(Executor):
    """Does at once, in this thread, what it is given: there is but one session."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def _executor(first: Session, second: Session) -> AbstractContextManager[Executor]:
    return nullcontext(_Immediate()) if second.conn is first.conn else ThreadPoolExecutor(1)


def _totals_and_days(session: Session, window: Window, totals: Future[Totals]) -> Days:
    return users.days(session, window, totals.result().users)


def _all(
    first: Session, second: Session, executor: Executor, window: Window, mask: Mask, names: Mapping[int | None, str]
) -> Findings:
    """As benchmarks/report.py has it, both sessions are busy for the same time."""
    coming = executor.submit(users.totals, second)
    passing = executor.submit(traffic.read, second)
    days = executor.submit(_totals_and_days, second, window, coming)
    ranked = destinations.read(first, mask)
    sources, sources_in_all = traffic.sources(first)
    totals = coming.result()
    went_to = users.goals(first, totals, mask)
    found = passing.result()
    nodes = traffic.health(first, found, names)
    return Findings(
        window=window,
        node=names.get(first.values["node"]),
        nodes=nodes,
        gaps=traffic.gaps(found, nodes, names, window),
        slots=traffic.slots(found, names),
        users=users.users(totals, days.result(), went_to, mask),
        users_in_all=totals.in_all,
        rows_of_users=totals.rows,
        top=ranked.top,
        rising=ranked.rising,
        new=ranked.new,
        destinations_in_all=ranked.in_all,
        before=ranked.before,
        begins_there=ranked.begins_there,
        ports=ranked.ports,
        sources=sources,
        sources_in_all=sources_in_all,
        newest=None if found or first.values["node"] else traffic.newest(first),
    )
