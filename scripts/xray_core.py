"""Fetch a real xray-core, for the test of what it writes.

    python scripts/xray_core.py

It comes as a Python package, and is installed into .matrix/ once. Prints the Python that can import it as `xray`.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

from matrix import FOLDER

VERSION = "1.8.26.13"  # of the package: Xray 26.10.10
PLACE = FOLDER / f"xray-core-{VERSION}"
DONE = PLACE / "done"


def fetch() -> Path:
    """Install xray-core if necessary, and return its Python. Raises CalledProcessError if pip fails."""
    python = PLACE / "bin" / "python"
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "xray-core.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not DONE.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(PLACE)], check=True)
            wanted = ["--only-binary", ":all:", "--no-deps", f"xray-core=={VERSION}"]
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--quiet", *wanted], check=True)
            DONE.touch()
    return python


if __name__ == "__main__":
    print(fetch())
