"""Check which files a run may read or write: none of our own files may be another one, or xray's log."""

from __future__ import annotations

import errno
import os
import select
import shlex
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from xraylog import safe_open, safe_path
from xraylog.config import same_file
from xraylog.config.model import Config, ConfigError, is_beside

Key: TypeAlias = "tuple[str, str]"  # section and key


def open_settings(path: Path) -> int:
    """Open config.ini; return its descriptor. For root, the file must belong to root: it decides what root writes.

    A pipe that this process has inherited (/dev/stdin, /dev/fd/63) may be any user's. Raises OSError.
    """
    with safe_path.located(path) as place:
        is_inherited = not place.nofollow
    descriptor = safe_open.open_file(path, os.O_RDONLY | os.O_NONBLOCK)  # do not wait for another user's pipe
    try:
        file = os.fstat(descriptor)
        is_pipe = stat.S_ISFIFO(file.st_mode)
        if os.geteuid() == safe_path.ROOT and (stat.S_ISREG(file.st_mode) or (is_pipe and not is_inherited)):
            _refuse_settings(path, file)
        if is_pipe and not is_inherited:
            _wait_for_writer(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _wait_for_writer(pipe: int) -> None:
    """Wait until another program has opened a named pipe for writing, then let reads block.

    The pipe was opened with O_NONBLOCK. Opening it again without would wait forever if the program had written and left
    in between. Linux reports no hangup to a reader that has seen no writer yet: fs/pipe.c, pipe_poll.
    """
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    poll.poll()
    os.set_blocking(pipe, True)


def _refuse_settings(path: Path, file: os.stat_result) -> None:
    """Raise Unsafe for a config that another user than root owns or may write."""
    quoted = shlex.quote(os.path.abspath(path))
    if file.st_uid != safe_path.ROOT:
        name = safe_path.user_name(file.st_uid)
        found = (
            f"settings of {name}, by which {name} would decide what root writes; run as {name}, "
            f"as in: runuser -u {name} -- COMMAND; or: chown root {quoted}"
        )
    elif file.st_mode & safe_path.OTHERS_MAY_WRITE:
        found = f"settings that others may write, and so decide what root writes; read them, and: chmod go-w {quoted}"
    else:
        return
    raise safe_path.Unsafe(path, found)


def refuse_ours(cfg: Config, logs: Sequence[Path]) -> None:
    """Raise ConfigError if one of the logs is one of our own files: a log is emptied after it was read."""
    for path in logs:
        real = real_path("--logfile", path)
        if (found := cfg.describe_own_file(path)) and not is_device(real):
            raise ConfigError([f"--logfile: expected xray's log, found {found}, {path}"])


def refuse_for_output(cfg: Config, path: Path) -> None:
    """Raise ConfigError if no page can be written to `path`: it is not a file, or one of our own files, or the log."""
    real = real_path("--output", path)
    # With os.path, because Path's own methods raise in a folder that this user may not enter.
    is_other = os.path.exists(path) and not os.path.isfile(path)  # `path`, because an inherited pipe has no real path
    found = "a folder" if os.path.isdir(real) else "no regular file" if is_other else ""
    if not found and not os.path.isdir(real.parent):
        found = f"no folder {real.parent}"
    if found:
        raise ConfigError([f"--output: expected a file, or a place for one, found {found}, {path}"])
    if what := "xray's log" if real == real_path("logfile", cfg.log_path) else cfg.describe_own_file(path):
        raise ConfigError([f"--output: expected a file of its own, found {what}, {path}"])


def conflicts(config: Path, files: Mapping[Key, Path], of_libpq: Mapping[Path, str]) -> Iterator[tuple[Key, str]]:
    """Yield each key of the config whose file has another purpose, with what was expected.

    `files`: the file of each key. All paths are without links.
    """
    others = {config: "the config itself", **of_libpq}
    seen = {name: what for path, what in others.items() for name in same_file.names(path)}
    for (section, key), real in files.items():
        for name in same_file.names(real):
            if name in seen and not is_device(real):
                yield (section, key), f"another file than {seen[name]}"
                break
        for name in same_file.names(real):
            seen.setdefault(name, f"[{section}] {key}")
    logs = {key: real for (_, key), real in files.items() if key in ("logfile", "offline_file")}
    locked = {name: key for key, real in logs.items() for name in same_file.names(lock_path(real))}
    for place, real in files.items():
        if lock := next((locked[name] for name in same_file.names(real) if name in locked), ""):
            yield place, f"another file than the lock of [parser] {lock}"
        elif "offline_file" in logs and is_beside(real, logs["offline_file"]):
            yield place, "another file than one beside [parser] offline_file"


def real_path(named_by: str, path: Path) -> Path:
    """Return the path with all links resolved. Raises ConfigError if they lead in a circle.

    Path.resolve is no help: for a circle it raises RuntimeError, and nothing from Python 3.13 on.
    """
    try:
        os.stat(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            found = f"{path}: {error.strerror}; see: {shlex.join(['namei', '-l', str(path)])}"
            raise ConfigError([f"{named_by}: expected the path of a file, found {found}"]) from error
    return safe_path.without_links(path)


def is_device(real: Path) -> bool:
    """Return whether a path without links is in /dev."""
    return real.parts[1:2] == ("dev",)


def lock_path(real: Path) -> Path:
    """Return the lock file of a log or buffer, if its folder is writable: see accesslog/lockfile.py."""
    return Path(f"{real}.lock")
