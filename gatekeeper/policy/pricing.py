"""What a call costs by the model table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatekeeper.policy.patterns import matches_any

if TYPE_CHECKING:
    from gatekeeper.policy.ruleset import ModelRule, RuleSet

_REMEMBERED: Final = 1_000
_LONGEST: Final = 128
"""Characters of a name that is remembered: callers choose them."""
_PER_MILLION: Final = 1e-6


class PriceBook:
    """The model table of one rule set; remembers which row a model's name led to, bounded."""

    def __init__(self, rules: RuleSet) -> None:
        self._rows = rules.models
        self._found: dict[str, ModelRule] = {}

    def row(self, model: str | None) -> ModelRule:
        """Return the first row whose pattern matches; a call without a model matches the last."""
        if model is None:
            return self._rows[-1]
        row = self._found.get(model)
        if row is None:
            row = next(row for row in self._rows if matches_any(model, (row.model,)))
            if len(self._found) < _REMEMBERED and len(model) <= _LONGEST:
                self._found[model] = row
        return row

    def cents(self, model: str | None, input_tokens: int, output_tokens: int) -> float:
        """Return the price in US cents."""
        row = self.row(model)
        return _PER_MILLION * (
            input_tokens * row.input_cents_per_million
            + output_tokens * row.output_cents_per_million
        )
