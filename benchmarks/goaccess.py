"""Compare the page of a generated month with GoAccess's page of the same events: bytes, seconds, findings of axe-core.

    python benchmarks/goaccess.py [--lines 1000000] [--cpu-throttling 4]

GoAccess cannot read xray's log: it gets each row as a request of a web server's log, with the destination as its URL,
and an invented size and browser. Needs chromium, goaccess, and axe-core (python scripts/axe.py).
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import page
import psycopg
from playwright.sync_api import Browser, sync_playwright
from stage import arguments, staged

# isort: split
import axe
import month
import picture

USERS, DOMAINS = 300, 20_000
# A line of Apache's combined format. A column of the text is escaped as in JSON, which GoAccess reads as it is.
REQUESTS = r"""
    COPY (
        SELECT format('%s - %s [%s +0000] "GET http://%s:%s/ HTTP/1.1" %s 512 "-" "Mozilla/5.0"',
                      host(l.source_ip), coalesce(u.email, '-'),
                      to_char(l."timestamp" AT TIME ZONE 'UTC', 'DD/Mon/YYYY:HH24:MI:SS'),
                      coalesce(e.address, 'rejected'), coalesce(l.destination_port, 0),
                      CASE l.action WHEN 'accepted' THEN 200 ELSE 403 END)
        FROM logs l
        LEFT JOIN users u ON u.id = l.user_id
        LEFT JOIN endpoints e ON e.id = l.destination_id
        ORDER BY l."timestamp", l.id
    ) TO STDOUT
"""


def main() -> None:
    """Write both pages and print the measurements of each."""
    parser = arguments(__doc__.partition("\n")[0], 1_000_000)
    parser.add_argument("--cpu-throttling", type=float, default=4, help="how many times slower (default: 4)")
    options = parser.parse_args()
    needed = {name: shutil.which(name) for name in ("chromium", "goaccess")}
    if missing := [name for name, found in needed.items() if found is None]:
        sys.exit(f"expected {' and '.join(missing)} on the PATH, found none: apt-get install {' '.join(missing)}")
    with staged(options.pg_bin) as stage, sync_playwright() as playwright:
        own = picture.write_page(stage.folder, stage.server, month.Size(USERS, DOMAINS, options.lines))
        requests, theirs = stage.folder / "requests.log", stage.folder / "goaccess.html"
        events = write_requests(stage.server.keywords(), requests)
        command = ["goaccess", str(requests), "--log-format=COMBINED", "--no-global-config", "-o", str(theirs)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's own does not work for root
        browser = playwright.chromium.launch(executable_path=needed["chromium"], args=sandbox)
        slower = options.cpu_throttling
        print(f"{events:,} events; {stage.versions}; Chromium {browser.version}, {slower:g} times slower")
        for name, path in (("report_logs.py", own), ("GoAccess", theirs)):
            print(f"{name:15} {measured(browser, path, slower)}")
        browser.close()


def write_requests(keywords: dict[str, Any], path: Path) -> int:
    """Write the events as a web server's log; return how many there are."""
    with psycopg.connect(**keywords) as conn, path.open("wb") as file, conn.cursor().copy(REQUESTS) as copy:
        file.writelines(copy)
    with path.open("rb") as file:
        return sum(1 for _ in file)


def measured(browser: Browser, path: Path, slower: float) -> str:
    """Return bytes, medians of seconds, and the rules of axe-core that a page breaks."""
    rounds = [page.moments(browser, path, slower) for _ in range(page.ROUNDS)]
    paint, ready = (statistics.median(each) / 1000 for each in zip(*rounds, strict=True))
    context = browser.new_context(viewport={"width": 1400, "height": 900}, bypass_csp=True)
    opened = context.new_page()
    opened.goto(path.resolve().as_uri())
    opened.evaluate(axe.fetch().read_text())
    found = opened.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    context.close()
    elements = sum(len(rule["nodes"]) for rule in found)
    return (
        f"{path.stat().st_size:9,} bytes, first paint {paint:.2f} s, ready {ready:.2f} s, axe-core {axe.VERSION}: "
        f"{len(found)} rules broken by {elements} elements"
    )


if __name__ == "__main__":
    main()
