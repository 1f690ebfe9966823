"""The bound on output that a body names, wherever it stands."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.asks import asked, refused, sent

from gatekeeper.dialects.base import Changes
from gatekeeper.dialects.body import BOUNDS, read_fields
from gatekeeper.dialects.output_bounds import Bound, bound_of

CHAT = "/v1/chat/completions"


def bound(**body: Any) -> Bound | str:
    """Read the bound of a body."""
    fields = read_fields(json.dumps(body).encode())
    assert isinstance(fields, dict)
    return bound_of(fields)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({}, Bound(None)),
        ({"max_tokens": None}, Bound(None)),
        ({"max_tokens": 7}, Bound(7)),
        ({"max_tokens": 1, "max_completion_tokens": 100_000}, Bound(100_000)),
        ({"max_output_tokens": 5, "n_predict": 9, "max_tokens": None}, Bound(9)),
        ({"max_tokens": 0}, Bound(None, endless=True)),
        ({"n_predict": -1, "max_tokens": 10}, Bound(None, endless=True)),
        ({"max_tokens": 10, "thinking_token_budget": 500}, Bound(500)),
        ({"max_tokens": 10, "thinking_budget": -1}, Bound(10)),
        ({"max_tokens": 10, "thinking": {"type": "enabled", "budget_tokens": 90}}, Bound(90)),
        ({"max_tokens": 10, "reasoning": {"max_tokens": 80, "effort": "low"}}, Bound(80)),
        ({"max_tokens": 10, "reasoning": {"effort": "low"}, "thinking": True}, Bound(10)),
        ({"thinking_token_budget": 500}, Bound(None)),
    ],
)
def test_h23_the_largest_bound_counts(body: dict[str, Any], wanted: Bound) -> None:
    """A small bound beside a large one does not hide it, and below 1 there is none."""
    assert bound(**body) == wanted


@pytest.mark.parametrize("value", ["7", 1.5, True, [1], 10**7 + 1, 10**30])
@pytest.mark.parametrize("name", [*BOUNDS, "thinking_budget"])
def test_h23_bounds_of_another_type_are_refused(name: str, value: Any) -> None:
    """By the field's name only, never with its value."""
    said = bound(**{"max_tokens": 5, name: value})
    assert said == f"The field `{name}` must be a whole number up to 10000000."


def test_h23_budgets_inside_of_objects_have_a_type_too() -> None:
    """As those outside."""
    said = refused(CHAT, model="m", max_tokens=5, thinking={"budget_tokens": "9"})
    assert said == "The field `thinking.budget_tokens` must be a whole number up to 10000000."


def test_budgets_are_lowered_with_the_bound() -> None:
    """In place, inside of objects too; what is small enough stays."""
    body = {
        "model": "m",
        "max_tokens": 900,
        "thinking_token_budget": 800,
        "thinking": {"type": "enabled", "budget_tokens": 700},
        "reasoning": {"max_tokens": 3, "effort": "low"},
    }
    assert asked(CHAT, **body).max_output_tokens == 900
    assert sent(CHAT, Changes(max_output_tokens=10), **body) == {
        "model": "m",
        "max_tokens": 10,
        "thinking_token_budget": 10,
        "thinking": {"type": "enabled", "budget_tokens": 10},
        "reasoning": {"max_tokens": 3, "effort": "low"},
    }
