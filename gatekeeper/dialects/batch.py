"""Adds up the calls of a batch: what all of them together may take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from gatekeeper.dialects.base import Ask
from gatekeeper.policy.model import NO_PARTS, UsageParts

if TYPE_CHECKING:
    from collections.abc import Iterable

BATCH_PRICE: Final = 0.5
"""What a call costs in a batch, in both families, beside the same call made at once."""
MOST_CALLS: Final = 100_000


def summed(asks: Iterable[Ask | str]) -> Ask | str:
    """Return one ask for all calls of a batch, or say what is wrong with the first bad one.

    An account is allowed models one by one, so a batch names one. Its usage is reported a day
    later, if at all: it is charged what it holds.
    """
    models: set[str | None] = set()
    number = input_tokens = choices = 0
    output: int | None = 0
    parts: list[UsageParts] = []
    logit_bias = prefill = logprobs = False
    for ask in asks:
        number += 1
        if number > MOST_CALLS:
            return f"A batch may hold at most {MOST_CALLS} calls."
        if isinstance(ask, str):
            return f"Call {number} of the batch: {ask}"
        models.add(ask.model)
        if len(models) > 1:
            return f"Call {number} of the batch names another model: make one batch for each model."
        input_tokens += ask.input_tokens
        choices += ask.choices
        if ask.max_output_tokens is None or ask.endless or output is None:
            output = None
        else:
            output += ask.max_output_tokens
        if ask.parts is not NO_PARTS:
            parts.append(ask.parts)
        logit_bias = logit_bias or ask.logit_bias
        prefill = prefill or ask.prefill
        logprobs = logprobs or ask.logprobs
    if not number:
        return "The batch holds no call."
    return Ask(
        models.pop(),
        input_tokens=input_tokens,
        max_output_tokens=output,
        choices=choices,
        prompts=number,
        parts=_together(parts),
        price_factor=BATCH_PRICE,
        fixed_output=True,
        unreported=True,
        outlasts=True,
        logit_bias=logit_bias,
        prefill=prefill,
        logprobs=logprobs,
    )


def _together(parts: list[UsageParts]) -> UsageParts:
    if not parts:
        return NO_PARTS
    names = UsageParts.__struct_fields__
    total = {name: sum(getattr(part, name) for part in parts) for name in names}
    return msgspec.convert(total, UsageParts)
