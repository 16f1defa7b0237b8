"""The column `logs.reject_reason`, which an older `logs` lacks: add it, or do without it.

It is nullable and has no default, so no version of PostgreSQL rewrites any rows. In older rows it is null.
"""

from __future__ import annotations

from psycopg import errors

from xraylog.database import citus, ddl, partitions, schema, session
from xraylog.database.retry import retry_on_lock_timeout
from xraylog.database.schema import Findings
from xraylog.database.session import Connection

LOCK_TIMEOUT = f"{partitions.DDL_LOCK_TIMEOUT_S}s"
RETRY_S = 5.0  # do not delay a run for what a later run can do, too
ADD = f"ALTER TABLE logs ADD COLUMN {ddl.REJECT_REASON} text"
OWNED = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'logs'::regclass"
EXISTS = """
    SELECT EXISTS (SELECT FROM pg_attribute
                   WHERE attrelid = to_regclass('logs') AND attname = %s AND atttypid = 'text'::regtype)
"""
UNKNOWN = "so rows do not say why xray rejected a connection"
MISSING = f"logs.{ddl.REJECT_REASON}: expected a column, found none, {UNKNOWN}"


def is_there(found: Findings) -> bool:
    """Return whether `logs` has the column, so that rows can say why xray rejected a connection."""
    return "logs" in found.tables and found.tables["logs"].types.get(ddl.REJECT_REASON) == "text"


def exists(conn: Connection) -> bool:
    """Return the same for a session that has not inspected the tables."""
    ((found,),) = conn.execute(EXISTS, [ddl.REJECT_REASON])
    return bool(found)


def misfit(found: Findings) -> str | None:
    """Return what to do about a column of that name but another type; None if there is none."""
    column = ddl.REJECT_REASON
    other = found.tables["logs"].types.get(column) if "logs" in found.tables else None
    if other in ("text", None):
        return None
    return (
        f"logs.{column}: expected the type text, found {other}, {UNKNOWN}; what to do, as the owner of logs: "
        f"ALTER TABLE logs ALTER COLUMN {column} TYPE text; if it is a column of your own: "
        f"ALTER TABLE logs RENAME COLUMN {column} TO its_{column}"
    )


def add(conn: Connection, found: Findings) -> str | None:
    """Add the column; return None, or why it is still missing, with what to do."""
    if is_there(found):
        return None
    if mismatch := misfit(found):
        return mismatch
    with session.transaction(conn):
        ((is_owned,),) = conn.execute(OWNED)
    if not is_owned:  # asking it of the server would be an error in its log, run after run
        return f"{MISSING}; what to do, as the owner of logs: {ADD}"
    try:
        retry_on_lock_timeout(lambda: _add(conn), RETRY_S)
    except (errors.OperationalError, errors.InsufficientPrivilege, errors.DuplicateColumn) as error:
        if conn.closed:
            raise
        return f"{MISSING}; the next run tries to add it again: {session.message(error)}"
    return None


def _add(conn: Connection) -> None:
    with session.transaction(conn, schema.PARTITIONS_LOCK):
        if not is_there(schema.inspect(conn)):  # another run may have been faster
            citus.before_ddl(conn, LOCK_TIMEOUT)
            conn.execute(ADD)
