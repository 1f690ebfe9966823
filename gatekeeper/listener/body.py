"""The request body: bounded before and after inflating, within a deadline (H7, H10)."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, Final

from aiohttp.web import RequestPayloadError

from gatekeeper.policy.words import Reason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import StreamReader

_CODINGS: Final = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
IDENTITY: Final = frozenset({"", "identity"})


class BodyRefusedError(Exception):
    """A streamed request body broke a bound; raised to stop the upstream request."""

    def __init__(self, reason: Reason) -> None:
        """Keep the reason for whoever answers the caller."""
        super().__init__(reason.value)
        self.reason = reason


async def read_body(content: StreamReader, *, most_bytes: int, within_s: float) -> bytes | Reason:
    """Read a whole body; little more than ``most_bytes`` are ever held."""
    if content.is_eof() and content.exception() is None:  # it came with the head: no timer
        body = content.read_nowait()
        return body if len(body) <= most_bytes else Reason.BODY_TOO_LARGE
    try:
        chunks = [
            chunk async for chunk in stream_body(content, most_bytes=most_bytes, within_s=within_s)
        ]
    except BodyRefusedError as refused:
        return refused.reason
    return b"".join(chunks)


async def stream_body(
    content: StreamReader, *, most_bytes: int, within_s: float
) -> AsyncIterator[bytes]:
    """Pass a body on chunk by chunk; raises :class:`BodyRefusedError` when a bound breaks."""
    deadline = asyncio.get_running_loop().time() + within_s
    size = 0
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                chunk = await content.readany()
        except TimeoutError:
            raise BodyRefusedError(Reason.REQUEST_TIMEOUT) from None
        except RequestPayloadError:
            raise BodyRefusedError(Reason.INVALID_BODY) from None
        if not chunk:
            return
        size += len(chunk)
        if size > most_bytes:
            raise BodyRefusedError(Reason.BODY_TOO_LARGE)
        yield chunk


def inflate(body: bytes, coding: str, *, most_bytes: int) -> bytes | Reason:
    """Undo ``Content-Encoding``; a bomb stops at ``most_bytes``, garbage is ``INVALID_BODY``."""
    if coding in IDENTITY:
        return body
    window = _CODINGS.get(coding)
    if window is None:
        return Reason.INVALID_BODY
    engine = zlib.decompressobj(window)
    try:
        plain = engine.decompress(body, most_bytes + 1)
    except zlib.error:
        return Reason.INVALID_BODY
    if len(plain) > most_bytes:
        return Reason.BODY_TOO_LARGE
    if not engine.eof or engine.unused_data:
        return Reason.INVALID_BODY
    return plain
