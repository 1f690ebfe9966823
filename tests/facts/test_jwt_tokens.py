"""Bearer tokens: one strict reading, and every known trick refused (H17)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import get_default_algorithms

from gatekeeper.facts.jwks_source import JwksSource
from gatekeeper.facts.jwt_tokens import Issuer, JwtVerifier, TokenResult, issuer_of
from gatekeeper.policy.words import CredentialStatus, Tier
from gatekeeper.settings import JwtIssuer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

AT = 1_790_000_000.0
SUBKEY = b"s" * 32
ISSUER = "https://login.example"
ALGORITHMS = get_default_algorithms()
VALID = CredentialStatus.VALID
INVALID = CredentialStatus.INVALID

EC_KEY = ec.generate_private_key(ec.SECP256R1())
KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": EC_KEY,
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
KEYS["RS384"] = KEYS["RS512"] = KEYS["RS256"]
CURVE_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def b64(data: bytes | str | object) -> str:
    """Return base64url without padding; what is neither bytes nor text goes in as JSON."""
    if not isinstance(data, bytes | str):
        data = json.dumps(data)
    raw = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims(**changes: Any) -> dict[str, Any]:
    """Return good claims with changes; ``...`` takes one away."""
    good = {"iss": ISSUER, "aud": "gate", "sub": "acme", "exp": AT + 600, **changes}
    return {name: value for name, value in good.items() if value is not ...}


def signed(
    payload: object = None, *, header: object = None, alg: str = "ES256", **changes: Any
) -> str:
    """Return a token signed with our key of ``alg``, whatever its header says."""
    if header is None:
        header = {"alg": alg, "kid": alg, **changes}
    text = b64(header) + "." + b64(claims() if payload is None else payload)
    return text + "." + b64(ALGORITHMS[alg].sign(text.encode(), KEYS[alg]))


def document(**members: Any) -> bytes:
    """Return our public keys as a JWK Set, each under its algorithm's name as ``kid``."""
    keys = []
    for name, key in KEYS.items():
        jwk = ALGORITHMS[name].to_jwk(key.public_key(), as_dict=True)
        keys.append({**jwk, "kid": name, "alg": name, **members})
    return json.dumps({"keys": keys}).encode()


async def issuer(data: bytes | None = None, **options: Any) -> Issuer:
    """Return an issuer whose keys have been read."""
    content = document() if data is None else data

    async def load() -> bytes:
        return content

    algorithms = options.pop("algorithms", frozenset(KEYS))
    keys = JwksSource(
        load, algorithms=algorithms, refresh_s=300, clock=lambda: AT, chance=lambda: 0
    )
    assert await keys.refresh(AT)
    return Issuer(
        **{"issuer": ISSUER, "audience": "gate", **options}, keys=keys, algorithms=algorithms
    )


async def verifier(data: bytes | None = None, **options: Any) -> JwtVerifier:
    """Return a verifier with one issuer."""
    return JwtVerifier([await issuer(data, **options)], subkey=SUBKEY)


@pytest.mark.parametrize("alg", sorted(KEYS))
async def test_each_algorithm_verifies(alg: str) -> None:
    """RS, ES and EdDSA tokens of a configured issuer name their account."""
    found = (await verifier()).verify(signed(alg=alg), AT)
    assert (found.status, found.account_id, found.detail) == (VALID, "acme", None)
    assert str(found.key_id).startswith("jwt-")


@pytest.mark.parametrize("alg", sorted(KEYS))
async def test_each_part_is_covered_by_the_signature(alg: str) -> None:
    """Changing header, payload or any end of the signature is noticed."""
    check = await verifier()
    header, payload, signature = signed(alg=alg).split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    other_header = b64({"alg": alg, "kid": alg, "typ": "JWT"})
    for token in (
        f"{other_header}.{payload}.{signature}",
        f"{header}.{b64(claims(sub='root'))}.{signature}",
        f"{header}.{payload}.{b64(bytes([raw[0] ^ 1]) + raw[1:])}",
        f"{header}.{payload}.{b64(raw[:-1] + bytes([raw[-1] ^ 1]))}",
        f"{header}.{payload}.{b64(raw[:-1])}",
        f"{header}.{payload}.{b64(raw + bytes(1))}",
        f"{header}.{payload}.{b64(bytes(1) + raw)}",
        f"{header}.{payload}.",
    ):
        assert check.verify(token, AT).status is INVALID, token


def hs_token(secret: bytes, alg: str = "HS256") -> str:
    """Return a token with a symmetric signature by ``secret``."""
    text = b64({"alg": alg, "kid": "RS256"}) + "." + b64(claims())
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[alg]
    return text + "." + b64(hmac.new(secret, text.encode(), digest).digest())


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("name", ["RS256", "ES256", "EdDSA"])
async def test_h17_public_material_is_no_hmac_secret(name: str, alg: str) -> None:
    """PEM, DER and JWK of our public keys, and nothing at all, do not sign tokens."""
    check = await verifier()
    public = KEYS[name].public_key()
    jwk = ALGORITHMS[name].to_jwk(public, as_dict=True)
    for secret in (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(jwk).encode(),
        json.dumps(jwk, separators=(",", ":")).encode(),
        str(jwk.get("n", jwk.get("x"))).encode(),
        b"",
    ):
        assert check.verify(hs_token(secret, alg), AT).status is INVALID


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "nOnE", "", "HS256", "PS256", "es256", "ES256K", "RSA1_5", "A"]
)
@pytest.mark.parametrize("signature", ["", "AAAA", None])
async def test_h17_alg_none_and_strangers_are_refused(alg: str, signature: str | None) -> None:
    """Only the listed algorithms count, in their exact spelling, signed or not."""
    token = signed(header={"alg": alg, "kid": "ES256"})
    if signature is not None:
        token = token.rpartition(".")[0] + "." + signature
    assert (await verifier()).verify(token, AT).status is INVALID


@pytest.mark.parametrize("alg", [None, 0, True, [], ["ES256"], {"ES256": 1}, {}])
async def test_h17_alg_of_another_type_is_refused(alg: object) -> None:
    """A list or object as algorithm is no crash and no match."""
    assert (await verifier()).verify(signed(header={"alg": alg}), AT).status is INVALID


@pytest.mark.parametrize(
    ("claimed_alg", "kid"),
    [
        ("RS384", "RS256"),
        ("ES256", "RS256"),
        ("RS256", "ES256"),
        ("ES384", "ES256"),
        ("EdDSA", "ES256"),
        ("ES256", "EdDSA"),
    ],
)
async def test_h17_a_key_serves_its_own_algorithm_only(claimed_alg: str, kid: str) -> None:
    """The header cannot choose another algorithm than the key's own."""
    token = signed(header={"alg": claimed_alg, "kid": kid}, alg=kid)
    assert (await verifier()).verify(token, AT).status is INVALID


async def test_h17_an_algorithm_not_configured_is_refused() -> None:
    """A good signature by an algorithm that the operator left out does not count."""
    check = await verifier(algorithms=frozenset({"RS256"}))
    assert check.verify(signed(alg="RS256"), AT).status is VALID
    assert check.verify(signed(alg="ES256"), AT).status is INVALID
    assert check.verify(signed(header={"alg": "RS512", "kid": "RS256"}, alg="RS512"), AT) == (
        check.verify(signed(alg="ES256"), AT)
    )


def attacker_jwk() -> tuple[Any, dict[str, Any]]:
    """Return a key pair of the attacker and its JWK."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key, ALGORITHMS["ES256"].to_jwk(key.public_key(), as_dict=True)


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c"])
async def test_h17_a_key_in_the_header_is_refused(member: str) -> None:
    """A token does not bring its own key, whoever signed it."""
    key, jwk = attacker_jwk()
    value: object = {"jwk": jwk, "x5c": ["AAAA"]}.get(member, "https://evil.example/jwks")
    check = await verifier()
    text = b64({"alg": "ES256", "kid": "ES256", member: value}) + "." + b64(claims())
    forged = text + "." + b64(ALGORITHMS["ES256"].sign(text.encode(), key))
    assert check.verify(forged, AT).status is INVALID
    assert check.verify(signed(**{member: value}), AT).status is INVALID


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"]},
        {"crit": ["b64"], "b64": False},
        {"crit": ["b64"], "b64": True},
        {"crit": []},
        {"crit": None},
        {"b64": False},
        {"b64": True},
        {"zip": "DEF"},
        {"typ": "logout+jwt"},
        {"typ": "secevent+jwt"},
        {"typ": 1},
        {"typ": None},
        {"kid": 1},
        {"kid": None},
        {"kid": ""},
        {"kid": ["ES256"]},
        {"kid": "x" * 257},
        {"kid": "../../dev/null"},
        {"kid": "' OR 1=1 --"},
    ],
)
async def test_h17_extensions_types_and_odd_kids_are_refused(header: dict[str, Any]) -> None:
    """What we would have to understand, and do not, is refused though the signature is good."""
    assert (await verifier()).verify(signed(**header), AT).status is INVALID


async def test_h17_b64_false_with_a_bare_payload_is_refused() -> None:
    """An unencoded payload (RFC 7797) is not read."""
    header = b64({"alg": "ES256", "kid": "ES256", "b64": False, "crit": ["b64"]})
    payload = json.dumps(claims())
    signature = b64(ALGORITHMS["ES256"].sign(f"{header}.{payload}".encode(), EC_KEY))
    check = await verifier()
    assert check.verify(f"{header}.{payload}.{signature}", AT).status is INVALID
    assert check.verify(f"{header}..{signature}", AT).status is INVALID


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/at+jwt"])
async def test_usual_types_are_accepted(typ: str) -> None:
    """Plain tokens and RFC 9068 access tokens are what is expected."""
    assert (await verifier()).verify(signed(typ=typ), AT).status is VALID


def stray_bits(segment: str) -> str:
    """Return another spelling of the same bytes, if the last character leaves bits unused."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return segment[:-1] + alphabet[alphabet.index(segment[-1]) ^ 1]


SPELLINGS: list[tuple[str, Callable[[str], str]]] = [
    ("padding", lambda part: part + "=" * (-len(part) % 4 or 4)),
    ("one pad", lambda part: part + "="),
    ("space", lambda part: part[:5] + " " + part[5:]),
    ("line end", lambda part: part + "\n"),
    ("standard alphabet", lambda part: part[:4] + "+/" + part[6:]),
    ("foreign character", lambda part: part[:4] + "!" + part[4:]),
    ("full-width", lambda part: part[:4] + "\uff21" + part[5:]),
    ("lone surrogate", lambda part: part[:4] + "\udcff" + part[5:]),
    ("one character too many", lambda part: part + "A" * ((1 - len(part)) % 4 or 4)),
]


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize(("name", "spell"), SPELLINGS)
async def test_h17_base64_has_one_spelling(
    part: int, name: str, spell: Callable[[str], str]
) -> None:
    """Padding, spaces, other alphabets and junk are refused in each part, though re-signed."""
    parts = signed().split(".")
    parts[part] = spell(parts[part])
    check = await verifier()
    assert check.verify(".".join(parts), AT).status is INVALID
    if part < 2 and parts[part].isascii():
        text = ".".join(parts[:2])
        again = text + "." + b64(ALGORITHMS["ES256"].sign(text.encode(), EC_KEY))
        assert check.verify(again, AT).status is INVALID


async def test_h17_stray_bits_at_the_end_are_refused() -> None:
    """Bits that decode to nothing would give one token two spellings."""
    check = await verifier()
    header, payload, signature = signed().split(".")
    assert len(signature) % 4 == 2, "64 bytes leave four bits unused"
    assert check.verify(f"{header}.{payload}.{signature}", AT).status is VALID
    assert check.verify(f"{header}.{payload}.{stray_bits(signature)}", AT).status is INVALID


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c.d",
        "a.b.c.d.e",
        "e30.e30.",
        "bnVsbA.bnVsbA.AAAA",
        "W10.W10.AAAA",
        json.dumps({"payload": "e30", "signatures": []}),
        "\x00.\x00.\x00",
    ],
)
async def test_h17_what_is_no_compact_token_is_refused(token: str) -> None:
    """Missing and extra parts, the JSON serialisation and non-objects are all invalid."""
    assert (await verifier()).verify(token, AT).status is INVALID


@pytest.mark.parametrize("cut", [0, 1, 2])
async def test_h17_no_part_may_be_missing(cut: int) -> None:
    """An empty part is refused, and so is a token without it and its dot."""
    check = await verifier()
    parts = signed().split(".")
    emptied = [*parts[:cut], "", *parts[cut + 1 :]]
    assert check.verify(".".join(emptied), AT).status is INVALID
    del parts[cut]
    assert check.verify(".".join(parts), AT).status is INVALID


@pytest.mark.parametrize(
    "payload",
    [
        '{"iss": "x", "iss": "https://login.example"}',
        '{"exp": NaN}',
        "[]",
        "null",
        '"text"',
        "{",
        "",
        "[" * 5000,
        b"\xff",
        b"\xef\xbb\xbf{}",
    ],
)
async def test_h17_a_payload_that_is_no_object_is_refused(payload: str | bytes) -> None:
    """Members that stand twice, NaN, nesting bombs and bad UTF-8 are refused before any claim."""
    found = (await verifier()).verify(signed(payload), AT)
    assert found == TokenResult(INVALID, "The token's payload is not a JSON object.")


async def test_h17_a_header_member_that_stands_twice_is_refused() -> None:
    """Two readers could see two algorithms."""
    header = '{"alg":"none","alg":"ES256","kid":"ES256"}'
    assert (await verifier()).verify(signed(header=header), AT).status is INVALID


BIG = 10**400


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": ...},
        {"iss": None},
        {"iss": [ISSUER]},
        {"iss": {ISSUER: 1}},
        {"iss": 1},
        {"iss": "https://login.example/"},
        {"iss": "HTTPS://login.example"},
        {"aud": ...},
        {"aud": None},
        {"aud": []},
        {"aud": "other"},
        {"aud": "gate "},
        {"aud": "gat"},
        {"aud": ["other"]},
        {"aud": ["gate", 1]},
        {"aud": [["gate"]]},
        {"aud": {"gate": 1}},
        {"aud": 0},
        {"exp": ...},
        {"exp": None},
        {"exp": True},
        {"exp": str(AT + 600)},
        {"exp": [AT + 600]},
        {"exp": -1},
        {"exp": BIG},
        {"exp": 1e300},
        {"nbf": AT + 31},
        {"nbf": "0"},
        {"nbf": None},
        {"iat": AT + 31},
        {"iat": False},
        {"sub": ...},
        {"sub": 7},
        {"sub": ["acme"]},
        {"sub": ""},
        {"sub": "a b"},
        {"sub": "a\n"},
        {"sub": "x" * 256},
        {"sub": "opaque-0123456789abcdef0123"},
    ],
)
async def test_h17_claims_are_required_and_typed(changes: dict[str, Any]) -> None:
    """Issuer, audience, times and account must be there, of their type and exactly right."""
    found = (await verifier()).verify(signed(claims(**changes)), AT)
    assert found.status is INVALID
    assert found.account_id is None
    assert found.detail


async def test_h17_an_infinite_expiry_is_refused() -> None:
    """``1e999`` is infinity to many readers."""
    payload = json.dumps(claims(exp=0)).replace('"exp": 0', '"exp": 1e999')
    assert (await verifier()).verify(signed(payload), AT).status is INVALID


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"exp": AT - 29}, VALID),
        ({"exp": AT - 30}, CredentialStatus.EXPIRED),
        ({"exp": 0}, CredentialStatus.EXPIRED),
        ({"nbf": AT + 30, "iat": AT + 30}, VALID),
        ({"aud": ["other", "gate"]}, VALID),
        ({"exp": int(AT) + 600, "nbf": AT - 1.5}, VALID),
    ],
)
async def test_leeway_applies_at_both_ends(
    changes: dict[str, Any], status: CredentialStatus
) -> None:
    """Thirty seconds of skew are forgiven, no more; an expired token is told as such."""
    assert (await verifier()).verify(signed(claims(**changes)), AT).status is status


async def test_an_expired_forgery_is_invalid_not_expired() -> None:
    """Nothing a forger wrote is confirmed."""
    token = signed(claims(exp=AT - 3600)).rpartition(".")[0] + "." + b64(bytes(64))
    assert (await verifier()).verify(token, AT).status is INVALID


@pytest.mark.parametrize("order", [0, 1, CURVE_ORDER - 1, CURVE_ORDER])
@pytest.mark.parametrize("other", [0, 1, CURVE_ORDER - 1, CURVE_ORDER])
async def test_h17_edge_values_of_ecdsa_are_refused(order: int, other: int) -> None:
    """R and s of zero, one and around the group's order verify nothing (CVE-2022-21449)."""
    signature = order.to_bytes(32, "big") + other.to_bytes(32, "big")
    token = signed().rpartition(".")[0] + "." + b64(signature)
    assert (await verifier()).verify(token, AT).status is INVALID


@pytest.mark.parametrize(("add_r", "add_s"), [(CURVE_ORDER, 0), (0, CURVE_ORDER)])
async def test_h17_values_past_the_order_are_refused(add_r: int, add_s: int) -> None:
    """Adding the group's order to r or s gives no second signature."""
    text, _, signature = signed().rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    big = [int.from_bytes(raw[:32], "big") + add_r, int.from_bytes(raw[32:], "big") + add_s]
    longer = b"".join(value.to_bytes(33, "big") for value in big)
    assert (await verifier()).verify(f"{text}.{b64(longer)}", AT).status is INVALID


async def test_h17_a_der_signature_is_refused() -> None:
    """ECDSA in a token is two plain numbers (RFC 7518, section 3.4), not ASN.1."""
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - this test alone

    text = signed().rpartition(".")[0]
    der = EC_KEY.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
    assert (await verifier()).verify(f"{text}.{b64(der)}", AT).status is INVALID


@pytest.mark.parametrize("members", [{"use": "enc"}, {"key_ops": ["encrypt"]}])
async def test_h17_a_key_for_another_use_verifies_nothing(members: dict[str, Any]) -> None:
    """Keys of wrong ``use`` or ``key_ops`` never become the issuer's keys."""

    async def load() -> bytes:
        return document(**members)

    keys = JwksSource(load, algorithms=["ES256"], refresh_s=300, clock=lambda: AT, chance=lambda: 0)
    assert not await keys.refresh(AT)
    check = JwtVerifier([Issuer(ISSUER, "gate", keys, frozenset({"ES256"}))], subkey=SUBKEY)
    assert check.verify(signed(), AT).status is CredentialStatus.UNKNOWN


async def test_h17_a_giant_token_is_refused_unread() -> None:
    """Size is capped before anything is decoded."""
    found = (await verifier()).verify(signed(claims(pad="x" * 8000)), AT)
    assert found.status is INVALID
    assert "longer than" in str(found.detail)


async def test_h17_each_issuer_is_checked_with_its_own_keys() -> None:
    """A provider that turns bad cannot speak for another one."""
    key, jwk = attacker_jwk()
    evil = json.dumps({"keys": [{**jwk, "kid": "ES256"}]}).encode()
    check = JwtVerifier(
        [await issuer(), await issuer(evil, issuer="https://evil.example")], subkey=SUBKEY
    )
    for name, expected in ((ISSUER, INVALID), ("https://evil.example", VALID)):
        text = b64({"alg": "ES256", "kid": "ES256"}) + "." + b64(claims(iss=name))
        token = text + "." + b64(ALGORITHMS["ES256"].sign(text.encode(), key))
        assert check.verify(token, AT).status is expected


async def test_two_issuers_of_one_name_are_a_mistake() -> None:
    """Which settings apply must not depend on their order."""
    with pytest.raises(ValueError, match="twice"):
        JwtVerifier([await issuer(), await issuer()], subkey=SUBKEY)


@pytest.mark.parametrize("changes", [{"issuer": ""}, {"audience": ""}])
async def test_issuer_and_audience_are_required(changes: dict[str, str]) -> None:
    """An empty name would match tokens that carry none."""
    with pytest.raises(ValueError, match="required"):
        replace(await issuer(), **changes)
    with pytest.raises(ValueError, match="some of"):
        replace(await issuer(), algorithms=frozenset({"HS256"}))


async def test_an_unknown_kid_is_open_first_and_refused_once_asked() -> None:
    """After rotation the caller is asked to come back until the provider has been asked."""
    check = await verifier()
    assert check.verify(signed(kid="new"), AT + 31).status is CredentialStatus.UNKNOWN
    assert check.verify(signed(kid="new"), AT + 1).status is INVALID


async def test_a_token_without_kid_needs_a_single_fitting_key() -> None:
    """One ES256 key in the set: it is the one meant."""
    check = await verifier()
    assert check.verify(signed(header={"alg": "ES256"}), AT).status is VALID
    keys = json.loads(document())["keys"]
    keys.append({**attacker_jwk()[1], "kid": "more"})
    check = await verifier(json.dumps({"keys": keys}).encode())
    assert check.verify(signed(header={"alg": "ES256"}), AT).status is INVALID


@pytest.mark.parametrize(
    ("payload", "organization", "tier"),
    [
        ({"org": "Acme", "plan": {"tier": "elevated"}}, "Acme", Tier.ELEVATED),
        ({"org": "Acme", "plan.tier": "trusted", "plan": {"tier": "x"}}, "Acme", Tier.TRUSTED),
        ({}, None, None),
        ({"org": None, "plan": []}, None, None),
    ],
)
async def test_claims_are_mapped_by_name_or_path(
    payload: dict[str, Any], organization: str | None, tier: Tier | None
) -> None:
    """A claim of the exact name is preferred to a path; absent claims are no claims."""
    check = await verifier(organization_claim="org", tier_claim="plan.tier")
    found = check.verify(signed(claims(**payload)), AT)
    assert (found.status, found.organization, found.tier) == (VALID, organization, tier)


@pytest.mark.parametrize(
    "payload",
    [
        {"org": 7},
        {"org": ["a"]},
        {"org": ""},
        {"org": "a\nb"},
        {"plan": {"tier": "boss"}},
        {"plan": {"tier": ["trusted"]}},
        {"plan": {"tier": 1}},
    ],
)
async def test_claims_of_the_wrong_kind_refuse_the_token(payload: dict[str, Any]) -> None:
    """A tier that we cannot read might have been a stricter one."""
    check = await verifier(organization_claim="org", tier_claim="plan.tier")
    assert check.verify(signed(claims(**payload)), AT).status is INVALID


async def test_the_account_can_be_a_namespaced_or_nested_claim() -> None:
    """URLs as claim names and nested objects both work."""
    name = "https://acme.example/account"
    check = await verifier(account_claim=name)
    assert check.verify(signed(claims(**{name: "a1"})), AT).account_id == "a1"
    nested = await verifier(account_claim="user.id")
    assert nested.verify(signed(claims(user={"id": "a2"})), AT).account_id == "a2"


async def test_a_verified_token_is_remembered_until_it_ends_or_the_keys_change() -> None:
    """The cache answers for the same token only while keys and time still allow it."""
    source_data = [document()]

    async def load() -> bytes:
        return source_data[0]

    keys = JwksSource(load, algorithms=["ES256"], refresh_s=300, clock=lambda: AT, chance=lambda: 0)
    await keys.refresh(AT)
    check = JwtVerifier(
        [Issuer(ISSUER, "gate", keys, frozenset({"ES256"}))], subkey=SUBKEY, cache_size=2
    )
    token = signed(claims(nbf=AT))
    first = check.verify(token, AT)
    assert check.verify(token, AT + 629) is first
    assert check.verify(token, AT + 630).status is CredentialStatus.EXPIRED
    assert check.verify(token, AT - 31).status is INVALID, "a clock stepped back (H28)"
    again = check.verify(token, AT)
    assert again is not first
    assert again == first

    source_data[0] = json.dumps({"keys": [{**attacker_jwk()[1], "kid": "ES256"}]}).encode()
    await keys.refresh(AT + 1)
    assert check.verify(token, AT + 1).status is INVALID


async def test_h41_the_cache_is_bounded_and_keeps_what_is_used() -> None:
    """The least recently used token makes room."""
    check = JwtVerifier([await issuer()], subkey=SUBKEY, cache_size=2)
    tokens = [signed(claims(sub=f"a{n}")) for n in range(3)]
    first, second = (check.verify(token, AT) for token in tokens[:2])
    assert check.verify(tokens[0], AT) is first
    check.verify(tokens[2], AT)
    assert check.verify(tokens[0], AT) is first
    assert check.verify(tokens[1], AT) is not second


async def test_h19_tokens_are_told_apart_and_name_their_issuer_and_account() -> None:
    """Equal accounts of one issuer share a key id; others never do."""
    other = "https://other.example"
    check = JwtVerifier([await issuer(), await issuer(issuer=other)], subkey=SUBKEY)
    ids = [
        check.verify(signed(claims(**changes)), AT).key_id
        for changes in ({}, {"jti": "2"}, {"sub": "b"}, {"iss": other})
    ]
    assert ids[0] == ids[1]
    assert len({*ids[1:]}) == 3


async def test_h19_losing_the_cache_loses_no_caller() -> None:
    """With room for one token, or none remembered, every token gets the answer it had."""
    one = await issuer()
    roomy, tight = (JwtVerifier([one], subkey=SUBKEY, cache_size=size) for size in (10_000, 1))
    tokens = [signed(claims(sub=f"a{number}")) for number in range(5)]
    tokens.append(tokens[0][:-4] + "AAAA")  # the same claims, signed by nobody
    answers = [roomy.verify(token, AT) for token in tokens]
    assert [answer.account_id is None for answer in answers] == [False] * 5 + [True]
    for _ in range(3):
        assert [tight.verify(token, AT) for token in tokens] == answers
        roomy._cache.clear()
        assert [roomy.verify(token, AT) for token in tokens[::-1]] == answers[::-1]


async def test_an_issuer_is_built_from_settings(tmp_path: Path) -> None:
    """The settings of an operator become a working issuer; two or no places are a mistake."""
    file = tmp_path / "jwks.json"
    file.write_bytes(document())
    config = JwtIssuer(issuer=ISSUER, audience="gate", jwks_file=file, leeway_s=5)
    async with aiohttp.ClientSession() as session:

        def build(config: JwtIssuer) -> Issuer:
            return issuer_of(config, session=session, clock=lambda: AT, chance=lambda: 0)

        built = build(config)
        assert await built.keys.refresh(AT)
        check = JwtVerifier([built], subkey=SUBKEY)
        assert check.verify(signed(claims(exp=AT - 4)), AT).status is VALID
        assert check.verify(signed(claims(exp=AT - 5)), AT).status is CredentialStatus.EXPIRED
        build(JwtIssuer(issuer=ISSUER, audience="gate", jwks_url="https://login.example/jwks"))
        for places in ({}, {"jwks_file": file, "jwks_url": "https://x.example"}):
            with pytest.raises(ValueError, match="one of"):
                build(JwtIssuer(issuer=ISSUER, audience="gate", **places))


@settings(max_examples=150, deadline=None)
@given(
    header=st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "x"]),
        st.one_of(st.none(), st.booleans(), st.text(max_size=5), st.sampled_from(["ES256"])),
    ),
    payload=st.dictionaries(
        st.sampled_from(["iss", "aud", "exp", "sub", "nbf"]),
        st.one_of(
            st.none(),
            st.floats(allow_nan=False),
            st.integers(),
            st.lists(st.text(max_size=3)),
            st.sampled_from([ISSUER, "gate", AT]),
        ),
    ),
)
async def test_any_signed_token_gets_one_answer(
    header: dict[str, Any], payload: dict[str, Any]
) -> None:
    """Whatever stands in a token with a good signature, nothing is raised."""
    check = await verifier(organization_claim="aud", tier_claim="sub")
    found = check.verify(signed(payload, header=header), AT)
    assert isinstance(found, TokenResult)
    assert (found.status is VALID) == (found.account_id is not None)
