"""Campaigns at the gate: one budget with a way out, and refusals that tell nothing of them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.campaigns import PROBE_KEY, campaign, group
from support.gates import Clock, eventually, rules_text
from support.realtime import PLENTY, talking
from support.valkey import serving

from gatekeeper.policy.campaigns import Stage
from gatekeeper.policy.containment import Containment

if TYPE_CHECKING:
    from pathlib import Path

    from support.gates import Gates, RunningGate

    from gatekeeper.policy.campaigns import Campaign

HELLO = {"model": "demo-small", "messages": [{"role": "user", "content": "hello"}]}
ASKS = {
    "/v1/chat/completions": HELLO,
    "/v1/messages": HELLO | {"max_tokens": 10},
    "/anything": {},
}
RULES = rules_text("""
containment:
  - {id: secret-stage, description: S., stage: probe, raise_at: 50, lower_below: 40, hold: 1 day,
     percent: 100}
signals:
  - {id: secret-signal, description: S., when: call.client == "risky", points: 61}
thresholds:
  - {id: secret-threshold, description: T., at_least: 60, verdict: step_up, assurance: ial1}
step_up:
  - {id: secret-probe, description: P., when: campaign.probed}
  - {id: secret-step, description: S., when: campaign.stage == "step_up"}
limits:
  - {id: own, description: O., unit: requests, per: [account], rate: 100/hour}
  - {id: secret-budget, description: B., unit: requests, per: [campaign], rate: 3/day,
     when: campaign.stage == "budget", used_up: step_up}
  - {id: secret-tokens, description: B., unit: output_tokens, per: [campaign, account],
     rate: 900000/day, used_up: step_up}
""")
CAUSES = ("budget", "probed", "all-in", "scored")
"""Accounts by what refuses them; their names are as long, as links hold them."""
ACCOUNTS: dict[str, dict[str, object]] = {
    **{name: {} for name in (*CAUSES, "other", "stranger")},
    "proven": {"assurance": "ial1"},
    "firm": {"organization": "org-1"},
}


def contain(gate: RunningGate, *campaigns: Campaign) -> str:
    """Put campaigns in force and return the revision."""
    before = gate.app.gate.snapshot
    fresh = Containment.of_campaigns(campaigns, before.rules, PROBE_KEY)
    gate.app.gate.snapshot = replace(before, containment=fresh)
    return fresh.revision


def three() -> list[Campaign]:
    """Return a campaign at each stage that refuses."""
    sharing = ("budget", "firm", "other", "proven")
    return [
        campaign(group(sharing), id="cmp_budget", stage=Stage.BUDGET),
        campaign(group(("probed",)), id="cmp_probe", stage=Stage.PROBE),
        campaign(group(("all-in",)), id="cmp_step_up", stage=Stage.STEP_UP),
    ]


async def ask(gate: RunningGate, account: str, path: str) -> tuple[int, str, dict[str, Any]]:
    """Call as an account; return status, the answer without ids, and the record."""
    client = "risky" if account == "scored" else "plain"
    headers = gate.headers(account, user_agent=client, anthropic_version="2023-06-01")
    async with gate.http.post(path, headers=headers, json=ASKS[path]) as answer:
        decision_id = answer.headers["gatekeeper-decision"]
        told = sorted((name, text) for name, text in answer.headers.items() if name != "Date")
        text = f"{answer.status} {told} {await answer.text()}"
    text = re.sub(r"/verify/[\w.-]+", "/verify/LINK", text).replace(decision_id, "ID")
    text = re.sub(r'"(verification_)?expires_at": ?"?[\w:.+-]+"?', '"expires_at": "THEN"', text)
    return answer.status, text, await gate.decision(decision_id)


@pytest.mark.parametrize("path", ASKS)
async def test_h34_a_step_up_looks_the_same_whatever_asks_for_it(gates: Gates, path: str) -> None:
    """A used-up budget, a probe, a whole campaign, a score: the same bytes but for ids."""
    gate = await gates(rules=RULES, accounts=ACCOUNTS, clock=Clock())
    contain(gate, *three())
    for _ in range(3):
        status, text, _ = await ask(gate, "other", path)
        assert status in {200, 201}
        assert "secret" not in text
    refused = [await ask(gate, cause, path) for cause in CAUSES]
    assert {status for status, _, _ in refused} == {403}
    assert len({text for _, text, _ in refused}) == 1
    (text,) = {text for _, text, _ in refused}
    assert "Identity verification is required" in text
    for told in ("secret", "cmp_", "campaign", "stage", "probe", "RateLimit", "Retry-After"):
        assert told not in text
    spoke = [record["obligation"]["rule"] for _, _, record in refused]
    assert spoke == ["secret-budget", "secret-probe", "secret-step", "secret-threshold"]


async def test_h34_an_admitted_member_is_told_what_everybody_is(gates: Gates) -> None:
    """Neither its answers nor its own limits show that there is a campaign, or a budget."""
    gate = await gates(rules=RULES, accounts=ACCOUNTS, clock=Clock())
    contain(gate, *three())
    looks = []
    for account in ("other", "stranger"):
        path = "/gatekeeper/v1/limits"
        async with gate.http.get(path, headers=gate.headers(account)) as answer:
            looks.append((await answer.text()).replace(account, "ME"))
    assert looks[0] == looks[1]
    told = []
    for account in ("other", "stranger"):
        headers = gate.headers(account)
        async with gate.http.post("/anything", headers=headers, json={}) as answer:
            assert answer.status == 200
            names = ("ratelimit", "ratelimit-policy")
            told.append([answer.headers[name] for name in names])
    assert told[0] == told[1]
    assert "100" in told[0][1]


async def test_a_budget_is_shared_and_whoever_proves_an_identity_is_out_of_it(gates: Gates) -> None:
    """The record says of each call what it belonged to, by which revision, and what was left."""
    gate = await gates(rules=RULES, accounts=ACCOUNTS, clock=Clock())
    revision = contain(gate, *three())
    path = "/v1/chat/completions"
    turns = ["budget", "other", "budget", "other", "budget"]
    shared = [await ask(gate, account, path) for account in turns]
    assert [status for status, _, _ in shared] == [200, 200, 200, 403, 403]
    record = shared[3][2]
    assert (record["verdict"], record["reason"]) == ("step_up", "identity_verification_required")
    facts = record["facts"]
    assert facts["campaign"] == {
        "id": "cmp_budget",
        "stage": "budget",
        "score": 55.0,
        "layers": ["address", "scaffold"],
    }
    assert facts["containment"] == revision
    (budget,) = [each for each in record["limits"] if each["rule"] == "secret-budget"]
    assert (budget["partition"], budget["used_up"]) == ("cmp_budget", "ial1")
    assert (await ask(gate, "firm", path))[0] == 403
    await gate.cli("organizations", "set", "org-1", "verified=true")

    async def is_out() -> bool:
        return (await ask(gate, "firm", path))[0] == 200

    await eventually(is_out)
    for account in ("proven", "firm", "stranger"):
        status, _, record = await ask(gate, account, path)
        assert status == 200
        assert "campaign" not in record["facts"]
        assert record["facts"]["containment"] == revision
        assert [each["rule"] for each in record["limits"]] == ["own"]


async def test_a_campaign_split_over_two_gates_has_one_budget(gates: Gates, tmp_path: Path) -> None:
    """Adversary K: in a fleet the store counts, and its answer reads like any step-up."""
    async with serving(tmp_path / "valkey") as server:
        store = {"kind": "standalone", "addresses": (server.address,), "deadline_ms": 1_000}
        both = [await gates(rules=RULES, accounts=ACCOUNTS, store=store) for _ in range(2)]
        for gate in both:
            contain(gate, *three())
        path = "/v1/chat/completions"
        turns = [(0, "budget"), (1, "other"), (0, "other"), (1, "budget"), (0, "budget")]
        shared = [await ask(both[at], account, path) for at, account in turns]
        assert [status for status, _, _ in shared] == [200, 200, 200, 403, 403]
        assert {text for status, text, _ in shared if status == 403} == {
            (await ask(both[0], "all-in", path))[1]
        }


async def test_without_campaigns_records_say_nothing_of_them(gates: Gates) -> None:
    """And a campaign that ends is over with the next call."""
    gate = await gates(rules=RULES, accounts=ACCOUNTS, clock=Clock())
    path = "/v1/chat/completions"
    assert "containment" not in (await ask(gate, "all-in", path))[2]["facts"]
    contain(gate, *three())
    assert (await ask(gate, "all-in", path))[0] == 403
    contain(gate)
    assert (await ask(gate, "all-in", path))[0] == 200


async def test_a_recorded_member_replays_and_is_explained(gates: Gates) -> None:
    """From the record alone, with what it belonged to."""
    gate = await gates(rules=RULES, accounts=ACCOUNTS, clock=Clock())
    revision = contain(gate, *three())
    for _ in range(4):
        _, _, record = await ask(gate, "budget", "/v1/chat/completions")
    assert record["verdict"] == "step_up"
    told = (await gate.cli("explain", record["id"])).output
    assert "Verdict: step_up (identity_verification_required)" in told
    assert re.search(r"campaign\.id\W+cmp_budget", told)
    assert f"Containment: {revision}" in told
    assert "Same verdict offline: yes" in told


async def test_a_conversation_is_contained_from_its_next_turn_on(gates: Gates) -> None:
    """What is found while a WebSocket is open ends it, with the family's words for it."""
    rules = PLENTY.replace(
        "limits:",
        'step_up:\n  - {id: s, description: d, when: campaign.stage == "step_up"}\nlimits:',
    )
    async with talking(gates, rules=rules) as talk:
        client = await talk.connect()
        await client.say("response.create")
        await client.hear_till("response.done")
        contain(talk.gate, campaign(group(("acme",)), stage=Stage.STEP_UP))
        await client.say("response.create")
        error = await client.hear_till("error")
        assert "identity_verification_required" in str(error)
        await talk.settled()
        (refused,) = [each for each in talk.gate.book() if each.get("verdict") == "step_up"]
        assert refused["facts"]["campaign"]["stage"] == "step_up"
