"""What a call costs by the model table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatekeeper.policy.model import NO_PARTS
from gatekeeper.policy.patterns import matches_any

if TYPE_CHECKING:
    from gatekeeper.policy.model import Usage, UsageParts
    from gatekeeper.policy.ruleset import ModelRule, RuleSet

_REMEMBERED: Final = 1_000
_LONGEST: Final = 128
"""Characters of a name that is remembered: callers choose them."""
_PER_MILLION: Final = 1e-6
_MILLION: Final = 1_000_000
_MINUTE_S: Final = 60.0


class PriceBook:
    """The model table of one rule set; remembers which row a model's name led to, bounded."""

    def __init__(self, rules: RuleSet) -> None:
        self._rows = rules.models
        self._found: dict[str, ModelRule] = {}

    def row(self, model: str | None) -> ModelRule:
        """Return the first row whose pattern matches; a call without a model matches the last.

        A name that only the last one matches is looked up without the provider before its slash.
        """
        if model is None:
            return self._rows[-1]
        row = self._found.get(model)
        if row is None:
            row = self._match(model)
            if row is self._rows[-1]:
                row = self._match(model.rpartition("/")[2])
            if len(self._found) < _REMEMBERED and len(model) <= _LONGEST:
                self._found[model] = row
        return row

    def _match(self, model: str) -> ModelRule:
        return next(row for row in self._rows if matches_any(model, (row.model,)))

    def cents(self, model: str | None, usage: Usage) -> float:
        """Return the price of ``usage`` in US cents; its own ``cost_cents`` is not looked at.

        A part without a price of its own costs what the whole does. Parts that add up to more than
        their whole are all paid for.
        """
        row = self.row(model)
        cents_e6 = (
            usage.input_tokens * row.input_cents_per_million
            + usage.output_tokens * row.output_cents_per_million
        )
        if usage.parts is not NO_PARTS:
            cents_e6 += _surcharge(row, usage.parts)
        return max(0.0, cents_e6 * _PER_MILLION)


def _surcharge(row: ModelRule, parts: UsageParts) -> float:
    """Return what parts add to (or take from) the price of their whole, in millionths of a cent."""
    within_input = (
        (parts.cached_input_tokens, row.cached_input_cents_per_million),
        (parts.cache_write_tokens, row.cache_write_cents_per_million),
        (parts.cache_write_1h_tokens, row.cache_write_1h_cents_per_million),
        (parts.audio_input_tokens, row.audio_input_cents_per_million),
        (parts.image_input_tokens, row.image_input_cents_per_million),
    )
    within_output = (
        (parts.reasoning_tokens, row.reasoning_cents_per_million),
        (parts.audio_output_tokens, row.audio_output_cents_per_million),
        (parts.image_output_tokens, row.image_output_cents_per_million),
    )
    total = sum(
        tokens * (price - whole)
        for within, whole in (
            (within_input, row.input_cents_per_million),
            (within_output, row.output_cents_per_million),
        )
        for tokens, price in within
        if price is not None
    )
    total += parts.characters * row.characters_cents_per_million
    total += parts.images * row.image_cents * _MILLION
    return total + parts.audio_s / _MINUTE_S * row.audio_cents_per_minute * _MILLION
