"""Large bodies: read beside the event loop, in small steps, without many copies (H12)."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import threading
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from support.gates import SOON_S, rules_text

from gatekeeper.dialects.estimate import estimate_tokens
from gatekeeper.dialects.media import OPENAI_IMAGE_TOKENS

if TYPE_CHECKING:
    from support.gates import Gates, RunningGate

MB = 1_000_000
IMAGE = base64.b64encode(random.Random(12).randbytes(7 * MB)).decode()
PROSE = "The harbour was quiet when the last boat came in, and nobody could say why. " * 130_000


def chat(content: Any) -> bytes:
    """Return a chat call."""
    body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": content}]}
    return json.dumps(body).encode()


BODIES = {
    "image": chat(
        [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
        ]
    ),
    "prose": chat(PROSE),
    "100,000 tokens": chat(PROSE[:450_000]),
    "packed": zlib.compress(chat(PROSE)),
}


class Gauge:
    """Counts tokens, but not before the test has seen that others are served meanwhile."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.longest = 0
        self.in_time = True
        self._go_on = threading.Event()
        self._loop = asyncio.get_running_loop()

    def go_on(self) -> None:
        """Let the counting thread go on."""
        self._go_on.set()

    def __call__(self, text: bytes) -> int:
        """Count; the loop's own thread never comes here for a large body."""
        if len(text) > 1_000:
            self._loop.call_soon_threadsafe(self.begun.set)
            self.in_time &= self._go_on.wait(SOON_S)
        self.longest = max(self.longest, len(text))
        return estimate_tokens(text)


async def answer_shortly(request: web.Request) -> web.Response | None:
    """Answer large calls at once: the demo endpoint would count their words for seconds."""
    if len(await request.read()) < 1_000:
        return None
    return web.json_response({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})


async def post(gate: RunningGate, body: bytes, **headers: str) -> tuple[int, str]:
    """Send a chat call and return its status and decision."""
    sent = gate.headers(**{"content-type": "application/json", **headers})
    data = io.BytesIO(body)  # bytes would be sent at once, which blocks
    async with gate.http.post("/v1/chat/completions", data=data, headers=sent) as answer:
        await answer.read()
        return answer.status, answer.headers["gatekeeper-decision"]


@pytest.mark.parametrize("kind", BODIES)
async def test_h12_others_are_served_while_a_large_body_is_read(gates: Gates, kind: str) -> None:
    """A stream begins and ends while the reading of a large body stands still."""
    gate = await gates(rules=rules_text())
    gate.upstream.answer = answer_shortly
    gauge = Gauge()
    gate.app.gate._parts.intake._count = gauge
    packed = {"content-encoding": "deflate"} if kind == "packed" else {}
    large = asyncio.create_task(post(gate, BODIES[kind], **packed))
    if kind != "image":  # which has no text to count
        async with asyncio.timeout(SOON_S):
            await gauge.begun.wait()
    stream = await gate.openai().chat.completions.create(
        model="m", stream=True, max_tokens=5, messages=[{"role": "user", "content": "hi"}]
    )
    assert [chunk async for chunk in stream]
    assert kind == "image" or not large.done()
    gauge.go_on()
    assert (await large)[0] == 200
    assert gauge.in_time
    assert gauge.longest < 20_000  # bytes that are counted in one step


async def test_h12_a_large_image_is_held_as_an_image(gates: Gates) -> None:
    """Nine megabytes of base64 reach the upstream as they came, and are held as one image."""
    gate = await gates(rules=rules_text())
    gate.upstream.answer = answer_shortly
    status, decision_id = await post(gate, BODIES["image"])
    assert status == 200
    assert gate.upstream.book[0].body == BODIES["image"]
    held = (await gate.decision(decision_id))["facts"]["call"]["input_tokens"]
    assert OPENAI_IMAGE_TOKENS < held < OPENAI_IMAGE_TOKENS + 60


async def test_h12_dust_is_refused(gates: Gates) -> None:
    """A body of a million tiny parts is refused before a parser takes long over it."""
    gate = await gates(rules=rules_text())
    body = b'{"model":"m","messages":[%b{}]}' % (b"{}," * MB)
    assert (await post(gate, body))[0] == 400
    assert gate.upstream.book == []
