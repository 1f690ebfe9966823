"""What the relay needs of an HTTP client; :mod:`gatekeeper.upstream.pool` is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from aiohttp.client_proto import ResponseHandler
    from multidict import CIMultiDict, CIMultiDictProxy
    from yarl import URL

    from gatekeeper.policy.words import Reason

Sink = Callable[[bytes], bool]
"""Takes a piece of a body; returns whether it takes another one before somebody waits."""


class Outgoing(Struct, frozen=True, gc=False):
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

    def read_ready(self) -> bytes:
        """Return what has come already, without waiting.

        Raises :class:`AnswerBrokenError` when the answer stops before its end.
        """

    async def pour(self, sink: Sink) -> bool:
        """Hand each piece on as it comes; tell whether that was all, or the sink takes no more.

        Raises :class:`AnswerBrokenError` when the answer stops before its end, ``TimeoutError``
        when the upstream is silent for longer than the deadline, and what the sink raises.
        """

    async def read_chunk(self) -> bytes:
        """Return the next bytes as they came, empty at the end; raises as :meth:`pour` does.

        For what waits for a whole body: a stream that goes on costs less by :meth:`pour`.
        """

    def close(self) -> None:
        """Give the connection back when the answer was read to its end, drop it otherwise."""


class AnswerBrokenError(Exception):
    """The upstream's answer ended before it was complete."""


class Switched(Struct, frozen=True, gc=False):
    """A connection that has left HTTP: nothing of it is read until a parser is set."""

    connection: ResponseHandler
    headers: CIMultiDictProxy[str]
    """Of the upstream's 101."""
    close: Callable[[], None]
    """Closes it, once what was written has gone out."""
    abort: Callable[[], None]
    """Breaks it off, which its other end can tell from a close."""
    status: int = 101


class Client(Protocol):
    """Sends requests to upstreams."""

    async def upgrade(self, outgoing: Outgoing) -> Switched | Answer | Reason:
        """Ask to leave HTTP; an answer when the upstream will not, a reason when there is none."""

    async def send(self, outgoing: Outgoing) -> Answer | Reason:
        """Send a request and wait for the head of the answer; a reason when there is none."""

    async def close(self) -> None:
        """Close all pooled connections."""
