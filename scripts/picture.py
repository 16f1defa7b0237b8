"""Take examples/report.png, the picture in the README, of the page that scripts/demo has written."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / ".demo" / "report.html"
PICTURE = ROOT / "examples" / "report.png"
SIZE = {"width": 1100, "height": 1620}  # pixels: the health and the whole first chart


def main() -> int:
    """Open the page in Chromium and save what it shows; return the exit status."""
    chromium = shutil.which("chromium")
    if chromium is None:
        print("expected chromium on the PATH, found none: apt-get install chromium", file=sys.stderr)
        return 1
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's own does not work for root
        browser = playwright.chromium.launch(executable_path=chromium, args=sandbox)
        page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]  # a TypedDict there
        page.goto(PAGE.as_uri())
        page.screenshot(path=PICTURE)
        browser.close()
    print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
