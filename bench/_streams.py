"""An endpoint that streams at a pace, and callers that time what comes through.

The head of a request tells the pace. Each chunk carries the moment at which it was sent; both sides
read the same clock, so that a caller knows of every single chunk how long it took.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import uvloop
from _load import Endpoint, request

if TYPE_CHECKING:
    from collections.abc import Callable

_PACE = re.compile(rb"x-bench-pace: (\d+) (\d+)")
_SENT = re.compile(rb"fp_([0-9a-f]{16})")
_END = b"0\r\n\r\n"
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_EVENT = (
    b'data: {"id":"chatcmpl-C1aBcDeFgHiJkLmNoPqRsTuVwXyZ0","object":"chat.completion.chunk",'
    b'"created":1790000000,"model":"gpt-4o-mini-2024-07-18","service_tier":"default",'
    b'"system_fingerprint":"fp_%016x","choices":[%b]%b,"obfuscation":"a1B2c3D4"}\n\n'
)
_WORD = b'{"index":0,"delta":{"content":" harbour"},"logprobs":null,"finish_reason":null}'
_STOP = b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}'
_USAGE = b',"usage":{"prompt_tokens":40,"completion_tokens":%d,"total_tokens":%d}'


def _framed(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


class PacedEndpoint(Endpoint):
    """Streams ``chunks`` pieces, one each ``gap_us`` microseconds, as ``x-bench-pace`` asks."""

    def answer(self, head: bytes, body: bytes) -> None:
        """Start one stream; its first chunk leaves at once."""
        pace = _PACE.search(head)
        if pace is None:
            super().answer(head, body)
            return
        self.left, gap_us = int(pace[1]), int(pace[2])
        self.words = self.left
        # OpenAI sends a null with every chunk of a stream that will tell its usage.
        self.told = b'"include_usage":true' in body
        self.loop = asyncio.get_running_loop()
        self.gap_s, self.next_at = gap_us * 1e-6, self.loop.time()
        self.transport.write(_HEAD)  # type: ignore[attr-defined]
        self._next()

    def _next(self) -> None:
        if self.transport.is_closing():
            return
        null = b',"usage":null' if self.told else b""
        if self.left:
            self.left -= 1
            self._write(_EVENT % (time.monotonic_ns(), _WORD, null))
            self.next_at += self.gap_s
            self.loop.call_at(self.next_at, self._next)
            return
        last = _framed(_EVENT % (time.monotonic_ns(), _STOP, null))
        if self.told:
            usage = _USAGE % (self.words, self.words + 40)
            last += _framed(_EVENT % (time.monotonic_ns(), b"", usage))
        self.transport.write(last + _framed(b"data: [DONE]\n\n") + _END)  # type: ignore[attr-defined]

    def _write(self, event: bytes) -> None:
        self.transport.write(_framed(event))  # type: ignore[attr-defined]


async def endpoint(port: int) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(PacedEndpoint, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


@dataclass
class Seen:
    """What the callers of one peer saw, in nanoseconds."""

    first: array[int] = field(default_factory=lambda: array("q"))
    """From the request to the first chunk."""
    late: array[int] = field(default_factory=lambda: array("q"))
    """From the endpoint to the caller, of each chunk."""
    strayed: array[int] = field(default_factory=lambda: array("q"))
    """How far a gap between two chunks was from the one that the endpoint made."""
    steady_cpu_ns: int = 0
    """CPU of the proxy while every stream of a wave was open ..."""
    steady_ns: int = 0
    """... how long that was ..."""
    steady_chunks: int = 0
    """... and the chunks that came in that time."""
    idle_cpu_ns: int = 0
    """CPU of the proxy in a second without any stream."""
    cpu_ns: int = 0
    """CPU of whole waves."""
    chunks: int = 0


class Caller(asyncio.Protocol):
    """Sends one request and times its stream."""

    def __init__(self, ask: bytes, wave: Wave) -> None:
        self.ask, self.wave = ask, wave
        self.late_before = -1
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        self.transport = transport
        self.asked = time.monotonic_ns()
        transport.write(self.ask)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Note when each chunk came; the first packet must be a 200."""
        now, wave = time.monotonic_ns(), self.wave
        seen = wave.seen
        if not self.tail and not data.startswith(b"HTTP/1.1 200"):
            wave.fail(data[:12])
            self.transport.close()
            return
        for sent in _SENT.findall(data):
            late = now - int(sent, 16)
            if self.late_before < 0:
                seen.first.append(now - self.asked)
                wave.first_came()
            else:
                seen.strayed.append(abs(late - self.late_before))
            seen.late.append(late)
            self.late_before = late
        self.tail = (self.tail + data)[-len(_END) :]
        if self.tail == _END:
            wave.ended()
            self.transport.close()

    def connection_lost(self, _: BaseException | None) -> None:
        """Tell of a stream that broke off."""
        if self.tail != _END:
            self.wave.fail(b"broke off")


class Wave:
    """Streams that are open at the same time through one peer."""

    def __init__(self, size: int, seen: Seen, cpu_ns: Callable[[], int]) -> None:
        self.size, self.seen, self.cpu_ns = size, seen, cpu_ns
        self.begun = self.over = 0
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def first_came(self) -> None:
        """Count a stream that has begun; measure from when all have."""
        self.begun += 1
        if self.begun == self.size:
            self.from_ns, self.from_chunks = self.cpu_ns(), len(self.seen.late)
            self.from_at_ns = time.monotonic_ns()
            self.open.set_result(None)

    def ended(self) -> None:
        """Count a stream that is over; measure until the first is."""
        self.over += 1
        seen = self.seen
        if self.over == 1 and self.open.done():
            seen.steady_cpu_ns += self.cpu_ns() - self.from_ns
            seen.steady_ns += time.monotonic_ns() - self.from_at_ns
            seen.steady_chunks += len(seen.late) - self.from_chunks
        if self.over == self.size and not self.done.done():
            self.done.set_result(None)

    def fail(self, why: bytes) -> None:
        """End the measurement: an answer was not what it should be."""
        for future in (self.open, self.done):
            if not future.done():
                future.set_exception(SystemExit(f"a stream failed: {why!r}"))


def asks(port: int, keys: list[str], *, chunks: int, gap_us: int, prompt_bytes: int) -> list[bytes]:
    """Return one request for each key, which names the pace of its answer."""
    pace = f"X-Bench-Pace: {chunks} {gap_us}\r\n"
    prompt = ("Tell me about the harbour at night. " * (prompt_bytes // 36 + 1))[:prompt_bytes]
    return [
        request(port, key, f"8.{8 + n // 200}.{n % 200}.7", stream=True, prompt=prompt, more=pace)
        for n, key in enumerate(keys)
    ]


async def start_streams(port: int, requests: list[bytes], wave: Wave, ramp_s: float) -> None:
    """Open the streams of a wave one after the other, spread over ``ramp_s``."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(wave.size):
        ask = requests[number % len(requests)]
        # several addresses of our own, as one has too few ports
        local = (f"127.0.0.{2 + number // 5_000}", 0)
        await loop.create_connection(
            lambda ask=ask: Caller(ask, wave), "127.0.0.1", port, local_addr=local
        )
        wait_s = began + ramp_s * (number + 1) / wave.size - loop.time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", type=int, required=True, help="serve on this port")
    uvloop.run(endpoint(parser.parse_args().endpoint))
