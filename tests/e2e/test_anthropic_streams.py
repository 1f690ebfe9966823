"""Recorded Anthropic streams through the gate: no byte changes, and the charge is what they report.

The files are of our own making, in the form of the SDK's. `make conformance` adds those of a
checkout of the SDK, which `ANTHROPIC_SUITE` names.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anthropic
import pytest
from support.wire import SSE_HEAD, Exchange, RawUpstream, request, wired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.gates import Gates

OWN = Path(__file__).parents[1] / "data" / "anthropic_streams"
SUITE = os.environ.get("ANTHROPIC_SUITE")
ASK: Any = {
    "model": "claude-haiku-4-5",
    "max_tokens": 4_000,
    "messages": [{"role": "user", "content": "Say something."}],
}
STREAMED = json.dumps({**ASK, "stream": True}).encode()


def streams() -> dict[str, bytes]:
    """Return every recorded stream by name."""
    found = {path.stem: path.read_bytes() for path in sorted(OWN.glob("*.txt"))}
    found["crlf"] = found["text"].replace(b"\n\n", b"\n: still here\n\n").replace(b"\n", b"\r\n")
    found["no_last_blank_line"] = found["tool_use"].removesuffix(b"\n")
    if SUITE is not None:
        paths = sorted(Path(SUITE).glob("tests/**/fixtures/**/*"))
        theirs = {path.name: path.read_bytes() for path in paths if path.suffix in {".txt", ".sse"}}
        assert theirs, f"{SUITE} holds no recorded streams"
        found |= theirs
    return found


STREAMS = streams()


def pieces_of_one(stream: bytes) -> Iterator[bytes]:
    """Cut behind every byte."""
    return (stream[at : at + 1] for at in range(len(stream)))


def pieces_at_random(seed: int) -> Callable[[bytes], Iterator[bytes]]:
    """Cut at places that a seed picks, within events as well as between them."""

    def cut(stream: bytes) -> Iterator[bytes]:
        chance = random.Random(seed)
        count = chance.randrange(1, 40)
        places = sorted({0, len(stream), *(chance.randrange(len(stream)) for _ in range(count))})
        return (stream[at:to] for at, to in itertools.pairwise(places))

    return cut


CUTS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "whole": lambda stream: iter((stream,)),
    "bytes": pieces_of_one,
    **{f"random{seed}": pieces_at_random(seed) for seed in range(4)},
}


def playing(stream: bytes, cut: Callable[[bytes], Iterator[bytes]]) -> RawUpstream:
    """Return an upstream that sends a stream in chunks of these pieces."""

    async def play(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(SSE_HEAD)
        for piece in cut(stream):
            await exchange.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(0)
        await exchange.send(b"0\r\n\r\n")

    return RawUpstream(play)


def reported(stream: bytes) -> tuple[int, int] | None:
    """Return input and output as the SDK adds them up, the last word wins; ``None`` for no end."""
    counts: dict[str, int] = {}
    ended = False
    for line in stream.splitlines():
        event = json.loads(line.removeprefix(b"data:")) if line.startswith(b"data:") else {}
        if event.get("type") in {"message_start", "message_delta"}:
            counts |= event.get("message", event)["usage"]
            ended = event["type"] == "message_delta"
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return (sum(counts.get(name, 0) for name in names), counts["output_tokens"]) if ended else None


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", STREAMS)
async def test_streams_pass_byte_for_byte(gates: Gates, name: str, cut: str) -> None:
    """Whatever the chunks, the caller gets the upstream's bytes and is charged what they report."""
    stream = STREAMS[name]
    async with wired(gates, playing(stream, CUTS[cut])) as w:
        json_body = "Content-Type: application/json"
        answer = await w.ask(request("POST", "/v1/messages", json_body, body=STREAMED))
        assert answer.body == stream
        outcome = await w.outcome(answer.head)
    usage, wanted = outcome["usage"], reported(stream)
    assert (outcome["ending"], outcome["bytes_sent"]) == ("complete", len(stream))
    assert usage["estimated"] is (wanted is None)
    if wanted is None:
        assert 0 < usage["output_tokens"] < 50
    else:
        assert (usage["input_tokens"], usage["output_tokens"]) == wanted


def plain(model: Any) -> Any:
    """Return a model of the SDK as plain values, of kinds that this SDK does not know as well."""
    return model.model_dump(warnings=False)


async def heard(client: anthropic.AsyncAnthropic, *, beta: bool) -> tuple[list[Any], Any]:
    """Return all that the SDK's helper makes of a stream: its events, and the message or error."""
    events: list[Any] = []
    messages: Any = client.beta.messages if beta else client.messages
    try:
        async with messages.stream(**ASK) as stream:
            async for event in stream:
                events.append(plain(event))  # noqa: PERF401 - what came before an error counts
            return events, plain(await stream.get_final_message())
    except anthropic.APIStatusError as error:
        return events, (type(error), error.message, error.body)


@pytest.mark.parametrize("beta", [False, True])
@pytest.mark.parametrize("name", STREAMS)
async def test_the_sdk_hears_the_same(gates: Gates, name: str, beta: bool) -> None:
    """The SDK's stream helper gives the same events and message (or error) as without the gate."""
    async with wired(gates, playing(STREAMS[name], pieces_at_random(7))) as w:
        async with anthropic.AsyncAnthropic(base_url=w.upstream.url, api_key="sk-x") as client:
            wanted = await heard(client, beta=beta)
        got = await heard(w.gate.anthropic("sk-x"), beta=beta)
    assert got == wanted
    assert len(wanted[0]) > 2
