"""Signed, stateless links to identity verification: nothing is stored until one is opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import jwt

from gatekeeper.policy.words import Assurance

PREFIX: Final = "/gatekeeper/v1/verify/"
CHECKS: Final = "/gatekeeper/v1/checks/"
_AUDIENCE: Final = "gatekeeper-verification"
_ALGORITHM: Final = "HS256"


@dataclass(frozen=True, slots=True)
class VerificationLink:
    """Where a caller proves an identity, and until when the link is good (Unix seconds)."""

    url: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class LinkClaims:
    """What a link that checks out says."""

    account_id: str
    assurance: Assurance
    decision_id: str
    expires_at: int


class LinkSigner:
    """Makes and checks links with one key; ``public_url`` is how callers reach this gate."""

    def __init__(self, key: bytes, public_url: str, ttl_s: float) -> None:
        self._key = key
        self._outside = public_url.rstrip("/")
        self._ttl_s = ttl_s

    def issue(
        self, account_id: str, assurance: Assurance, decision_id: str, now_s: float
    ) -> VerificationLink:
        """Return a link for one account and the assurance it must reach."""
        expires_at = int(now_s + self._ttl_s)
        token = jwt.encode(
            {
                "aud": _AUDIENCE,
                "sub": account_id,
                "acr": assurance.value,
                "jti": decision_id,
                "exp": expires_at,
            },
            self._key,
            algorithm=_ALGORITHM,
        )
        return VerificationLink(self._outside + PREFIX + token, expires_at)

    def check_url(self, case_id: str) -> str:
        """Return where a vendor's page leads back to; the vendor learns no account from it."""
        return f"{self._outside}{CHECKS}{case_id}"

    def check(self, token: str, now_s: float) -> LinkClaims | None:
        """Return what a link's token says; ``None`` when it is forged, damaged or expired."""
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                options={"require": ["exp", "sub", "acr", "jti"], "verify_exp": False},
            )
            found = LinkClaims(
                account_id=str(claims["sub"]),
                assurance=Assurance(claims["acr"]),
                decision_id=str(claims["jti"]),
                expires_at=int(claims["exp"]),
            )
        except (jwt.InvalidTokenError, ValueError, TypeError):
            return None
        return found if now_s < found.expires_at else None
