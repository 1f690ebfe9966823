"""A sandbox vendor on a free port, and gates that are set up to use it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import openai
import pytest
from aiohttp import web
from support.gates import rules_text
from support.valkey import free_port

from gatekeeper.sandbox_vendor import Sandbox, SandboxSettings
from gatekeeper.settings import SecretSource, StepUp

if TYPE_CHECKING:
    from support.gates import Gates, RunningGate

API_KEY = "sandbox-api-key"
SECRET = "whsec_c2FuZGJveC13ZWJob29rLXNlY3JldC1vbmUtb2Y="
OLD_SECRET = "the-webhook-secret-of-last-year"
ENVIRON = {"VENDOR_KEY": API_KEY, "WEBHOOK_SECRET": SECRET, "OLD_WEBHOOK_SECRET": OLD_SECRET}
WATCHED: dict[str, dict[str, object]] = {"watched": {"tier": "elevated"}}
WEBHOOK = "/gatekeeper/v1/webhooks/sandbox"


@dataclass
class RunningSandbox:
    """A sandbox vendor that is served."""

    cloud: Sandbox
    url: str
    runner: web.AppRunner

    def step_up(self, **more: Any) -> StepUp:
        """Return settings of a gate that uses it."""
        return StepUp(
            vendor="sandbox",
            vendor_url=self.url,
            vendor_key=SecretSource(env="VENDOR_KEY"),
            webhook_secrets=(SecretSource(env="WEBHOOK_SECRET"),),
            **more,
        )


async def run_sandbox(**settings: Any) -> RunningSandbox:
    """Start a sandbox; the caller stops its runner."""
    cloud = Sandbox(SandboxSettings(API_KEY, (SECRET,), **settings))
    runner = web.AppRunner(cloud.app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    cloud.reached_at(url)
    return RunningSandbox(cloud, url, runner)


async def gate_with(
    gates: Gates, sandbox: RunningSandbox | None, *, step_up: StepUp | None = None, **more: Any
) -> RunningGate:
    """Start a gate whose links can be opened from here; webhooks go to it."""
    port = free_port()
    if step_up is None:
        step_up = StepUp() if sandbox is None else sandbox.step_up()
    options: dict[str, Any] = {
        "rules": rules_text(),
        "accounts": WATCHED,
        "environ": ENVIRON,
        "public_url": f"http://127.0.0.1:{port}",
        **more,
    }
    listener = {"port": port, **options.pop("listener", {})}
    gate = await gates(step_up=step_up, listener=listener, **options)
    if sandbox is not None:
        sandbox.cloud.reports_to(f"{gate.url}{WEBHOOK}")
    return gate


async def refused_link(gate: RunningGate, account: str = "watched") -> str:
    """Be asked to prove an identity; return the link."""
    with pytest.raises(openai.PermissionDeniedError) as raised:
        await gate.openai(account).models.list()
    body: Any = raised.value.body
    return str(body["verification_url"])


async def passes(gate: RunningGate, account: str = "watched") -> bool:
    """Tell whether a call of the account goes through."""
    async with gate.http.get("/v1/models", headers=gate.headers(account)) as answer:
        return answer.status == 200


async def press(url: str, **form: str) -> tuple[int, str]:
    """Send the form of a page as a browser does; return status and where it leads."""
    async with (
        aiohttp.ClientSession() as browser,
        browser.post(url, data=form, allow_redirects=False) as answer,
    ):
        return answer.status, answer.headers.get("location", "")


async def seen(url: str) -> tuple[int, str]:
    """Open a page; return status and the words of it."""
    async with aiohttp.ClientSession() as browser, browser.get(url) as answer:
        return answer.status, re.sub(r"<[^>]+>", " ", await answer.text())


async def opened(gate: RunningGate, account: str = "watched") -> tuple[str, str]:
    """Be refused and press the button of the link; return the link and the vendor's page."""
    link = await refused_link(gate, account)
    status, page = await press(link)
    assert status == 303
    return link, page
