"""Check the standard streams, the version of Python and the two packages before anything else is imported.

Each script imports this first. Otherwise an operator gets the traceback of an import, and a closed standard stream may
be confused with a file that a library keeps open. Older versions of Python can read this file, too.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shlex
import sys
import sysconfig
from pathlib import Path
from types import TracebackType

PACKAGES = ("loguru", "psycopg")
MINIMUM = (3, 10)
ROOT = Path(__file__).resolve().parent.parent
OPERATOR = 3  # cli.Exit, which an older Python may not be able to import


def reserve_closed_streams() -> None:
    """Reserve the numbers of closed standard streams; otherwise `/dev/stdout` could be the connection to the database.

    Writing to such a stream fails. Call it before libraries are imported, because some keep a file open: libffi does,
    its own library, when ctypes is imported.
    """
    for number, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):  # the wrong direction, so that use fails
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # gets the lowest free number, which is this one


def missing() -> str:
    """Return what is missing and the command that fixes it; "" if nothing is."""
    if sys.version_info < MINIMUM:
        found, wanted = (".".join(map(str, version)) for version in (sys.version_info[:2], MINIMUM))
        return f"expected Python {wanted} or newer, found {found}, {sys.executable}; {_other_python()}"
    for name in PACKAGES:
        try:
            _import(name)
        except ImportError as error:
            if error.name is not None:
                return f"expected the package {error.name}, found none; {install_command()}"
            found = "; ".join(str(error).splitlines())
            fix = "unset PSYCOPG_IMPL" if "PSYCOPG_IMPL" in os.environ else install_command()
            return f"expected the package {name}, found: {found}; {fix}"
    return ""


def install_command(requirements: str = "requirements.txt", package: str = "xraylog") -> str:
    """Return the command that installs what is missing, in a checkout or as a package.

    On many systems pip may not install into the system's own Python (PEP 668); there, use a virtual environment.
    """
    file = ROOT / requirements
    wanted = ["-r", str(file)] if file.exists() else [package]
    python, install = sys.executable, ["-m", "pip", "install", *wanted]
    if sys.prefix != sys.base_prefix or not Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists():
        return shlex.join([python, *install])
    own = ROOT / ".venv"
    own_python = str(own / "bin/python")
    as_owner = [] if os.access(ROOT, os.W_OK) else ["sudo"]
    make = ""
    if not os.path.exists(own_python):  # also if it is a link into a folder that this user may not enter, like /root
        clear = ["--clear"] if os.path.lexists(own_python) else []
        make = shlex.join([*as_owner, python, "-m", "venv", *clear, str(own)]) + " && "
    return f"run it with {own_python}, after: {make}{shlex.join([*as_owner, own_python, *install])}"


def _other_python() -> str:
    own = ROOT / ".venv" / "bin" / "python"
    return f"run it with {own}" if os.path.exists(own) else "run it with another one: ls /usr/bin/python3.*"


def _import(name: str) -> None:
    """Import a package; loguru without its variables: a wrong value in one of them ends its import."""
    variables = {key: os.environ.pop(key) for key in list(os.environ) if key.startswith("LOGURU_")}
    try:
        importlib.import_module(name)
    finally:
        os.environ.update(variables)


def _without_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in one line that Ctrl-C ended the program before it could begin."""
    if issubclass(kind, KeyboardInterrupt):
        _complain("interrupted")
    else:
        sys.__excepthook__(kind, error, trace)


def _complain(text: str) -> None:
    """Print a line on standard error, unless that is closed."""
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode(errors="backslashreplace"))


sys.excepthook = _without_traceback
reserve_closed_streams()
found = missing()
if found:
    _complain(found)
    sys.exit(OPERATOR)
