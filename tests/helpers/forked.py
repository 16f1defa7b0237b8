"""Run a script in a forked child of the tests, which saves the half second that a new interpreter takes to start.

The child has its own standard streams and no handlers of pytest, but everything that the test has patched.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from loguru import _better_exceptions


def call(script: str, work: Callable[[], int], command: Sequence[str], output: int, errors: int) -> int:
    """Run `work` in a child whose standard output and error are these descriptors; return its exit status.

    If a signal ends the child, the status is negative, as with subprocess. `command` becomes sys.argv.
    """
    return wait(start(script, work, command, output, errors))


def start(script: str, work: Callable[[], int], command: Sequence[str], output: int, errors: int) -> int:
    """Start such a child without waiting for it; return its pid."""
    importlib.import_module(script)  # here, once; each child would import it again
    _let_loguru_look_for_libraries()
    with warnings.catch_warnings():
        # Python 3.12 on: threads of pytest-xdist, which hold no lock that a run needs
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 70
        with contextlib.suppress(BaseException):
            _become_a_process(command, output, errors)
            status = _status_of(work)
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
    return child


def wait(child: int) -> int:
    """Return the exit status of a child."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(
    script: str,
    work: Callable[[], int],
    command: Sequence[str],
    input: str | None = None,  # noqa: A002  # as subprocess calls it
    stdin: IO[Any] | int | None = None,
    cwd: Path | str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `work` in a child; return its status and output. The options are those of subprocess.run."""
    reader, writer = os.pipe() if input is not None else (None, None)

    def work_there() -> int:
        if reader is not None and writer is not None:
            os.dup2(reader, 0)
            os.close(writer)  # or the text would never end
        elif stdin is not None:
            os.dup2(_descriptor(stdin), 0)
        if cwd is not None:
            os.chdir(cwd)
        return work()

    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        child = start(script, work_there, command, output.fileno(), errors.fileno())
        if reader is not None and writer is not None and input is not None:
            os.close(reader)
            with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "wb") as pipe:
                pipe.write(input.encode())
        status = wait(child)
        printed = []
        for file in (output, errors):
            file.seek(0)
            printed.append(file.read().decode())
    return subprocess.CompletedProcess(list(command), status, *printed)


def _descriptor(stdin: IO[Any] | int) -> int:
    if not isinstance(stdin, int):
        return stdin.fileno()
    return os.open(os.devnull, os.O_RDONLY) if stdin == subprocess.DEVNULL else stdin


def is_possible(script: str) -> bool:
    """Return whether this thread is the only one; otherwise a child could inherit a lock that is never released.

    `threading` does not count threads of extensions; those of the chart library matter only for the page.
    """
    threads = len(os.listdir("/proc/self/task")) - ("PYTEST_XDIST_WORKER" in os.environ)
    return not other_threads() and (script != "report_logs" or threads == 1)


def other_threads() -> list[threading.Thread]:
    """Return all other threads, except those of asyncio that wait for the browser's driver, which hold no lock."""
    main = threading.main_thread()
    return [one for one in threading.enumerate() if one is not main and "waitpid-" not in one.name]


@functools.cache
def _let_loguru_look_for_libraries() -> None:
    """Add and remove a handler once here, because the first one of each process takes 10 ms."""
    formatter = _better_exceptions.ExceptionFormatter
    if hasattr(formatter, "_get_lib_dirs"):
        found = formatter._get_lib_dirs()
        formatter._get_lib_dirs = staticmethod(lambda: found)


def _become_a_process(command: Sequence[str], output: int, errors: int) -> None:
    gc.freeze()  # what the tests left unclosed is not the run's to warn about
    os.dup2(output, 1)
    os.dup2(errors, 2)
    encoding = sys.__stdout__.encoding if sys.__stdout__ else "utf-8"
    sys.stdin = os.fdopen(0, encoding=encoding, closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding=encoding, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding=encoding, errors="backslashreplace", closefd=False)
    sys.argv = list(command)
    sys.modules["__main__"] = types.ModuleType("__main__")  # argparse (3.14) would call the program "python -m pytest"
    sys.excepthook, threading.excepthook = sys.__excepthook__, threading.__excepthook__
    sys.unraisablehook = sys.__unraisablehook__
    logging.getLogger().handlers.clear()
    time.tzset()


def _status_of(work: Callable[[], int]) -> int:
    """Return the status with which the interpreter would exit."""
    try:
        return int(work())
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    return 1
