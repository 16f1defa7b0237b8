"""libpq's file of passwords: why it has none for a login, and what mends it. Nothing of what is in it is shown."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from xraylog import file_advice, safe_open

OTHERS = 0o077  # libpq takes no file that these may open


def to_mend(said: str, options: Mapping[str, str]) -> str:
    """Return what mends it, where libpq had no password and a file is there, or is named; otherwise ""."""
    path = options.get("passfile") or os.path.expanduser("~/.pgpass")
    if "no password supplied" not in said:
        return ""
    try:
        found = os.stat(path)
    except PermissionError as error:
        return _named(path, file_advice.mend(Path(path), error))
    except OSError:
        if path == os.path.expanduser("~/.pgpass"):
            return ""
        make = f"{shlex.join(['install', '-m', '600', '/dev/null', path])}, then add a line to it: {_line(options)}"
        return f"set [postgresql] password, or make the file that passfile names: {make}"
    if not os.path.isfile(path):
        return _named(path, "it is no file: name another one in [postgresql] passfile")
    mend = []
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        mend.append(file_advice.mend(Path(path), PermissionError(errno.EACCES, os.strerror(errno.EACCES))))
    if found.st_mode & OTHERS:
        is_own = found.st_uid in (os.geteuid(), safe_open.ROOT if os.geteuid() == safe_open.ROOT else -1)
        words = ("chmod", "600", path)
        closed = shlex.join(words) if is_own else file_advice.command(*words)
        mend.append(f"others may open it, so libpq does not; {file_advice.do(closed)}")
    return _named(path, "; ".join(mend) or f"no line of it is for this login; add: {_line(options)}")


def _named(path: str, what: str) -> str:
    return f"the password is looked for in {path}: {what}"


def _line(options: Mapping[str, str]) -> str:
    """Return the line that such a file needs, with a word in the place of the password."""
    host = options.get("host") or options.get("hostaddr") or "localhost"
    host = "localhost" if host.startswith(("/", "@")) else host  # of a socket in libpq's own folder
    values = (host, options.get("port") or "5432", options.get("dbname") or "*", options.get("user") or "*")
    return ":".join([*(value.replace("\\", r"\\").replace(":", r"\:") for value in values), "PASSWORD"])
