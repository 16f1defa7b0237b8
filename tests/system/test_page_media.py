"""The page can be read on paper, enlarged, in the system's own colours, and without scripts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

A4 = 718  # pixels between the margins of Chromium


def test_what_is_printed_is_as_wide_as_the_paper_and_not_dark(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month, viewport={"width": A4, "height": 1000}, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") == A4
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_a_legend_keeps_its_colours_where_the_system_chooses_all_others(
    month: Path, opened: Callable[..., Page]
) -> None:
    page = opened(month, forced_colors="active")
    colours = page.locator("figure[data-chart=traffic] .legend li span").evaluate_all(
        "all => all.map((one) => getComputedStyle(one).backgroundColor)"
    )
    areas = page.locator("figure[data-chart=traffic] .in-local path[fill^='var(--series']").evaluate_all(
        "all => all.map((one) => getComputedStyle(one).fill)"
    )
    assert len({*colours}) == len(colours) > 2
    assert {*colours} == {*areas}


@pytest.mark.parametrize("width", [390, 700, 740, 760, 1400])
def test_a_chart_says_how_far_up_it_goes_even_if_its_axis_is_scrolled_away(
    month: Path, opened: Callable[..., Page], width: int
) -> None:
    """700 pixels are what a window of 1400 has at 200 %."""
    plot = opened(month, viewport={"width": width, "height": 900}).locator(".chart .plot:visible").first
    says = plot.evaluate("plot => getComputedStyle(plot, '::before').content")
    assert plot.evaluate("plot => plot.scrollLeft") == 0 or says.startswith('"up to ')


def test_without_scripts_the_page_has_nothing_that_needs_them(month: Path, opened: Callable[..., Page]) -> None:
    page = opened(month, java_script_enabled=False)
    assert page.locator(".chart svg:visible").count() == 4
    assert page.locator("#top tbody tr:visible").count() > 5
    assert page.locator("noscript p").is_visible()
    assert page.locator("input:visible, details.numbers:visible").count() == 0
    assert page.locator("details:visible").count() == 1  # the numbers of the week are in the page
