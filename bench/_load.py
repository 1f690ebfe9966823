"""A model endpoint that answers at once, and a load that waits for every answer.

Both speak just enough HTTP/1.1 for a benchmark, so that they cost little beside what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from itertools import cycle
from pathlib import Path

import uvloop

_USAGE = {"prompt_tokens": 40, "completion_tokens": 60, "total_tokens": 100}
_WORD = {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": []}
_PROMPT = "Tell me about the harbour at night. " * 8


def _unary() -> bytes:
    body = json.dumps(
        {
            "id": "c",
            "object": "chat.completion",
            "model": "m",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "word " * 60},
                    "finish_reason": "stop",
                }
            ],
            "usage": _USAGE,
        }
    ).encode()
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _chunk(event: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(event), event)


def _stream(events: int) -> tuple[bytes, list[bytes]]:
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    chunks = []
    for number in range(events):
        delta = {"index": 0, "delta": {"content": f"word{number} "}, "finish_reason": None}
        chunks.append(
            _chunk(b"data: " + json.dumps({**_WORD, "choices": [delta]}).encode() + b"\n\n")
        )
    chunks.append(_chunk(b"data: " + json.dumps({**_WORD, "usage": _USAGE}).encode() + b"\n\n"))
    return head, [*chunks, _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"]


class Endpoint(asyncio.Protocol):
    """Answers each request once its announced length has come."""

    unary = _unary()
    head, chunks = _stream(20)

    def __init__(self) -> None:
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer what is complete."""
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            self.answer(head, body)

    def answer(self, head: bytes, body: bytes) -> None:  # noqa: ARG002 - paced by it elsewhere
        """Answer one request, whose head is in lower case."""
        if b'"stream":true' in body:
            asyncio.get_running_loop().create_task(self._send())
        else:
            self.transport.write(self.unary)  # type: ignore[attr-defined]

    async def _send(self) -> None:
        self.transport.write(self.head)  # type: ignore[attr-defined]
        for chunk in self.chunks:
            await asyncio.sleep(0.001)
            self.transport.write(chunk)  # type: ignore[attr-defined]


async def endpoint(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Endpoint, "127.0.0.1", port)
    await server.serve_forever()


def request(
    port: int, key: str, address: str, *, stream: bool, prompt: str = _PROMPT, more: str = ""
) -> bytes:
    """Return one chat completion as an SDK would send it; ``more`` are lines of its head."""
    body = json.dumps(
        {
            "model": "gpt-4o-mini",
            "messages": [
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": prompt},
            ],
            "max_tokens": 200,
            **({"stream": True} if stream else {}),
        },
        separators=(",", ":"),
    ).encode()
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "Accept: application/json\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n"
        f"Content-Type: application/json\r\nAuthorization: Bearer {key}\r\n"
        "User-Agent: OpenAI/Python 2.8.0\r\nX-Stainless-Lang: python\r\n"
        f"X-Forwarded-For: {address}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def load(port: int, requests: list[bytes], total: int, connections: int) -> int:
    """Send ``total`` requests over keep-alive connections; return how many were answered 200."""
    left, good = total, 0
    turn = cycle(requests)

    async def worker() -> None:
        nonlocal left, good
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while left > 0:
            left -= 1
            writer.write(next(turn))
            head = await reader.readuntil(b"\r\n\r\n")
            lowered = head.lower()
            at = lowered.find(b"content-length:")
            if at >= 0:
                await reader.readexactly(int(lowered[at + 15 :].split(b"\r\n", 1)[0]))
            else:
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    await reader.readexactly(size + 2)
                await reader.readuntil(b"\r\n")
            good += head.startswith(b"HTTP/1.1 200")
        writer.close()

    await asyncio.gather(*(worker() for _ in range(connections)))
    return good


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", type=int, help="serve a model endpoint on this port")
    parser.add_argument("--port", type=int, help="send a load to this port")
    parser.add_argument("--keys", type=Path, help="file of API keys, one a line")
    parser.add_argument("--total", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--stream", action="store_true")
    arguments = parser.parse_args()
    if arguments.endpoint:
        uvloop.run(endpoint(arguments.endpoint))
        sys.exit()
    keys = arguments.keys.read_text().split()
    prepared = [
        request(arguments.port, key, f"8.{8 + n // 200}.{n % 200}.7", stream=arguments.stream)
        for n, key in enumerate(keys)
    ]
    answered = uvloop.run(load(arguments.port, prepared, arguments.total, arguments.connections))
    print(answered)
    sys.exit(answered != arguments.total)
