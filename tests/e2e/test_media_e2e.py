"""Images, audio, files and batches through the gate, by the real SDK."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import openai
import pytest
from aiohttp import web
from support.gates import Clock, rules_text

if TYPE_CHECKING:
    from support.gates import Gates, RunningGate

COST = """
limits:
  - {id: cost, description: C., unit: cost, per: [account], rate: 100000/day}
  - {id: output, description: O., unit: output_tokens, per: [account], rate: 1000000/day}
"""
CALL = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "Hello"}]}
IMAGE_USAGE = {
    "input_tokens": 50,
    "output_tokens": 272,
    "total_tokens": 322,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
}


def batch_file(*models: str) -> bytes:
    """Return a batch's file with a call to each model."""
    lines = [
        {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}
        | {"body": {**CALL, "model": model}}
        for model in models
    ]
    return b"\n".join(json.dumps(line).encode() for line in lines)


class Endpoint:
    """An endpoint that speaks the documented formats."""

    def __init__(self) -> None:
        self.files = {
            "file-1": batch_file("m", "m"),
            "file-2": batch_file("m", "n"),
            "file-3": b"x" * 2_000,
        }

    async def __call__(self, request: web.Request) -> web.StreamResponse | None:
        """Answer, or leave it to the demo endpoint."""
        path = request.path
        if path.startswith("/v1/images/"):
            return web.json_response(
                {"created": 1, "data": [{"b64_json": "QQ=="}], "usage": IMAGE_USAGE}
            )
        if path == "/v1/audio/speech":
            return web.Response(body=b"\x00" * 100, content_type="audio/mpeg")
        if path.startswith("/v1/audio/"):
            usage = {"type": "duration", "seconds": 3}
            return web.json_response({"text": "Hello", "usage": usage})
        if path.endswith("/content"):
            content = self.files.get(path.split("/")[3])
            return web.Response(status=404) if content is None else web.Response(body=content)
        if path == "/v1/batches":
            return web.json_response({"id": "b1", "object": "batch", "status": "validating"})
        return None


async def gate_with_endpoint(gates: Gates, **options: Any) -> RunningGate:
    """Return a gate before the endpoint, with limits."""
    gate = await gates(rules=rules_text(COST), clock=Clock(), **options)
    gate.upstream.answer = Endpoint()
    return gate


async def usage_of(gate: RunningGate, headers: Any) -> dict[str, Any]:
    """Return what a call was charged."""
    outcome = await gate.outcome(headers["gatekeeper-decision"])
    usage: dict[str, Any] = outcome["usage"]
    return usage


async def test_images_are_charged_what_they_report(gates: Gates) -> None:
    """Made and edited; to the token."""
    gate = await gate_with_endpoint(gates)
    images = gate.openai().images.with_raw_response
    made = await images.generate(model="gpt-image-1", prompt="A cat")
    edited = await images.edit(
        model="gpt-image-1", prompt="A hat", image=[("a.png", b"\xff\x00"), ("b.png", b"\xfe")]
    )
    assert gate.upstream.book[-1].body.count(b"image[]") == 2
    for answer in (made, edited):
        usage = await usage_of(gate, answer.headers)
        assert (usage["input_tokens"], usage["output_tokens"]) == (50, 272)
        assert (usage["estimated"], usage["parts"]["image_input_tokens"]) == (False, 40)


async def test_audio_is_charged_by_length_or_as_held(gates: Gates) -> None:
    """A transcript tells its seconds; speech tells nothing."""
    gate = await gate_with_endpoint(gates)
    audio = gate.openai().audio
    heard = await audio.transcriptions.with_raw_response.create(
        model="whisper-1", file=("a.mp3", b"x" * 3_000)
    )
    usage = await usage_of(gate, heard.headers)
    assert (usage["parts"], usage["estimated"]) == ({"audio_s": 3.0}, False)
    spoken = await audio.speech.with_raw_response.create(model="tts-1", voice="alloy", input="Hi!")
    usage = await usage_of(gate, spoken.headers)
    assert (usage["parts"]["characters"], usage["estimated"]) == (3, True)


async def test_h26_a_batch_is_held_before_it_goes_on(gates: Gates) -> None:
    """Its file is read with the caller's own credential; it is charged what its calls may take."""
    gate = await gate_with_endpoint(gates)
    batches = gate.openai().batches.with_raw_response
    made = await batches.create(
        input_file_id="file-1", endpoint="/v1/chat/completions", completion_window="24h"
    )
    looked, sent = gate.upstream.book[-2:]
    assert (looked.method, looked.target) == ("GET", "/v1/files/file-1/content")
    assert (sent.method, sent.target) == ("POST", "/v1/batches")
    usage = await usage_of(gate, made.headers)
    assert (usage["output_tokens"], usage["estimated"]) == (20, True)
    price = usage["input_tokens"] * 100 + 20 * 400
    assert usage["cost_cents"] == pytest.approx(price / 1_000_000 / 2)
    decision = await gate.decision(made.headers["gatekeeper-decision"])
    assert (decision["facts"]["call"]["model"], decision["facts"]["call"]["dialect"]) == (
        "m",
        "openai_batches",
    )


@pytest.mark.parametrize(
    ("file", "status", "said"),
    [
        ("file-2", 400, "another model"),
        ("file-3", 413, "at most 1000 bytes"),
        ("file-4", 400, "cannot be read at the endpoint"),
    ],
)
async def test_h26_a_batch_that_cannot_be_read_goes_nowhere(
    gates: Gates, file: str, status: int, said: str
) -> None:
    """And the caller is told why."""
    gate = await gate_with_endpoint(gates, sizes={"max_batch_file_bytes": 1_000})
    with pytest.raises(openai.APIStatusError, match=said) as raised:
        await gate.openai().batches.create(
            input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h"
        )
    assert raised.value.status_code == status
    assert [received.method for received in gate.upstream.book] == ["GET"]


async def test_a_model_that_is_not_permitted_is_not_batched(gates: Gates) -> None:
    """What an account may not call one by one, it may not call in a batch."""
    gate = await gates(
        rules=rules_text(COST), clock=Clock(), accounts={"acme": {"tier": "restricted"}}
    )
    gate.upstream.answer = Endpoint()
    with pytest.raises(openai.PermissionDeniedError, match="may not use the requested model"):
        await gate.openai().batches.create(
            input_file_id="file-1", endpoint="/v1/chat/completions", completion_window="24h"
        )


async def test_h12_a_file_streams_through_however_large(gates: Gates) -> None:
    """It is larger than any body that is read; its bytes are counted."""
    gate = await gate_with_endpoint(gates, sizes={"max_body_bytes": 1_000})
    content = b"x" * 3_000_000
    made = await gate.openai().files.with_raw_response.create(
        file=("a.jsonl", content), purpose="batch"
    )
    assert content in gate.upstream.book[-1].body
    usage = await usage_of(gate, made.headers)
    assert usage["bytes"] > 3_000_000
    assert usage["output_tokens"] == 0
