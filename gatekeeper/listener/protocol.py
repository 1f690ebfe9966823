"""aiohttp's lowest server layer, with what it lacks.

Deadlines for heads, the PROXY header, and refusals of the parser that are counted, logged and
answered without an echo (H3, H9, H10).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp.http import SERVER_SOFTWARE, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web import BaseRequest, RequestPayloadError, Response, StreamResponse
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from gatekeeper.facts.address import parse_address
from gatekeeper.facts.proxy_protocol import Incomplete, Malformed, ProxyHeader

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from aiohttp import StreamReader
    from aiohttp.abc import AbstractStreamWriter

    from gatekeeper.facts.address import IPAddress, TrustedProxies
    from gatekeeper.settings import Deadlines, Sizes

_GENERIC: Final = (
    b'{"type":"about:blank","title":"Bad Request","status":400,'
    b'"detail":"The request is not valid HTTP/1.1.","code":"invalid_request"}'
)
_DEFECT: Final = b'{"type":"about:blank","title":"Internal Server Error","status":500}'
_AFTER_RELAY_S: Final = 1.0
"""A caller that stops reading is cut by the relay of its call, if there is one, which says so."""
_LAST_CHUNK: Final = b"\n0\r\n\r\n"
"""How a chunked body ends that has no trailers."""
_PROBLEM: Final = "application/problem+json"
_SILENT: Final = logging.getLogger("gatekeeper.http")


class GateRequest(BaseRequest):
    """A request whose answers say no more than they must."""

    answered = False
    """Whether the head of an answer is made: no other can take its place."""

    async def _prepare_hook(self, resp: StreamResponse) -> None:
        self.answered = True
        if resp.headers.get("Server") == SERVER_SOFTWARE:  # versions are nobody's business
            del resp.headers["Server"]
        if isinstance(self.protocol, GateProtocol) and self.protocol.ending:
            resp.headers["Connection"] = "close"
            resp.force_close()


class GateProtocol(RequestHandler):
    """One connection of a caller."""

    __slots__ = (
        "_body",
        "_chunked",
        "_gate_server",
        "_head_deadline",
        "_proxy",
        "_tail",
        "_write_deadline",
        "proxied",
    )

    def __init__(self, server: GateServer, **options: Any) -> None:
        super().__init__(server, **options)
        self._gate_server = server
        self._body: StreamReader = EMPTY_PAYLOAD
        self._chunked: StreamReader | None = None
        self._tail = b""
        self._head_deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._proxy = ProxyHeader() if server.proxy_protocol else None
        self.proxied: IPAddress | None = None
        """Client address from a PROXY header, if the connection carried one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock of the first head."""
        super().connection_made(transport)
        # Anything that stays unsent starts a clock, or a closed connection could wait for ever.
        cast("asyncio.WriteTransport", transport).set_write_buffer_limits(high=1, low=0)
        if self._proxy is not None and not self._gate_server.trusts(self.peer):
            self._proxy = None
            self._refuse_connection("proxy_header_untrusted")
            return
        self._arm()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the clocks."""
        self._disarm()
        self._stop_write_clock()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the clock of a caller that does not read what it asked for."""
        super().pause_writing()
        if self.transport is not None:  # closing would wait until the caller reads
            self._write_deadline = self._loop.call_later(
                self._gate_server.write_s, self.transport.abort
            )

    def resume_writing(self) -> None:
        """Stop that clock."""
        self._stop_write_clock()
        super().resume_writing()

    @property
    def ending(self) -> bool:
        """Whether the next answer is the last one of this connection."""
        return self._close or self._gate_server.leaving or self._declining

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
        new = self._request_count - parsed
        whole = self._ends_without_trailers(data, new) if new or self._chunked else True
        if new:
            self._disarm()
            if whole:
                self._follow_body()
        elif self._head_deadline is None and data and self._idle:
            self._arm()

    def _ends_without_trailers(self, data: bytes, new: int) -> bool:
        """Let a chunked body be the last of its connection unless it ends without trailers.

        The parser takes the last trailer for a header of the request that follows it, which behind
        a proxy may be somebody else's.
        """
        size = len(_LAST_CHUNK)
        self._tail = data[-size:] if len(data) >= size else (self._tail + data)[-size:]
        more = len(self._messages) >= self._max_msg_queue_size  # the parser keeps what follows
        for later in range(new, -1, -1):  # the body under way, then each that has begun since
            if later < new:
                message, payload = self._messages[-later - 1]
                chunked = isinstance(message, RawRequestMessage) and message.chunked
                self._chunked = payload if chunked else None
            if self._chunked is None or not self._chunked.is_eof():
                continue
            self._chunked = None
            if later or more or self._tail != _LAST_CHUNK:
                for _ in range(later):
                    self._messages.pop()
                if later:
                    self._gate_server.on_error(self.peer, None, "behind_trailers")
                self.close()
                return False
        return True

    def _follow_body(self) -> None:
        """End the body that the parser gave up on, which aiohttp leaves waiting for more."""
        message, payload = self._messages[-1]
        if isinstance(message, RawRequestMessage):
            self._body = payload
        elif not self._body.is_eof():
            self._messages.pop()  # the call under way is refused, and no other answered
            self._gate_server.on_error(self.peer, None, "malformed_body")
            self._body.set_exception(RequestPayloadError())
            self._body.feed_eof()
            self.close()

    async def finish_response(
        self, request: BaseRequest, resp: StreamResponse, start_time: float | None
    ) -> tuple[StreamResponse, bool]:
        """Answer; what stands behind an upgrade that was not taken is never read as calls (H8)."""
        if self._declining:
            self._message_tail = b""
            resp.force_close()
        return await super().finish_response(request, resp, start_time)

    def close_if_idle(self) -> None:
        """Close a connection on which no request is under way, nor any part of one."""
        if self._idle and self._head_deadline is None:
            self.force_close()

    @property
    def _declining(self) -> bool:
        """Whether the call under way asked for an upgrade, and has got none."""
        return self._upgraded and not self._messages and self._payload_parser is None

    @property
    def _idle(self) -> bool:
        """Whether the next head is awaited: no call under way, nor one about to begin."""
        return self._waiter is not None and not self._waiter.done()

    def log_exception(self, *_: Any, **options: Any) -> None:
        """Report a defect that aiohttp met between calls or while it sent an answer."""
        defect = options.get("exc_info")
        if isinstance(defect, BaseException):
            self._gate_server.on_error(self.peer, defect, type(defect).__name__)

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - holds the caller's bytes: never echoed
    ) -> StreamResponse:
        """Answer what the parser refused, or a defect of ours, with a body that echoes nothing."""
        refused = status < 500  # noqa: PLR2004
        defect = None if refused else exc or TimeoutError()
        self._gate_server.on_error(self.peer, defect, type(exc).__name__)
        if isinstance(request, GateRequest) and request.answered:
            raise ConnectionError("an answer has begun")
        response = Response(
            status=status if refused else 500,
            body=_GENERIC if refused else _DEFECT,
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

    def _stop_write_clock(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

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
            request_factory=self._request,
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
        self.write_s = deadlines.write_s + _AFTER_RELAY_S
        self.proxy_protocol = trusted is not None
        self.leaving = False
        """When true, every answer ends its connection."""
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

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> GateRequest:
        return GateRequest(message, payload, protocol, writer, task, self._loop)

    def __call__(self) -> GateProtocol:
        """Return the protocol of a new connection."""
        return GateProtocol(self, loop=self._loop, **self._kwargs)
