"""Fetch axe-core, which checks the accessibility of web pages, for the tests of the page.

    python scripts/axe.py

It is an npm package, and is installed into .matrix/ once. Prints the path of its script.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from matrix import FOLDER, npm

VERSION = "4.14.1"
PLACE = FOLDER / f"axe-core-{VERSION}"
SCRIPT = PLACE / "package" / "axe.min.js"


def fetch() -> Path:
    """Install axe-core if necessary, and return the path of its script. Raises CalledProcessError if npm fails."""
    if SCRIPT.exists():
        return SCRIPT
    fresh = FOLDER / f"axe-core-{VERSION}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    subprocess.run([npm(), "pack", "--silent", f"axe-core@{VERSION}"], cwd=fresh, check=True, stdout=subprocess.DEVNULL)
    (archive,) = fresh.glob("*.tgz")
    with tarfile.open(archive) as packed:
        packed.extractall(fresh)  # noqa: S202  # a package of the registry, as npm would unpack it
    shutil.rmtree(PLACE, ignore_errors=True)
    fresh.rename(PLACE)
    return SCRIPT


if __name__ == "__main__":
    print(fetch())
    sys.exit()
