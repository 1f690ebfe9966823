"""Tokens of a prompt, as the gate holds them before the upstream tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.gates import rules_text

from gatekeeper.dialects.exact_tokens import ExactTokens

if TYPE_CHECKING:
    from support.gates import Gates

TEXT = "Why had they sailed so late in the year? " * 200


@pytest.mark.parametrize(
    ("setting", "least", "most"), [("exact", 1.0, 1.01), ("estimate", 1.0, 1.75)]
)
async def test_the_setting_chooses_what_is_held(
    gates: Gates, setting: str, least: float, most: float
) -> None:
    """An exact count is held to the token, but for what stands around a message."""
    gate = await gates(rules=rules_text(), token_count=setting)
    answer = await gate.openai().chat.completions.with_raw_response.create(
        model="m", max_tokens=5, messages=[{"role": "user", "content": TEXT}]
    )
    decision = await gate.decision(answer.headers["gatekeeper-decision"])
    true = 3 + 4 + ExactTokens()(TEXT.encode())
    assert least * true <= decision["facts"]["call"]["input_tokens"] <= most * true
