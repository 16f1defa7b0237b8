"""Take the pictures of the page in examples/, of a month from scripts/month.py, with a server of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import month
from playwright.sync_api import Browser, sync_playwright
from server import Server

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
PICTURES: dict[str, dict[str, Any]] = {
    "report.png": {"viewport": {"width": 1100, "height": 1250}},
    "report-dark.png": {"viewport": {"width": 1100, "height": 900}, "color_scheme": "dark"},
    "report-phone.png": {"viewport": {"width": 390, "height": 844}},
}
OF_NODE = """\
node = {node}
dns_answers = true
"""


def main() -> int:
    """Load the month, write its page, and save pictures of it with Chromium; return the exit status."""
    chromium = shutil.which("chromium")
    if chromium is None:
        print("expected chromium on the PATH, found none: apt-get install chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="xraylog-picture-") as name:
        server = Server(Path(name) / "postgresql")
        server.start()
        try:
            page = write_page(Path(name), server, month.Size())
        finally:
            server.stop("immediate")
        with sync_playwright() as playwright:
            sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's own does not work for root
            browser = playwright.chromium.launch(executable_path=chromium, args=sandbox)
            for picture, options in PICTURES.items():
                take(browser, page, EXAMPLES / picture, options)
            browser.close()
    return 0


def write_page(folder: Path, server: Server, size: month.Size) -> Path:
    """Load the month as the runs of two nodes would, and the networks of its addresses; write its page."""
    end = datetime.now(timezone.utc)
    logs: dict[str, list[str]] = {node: [] for node in month.NODES}
    for node, line in month.lines(end.replace(tzinfo=None), size):
        logs[node].append(line)
    for node, lines in logs.items():
        place = folder / node
        place.mkdir()
        (place / "access.log").write_text("".join(lines))
        (place / "config.ini").write_text(server.config() + OF_NODE.format(node=node))
        run("parse_logs.py", "--config", place / "config.ini", "-q")
    networks, page = folder / "networks.csv", folder / "report.html"
    networks.write_text(month.NETWORKS)
    config = folder / month.NODES[0] / "config.ini"
    run("ask_logs.py", "--config", config, "networks", "load", networks)
    run("report_logs.py", "--config", config, "--days", "30", "--output", page, "-q")
    return page


def run(script: str, *options: str | Path) -> None:
    """Run one of the scripts."""
    subprocess.run([sys.executable, str(ROOT / script), *map(str, options)], check=True)


def take(browser: Browser, page: Path, picture: Path, options: dict[str, Any]) -> None:
    """Save a picture of the page in a window of this size; in the dark one, also of a user."""
    context = browser.new_context(**options)
    opened = context.new_page()
    opened.goto(page.as_uri())
    if "color_scheme" in options:
        opened.locator("#users tbody a").first.click()
    opened.screenshot(path=picture)
    context.close()
    print(f"{picture}: {picture.stat().st_size:,} bytes")


if __name__ == "__main__":
    sys.exit(main())
