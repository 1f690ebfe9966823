"""The sandbox vendor's own side: who may ask it, what its page offers, what it tells."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from support.gates import eventually
from support.vendors import API_KEY, SECRET, press, run_sandbox, seen

from gatekeeper.verification.standard_webhooks import check, key_of
from gatekeeper.verification.vendor import VendorState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.vendors import RunningSandbox

RETURN = "https://gate.example/done"
GOOD = {"case": "case_1", "assurance": "ial1", "return_url": RETURN}


@pytest.fixture
async def sandbox() -> AsyncIterator[RunningSandbox]:
    """Serve a sandbox that never waits between deliveries."""

    async def no_pause(_: float) -> None:
        pass

    running = await run_sandbox(pause=no_pause)
    yield running
    await running.runner.cleanup()


async def asked(
    sandbox: RunningSandbox, method: str, path: str, body: object = None, key: str = API_KEY
) -> tuple[int, Any]:
    """Ask its API."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, sandbox.url + path, data=data, headers=headers) as answer,
    ):
        return answer.status, await answer.json()


async def test_only_who_has_the_key_may_ask(sandbox: RunningSandbox) -> None:
    """Neither begin nor look."""
    for key in ("", "wrong", API_KEY + "x", "é"):
        assert (await asked(sandbox, "POST", "/v1/sessions", GOOD, key))[0] == 401
        assert (await asked(sandbox, "GET", "/v1/sessions/vs_1", None, key))[0] == 401
    assert sandbox.cloud.sessions == {}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[" * 10_000,
        [],
        {},
        {**GOOD, "assurance": "ial9"},
        {**GOOD, "case": ""},
        {**GOOD, "return_url": "javascript:alert(1)"},
        {**GOOD, "return_url": "/relative"},
        {**GOOD, "return_url": 7},
    ],
    ids=str,
)
async def test_what_is_no_session(sandbox: RunningSandbox, body: object) -> None:
    """A wrong question is told, and begins nothing."""
    status, told = await asked(sandbox, "POST", "/v1/sessions", body)
    assert status == 400
    assert "return_url" in told["detail"]


@pytest.mark.parametrize(
    ("result", "state"),
    [
        ("pass", VendorState.APPROVED),
        ("fail", VendorState.DECLINED),
        ("expire", VendorState.LAPSED),
    ],
)
async def test_the_page_ends_a_session_once(
    sandbox: RunningSandbox, result: str, state: VendorState
) -> None:
    """Whoever opens it chooses; afterwards it is over, whatever is pressed."""
    status, told = await asked(sandbox, "POST", "/v1/sessions", GOOD)
    assert status == 201
    assert "No identity is checked" in (await seen(told["url"]))[1]
    assert (await press(told["url"], result="other"))[0] == 400
    assert (await press(told["url"]))[0] == 400
    assert await press(told["url"], result=result) == (303, RETURN)
    assert await press(told["url"], result="pass") == (303, RETURN)
    assert sandbox.cloud.sessions[told["id"]].state is state
    assert (await seen(told["url"]))[0] == 410
    status, after = await asked(sandbox, "GET", f"/v1/sessions/{told['id']}")
    assert (status, after["state"], after["url"]) == (200, state.value, None)


async def test_pages_that_are_not_there(sandbox: RunningSandbox) -> None:
    """A guess leads nowhere."""
    assert (await seen(f"{sandbox.url}/verify/vs_guess"))[0] == 404
    assert (await press(f"{sandbox.url}/verify/vs_guess", result="pass"))[0] == 404
    assert (await seen(f"{sandbox.url}/assets/other"))[0] == 404
    async with aiohttp.ClientSession() as http, http.get(f"{sandbox.url}/assets/page.css") as style:
        assert style.content_type == "text/css"


async def test_webhooks_are_sent_until_they_are_taken(sandbox: RunningSandbox) -> None:
    """The same id and body each time, signed anew; then it stops."""
    seen_ids: list[str | object] = []

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        keys, now_s = [key_of(SECRET)], float(request.headers["webhook-timestamp"])
        seen_ids.append(check(keys, request.headers, body, now_s=now_s, tolerance_s=1))
        return web.Response(status=503 if len(seen_ids) < 3 else 204)

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sandbox.cloud.reports_to(f"http://127.0.0.1:{runner.addresses[0][1]}/hook")
    _, told = await asked(sandbox, "POST", "/v1/sessions", GOOD)
    await press(told["url"], result="pass")

    async def three() -> bool:
        return len(seen_ids) == 3

    await eventually(three)
    assert len(set(seen_ids)) == 1
    assert str(seen_ids[0]).startswith("msg_")
    await runner.cleanup()
    assert not await sandbox.cloud.send(sandbox_delivery(sandbox))


def sandbox_delivery(sandbox: RunningSandbox) -> Any:
    """Return a webhook of the one session there is."""
    sandbox.cloud.held = []
    sandbox.cloud.announce(next(iter(sandbox.cloud.sessions)))
    return sandbox.cloud.held[0]
