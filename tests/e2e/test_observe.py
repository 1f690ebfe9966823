"""What is only watched: observe mode for the whole gate, shadow mode for one rule (H31)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.gates import Clock, rules_text

if TYPE_CHECKING:
    from support.gates import Gates, RunningGate

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
ACCOUNTS: dict[str, dict[str, object]] = {
    "acme": {},
    "banned": {"banned_until": "forever"},
    "watched": {"tier": "elevated"},
    "small": {"tier": "restricted"},
}
RULES = """
limits:
  - {id: one-call, description: O., unit: requests, per: [account], rate: 1/hour}
signals:
  - {id: dark, description: D., when: call.model == "demo-dark", points: 90}
thresholds:
  - {id: too-dark, description: T., at_least: 90, verdict: deny}
"""


async def chat(
    gate: RunningGate, account: str = "acme", model: str = "demo-small", **headers: str
) -> tuple[int, dict[str, str]]:
    """Send a chat completion; return status and headers."""
    async with gate.http.post(
        "/v1/chat/completions",
        headers=gate.headers(account) | {k.replace("_", "-"): v for k, v in headers.items()},
        json={"model": model, "messages": HELLO, "max_tokens": 10},
    ) as answer:
        return answer.status, {name.lower(): value for name, value in answer.headers.items()}


@pytest.mark.parametrize(
    ("account", "model", "calls", "verdict", "reason"),
    [
        ("banned", "demo-small", 1, "deny", "account_suspended"),
        ("acme", "demo-dark", 1, "deny", "request_denied"),
        ("small", "demo-large", 1, "deny", "model_not_permitted"),
        ("watched", "demo-small", 1, "step_up", "identity_verification_required"),
        ("acme", "demo-small", 2, "rate_limited", "rate_limit_exceeded"),
    ],
)
async def test_observe_lets_through_and_records(
    gates: Gates, *, account: str, model: str, calls: int, verdict: str, reason: str
) -> None:
    """The call is served; the record and the metric say what would have become of it."""
    gate = await gates(rules=rules_text(RULES), accounts=ACCOUNTS, clock=Clock(), mode="observe")
    for _ in range(calls):
        status, headers = await chat(gate, account, model)
        assert status == 200
    assert "retry-after" not in headers
    record = await gate.decision(headers["gatekeeper-decision"])
    assert (record["verdict"], record["reason"]) == (verdict, reason)
    assert (record["enforced"], record["observe"]) == (False, True)
    assert (await gate.outcome(headers["gatekeeper-decision"]))["status"] == 200
    sample = (
        f'gatekeeper_decisions_total{{dialect="openai_chat",enforced="no",reason="{reason}",'
        f'verdict="{verdict}"}} 1.0'
    )
    assert sample in await gate.metrics()
    shown = await gate.cli("explain", record["id"])
    assert "Same verdict offline: yes" in shown.stdout


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x_forwarded_for": "152.206.0.1"}, 451),
        ({"x_api_key": "gk_wrong"}, 401),
        ({"x_api_key": ""}, 401),
    ],
)
async def test_observe_never_opens_an_embargo_or_a_lock(
    gates: Gates, headers: dict[str, str], status: int
) -> None:
    """Embargo and bad credentials are refused all the same."""
    gate = await gates(rules=rules_text(RULES), accounts=ACCOUNTS, mode="observe")
    assert (await chat(gate, **headers))[0] == status
    assert gate.upstream.book == []


SHADOW = """
  - {id: shadow-home, description: S., mode: shadow, countries: [US], on: [use], unknown: allow,
     source: law}
limits:
  - {id: shadow-one, description: O., mode: shadow, unit: requests, per: [account], rate: 1/hour}
  - {id: real-two, description: T., unit: requests, per: [account], rate: 2/hour}
signals:
  - {id: shadow-dark, description: D., mode: shadow, when: 'true', points: 90}
thresholds:
  - {id: shadow-deny, description: T., mode: shadow, at_least: 1, verdict: deny}
  - {id: real-deny, description: T., at_least: 50, verdict: deny}
step_up:
  - {id: shadow-step, description: S., mode: shadow, when: 'true', assurance: ial2}
"""
IN_SHADOW = ("shadow-home", "shadow-one", "shadow-deny", "shadow-step", "real-deny")


async def test_h31_shadow_rules_change_nothing_and_are_seen(gates: Gates) -> None:
    """Five rules in shadow would refuse: the answer shows none of it, metric and record do."""
    rules = rules_text().replace("tiers:", SHADOW.strip("\n").split("limits:")[0] + "tiers:", 1)
    rules = rules.replace("...\n", "limits:" + SHADOW.split("limits:")[1] + "...\n")
    gate = await gates(rules=rules, clock=Clock())
    first, second, third = [await chat(gate, x_forwarded_for="8.8.8.8") for _ in range(3)]
    assert [first[0], second[0], third[0]] == [200, 200, 429]
    assert second[1]["ratelimit"].startswith('"requests";r=0')
    assert "shadow" not in str(second[1])
    record = await gate.decision(second[1]["gatekeeper-decision"])
    assert (record["verdict"], record["shadow_verdict"]) == ("allow", "embargoed")
    assert (record["score"]["total"], record["score"]["shadow_total"]) == (0, 90)
    found = {finding["rule"] for finding in record["findings"] if finding["mode"] == "shadow"}
    assert found == set(IN_SHADOW)
    metrics = await gate.metrics()
    for rule in IN_SHADOW:
        assert f'gatekeeper_rule_matches_total{{mode="shadow",rule="{rule}"' in metrics
    refusal = await gate.decision(third[1]["gatekeeper-decision"])
    assert [f["rule"] for f in refusal["findings"] if f["mode"] == "enforce"] == ["real-two"]


async def test_an_upstream_that_is_gone_says_nothing_of_what_was_observed(gates: Gates) -> None:
    """A call that would have been refused and then fails is told of the failure alone."""
    gate = await gates(rules=rules_text(RULES), accounts=ACCOUNTS, clock=Clock(), mode="observe")
    await gate.upstream.stop()
    for _ in range(2):
        status, headers = await chat(gate, "watched")
        assert status == 502
        assert "retry-after" not in headers
    assert (await gate.decision(headers["gatekeeper-decision"]))["verdict"] == "step_up"
