"""What a call asks: its body, read and understood, and the route that serves it."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from msgspec import Struct
from msgspec.structs import replace

from gatekeeper.dialects import CONTROL, PLAIN
from gatekeeper.dialects.base import Incoming
from gatekeeper.dialects.openai import deployment_of, names_deployment
from gatekeeper.listener.body import IDENTITY, inflate, read_body
from gatekeeper.listener.head import BadRequest
from gatekeeper.policy.words import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.web import BaseRequest

    from gatekeeper.dialects.base import Ask, Dialect
    from gatekeeper.dialects.body import Fields
    from gatekeeper.dialects.evidence import Evidence
    from gatekeeper.listener.head import Head
    from gatekeeper.settings import Settings
    from gatekeeper.upstream.routes import Route, RouteTable


ON_LOOP_BYTES: Final = 65_536
"""Largest body read on the event loop, which takes less than a millisecond, or five with an exact
counter."""
_CHARSET: Final = re.compile(r"charset\s*=\s*[\"']?([^\"';\s]*)", re.IGNORECASE)
_UTF_8: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_URL_ENCODED: Final = "application/x-www-form-urlencoded"
_OTHER_READING: Final = (
    "Send the body in UTF-8: "
    "by the charset of this content-type servers would read it in another way."
)
_TWO_MODELS: Final = "The field `model` must be the model that the path names."


class Taken(Struct, gc=False):
    """What was learned of a call beyond its head; nothing of it changes but by :meth:`let_go`."""

    route: Route
    body: bytes | None
    """Whole body as it came, coding included; ``None`` when it is to stream through."""
    incoming: Incoming | None
    """What the dialect has read; its body has no coding any more."""
    ask: Ask | None
    """What the body asks, where a dialect reads it."""
    body_bytes: int

    def let_go(self) -> None:
        """Drop the body once it went on: it may be megabytes, and the answer may take hours."""
        self.body = self.incoming = None


class Intake:
    """Reads bodies. Large and packed ones are read by one thread, a step of C at a time (H12).

    One, as two would share the same interpreter and keep the event loop waiting twice as long.
    """

    def __init__(
        self,
        routes: RouteTable,
        settings: Settings,
        count: Callable[[bytes], int],
        look: Callable[[Fields], tuple[Evidence, ...]] | None = None,
    ) -> None:
        """``count`` counts the tokens of UTF-8 text, ``look`` sees what a prompt shows."""
        self._routes = routes
        self._settings = settings
        self._count = count
        self._look = look
        self._reader = ThreadPoolExecutor(1, "gatekeeper-bodies")

    def __enter__(self) -> Self:
        """Read until the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Read no more."""
        self._reader.shutdown(wait=False, cancel_futures=True)

    async def take(self, request: BaseRequest, head: Head, dialect: Dialect) -> Taken | BadRequest:
        """Read the body of a known dialect whole; leave a plain one to stream through.

        Every route that leads to an upstream is one of the two: read, or counted as plain (H26).
        """
        path, sizes, routes = head.target.path, self._settings.sizes, self._routes
        announced = request.content_length or 0
        most = sizes.max_body_bytes if dialect.reads_body else sizes.max_upload_bytes
        if announced > most:
            return _refused(Reason.BODY_TOO_LARGE, most)
        if not dialect.reads_body:
            refused = (dialect is PLAIN and self._settings.plain_http == "refuse") or (
                dialect is CONTROL and self._settings.control_routes == "refuse"
            )
            route = None if refused else routes.find(path, None)
            if route is None:
                return BadRequest(Reason.ROUTE_NOT_SERVED, None)
            await _say_continue(request)
            return Taken(route, None, None, None, announced)
        await _say_continue(request)
        within_s = self._settings.deadlines.body_s
        body = await read_body(request.content, most_bytes=most, within_s=within_s)
        if isinstance(body, Reason):
            return _refused(body, most)
        coding = request.headers.get("content-encoding", "").lower()
        kind = request.headers.get("content-type", "")
        incoming = Incoming(body, path, head.target.query, kind, self._count, self._look)
        read = partial(understood, dialect, incoming, coding, sizes.max_inflated_bytes)
        if len(body) <= ON_LOOP_BYTES and coding in IDENTITY:
            found = read()
        else:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._reader, read)
        if isinstance(found, BadRequest):
            return found
        incoming, ask = found
        if body and _URL_ENCODED in incoming.content_type.lower():
            # What was read as JSON goes on as JSON: curl says so of anything, and a server that
            # believed it would find a form in a string of ours.
            head.forwarded["Content-Type"] = "application/json"
        route = routes.find(path, ask.model)
        if route is None:
            known = routes.find(path, None) is not None
            return BadRequest(Reason.MODEL_NOT_SERVED if known else Reason.ROUTE_NOT_SERVED, None)
        return Taken(route, body, incoming, ask, len(body))


def understood(
    dialect: Dialect, incoming: Incoming, coding: str, most_bytes: int
) -> tuple[Incoming, Ask] | BadRequest:
    """Undo the coding and let the dialect read; at most ``most_bytes`` come of a body."""
    if _reads_otherwise(incoming.content_type):
        return BadRequest(Reason.INVALID_BODY, _OTHER_READING)
    if coding not in IDENTITY:
        plain = inflate(incoming.body, coding, most_bytes=most_bytes)
        if isinstance(plain, Reason):
            return _refused(plain, most_bytes)
        incoming = replace(incoming, body=plain)
    ask = dialect.read(incoming)
    if isinstance(ask, str):
        return BadRequest(Reason.INVALID_BODY, ask)
    if names_deployment(incoming.path) and ask.model != deployment_of(incoming.path):
        return BadRequest(Reason.INVALID_BODY, _TWO_MODELS)  # the path decides at the upstream
    return incoming, ask


def _reads_otherwise(content_type: str) -> bool:
    """Tell whether a server that goes by the content type would find other fields than we do.

    JSON in UTF-7 can hold quotes and commas that are none in UTF-8.
    """
    kind = content_type.lower()
    return "charset" in kind and not _UTF_8.issuperset(_CHARSET.findall(kind))


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
