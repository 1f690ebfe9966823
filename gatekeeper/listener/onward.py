"""The headers with which a call goes on to its upstream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekeeper.listener.head import CREDENTIAL_HEADERS
from gatekeeper.policy.words import CredentialKind

if TYPE_CHECKING:
    from multidict import CIMultiDict

    from gatekeeper.listener.head import Head
    from gatekeeper.upstream.routes import Route


def headers_onward(head: Head, route: Route, kind: CredentialKind) -> CIMultiDict[str]:
    """Return the upstream's headers: its own credential where it has one, else the caller's."""
    headers, credential = head.forwarded.copy(), route.credential
    if credential is not None or kind is CredentialKind.API_KEY:
        for name in CREDENTIAL_HEADERS:  # a key of ours is nobody else's to see
            headers.popall(name, None)
    if credential is not None:
        headers[credential[0]] = credential[1]
    headers["Via"] = head.via
    return headers
