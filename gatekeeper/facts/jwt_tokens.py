"""Bearer tokens (JWT): RFC 7519 in the strict reading of RFC 8725.

PyJWT checks signatures; what a token must look like before and say after is checked here, against
the time that is passed in.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError

from gatekeeper.facts.jwks import ALGORITHMS, KeySet, strict_json
from gatekeeper.facts.jwks_source import JwksSource, Lookup, file_loader, url_loader
from gatekeeper.policy.words import CredentialStatus, Tier
from gatekeeper.storage.records_schema import is_account_id, is_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import aiohttp
    from jwt import PyJWK

    from gatekeeper.settings import JwtIssuer

MAX_TOKEN_CHARS: Final = 8_192
RESERVED_ACCOUNT_PREFIX: Final = "opaque-"
"""Ids that only opaque keys have; a token cannot name such an account."""

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-]+")
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt", "application/jwt"})
_REFUSED_HEADERS: Final = frozenset({"crit", "b64", "jwk", "jku", "x5u", "x5c", "zip"})
"""Extensions we would have to understand, and keys a sender chose itself."""
_TIERS: Final = frozenset(tier.value for tier in Tier)
_SEPARATORS: Final = 2
_MAX_KID: Final = 256


@dataclass(frozen=True, slots=True)
class Issuer:
    """One identity provider and how its claims are read."""

    issuer: str
    audience: str
    keys: JwksSource
    algorithms: frozenset[str]
    account_claim: str = "sub"
    """A claim's name, or a dotted path into nested claims; as the two below."""
    organization_claim: str | None = None
    tier_claim: str | None = None
    leeway_s: float = 30.0

    def __post_init__(self) -> None:
        """Refuse an issuer or audience that would match everything."""
        if not self.issuer or not self.audience:
            raise ValueError("issuer and audience are required")
        if not self.algorithms or not self.algorithms <= ALGORITHMS:
            raise ValueError(f"algorithms must be some of {sorted(ALGORITHMS)}")


@dataclass(frozen=True, slots=True)
class TokenResult:
    """How checking a token ended; the claims are there only when it was ``VALID``."""

    status: CredentialStatus
    detail: str | None = None
    """What is wrong with it, for the caller."""
    account_id: str | None = None
    organization: str | None = None
    tier: Tier | None = None
    key_id: str | None = None
    """Digest of issuer and account: names the credential in records."""


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A token taken apart; nothing of it is proven."""

    header: dict[str, Any]
    payload: bytes
    text: str

    @property
    def kid(self) -> str | None:
        """The key it says it was signed with."""
        kid: str | None = self.header.get("kid")
        return kid


@dataclass(frozen=True, slots=True)
class _Cached:
    result: TokenResult
    issuer: Issuer
    keys: KeySet
    valid_from: float
    valid_until: float


class TokenRefusedError(Exception):
    """The token is refused; the message is for the caller and quotes nothing of the token."""


class JwtVerifier:
    """Checks tokens of several issuers and remembers the verified ones.

    Raises :class:`ValueError` when two issuers have one name. ``subkey`` keys the digests that
    name credentials in records.
    """

    def __init__(
        self, issuers: Iterable[Issuer], *, subkey: bytes, cache_size: int = 10_000
    ) -> None:
        self._issuers: dict[str, Issuer] = {}
        for issuer in issuers:
            if issuer.issuer in self._issuers:
                raise ValueError(f"issuer {issuer.issuer} is configured twice")
            self._issuers[issuer.issuer] = issuer
        self._subkey = subkey
        self._cache_size = cache_size
        self._cache: OrderedDict[bytes, _Cached] = OrderedDict()

    def verify(self, text: str, at: float) -> TokenResult:
        """Check a compact token as of ``at``; never raises and never waits."""
        # The whole digest: two tokens never share an entry (H19).
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        cached = self._cache.get(digest)
        if cached is not None:
            in_force = cached.issuer.keys.keys(at) is cached.keys
            if in_force and cached.valid_from <= at < cached.valid_until:
                self._cache.move_to_end(digest)
                return cached.result
            del self._cache[digest]
        try:
            return self._verify(text, digest, at)
        except TokenRefusedError as error:
            return TokenResult(CredentialStatus.INVALID, str(error))

    def _verify(self, text: str, digest: bytes, at: float) -> TokenResult:
        token = open_token(text)
        claims = _object(token.payload, "payload")
        name = claims.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise TokenRefusedError("The token's issuer is not accepted here.")
        algorithm = token.header["alg"]
        if algorithm not in issuer.algorithms:
            raise TokenRefusedError("The token's algorithm is not accepted for its issuer.")
        keys = issuer.keys.keys(at)
        key = issuer.keys.find(token.kid, algorithm, at)
        if keys is None or key in {Lookup.NO_KEYS, Lookup.NOT_ASKED}:
            return TokenResult(CredentialStatus.UNKNOWN)
        if isinstance(key, Lookup) or not is_signed_by(token, key):
            raise TokenRefusedError("The token's signature could not be verified.")
        expires = _check_claims(claims, issuer, at)
        if expires <= at:
            return TokenResult(CredentialStatus.EXPIRED, "The token has expired.")
        result = self._read_claims(claims, issuer)
        begins = max(_moment(claims, name) or -math.inf for name in ("nbf", "iat"))
        self._cache[digest] = _Cached(result, issuer, keys, begins - issuer.leeway_s, expires)
        if len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return result

    def _read_claims(self, claims: dict[str, Any], issuer: Issuer) -> TokenResult:
        account = _claim(claims, issuer.account_claim)
        if (
            not isinstance(account, str)
            or not is_account_id(account)
            or account.startswith(RESERVED_ACCOUNT_PREFIX)
        ):
            raise TokenRefusedError("The token names no account, or not one that is possible here.")
        organization = _claim(claims, issuer.organization_claim)
        if organization is not None and not (
            isinstance(organization, str) and is_name(organization)
        ):
            raise TokenRefusedError("The token's organization claim is not a short text.")
        tier = _claim(claims, issuer.tier_claim)
        if tier is not None and not (isinstance(tier, str) and tier in _TIERS):
            raise TokenRefusedError("The token's tier claim is not one of the tiers.")
        named = hashlib.blake2b(
            f"{issuer.issuer}\n{account}".encode(),
            key=self._subkey,
            digest_size=10,
            person=b"gk jwt subject",
        )
        return TokenResult(
            CredentialStatus.VALID,
            account_id=account,
            organization=organization,
            tier=None if tier is None else Tier(tier),
            key_id=f"jwt-{named.hexdigest()}",
        )


def issuer_of(
    config: JwtIssuer,
    *,
    session: aiohttp.ClientSession,
    clock: Callable[[], float],
    chance: Callable[[], float],
) -> Issuer:
    """Build an issuer from settings; raises :class:`ValueError` saying what is wrong with them."""
    if config.jwks_url is not None and config.jwks_file is None:
        load = url_loader(session, config.jwks_url)
    elif config.jwks_file is not None and config.jwks_url is None:
        load = file_loader(config.jwks_file)
    else:
        raise ValueError("give one of jwks_url and jwks_file")
    keys = JwksSource(
        load,
        algorithms=config.algorithms,
        refresh_s=config.refresh_s,
        clock=clock,
        chance=chance,
    )
    return Issuer(
        issuer=config.issuer,
        audience=config.audience,
        keys=keys,
        algorithms=frozenset(config.algorithms),
        account_claim=config.account_claim,
        organization_claim=config.organization_claim,
        tier_claim=config.tier_claim,
        leeway_s=config.leeway_s,
    )


def looks_like_jwt(text: str) -> bool:
    """Tell whether ``text`` has the three parts of a compact JWS."""
    return text.count(".") == _SEPARATORS


def open_token(text: str) -> SignedToken:
    """Take a compact JWS apart, refusing every form a strict reader need not understand (H17)."""
    if len(text) > MAX_TOKEN_CHARS:
        raise TokenRefusedError(f"The token is longer than {MAX_TOKEN_CHARS} characters.")
    if not looks_like_jwt(text):
        raise TokenRefusedError("The token does not have three parts.")
    segments = text.split(".")
    header_bytes, payload, _ = (_decode(segment) for segment in segments)
    header = _object(header_bytes, "header")
    if header.get("alg") not in _KNOWN_ALGORITHMS or not isinstance(header["alg"], str):
        raise TokenRefusedError("The token's algorithm is not accepted.")
    if not _REFUSED_HEADERS.isdisjoint(header):
        raise TokenRefusedError("The token's header carries a key or an extension.")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise TokenRefusedError("The token is of another type than JWT.")
    kid = header.get("kid")
    if "kid" in header and not (isinstance(kid, str) and 0 < len(kid) <= _MAX_KID):
        raise TokenRefusedError("The token's key id is not a short text.")
    return SignedToken(header, payload, text)


def is_signed_by(token: SignedToken, key: PyJWK) -> bool:
    """Check the signature with one key, and with that key's own algorithm only."""
    try:
        _JWS.decode_complete(
            token.text, key, [key.algorithm_name], options={"enforce_minimum_key_length": True}
        )
    except (PyJWTError, ValueError, TypeError):
        return False
    return True


_JWS: Final = PyJWS(algorithms=sorted(ALGORITHMS))
_KNOWN_ALGORITHMS: Final = tuple(ALGORITHMS)  # a tuple: a header's alg may be unhashable


def _decode(segment: str) -> bytes:
    """Decode canonical base64url: no padding, no other characters, no stray bits."""
    if not segment:
        return b""
    if not _SEGMENT.fullmatch(segment):
        raise TokenRefusedError("The token is not base64url.")
    try:
        data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error:
        raise TokenRefusedError("The token is not base64url.") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != segment:
        raise TokenRefusedError("The token is not canonical base64url.")
    return data


def _object(data: bytes, part: str) -> dict[str, Any]:
    try:
        return strict_json(data)
    except ValueError:
        raise TokenRefusedError(f"The token's {part} is not a JSON object.") from None


def _check_claims(claims: dict[str, Any], issuer: Issuer, at: float) -> float:
    """Check audience and times; return when the token ends, leeway included."""
    audiences = claims.get("aud")
    if isinstance(audiences, str):
        audiences = [audiences]
    if (
        not isinstance(audiences, list)
        or not all(isinstance(audience, str) for audience in audiences)
        or issuer.audience not in audiences
    ):
        raise TokenRefusedError("The token is not meant for this audience.")
    expires = _moment(claims, "exp")
    if expires is None:
        raise TokenRefusedError("The token does not say when it expires.")
    for name in ("nbf", "iat"):
        moment = _moment(claims, name)
        if moment is not None and moment > at + issuer.leeway_s:
            raise TokenRefusedError("The token is not valid yet.")
    return expires + issuer.leeway_s


def _moment(claims: dict[str, Any], name: str) -> float | None:
    """Return a NumericDate (RFC 7519, section 2)."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRefusedError(f"The token's {name} is not a number.")
    if not 0 <= value < 2**53:
        raise TokenRefusedError(f"The token's {name} is not a possible time.")
    return float(value)


def _claim(claims: dict[str, Any], path: str | None) -> object:
    """Return a claim by name (names may hold dots: URLs), else by dotted path."""
    if path is None:
        return None
    if path in claims:
        return claims[path]
    value: object = claims
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
