"""--check: config, locks, log, server, rights, schema, and how the log will be drained.

Changes nothing: what it tries in the database is rolled back, which only uses up a few ids.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

import psycopg

from xraylog import file_advice, hints, safe_path
from xraylog.accesslog import discovery, drain, file_system, installation, lockfile, log_clock, logfile, offline_buffer
from xraylog.accesslog.masking import Mask
from xraylog.commands import cluster, ownership, rights, server_limits, trial
from xraylog.commands.finding import Finding
from xraylog.config import Config
from xraylog.database import (
    collation,
    confirmations,
    dead_sessions,
    dns_names,
    interference,
    lock_table,
    narrow_columns,
    partitions,
    refusals,
    reject_reason,
    schema,
    sequences,
    session,
    table_faults,
)
from xraylog.database.narrow_columns import NarrowColumn
from xraylog.database.session import Connection
from xraylog.ingest import comparison, confirmation, log_checks
from xraylog.maintenance import expired
from xraylog.printed import say

TOO_MANY = "docs/operations.md#too-many-partitions"
HAS_SCHEMA = "SELECT current_schema() IS NOT NULL"  # otherwise our tables may be in one that is closed to this role
MAY_READ_POSITIONS = "SELECT has_table_privilege('log_positions', 'SELECT') AND has_table_privilege('nodes', 'SELECT')"


def report(cfg: Config, logs: Sequence[Path]) -> int:
    """Print one line for each finding; return how many need the operator."""
    trouble = 0
    for what, found, to_do in findings(cfg, logs):
        trouble += bool(to_do)
        say(f"{'✗' if to_do else '✓'} {what}: {found}" + (f"; {to_do}" if to_do else ""))
    return trouble


def findings(cfg: Config, logs: Sequence[Path]) -> Iterator[Finding]:
    """Yield all findings, in the order in which a run would meet them."""
    yield "config", str(cfg.path), "; ".join(cfg.warnings)
    locks = [_lock(cfg, path) for path in (*filter(discovery.is_live, logs), cfg.buffer_path)]
    yield from locks
    yield from ownership.findings(cfg, logs)
    yield from _buffer(cfg)
    yield from _outputs(cfg)
    for path in logs:
        yield from _log(cfg, path)
    yield from _server(cfg, is_free=not any(to_do for _, _, to_do in locks))


def _buffer(cfg: Config) -> Iterator[Finding]:
    """Yield what prevents a run from using the offline buffer."""
    state = installation.state_path(cfg.buffer_path)
    if (error := _obstacle(state)) is not None:
        yield "state", f"{state} cannot be replaced: {error.strerror}", hints.on(error, cfg)
    try:
        with offline_buffer.opened(cfg.buffer_path, Mask(*cfg.mask_source), read_only=True) as buffer:
            for _ in () if buffer.is_empty else buffer.batches(lambda *_: False):
                pass  # damage shows when a batch is read
            if error is None and (missing := log_checks.missing_buffer_bytes(cfg, buffer)):
                yield "buffer", *log_checks.describe_missing_buffer_bytes(cfg, buffer.size, missing)
            error = _obstacle(cfg.buffer_path) if os.path.exists(cfg.buffer_path) else None
        if error is not None:
            yield "buffer", f"{cfg.buffer_path} cannot be written: {error.strerror}", hints.on(error, cfg)
    except (logfile.Unusable, offline_buffer.Damaged) as reason:
        yield "buffer", str(reason), hints.joined("a run now would exit with status 3", hints.on(reason, cfg))


def _outputs(cfg: Config) -> Iterator[Finding]:
    """Yield whether the other files of a run can be written: metrics, statistics, our own log."""
    if cfg.metrics_path is not None:
        error = _obstacle(cfg.metrics_path, is_replaced=True)
        found = f"cannot be replaced: {error.strerror}" if error else "can be replaced"
        yield "metrics", f"{cfg.metrics_path} {found}", hints.on(error, cfg) if error else ""
    for what, output in (("statistics", cfg.stats_path), ("own log", cfg.own_log_path)):
        if output is not None:
            error = _obstacle(output)
            found = f"cannot be written: {error.strerror}" if error else "can be written"
            yield what, f"{output} {found}", hints.on(error, cfg) if error else ""


def _obstacle(path: Path, is_replaced: bool = False, needs_room: bool = True) -> OSError | None:
    """Return the error with which a run would fail to open a file. Opens nothing, because that could create it."""
    number, named, path = 0, path, safe_path.without_links(path)
    if os.path.isdir(path):
        number = errno.EISDIR
    elif file_advice.attribute(path):
        number = errno.EPERM
    elif not is_replaced and os.path.exists(path):
        number = 0 if os.access(path, os.W_OK) else errno.EACCES
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        number = errno.EACCES if os.path.isdir(path.parent) or file_advice.barred_folder(path) else errno.ENOENT
    if number == errno.EACCES and file_advice.is_read_only(path):
        number = errno.EROFS
    elif number == 0 and needs_room and file_system.is_full(path):
        number = errno.ENOSPC
    return OSError(number, os.strerror(number), str(named)) if number else None


def _lock(cfg: Config, path: Path) -> Finding:
    try:
        lock = lockfile.lock_path(path, cfg.buffer_path.parent)
        holder = lockfile.lock_holder(lock)
    except logfile.Unusable as error:
        return "lock", str(error), hints.joined("a run now would exit with status 3", hints.on(error, cfg))
    if holder:
        busy = logfile.Busy(f"{lock} is held by {holder}")
        return "lock", str(busy), hints.joined("a run now would exit with status 75", hints.holder(busy, cfg))
    if not os.path.exists(lock) and (obstacle := _obstacle(lock, needs_room=False)) is not None:
        return "lock", f"{lock} cannot be created: {obstacle.strerror}", hints.on(obstacle, cfg)
    return "lock", f"{lock} is free", ""


def _log(cfg: Config, path: Path) -> Iterator[Finding]:
    if not discovery.is_live(path):
        yield (
            "log",
            f"{path} is {'standard input' if path == discovery.STDIN else 'compressed'}, and stays as it is",
            "",
        )
        return
    try:
        with logfile.opened(path) as log:
            folder = safe_path.without_links(path).parent  # of what a link leads to
            if log is None and not os.path.isdir(folder):
                to_do = f"change [parser] logfile in {cfg.path}; or: {file_advice.make_folder(folder)}"
                yield "log", f"{folder}: expected the folder of an access log, found none", to_do
                return
            if log is None:
                seen = shlex.join(["ls", "-la", str(path.parent)])
                to_do = f"wait for xray's first line, or change [parser] logfile in {cfg.path}; what is there: {seen}"
                yield "log", f"{path} does not exist", to_do
                return
            yield "log", f"{path} has {log.size} bytes", ""
            if (doubt := log_clock.look(log, cfg, datetime.now(timezone.utc))) is not None:
                yield "time", doubt.found, doubt.to_do
            elif log.is_empty or log.is_drained():
                yield from _times_before(cfg, path)
            if not log.writable:
                to_do = hints.joined("its lines would be loaded and stay", hints.to_drain(path, cfg))
                yield "draining", "the log may not be written", to_do
            elif drain.supports_collapse(log):
                yield "draining", f"{file_system.name(path)} can take lines out of the front of an open log", ""
            else:
                mib = cfg.truncate_above >> 20
                yield (
                    "draining",
                    f"{file_system.name(path)} keeps the lines of an open log here; at {mib} MiB it is truncated",
                    "a line written at that very moment is lost: ext4 (with extents) and xfs lose none",
                )
    except logfile.Unusable as error:
        yield "log", str(error), hints.joined("a run now would exit with status 3", hints.on(error, cfg))


def _times_before(cfg: Config, path: Path) -> Iterator[Finding]:
    """Yield what earlier runs found wrong with the times of lines that have left the log."""
    with contextlib.suppress(OSError):  # another finding reports it
        for kind, first in log_checks.known_doubts(cfg, path).items():
            found = f"{path}: since {comparison.moment(first)} its lines were dated {kind}"
            yield "time", found, f"change [parser] timezone in {cfg.path}, or set the clock: see the warning of the run"


def _server(cfg: Config, is_free: bool) -> Iterator[Finding]:
    """Yield the findings in the database. `is_free`: whether no other run holds locks for which a trial would wait."""
    try:
        with session.connect(cfg.connection, answer_timeout_s=cfg.answer_timeout_s) as conn:
            version = conn.info.parameter_status("server_version")
            yield "server", f"PostgreSQL {version}, database {conn.info.dbname}, role {conn.info.user}", ""
            with session.transaction(conn):
                found = schema.inspect(conn)
            is_there = not found.missing and not found.misfits and not found.missing_columns
            if "log_positions" in found.missing and conn.execute(HAS_SCHEMA).fetchone() == (True,):
                yield from _confirmed(None, cfg)
            elif is_there and conn.execute(MAY_READ_POSITIONS).fetchone() == (True,):  # otherwise `rights` reports it
                yield from _confirmed(conn, cfg)
            yield from _dead_sessions(conn, cfg)
            is_ready = is_free
            for finding in itertools.chain(
                cluster.findings(conn) if is_there else [],
                # No rights on another application's tables: `_schema` reports them.
                [] if found.misfits and "logs" not in found.tables else rights.findings(conn, cfg),
                _schema(cfg, found, narrow_columns.find(conn)),
                _foreign_objects(conn),
                _names(conn),
                server_limits.findings(conn),
                _retention(conn, cfg) if is_there else [],
                [_partitions(conn)],
            ):
                is_ready = is_ready and not finding[2]
                yield finding
            if is_ready:
                yield _trial(conn, cfg)
            yield from _dns_names(conn, cfg)
    except (session.Unavailable, session.Unsuitable) as error:
        yield "server", str(error), hints.on(error, cfg) or "a run now would go offline"


def _confirmed(conn: Connection | None, cfg: Config) -> Iterator[Finding]:
    """Yield whether the database has all that it confirmed: it may have been restored, or be another one.

    `conn`: None for a database without our tables.
    """
    try:
        known = installation.read(cfg.buffer_path)
    except OSError as error:
        yield "state", f"{error.filename}: {error.strerror}", hints.on(error, cfg)
        return
    nothing = confirmations.Confirmation(0, 0)
    there = nothing if conn is None else confirmation.last_confirmation(conn, cfg, known)
    if comparison.is_older(known, there):
        lacking = comparison.describe_older(cfg, known, there)
        load = hints.command(cfg, "--keep", "--logfile", "ARCHIVE")
        yield "state", lacking, f"the next run continues; if there are archives of that time, load them: {load}"
    elif comparison.is_copy(cfg, known, there):
        yield "state", comparison.describe_copy(cfg, known), comparison.advise_copy(cfg)
    elif known.older_at:
        since = f"of {comparison.moment(known.older_from)} to" if known.older_from else "until"
        until = comparison.moment(known.older_to)
        yield "state", f"all lines are there that were stored since; those {since} {until} are missing", ""
    elif known.confirmed:
        yield "state", f"the database has all that it confirmed, until {comparison.moment(known.confirmed_at)}", ""


def _dead_sessions(conn: Connection, cfg: Config) -> Iterator[Finding]:
    for dead in dead_sessions.find(conn, cfg.node, cfg.answer_timeout_s):
        remedy = "the next run ends it" if dead.is_own else f"end it: SELECT pg_terminate_backend({dead.pid})"
        remedy += f"; if it stays, it is frozen: kill -CONT {dead.pid} on the server's machine"
        yield "session", f"{dead}, keeps the locks of node {cfg.node}", remedy


def _names(conn: Connection) -> Iterator[Finding]:
    """Yield faults that would give names a wrong id, or none."""
    for reason in (*sequences.used_up(conn), *sequences.repeating(conn)):
        yield "ids", "not enough for a run", reason
    for reason in sequences.nearly_used_up(conn):
        yield "ids", "soon not enough", reason
    of_database = collation.changed(conn)
    for changed in (*([of_database] if of_database else []), *collation.changed_columns(conn)):
        yield "collation", *changed


def _dns_names(conn: Connection, cfg: Config) -> Iterator[Finding]:
    """Yield whether the names of DNS answers can be stored, if [parser] dns_answers is on."""
    if cfg.dns_answers:
        with session.transaction(conn):
            lacking = dns_names.TABLE.lacking(conn)
        found = "cannot be written: names of addresses are left out" if lacking else "can be written"
        yield "dns_names", found, lacking or ""


def _retention(conn: Connection, cfg: Config) -> Iterator[Finding]:
    """Yield what prevents expired days from being dropped."""
    found = expired.tables(conn, cfg.keep_days, datetime.now(timezone.utc)) if cfg.keep_days else []
    if statements := interference.dependents(conn, [table.oid for table in found if table.is_ours]):
        to_do = f"as their owner, or a superuser of PostgreSQL: {'; '.join(statements)}"
        yield "retention", "others use days that are to be dropped", to_do


def _trial(conn: Connection, cfg: Config) -> Finding:
    """Return whether a line can be stored, on a new day and today; only today for a role that creates no partitions."""
    try:
        if rights.may_create_partitions(conn):
            trial.run(conn, cfg, on_new_day=True)
        if rights.partitions_exist(conn, days=1):  # with the triggers that are on its partition
            trial.run(conn, cfg, on_new_day=False)
    except (session.Unavailable, session.Unsuitable) as reason:
        return "trial", str(reason), "until then lines wait in the buffer"
    except trial.Dropped as reason:
        return "trial", str(reason), "until then such rows are lost"
    except trial.Unparsed as reason:
        replay = hints.command(cfg, "--replay-rejected")
        return "trial", str(reason), f"drop what refuses it; until then lines go to rejected_lines; then: {replay}"
    except psycopg.Error as error:
        try:
            if not session.is_temporary(error):  # else the session may be closed
                table_faults.raise_if_at_fault(conn, error)
        except session.Unsuitable as reason:
            return "trial", str(reason), "until then lines wait in the buffer"
        return "trial", f"a line cannot be stored: {session.message(error)}", _way_to_store(conn, error)
    return "trial", "a line was stored as a run stores it, and undone", ""


def _way_to_store(conn: Connection, error: psycopg.Error) -> str:
    """Return what allows a run to store lines, after this error of a trial."""
    known = refusals.describe("", {"user": conn.info.user}, error.sqlstate) or ()
    if session.is_temporary(error):
        to_do = hints.joined("a run now would go offline", *known)
    elif statements := table_faults.to_accept(conn, error):
        to_do = f"as their owner, or a superuser of PostgreSQL: {'; '.join(statements)}"
    elif known:
        to_do = hints.joined(*known)
    else:
        to_do = f"let {conn.info.user} do this, or drop what refuses it"
    return to_do


def _foreign_objects(conn: Connection) -> Iterator[Finding]:
    """Yield policies, triggers and unique indexes on our tables that are not ours, and may refuse rows."""
    if policies := interference.policies(conn):
        statements = "; ".join(dict.fromkeys(policy.statement for policy in policies))
        found = f"row-level security hides or refuses rows of {', '.join(str(policy.table) for policy in policies)}"
        yield "policies", found, f"as a superuser of PostgreSQL: {statements}"
    for trigger in interference.triggers(conn):
        yield "triggers", f"{trigger.table} has one of others; if it refuses or drops rows: {trigger.statement}", ""
    for index in interference.unique_indexes(conn):
        yield "indexes", f"{index.table} has a unique one of others; if it refuses rows: {index.statement}", ""


def _partitions(conn: Connection) -> Finding:
    table, (count, locks) = lock_table.LockTable.of(conn), lock_table.count_locks(conn)
    if shortage := table.shortage(count, locks):
        return "partitions", f"{count}, and {shortage}", f"or drop those that nobody needs: {TOO_MANY}"
    if in_default := partitions.first_to_come_in_default(conn):
        name, first = in_default
        day = first.astimezone(timezone.utc).date()
        found = f"rows of {day} are in {name}, the DEFAULT partition of logs, so that day cannot have one of its own"
        return "partitions", found, "from that day on each run would exit with status 3: move them as Schema.md says"
    return "partitions", f"{count}; a query over all takes {locks} of the server's {table.room} locks", ""


def _schema(cfg: Config, found: schema.Findings, narrow: Iterable[NarrowColumn]) -> Iterator[Finding]:
    trouble = [*found.misfits, *found.warnings, *filter(None, [reject_reason.misfit(found)]), *map(str, narrow)]
    if found.migrating:
        yield "schema", schema.MIGRATING, f"finish it: {hints.command(cfg, script=hints.MIGRATION)}"
    elif trouble:
        yield "schema", "does not fit in every place", "; ".join(trouble)
    elif found.complete and reject_reason.is_there(found):
        yield "schema", "complete", ""
    elif found.complete:
        yield "schema", f"{reject_reason.MISSING}: the next run of a role that owns logs adds it", ""
    else:
        missing = [*found.missing, *(f"{table}.{name}" for table, name in found.missing_columns)]
        changes = [f"logs.{name} will lose its NOT NULL" for name in found.to_relax]
        made = [f"{', '.join(missing)} will be created by the first run"] if missing else []
        yield "schema", "; ".join([*made, *changes]), ""
