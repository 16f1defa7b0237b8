"""The command that fixes an error, with the paths of this installation; PostgreSQL calls this a HINT.

An error whose text already says what to do gets none.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
from pathlib import Path

import psycopg
from psycopg.sql import Identifier

from xraylog import file_advice, printed, safe_open, safe_path
from xraylog.accesslog import archive, logfile, offline_buffer
from xraylog.config import Config
from xraylog.database import ddl, refusals, schema, session
from xraylog.file_advice import Needs
from xraylog.telemetry import prometheus, stats

SCRIPTS = Path(__file__).resolve().parent.parent
MISNAMED = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
FULL = (errno.ENOSPC, errno.EDQUOT)
MIGRATION = "migrate_logs_to_partitioned.py"


def on(error: Exception, cfg: Config) -> str:
    """Return the command that fixes an error, or that shows how to."""
    if isinstance(error, schema.Migrating):
        return f"to finish it: {command(cfg, script=MIGRATION)}"
    if isinstance(error, schema.Plain):
        trial = command(cfg, "--dry-run", script=MIGRATION)
        return f"to see what a migration does, then repeat it without --dry-run: {trial}"
    if isinstance(error, offline_buffer.Foreign):  # another program may need it where it is
        return f"it stays as it is: name another [parser] offline_file in {cfg.path}"
    if isinstance(error, offline_buffer.Damaged):
        return "its lines stay in it; to continue with a new buffer: " + shlex.join(
            ["mv", "-T", str(cfg.buffer_path), str(offline_buffer.damaged_path(cfg.buffer_path))]
        )
    if isinstance(error, logfile.Unusable):
        if error.printer:
            return f"what to do: {error.printer} | {command(cfg, '--logfile', '-')}"
        return _on_file(error.path, error.__cause__, cfg)
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, OSError):
        is_of_stream = cause.filename is None and cause.errno not in (*FULL, errno.EFBIG)
        if isinstance(error, stats.NotWritten) and is_of_stream:
            return f"name a file: [stats] output in {cfg.path}"
        path = cause.filename or ((cfg.stats_path or "/dev/stdout") if isinstance(error, stats.NotWritten) else None)
        return _on_file(Path(path) if isinstance(path, str | Path) else None, cause, cfg)
    if isinstance(error, (stats.NotWritten, prometheus.NotWritten)):
        return ""
    if isinstance(error, (session.Unavailable, session.Unsuitable)):
        return _on_database(error, cfg)
    return f"what to do: {command(cfg, '--check')}"


def on_reading(error: Exception, cfg: Config, less: str) -> str:
    """Return what fixes an error of a script that only reads. `less`: how to ask for a smaller answer."""
    if isinstance(error.__cause__, psycopg.errors.QueryCanceled):
        return f"{less}, or raise [report] statement_timeout in {cfg.path}"
    if isinstance(error.__cause__, psycopg.errors.InsufficientPrivilege):
        user = cfg.connection.get("user")
        role = Identifier(user).as_string(None) if user else "the role that libpq uses"
        return f"what to do, as their owner: GRANT SELECT ON {', '.join(ddl.TABLES)} TO {role}"
    return on(error, cfg)


def not_printed(error: OSError) -> str:
    """Return the message that standard output could not be written, and what fixes it."""
    what = f"{error.filename or printed.STANDARD_OUTPUT}: {error.strerror}; not all was printed"
    if error.filename2 and error.errno in FULL:
        return f"{what}; make room: {shlex.join(['df', '-h', str(Path(error.filename2).parent)])}"
    return f"{what}; print it where there is room"


def holder(error: Exception, cfg: Config) -> str:
    """Return a command that shows who is at work; the message of a lock may name its process."""
    process = re.search(r"process ([0-9]+)", str(error))
    seen = ["ps", "-fp", process[1]] if process else ["fuser", "-v", str(cfg.log_path), str(cfg.buffer_path)]
    return f"what it does: {shlex.join(seen)}"


def joined(*parts: object) -> str:
    """Join the non-empty parts of a message."""
    return "; ".join(filter(None, map(str, parts)))


def _on_file(path: Path | None, error: BaseException | None, cfg: Config) -> str:
    """Return what fixes an error about a file."""
    if isinstance(error, safe_path.Unsafe):  # its text says what to type
        return "why: docs/security.md"
    if isinstance(error, OSError) and error.errno in FULL:
        written = [path] if path else [cfg.buffer_path, cfg.log_path, cfg.stats_path, cfg.metrics_path]
        folders = dict.fromkeys(str(safe_path.without_links(full).parent) for full in written if full)
        return "make room: " + shlex.join(["df", "-h", *folders])
    if path is None and isinstance(error, OSError):
        return file_advice.how_to_fix(cfg.buffer_path, error, Needs.FOLDER)
    if path is None:  # standard input
        return f"what to do: cat LOG | {command(cfg, '--logfile', '-')}"
    key = _key_of(path, cfg)
    if key is None:
        return on_log(path, error, cfg)
    if isinstance(error, OSError):
        is_named = error.errno in MISNAMED and not (path.name.endswith(".lock") and os.path.islink(path))
        change = f"if another one is meant, change {key} in {cfg.path}" if is_named else ""
        return joined(change, file_advice.how_to_fix(path, error, _needs(path, cfg)))
    if path.name.endswith(".lock"):
        return file_advice.what_to_do(file_advice.command("rm", "-r", path))
    return f"name another file, {key} in {cfg.path}; what is there: {shlex.join(['ls', '-ld', str(path)])}"


def to_drain(path: Path, cfg: Config) -> str:
    """Return what allows a run to empty a log that it can only read."""
    if file_advice.is_read_only(path):
        change = file_advice.how_to_fix(path, OSError(errno.EROFS, os.strerror(errno.EROFS)))
    else:
        change = file_advice.attribute(path) or _as_its_user(path, cfg)
    return joined("to leave them there: --keep", change)


def on_log(path: Path, error: BaseException | None, cfg: Config) -> str:
    """Return what fixes a log that cannot be read."""
    real, piped = safe_path.without_links(path), command(cfg, "--logfile", "-")
    if real == Path(os.devnull):
        return f"xray's log goes nowhere: name a file, \"access\" in xray's config and [parser] logfile in {cfg.path}"
    if logfile.leads_to_output(path) or real.is_relative_to("/dev"):
        return f"xray prints its log: journalctl -u xray -o cat | {piped}; in a container: docker logs NAME | {piped}"
    if isinstance(error, PermissionError):
        return file_advice.attribute(path) or _as_its_user(path, cfg)
    if isinstance(error, OSError):
        return file_advice.how_to_fix(path, error)
    if os.path.isdir(real):
        return f"name the file in it, [parser] logfile in {cfg.path}: {shlex.join(['ls', '-la', str(path)])}"
    if safe_open.kind_of(path) == "a pipe":  # named, or one that the shell has made: /dev/stdin, /dev/fd/63
        printer = shlex.join(["cat", str(path)]) if os.path.exists(real) else "COMMAND"
        return f"pipe it in: {printer} | {piped}"
    return f"see: {shlex.join(['ls', '-ld', str(path)])}"


def _as_its_user(path: Path, cfg: Config) -> str:
    """Return the command that runs as the owner of the log, or gives this user the files of its own."""
    folder = file_advice.barred_folder(path)
    owner = safe_open.owner(folder or path)
    if owner is None or owner == os.geteuid():
        return file_advice.what_to_do(file_advice.command("chmod", "u+rwX", folder or path))
    name, runs = safe_path.user_name(owner), command(cfg)
    if owner == safe_path.ROOT and not _is_for_root(cfg.path):
        give = file_advice.command("chown", "-h", name, cfg.path)
        change = f"to run as {name}, whose it is, let it have the config: {give}"
        return joined(change, file_advice.how_to_fix(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES))))
    as_owner = f"runuser -u {name} --" if os.geteuid() == safe_path.ROOT else f"sudo -u {name}"
    return f"run as {name}, whose it is: {as_owner} {runs}"


def _is_for_root(config: Path) -> bool:
    """Return whether root may use this config: root refuses settings that other users can change."""
    try:
        found = os.stat(config)
    except OSError:
        return True
    return found.st_uid == safe_path.ROOT and not found.st_mode & safe_path.OTHERS_MAY_WRITE


def _key_of(path: Path, cfg: Config) -> str | None:
    """Return the key of the config that names this file; None for a log."""
    keys = {
        cfg.stats_path: "[stats] output",
        cfg.metrics_path: "[stats] prometheus",
        cfg.own_log_path: "[logging] file",
    }
    for own, key in keys.items():
        if own is not None and safe_path.without_links(own) == safe_path.without_links(path):
            return key
    is_ours = path.name.endswith(".lock") or path.name == archive.SPOOLED or cfg.describe_own_file(path)
    return "[parser] offline_file" if is_ours else None


def _needs(path: Path, cfg: Config) -> Needs:
    if path in (cfg.stats_path, cfg.own_log_path):
        return Needs.FILE
    return Needs.REPLACED if path == cfg.metrics_path else Needs.FOLDER


def _on_database(error: Exception, cfg: Config) -> str:
    """Return what fixes an error of the database, if its text does not say so."""
    cause = error.__cause__
    if not isinstance(cause, psycopg.Error) or str(error) != session.message(cause, cfg.connection):
        return ""
    if isinstance(cause, psycopg.errors.InsufficientPrivilege):
        return f"which GRANT it needs: {command(cfg, '--check')}"
    if (refusal := refusals.describe(str(error), cfg.connection, cause.sqlstate)) is None:
        from xraylog.database import logins  # only if there is no session

        # psycopg reads some keywords itself, before libpq does.
        if not isinstance(cause, logins.Failed) and type(cause) is not psycopg.ProgrammingError:
            return f"what to do: {command(cfg, '--check')}"
        words = re.findall(r'connection option "(\w+)|bad value for (\w+)|invalid "?(\w+)', str(error))
        key = next((word for found in words for word in found if word in cfg.connection), "")
        return f"change [postgresql]{key and f' {key}'} in {cfg.path}"
    change = f"{refusal.change} in {cfg.path}" if refusal.change else ""
    return joined(refusal.cause, change, refusal.to_do)


def command(cfg: Config, *options: str, script: str = "parse_logs.py") -> str:
    """Return the command line for another run with this config, valid in any folder."""
    return shlex.join([sys.executable, str(SCRIPTS / script), "--config", os.path.abspath(cfg.path), *options])
