"""aiohttp's lowest server layer, with what it lacks.

Deadlines for heads, the PROXY header, and refusals of the parser that are counted, logged and
answered without an echo (H3, H9, H10).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from aiohttp.web import BaseRequest, Response, StreamResponse
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from gatekeeper.facts.address import parse_address
from gatekeeper.facts.proxy_protocol import Incomplete, Malformed, ProxyHeader

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from gatekeeper.facts.address import IPAddress, TrustedProxies
    from gatekeeper.settings import Deadlines, Sizes

_GENERIC: Final = (
    b'{"type":"about:blank","title":"Bad Request","status":400,'
    b'"detail":"The request is not valid HTTP/1.1.","code":"invalid_request"}'
)
_PROBLEM: Final = "application/problem+json"
_SILENT: Final = logging.getLogger("gatekeeper.http")


class GateProtocol(RequestHandler):
    """One connection of a caller."""

    __slots__ = ("_gate_server", "_head_deadline", "_proxy", "proxied")

    def __init__(self, server: GateServer, **options: Any) -> None:
        super().__init__(server, **options)
        self._gate_server = server
        self._head_deadline: asyncio.TimerHandle | None = None
        self._proxy = ProxyHeader() if server.proxy_protocol else None
        self.proxied: IPAddress | None = None
        """Client address from a PROXY header, if the connection carried one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock of the first head."""
        super().connection_made(transport)
        if self._proxy is not None and not self._gate_server.trusts(self.peer):
            self._proxy = None
            self._refuse_connection("proxy_header_untrusted")
            return
        self._arm()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the clock."""
        self._disarm()
        super().connection_lost(exc)

    @property
    def peer(self) -> str:
        """Address of the other end of the connection, empty when it is gone."""
        peername = self.peername
        return peername[0] if isinstance(peername, tuple) else ""

    def data_received(self, data: bytes) -> None:
        """Take the PROXY header off, then parse; a head begun must end in time."""
        if self._proxy is not None:
            found = self._proxy.feed(data)
            if isinstance(found, Incomplete):
                return
            if isinstance(found, Malformed):
                self._refuse_connection("proxy_header_malformed")
                return
            data, self._proxy, self.proxied = self._proxy.rest, None, found.source
            if not data:
                return
        parsed = self._request_count
        super().data_received(data)
        if self._request_count != parsed:
            self._disarm()
        elif self._head_deadline is None and self._current_request is None and data:
            self._arm()

    def close_if_idle(self) -> None:
        """Close a connection on which no request is under way, nor any part of one."""
        idle = self._current_request is None and not self._messages
        if idle and self._head_deadline is None:
            self.force_close()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - holds the caller's bytes: never echoed
    ) -> StreamResponse:
        """Answer what the parser refused, or a defect of ours, with a body that echoes nothing."""
        if request.writer.output_size > 0:
            raise ConnectionError("the head of the answer is sent already")
        refused = status < 500  # noqa: PLR2004
        self._gate_server.on_error(self.peer, exc if not refused else None, type(exc).__name__)
        response = Response(
            status=status,
            body=_GENERIC
            if refused
            else b'{"type":"about:blank","title":"Internal Server Error","status":500}',
            content_type=_PROBLEM,
        )
        response.force_close()
        return response

    def _arm(self) -> None:
        self._head_deadline = self._loop.call_later(
            self._gate_server.headers_s, self._refuse_connection, "head_too_slow"
        )

    def _disarm(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _refuse_connection(self, kind: str) -> None:
        self._disarm()
        self._gate_server.on_error(self.peer, None, kind)
        self.force_close()


class GateServer(Server):
    """Makes a :class:`GateProtocol` per connection.

    ``on_error`` is told the peer, a defect if it was one, and the kind of refusal otherwise.
    """

    def __init__(
        self,
        handler: Callable[[BaseRequest], Awaitable[StreamResponse]],
        *,
        deadlines: Deadlines,
        sizes: Sizes,
        trusted: TrustedProxies | None,
        on_error: Callable[[str, BaseException | None, str], None],
    ) -> None:
        super().__init__(
            handler,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=deadlines.keepalive_s,
            lingering_time=2.0,
            max_line_size=sizes.max_header_bytes,
            max_field_size=sizes.max_header_bytes,
            max_headers=sizes.max_headers,
            logger=_SILENT,
        )
        self.headers_s = deadlines.headers_s
        self.proxy_protocol = trusted is not None
        self.on_error = on_error
        self._trusted = trusted

    def trusts(self, peer: str) -> bool:
        """Tell whether ``peer`` may send a PROXY header."""
        address = parse_address(peer.partition("%")[0])
        return self._trusted is not None and address is not None and address in self._trusted

    def close_idle(self) -> None:
        """Close every connection on which no request is under way."""
        for connection in self.connections:
            if isinstance(connection, GateProtocol):
                connection.close_if_idle()

    def __call__(self) -> GateProtocol:
        """Return the protocol of a new connection."""
        return GateProtocol(self, loop=self._loop, **self._kwargs)
