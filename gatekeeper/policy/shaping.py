"""What is changed in a call and its answer: of all shaping rules that apply, the strictest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from gatekeeper.policy.model import Finding, Shaping
from gatekeeper.policy.words import LogprobsChange, Mode, Parameter, Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from gatekeeper.policy.model import Call, Facts, RiskScore, View
    from gatekeeper.policy.ruleset import ShapingRule


class Shaped(NamedTuple):
    """What the shaping rules say of one call."""

    shaping: Shaping | None = None
    """What the enforced ones ask for together; ``None`` for nothing."""
    findings: tuple[tuple[Finding, str | None], ...] = ()
    """Each with a sentence for the caller, where it refuses."""
    lifted: frozenset[str] = frozenset()
    """Ids of the rules that shadow signals would take back."""


NOT_SHAPED: Final = Shaped()

Number = TypeVar("Number", int, float)

_BATCHES: Final = "_batches"
"""How the names of dialects end that take batches."""
_STRICTNESS: Final = tuple(LogprobsChange)
_USES: Final[dict[Parameter, Callable[[Call], bool]]] = {
    Parameter.LOGIT_BIAS: lambda call: call.logit_bias,
    Parameter.PREFILL: lambda call: call.prefill,
    Parameter.LOGPROBS: lambda call: call.logprobs,
    Parameter.BATCH: lambda call: call.dialect.endswith(_BATCHES) and call.method == "POST",
}
_SENTENCES: Final = {
    Parameter.LOGIT_BIAS: "The parameter is `logit_bias`.",
    Parameter.PREFILL: "It is the beginning of the answer (prefill): "
    "the last message must not be the assistant's.",
    Parameter.LOGPROBS: "The parameter is `logprobs` (or `top_logprobs`).",
    Parameter.BATCH: "It is the batch: send its calls one by one.",
}


def shape(
    facts: Facts,
    view: View,
    risk: RiskScore,
    rules: Sequence[ShapingRule],
    exempt: frozenset[str],
) -> Shaped:
    """Return what the ``rules`` of its account's tier, less those exempted from, ask of a call."""
    enforced: list[ShapingRule] = []
    findings: list[tuple[Finding, str | None]] = []
    lifted: set[str] = set()
    for rule in rules:
        least = rule.at_least
        reached = rule.mode is Mode.ENFORCE and (least is None or risk.total >= least)
        in_shadow = least is None or risk.shadow_total >= least
        if not (reached or in_shadow) or rule.id in exempt:
            continue
        if rule.when is not None and rule.when(view) is False:
            continue
        if not in_shadow:
            lifted.add(rule.id)
        if reached:
            enforced.append(rule)
        findings += _found(rule, Mode.ENFORCE if reached else Mode.SHADOW, facts.call)
    if not (enforced or findings or lifted):
        return NOT_SHAPED
    return Shaped(strictest(enforced), tuple(findings), frozenset(lifted))


def _found(rule: ShapingRule, mode: Mode, call: Call) -> Iterator[tuple[Finding, str | None]]:
    for parameter in Parameter:
        if parameter in rule.refuse and _USES[parameter](call):
            why = Reason.PARAMETER_NOT_PERMITTED
            yield Finding(rule.id, mode, Verdict.DENY, why, parameter.value), _SENTENCES[parameter]
    shaping = rule.shaping
    most = shaping.max_context_tokens
    if most is not None and call.max_output_tokens and call.input_tokens >= most:
        why = Reason.REQUEST_EXCEEDS_LIMIT
        yield (
            Finding(rule.id, mode, Verdict.RATE_LIMITED, why, "context"),
            f"Input and answer together may hold at most {most} tokens: shorten the prompt.",
        )
    if changes := told(shaping):
        yield Finding(rule.id, mode, Verdict.ALLOW, None, changes), None


def strictest(rules: Sequence[ShapingRule]) -> Shaping | None:
    """Join what rules ask for; ``None`` when they ask for no change."""
    asking = [rule for rule in rules if rule.shaping != _NOTHING]
    if not asking:
        return None
    asked = [rule.shaping for rule in asking]
    changes = [each.logprobs for each in asked if each.logprobs is not None]
    change = max(changes, key=_STRICTNESS.index, default=None)
    blurs = change in {LogprobsChange.ROUND, LogprobsChange.NOISE}
    return Shaping(
        rules=tuple(rule.id for rule in asking),
        logprobs=change,
        decimals=_least(each.decimals for each in asked) if blurs else None,
        epsilon=_least(each.epsilon for each in asked) if change is LogprobsChange.NOISE else None,
        max_output_tokens=_least(each.max_output_tokens for each in asked),
        max_choices=_least(each.max_choices for each in asked),
        max_context_tokens=_least(each.max_context_tokens for each in asked),
        drop_reasoning=any(each.drop_reasoning for each in asked),
    )


_NOTHING: Final = Shaping()


def _least(values: Iterable[Number | None]) -> Number | None:
    return min((value for value in values if value is not None), default=None)


def told(shaping: Shaping) -> str:
    """Return what is changed, in a line for operators."""
    words = []
    if shaping.logprobs is not None:
        blur = [f"decimals {shaping.decimals}"] if shaping.decimals is not None else []
        blur += [f"epsilon {shaping.epsilon:g}"] if shaping.epsilon is not None else []
        words.append(" ".join(["logprobs", shaping.logprobs.value, *blur]))
    if shaping.drop_reasoning:
        words.append("drop reasoning")
    for name in ("max_output_tokens", "max_choices", "max_context_tokens"):
        most = getattr(shaping, name)
        if most is not None:
            words.append(f"{name} {most}")
    return ", ".join(words)
