"""What differs from listener to listener: who may come in, and whom it believes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from gatekeeper.facts.address import client_address
from gatekeeper.settings import ForwardedHeader

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from aiohttp.web import BaseRequest
    from multidict import CIMultiDictProxy

    from gatekeeper.facts.address import ClientAddress, TrustedProxies
    from gatekeeper.policy.words import CredentialKind

_REMEMBERED: Final = 8_192
_FORWARDED_LINES: Final = {
    ForwardedHeader.X_FORWARDED_FOR: "x-forwarded-for",
    ForwardedHeader.FORWARDED: "forwarded",
}


@dataclass(frozen=True, slots=True)
class Door:
    """What differs from listener to listener."""

    modes: Collection[CredentialKind]
    forwarded_header: ForwardedHeader
    locate: Callable[[str, tuple[str, ...]], ClientAddress]
    """Client address from peer and forwarded lines; remembers, as callers keep connections."""

    @classmethod
    def of(
        cls,
        modes: Collection[CredentialKind],
        header: ForwardedHeader,
        trusted: TrustedProxies,
    ) -> Door:
        """Return a door that believes ``header`` of ``trusted`` proxies."""

        def locate(peer: str, lines: tuple[str, ...]) -> ClientAddress:
            return client_address(peer, lines, header, trusted)

        return cls(modes, header, lru_cache(_REMEMBERED)(locate))

    def client_of(self, request: BaseRequest) -> ClientAddress:
        """Return where a request comes from."""
        protocol = request.protocol
        proxied = getattr(protocol, "proxied", None)
        peer = getattr(protocol, "peer", "") if proxied is None else str(proxied)
        return self.client_at(peer, request.headers)

    def client_at(self, peer: str, headers: CIMultiDictProxy[str]) -> ClientAddress:
        """Return where a request with these headers comes from, if this peer sent it."""
        header = _FORWARDED_LINES.get(self.forwarded_header)
        lines = () if header is None else tuple(headers.getall(header, ()))
        return self.locate(peer, lines)
