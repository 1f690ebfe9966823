"""The reader shows the whole document in a real browser, with nothing from elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import async_playwright

from gatekeeper.management.operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Page
    from support.admin import Admins

CHROMIUM = Path("/usr/bin/chromium")
HAS_CHROMIUM = CHROMIUM.exists()


@pytest.fixture
async def page(admins: Admins) -> AsyncIterator[Page]:
    """Return a page of a real browser; what goes wrong in it fails the test."""
    if not HAS_CHROMIUM:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    wrong: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox"]
        )
        page = await browser.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("requestfailed", lambda request: wrong.append(request.url))
        await page.goto(f"{admins.url}/")
        await page.wait_for_selector("#schemas:not([hidden])")
        yield page
        await browser.close()
    assert not wrong


async def test_it_shows_every_operation(page: Page) -> None:
    """Each has its place, its role and an example, under a heading of its group."""
    shown = await page.locator("#operations article").evaluate_all("all => all.map(a => a.id)")
    assert sorted(shown) == sorted(each.id for each in OPERATIONS)
    for operation in OPERATIONS:
        place = page.locator(f"#{operation.id}")
        assert (await place.locator(".path").text_content()) == operation.path
        assert operation.role.value in (await place.locator(".role").text_content() or "")


async def test_links_open_and_find_narrows(page: Page) -> None:
    """A link of the contents opens its operation; the search leaves what fits, by keyboard too."""
    await page.get_by_role("link", name="Ban an account").click()
    await page.wait_for_selector("#banAccount details[open]")
    example = await page.locator("#banAccount pre").text_content() or ""
    assert example.startswith("curl -X POST")
    sent = re.search(r"-d '(.*)'", example)
    assert sent is not None
    assert set(json.loads(sent[1])) == {"reason"}
    await page.locator("body").press("/")
    await page.keyboard.type("rules activate")
    visible = page.locator("#operations article:visible")
    assert await visible.evaluate_all("all => all.map(a => a.id)") == ["activateRules"]
    await page.get_by_label("Find").fill("no such words")
    assert await page.get_by_role("status").text_content() == "No operation fits."


async def test_it_can_be_read_by_everybody(page: Page) -> None:
    """A language, one first heading, a labelled field, a way past the contents; fits a phone."""
    assert await page.locator("html").get_attribute("lang") == "en"
    assert await page.locator("h1").count() == 1
    assert await page.get_by_label("Find").count() == 1
    await page.keyboard.press("Tab")
    assert await page.locator(":focus").text_content() == "Skip to the operations"
    await page.set_viewport_size({"width": 360, "height": 740})
    await page.locator("#searchAccounts summary").click()
    wide = await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert wide


async def test_it_runs_nothing_of_others(admins: Admins) -> None:
    """Its policy allows its own three files and the document, and no form."""
    told = await admins.get("/", key=None)
    policy = told.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert set(re.findall(rb'(?:src|href)="([^"#]+)"', told.body)) == {
        b"/reader.css",
        b"/reader.js",
        b"/v1/openapi.json",
    }
    script = (await admins.get("/reader.js", key=None)).body
    assert b"innerHTML" not in script
    assert b"eval(" not in script
