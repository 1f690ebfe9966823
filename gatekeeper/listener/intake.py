"""What a call asks: its body, read and understood, and the route that serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from gatekeeper.dialects import PLAIN
from gatekeeper.dialects.base import Incoming
from gatekeeper.listener.body import IDENTITY, inflate, read_body
from gatekeeper.listener.head import BadRequest
from gatekeeper.policy.words import Reason

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

    from gatekeeper.dialects.base import Ask, Dialect
    from gatekeeper.listener.head import Head
    from gatekeeper.settings import Settings
    from gatekeeper.upstream.routes import Route, RouteTable


class Taken(Struct, frozen=True, gc=False):
    """What was learned of a call beyond its head."""

    route: Route
    body: bytes | None
    """Whole body as it came, coding included; ``None`` when it is to stream through."""
    incoming: Incoming | None
    """What the dialect has read; its body has no coding any more."""
    ask: Ask | None
    """What the body asks, where a dialect reads it."""
    body_bytes: int


async def take(
    request: BaseRequest, head: Head, dialect: Dialect, routes: RouteTable, settings: Settings
) -> Taken | BadRequest:
    """Read the body of a known dialect whole; leave a plain one to stream through.

    Every route that leads to an upstream is one of the two: read, or counted as plain (H26).
    """
    path, sizes = head.target.path, settings.sizes
    announced = request.content_length or 0
    most = sizes.max_body_bytes if dialect.reads_body else sizes.max_upload_bytes
    if announced > most:
        return _refused(Reason.BODY_TOO_LARGE, most)
    if not dialect.reads_body:
        refused = dialect is PLAIN and settings.plain_http == "refuse"
        route = None if refused else routes.find(path, None)
        if route is None:
            return BadRequest(Reason.ROUTE_NOT_SERVED, None)
        await _say_continue(request)
        return Taken(route, None, None, None, announced)
    await _say_continue(request)
    body = await read_body(
        request.content, most_bytes=sizes.max_body_bytes, within_s=settings.deadlines.body_s
    )
    if isinstance(body, Reason):
        return _refused(body, sizes.max_body_bytes)
    plain: bytes | Reason = body
    coding = request.headers.get("content-encoding", "").lower()
    if coding not in IDENTITY:
        plain = inflate(body, coding, most_bytes=sizes.max_inflated_bytes)
    if isinstance(plain, Reason):
        return _refused(plain, sizes.max_inflated_bytes)
    incoming = Incoming(plain, path, head.target.query, request.headers.get("content-type", ""))
    ask = dialect.read(incoming)
    if isinstance(ask, str):
        return BadRequest(Reason.INVALID_BODY, ask)
    route = routes.find(path, ask.model)
    if route is None:
        known = routes.find(path, None) is not None
        return BadRequest(Reason.MODEL_NOT_SERVED if known else Reason.ROUTE_NOT_SERVED, None)
    return Taken(route, body, incoming, ask, len(body))


async def read_small(request: BaseRequest, *, most_bytes: int, within_s: float) -> bytes | Reason:
    """Read a whole body for the gate itself; one that announces too much is not read at all."""
    if (request.content_length or 0) > most_bytes:
        return Reason.BODY_TOO_LARGE
    await _say_continue(request)
    return await read_body(request.content, most_bytes=most_bytes, within_s=within_s)


async def _say_continue(request: BaseRequest) -> None:
    """Answer ``Expect: 100-continue`` once it is settled that the body is wanted."""
    if request.headers.get("expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


def _refused(reason: Reason, most_bytes: int) -> BadRequest:
    details = {
        Reason.BODY_TOO_LARGE: f"At most {most_bytes} bytes are taken.",
        Reason.INVALID_BODY: "The content-encoding is not gzip or deflate, or the body is damaged.",
    }
    return BadRequest(reason, details.get(reason))
