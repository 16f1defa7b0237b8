"""Which logs a run reads: files, patterns, and what is piped in; each opened as what it is."""

from __future__ import annotations

import contextlib
import glob
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from xraylog import config, safe_open
from xraylog.accesslog import archive, lockfile, logfile
from xraylog.accesslog.archive import Archive, Piped
from xraylog.accesslog.logfile import Log, LogFile, Unusable
from xraylog.config import Config
from xraylog.records import Fingerprint

STDIN = Path("-")
MAX_ROTATED = 50  # names that are looked at, of a log that is missing


def resolve(names: Sequence[str], cfg: Config) -> tuple[list[Path], list[str]]:
    """Return the paths of the logs to read, the configured one without `names`, and the patterns that match nothing.

    Raises ConfigError if one of them is our own file: it would be emptied. And if the configured one is an archive:
    whoever writes the log could put a few KiB there that take hours to decompress, in each run.
    """
    paths, unmatched = named(names, cfg.is_ours) if names else ([cfg.log_path], [])
    if not names and not is_live(cfg.log_path):
        raise config.ConfigError(
            [f"[parser] logfile: expected xray's log as text, found an archive, {cfg.log_path}; to load it: --logfile"]
        )
    config.refuse_ours(cfg, paths)
    return paths, unmatched


def lock_paths(paths: Sequence[Path], cfg: Config) -> list[Path]:
    """Return the lock files of the logs that a run changes, and that of the buffer."""
    guarded = (*filter(is_live, paths), cfg.buffer_path)
    return [lockfile.lock_path(path, cfg.buffer_path.parent) for path in guarded]


def named(names: Sequence[str], ours: Callable[[Path], object]) -> tuple[list[Path], list[str]]:
    """Return the paths that were meant, in their order, each file once; and the patterns that no file fits.

    A pattern stands for the files that it matches, sorted by name, except those that are `ours`. A name that is a
    file's is no pattern.
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
    """Open the logs at these paths that exist: those that stay as they are, then those that are drained.

    A compressed copy is recognised by its original's position, and only until the original is drained. `folder`: where
    piped input is kept; None: where temporary files are. Raises Unusable.
    """
    with contextlib.ExitStack() as files:
        logs = [files.enter_context(_opened(path, folder, read_only)) for path in paths]
        yield sorted((log for log in logs if log is not None), key=lambda log: isinstance(log, LogFile))


def is_live(path: Path) -> bool:
    """Return whether a run changes what is there: then it needs a lock."""
    if path == STDIN:
        return False
    try:
        descriptor = safe_open.open_log(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return True  # or it is not there yet
    try:
        return archive.compression_of(descriptor) is None
    except OSError:
        return True  # no regular file: to be refused when it is opened
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def copy_of(path: Path, head: Fingerprint, size: int) -> Iterator[Log | None]:
    """Open what begins with `head` and has `size` bytes: the log at `path`, or beside it under a name that rotation
    gives, access.log.1 or access.log-20260131; yield None if there is none. Only to be read.
    """
    beside = sorted(path.parent.glob(glob.escape(path.name) + "[.-]*"))[:MAX_ROTATED]
    with contextlib.ExitStack() as files:
        for candidate in (path, *beside) if path != STDIN else ():
            if begins_with(candidate, head):
                log = files.enter_context(_opened(candidate, None, read_only=True))
                if log is not None and (log.max_offset is None or log.max_offset >= size):
                    yield log
                    return
        yield None


def begins_with(path: Path, fingerprint: Fingerprint, but: LogFile | None = None) -> bool:
    """Return whether the log at `path`, unless it is `but`, begins so: then a log that does, too, is its copy."""
    try:
        if path == STDIN or (but is not None and os.path.samestat(path.stat(), but.stat)):
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
            yield _as_what_it_is(Piped(path, descriptor), descriptor)
        return
    with logfile.opened(path, read_only) as log:
        yield None if log is None else _as_what_it_is(log, log.descriptor)


def _as_what_it_is(log: Log, descriptor: int) -> Log:
    """Return an archive if the bytes are one's. Raises Unusable for one that we cannot read: it is no text."""
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
    """Equal for two names of one file."""
    try:
        found = path.stat() if path != STDIN else None
    except OSError:
        found = None
    return path if found is None else (found.st_dev, found.st_ino)
