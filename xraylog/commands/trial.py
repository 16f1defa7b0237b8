"""A trial run for --check: do in the database what a run does, in a transaction that is rolled back.

The catalog does not show everything: what a trigger, a policy, an event trigger or a sequence does with a row shows
only when there is a row.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import psycopg
from psycopg.sql import SQL, Identifier

from xraylog.accesslog.parser import Parser
from xraylog.config import Config
from xraylog.database import interference, positions, reject_reason, schema, session, table_faults
from xraylog.database.positions import Position, PositionUpdate
from xraylog.database.session import Connection, Unsuitable
from xraylog.loading.loader import Target
from xraylog.records import Fingerprint

SOURCE = "--check"
LINE = "{at:%Y/%m/%d %H:%M:%S} from 192.0.2.1:1 accepted tcp:check.invalid:443 [check -> check] email: check\n"
UNPARSED = "from --check\n"
LAST_REASON = "SELECT reason FROM rejected_lines WHERE source = %s AND line_offset = 0 ORDER BY id DESC LIMIT 1"
IS_LEFT = "SELECT 1 FROM log_positions WHERE node_id = %s AND head = %s AND stored_from = 1"
DELETE_UNPARSED = "DELETE FROM rejected_lines WHERE source = %s"
UNPARSED_LEFT = "SELECT EXISTS (SELECT 1 FROM rejected_lines WHERE source = %s)"  # a trigger may insert it again
MAY_CREATE = "SELECT has_schema_privilege(current_schema(), 'CREATE')"
AS_OWNER = "as its owner, or a superuser of PostgreSQL: "
DAYS = 400  # up to today, in which a day without a partition is looked for


class Unparsed(Exception):
    """A valid line would end up among the unparsed lines."""


class Dropped(Exception):
    """A valid line would end up in no table."""


def run(conn: Connection, cfg: Config, on_new_day: bool) -> None:
    """Store a valid and an invalid line as a run would, and roll back; only ids of sequences are used up.

    `on_new_day`: on a day that has no partition. Raises what a run would raise; Unparsed if the valid line would be
    rejected; Dropped if it would be lost.
    """
    with psycopg.Transaction(conn, force_rollback=True):
        with session.transaction(conn):  # its timeouts are those of the transaction around it from now on
            pass
        found = schema.ensure(conn)
        # A line needs no second session.
        target = Target(conn, lambda: contextlib.nullcontext(conn), has_reject_reason=reject_reason.is_there(found))
        now = datetime.now(timezone.utc)
        at = (_new_day(target, now) if on_new_day else now).astimezone(cfg.zone)
        text = (LINE.format(at=at) + UNPARSED).encode()
        (batch,) = Parser(cfg.zone, now).batches([(0, text)], 1 << 20)
        position = Position.start(target.node_id(cfg.node), SOURCE)
        update = PositionUpdate(position, batch.end, Fingerprint(0, b""))
        result, (position,) = target.loader(cfg.node).load(batch, update)
        if result.rejected > 1:
            raise Unparsed(f"a good line was left unparsed{_reason(conn)}")
        if result.dropped:
            raise Dropped(table_faults.rows_were_dropped(target.dropped_by))
        _move_and_delete(conn, position)
        if cfg.keep_days:
            _forget(conn)
        conn.execute("SET CONSTRAINTS ALL IMMEDIATE")  # deferred triggers would otherwise run at COMMIT only


def _move_and_delete(conn: Connection, position: Position) -> None:
    """Move a position as a run does after storing lines, and delete another one as it does with old positions."""
    positions.move(conn, PositionUpdate(position, position.offset + 1, Fingerprint(0, b"")))
    digest = SOURCE.encode()
    later = replace(Position.start(position.node_id, SOURCE), head_digests=(digest,), stored_from=1)
    positions.move(conn, PositionUpdate(later, 2, Fingerprint(len(digest), digest)))
    positions.forget_ranges(conn, later)
    if conn.execute(IS_LEFT, [position.node_id, digest]).fetchone() is not None:
        statements = "; ".join(interference.removals(conn, "log_positions"))
        raise Unsuitable(f"log_positions keeps what a run deletes; {AS_OWNER}{statements}")


def _forget(conn: Connection) -> None:
    """Delete an unparsed line and drop a table, as retention does. It is no partition, so that nobody has to wait."""
    is_deleted = conn.execute(DELETE_UNPARSED, [SOURCE]).rowcount > 0
    if not is_deleted or conn.execute(UNPARSED_LEFT, [SOURCE]).fetchone() == (True,):
        statements = "; ".join(interference.removals(conn, "rejected_lines"))
        raise Unsuitable(f"rejected_lines keeps lines that are older than [retention] days; {AS_OWNER}{statements}")
    if conn.execute(MAY_CREATE).fetchone() == (True,):
        table = Identifier(f"xraylog_check_{conn.info.backend_pid}")
        conn.execute(SQL("CREATE TABLE {} ()").format(table))
        conn.execute(SQL("DROP TABLE {}").format(table))


def _reason(conn: Connection) -> str:
    """Return why the line was rejected, if this role may read it."""
    if conn.execute("SELECT has_table_privilege('rejected_lines', 'SELECT')").fetchone() != (True,):
        return "; a role that may read rejected_lines sees why"
    ((reason,),) = conn.execute(LAST_REASON, [SOURCE])
    return f": {reason}"


def _new_day(target: Target, now: datetime) -> datetime:
    """Return the last day whose partition would have to be created, or today."""
    days = (now - timedelta(days=before) for before in range(DAYS))
    return next((day for day in days if target.days.missing([f"{day:%Y-%m-%d}"])), now)
