"""The pages of step-up in a real browser: with and without scripts, by keyboard alone.

Needs Debian's Chromium; set ``TEST_SCREENSHOTS`` to a folder to keep pictures.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import async_playwright, expect
from support.vendors import gate_with, passes, refused_link, run_sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page
    from support.gates import Gates
    from support.vendors import RunningSandbox

CHROMIUM = Path("/usr/bin/chromium")
PICTURES = os.environ.get("TEST_SCREENSHOTS")
pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium"
)


@pytest.fixture
async def sandbox() -> AsyncIterator[RunningSandbox]:
    """Serve a sandbox vendor."""
    running = await run_sandbox()
    yield running
    await running.runner.cleanup()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Start Chromium."""
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox"]
        )
        yield started
        await started.close()


async def tab(browser: Browser, **options: Any) -> tuple[Page, list[str]]:
    """Open a tab; return it with a list of what it complains about."""
    context = await browser.new_context(viewport={"width": 900, "height": 640}, **options)
    page = await context.new_page()
    complaints: list[str] = []
    page.on(
        "console",
        lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None,
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page, complaints


async def picture(page: Page, name: str) -> None:
    """Keep a picture in each colour scheme, for somebody to look at."""
    if PICTURES is None:
        return
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        await page.screenshot(path=Path(PICTURES) / f"{name}-{scheme}.png")
    await page.emulate_media(color_scheme="light")


async def fit_for_everybody(page: Page) -> None:
    """Check by hand what a screen reader needs: language, title, landmark, one heading, names."""
    assert await page.get_attribute("html", "lang") == "en"
    assert await page.title() == (await page.locator("h1").inner_text())
    assert await page.locator("main").count() == 1
    assert await page.locator("h1").count() == 1
    for button in await page.get_by_role("button").all():
        assert (await button.inner_text()).strip()
    assert await page.locator("[tabindex], [onclick], img:not([alt])").count() == 0
    # Nothing is wider than the window, even on a small phone or at four times the size.
    await page.set_viewport_size({"width": 320, "height": 640})
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320
    await page.set_viewport_size({"width": 900, "height": 640})


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
@pytest.mark.parametrize("result", ["Pass", "Fail"])
async def test_the_loop_in_a_browser(
    gates: Gates, sandbox: RunningSandbox, browser: Browser, result: str, *, scripts: bool
) -> None:
    """Press the buttons: the page says how it went, and the call goes through or does not."""
    gate = await gate_with(gates, sandbox)
    page, complaints = await tab(browser, java_script_enabled=scripts)
    await page.goto(await refused_link(gate))
    await fit_for_everybody(page) if scripts else None
    await picture(page, "1-invitation")
    await page.get_by_role("button", name="Start verification").click()
    await expect(page.locator("h1")).to_have_text("Show who you are")
    await fit_for_everybody(page) if scripts else None
    await picture(page, "2-vendor")
    await page.get_by_role("button", name=result, exact=True).click()
    verified = result == "Pass"
    wanted = "Your identity is verified" if verified else "Your identity could not be verified"
    await expect(page.locator("h1")).to_have_text(wanted)
    await fit_for_everybody(page) if scripts else None
    await picture(page, "3-verified" if verified else "3-rejected")
    assert await passes(gate) is verified
    assert complaints == []


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
async def test_by_keyboard_alone(
    gates: Gates, sandbox: RunningSandbox, browser: Browser, *, scripts: bool
) -> None:
    """Tab and Enter are enough, and the focus can be seen."""
    gate = await gate_with(gates, sandbox)
    page, _ = await tab(browser, java_script_enabled=scripts)
    await page.goto(await refused_link(gate))
    await page.keyboard.press("Tab")
    focused = page.locator(":focus-visible")
    assert await focused.inner_text() == "Start verification"
    if scripts:
        assert await focused.evaluate("el => getComputedStyle(el).outlineStyle") == "solid"
    await picture(page, "4-focus")
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_have_text("Show who you are")
    for label in ("Pass", "Fail", "Let it expire"):
        await page.keyboard.press("Tab")
        assert await page.locator(":focus-visible").inner_text() == label
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_have_text("The verification has ended")
    await picture(page, "5-expired")
    assert not await passes(gate)


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
async def test_a_page_that_waits_sees_the_decision(
    gates: Gates, browser: Browser, *, scripts: bool
) -> None:
    """Without a vendor an admin decides; the open page tells it without being touched."""
    gate = await gate_with(gates, None)
    page, complaints = await tab(browser, java_script_enabled=scripts)
    await page.goto(await refused_link(gate))
    await picture(page, "6-operator")
    await page.get_by_role("button", name="Ask for verification").click()
    await expect(page.locator("h1")).to_have_text("Waiting for the operator")
    await picture(page, "7-waiting")
    (case,) = await gate.app.verification.desk.page()
    await gate.cli("cases", "approve", case.id, "--reason", "seen in person")
    await expect(page.locator("h1")).to_have_text("Your identity is verified", timeout=15_000)
    assert await passes(gate)
    assert complaints == []
