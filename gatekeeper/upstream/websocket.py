"""The upstream's half of a WebSocket handshake (RFC 6455, 4.1): asked for, and checked."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from gatekeeper.policy.words import Reason
from gatekeeper.upstream.client import Switched
from gatekeeper.websocket.handshake import PROTOCOLS, VERSION, accept_of, names, offered
from gatekeeper.websocket.line import Line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from multidict import CIMultiDictProxy

    from gatekeeper.upstream.client import Answer, Client, Outgoing

_KEY_BYTES: Final = 16
_MASK_BYTES: Final = 4


class Opened(Struct, frozen=True, gc=False):
    """A WebSocket to an upstream."""

    line: Line
    headers: CIMultiDictProxy[str]
    """Of the upstream's 101."""
    protocol: str | None
    """The subprotocol it chose."""
    close: Callable[[], None]
    """Closes the connection, once what was written has gone out."""
    abort: Callable[[], None]
    """Breaks the connection off."""


async def open_line(
    client: Client,
    outgoing: Outgoing,
    protocols: Sequence[str],
    *,
    random_bytes: Callable[[int], bytes],
    most_bytes: int,
) -> Opened | Answer | Reason:
    """Open a WebSocket; an answer when the upstream refuses it.

    ``random_bytes`` makes the key and the masks, which nobody may foresee (10.3). Extensions are
    never offered: frames must be read to be metered.
    """
    key = base64.b64encode(random_bytes(_KEY_BYTES)).decode()
    headers = outgoing.headers
    headers["Connection"] = "Upgrade"
    headers["Upgrade"] = "websocket"
    headers["Sec-WebSocket-Version"] = VERSION
    headers["Sec-WebSocket-Key"] = key
    if protocols:
        headers[PROTOCOLS] = ", ".join(protocols)
    reached = await client.upgrade(outgoing)
    if not isinstance(reached, Switched):
        return reached
    if not _agreed(reached.headers, key, protocols):
        reached.abort()
        return Reason.UPSTREAM_INVALID
    line = Line(
        reached.connection, most_bytes=most_bytes, new_mask=lambda: random_bytes(_MASK_BYTES)
    )
    reached.connection.set_parser(line, None)
    if reached.connection.transport is None:  # it broke before anybody would have been told
        line.feed_eof()
    chosen = offered(reached.headers)
    protocol = chosen[0] if chosen else None
    return Opened(line, reached.headers, protocol, reached.close, reached.abort)


def _agreed(headers: CIMultiDictProxy[str], key: str, protocols: Sequence[str]) -> bool:
    """Tell whether a 101 is what was asked for: anything else is some other protocol (H32)."""
    chosen = offered(headers)
    return (
        names(headers, "upgrade") == ["websocket"]
        and "upgrade" in names(headers, "connection")
        and headers.getall("sec-websocket-accept", ()) == [accept_of(key)]
        and "sec-websocket-extensions" not in headers
        and chosen is not None
        and len(chosen) <= 1
        and set(chosen) <= set(protocols)
    )
