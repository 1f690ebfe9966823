"""The bound on output that a body names, wherever and however it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from gatekeeper.dialects.body import BOUNDS, MOST_TOKENS, whole_number
from gatekeeper.dialects.json_spans import Edit, members

if TYPE_CHECKING:
    from gatekeeper.dialects.body import Fields
    from gatekeeper.dialects.json_spans import Member

BUDGETS: Final = (
    "thinking_token_budget",
    "thinking_budget",
    "thinking_budget_tokens",
    "reasoning_budget",
    "reasoning_budget_tokens",
)
"""Bounds on thinking. Most servers count it within the bound on output, some beside it."""
INNER_BUDGETS: Final = {"thinking": "budget_tokens", "reasoning": "max_tokens"}
"""The same inside of an object."""
_BUDGETED: Final = frozenset((*BUDGETS, *INNER_BUDGETS))
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Bound(NamedTuple):
    """How much one answer may be."""

    most: int | None
    """Tokens; ``None`` when the body names no bound."""
    endless: bool = False
    """Whether the upstream then knows no end of its own either, or may not heed this one."""


def bound_of(
    fields: Fields, *, endless: bool = False, obeyed: tuple[str, ...] = BOUNDS
) -> Bound | str:
    """Return the largest bound that a body names: fields differ in who obeys them (H23).

    Below 1 a bound means "none" to some servers (llama.cpp: -1), so it is none here. ``endless``
    says whether a body that names no bound is answered without end; where only others are named
    than those that every server of the route has ``obeyed``, it may be too.
    """
    most: int | None = None
    unbounded = False
    heard = False
    for name in BOUNDS:
        if name not in fields:
            continue
        number = _tokens(fields[name])
        if isinstance(number, str):
            return f"The field `{name}` {number}"
        if number is not None and number < 1:
            unbounded = True
        elif number is not None:
            most = max(number, most or 0)
            heard = heard or name in obeyed
    if unbounded:
        return Bound(None, endless=True)
    if most is None:
        return Bound(None, endless)
    if _BUDGETED.isdisjoint(fields):
        return Bound(most, not heard)
    budget = _budget(fields)
    return budget if isinstance(budget, str) else Bound(max(most, budget), not heard)


def _budget(fields: Fields) -> int | str:
    """Return the largest budget for thinking, which some servers bill beside the bound."""
    named: Fields = {name: fields[name] for name in BUDGETS if name in fields}
    for outer, inner in INNER_BUDGETS.items():
        value = fields.get(outer)
        if value is not None and value.startswith(b"{"):
            found = _OBJECT.decode(value).get(inner)
            if found is not None:
                named[f"{outer}.{inner}"] = bytes(found)
    most = 0
    for name, value in named.items():
        number = _tokens(value)
        if isinstance(number, str):
            return f"The field `{name}` {number}"
        most = max(most, number or 0)
    return most


def _tokens(value: bytes) -> int | str | None:
    """Return a number of tokens, or what it must be instead."""
    try:
        number = whole_number(value)
    except ValueError:
        number = MOST_TOKENS + 1
    if number is not None and number > MOST_TOKENS:
        return f"must be a whole number up to {MOST_TOKENS}."
    return number


def lowered_budgets(body: bytes, found: list[Member], most: int) -> list[Edit]:
    """Return the edits that bring budgets for thinking down to ``most``, in place."""
    places = [each for each in found if each.name.decode() in BUDGETS]
    for outer in found:
        inner = INNER_BUDGETS.get(outer.name.decode())
        if inner is not None and body.startswith(b"{", outer.value):
            places += [each for each in members(body, outer.value) if each.name == inner.encode()]
    edits = []
    for each in places:
        number = _tokens(body[each.value : each.end])
        if isinstance(number, int) and number > most:
            edits.append(Edit(each.value, each.end, str(most).encode()))
    return edits
