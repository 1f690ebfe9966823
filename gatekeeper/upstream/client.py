"""The HTTP client under the relay: a small protocol, and aiohttp's ``ClientSession`` behind it."""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import aiohttp

from gatekeeper.policy.model import Reason

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from multidict import CIMultiDict, CIMultiDictProxy
    from yarl import URL

_COPY_FROM: Final = 1_000_000
"""Bytes from which a body is sent in pieces, so that one large body does not hold the loop."""
_KEEPALIVE_S: Final = 4.0
"""Below the 5 s after which uvicorn, and so vLLM, closes an idle connection."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request for an upstream, complete."""

    method: str
    url: URL
    headers: CIMultiDict[str]
    body: bytes | AsyncIterator[bytes] | None
    tls: ssl.SSLContext | None = None


class Answer(Protocol):
    """An upstream's answer, its body still to be read."""

    status: int
    reason: str | None
    headers: CIMultiDictProxy[str]

    async def read_chunk(self) -> bytes:
        """Return the next bytes as they came, empty at the end.

        Raises :class:`AnswerBrokenError` when the answer stops before its end.
        """

    def close(self) -> None:
        """Give the connection back when the answer was read to its end, drop it otherwise."""


class AnswerBrokenError(Exception):
    """The upstream's answer ended before it was complete."""


class Client(Protocol):
    """Sends requests to upstreams."""

    async def send(self, outgoing: Outgoing, *, first_byte_s: float) -> Answer | Reason:
        """Send a request and wait for the head of the answer; a reason when there is none."""

    async def close(self) -> None:
        """Close all pooled connections."""


class _SessionAnswer:
    __slots__ = ("_response", "headers", "reason", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.reason = response.reason
        self.headers = response.headers

    async def read_chunk(self) -> bytes:
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise AnswerBrokenError from error

    def close(self) -> None:
        if not self._response.content.is_eof():
            self._response.close()
        else:
            self._response.release()


class SessionClient:
    """A pooled aiohttp client that changes nothing on the way: no redirect, cookie or coding."""

    def __init__(self, *, connect_s: float, max_field_bytes: int) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=_KEEPALIVE_S, ttl_dns_cache=30
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_field_size=max_field_bytes,
            max_line_size=max_field_bytes,
            trust_env=False,
        )

    async def send(self, outgoing: Outgoing, *, first_byte_s: float) -> Answer | Reason:
        """Send a request; connection failures and late heads come back as reasons."""
        body = outgoing.body
        try:
            async with asyncio.timeout(first_byte_s):
                response = await self._session.request(
                    outgoing.method,
                    outgoing.url,
                    headers=outgoing.headers,
                    data=io.BytesIO(body)
                    if isinstance(body, bytes) and len(body) > _COPY_FROM
                    else body,
                    allow_redirects=False,
                    ssl=outgoing.tls or True,
                )
        except TimeoutError:  # aiohttp's own timeouts among them
            return Reason.UPSTREAM_TIMEOUT
        except aiohttp.ClientConnectionError:
            return Reason.UPSTREAM_UNREACHABLE
        except aiohttp.ClientError:
            return Reason.UPSTREAM_INVALID
        if response.status < 200:  # noqa: PLR2004 - a 101 nobody asked for (H32)
            response.close()
            return Reason.UPSTREAM_INVALID
        return _SessionAnswer(response)

    async def close(self) -> None:
        """Close all pooled connections."""
        await self._session.close()
