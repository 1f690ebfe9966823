"""The sandbox as the gate sees it: over HTTP, with answers that may be anything."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from support.vendors import API_KEY, SECRET, run_sandbox

from gatekeeper.policy.words import Assurance
from gatekeeper.verification.sandbox import SandboxVendor
from gatekeeper.verification.standard_webhooks import key_of, sign
from gatekeeper.verification.vendor import (
    StartRequest,
    VendorError,
    VendorEvent,
    VendorSession,
    VendorState,
    WebhookRefusal,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

NOW = 1_790_000_000.0
RETURN = "https://gate.example/gatekeeper/v1/checks/case_1"
REQUEST = StartRequest("case_1", 1, Assurance.IAL2, RETURN)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Open a client."""
    async with aiohttp.ClientSession() as session:
        yield session


def vendor(http: aiohttp.ClientSession, url: str, **more: Any) -> SandboxVendor:
    """Return a vendor that is asked at ``url``."""
    options: dict[str, Any] = {
        "url": url,
        "page_origin": url,
        "api_key": API_KEY,
        "webhook_keys": [key_of(SECRET)],
        "tolerance_s": 300,
        "timeout_s": 5,
        **more,
    }
    return SandboxVendor(http, **options)


async def test_a_session_from_start_to_end(http: aiohttp.ClientSession) -> None:
    """Begun once however often it is asked for, then as its page says."""
    sandbox = await run_sandbox()
    asked = vendor(http, sandbox.url)
    begun, again = await asyncio.gather(asked.start(REQUEST), asked.start(REQUEST))
    assert begun == again
    assert begun.state is VendorState.WAITING
    assert begun.assurance is Assurance.IAL2
    assert begun.url == f"{sandbox.url}/verify/{begun.reference}"
    assert await asked.fetch(begun.reference) == begun
    other = await asked.start(StartRequest("case_1", 2, Assurance.IAL1, RETURN))
    assert other.reference != begun.reference
    sandbox.cloud.decide(begun.reference, "fail")
    assert await asked.fetch(begun.reference) == VendorSession(
        begun.reference, VendorState.DECLINED, Assurance.IAL2, None, "document_unreadable"
    )
    assert await asked.fetch("vs_no/../such") is None
    await sandbox.runner.cleanup()


async def test_a_wrong_key_is_told_without_the_key(http: aiohttp.ClientSession) -> None:
    """The vendor refuses, and the error names a status and nothing secret."""
    sandbox = await run_sandbox()
    asked = vendor(http, sandbox.url, api_key="wrong-key")
    with pytest.raises(VendorError, match="status 401") as raised:
        await asked.start(REQUEST)
    assert "wrong-key" not in str(raised.value)
    await sandbox.runner.cleanup()


GOOD = {"id": "vs_1", "state": "waiting", "assurance": "ial1", "url": None, "reason": ""}


def answering(text: str, status: int = 200) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a handler that always says the same."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(text=text, status=status, content_type="application/json")

    return handler


@pytest.mark.parametrize(
    ("text", "status", "problem"),
    [
        ("{", 200, "could not be read"),
        ("[]", 200, "could not be read"),
        (json.dumps({**GOOD, "state": "approved!"}), 200, "could not be read"),
        (json.dumps({**GOOD, "assurance": "ial9"}), 200, "could not be read"),
        (json.dumps({**GOOD, "id": "a b"}), 200, "could not be read"),
        (json.dumps({**GOOD, "id": "x" * 300}), 200, "could not be read"),
        (json.dumps({**GOOD, "id": "v\n"}), 200, "could not be read"),
        (json.dumps({**GOOD, "url": "https://evil.example/x"}), 200, "outside of its own origin"),
        (json.dumps({**GOOD, "url": "javascript:alert(1)"}), 200, "could not be read"),
        (json.dumps({**GOOD, "url": "/relative"}), 200, "could not be read"),
        (json.dumps({**GOOD, "reason": "x" * 70_000}), 200, "too long"),
        (json.dumps(GOOD), 302, "status 302"),
        (json.dumps(GOOD), 500, "status 500"),
        ("[" * 50_000, 200, "could not be read"),
    ],
)
async def test_nonsense_is_an_error(
    http: aiohttp.ClientSession, text: str, status: int, problem: str
) -> None:
    """An answer that is not exactly what was agreed grants nothing."""
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answering(text, status))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    asked = vendor(http, f"http://127.0.0.1:{runner.addresses[0][1]}")
    with pytest.raises(VendorError, match=problem):
        await asked.fetch("vs_1")
    with pytest.raises(VendorError, match=problem):
        await asked.start(REQUEST)
    await runner.cleanup()


async def test_silence_is_an_error(http: aiohttp.ClientSession) -> None:
    """A vendor that hangs, or is not there, is given up in time."""
    hung = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await hung.wait()
        return web.Response()

    app = web.Application()
    app.router.add_get("/v1/sessions/{id}", hang)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    with pytest.raises(VendorError, match="TimeoutError"):
        await vendor(http, url, timeout_s=0.05).fetch("vs_1")
    with pytest.raises(VendorError, match="knows no sessions"):
        await vendor(http, url).start(REQUEST)
    hung.set()
    await runner.cleanup()
    with pytest.raises(VendorError, match="did not answer"):
        await vendor(http, url).fetch("vs_1")


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b'{"data": {"id": "vs_1", "state": "approved"}, "more": 1}', VendorEvent("msg", "vs_1")),
        (b'{"data": {"id": "vs 1"}}', WebhookRefusal.MALFORMED),
        (b'{"data": {"id": "vs\\u00001"}}', WebhookRefusal.MALFORMED),
        (b'{"data": {}}', WebhookRefusal.MALFORMED),
        (b"[1]", WebhookRefusal.MALFORMED),
        (b"\xff", WebhookRefusal.MALFORMED),
        (b"[" * 60_000, WebhookRefusal.MALFORMED),
    ],
)
async def test_h39_a_webhook_names_a_session_and_nothing_else_is_read(
    http: aiohttp.ClientSession, body: bytes, outcome: object
) -> None:
    """Signed nonsense is malformed; unsigned, nothing of it is parsed."""
    asked = vendor(http, "http://127.0.0.1:1")
    headers = sign([key_of(SECRET)], "msg", int(NOW), body)
    assert asked.read_webhook(headers, body, NOW) == outcome
    assert asked.read_webhook({**headers, "webhook-signature": "v1,no"}, body, NOW) == (
        WebhookRefusal.FORGED
    )
