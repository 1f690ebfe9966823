"""Public keys of an identity provider: a JWK Set (RFC 7517), parsed strictly."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA"},
)
"""Every signature algorithm accepted at all (RFC 7518, RFC 8037); none is symmetric."""

_MAX_KEYS: Final = 100
_MIN_RSA_BITS: Final = 2048
_MAX_RSA_BITS: Final = 8192
_RSA_EXPONENTS: Final = range(3, 2**32, 2)
_CURVES: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_SECRET_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_ROCA_PRIMES: Final = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)


class JwksError(Exception):
    """A key set could not be fetched or read; the message is for operators."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of one provider."""

    revision: str
    """Digest of the document."""
    by_kid: dict[tuple[str | None, str], PyJWK]
    """Keys by ``kid`` (``None``: the key has none) and algorithm."""
    refused: tuple[str, ...]
    """Why other keys of the document are not used."""

    def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """Return the one key a token with this header may be checked with.

        A token without ``kid`` is checked only when a single key fits, so that every token costs
        at most one verification.
        """
        if kid is not None:
            return self.by_kid.get((kid, algorithm))
        fitting = [key for (_, name), key in self.by_kid.items() if name == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    def knows(self, kid: str) -> bool:
        """Tell whether any key carries this ``kid``."""
        return any(name == kid for name, _ in self.by_kid)


def parse_jwks(data: bytes, algorithms: Collection[str]) -> KeySet:
    """Read a JWK Set; keys unfit for verifying are left out, an unfit document raises JwksError."""
    try:
        document = strict_json(data)
    except ValueError as error:
        raise JwksError(f"not a JWK Set: {error}") from error
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise JwksError("not a JWK Set: it has no list of keys")
    if len(entries) > _MAX_KEYS:
        raise JwksError(f"more than {_MAX_KEYS} keys")
    if any(isinstance(entry, dict) and entry.get("kty") == "oct" for entry in entries):
        # Whoever publishes a shared secret has mixed up files; none of its keys can be trusted.
        raise JwksError("holds a symmetric key, which must never be published")
    refused: list[str] = []
    by_kid: dict[tuple[str | None, str], PyJWK] = {}
    for number, entry in enumerate(_without_doubles(entries, refused)):
        try:
            for name in _algorithms_of(entry):
                if name in algorithms:
                    by_kid[(entry.get("kid"), name)] = _build(entry, name)
        except JwksError as error:
            refused.append(f"key {number}: {error}")
    if not by_kid:
        raise JwksError("no usable key: " + ("; ".join(refused) or "none fits the algorithms"))
    return KeySet(hashlib.sha256(data).hexdigest()[:16], by_kid, tuple(refused))


def strict_json(data: bytes) -> dict[str, Any]:
    """Read a JSON object in UTF-8, no member twice, no NaN; all else is a :class:`ValueError`."""
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one exception for every bad text
    return value


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError("a member stands twice")
        found[name] = value
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _without_doubles(entries: list[Any], refused: list[str]) -> list[dict[str, Any]]:
    """Drop what is no key, and every key whose ``kid`` names two (which one is meant?)."""
    keys: list[dict[str, Any]] = []
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("kid"), str | None):
            if entry not in keys:
                keys.append(entry)
        else:
            refused.append("an entry is not a key with a textual kid")
    kids = [key.get("kid") for key in keys]
    doubled = {kid for kid in kids if kids.count(kid) > 1}
    if doubled:
        refused.append(f"{len(doubled)} kid stand for several keys")
    return [key for key in keys if key.get("kid") not in doubled]


def _algorithms_of(key: dict[str, Any]) -> tuple[str, ...]:
    """Return the algorithms a key may verify by its own account (RFC 7517, sections 4.2-4.4)."""
    if not _SECRET_MEMBERS.isdisjoint(key):
        raise JwksError("holds a private key, which must never be published")
    if key.get("use", "sig") != "sig":
        raise JwksError("is not for signatures (use)")
    operations = key.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise JwksError("is not for verifying (key_ops)")
    kind, curve = key.get("kty"), key.get("crv")
    fitting: tuple[str, ...] = ()
    if kind == "RSA":
        fitting = ("RS256", "RS384", "RS512")
    elif kind == "EC" and isinstance(curve, str) and curve in _CURVES:
        fitting = (_CURVES[curve],)
    elif kind == "OKP" and curve == "Ed25519":
        fitting = ("EdDSA",)
    if "alg" in key:
        named = "EdDSA" if key["alg"] == "Ed25519" else key["alg"]  # RFC 9864 renamed it
        fitting = tuple(name for name in fitting if name == named)
    if not fitting:
        raise JwksError("has no supported combination of kty, crv and alg")
    return fitting


def _build(key: dict[str, Any], algorithm: str) -> PyJWK:
    try:
        built = PyJWK(key, algorithm)
    except (PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        # The library's text repeats the key.
        raise JwksError("cannot be read") from None
    if isinstance(built.key, RSAPublicKey):
        _check_rsa(built.key)
    return built


def _check_rsa(key: RSAPublicKey) -> None:
    numbers = key.public_numbers()
    if not _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
        raise JwksError(f"an RSA key has {_MIN_RSA_BITS} to {_MAX_RSA_BITS} bits")
    if numbers.e not in _RSA_EXPONENTS:
        raise JwksError("has an unusual RSA exponent")
    if all(_is_power_of_65537(numbers.n, prime) for prime in _ROCA_PRIMES):
        raise JwksError("has the ROCA weakness (CVE-2017-15361)")


def _is_power_of_65537(modulus: int, prime: int) -> bool:
    return modulus % prime in {pow(65537, exponent, prime) for exponent in range(prime - 1)}
