"""--check: config, locks, log, server, rights, schema, and how the log will be drained.

Changes nothing, anywhere: what it tries in the database is rolled back, and uses up a few ids.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TypeAlias

import psycopg

from xraylog import hints, safe_open
from xraylog.accesslog import discovery, drain, file_system, installation, lockfile, logfile
from xraylog.commands import ownership, trial
from xraylog.config import Config
from xraylog.database import (
    collation,
    confirmations,
    dead_sessions,
    lock_table,
    partitions,
    schema,
    session,
    table_faults,
)
from xraylog.database.session import Connection
from xraylog.ingest import confirmation
from xraylog.printed import say

Finding: TypeAlias = tuple[str, str, str]  # what was looked at, what was found, what to do ("" if nothing)

RIGHTS = """
    SELECT c.relname, pg_has_role(c.relowner, 'USAGE'),
           has_table_privilege(c.oid, 'SELECT'), has_table_privilege(c.oid, 'INSERT'),
           has_table_privilege(c.oid, 'UPDATE'), has_table_privilege(c.oid, 'DELETE'),
           ARRAY(SELECT d.objid::regclass::text
                 FROM pg_depend d JOIN pg_class s ON s.oid = d.objid
                 WHERE d.refobjid = c.oid AND d.deptype = 'a'
                   AND CASE WHEN s.relkind = 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE') END),
           quote_ident(pg_get_userbyid(c.relowner))
    FROM pg_class c
    WHERE c.relname = ANY(%s) AND pg_table_is_visible(c.oid)
    ORDER BY c.relname
"""
NEEDED = {
    **dict.fromkeys(schema.REFERENCE_TABLES, ("SELECT", "INSERT")),
    "logs": ("INSERT",),
    "log_positions": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "rejected_lines": ("INSERT",),
}
TOO_MANY = "docs/operations.md#too-many-partitions"
MAY_READ_POSITIONS = "SELECT has_table_privilege('log_positions', 'SELECT')"
IN_SCHEMA = """
    SELECT quote_ident(current_schema()), coalesce(has_schema_privilege(current_schema(), 'CREATE'), false),
           quote_ident(current_user)
"""


def report(cfg: Config, logs: Sequence[Path]) -> int:
    """Print one line for each thing looked at; returns how many need the operator."""
    trouble = 0
    for what, found, to_do in findings(cfg, logs):
        trouble += bool(to_do)
        say(f"{'✗' if to_do else '✓'} {what}: {found}" + (f"; {to_do}" if to_do else ""))
    return trouble


def findings(cfg: Config, logs: Sequence[Path]) -> Iterator[Finding]:
    """All that --check looks at, in the order of a run."""
    yield "config", str(cfg.path), "; ".join(cfg.warnings)
    locks = [_lock(path, cfg.buffer_path.parent) for path in (*filter(discovery.is_drained, logs), cfg.buffer_path)]
    yield from locks
    yield from ownership.findings(cfg, logs)
    if cfg.metrics_path is not None and not _may_be_made(cfg.metrics_path):
        yield "metrics", f"{cfg.metrics_path} cannot be replaced", f"let this user write in {cfg.metrics_path.parent}"
    elif cfg.metrics_path is not None:
        yield "metrics", f"{cfg.metrics_path} can be replaced", ""
    for what, output in (("statistics", cfg.stats_path), ("own log", cfg.own_log_path)):
        if output is not None and not (os.access(output, os.W_OK) if os.path.exists(output) else _may_be_made(output)):
            yield what, f"{output} cannot be written", f"let this user write {output}"
        elif output is not None:
            yield what, f"{output} can be written", ""
    for path in logs:
        yield from _log(cfg, path)
    yield from _server(cfg, is_free=not any(to_do for _, _, to_do in locks))


def _lock(path: Path, fallback: Path) -> Finding:
    lock = None
    try:
        lock = lockfile.lock_path(path, fallback)
        holder = lockfile.lock_holder(lock)
    except logfile.Unusable as error:
        if lock is None or isinstance(error.__cause__, safe_open.Unsafe):  # says how to mend it
            return "lock", str(error), "a run now would exit with status 3"
        mend = f"let this user read {lock}" if os.path.lexists(lock) else f"let this user write in {lock.parent}"
        return "lock", str(error), f"a run now would exit with status 3: {mend}"
    if holder:
        return "lock", f"{lock} is held by {holder}", "a run now would exit with status 75"
    if not os.path.exists(lock) and not _may_be_made(lock):
        return "lock", f"{lock} cannot be made", f"let this user write in {lock.parent}"
    return "lock", f"{lock} is free", ""


def _may_be_made(path: Path) -> bool:
    return os.access(path.parent, os.W_OK | os.X_OK)


def _log(cfg: Config, path: Path) -> Iterator[Finding]:
    if not discovery.is_drained(path):
        yield (
            "log",
            f"{path} is {'standard input' if path == discovery.STDIN else 'compressed'}, and stays as it is",
            "",
        )
        return
    try:
        with logfile.opened(path) as log:
            if log is None:
                yield "log", f"{path} does not exist", "check [parser] logfile, or wait for xray's first line"
                return
            yield "log", f"{path} has {log.size} bytes", ""
            if not log.writable:
                yield "draining", "the log may not be written", "its lines would be loaded and stay: run as its owner"
            elif drain.supports_collapse(log):
                yield "draining", f"{file_system.name(path)} can take lines out of the front of an open log", ""
            else:
                mib = cfg.truncate_above >> 20
                yield (
                    "draining",
                    f"{file_system.name(path)} keeps the lines of an open log here; at {mib} MiB it is truncated",
                    "a line written in that very moment is lost: ext4 (with extents) and xfs lose none",
                )
    except logfile.Unusable as error:
        is_refused = isinstance(error.__cause__, safe_open.Unsafe)  # says how to mend it
        to_do = "a run now would exit with status 3" if is_refused else "run as a user who may read it"
        yield "log", str(error), to_do


def _server(cfg: Config, is_free: bool) -> Iterator[Finding]:
    """Yield what was found in the database. `is_free`: no other run is at work, for whose locks a trial would wait."""
    try:
        with session.connect(cfg.connection, answer_timeout_s=cfg.answer_timeout_s) as conn:
            version = conn.info.parameter_status("server_version")
            yield "server", f"PostgreSQL {version}, database {conn.info.dbname}, role {conn.info.user}", ""
            with session.transaction(conn):
                found = schema.inspect(conn)
            is_there = not found.missing and not found.misfits and not found.missing_columns
            if is_there and conn.execute(MAY_READ_POSITIONS).fetchone() == (True,):  # else `_rights` tells
                yield from _confirmed(conn, cfg)
            yield from _dead_sessions(conn, cfg)
            is_ready = is_free
            for finding in itertools.chain(_rights(conn, cfg), _schema(cfg, found), _names(conn), [_partitions(conn)]):
                is_ready = is_ready and not finding[2]
                yield finding
            if is_ready:
                yield _trial(conn, cfg)
    except (session.Unavailable, session.Unsuitable) as error:
        yield "server", str(error), "check [postgresql]"


def _confirmed(conn: Connection, cfg: Config) -> Iterator[Finding]:
    """Return whether the database has what it confirmed; it may have been restored from a backup."""
    try:
        known = installation.read(cfg.buffer_path)
    except OSError as error:
        yield "state", f"{error.filename}: {error.strerror}", "run as the user of the runs"
        return
    there = confirmations.last_confirmation(conn, known.digest, cfg.node)
    if there.number < known.confirmed:
        lacking = confirmation.describe(cfg, known, there.at)
        yield "state", lacking, "load archives of that time, if there are any; the next run goes on"
    elif known.confirmed and confirmation.is_copied(known, there):
        yield "state", confirmation.describe_copy(cfg, known), confirmation.advise_copy(cfg)
    elif known.older_at:
        since, until = (confirmation.moment(at) for at in (known.older_from, known.older_to))
        yield "state", f"all lines are there that were stored since; those of {since} to {until} are missing", ""
    elif known.confirmed:
        yield "state", f"the database has all that it confirmed, until {confirmation.moment(known.confirmed_at)}", ""


def _dead_sessions(conn: Connection, cfg: Config) -> Iterator[Finding]:
    for dead in dead_sessions.find(conn, cfg.node, cfg.answer_timeout_s):
        remedy = "the next run ends it" if dead.is_own else f"end it: SELECT pg_terminate_backend({dead.pid})"
        remedy += f"; if it stays, it is frozen: kill -CONT {dead.pid} on the server's machine"
        yield "session", f"{dead}, keeps the locks of node {cfg.node}", remedy


def _rights(conn: Connection, cfg: Config) -> Iterator[Finding]:
    trouble, to_make_days = [], []
    ((place, may_create, role),) = conn.execute(IN_SCHEMA)
    found = conn.execute(RIGHTS, [list(schema.TABLES)]).fetchall()
    for name, owner, *granted, sequences, owner_name in found:
        has = dict(zip(("SELECT", "INSERT", "UPDATE", "DELETE"), granted, strict=True))
        needed = {*NEEDED[name], *(("SELECT", "DELETE") if name == "rejected_lines" and cfg.keep_days else ())}
        lacking = [right for right in has if right in needed and not has[right]]
        if lacking:
            trouble.append(f"GRANT {', '.join(lacking)} ON {name} TO {role}")
        trouble += [f"GRANT USAGE ON SEQUENCE {sequence} TO {role}" for sequence in sequences]
        if name == "logs" and not owner:
            to_make_days.append(f"only the owner of logs can make partitions: GRANT {owner_name} TO {role}")
    if place is None:
        trouble.append("no schema of the search_path is there and may be used: create one, or GRANT USAGE on it")
    elif not may_create:  # each new day is a new table
        to_make_days.append(f"GRANT CREATE ON SCHEMA {place} TO {role}")
    enough = "enough for a run"
    if to_make_days and len(found) == len(schema.TABLES) and _days_are_made(conn):
        enough += "; partitions are made by another role, and today's and tomorrow's are there"
    else:
        trouble += to_make_days
    yield "rights", "not enough for a run" if trouble else enough, "; ".join(trouble)


def _days_are_made(conn: Connection) -> bool:
    """Return whether a role that may only insert finds the partitions that it needs next."""
    today = datetime.now(timezone.utc).date()
    return not partitions.Partitions(conn).missing(str(today + timedelta(days=step)) for step in (0, 1))


def _names(conn: Connection) -> Iterator[Finding]:
    """Yield what would give names the wrong id, or none."""
    for reason in (*table_faults.used_up(conn), *table_faults.repeating(conn)):
        yield "ids", "not enough for a run", reason
    if (changed := collation.changed(conn)) is not None:
        yield "collation", changed.found, changed.to_do


def _trial(conn: Connection, cfg: Config) -> Finding:
    """Return whether a line can be stored. A role that makes no partitions needs one of today."""
    try:
        try:
            trial.run(conn, cfg, makes_days=True)
        except psycopg.errors.InsufficientPrivilege:
            if not _days_are_made(conn):
                raise
            trial.run(conn, cfg, makes_days=False)
    except (session.Unavailable, session.Unsuitable) as reason:
        return "trial", str(reason), "until then lines wait in the buffer"
    except psycopg.Error as error:
        temporary = session.is_temporary(error)
        to_do = "a run now would go offline" if temporary else f"let {conn.info.user} do this, or drop what refuses it"
        return "trial", f"a line cannot be stored: {session.message(error)}", to_do
    return "trial", "a line was stored as a run stores it, and undone", ""


def _partitions(conn: Connection) -> Finding:
    table, (count, locks) = lock_table.LockTable.of(conn), lock_table.taken(conn)
    if shortage := table.shortage(count, locks):
        return "partitions", f"{count}, and {shortage}", f"or drop those that nobody needs: {TOO_MANY}"
    return "partitions", f"{count}; a query over all takes {locks} of the server's {table.room} locks", ""


def _schema(cfg: Config, found: schema.Findings) -> Iterator[Finding]:
    trouble = [*found.misfits, *found.warnings]
    if found.migrating:
        yield "schema", schema.MIGRATING, f"finish it: {hints.command(cfg, script=hints.MIGRATION)}"
    elif trouble:
        yield "schema", "does not fit in every place", "; ".join(trouble)
    elif found.complete:
        yield "schema", "complete", ""
    else:
        missing = [*found.missing, *(f"{table}.{name}" for table, name in found.missing_columns)]
        changes = [f"logs.{name} will lose its NOT NULL" for name in found.to_relax]
        made = [f"{', '.join(missing)} will be made by the first run"] if missing else []
        yield "schema", "; ".join([*made, *changes]), ""
