"""Who asks: admin keys, hosts that are served, and a bound on failed attempts (H20).

Only a bearer key counts. Addresses are those of the connection; no forwarded header is read.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from gatekeeper.facts.key_shapes import ADMIN_KEY
from gatekeeper.management.problems import Code, Problem

if TYPE_CHECKING:
    from collections.abc import Collection

    from multidict import CIMultiDictProxy

    from gatekeeper.storage.admin_keys import AdminKeyRow, AdminKeys

_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="gatekeeper management"'}
_HOW: Final = (
    "Send `Authorization: Bearer gka_...`. "
    "There is no default key: make one with `gatekeeper admin-keys create NAME --role admin`."
)


def authority_problem(headers: CIMultiDictProxy[str], hosts: Collection[str]) -> Problem | None:
    """Refuse what a page of another site makes a browser send (DNS rebinding, cross-site calls)."""
    named = headers.getall("Host", ())
    name = named[0].strip().lower() if len(named) == 1 else ""
    host = _host_of(name)
    if host is None:
        return Problem(Code.MALFORMED, "Send one Host header.")
    if not _is_address(host) and host not in {"localhost", *hosts}:
        return Problem(
            Code.HOST_NOT_SERVED,
            "Use the listener's address, or add the name by which you reach it to `admin.hosts`.",
        )
    if headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        return Problem(Code.CROSS_SITE, "Call the API from its own page, or from a program.")
    origins = headers.getall("Origin", ())
    if any(origin.partition("://")[2].lower() != name for origin in origins):
        return Problem(Code.CROSS_SITE, "Call the API from its own page, or from a program.")
    return None


def _host_of(value: str) -> str | None:
    host = value
    if host.startswith("["):
        host, bracket, port = host[1:].partition("]")
        port = port.removeprefix(":") if bracket else "?"
    else:
        host, _, port = host.partition(":")
    return host if host and (not port or (port.isascii() and port.isdigit())) else None


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


class Authenticator:
    """Checks admin keys against the records at each request, so that revocation is immediate."""

    def __init__(self, keys: AdminKeys, subkey: bytes) -> None:
        self._keys = keys
        self._subkey = subkey

    async def identify(self, headers: CIMultiDictProxy[str], at: float) -> AdminKeyRow | Problem:
        """Return the key that was sent; raises ``RecordsError`` when it cannot be looked up.

        The look-up is by keyed digest, so its time tells nothing of how much of a key is right.
        """
        values = headers.getall("Authorization", ())
        if len(values) != 1:
            said = "The Authorization header stands more than once. " if values else ""
            return _unauthenticated(said + _HOW)
        scheme, _, secret = values[0].partition(" ")
        secret = secret.strip(" ")
        if scheme.lower() != "bearer" or not ADMIN_KEY.is_well_formed(secret):
            return _unauthenticated(f"This is no admin key, or it is mistyped. {_HOW}")
        key = await self._keys.by_digest(ADMIN_KEY.digest(secret, self._subkey))
        if key is None or key.revoked_at is not None:
            return _unauthenticated(f"This admin key is not known or was revoked. {_HOW}")
        if not key.usable(at):
            return _unauthenticated(f"This admin key has expired. {_HOW}")
        return key


def _unauthenticated(detail: str) -> Problem:
    return Problem(Code.UNAUTHENTICATED, detail, headers=_CHALLENGE)


def too_many_failures() -> Problem:
    """Return the answer to a peer that keeps failing."""
    return Problem(
        Code.TOO_MANY_FAILURES,
        "Too many requests from this address came without a valid admin key. Wait a minute.",
        headers={"Retry-After": "60", **_CHALLENGE},
    )
