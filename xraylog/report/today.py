"""Compare the last day of the page with the same hours a week before, and say who is online at its end, by node."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone

from psycopg.sql import SQL

from xraylog.report.fragments import LET_IN
from xraylog.report.model import ONLINE, Comparison
from xraylog.report.snapshot import Session
from xraylog.report.window import A_WEEK, Window

# The window has two ranges, so partitions of other days are not read. It begins before midnight if needed, because a
# user who is online shortly after midnight may have been let in before. `is_sum`: the sum of all nodes. One scan for
# both days, and without GROUPING SETS, which Citus refuses.
TODAY = SQL("""
    WITH visit AS (
        SELECT l.node_id, l."timestamp" >= %(first)s AS is_today, l.user_id,
               count(*) FILTER (WHERE {let_in} AND {of_the_day}) AS rows,
               count(*) FILTER (WHERE l.action = 'rejected' AND {of_the_day}) AS rejected,
               count(*) FILTER (WHERE {let_in}
                                      AND l."timestamp" >= %(online_since)s) AS online
        FROM logs l
        WHERE (l."timestamp" >= %(first)s AND l."timestamp" < %(until)s
               OR l."timestamp" >= %(week_before)s AND l."timestamp" < %(week_before_until)s)
              AND (%(node)s::integer IS NULL OR l.node_id = %(node)s)
        GROUP BY l.node_id, is_today, l.user_id
    )
    SELECT false AS is_sum, node_id, is_today, sum(rows)::bigint AS rows, sum(rejected)::bigint AS rejected,
           count(user_id) FILTER (WHERE rows > 0) AS users, count(user_id) FILTER (WHERE online > 0) AS online
    FROM visit
    GROUP BY node_id, is_today
    UNION ALL
    SELECT true, NULL, is_today, sum(rows)::bigint, sum(rejected)::bigint,
           count(DISTINCT user_id) FILTER (WHERE rows > 0), count(DISTINCT user_id) FILTER (WHERE online > 0)
    FROM visit
    GROUP BY is_today
""").format(let_in=LET_IN, of_the_day=SQL("""(l."timestamp" >= %(today)s OR l."timestamp" < %(week_before_until)s)"""))


def read(
    session: Session, window: Window, names: Mapping[int | None, str], no_node: str
) -> Mapping[str | None, Comparison]:
    """Return the comparison for each node, and for all nodes together under None."""
    today, online_since = window.midnights[-1], window.until - ONLINE
    values = {
        "today": today,
        "online_since": online_since,
        "first": min(today, online_since),
        "week_before": _a_week_before(today, window),
        "week_before_until": _a_week_before(window.until, window),
    }
    found: dict[str | None, Comparison] = {}
    for is_sum, node, is_today, *counts in session.query("today", TODAY, **values):
        name = None if is_sum else names.get(node, no_node)
        found[name] = found.get(name, Comparison()).with_counts(is_today, *counts)
    return found


def _a_week_before(moment: datetime, window: Window) -> datetime:
    """Return the same wall-clock time a week before: after a change of clocks, this is not exactly seven days."""
    return (moment.astimezone(window.zone) - A_WEEK).astimezone(timezone.utc)
