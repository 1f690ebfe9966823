"""The caller's half of a WebSocket handshake (RFC 6455, 4.2): what is taken, and the 101 (H8)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol, cast

from aiohttp.web import StreamResponse
from msgspec import Struct
from multidict import CIMultiDict

from gatekeeper.websocket.handshake import VERSION, accept_of, names, offered

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http import HttpVersion, StreamWriter
    from aiohttp.web import BaseRequest
    from multidict import CIMultiDictProxy

_KEY: Final = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")
"""16 bytes in base64, in its one canonical form."""
_ONCE: Final = ("upgrade", "connection", "sec-websocket-key", "sec-websocket-version")
_STATUS_LINE: Final = "HTTP/1.1 101 Switching Protocols"


class Heading(Protocol):
    """A request head as it came, from a connection or from a recording."""

    @property
    def method(self) -> str:
        """The method, as it was written."""
        ...

    @property
    def raw_path(self) -> str:
        """The target, as it was written."""
        ...

    @property
    def version(self) -> HttpVersion:
        """Version of HTTP."""
        ...

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """All headers, in their order."""
        ...


class Upgrade(Struct, frozen=True, gc=False):
    """A handshake that passed every check."""

    key: str
    protocols: tuple[str, ...]
    """Subprotocols that the caller offers, in its order; one of them may carry its credential."""


def read_upgrade(request: Heading) -> Upgrade | str:
    """Check a request to leave HTTP; a sentence for the caller when it is not a sound WebSocket.

    Whatever else could be agreed on (h2c, TLS) would carry calls past the gate.
    """
    headers = request.headers
    if any(len(headers.getall(name, ())) != 1 for name in _ONCE):
        return "Of each header of a WebSocket handshake, send exactly one."
    if headers["upgrade"].lower() != "websocket" or "http2-settings" in headers:
        return "Only WebSocket can be upgraded to; leave out the header Upgrade otherwise."
    if request.method != "GET" or request.version.minor == 0:
        return "A WebSocket begins with GET and HTTP/1.1."
    if "upgrade" not in names(headers, "connection"):
        return "The header Connection must name upgrade."
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        return "A WebSocket handshake has no body."
    if headers["sec-websocket-version"] != VERSION:
        return f"The version of WebSocket must be {VERSION}."
    if _KEY.fullmatch(headers["sec-websocket-key"]) is None:
        return "The header Sec-WebSocket-Key must be 16 bytes in base64."
    protocols = offered(headers)
    if protocols is None:
        return "The header Sec-WebSocket-Protocol is malformed."
    return Upgrade(headers["sec-websocket-key"], protocols)


class Switching(StreamResponse):
    """The 101: sent by :meth:`switch`, after which the connection speaks no HTTP any more."""

    def __init__(self) -> None:
        """Start one; it counts as the last answer of its connection."""
        super().__init__(status=101)
        self.force_close()

    async def switch(
        self, request: BaseRequest, upgrade: Upgrade, headers: CIMultiDict[str]
    ) -> None:
        """Send the head, with ``headers`` beside those of the handshake; odd bytes are dropped."""
        headers = CIMultiDict((name, value) for name, value in headers.items() if value.isascii())
        headers["Upgrade"] = "websocket"
        headers["Connection"] = "upgrade"
        headers["Sec-WebSocket-Accept"] = accept_of(upgrade.key)
        writer = cast("StreamWriter", request.writer)
        await writer.write_headers(_STATUS_LINE, headers)
        writer.send_headers()

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002 - aiohttp's signature
        """Send no other head."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Send no end of a body: there is none."""
