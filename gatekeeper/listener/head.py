"""The head of a request: checked strictly, and turned into what goes to the upstream."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from multidict import CIMultiDict

from gatekeeper.listener.target import Target, parse_target
from gatekeeper.listener.websocket import Heading, Upgrade, read_upgrade
from gatekeeper.policy.words import Reason

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers of one connection only (RFC 9110, 7.6.1)."""
CREDENTIAL_HEADERS: Final = frozenset({"authorization", "x-api-key", "api-key"})
_FORWARDING: Final = frozenset(
    {
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-port",
        "x-real-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "x-client-ip",
    }
)
_OVERRIDING: Final = frozenset(
    {
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
        "x-conversation-id",
    }
)
"""By these some servers take a request for another one than was judged (H1, H26), or (llama.cpp)
write on when its caller has left, who then fetches what was never charged."""
_REBUILT: Final = frozenset(
    {
        "host",
        "content-length",
        "expect",
        "via",
        "sec-websocket-key",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-protocol",
        "sec-websocket-version",
    }
)
_DROPPED: Final = HOP_BY_HOP | _FORWARDING | _OVERRIDING | _REBUILT
_ONCE: Final = (
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "user-agent",
    "origin",
    *sorted(CREDENTIAL_HEADERS),
)
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_PRODUCT: Final = re.compile(r"[A-Za-z0-9._-]{1,40}")


class Head(Struct, frozen=True, gc=False):
    """A request head that passed every check."""

    method: str
    target: Target
    client: str | None
    """First product of the User-Agent."""
    forwarded: CIMultiDict[str]
    """Headers for the upstream, credentials still in place; no hop-by-hop, no twin, no Host."""
    via: str
    """Value of the ``Via`` header to send."""
    upgrade: Upgrade | None = None
    """The handshake, where the caller asks for a WebSocket."""


class BadRequest(Struct, frozen=True, gc=False):
    """Why a request is refused before it is judged."""

    reason: Reason
    detail: str | None
    """A sentence for the caller beyond the reason's own; holds nothing the caller sent."""


def read_head(request: Heading, name: str) -> Head | BadRequest:
    """Check a request head (RFC 9110, RFC 9112) and prepare the upstream's headers.

    ``name`` is this gate's name in ``Via``; a call that carries it already went through (H11).
    """
    if (wrong := _wrong_line(request)) is not None:
        return BadRequest(Reason.INVALID_REQUEST, wrong)
    target = parse_target(request.raw_path)
    if isinstance(target, str):
        return BadRequest(Reason.INVALID_PATH, target)
    headers = request.headers
    if (wrong := _wrong_headers(headers)) is not None:
        return BadRequest(Reason.INVALID_HEADERS, wrong)
    upgrade = read_upgrade(request) if "upgrade" in headers else None
    if isinstance(upgrade, str):
        return BadRequest(Reason.UPGRADE_NOT_SUPPORTED, upgrade)
    via = ", ".join(headers.getall("via", ()))
    if via and any(hop.split()[1:2] == [name] for hop in via.split(",")):
        return BadRequest(
            Reason.LOOP_DETECTED,
            "The upstream of this gate leads back to it, or another gate has the same name.",
        )
    mine = f"1.1 {name}"
    return Head(
        method=request.method,
        target=target,
        client=_product(headers.get("user-agent")),
        forwarded=_for_upstream(headers),
        via=f"{via}, {mine}" if via else mine,
        upgrade=upgrade,
    )


def _wrong_line(request: Heading) -> str | None:
    version = request.version
    if version.major != 1 or version.minor not in {0, 1}:
        return "Use HTTP/1.1."
    if request.method not in METHODS:
        return "The method is not supported."
    if version.minor == 0 and "transfer-encoding" in request.headers:  # RFC 9112, 6.1
        return "Transfer-encoding needs HTTP/1.1."
    return None


def _wrong_headers(headers: CIMultiDictProxy[str]) -> str | None:
    if "host" not in headers:
        return "The Host header is missing."
    if len({name.lower() for name in headers}) != len(headers):
        for name in _ONCE:
            if len(headers.getall(name, ())) > 1:
                return f"The header {name} is sent more than once."
    if not _encodable("".join(headers.values())):
        return "A header holds bytes that are not UTF-8."
    if _HOST.fullmatch(headers["host"]) is None:
        return "The Host header is malformed."
    length = headers.get("content-length")
    if length is not None and not (length.isascii() and length.isdigit()):
        return "The header content-length is malformed."
    coding = headers.get("transfer-encoding")
    if coding is not None and (length is not None or coding.lower() != "chunked"):
        return "Send either content-length or transfer-encoding: chunked."
    return None


def _encodable(text: str) -> bool:
    """Tell whether values can be sent on: aiohttp reads odd bytes as lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _product(agent: str | None) -> str | None:
    if agent is None:
        return None
    found = _PRODUCT.match(agent)
    return found[0] if found else None


def _for_upstream(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    nominated = ",".join(headers.getall("connection", ())).lower()
    dropped = _DROPPED
    if nominated not in {"", "keep-alive", "close"}:
        # Identity is read from the original head, so nominating it gains nothing (H6).
        dropped = dropped | {token.strip() for token in nominated.split(",")}
    forwarded = CIMultiDict[str]()
    for name, value in headers.items():
        if "_" not in name and name.lower() not in dropped:
            forwarded.add(name, value)
    return forwarded
