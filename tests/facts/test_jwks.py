"""Key sets: only keys fit for verifying are taken, whatever the document holds."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from gatekeeper.facts.jwks import ALGORITHMS, JwksError, KeySet, parse_jwks, strict_json

P256 = ec.generate_private_key(ec.SECP256R1())


def ec_jwk(key: ec.EllipticCurvePrivateKey = P256, **members: Any) -> dict[str, Any]:
    """Return the public JWK of an EC key with more members."""
    return {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), **members}


def number(value: int) -> str:
    """Return an integer as JWK has it (RFC 7518, section 6.3.1)."""
    data = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def rsa_jwk(modulus: int, exponent: int = 65537, **members: Any) -> dict[str, Any]:
    """Return an RSA JWK from bare numbers; nobody needs to know the factors."""
    return {"kty": "RSA", "n": number(modulus), "e": number(exponent), **members}


def document(*keys: object) -> bytes:
    """Return a JWK Set."""
    return json.dumps({"keys": keys}).encode()


def taken(*keys: object, algorithms: frozenset[str] = ALGORITHMS) -> KeySet:
    """Parse a set of the given keys."""
    return parse_jwks(document(*keys), algorithms)


def test_each_kind_of_key_serves_its_algorithms() -> None:
    """RSA serves the three RS, each curve its one ES, Ed25519 EdDSA."""
    modulus = rsa.generate_private_key(65537, 2048).public_key().public_numbers().n
    p384 = ec.generate_private_key(ec.SECP384R1())
    p521 = ec.generate_private_key(ec.SECP521R1())
    ed = ed25519.Ed25519PrivateKey.generate().public_key()
    keys = taken(
        rsa_jwk(modulus, kid="r"),
        ec_jwk(kid="e2"),
        ec_jwk(p384, kid="e3", use="sig"),
        ec_jwk(p521, kid="e5", key_ops=["verify"]),
        {**OKPAlgorithm.to_jwk(ed, as_dict=True), "kid": "ed", "alg": "EdDSA"},
    )
    assert set(keys.by_kid) == {
        ("r", "RS256"),
        ("r", "RS384"),
        ("r", "RS512"),
        ("e2", "ES256"),
        ("e3", "ES384"),
        ("e5", "ES512"),
        ("ed", "EdDSA"),
    }
    assert keys.refused == ()


def test_only_configured_algorithms_are_served() -> None:
    """A key that no configured algorithm fits makes the set useless."""
    with pytest.raises(JwksError, match="no usable key"):
        taken(ec_jwk(kid="a"), algorithms=frozenset({"RS256"}))


ODD_2048 = (1 << 2047) + 1235


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (rsa_jwk((1 << 1023) + 1235), "2048 to 8192 bits"),
        (rsa_jwk((1 << 2046) + 1235), "2048 to 8192 bits"),
        (rsa_jwk((1 << 8192) + 1235), "2048 to 8192 bits"),
        (rsa_jwk(ODD_2048, 1), "cannot be read|exponent"),
        (rsa_jwk(ODD_2048, 65536), "cannot be read|exponent"),
        (rsa_jwk(ODD_2048, 2**64 + 1), "cannot be read|exponent"),
        (rsa_jwk(ODD_2048, d="AQAB"), "private key"),
        (rsa_jwk(ODD_2048, alg="HS256"), "kty, crv and alg"),
        (rsa_jwk(ODD_2048, alg="RSA-OAEP"), "kty, crv and alg"),
        (rsa_jwk(ODD_2048, alg="PS256"), "kty, crv and alg"),
        (rsa_jwk(ODD_2048, alg="none"), "kty, crv and alg"),
        (rsa_jwk(ODD_2048, alg=["RS256"]), "kty, crv and alg"),
        (ec_jwk(use="enc"), "use"),
        (ec_jwk(use=None), "use"),
        (ec_jwk(key_ops=["sign"]), "key_ops"),
        (ec_jwk(key_ops="verify"), "key_ops"),
        (ec_jwk(alg="ES384"), "kty, crv and alg"),
        (ec_jwk(crv="P-384"), "cannot be read"),
        (ec_jwk(crv="secp256k1"), "kty, crv and alg"),
        (ec_jwk(crv=["P-256"]), "kty, crv and alg"),
        (ec_jwk(x="AAAA"), "cannot be read"),
        (ec_jwk(y=ec_jwk()["x"]), "cannot be read"),
        (ec_jwk(x=7), "cannot be read"),
        (ec_jwk(kty="RSA"), "cannot be read"),
        (ec_jwk(kid=7), "textual kid"),
        ({"kty": "OKP", "crv": "X25519", "x": "AAAA"}, "kty, crv and alg"),
        ({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}, "cannot be read"),
        ({}, "kty, crv and alg"),
        ("key", "textual kid"),
    ],
)
def test_h17_unfit_keys_are_left_out_with_a_reason(key: object, why: str) -> None:
    """Weak, private, misused and malformed keys never verify; the good one beside them does."""
    with pytest.raises(JwksError, match=why):
        taken(key)
    keys = taken(key, ec_jwk(kid="good"))
    assert set(keys.by_kid) == {("good", "ES256")}
    assert len(keys.refused) == 1


def test_h17_a_roca_modulus_is_left_out() -> None:
    """A modulus whose residues are all powers of 65537 has the fingerprint of CVE-2017-15361."""
    primorial = 11 * 13 * 17 * 19 * 37 * 53 * 61 * 71 * 73 * 79 * 97 * 103 * 107 * 109 * 127
    primorial *= 151 * 157
    fingerprint = pow(65537, 41, primorial)
    modulus = fingerprint + primorial * 2 * ((1 << 2047) // (2 * primorial) + 1)
    assert modulus % 2 == 1
    with pytest.raises(JwksError, match="ROCA"):
        taken(rsa_jwk(modulus))
    taken(rsa_jwk(modulus + 2))


def test_h17_a_published_symmetric_key_spoils_the_document() -> None:
    """A provider that publishes a shared secret is not believed in anything."""
    with pytest.raises(JwksError, match="symmetric"):
        taken(ec_jwk(kid="good"), {"kty": "oct", "k": "AAAA", "kid": "bad"})


def test_h17_two_keys_of_one_kid_are_both_left_out() -> None:
    """Nobody can tell which is meant; the same key listed twice is one key."""
    other = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(JwksError, match="several keys"):
        taken(ec_jwk(kid="a"), ec_jwk(other, kid="a"))
    keys = taken(ec_jwk(kid="a"), ec_jwk(other, kid="a"), ec_jwk(other, kid="b"))
    assert set(keys.by_kid) == {("b", "ES256")}
    assert set(taken(ec_jwk(kid="a"), ec_jwk(kid="a")).by_kid) == {("a", "ES256")}


def test_a_key_is_found_by_kid_or_because_it_is_the_only_one() -> None:
    """Without ``kid`` a token is checked only when one key fits."""
    other = ec.generate_private_key(ec.SECP256R1())
    two = taken(ec_jwk(kid="a"), ec_jwk(other, kid="b"))
    assert two.find("a", "ES256") is two.by_kid["a", "ES256"]
    assert two.find("c", "ES256") is None
    assert two.find("a", "ES384") is None
    assert two.find(None, "ES256") is None
    one = taken(ec_jwk())
    assert one.find(None, "ES256") is not None
    assert one.find("a", "ES256") is None
    assert two.knows("a")
    assert not two.knows("c")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": []}',
        b'{"keys": [], "keys": []}',
        b'{"keys": [NaN]}',
        b"[" * 100_000,
        b'{"keys": ' + b"[" * 100_000,
        b'{"keys": [' + b"1," * 100 + b"1]}",
    ],
)
def test_documents_that_are_no_key_set_raise_one_error(data: bytes) -> None:
    """Text, nesting, doubles and floods are all the same kind of failure."""
    with pytest.raises(JwksError):
        parse_jwks(data, ALGORITHMS)


def test_the_revision_follows_the_content() -> None:
    """Equal bytes have one revision, other bytes another."""
    assert taken(ec_jwk()).revision == taken(ec_jwk()).revision
    assert taken(ec_jwk()).revision != taken(ec_jwk(kid="a")).revision


def test_strict_json_returns_objects_only() -> None:
    """An object is read; a member that stands twice deep inside is noticed."""
    assert strict_json(b'{"a": [1]}') == {"a": [1]}
    with pytest.raises(ValueError, match="twice"):
        strict_json(b'{"a": [{"b": 1, "b": 2}]}')


_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.lists(st.text(max_size=4))
)


@settings(max_examples=150, deadline=None)
@given(
    changes=st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "n", "e", "alg", "use", "key_ops", "kid"]),
        st.one_of(_VALUES, st.sampled_from(["RSA", "EC", "OKP", "P-521", "Ed25519", "AQAB"])),
    )
)
def test_any_key_is_taken_or_refused(changes: dict[str, Any]) -> None:
    """No value in any member raises anything but the one error."""
    try:
        keys = taken(ec_jwk(**changes))
    except JwksError:
        return
    assert set(keys.by_kid) <= {(changes.get("kid"), name) for name in ALGORITHMS}
