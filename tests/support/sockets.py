"""WebSockets on the wire: bytes on both sides of a gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.frames import HANDSHAKE, accept_of
from support.wire import Exchange, request, until

if TYPE_CHECKING:
    from support.wire import Caller, Wired

EVIL = request("POST", "/v1/evil", body=b"x")
OTHER = "/other"


def switched(key: str, *fields: str) -> bytes:
    """Return an upstream's 101."""
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Connection: Upgrade",
        "Upgrade: websocket",
        f"Sec-WebSocket-Accept: {accept_of(key)}",
        *fields,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


async def accept(exchange: Exchange) -> None:
    """Take a WebSocket and keep what comes in the upstream's book of bytes."""
    await exchange.body()
    await exchange.send(switched(exchange.head.one("sec-websocket-key") or ""))
    await exchange.gone()


async def opened(w: Wired, *fields: str, path: str = OTHER) -> Caller:
    """Open a WebSocket on the wire."""
    caller = await w.caller()
    caller.write(request("GET", path, *HANDSHAKE, *fields))
    head = await caller.head()
    assert head.status == 101, head
    return caller


async def received(w: Wired, wanted: int) -> bytes:
    """Wait until the upstream has ``wanted`` bytes behind its head; return them."""
    book = w.upstream.received[-1]
    await until(lambda: len(bytes(book).partition(b"\r\n\r\n")[2]) >= wanted)
    return bytes(book).partition(b"\r\n\r\n")[2]
