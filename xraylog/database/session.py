"""Connections and transactions, and what an error of the database means for a run. Every connection is opened here."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import psycopg
from psycopg import pq
from psycopg.abc import Params
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Composed, Identifier

from xraylog import cleartext
from xraylog.database import deadline
from xraylog.database.capabilities import Capabilities
from xraylog.printed import without_passwords

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Statement: TypeAlias = str | bytes | SQL | Composed

# psycopg logs errors that it ignores while a broken session ends; without a handler Python prints them on stderr. The
# error that broke the session is raised, and reported by us.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

CONNECT_TIMEOUT_S = 5
LOCK_TIMEOUT_S = 30  # for another run's partition, batch or migration step: longer is an outage

# A server that vanishes without a word is noticed within a minute, instead of the two hours of TCP's defaults.
DEFAULTS: Mapping[str, str] = {
    "connect_timeout": str(CONNECT_TIMEOUT_S),
    "application_name": "parse_logs",
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}

IDLE = pq.TransactionStatus.IDLE
NO_MEMORY = "53200"
NO_KEYWORDS: Mapping[str, str] = {}
NO_REPLICATION = ("false", "off", "no", "0")


class Unavailable(Exception):
    """The database is down or busy; a later run is likely to reach it. The message says how we know."""


class ReadOnly(Unavailable):
    """The server accepts no changes: it is a standby, or configured so. The message says which, and what to do."""


class Unsuitable(Exception):
    """The database answers, but cannot be used as it is: the operator must act. The message says how."""


@contextlib.contextmanager
def connect(
    keywords: Mapping[str, str],
    to_write: bool = True,
    answer_timeout_s: float | None = None,
    node: str | None = None,
) -> Iterator[Connection]:
    """Open a session with libpq's `keywords`, in autocommit: every transaction is a visible `with`.

    `answer_timeout_s`: how long to wait while no byte moves; None: without limit. `node`: whose run this is; the next
    run ends what this session may leave in the server (dead_sessions.py). `to_write`: raise ReadOnly if the server is
    read-only. Raises Unavailable and Unsuitable, here and from everything inside.
    """
    with _explained(keywords), _session(keywords, answer_timeout_s, node) as conn:
        replication = _keyword(conn, b"replication") or "false"
        if replication.lower() not in NO_REPLICATION:  # such a session answers each query as if the connection broke
            raise Unsuitable(
                f"[postgresql] replication: expected none, found {replication!r}; take it out of the config, or of the "
                "service that it names"
            )
        if conn.info.parameter_status("server_encoding") != "UTF8":
            found = conn.info.parameter_status("server_encoding")
            name = Identifier(f"{conn.info.dbname}_utf8").as_string(conn)
            raise Unsuitable(
                f"database {conn.info.dbname}: expected the encoding UTF8, found {found}; name another one in "
                f"[postgresql] dbname: CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0"
            )
        if to_write:
            _refuse_read_only(conn)
        yield conn


def _keyword(conn: Connection, name: bytes) -> str | None:
    """Return a keyword of a session. psycopg's own way asks for the home of this user, who may have none."""
    found = next((option.val for option in conn.pgconn.info if option.keyword == name), None)
    return None if found is None else found.decode(errors="replace")


def _refuse_read_only(conn: Connection) -> None:
    """Raise ReadOnly for a standby, or a server that is set to read-only, before anything is tried."""
    ((is_standby, read_only),) = conn.execute("SELECT pg_is_in_recovery(), current_setting('transaction_read_only')")
    if is_standby:
        raise ReadOnly("the server is a standby, which is read-only; [postgresql] host must lead to the primary")
    if read_only == "on":
        name = "default_transaction_read_only"
        ((source,),) = conn.execute("SELECT source FROM pg_settings WHERE name = %s", [name])
        way_out = to_reset(conn, name, "off", source, first=f"SET {name} = off; ")
        raise ReadOnly(f"the server is read-only: {name} is on ({source}); to change that: {way_out}")


def to_reset(conn: Connection, name: str, value: str, source: str, first: str = "") -> str:
    """Return the statement that changes a setting back to this value, depending on the source that pg_settings shows.

    `first`: what has to be run before it in the same session.
    """
    database, role = (Identifier(name).as_string(conn) for name in (conn.info.dbname, conn.info.user))
    return {
        "database": f"{first}ALTER DATABASE {database} RESET {name}",
        "user": f"{first}ALTER ROLE {role} RESET {name}",
        "database user": f"{first}ALTER ROLE {role} IN DATABASE {database} RESET {name}",
        "client": "take it out of [postgresql] options, or of PGOPTIONS",
        "command line": "start the server without it",
    }.get(source, f"{first}ALTER SYSTEM SET {name} = {value}; SELECT pg_reload_conf()")


@contextlib.contextmanager
def _session(keywords: Mapping[str, str], answer_timeout_s: float | None, node: str | None) -> Iterator[Connection]:
    required = cleartext.refused(keywords, pq.version())
    conninfo = make_conninfo("", **{**DEFAULTS, **required, **keywords, "client_encoding": "UTF8"})
    conn = _attempt(conninfo, keywords)
    conn.answer_timeout_s, conn.node = answer_timeout_s, node
    # At a stricter level, a statement that has waited for a lock keeps its old snapshot, and misses what it waited for.
    conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    try:
        yield conn
    finally:
        conn.close()


def _attempt(conninfo: str, keywords: Mapping[str, str]) -> deadline.Connection:
    """Return a session. Raises Unavailable and Unsuitable."""
    for is_last in (False, True):
        try:
            # No prepared statements: pgbouncer in transaction mode hands each transaction another session.
            return deadline.Connection.connect(conninfo, autocommit=True, prepare_threshold=None)
        except psycopg.OperationalError as error:
            from xraylog.database import logins  # only when there is no session

            if isinstance(error, psycopg.errors.ConnectionTimeout) and logins.count_hosts(conninfo) == 1:
                timeout = logins.after_timeout(conninfo)
                raise Unavailable(message(timeout, keywords)) from timeout
            found = logins.explain(conninfo)
            if found is None and is_last:
                raise Unavailable(message(error, keywords)) from error
            if found is not None:
                kind = Unsuitable if found.is_for_operator else Unavailable
                said = message(found.error, keywords)
                raise kind(f"{said}; {found.to_do}" if found.to_do else said) from found.error
            # The server may have come up between the two attempts, and then has refused nothing: try again.
    raise AssertionError


@contextlib.contextmanager
def transaction(conn: Connection, *locks: str, by_index: bool = False) -> Iterator[None]:
    """Open a transaction that first takes the named advisory locks, in this order, and commits durably.

    `by_index`: look up a few thousand names among a million by index, whatever the statistics say. Otherwise the server
    scans the table each time until it is analyzed (benchmarks/memory.py, the adversary's log).

    The names of the locks say what they guard in this database: `partitions`, `node NAME`. The lock of a dead run is
    held until its backend has ended, so whoever gets it sees what that backend committed.
    """
    with contextlib.ExitStack() as stack:
        with _pipeline(conn) as pipeline:  # one round trip
            stack.enter_context(psycopg.Transaction(conn))
            _set_up(conn, pipeline, by_index)
            if locks:
                conn.execute(SQL("SELECT {}").format(SQL(", ").join([SQL(LOCK)] * len(locks))), [*map(lock_key, locks)])
        yield


def answer(
    conn: Connection, statement: Statement, values: Params = (), by_index: bool = False, binary: bool = False
) -> list[tuple[Any, ...]]:
    """Return the rows of one statement: in the open transaction, or in one of its own, in one round trip.

    `by_index`: as for `transaction`; ignored in an open one. `binary`: use psycopg's binary format.
    """
    if conn.info.transaction_status is not IDLE:
        return conn.execute(statement, values, binary=binary).fetchall()
    try:
        with _pipeline(conn) as pipeline, psycopg.Transaction(conn):
            _set_up(conn, pipeline, by_index)
            cursor = conn.execute(statement, values, binary=binary)
    except psycopg.Error as error:
        if not conn.closed:  # the COMMIT after an error is skipped
            conn.rollback()
        if isinstance(error, psycopg.errors.PipelineAborted) and isinstance(error.__context__, psycopg.Error):
            raise error.__context__ from None  # psycopg may raise that it was skipped instead of the cause
        raise
    return cursor.fetchall()


def _pipeline(conn: Connection) -> contextlib.AbstractContextManager[psycopg.Pipeline | None]:
    return conn.pipeline() if psycopg.Pipeline.is_supported() else contextlib.nullcontext()


def _set_up(conn: Connection, pipeline: psycopg.Pipeline | None, by_index: bool) -> None:
    """Send the settings of a transaction."""
    server = Capabilities.of(conn)
    node = conn.node if isinstance(conn, deadline.Connection) else None
    mark = [] if node is None else [lock_key(run_mark(node))]
    conn.execute(_begin_settings(server, by_index, bool(mark)), [f"{LOCK_TIMEOUT_S}s", *mark])
    if pipeline is not None and not server.statements_have_timeouts:
        pipeline.sync()  # otherwise the timeout of the role counts until the locks are taken


# Settings of a role, a database or PGOPTIONS that would change what we read. DateStyle and TimeZone: the catalog writes
# the bounds of partitions in them, and other styles use names of zones. quote_all_identifiers: changes the definitions
# of keys and indexes. extra_float_digits: before PostgreSQL 12, floats are sent as text of 15 digits. search_path: if
# it names pg_catalog last, functions of other schemas hide the server's; not named, pg_catalog is searched first.
READ_SETTINGS = """
    SELECT pg_catalog.set_config('DateStyle', 'ISO, MDY', true),
           pg_catalog.set_config('TimeZone', 'UTC', true),
           pg_catalog.set_config('IntervalStyle', 'postgres', true),
           pg_catalog.set_config('standard_conforming_strings', 'on', true),
           pg_catalog.set_config('quote_all_identifiers', 'off', true),
           pg_catalog.set_config('array_nulls', 'on', true),
           pg_catalog.set_config('bytea_output', 'hex', true),
           pg_catalog.set_config('extra_float_digits', '3', true),
           pg_catalog.set_config('row_security', 'on', true),
           pg_catalog.set_config('search_path', (
               SELECT coalesce(pg_catalog.string_agg(pg_catalog.quote_ident(name), ', ' ORDER BY nr), '')
               FROM pg_catalog.unnest(pg_catalog.current_schemas(false)) WITH ORDINALITY AS path (name, nr)
               WHERE name <> 'pg_catalog'), true)
"""
# We decide how long we wait, not the settings of the role, the database or the server. 0: no limit.
# synchronous_commit off would let a crash of the server lose rows that are no longer in the log. default_with_oids on,
# before PostgreSQL 12, would make tables that cannot be partitions.
# The server notices within a minute that this machine is gone, and ends the session: otherwise its locks stay.
BEGIN_SETTINGS = (
    READ_SETTINGS
    + """,
           set_config('lock_timeout', %s, true),
           set_config('statement_timeout', '0', true),
           set_config('idle_in_transaction_session_timeout', '10min', true),
           set_config('synchronous_commit',
                      CASE current_setting('synchronous_commit')
                          WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true),
           set_config('tcp_keepalives_idle', '20', true),
           set_config('tcp_keepalives_interval', '10', true),
           set_config('tcp_keepalives_count', '3', true),
           set_config('default_with_oids', 'off', true)
"""
)
# English messages can be looked up. Before PostgreSQL 15 only a superuser may set this.
MESSAGES = ", CASE WHEN current_setting('is_superuser') = 'on' THEN set_config('lc_messages', 'C', true) END"
MESSAGES_IF_GRANTED = """,
           CASE WHEN has_parameter_privilege('lc_messages', 'SET') THEN set_config('lc_messages', 'C', true) END
"""
# As a replica, a session checks no foreign keys: a name could be removed that a row is about to use.
REPLICA = "current_setting('session_replication_role') = 'replica'"
ORIGIN = f""",
           CASE WHEN {REPLICA} AND current_setting('is_superuser') = 'on'
                THEN set_config('session_replication_role', 'origin', true) END
"""
ORIGIN_IF_GRANTED = f""",
           CASE WHEN {REPLICA} AND has_parameter_privilege('session_replication_role', 'SET')
                THEN set_config('session_replication_role', 'origin', true) END
"""
TCP_USER_TIMEOUT = ", set_config('tcp_user_timeout', '60000', true)"
# This one must outlive the transaction, because a session is idle between two.
IDLE_SESSION_TIMEOUT = ", set_config('idle_session_timeout', '0', false)"
TRANSACTION_TIMEOUT = ", set_config('transaction_timeout', '0', true)"
# A shared lock, for which nobody waits: it marks the session as one of this node.
MARK = ", pg_advisory_xact_lock_shared(%s)"
BY_INDEX = ", set_config('enable_seqscan', 'off', true)"
LOCK = "pg_advisory_xact_lock(%s)"


@functools.cache
def _begin_settings(server: Capabilities, by_index: bool, marked: bool) -> SQL:
    optional = (
        (MESSAGES_IF_GRANTED if server.parameter_privileges else MESSAGES, True),
        (ORIGIN_IF_GRANTED if server.parameter_privileges else ORIGIN, True),
        (TCP_USER_TIMEOUT, server.tcp_user_timeout),
        (IDLE_SESSION_TIMEOUT, server.idle_session_timeout),
        (TRANSACTION_TIMEOUT, server.transaction_timeout),
        (BY_INDEX, by_index),
        (MARK, marked),
    )
    return SQL(BEGIN_SETTINGS + "".join(setting for setting, is_wanted in optional if is_wanted))


def run_mark(node: str) -> str:
    """Return the name of the lock that every transaction of a node's runs shares."""
    return f"run of {node}"


def lock_key(name: str) -> int:
    """Return the 64-bit key of an advisory lock; hashed here because PostgreSQL 10 has no hash of 64 bits."""
    return int.from_bytes(hashlib.sha256(f"xraylog {name}".encode()).digest()[:8], "big", signed=True)


@contextlib.contextmanager
def _explained(keywords: Mapping[str, str]) -> Iterator[None]:
    """Turn errors of psycopg into Unavailable or Unsuitable, here and nowhere else."""
    try:
        yield
    except psycopg.Error as error:
        if is_temporary(error):
            raise Unavailable(message(error, keywords)) from error
        raise Unsuitable(message(error, keywords)) from error


def is_temporary(error: psycopg.Error) -> bool:
    """Return whether the error may be over by the next run. The SQLSTATE decides: OperationalError is too wide."""
    from xraylog.database import logins  # only when something failed

    if error.sqlstate is not None:
        if logins.is_refused_among_servers(str(error)):
            return False
        is_pooler = error.sqlstate.startswith(logins.POOLER_STATES) and logins.is_busy(str(error))
        return error.sqlstate.startswith(logins.TEMPORARY) or is_pooler
    return isinstance(error, psycopg.OperationalError)  # the connection broke: no server left to give a state


def message(error: psycopg.Error, keywords: Mapping[str, str] = NO_KEYWORDS) -> str:
    """Return the server's or libpq's message on one line.

    `keywords`: of a session that could not be opened. libpq prints the value that it does not understand, and that may
    be a password in the wrong key.
    """
    said = error.diag.message_primary or str(error) or type(error).__name__
    if error.sqlstate == NO_MEMORY and error.diag.message_hint:
        said += "\n" + error.diag.message_hint  # the setting, if it is the room for locks that is short
    state = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
    said = "; ".join(line.strip() for line in said.splitlines() if line.strip())
    return without_passwords(said, keywords) + state
