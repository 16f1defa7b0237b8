"""What mends a trouble: the command to type, with the paths of this installation."""

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


def on(trouble: Exception, cfg: Config) -> str:
    """The command that mends it, or says what does."""
    if isinstance(trouble, schema.Migrating):
        return f"to finish it: {command(cfg, script=MIGRATION)}"
    if isinstance(trouble, schema.Plain):
        return f"to look, then without --dry-run: {command(cfg, '--dry-run', script=MIGRATION)}"
    if isinstance(trouble, offline_buffer.Foreign):  # somebody may need it where it is
        return f"it stays as it is: name another [parser] offline_file in {cfg.path}"
    if isinstance(trouble, offline_buffer.Damaged):
        return "its lines wait there for you; to go on with a new one: " + shlex.join(
            ["mv", str(cfg.buffer_path), f"{cfg.buffer_path}.damaged"]
        )
    error = trouble if isinstance(trouble, OSError) else trouble.__cause__
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        written = (cfg.buffer_path, cfg.log_path, cfg.stats_path, cfg.metrics_path)
        folders = dict.fromkeys(str(path.parent) for path in written if path)
        return "make room: " + shlex.join(["df", "-h", *folders])
    return f"what to do: {command(cfg, '--check')}"


def command(cfg: Config, *options: str, script: str = "parse_logs.py") -> str:
    """What to type for another run with this config, in whatever folder."""
    return shlex.join([sys.executable, str(SCRIPTS / script), "--config", os.path.abspath(cfg.path), *options])
