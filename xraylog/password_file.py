"""libpq's password file: why it has no password for a login, and how to fix that. Its content is never shown."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from xraylog import file_advice, safe_path

OTHERS = 0o077  # libpq ignores a file to which group or others have any right


def how_to_fix(said: str, options: Mapping[str, str]) -> str:
    """Return how to fix the password file if libpq found no password, and the file exists or is configured; else ""."""
    path = options.get("passfile") or os.path.expanduser("~/.pgpass")
    if "no password supplied" not in said:
        return ""
    try:
        found = os.stat(path)
    except PermissionError as error:
        return _about(path, file_advice.how_to_fix(Path(path), error))
    except OSError:
        if path == os.path.expanduser("~/.pgpass"):
            return ""
        make = f"{shlex.join(['install', '-m', '600', '/dev/null', path])}, then add a line to it: {_line(options)}"
        return f"set [postgresql] password, or make the file that passfile names: {make}"
    if not os.path.isfile(path):
        return _about(path, "it is no file: name another one in [postgresql] passfile")
    fixes = []
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        fixes.append(file_advice.how_to_fix(Path(path), PermissionError(errno.EACCES, os.strerror(errno.EACCES))))
    if found.st_mode & OTHERS:
        is_own = found.st_uid in (os.geteuid(), safe_path.ROOT if os.geteuid() == safe_path.ROOT else -1)
        words = ("chmod", "600", path)
        closed = shlex.join(words) if is_own else file_advice.command(*words)
        fixes.append(f"others may open it, so libpq does not; {file_advice.what_to_do(closed)}")
    return _about(path, "; ".join(fixes) or f"no line of it is for this login; add: {_line(options)}")


def _about(path: str, what: str) -> str:
    return f"the password is looked for in {path}: {what}"


def _line(options: Mapping[str, str]) -> str:
    """Return the line that a password file needs for this login, with a placeholder for the password."""
    host = options.get("host") or options.get("hostaddr") or "localhost"
    host = "localhost" if host.startswith(("/", "@")) else host  # which also stands for libpq's default socket folder
    values = (host, options.get("port") or "5432", options.get("dbname") or "*", options.get("user") or "*")
    return ":".join([*(value.replace("\\", r"\\").replace(":", r"\:") for value in values), "PASSWORD"])
