"""Who is calling: the credential in a request's headers, and the account behind it.

Read are ``Authorization: Bearer``, ``x-api-key``, ``api-key`` and, as pages can set no header of a
WebSocket, the subprotocol in which OpenAI's browser clients send their key. A header that stands
twice, or two headers that differ, are refused: the upstream might read the other one (H5). One
value in several headers is one credential, and a blank header is none: SDKs send both.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final, Protocol

from msgspec.structs import replace

from gatekeeper.facts.api_keys import KEY_PREFIX, is_well_formed, key_digest, key_id_of
from gatekeeper.facts.jwt_tokens import (
    MAX_TOKEN_CHARS,
    RESERVED_ACCOUNT_PREFIX,
    looks_like_jwt,
)
from gatekeeper.facts.key_shapes import ADMIN_KEY
from gatekeeper.policy.model import Account, Credential
from gatekeeper.policy.words import CredentialKind, CredentialStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gatekeeper.facts.jwt_tokens import JwtVerifier
    from gatekeeper.facts.replica import Replica

NOBODY: Final = Account("")
"""Stands for the caller when no account could be told."""

_PROTOCOLS: Final = "sec-websocket-protocol"
_HEADERS: Final = ("authorization", "x-api-key", "api-key", _PROTOCOLS)
CREDENTIAL_PROTOCOL: Final = "openai-insecure-api-key."
"""Begins the subprotocol of a WebSocket that is a key."""
_BEARER: Final = "Bearer "
_TOKEN: Final = re.compile(r"[\x21-\x2b\x2d-\x7e]+")
"""Visible ASCII without the comma, which would join two header lines into one value."""


class Headers(Protocol):
    """The multi-dict of headers, whose look-up ignores case."""

    def getall(self, key: str, default: Sequence[str], /) -> Sequence[str]:
        """Return every value of one header."""


class _RefusedError(Exception):
    """The headers carry no single readable credential; the message is for the caller."""


class Authenticator:
    """Tells who is calling, from headers alone: no waiting, and no secret leaves it.

    ``subkey`` keys the digests of API keys and opaque keys. ``tokens`` is needed only where JWT is
    a mode.
    """

    def __init__(
        self, directory: Replica, *, subkey: bytes, tokens: JwtVerifier | None = None
    ) -> None:
        self._directory = directory
        self._subkey = subkey
        self._tokens = tokens

    def identify(
        self, headers: Headers, modes: Collection[CredentialKind], at: float
    ) -> tuple[Credential, Account]:
        """Return the credential as judged at ``at`` and its account (:data:`NOBODY` if none).

        A ``gk_`` key is only ever an API key and, where JWT is a mode, a value of three parts is
        only ever a JWT: neither falls through to the opaque mode and so to the upstream.
        """
        try:
            secret = _presented(headers)
        except _RefusedError as error:
            return _refused(CredentialKind.NONE, str(error)), NOBODY
        if secret is None:
            return Credential(CredentialKind.NONE, CredentialStatus.MISSING), NOBODY
        return self._judge(secret, modes, at)

    def _judge(
        self, secret: str, modes: Collection[CredentialKind], at: float
    ) -> tuple[Credential, Account]:
        if secret.startswith(KEY_PREFIX):
            if CredentialKind.API_KEY in modes:
                return self._api_key(secret, at)
            return _refused(CredentialKind.API_KEY, "Gatekeeper keys are not taken here."), NOBODY
        if secret.startswith(ADMIN_KEY.prefix):  # as an opaque key it would go to the upstream
            return _refused(CredentialKind.NONE, "Admin keys open no model."), NOBODY
        if CredentialKind.JWT in modes and self._tokens is not None and looks_like_jwt(secret):
            return self._jwt(self._tokens, secret, at)
        if CredentialKind.OPAQUE in modes:
            return self._opaque(secret, at)
        return _refused(CredentialKind.NONE, _wanted(modes)), NOBODY

    def _api_key(self, secret: str, at: float) -> tuple[Credential, Account]:
        # Found by keyed digest, whose timing tells nothing of the keys that exist (H19).
        entry = self._directory.key(key_digest(secret, self._subkey))
        if entry is None:
            return self._unknown_api_key(secret), NOBODY
        status, detail = CredentialStatus.VALID, None
        if entry.expires_at is not None and entry.expires_at <= at:
            status, detail = CredentialStatus.EXPIRED, "The API key has expired."
        credential = Credential(
            CredentialKind.API_KEY, status, entry.key_id, entry.account_id, detail=detail
        )
        return credential, self._directory.account(entry.account_id, at)

    def _unknown_api_key(self, secret: str) -> Credential:
        if not is_well_formed(secret):
            return _refused(
                CredentialKind.API_KEY, "The API key is mistyped or cut off: copy it again whole."
            )
        if self._directory.failing:
            # It may have been created a moment ago: we cannot know.
            return Credential(CredentialKind.API_KEY, CredentialStatus.UNKNOWN, key_id_of(secret))
        return Credential(
            CredentialKind.API_KEY,
            CredentialStatus.INVALID,
            key_id_of(secret),
            detail="The API key is not known or was revoked.",
        )

    def _jwt(self, tokens: JwtVerifier, secret: str, at: float) -> tuple[Credential, Account]:
        found = tokens.verify(secret, at)
        credential = Credential(
            CredentialKind.JWT,
            found.status,
            found.key_id,
            found.account_id,
            found.tier,
            found.organization,
            found.detail,
        )
        if found.account_id is None:
            return credential, NOBODY
        account = claimed(self._directory.account(found.account_id, at), credential)
        return credential, self._directory.vouched(account)

    def _opaque(self, secret: str, at: float) -> tuple[Credential, Account]:
        digest = hashlib.blake2b(
            secret.encode(), key=self._subkey, digest_size=10, person=b"gk opaque key"
        )
        account_id = RESERVED_ACCOUNT_PREFIX + digest.hexdigest()
        credential = Credential(
            CredentialKind.OPAQUE, CredentialStatus.VALID, account_id, account_id
        )
        return credential, self._directory.account(account_id, at)


def claimed(account: Account, credential: Credential) -> Account:
    """Return ``account`` with the stricter of both tiers, and the claimed organization if none."""
    tier = account.tier
    if credential.claimed_tier is not None:
        tier = tier.stricter(credential.claimed_tier)
    organization = account.organization or credential.claimed_organization
    if tier is account.tier and organization == account.organization:
        return account
    return replace(account, tier=tier, organization=organization)


def _presented(headers: Headers) -> str | None:
    """Return the one secret the headers carry, ``None`` when they carry none."""
    secret: str | None = None
    for name in _HEADERS:
        values: Sequence[str] = headers.getall(name, ())
        if values and name == _PROTOCOLS:
            values = _keys_among(values)
        if not values:
            continue
        if len(values) > 1:
            raise _RefusedError(f"The {name} header stands more than once.")
        value = values[0]
        if name == "authorization":
            value = _bearer(value)
        if not value:
            continue
        if secret is not None and value != secret:
            raise _RefusedError("Two headers carry different credentials: send one.")
        secret = value
    if secret is not None and (len(secret) > MAX_TOKEN_CHARS or not _TOKEN.fullmatch(secret)):
        raise _RefusedError("The credential is too long or holds characters that none can have.")
    return secret


def _keys_among(lines: Sequence[str]) -> list[str]:
    """Return the keys among the subprotocols of a WebSocket."""
    offered = [each.strip(" \t") for line in lines for each in line.split(",")]
    prefix = CREDENTIAL_PROTOCOL
    return [each[len(prefix) :] for each in offered if each.startswith(prefix)]


def _bearer(value: str) -> str:
    """Return what follows ``Bearer`` (RFC 6750), empty for a blank header."""
    if value.startswith(_BEARER):
        return value[len(_BEARER) :].strip(" ")
    scheme, _, rest = value.strip(" ").partition(" ")
    if scheme and scheme.lower() != "bearer":
        raise _RefusedError("The authorization header must say: Bearer, a space, and the key.")
    return rest.strip(" ")


def _refused(kind: CredentialKind, detail: str) -> Credential:
    return Credential(kind, CredentialStatus.INVALID, detail=detail)


def _wanted(modes: Collection[CredentialKind]) -> str:
    if CredentialKind.API_KEY in modes and CredentialKind.JWT in modes:
        return "An API key that starts with gk_, or a bearer token (JWT), is needed here."
    if CredentialKind.JWT in modes:
        return "A bearer token (JWT) is needed here."
    return "An API key that starts with gk_ is needed here."
