"""The page in a real browser: nothing runs, nothing is fetched, and everybody can read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import async_playwright
from support.campaigns import AT
from support.reported import SCRIPT, hostile

from gatekeeper.reports.content import Include, ReportOptions
from gatekeeper.reports.html import html_report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Page

CHROMIUM = Path("/usr/bin/chromium")
HAS_CHROMIUM = CHROMIUM.exists()
PAPER = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    """Open a hostile report with all that can be included; what it does unasked fails the test."""
    if not HAS_CHROMIUM:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    file = tmp_path / "report.html"
    options = ReportOptions(made_at=AT, by=SCRIPT, include=frozenset(Include))
    file.write_text(html_report(hostile(), options), encoding="utf-8")
    did: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox"]
        )
        page = await browser.new_page(viewport={"width": 900, "height": 800})
        page.on("dialog", lambda dialog: did.append(dialog.message))
        page.on("console", lambda said: did.append(said.text))
        page.on("pageerror", lambda error: did.append(str(error)))
        page.on("request", lambda request: did.append(request.url))
        await page.goto(file.as_uri())
        yield page
        await browser.close()
    assert did == [file.as_uri()]


async def test_what_is_hostile_is_text(page: Page) -> None:
    """It stands there to be read; the page has neither scripts nor pictures of others."""
    assert await page.locator("script, img, iframe, link, form").count() == 0
    assert SCRIPT in await page.locator("main").inner_text()


async def test_charts_are_seen_and_told(page: Page) -> None:
    """Each has a size, and a name and a description for who does not see it."""
    charts = page.get_by_role("img")
    assert await charts.count() == 5
    for chart in await charts.all():
        box = await chart.bounding_box()
        assert box is not None
        assert box["width"] > 300
        assert box["height"] > 30
        told = await chart.evaluate(
            "svg => svg.getAttribute('aria-labelledby').split(' ')"
            ".map(id => document.getElementById(id).textContent)"
        )
        assert all(told)
        inside = await chart.evaluate(
            "svg => [...svg.querySelectorAll('rect, path')].every(each => "
            "each.getBBox().x + each.getBBox().width <= svg.viewBox.baseVal.width)"
        )
        assert inside


async def test_it_is_light_dark_and_paper(page: Page) -> None:
    """As the reader has it; printed, ink on white; a phone needs no scrolling to the side."""
    assert await page.evaluate(PAPER) == "rgb(255, 255, 255)"
    await page.emulate_media(color_scheme="dark")
    assert await page.evaluate(PAPER) == "rgb(22, 24, 27)"
    await page.emulate_media(color_scheme="dark", media="print")
    assert await page.evaluate(PAPER) == "rgb(255, 255, 255)"
    assert (await page.pdf()).startswith(b"%PDF")
    await page.emulate_media(media="screen")
    await page.set_viewport_size({"width": 360, "height": 740})
    assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
