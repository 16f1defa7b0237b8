"""A Chromium for the tests of the page. Nothing is asked of anybody, and nothing is complained about."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import axe
import pytest
from helpers.report_month import FOUND, NOW
from playwright.sync_api import Browser, Page, expect, sync_playwright

from xraylog.report import page as pages
from xraylog.report.run_history import Runs

expect.set_options(timeout=60_000)  # a safety net: how fast the machine is decides nothing


def own(url: str, path: Path) -> bool:
    """Whether it is the page itself, or a table that it saves."""
    return url.partition("#")[0] == path.as_uri() or url.startswith("blob:")


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs chromium; as root, scripts/test installs it")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's own wish; the page is ours
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a file; the page may neither complain nor ask for anything but itself."""
    troubles: list[str] = []
    contexts = []

    def open_(path: Path, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: None if own(request.url, path) else troubles.append(request.url))
        page.on("dialog", lambda dialog: troubles.append(dialog.message))
        page.goto(path.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.fixture(scope="session")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a month."""
    path = tmp_path_factory.mktemp("month") / "report.html"
    path.write_text(pages.render(FOUND, Runs(), NOW, is_masked=False))
    return path


@pytest.fixture(scope="session")
def violations() -> Callable[[Page], list[tuple[str, list[str]]]]:
    """What axe-core finds on a page; .ci/run has fetched it, or fails."""
    try:
        rules = axe.fetch().read_text()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs axe-core, a package of npm: {error}; python scripts/axe.py fetches it")

    def find(page: Page) -> list[tuple[str, list[str]]]:
        page.evaluate(rules)  # not as a script of the page, which its policy would not allow
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [(of["id"], [node["html"][:150] for node in of["nodes"]]) for of in found["violations"]]

    return find
