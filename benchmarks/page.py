"""Measure when a page shows its first content and when it is ready, in a Chromium that simulates a slow processor.

    python benchmarks/page.py PAGE... [--cpu-throttling 4]

PAGE: files that report_logs.py has written, or others to compare them with. Needs chromium.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

ROUNDS = 5
MOMENTS = """() => [
    performance.getEntriesByName("first-contentful-paint")[0].startTime,
    performance.getEntriesByType("navigation")[0].loadEventEnd,
]"""


def main() -> None:
    """Open each page several times; print the medians."""
    parser = argparse.ArgumentParser(description="Seconds until a page is seen, and until it is ready.")
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--cpu-throttling", type=float, default=4, help="how many times slower (default: 4)")
    options = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("expected chromium on the PATH, found none: apt-get install chromium")
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's own does not work for root
        browser = playwright.chromium.launch(executable_path=chromium, args=sandbox)
        print(f"{browser.version}, a processor {options.cpu_throttling:g} times slower, medians of {ROUNDS}")
        for page in options.pages:
            rounds = [moments(browser, page, options.cpu_throttling) for _ in range(ROUNDS)]
            paint, ready = (statistics.median(each) / 1000 for each in zip(*rounds, strict=True))
            print(f"{page}: {page.stat().st_size:,} bytes, first paint {paint:.2f} s, ready {ready:.2f} s")
        browser.close()


def moments(browser: Browser, path: Path, slower: float) -> tuple[float, float]:
    """Return when a page showed its first content and when it was loaded, in milliseconds."""
    # wait_for_function needs eval, which the page's policy forbids.
    context = browser.new_context(viewport={"width": 1400, "height": 900}, bypass_csp=True)
    page = context.new_page()
    context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slower})
    page.goto(path.resolve().as_uri())
    page.wait_for_function("performance.getEntriesByType('navigation')[0].loadEventEnd > 0")
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
    paint, ready = page.evaluate(MOMENTS)
    context.close()
    return paint, ready


if __name__ == "__main__":
    main()
