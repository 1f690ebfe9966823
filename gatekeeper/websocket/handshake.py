"""What both halves of a WebSocket handshake share (RFC 6455, 4)."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Final

from aiohttp.http import WS_KEY

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

VERSION: Final = "13"
PROTOCOLS: Final = "Sec-WebSocket-Protocol"
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_MOST_PROTOCOLS: Final = 16


def accept_of(key: str) -> str:
    """Return what proves that a key was read as a WebSocket's (4.2.2)."""
    digest = hashlib.sha1(key.encode() + WS_KEY, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def names(headers: CIMultiDictProxy[str], field: str) -> list[str]:
    """Return the members of a list-valued header, in lower case."""
    return [each.strip(" \t").lower() for each in ",".join(headers.getall(field, ())).split(",")]


def offered(headers: CIMultiDictProxy[str]) -> tuple[str, ...] | None:
    """Return the subprotocols that headers name; ``None`` when they are malformed or repeat."""
    lines = headers.getall(PROTOCOLS, ())
    protocols = tuple(token.strip(" \t") for token in ",".join(lines).split(",")) if lines else ()
    sound = len(protocols) <= _MOST_PROTOCOLS and len(set(protocols)) == len(protocols)
    return protocols if sound and all(map(_TOKEN.fullmatch, protocols)) else None
