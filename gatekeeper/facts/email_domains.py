"""Mail domains that hand out throw-away addresses, from the disposable-email-domains list (MIT)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

import idna
from disposable_email_domains import blocklist

if TYPE_CHECKING:
    from collections.abc import Iterable

_LISTED: Final = ("disposable",)
_MAX_DOMAIN: Final = 253


class DisposableDomains:
    """A list of mail domains; a domain is listed by itself or by any parent."""

    def __init__(self, domains: Iterable[str]) -> None:
        self._domains = frozenset(domains)

    @classmethod
    def bundled(cls) -> Self:
        """Return the list that is installed with Gatekeeper."""
        return cls(blocklist)

    def __len__(self) -> int:
        return len(self._domains)

    def listed_by(self, domain: str | None) -> tuple[str, ...]:
        """Return ``("disposable",)`` when ``domain`` or a parent is on the list, else ``()``."""
        name = "" if domain is None else normal_domain(domain)
        while name:
            if name in self._domains:
                return _LISTED
            name = name.partition(".")[2]
        return ()


def normal_domain(domain: str) -> str:
    """Return ``domain`` in lower case and ASCII (UTS 46); empty when it is not a domain."""
    text = domain.strip().rstrip(".").lower()
    if not text or len(text) > _MAX_DOMAIN:
        return ""
    if text.isascii():
        return text
    try:
        return idna.encode(text, uts46=True).decode("ascii")
    except idna.IDNAError:
        return ""
