"""What tests of endings have in common: limits without room for error, and the two laws."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from support.families import GIVEN, WORDS
from support.gates import SOON_S
from support.wire import SSE_HEAD, request, until

if TYPE_CHECKING:
    from support.families import Family
    from support.wire import Caller, Exchange, Wired

LIMITS: Final = """
limits:
  - {id: input, description: I., unit: input_tokens, per: [account], rate: 1000000/month}
  - {id: output, description: O., unit: output_tokens, per: [account], rate: 1000000/month}
  - {id: slots, description: S., unit: concurrency, per: [account], slots: 3, lease: 1 hour}
"""


def ask(family: Family, *, stream: bool, **more: Any) -> bytes:
    """Return a call of a family."""
    fields = ("Content-Type: application/json",)
    return request("POST", family.target, *fields, body=family.request(stream=stream, **more))


def head_of(family: Family, *, stream: bool) -> bytes:
    """Return the head of its answer."""
    if stream:
        return SSE_HEAD
    length = len(family.document)
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % length
    )


async def send_part(exchange: Exchange, data: bytes, *, stream: bool) -> None:
    """Send some of a body, in its framing."""
    if data:
        await exchange.send(b"%x\r\n%b\r\n" % (len(data), data) if stream else data)


async def receive(caller: Caller, size: int, *, stream: bool) -> bytes:
    """Read exactly so much of a body."""
    if not stream:
        return await caller.reader.readexactly(size)
    got = b""
    while len(got) < size:
        got += await caller.chunk()
    assert len(got) == size
    return got


def outcomes(w: Wired) -> list[dict[str, Any]]:
    """Return how the calls ended, in their order."""
    return [each for each in w.gate.book() if each["kind"] == "outcome"]


def held_by(w: Wired) -> dict[str, dict[str, float]]:
    """Return what each admitted call held, by its id and unit."""
    return {
        each["id"]: {status["unit"]: status["requested"] for status in each["limits"]}
        for each in w.gate.book()
        if each["kind"] == "decision" and each["verdict"] == "allow"
    }


async def settled(w: Wired, count: int) -> list[dict[str, Any]]:
    """Wait until so many calls are settled and recorded; show that the books agree."""
    parts = w.gate.app.gate._parts
    await until(lambda: w.gate.app.gate.active == 0 and len(parts.delivery.drains) == 0)
    async with asyncio.timeout(SOON_S):
        while len(found := outcomes(w)) < count:  # noqa: ASYNC110 - the log writes by a thread
            await asyncio.sleep(0.005)
    assert len(found) == count
    assert len({each["id"] for each in found}) == count  # each once
    assert not parts.limiter._open  # type: ignore[attr-defined]
    levels = {key[0].partition(":")[2]: cell for key, cell in parts.limiter._cells.items()}  # type: ignore[attr-defined]
    for unit in ("input_tokens", "output_tokens"):
        charged = sum(each["usage"][unit] for each in found)
        assert levels[unit].used == charged * 1_000_000 if charged else True
    assert not levels["concurrency"].leases
    return found


def check(outcome: dict[str, Any], held: dict[str, float], delivered: int, exact: bool) -> None:
    """Show that a charge keeps the law that holds for it."""
    usage = outcome["usage"]
    if exact:
        assert not usage["estimated"]
        assert (usage["input_tokens"], usage["output_tokens"]) == (GIVEN, len(WORDS))
        return
    assert usage["estimated"]
    assert delivered <= usage["output_tokens"] <= held["output_tokens"]
    assert 0 < usage["input_tokens"] <= held["input_tokens"]


def connections(w: Wired) -> set[Any]:
    """Return the gate's open connections to its upstream."""
    found: set[Any] = w.gate.app.gate._parts.delivery.client._open  # type: ignore[attr-defined]
    return found
