"""Which quotas a call draws on, in which partitions, and what they can give at most."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from gatekeeper.policy.limits import MICRO, Claim, Quota, to_micro
from gatekeeper.policy.words import Mode, Tier, Unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.policy.model import Call, Facts, Standing, View
    from gatekeeper.policy.ruleset import RuleSet


def most_output(claims: tuple[Claim, ...], call: Call, input_cents: float) -> int:
    """Return the output tokens that no quota refuses for ever.

    ``input_cents`` is what the call costs if nothing at all is written.
    A quota that yields refuses none, and one in shadow mode stands in nobody's way.
    """
    most = call.max_output_tokens
    for claim in claims:
        quota = claim.quota
        if claim.amount <= quota.burst or quota.yields or quota.mode is not Mode.ENFORCE:
            continue
        if quota.unit is Unit.OUTPUT_TOKENS:
            most = min(most, quota.burst // MICRO)
        elif quota.unit is Unit.COST and call.cost_cents > input_cents:
            cents_per_token = (call.cost_cents - input_cents) / call.max_output_tokens
            most = min(most, max(0, int((quota.limit - input_cents) / cents_per_token)))
    return most


class LimitPlanner:
    """The limits of one rule set, arranged so that a call finds its claims quickly."""

    __slots__ = ("_plans", "_rules")

    def __init__(self, rules: RuleSet) -> None:
        self._rules = rules.limits
        factors = {1.0, *(threshold.tighten for threshold in rules.thresholds)}
        self._plans = {factor: self._plan(factor) for factor in factors}

    def claims(self, facts: Facts, standing: Standing, view: View) -> tuple[Claim, ...]:
        """Return what the call asks of every quota that applies to it, in the order of the rules.

        A rule applies to its tiers, where its condition is true or unknown, unless it is exempt or
        its partition names an organization, model or campaign that the call does not have.
        """
        plan = self._plans.get(standing.tighten) or self._plan(standing.tighten)
        partitioned, entries = plan[facts.account.tier]
        partitions = [_partition(readers, facts) for readers in partitioned]
        call, exempt = facts.call, standing.exempt
        amounts = (
            MICRO,
            to_micro(call.input_tokens),
            to_micro(call.max_output_tokens),
            to_micro(call.cost_cents),
            to_micro(max(1, call.body_bytes)),  # so that a debt refuses what has no body too
            MICRO,
        )
        return tuple(
            Claim(quota, partition, amounts[unit])
            for quota, slot, unit, when in entries
            if (partition := partitions[slot]) is not None
            and quota.rule not in exempt
            and (when is None or when(view) is not False)
        )

    def _plan(self, tighten: float) -> dict[Tier, _Plan]:
        return {tier: self._plan_of(tier, tighten) for tier in Tier}

    def _plan_of(self, tier: Tier, tighten: float) -> _Plan:
        rules = [rule for rule in self._rules if tier in rule.tiers]
        partitioned = tuple(dict.fromkeys(rule.per for rule in rules))
        readers = tuple(tuple(_PARTS[name] for name in per) for per in partitioned)
        return readers, tuple(
            (
                Quota.of(rule, tighten),
                partitioned.index(rule.per),
                _AMOUNTS.index(rule.unit),
                None if rule.when is None else rule.when.evaluate,
            )
            for rule in rules
        )


if TYPE_CHECKING:
    _Entry = tuple[Quota, int, int, Callable[[View], bool | None] | None]
    _Reader = Callable[[Facts], str | None]
    _Plan = tuple[tuple[tuple[_Reader, ...], ...], tuple[_Entry, ...]]

_AMOUNTS: Final = (
    Unit.REQUESTS,
    Unit.INPUT_TOKENS,
    Unit.OUTPUT_TOKENS,
    Unit.COST,
    Unit.BYTES,
    Unit.CONCURRENCY,
)

_UNKNOWN: Final = "unknown"
"""The partition of calls whose AS number, country or key is not known: they share one."""

_PARTS: Final[dict[str, Callable[[Facts], str | None]]] = {
    "organization": lambda facts: facts.account.organization,
    "account": lambda facts: facts.account.id,
    "key": lambda facts: facts.credential.key_id or _UNKNOWN,
    "model": lambda facts: _in_one_case(facts.call.model),
    "campaign": lambda facts: None if facts.campaign is None else facts.campaign.id,
    "address": lambda facts: facts.network.address_key,
    "prefix": lambda facts: facts.network.prefix_key,
    "asn": lambda facts: _UNKNOWN if facts.network.asn is None else str(facts.network.asn),
    "country": lambda facts: facts.network.country or _UNKNOWN,
}


def _in_one_case(model: str | None) -> str | None:
    """Return a name as servers see it that do not tell cases apart: no fresh quota for each."""
    return None if model is None else model.casefold()


_LONGEST_PART: Final = 64


def _partition(readers: tuple[_Reader, ...], facts: Facts) -> str | None:
    if len(readers) == 1:
        part = readers[0](facts)
        return None if part is None else _plain(part)
    parts = [reader(facts) for reader in readers]
    return None if None in parts else "|".join(_plain(part) for part in parts if part is not None)


def _plain(part: str) -> str:
    """Digest what is long, odd or could pass for two parts: callers choose some of these names."""
    if part.isascii() and len(part) <= _LONGEST_PART and "|" not in part and part[:1] != "~":
        return part
    digest = blake2b(part.encode(errors="surrogatepass"), digest_size=16)
    return f"~{digest.hexdigest()}"
