"""Fetch axe-core, which finds what keeps people with a disability from using a page. For the tests of the page only.

    python scripts/axe.py

It is a package of npm, and comes into .matrix/, once. Prints where its script is.
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
    """Return the path of the script. Raises CalledProcessError where npm cannot fetch it."""
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
