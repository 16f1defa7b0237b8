"""The command that fixes an error, with the paths of this installation: what PostgreSQL calls a HINT."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from pathlib import Path

from xraylog.accesslog import offline_buffer
from xraylog.config import Config
from xraylog.database import schema

SCRIPTS = Path(__file__).resolve().parent.parent
MIGRATION = "migrate_logs_to_partitioned.py"


def on(error: Exception, cfg: Config) -> str:
    """Return the command that fixes the error, or shows what does."""
    if isinstance(error, schema.Migrating):
        return f"to finish it: {command(cfg, script=MIGRATION)}"
    if isinstance(error, schema.Plain):
        trial = command(cfg, "--dry-run", script=MIGRATION)
        return f"to see what a migration does, then repeat it without --dry-run: {trial}"
    if isinstance(error, offline_buffer.Foreign):  # another program may need it where it is
        return f"it stays as it is: name another [parser] offline_file in {cfg.path}"
    if isinstance(error, offline_buffer.Damaged):
        return "its lines stay in it; to continue with a new buffer: " + shlex.join(
            ["mv", str(cfg.buffer_path), f"{cfg.buffer_path}.damaged"]
        )
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        written = (cfg.buffer_path, cfg.log_path, cfg.stats_path, cfg.metrics_path)
        folders = dict.fromkeys(str(path.parent) for path in written if path)
        return "make room: " + shlex.join(["df", "-h", *folders])
    return f"what to do: {command(cfg, '--check')}"


def command(cfg: Config, *options: str, script: str = "parse_logs.py") -> str:
    """Return what to type for another run with this config, in any folder."""
    return shlex.join([sys.executable, str(SCRIPTS / script), "--config", os.path.abspath(cfg.path), *options])
