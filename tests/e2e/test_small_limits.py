"""A lone first call under a small limit: clamped, or refused with a message that names the fix."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest
from support.families import CHAT, COMPLETIONS, RESPONSES, Family
from support.gates import Clock, rules_text

if TYPE_CHECKING:
    from support.gates import Gates, RunningGate

OUTPUT = """
limits:
  - {id: output, description: O., unit: output_tokens, per: [account], rate: 90/month}
"""
COST = """
limits:
  - {id: cost, description: C., unit: cost, per: [account], rate: 1/month}
"""
DEAR = """
models:
  - {model: "dear-*", input_cents_per_million: 1000, output_cents_per_million: 10000,
     max_output_tokens: 100000}
"""
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


def asked(gate: RunningGate) -> dict[str, Any]:
    """Return the body that reached the upstream last."""
    found: dict[str, Any] = json.loads(gate.upstream.book[-1].body)
    return found


@pytest.mark.parametrize(
    ("family", "field"),
    [
        (CHAT, "max_completion_tokens"),
        (COMPLETIONS, "max_tokens"),
        (RESPONSES, "max_output_tokens"),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
async def test_h23_a_call_that_names_no_bound_is_clamped(
    gates: Gates, family: Family, field: str
) -> None:
    """The model may write 1,000 tokens, the limit is 90 a month: the first call gets those."""
    gate = await gates(rules=rules_text(OUTPUT), clock=Clock())
    fields = {name: value for name, value in family.fields.items() if not name.startswith("max_")}
    async with gate.http.post(
        family.target, json={"model": "demo-small", **fields}, headers=gate.headers()
    ) as answer:
        assert answer.status in {200, 404}  # the demo endpoint does not know every family
        decision_id = answer.headers["gatekeeper-decision"]
    assert asked(gate)[field] == 90
    (status,) = (await gate.decision(decision_id))["limits"]
    assert status["requested"] == 90
    assert (await gate.outcome(decision_id))["changes"]["max_output_tokens"] == 90


async def test_h23_the_clamp_is_shared_by_the_choices(gates: Gates) -> None:
    """Four answers to one prompt may write 22 tokens each."""
    gate = await gates(rules=rules_text(OUTPUT), clock=Clock())
    answer = await gate.openai().chat.completions.with_raw_response.create(
        model="demo-small", messages=HELLO, n=4
    )
    assert asked(gate)["max_completion_tokens"] == 22
    (status,) = (await gate.decision(answer.headers["gatekeeper-decision"]))["limits"]
    assert status["requested"] == 88


async def test_h23_a_bound_beyond_the_limit_is_refused_with_its_fix(gates: Gates) -> None:
    """The exceptions of both SDKs say which field to lower, and to what."""
    gate = await gates(rules=rules_text(OUTPUT), clock=Clock())
    with pytest.raises(openai.APIStatusError) as refused:
        await gate.openai().chat.completions.create(
            model="demo-small", messages=HELLO, max_tokens=400
        )
    assert refused.value.code == "request_exceeds_limit"
    assert "max_tokens" in refused.value.message
    assert "90" in refused.value.message
    with pytest.raises(anthropic.APIStatusError) as too_much:
        await gate.anthropic().messages.create(model="demo-small", messages=HELLO, max_tokens=400)
    assert "max_tokens" in str(too_much.value)
    assert "90" in str(too_much.value)
    assert gate.upstream.book == []
    message = await gate.anthropic().messages.create(
        model="demo-small", messages=HELLO, max_tokens=90
    )
    assert message.usage.output_tokens <= 90


async def test_h23_a_cost_clamps_what_may_be_written(gates: Gates) -> None:
    """A cent buys 100 tokens of this model, less what the input takes."""
    text = rules_text(COST).replace("models:\n", DEAR.lstrip("\n"), 1)
    gate = await gates(rules=text, clock=Clock())
    client = gate.openai()
    answer = await client.chat.completions.with_raw_response.create(model="dear-1", messages=HELLO)
    bound = asked(gate)["max_completion_tokens"]
    assert 90 <= bound < 100
    (status,) = (await gate.decision(answer.headers["gatekeeper-decision"]))["limits"]
    assert 0.95 <= status["requested"] <= 1
    other = await gates(rules=text, clock=Clock())
    with pytest.raises(openai.APIStatusError) as refused:
        await other.openai().chat.completions.create(
            model="dear-1", messages=HELLO, max_tokens=5_000
        )
    assert refused.value.code == "request_exceeds_limit"
    assert "max_tokens" in refused.value.message
    with pytest.raises(openai.APIStatusError):
        await other.openai().chat.completions.create(
            model="dear-1", messages=[{"role": "user", "content": "Hello" * 5_000}]
        )
    assert other.upstream.book == []
