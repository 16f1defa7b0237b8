"""Find the logs that a run reads (files, patterns, piped input), and open each according to what it is."""

from __future__ import annotations

import contextlib
import glob
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from xraylog import config, safe_open
from xraylog.accesslog import archive, lockfile, logfile, offline_buffer
from xraylog.accesslog.archive import Archive, Piped
from xraylog.accesslog.logfile import Log, LogFile, Unusable
from xraylog.config import Config
from xraylog.records import Fingerprint

STDIN = Path("-")
MAX_ROTATED = 50  # files that are examined to find a rotated log


def resolve(names: Sequence[str], cfg: Config) -> tuple[list[Path], list[str]]:
    """Return the paths of the logs to read, without `names` the configured one, and the patterns without a match.

    Raises ConfigError if a log is one of our own files, because it would be emptied; and if the configured log is an
    archive, because whoever writes the log could put a few KiB there that take hours to decompress in each run.
    """
    paths, unmatched = named(names, cfg.describe_own_file) if names else ([cfg.log_path], [])
    if not names and not is_live(cfg.log_path):
        raise config.ConfigError(
            [f"[parser] logfile: expected xray's log as text, found an archive, {cfg.log_path}; to load it: --logfile"]
        )
    config.refuse_ours(cfg, paths)
    return paths, unmatched


def lock_paths(paths: Sequence[Path], cfg: Config) -> list[Path]:
    """Return the lock files of the logs that a run changes, and of the buffer.

    A file that has lost its name, such as bash's here-document at /dev/stdin, needs none: no other run can open it.
    """
    guarded = (*(path for path in paths if is_live(path) and _has_name(path)), cfg.buffer_path)
    return [lockfile.lock_path(path, cfg.buffer_path.parent) for path in guarded]


def named(names: Sequence[str], ours: Callable[[Path], object]) -> tuple[list[Path], list[str]]:
    """Return the paths that these names stand for, in order, each file once; and the patterns without a match.

    A pattern stands for the matching files, sorted by name, except those that are `ours`. The name of an existing file
    is never a pattern.
    """
    paths: dict[object, Path] = {}
    unmatched = []
    for name in names:
        found = _matches(name, ours) if _is_pattern(name) else [_absolute(name)]
        for path in found:
            paths.setdefault(_identity(path), path)
        if not found:
            unmatched.append(name)
    return list(paths.values()), unmatched


@contextlib.contextmanager
def opened(paths: Sequence[Path], folder: Path | None, read_only: bool = False) -> Iterator[list[Log]]:
    """Open those of these logs that exist: first archives and piped input, then the logs that will be drained.

    An archive is recognised by the position of the log it is a copy of, which works only until that log is drained.
    `folder`: for piped input; None: the folder for temporary files. Raises Unusable.
    """
    with contextlib.ExitStack() as files:
        logs = [files.enter_context(_opened(path, folder, read_only)) for path in paths]
        yield sorted((log for log in logs if log is not None), key=lambda log: isinstance(log, LogFile))


def refuse_buffers(cfg: Config, logs: Sequence[Log]) -> None:
    """Raise Unusable if one of these logs is an offline buffer, whatever its name: compressed, piped, or a hard link.

    Not for the configured log: a client that can forge lines could write such a beginning into it.
    """
    for log in logs:
        if log.path != cfg.log_path and log.begins_with(offline_buffer.HEADER):
            raise Unusable(
                f"{log.path}: expected xray's log, found an offline buffer, which the installation whose it is imports",
                log.path,
            )


def is_live(path: Path) -> bool:
    """Return whether `path` is a log that a run changes, which needs a lock: not an archive, and not piped input."""
    if path == STDIN:
        return False
    try:
        descriptor = safe_open.open_log(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return True  # it may not exist yet
    try:
        return archive.compression_of(descriptor) is None
    except OSError:
        return True  # not a regular file: refused when it is opened
    finally:
        os.close(descriptor)


def _has_name(path: Path) -> bool:
    try:
        return os.stat(path).st_nlink > 0
    except OSError:
        return True  # it may not exist yet


@contextlib.contextmanager
def copy_of(path: Path, head: Fingerprint, size: int) -> Iterator[Log | None]:
    """Open a file that begins with `head` and has at least `size` bytes: the log at `path`, or a rotated copy of it.

    Rotated names are like access.log.1 or access.log-20260131. Yield None if there is no such file. Read-only.
    """
    rotated = sorted(path.parent.glob(glob.escape(path.name) + "[.-]*"))[:MAX_ROTATED]
    with contextlib.ExitStack() as files:
        for candidate in (path, *rotated) if path != STDIN else ():
            if begins_with(candidate, head):
                log = files.enter_context(_opened(candidate, None, read_only=True))
                if log is not None and (log.max_offset is None or log.max_offset >= size):
                    yield log
                    return
        yield None


def begins_with(path: Path, fingerprint: Fingerprint, excluded: LogFile | None = None) -> bool:
    """Return whether a log at `path`, other than `excluded`, has this fingerprint, so that such a log is a copy."""
    try:
        if path == STDIN or (excluded is not None and os.path.samestat(path.stat(), excluded.stat)):
            return False
        with _opened(path, None, read_only=True) as log:
            return log is not None and log.fingerprint(fingerprint.length) == fingerprint
    except (OSError, Unusable):
        return False


@contextlib.contextmanager
def _opened(path: Path, folder: Path | None, read_only: bool) -> Iterator[Log | None]:
    if path == STDIN:
        if sys.stdin is None:  # its descriptor may be another file's by now
            raise Unusable("-: expected piped input, found standard input closed")
        with archive.spooled(0, folder) as descriptor:
            yield _as_archive_or_log(Piped(path, descriptor), descriptor)
        return
    with logfile.opened(path, read_only) as log:
        yield None if log is None else _as_archive_or_log(log, log.descriptor)


def _as_archive_or_log(log: Log, descriptor: int) -> Log:
    """Return an Archive if the file is compressed, otherwise the log. Raises Unusable if we cannot decompress it."""
    kind = archive.compression_of(descriptor)
    if found := archive.unreadable(kind):
        name, command = found
        wanted = "text, gzip, xz, bzip2 or, from Python 3.14 on, zstd"
        printer = f"{command} {shlex.quote(str(log.path))}"
        raise Unusable(f"{log.path}: expected {wanted}, found {name}", log.path, printer)
    return log if kind is None else Archive(log.path, descriptor)


def _is_pattern(name: str) -> bool:
    return glob.has_magic(name) and not os.path.lexists(name)


def _matches(pattern: str, ours: Callable[[Path], object]) -> list[Path]:
    found = (_absolute(name) for name in sorted(glob.glob(pattern)) if os.path.isfile(name))
    return [path for path in found if not ours(path)]


def _absolute(name: str) -> Path:
    return STDIN if name == str(STDIN) else Path(os.path.abspath(name))


def _identity(path: Path) -> object:
    """Return a key that is equal for two names of one file."""
    try:
        found = path.stat() if path != STDIN else None
    except OSError:
        found = None
    return path if found is None else (found.st_dev, found.st_ino)
