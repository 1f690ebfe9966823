"""On which terms a call goes on: what it is held for, and what is changed in it and its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from gatekeeper.dialects.base import NO_CHANGES, Changes
from gatekeeper.policy.limit_plan import most_output
from gatekeeper.policy.limits import MICRO
from gatekeeper.policy.model import Usage
from gatekeeper.policy.words import Mode, Unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.dialects.base import AnswerPlan, Ask
    from gatekeeper.listener.intake import Taken
    from gatekeeper.policy.limits import Claim
    from gatekeeper.policy.model import Call, Shaping
    from gatekeeper.policy.pricing import PriceBook
    from gatekeeper.storage.limiter import Reservation


class Terms(Struct, frozen=True, gc=False):
    """What a call may take at most, and what of it differs from what the caller asked for."""

    call: Call
    """The call with its worst case as it is held."""
    changes: Changes = NO_CHANGES
    budget_tokens: int | None = None
    """Output tokens after which the answer is ended; ``None``: never."""

    def lowered(self, ask: Ask, per_choice: int, prices: PriceBook) -> Terms:
        """Return the terms with a smaller bound on the output of each choice."""
        call = self.call
        output = per_choice * call.choices
        if output >= call.max_output_tokens or ask.fixed_output:
            return self
        changes = replace(self.changes, max_output_tokens=per_choice)
        return replace(
            self,
            call=replace(
                call,
                max_output_tokens=output,
                cost_cents=worst_cents(ask, call.input_tokens, output, prices),
            ),
            changes=changes,
        )


def asked(call: Call, taken: Taken, prices: PriceBook) -> Call:
    """Return the call with what its body asks; a bound that it does not name is the model's."""
    ask = taken.ask
    if ask is None:
        return replace(call, body_bytes=taken.body_bytes)
    output = ask.max_output_tokens
    if output is None:
        output = prices.row(ask.model).max_output_tokens * ask.choices
    return replace(
        call,
        model=ask.model,
        stream=ask.stream,
        input_tokens=ask.input_tokens,
        max_output_tokens=output,
        choices=ask.choices,
        cost_cents=worst_cents(ask, ask.input_tokens, output, prices),
        body_bytes=taken.body_bytes,
        logit_bias=ask.logit_bias,
        prefill=ask.prefill,
        logprobs=ask.logprobs,
        asks=ask.evidence[0].asks if ask.evidence else (),
    )


def worst_cents(ask: Ask, input_tokens: int, output_tokens: int, prices: PriceBook) -> float:
    """Return what a call costs if it takes all that it asks for, in US cents."""
    worst = worst_usage(ask, input_tokens, output_tokens)
    return prices.cents(ask.model, worst) * ask.price_factor


def worst_usage(ask: Ask, input_tokens: int, output_tokens: int) -> Usage:
    """Return what a call uses if it takes all that it asks for; speech is at most all of it."""
    parts = ask.parts
    if parts.audio_output_tokens > output_tokens:
        parts = replace(parts, audio_output_tokens=output_tokens)
    return Usage(input_tokens, output_tokens, estimated=True, parts=parts)


def shaped(call: Call, ask: Ask | None, shaping: Shaping | None, prices: PriceBook) -> Terms:
    """Return the terms of a call as its shaping bounds it."""
    terms = Terms(call)
    if shaping is None or ask is None or not ask.generates or ask.fixed_output:
        return terms
    most = shaping.max_choices
    if most is not None and call.choices > most * ask.prompts:
        fewer = most * ask.prompts
        output = call.max_output_tokens // call.choices * fewer
        terms = Terms(
            replace(
                call,
                choices=fewer,
                max_output_tokens=output,
                cost_cents=worst_cents(ask, call.input_tokens, output, prices),
            ),
            Changes(max_choices=most),
        )
    bounds = [shaping.max_output_tokens]
    if shaping.max_context_tokens is not None:
        bounds.append(max(1, shaping.max_context_tokens - call.input_tokens))
    named = [bound for bound in bounds if bound is not None]
    return terms.lowered(ask, min(named), prices) if named else terms


def fitted(terms: Terms, ask: Ask | None, claims: tuple[Claim, ...], prices: PriceBook) -> Terms:
    """Let a call that names no bound write as much as its quotas can ever give at once.

    Otherwise the model's own maximum, which the caller may not know, would refuse its first call.
    One that names a bound which its upstream may not heed is bound to that one in other words.
    """
    if ask is None or (ask.max_output_tokens is not None and not ask.endless):
        return terms
    call = terms.call
    if ask.max_output_tokens is None:
        most = most_output(claims, call, worst_cents(ask, call.input_tokens, 0, prices))
        terms = terms.lowered(ask, max(1, most // call.choices), prices)
        call = terms.call
    if ask.endless and terms.changes.max_output_tokens is None:
        bound = max(1, call.max_output_tokens // call.choices)
        terms = replace(terms, changes=replace(terms.changes, max_output_tokens=bound))
    return terms


def granted(terms: Terms, ask: Ask | None, held: Reservation | None, prices: PriceBook) -> Terms:
    """Bound a call to what it was given, where a quota gave less than it asked for."""
    if ask is None or held is None or ask.fixed_output:
        return terms
    most = [
        claim.amount // MICRO
        for claim in held.claims
        if claim.quota.yields
        and claim.quota.mode is Mode.ENFORCE
        and claim.quota.unit is Unit.OUTPUT_TOKENS
    ]
    if not most or min(most) >= terms.call.max_output_tokens:
        return terms
    budget = min(most)
    lower = terms.lowered(ask, max(1, budget // terms.call.choices), prices)
    return replace(lower, call=replace(lower.call, max_output_tokens=budget), budget_tokens=budget)


def answer_plan(
    terms: Terms, ask: Ask, shaping: Shaping | None, seed: Callable[[], bytes], plain: AnswerPlan
) -> AnswerPlan:
    """Return how the answer is read: as ``plain`` says, with what is changed in it."""
    shapes = shaping is not None and shaping.changes_answer
    hides = terms.changes.report_usage
    if not shapes and not hides and terms.budget_tokens is None:
        return plain
    return replace(
        plain,
        hide_usage=hides,
        leave_last_usage=hides and ask.wants_usage is True,
        shaping=shaping if shapes else None,
        seed=seed() if shapes else b"",
        budget_tokens=terms.budget_tokens,
    )
