"""Query the traffic by time and node, the times without accepted connections, and the rejected sources."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from psycopg.sql import SQL

from xraylog.database import citus, partitions, reject_reason
from xraylog.database.capabilities import Capabilities
from xraylog.report.fragments import CLIENT, LET_IN, SHOWN, WINDOW, clock_slot
from xraylog.report.model import GAP, NOT_LET_IN, Gap, Node, Reason, Slot, Source, Thresholds
from xraylog.report.snapshot import Session
from xraylog.report.window import ONE_DAY, SLOT, Window

NO_NODE = "(no node)"
NO_SOURCE = "(no address)"  # xray hid it, or the client used a unix socket

# The UNION ALL adds no row: without it the planner expects as many slots as rows, and sorts all rows instead of hashing
# them.
TRAFFIC = """
    SELECT t.node_id, t.slot, g.name, t.action, t.rows, t.first, t.last
    FROM (
        SELECT s.node_id, s.slot, s.tag, s.action, count(*) AS rows, min(s.at) AS first, max(s.at) AS last
        FROM (
            SELECT l.node_id, {slot} AS slot,
                   l.outbound_tag_id AS tag, l.action::text AS action, l."timestamp" AS at
            FROM logs l
            WHERE {window}
            UNION ALL
            SELECT NULL, NULL, NULL, NULL, NULL WHERE false
        ) s
        GROUP BY s.node_id, s.slot, s.tag, s.action
    ) t
    LEFT JOIN tags g ON g.id = t.tag
    ORDER BY t.slot, t.node_id, g.name, t.action
"""

# For one partition at a time, by its bounds, because no index has all times in order; and from `logs`, because a role
# may be allowed to read `logs` but not its partitions.
NEWEST = """
    SELECT max("timestamp")
    FROM logs
    WHERE "timestamp" >= to_timestamp(%(low)s) AND "timestamp" < to_timestamp(%(high)s) AND "timestamp" <= now()
"""

HEALTH = """
    SELECT n.id,
           (SELECT count(*) FROM rejected_lines r
            WHERE r.node_id = n.id AND r.rejected_at >= %(since)s AND r.rejected_at < %(until)s),
           (SELECT max(p.updated_at) FROM log_positions p
            WHERE p.node_id = n.id AND p.updated_at BETWEEN '1970-01-01 00:00+00' AND now())
    FROM nodes n
    WHERE %(node)s::integer IS NULL OR n.id = %(node)s
"""


ACTIVE = SQL("""
    SELECT DISTINCT l.node_id
    FROM logs l
    WHERE l."timestamp" >= %(since)s AND l."timestamp" < %(until)s
          AND l.node_id = ANY(%(nodes)s) AND {let_in}
""").format(let_in=LET_IN)


class Traffic(NamedTuple):
    """The rows of a quarter of an hour with the same node, outbound tag and action, counted."""

    node_id: int | None
    slot: datetime
    tag: str | None
    action: str | None
    rows: int
    first: datetime
    last: datetime

    @property
    def is_accepted(self) -> bool:
        """Return whether these are connections that xray accepted."""
        return self.action not in NOT_LET_IN


def read(session: Session) -> list[Traffic]:
    """Return the traffic of the window, in the order of time."""
    text = SQL(citus.without_planner_help(TRAFFIC) if session.is_distributed else TRAFFIC)
    query = text.format(window=WINDOW, slot=clock_slot(Capabilities.of(session.conn), SLOT))
    return [Traffic(*row) for row in session.query("traffic", query)]


def slots(traffic: Sequence[Traffic], names: Mapping[int | None, str]) -> list[Slot]:
    """Return the traffic as slots, with names in place of ids."""
    return [Slot(part.slot, names.get(part.node_id, NO_NODE), part.tag, part.action, part.rows) for part in traffic]


def newest(session: Session) -> datetime | None:
    """Return the time of the newest row that is not in the future."""
    for low, high in sorted(partitions.read_bounds(session.conn), reverse=True):
        ((newest,),) = session.query("the newest rows", NEWEST, low=max(low, 0), high=high)
        if newest:
            moment: datetime = newest
            return moment
    return None


def health(session: Session, traffic: Sequence[Traffic], names: Mapping[int | None, str], window: Window) -> list[Node]:
    """Return each node with its rows and times, including nodes without rows in the window."""
    rows: Counter[int | None] = Counter()
    accepted: dict[int | None, list[Traffic]] = defaultdict(list)
    for part in traffic:
        rows[part.node_id] += part.rows
        if part.is_accepted:
            accepted[part.node_id].append(part)
    known = {number: (rejected, stored) for number, rejected, stored in session.query("health", HEALTH)}
    first = {number: min((part.first for part in accepted[number]), default=None) for number in {*known, *rows}}
    late = [number for number, moment in first.items() if number and (moment or window.until) - window.since >= GAP]
    active = _active_before(session, late, window)
    return [
        Node(
            names.get(number, NO_NODE),
            rows[number],
            first[number],
            max((part.last for part in accepted[number]), default=None),
            *known.get(number, (0, None)),
            was_active=number in active,
        )
        for number in sorted(first, key=lambda number: names.get(number, NO_NODE))
    ]


def _active_before(session: Session, nodes: Sequence[int], window: Window) -> set[int]:
    """Return which of these nodes let a client in during the period before, or the day before if that is longer.

    Most did on the last day, so it is read first; the rest is read only for the others.
    """
    day_before = window.since - ONE_DAY
    found = set[int]()
    for since, until in ((day_before, window.since), (window.before, day_before)):
        unknown = [node for node in nodes if node not in found]
        if unknown and since < until:
            rows = session.query("nodes before", ACTIVE, nodes=unknown, since=since, until=until)
            found |= {node for (node,) in rows}
    return found


def gaps(
    traffic: Sequence[Traffic], nodes: Sequence[Node], names: Mapping[int | None, str], window: Window
) -> list[Gap]:
    """Return the times when a node had no accepted row, the longest first. Exact, because traffic has both ends.

    `nodes`: all nodes of the page, including those that were silent throughout.
    """
    pieces = [(names.get(part.node_id, NO_NODE), part.first, part.last) for part in traffic if part.is_accepted]
    ends = [(node.name, window.until, window.until) for node in nodes]
    found, reached = [], dict[str, datetime]()
    for node, first, last in [*sorted(pieces, key=lambda piece: piece[1]), *ends]:
        before = reached.get(node, window.since)
        if first - before >= GAP:
            found.append(Gap(node, before, first))
        reached[node] = max(before, last)
    return sorted(found, key=lambda gap: (gap.since - gap.until, gap.since))


# One scan; both sources and reasons are built from its groups. `what` says whether a row is a source or a reason.
SOURCES = """
    WITH rejected AS (
        SELECT {shown} AS source, l.why, sum(l.rows) AS rows, min(l.first) AS first, max(l.last) AS last
        FROM (
            SELECT {client} AS source_ip, coalesce(nullif(l.why, ''), %(not_recorded)s) AS why,
                   sum(l.rows) AS rows, min(l.first) AS first, max(l.last) AS last
            FROM (
                SELECT l.source_ip, {why} AS why, count(*) AS rows, min(l."timestamp") AS first,
                       max(l."timestamp") AS last
                FROM logs l
                WHERE {window} AND l.action = 'rejected'
                GROUP BY l.source_ip, {why}
            ) l
            GROUP BY 1, 2
        ) l
        GROUP BY 1, 2
    ), top AS (
        SELECT source, sum(rows)::bigint AS rows, min(first) AS first, max(last) AS last,
               array_agg(why ORDER BY rows DESC, why) AS reasons,
               array_agg(rows::bigint ORDER BY rows DESC, why) AS counts, count(*) OVER () AS total
        FROM rejected
        GROUP BY source
        ORDER BY sum(rows) DESC, source
        LIMIT %(most)s
    )
    SELECT 'source' AS what, abbrev(t.source::inet) AS name, t.rows, t.first, t.last, t.reasons, t.counts, t.total
    FROM top t
    UNION ALL
    SELECT 'reason', r.why, sum(r.rows)::bigint, NULL, NULL, NULL, NULL, count(r.source)
    FROM rejected r
    GROUP BY r.why
    ORDER BY rows DESC, name
"""
REASON = SQL("l.reject_reason")
NO_REASON = SQL("NULL::text")
NOT_RECORDED = "not recorded"  # as in answers.sql


@dataclass(frozen=True, slots=True)
class Rejected:
    """The sources with the most rejected connections, and the reasons for which xray rejected them."""

    sources: Sequence[Source]
    total: int  # of all rejected sources
    reasons: Sequence[Reason]  # of all rejected connections; empty if `logs` has no column for them


def rejected(session: Session, thresholds: Thresholds) -> Rejected:
    """Return the sources with the most rejected connections, and all reasons."""
    has_reasons = reject_reason.exists(session.conn)
    query = SQL(SOURCES).format(window=WINDOW, shown=SHOWN, client=CLIENT, why=REASON if has_reasons else NO_REASON)
    found = session.query("rejected sources", query, most=thresholds.max_sources, not_recorded=NOT_RECORDED)
    sources, reasons, total = list[Source](), list[Reason](), 0
    for what, name, rows, first, last, names, counts, number in found:
        if what == "reason":
            reasons.append(Reason(name, rows, number))
        else:
            of = [*zip(names, counts, strict=True)] if has_reasons else ()
            sources.append(Source(name or NO_SOURCE, rows, first, last, of))
            total = number
    return Rejected(sources, total, reasons if has_reasons else ())
