"""Who is calling, with real keys, tokens and upstream credentials; nothing of a caller's leaks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jwt
import openai
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from support.gates import Clock, eventually, rules_text

from gatekeeper.settings import JwtIssuer, SecretSource, Upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.gates import Gates, RunningGate

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
ISSUER = "https://login.example"
SIGNING_KEY = ec.generate_private_key(ec.SECP256R1())


async def status(gate: RunningGate, **headers: str) -> int:
    """Send one chat completion and return its status."""
    async with gate.http.post(
        "/v1/chat/completions", headers=headers, json={"model": "demo-small", "messages": HELLO}
    ) as answer:
        return answer.status


async def until(gate: RunningGate, wanted: int, **headers: str) -> None:
    """Send calls until one ends with ``wanted``."""

    async def ended_so() -> bool:
        return await status(gate, **headers) == wanted

    await eventually(ended_so)


# --- Gatekeeper's own keys ---


async def test_keys_of_the_command_line_work_and_end_at_once(gates: Gates) -> None:
    """A key made beside a running gate opens it; once revoked it is refused, without a restart."""
    gate = await gates()
    made = json.loads((await gate.cli("keys", "create", "newcomer", "--json")).stdout)
    await until(gate, 200, authorization=f"Bearer {made['key']}")
    await gate.cli("keys", "revoke", made["key_id"])
    await until(gate, 401, authorization=f"Bearer {made['key']}")
    with pytest.raises(openai.AuthenticationError, match="not known or was revoked"):
        await gate.openai(made["key"]).models.list()
    assert await status(gate, **gate.headers()) == 200


async def test_a_key_of_ours_never_reaches_the_upstream(gates: Gates) -> None:
    """Whatever header carries it and whatever becomes of the call, no upstream sees a gk_ key."""
    gate = await gates(credentials=("api_key", "opaque"))
    key = gate.keys["acme"]
    for headers in (
        {"authorization": f"Bearer {key}"},
        {"authorization": f"bearer  {key}", "api-key": key},
        {"x-api-key": key, "authorization": ""},
        {"api-key": key},
    ):
        assert await status(gate, **headers) == 200
    assert await status(gate, authorization=f"Bearer {key[:-1]}") == 401
    assert len(gate.upstream.book) == 4
    assert "gk_" not in str([(each.headers, each.body) for each in gate.upstream.book])


async def test_keys_end_on_their_day(gates: Gates) -> None:
    """A key with an expiry is refused from that moment on, with a reason of its own."""
    clock = Clock()
    gate = await gates(clock=clock)
    made = json.loads((await gate.cli("keys", "create", "acme", "--days", "2", "--json")).stdout)
    await until(gate, 200, authorization=f"Bearer {made['key']}")
    clock.advance(2 * 86_400 + 60)
    with pytest.raises(openai.AuthenticationError) as raised:
        await gate.openai(made["key"]).models.list()
    assert raised.value.code == "credentials_expired"
    assert raised.value.response.headers["www-authenticate"].endswith('error="invalid_token"')


async def test_no_credential_is_told_how_to_send_one(gates: Gates) -> None:
    """Without a credential: 401, the bare challenge of RFC 6750, and what to send."""
    gate = await gates()
    async with gate.http.get("/v1/models") as answer:
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="gatekeeper"'
        error = (await answer.json())["error"]
        assert error["code"] == "credentials_missing"
        assert "`Authorization: Bearer ...` or `x-api-key: ...`" in error["message"]


# --- tokens ---


def key_set() -> str:
    """Return the JWKS of the identity provider."""
    public = jwt.algorithms.ECAlgorithm.to_jwk(SIGNING_KEY.public_key(), as_dict=True)
    return json.dumps({"keys": [{**public, "kid": "k1", "use": "sig", "alg": "ES256"}]})


def token(clock: Clock, **changes: Any) -> str:
    """Return a good token, with changes."""
    claims = {
        "iss": ISSUER,
        "aud": "gate",
        "sub": "jwt-user",
        "exp": clock.unix_s + 600,
        **changes,
    }
    return jwt.encode(claims, SIGNING_KEY, algorithm="ES256", headers={"kid": "k1"})


@pytest.fixture
async def jwks_url() -> AsyncIterator[str]:
    """Serve the key set over HTTP."""

    async def keys(_: web.Request) -> web.Response:
        return web.Response(text=key_set(), content_type="application/json")

    app = web.Application()
    app.router.add_get("/keys.json", keys)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/keys.json"
    await runner.cleanup()


@pytest.fixture(params=["url", "file"])
def issuer(request: pytest.FixtureRequest, jwks_url: str, tmp_path: Path) -> JwtIssuer:
    """Return the identity provider, its keys behind a URL or in a file."""
    source: dict[str, Any] = {"jwks_url": jwks_url}
    if request.param == "file":
        source = {"jwks_file": tmp_path / "keys.json"}
        source["jwks_file"].write_text(key_set())
    return JwtIssuer(
        issuer=ISSUER,
        audience="gate",
        algorithms=("ES256",),
        organization_claim="org.id",
        tier_claim="tier",
        **source,
    )


async def test_tokens(gates: Gates, issuer: JwtIssuer) -> None:
    """Claims become account, organization and tier; a bad token is 401 with its challenge."""
    clock = Clock()
    gate = await gates(rules=rules_text(), credentials=("jwt",), jwt=(issuer,), clock=clock)
    good = token(clock, org={"id": "org-9"}, tier="restricted")
    await until(gate, 200, authorization=f"Bearer {good}")
    seen = await gate.openai(good).models.with_raw_response.list()
    facts = (await gate.decision(seen.headers["gatekeeper-decision"]))["facts"]
    assert facts["account"]["id"] == "jwt-user"
    assert facts["account"]["organization"] == "org-9"
    assert facts["account"]["tier"] == "restricted"
    for bad, code in (
        (token(clock, exp=clock.unix_s - 600), "credentials_expired"),
        (token(clock, aud="another"), "credentials_invalid"),
        (token(clock, iss="https://evil.example"), "credentials_invalid"),
        (good[:-4] + "AAAA", "credentials_invalid"),
    ):
        with pytest.raises(openai.AuthenticationError) as raised:
            await gate.openai(bad).models.list()
        assert raised.value.code == code
        challenge = raised.value.response.headers["www-authenticate"]
        assert challenge == 'Bearer realm="gatekeeper", error="invalid_token"'


async def test_step_up_of_a_token_is_a_challenge(gates: Gates, issuer: JwtIssuer) -> None:
    """A caller with a token is told by 401 and RFC 9470 which level to come back with."""
    clock = Clock()
    gate = await gates(rules=rules_text(), credentials=("jwt",), jwt=(issuer,), clock=clock)
    await until(gate, 200, authorization=f"Bearer {token(clock)}")
    with pytest.raises(openai.AuthenticationError) as raised:
        await gate.openai(token(clock, tier="elevated")).models.list()
    assert raised.value.code == "identity_verification_required"
    assert raised.value.response.headers["www-authenticate"] == (
        'Bearer realm="gatekeeper", error="insufficient_user_authentication", '
        'error_description="Prove your identity first", acr_values="ial1"'
    )
    assert "/gatekeeper/v1/verify/" in raised.value.message


async def test_a_token_stays_here_where_the_upstream_has_its_own(
    gates: Gates, issuer: JwtIssuer
) -> None:
    """The upstream's credential takes the token's place, in the header that it asks for."""
    clock = Clock()
    gate = await gates(
        rules=rules_text(),
        credentials=("jwt",),
        jwt=(issuer,),
        clock=clock,
        environ={"UPSTREAM_KEY": "sk-ours"},
        upstream={"credential": SecretSource(env="UPSTREAM_KEY")},
    )
    await until(gate, 200, authorization=f"Bearer {token(clock)}")
    received = gate.upstream.book[-1].headers
    assert received["authorization"] == "Bearer sk-ours"
    assert "eyJ" not in str(received)


# --- the upstream's credential ---


@pytest.mark.parametrize("source", ["env", "file"])
@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
async def test_the_upstream_credential_is_swapped_in(
    gates: Gates, tmp_path: Path, source: str, header: str
) -> None:
    """Callers never hold it, the upstream never sees theirs, and no answer or record tells it."""
    (tmp_path / "key").write_text("sk-ours\n")
    swapped = SecretSource(env="KEY") if source == "env" else SecretSource(file=tmp_path / "key")
    gate = await gates(
        environ={"KEY": "sk-ours"}, upstream={"credential": swapped, "credential_header": header}
    )
    answer = await gate.openai().models.with_raw_response.list()
    received = gate.upstream.book[0].headers
    assert received[header] == ("Bearer sk-ours" if header == "authorization" else "sk-ours")
    assert len({"authorization", "x-api-key", "api-key"} & {k.lower() for k in received}) == 1
    assert gate.keys["acme"] not in str(received)
    await gate.stop()
    assert "sk-ours" not in f"{answer.headers} {answer.text} {gate.book()}"


# --- opaque keys ---


async def test_opaque_keys_pass_through_and_are_known_after_a_success(gates: Gates) -> None:
    """The upstream's own key arrives unchanged; only its 2xx makes the account known."""
    gate = await gates(credentials=("opaque",))
    refused = True

    async def check(request: web.Request) -> web.StreamResponse | None:
        return web.json_response({"error": {"message": "no"}}, status=401) if refused else None

    gate.upstream.answer = check
    client = gate.openai("sk-of-the-upstream")
    decisions = []
    with pytest.raises(openai.AuthenticationError) as raised:
        await client.models.list()
    decisions.append(raised.value.response.headers["gatekeeper-decision"])
    refused = False
    for _ in range(3):
        answer = await client.models.with_raw_response.list()
        decisions.append(answer.headers["gatekeeper-decision"])
    assert [each.headers["authorization"] for each in gate.upstream.book] == [
        "Bearer sk-of-the-upstream"
    ] * 4
    records = [(await gate.decision(each))["facts"]["account"] for each in decisions]
    assert [record.get("known", False) for record in records] == [False, False, True, True]
    assert len({record["id"] for record in records}) == 1
    await gate.stop()
    assert "sk-of-the-upstream" not in str(gate.book())
    listed = await gate.cli("accounts", "list", "--json")
    assert records[0]["id"] in listed.stdout


async def test_a_model_decides_between_upstreams_with_credentials_of_their_own(
    gates: Gates,
) -> None:
    """Each upstream gets its own credential and never another's."""
    other = await gates()
    both = (
        Upstream(name="other", urls=(other.upstream.url,), models=("other-*",),
                 credential=SecretSource(env="OTHER")),
        Upstream(name="rest", urls=(other.upstream.url + "/prefix",),
                 credential=SecretSource(env="REST"), credential_header="api-key"),
    )  # fmt: skip
    gate = await gates(upstreams=both, environ={"OTHER": "sk-1", "REST": "sk-2"})
    client = gate.openai()
    await client.chat.completions.create(model="other-1", messages=HELLO)
    await client.chat.completions.with_raw_response.create(model="demo-1", messages=HELLO)
    first, second = other.upstream.book
    assert (first.target, first.headers["authorization"]) == ("/v1/chat/completions", "Bearer sk-1")
    assert second.target == "/prefix/v1/chat/completions"
    assert second.headers["api-key"] == "sk-2"
    assert "authorization" not in second.headers
