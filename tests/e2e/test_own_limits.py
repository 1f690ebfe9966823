"""`GET /gatekeeper/v1/limits`: what a caller may know of its limits, for nothing, and no more."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import jwt
import openai
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from support.changes import replace
from support.gates import Clock, eventually, rules_text
from support.valkey import serving
from support.wire import Caller

from gatekeeper.demo import DemoSettings
from gatekeeper.listener.own_limits import OWN_LIMITS
from gatekeeper.policy.ratelimit_headers import OwnLimit
from gatekeeper.policy.words import GateMode
from gatekeeper.settings import JwtIssuer

if TYPE_CHECKING:
    from pathlib import Path

    from support.gates import Gates, RunningGate

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
CALL: Any = {
    "model": "demo-small",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 100,
}
LIMITS = """
limits:
  - {id: secret-requests, description: R., unit: requests, per: [account], rate: 60/minute,
     burst: 3}
  - {id: secret-output, description: O., unit: output_tokens, per: [key], rate: 1000/hour}
  - {id: secret-slots, description: S., unit: concurrency, per: [account], slots: 2,
     lease: 1 minute}
"""
ONE = """
limits:
  - {id: one, description: O., unit: requests, per: [account], rate: 2/hour}
"""
ACCOUNTS: dict[str, dict[str, object]] = {
    "acme": {},
    "other": {},
    "banned": {"banned_until": "forever"},
}


async def look(
    gate: RunningGate, account: str = "acme", method: str = "GET", **headers: str
) -> tuple[int, dict[str, Any], Any]:
    """Ask for the limits; return status, headers (in lower case) and content."""
    async with gate.http.request(
        method, OWN_LIMITS, headers=gate.headers(account, **headers)
    ) as answer:
        body = await answer.read()
        found = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, found, json.loads(body) if body else None


async def left(gate: RunningGate, account: str = "acme", **headers: str) -> dict[str, float]:
    """Return what remains of each limit."""
    status, _, told = await look(gate, account, **headers)
    assert status == 200, told
    return {each["name"]: each["remaining"] for each in told["limits"]}


async def test_a_caller_reads_its_limits_with_its_sdk(gates: Gates) -> None:
    """What is left, how much flows back and when all is there again, as the fields say it too."""
    slow = DemoSettings(first_token_s=60.0)
    gate = await gates(rules=rules_text(LIMITS), clock=Clock(NOON), demo=slow)
    stream: Any = await gate.openai().chat.completions.create(**CALL, stream=True)
    content: Any = await gate.anthropic().get(OWN_LIMITS, cast_to=object)
    for each in content["limits"]:
        assert tuple(each) == OwnLimit.__struct_fields__
    assert content == {
        "account": "acme",
        "limits": [
            {
                "name": "requests",
                "unit": "requests",
                "limit": 3,
                "remaining": 2,
                "per_window": 60,
                "window_s": 60,
                "resets_at": "2026-01-01T12:00:01.000+00:00",
                "resets_in_s": 1,
            },
            {
                "name": "output-tokens",
                "unit": "output_tokens",
                "limit": 1000,
                "remaining": 900,
                "per_window": 1000,
                "window_s": 3600,
                "resets_at": "2026-01-01T12:06:00.000+00:00",
                "resets_in_s": 360,
            },
            {
                "name": "concurrency",
                "unit": "concurrency",
                "limit": 2,
                "remaining": 1,
                "per_window": None,
                "window_s": None,
                "resets_at": None,
                "resets_in_s": None,
            },
        ],
    }
    assert await gate.openai().get(f"{gate.url}{OWN_LIMITS}", cast_to=object) == content
    _, headers, again = await look(gate)
    assert again == content
    assert headers["ratelimit"] == (
        '"requests";r=2;t=1, "output-tokens";r=900;t=360, "concurrency";r=1'
    )
    assert headers["cache-control"] == "no-store"
    assert headers["content-type"] == "application/json"
    await stream.close()


async def test_names_are_those_of_calls(gates: Gates) -> None:
    """An entry has the name of its item in `RateLimit`, under the default rules too."""
    gate = await gates(clock=Clock())
    _, headers, told = await look(gate)
    called = await gate.openai().models.with_raw_response.list()
    # Without a call it is not known whether it would be one whose bytes count.
    policies = headers["ratelimit-policy"].split(", ")
    assert [each for each in policies if not each.startswith('"bytes"')] == (
        called.headers["ratelimit-policy"].split(", ")
    )
    named = re.findall(r'"([a-z0-9-]+)";r', called.headers["ratelimit"])
    assert [each["name"] for each in told["limits"] if each["unit"] != "bytes"] == named
    assert len(named) > 4


async def test_h22_a_look_takes_nothing(gates: Gates) -> None:
    """After many of them the whole burst is there; nothing reached the upstream or the log."""
    gate = await gates(rules=rules_text(LIMITS), clock=Clock())
    for _ in range(20):
        assert await left(gate) == {"requests": 3, "output-tokens": 1000, "concurrency": 2}
    for _ in range(3):
        await gate.openai().models.list()
    assert (await left(gate))["requests"] == 0
    assert len(gate.upstream.book) == 3
    assert 'gatekeeper_limit_looks_total{outcome="told"} 21.0' in await gate.metrics()
    await gate.stop()
    assert sum(record["kind"] == "decision" for record in gate.book()) == 3


async def test_on_the_wire(gates: Gates) -> None:
    """GET and HEAD say the same; other methods are 405, and the connection goes on."""
    gate = await gates(rules=rules_text(LIMITS), clock=Clock())
    caller = await Caller.connect(gate.app.ports[0])

    def request(method: str, more: bytes = b"") -> bytes:
        head = f"{method} {OWN_LIMITS} HTTP/1.1\r\nHost: gate\r\nX-Api-Key: {gate.keys['acme']}\r\n"
        return head.encode() + more

    got = await caller.ask(request("GET", b"\r\n"))
    caller.write(request("HEAD", b"\r\n"))
    head = (await caller.answer(to_head=True)).head
    for name in ("content-length", "content-type", "ratelimit", "ratelimit-policy"):
        assert got.head.one(name) == head.one(name) is not None
    refused = await caller.ask(request("POST", b"Content-Length: 2\r\n\r\n{}"))
    assert (refused.status, refused.head.one("allow")) == (405, "GET, HEAD")
    assert json.loads(refused.body)["title"] == "Method Not Allowed"
    assert (await caller.ask(request("GET", b"\r\n"))).body == got.body
    await caller.close()
    assert gate.upstream.book == []


async def test_only_this_path(gates: Gates) -> None:
    """What is beside or below it stays a page that does not exist."""
    gate = await gates(rules=rules_text())
    for path in (f"{OWN_LIMITS}/", f"{OWN_LIMITS}/acme", "/gatekeeper/v2/limits"):
        async with gate.http.get(path, headers=gate.headers()) as answer:
            assert answer.status == 404
    async with gate.http.get(f"{OWN_LIMITS}?account=other", headers=gate.headers()) as answer:
        assert (await answer.json())["account"] == "acme"


async def test_pages_of_an_allowed_origin_may_read_it(gates: Gates) -> None:
    """CORS as for calls: the preflight, the origin, and the fields that are exposed."""
    origin = "https://app.example"
    gate = await gates(rules=rules_text(), cors={"allow_origins": (origin,)})
    asked = {"access-control-request-method": "GET", "origin": origin}
    async with gate.http.options(OWN_LIMITS, headers=asked) as answer:
        assert answer.status == 204
    for method, status in (("GET", 200), ("POST", 405)):
        found = await look(gate, method=method, origin=origin)
        assert (found[0], found[1]["access-control-allow-origin"]) == (status, origin)
        assert "RateLimit" in found[1]["access-control-expose-headers"]
    assert "access-control-allow-origin" not in (await look(gate, origin="https://evil.example"))[1]


# --- whose limits, and which


async def test_every_kind_of_credential(gates: Gates, tmp_path: Path) -> None:
    """API key, token and key of the upstream's own: each sees its own account's limits."""
    signing, clock = ec.generate_private_key(ec.SECP256R1()), Clock()
    public = jwt.algorithms.ECAlgorithm.to_jwk(signing.public_key(), as_dict=True)
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [{**public, "kid": "k", "use": "sig", "alg": "ES256"}]}))
    issuer = JwtIssuer(
        issuer="https://login.example", audience="gate", algorithms=("ES256",), jwks_file=keys
    )
    claims = {"iss": issuer.issuer, "aud": "gate", "sub": "jwt-user", "exp": clock.unix_s + 600}
    gate = await gates(
        rules=rules_text(ONE),
        clock=clock,
        credentials=("api_key", "jwt", "opaque"),
        jwt=(issuer,),
    )
    gate.keys |= {
        "jwt": jwt.encode(claims, signing, algorithm="ES256", headers={"kid": "k"}),
        "opaque": "sk-upstream",
    }

    async def known() -> bool:
        return (await look(gate, "jwt"))[0] == 200

    await eventually(known)
    names = set()
    for who in ("acme", "jwt", "opaque"):
        async with gate.http.get("/v1/models", headers=gate.headers(who)) as answer:
            assert answer.status == 200
        _, _, told = await look(gate, who)
        assert [each["remaining"] for each in told["limits"]] == [1]
        names.add(told["account"])
    assert {"acme", "jwt-user"} < names
    assert "sk-upstream" not in str(names)


SHARED = """
signals:
  - {id: abroad, description: A., when: network.country == "DE", points: 40}
thresholds:
  - {id: tight, description: T., at_least: 40, tighten: 0.5}
limits:
  - {id: secret-own, description: O., unit: requests, per: [account], rate: 10/minute}
  - {id: secret-network, description: N., unit: requests, per: [asn], rate: 20/minute}
  - {id: secret-organization, description: G., unit: cost, per: [organization], rate: 30/day}
  - {id: secret-all, description: A., unit: cost, per: [everyone], rate: 40/day}
  - {id: secret-campaign, description: C., unit: requests, per: [campaign], rate: 50/day}
  - {id: secret-shadow, description: H., unit: requests, per: [account], rate: 60/day, mode: shadow}
  - {id: secret-model, description: M., unit: requests, per: [account, model], rate: 70/day}
  - {id: secret-stream, description: W., unit: output_tokens, per: [key], rate: 80/hour,
     when: call.stream && call.method == "POST"}
  - {id: secret-tor, description: W., unit: input_tokens, per: [key], rate: 90/hour,
     when: network.kind == "tor"}
  - {id: secret-restricted, description: W., unit: cost, per: [key], rate: 100/hour,
     tiers: [restricted]}
  - {id: secret-exempt, description: W., unit: cost, per: [key], rate: 110/hour}
exemptions:
  - {id: free, description: F., when: account.id == "acme", rules: [secret-exempt], reason: r,
     expires: 2999-01-01}
"""


async def test_h34_only_own_limits_that_may_apply(gates: Gates) -> None:
    """No shared budget, campaign, shadow, id of a rule or tier; conditions on calls may hold."""
    accounts = {"acme": {"organization": "org", "tier": "trusted"}}
    gate = await gates(rules=rules_text(SHARED), accounts=accounts, clock=Clock())
    status, headers, told = await look(gate)
    assert status == 200
    assert [(each["name"], each["limit"]) for each in told["limits"]] == [
        ("requests", 10),
        ("output-tokens", 80),
    ]
    assert set(told) == {"account", "limits"}
    whole = str(told) + str(headers)
    for hidden in ("secret", "org", "trusted", "tier", "rule", "score"):
        assert hidden not in whole


async def test_limits_are_as_tight_as_a_call_would_find_them(gates: Gates) -> None:
    """The score of the request itself counts, as far as it does not rest on what a call asks."""
    gate = await gates(rules=rules_text(SHARED), clock=Clock())
    at_home = (await look(gate, x_forwarded_for="8.8.1.1"))[2]["limits"][0]
    abroad = (await look(gate, x_forwarded_for="5.1.1.1"))[2]["limits"][0]
    assert (at_home["limit"], at_home["per_window"]) == (10, 10)
    assert (abroad["limit"], abroad["per_window"]) == (5, 5)
    async with gate.http.get(
        "/anything", headers=gate.headers(x_forwarded_for="5.1.1.1")
    ) as answer:
        assert '"requests";r=4' in answer.headers["ratelimit"]
    assert (await look(gate, x_forwarded_for="8.8.1.1"))[2]["limits"][0]["remaining"] == 9


# --- who is refused


MASKED = re.compile(r"dec_[0-9a-f]{28}")


@pytest.mark.parametrize(
    ("account", "headers", "status"),
    [
        ("acme", {"x-forwarded-for": "152.206.0.1"}, 451),
        ("banned", {}, 403),
        ("acme", {"x-api-key": ""}, 401),
        ("acme", {"x-api-key": "gk_nonsense"}, 401),
        ("acme", {"authorization": "Bearer other"}, 401),
    ],
)
async def test_who_is_refused_calls_is_refused_here_in_the_same_words(
    gates: Gates, account: str, headers: dict[str, str], status: int
) -> None:
    """Embargo, ban and credential are screened as for any call, recorded, and replay."""
    gate = await gates(rules=rules_text(ONE), accounts=ACCOUNTS, clock=Clock())
    said: list[Any] = []
    for path in (OWN_LIMITS, "/anything"):
        async with gate.http.get(path, headers=gate.headers(account) | headers) as answer:
            decision_id = answer.headers["gatekeeper-decision"]
            named = {k.lower(): v for k, v in answer.headers.items() if k.lower() != "date"}
            text = json.dumps([answer.status, named, await answer.text()])
            said.append(MASKED.sub("dec", text))
            assert answer.status == status
        record = await gate.decision(decision_id)
        assert record["facts"]["call"]["path"] == path
    assert said[0] == said[1]
    assert "Same verdict offline: yes" in (await gate.cli("explain", record["id"])).output
    assert "gatekeeper_limit_looks_total{" not in await gate.metrics()


async def test_a_region_that_is_unknown_asks_for_an_identity_here_too(gates: Gates) -> None:
    """An embargo with `unknown: step_up` is no other for whoever only looks."""
    embargo = """
embargo:
  - {id: mars, description: M., countries: [AQ], on: [use], unknown: step_up, source: law}
"""
    rules = re.sub(r"embargo:\n.*\n", embargo.strip("\n") + "\n", rules_text(), count=1)
    gate = await gates(rules=rules, clock=Clock(), mode="observe", geoip={"databases": ()})
    status, headers, told = await look(gate, x_forwarded_for="8.8.1.1")
    assert (status, told["code"]) == (403, "identity_verification_required")
    assert "/gatekeeper/v1/verify/" in told["verification_url"]
    record = await gate.decision(headers["gatekeeper-decision"])
    shown = await gate.cli("explain", record["id"])
    assert "Same verdict offline: yes" in shown.output


@pytest.mark.parametrize(
    ("mode", "account", "status", "limits"),
    [
        ("observe", "acme", 200, 1),
        ("observe", "banned", 200, 1),
        ("bypass", "acme", 200, 0),
        ("bypass", "banned", 403, 0),
        ("closed", "acme", 503, 0),
    ],
)
async def test_modes_of_the_gate(
    gates: Gates, *, mode: str, account: str, status: int, limits: int
) -> None:
    """Whoever is served is told; where limits are not asked, there are none to tell of."""
    gate = await gates(rules=rules_text(ONE), accounts=ACCOUNTS, clock=Clock())
    gate.app.gate.snapshot = replace(gate.app.gate.snapshot, mode=GateMode(mode))
    found, _, told = await look(gate, account)
    assert (found, len(told.get("limits", ()))) == (status, limits)


async def test_h34_looks_are_bounded_for_each_caller(gates: Gates) -> None:
    """60 a minute and no more, told with a wait; they fill no log, and others are not touched."""
    clock = Clock()
    gate = await gates(rules=rules_text(ONE), accounts=ACCOUNTS, clock=clock)
    statuses = [(await look(gate))[0] for _ in range(63)]
    assert statuses == [200] * 60 + [429] * 3
    client = gate.openai()
    with pytest.raises(openai.RateLimitError, match="asked for too often") as raised:
        await client.get(f"{gate.url}{OWN_LIMITS}", cast_to=object)
    assert raised.value.response.headers["retry-after"] == "1"
    assert "ratelimit" not in raised.value.response.headers
    assert (await look(gate, "other"))[0] == 200
    await client.models.list()  # calls are another matter
    clock.advance(1)
    assert [(await look(gate))[0] for _ in range(2)] == [200, 429]
    assert 'gatekeeper_limit_looks_total{outcome="too_many"} 5.0' in await gate.metrics()
    await gate.stop()
    assert len([each for each in gate.book() if each["kind"] == "decision"]) == 1


async def test_h34_made_up_keys_of_one_address_share_a_bound(gates: Gates) -> None:
    """With keys of the upstream's own anybody can be a new account at each look."""
    gate = await gates(rules=rules_text(ONE), credentials=("opaque",), clock=Clock())
    gate.keys |= {str(number): f"sk-{number}" for number in range(61)}
    statuses = [(await look(gate, str(number)))[0] for number in range(61)]
    assert statuses == [200] * 60 + [429]
    assert (await look(gate, "0", x_forwarded_for="8.8.1.1"))[0] == 200


# --- limits of a fleet


async def test_looks_at_a_shared_store_and_while_it_fails(gates: Gates, tmp_path: Path) -> None:
    """What one gate spent another tells; without the store the share is told, as of the whole."""
    async with serving(tmp_path / "valkey") as store:
        shared = {"kind": "standalone", "addresses": (store.address,), "nodes": 2}
        one = await gates(rules=rules_text(ONE), store=shared)
        two = await gates(rules=rules_text(ONE), store=shared)
        await one.openai().models.list()
        assert await left(two) == {"requests": 1}
        store.kill()
        status, headers, told = await look(two)
    assert (status, headers["ratelimit"]) == (200, '"requests";r=2')
    assert [(each["limit"], each["remaining"]) for each in told["limits"]] == [(2, 2)]


@pytest.mark.parametrize(
    ("on_failure", "status"), [("closed", 503), ("open", 200), ("local_share", 200)]
)
async def test_h34_a_failing_store_is_not_told(
    gates: Gates, tmp_path: Path, *, on_failure: str, status: int
) -> None:
    """What cannot be known is refused as a call would be, or not told; never why."""
    async with serving(tmp_path / "valkey") as store:
        shared = {"kind": "standalone", "addresses": (store.address,), "on_failure": on_failure}
        gate = await gates(rules=rules_text(ONE), store=shared, mode="observe")
        store.kill()
        found, headers, told = await look(gate)
    assert found == status
    assert "store" not in (str(told) + str(headers)).replace("no-store", "")
    if status == 503:
        assert told["code"] == "service_unavailable"
        record = await gate.decision(headers["gatekeeper-decision"])
        assert (record["verdict"], record["facts"]["account"]["id"]) == ("unavailable", "acme")
    else:
        assert [each["name"] for each in told["limits"]] == (
            ["requests"] if on_failure == "local_share" else []
        )
