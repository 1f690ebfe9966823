"""More risk and more rules never soften a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given, settings
from support.builders import (
    default_pack,
)
from support.changes import replace
from support.strategies import some_facts, some_rules

from gatekeeper.policy.decide import (
    judge,
    worst,
)
from gatekeeper.policy.model import FOREVER, Facts
from gatekeeper.policy.ruleset import OnUnknown, RuleSet
from gatekeeper.policy.words import CredentialStatus, LookupStatus, NetworkKind, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable


PACK = default_pack()


def softened(before: Verdict, after: Verdict) -> bool:
    """Tell whether ``after`` is less severe than ``before``."""
    return worst((before, after)) is not after


_RISKIER = {
    kind: rank
    for rank, kinds in enumerate(
        (
            (NetworkKind.PRIVATE,),
            (NetworkKind.RESIDENTIAL, NetworkKind.MOBILE, NetworkKind.UNKNOWN),
            (NetworkKind.HOSTING, NetworkKind.RELAY),
            (NetworkKind.VPN,),
            (NetworkKind.RESIDENTIAL_PROXY,),
            (NetworkKind.TOR,),
        )
    )
    for kind in kinds
}


def _where(known: Facts, /, **changes: Any) -> Facts:
    return replace(known, network=replace(known.network, **changes))


def _who(known: Facts, /, **changes: Any) -> Facts:
    return replace(known, account=replace(known.account, **changes))


def _riskier_kind(known: Facts, other: Facts) -> Facts:
    assume(_RISKIER[other.network.kind] > _RISKIER[known.network.kind])
    return _where(known, kind=other.network.kind)


def _on_more_lists(known: Facts, other: Facts) -> Facts:
    both = {*known.network.listed_by, *other.network.listed_by}
    return _where(known, listed_by=tuple(sorted(both)))


def _younger(known: Facts, other: Facts) -> Facts:
    born, before = other.account.created_at, known.account.created_at
    assume(born is not None and (before is None or born > before))
    return _who(known, created_at=born)


def _not_known(known: Facts, _: Facts) -> Facts:
    return _who(known, known=False)


def _disposable(known: Facts, other: Facts) -> Facts:
    lists = {*known.account.email_listed_by, *other.account.email_listed_by, "disposable"}
    return _who(known, email_listed_by=tuple(sorted(lists)))


def _banned(known: Facts, _: Facts) -> Facts:
    return _who(known, banned_until=FOREVER)


def _lower_tier(known: Facts, other: Facts) -> Facts:
    return _who(known, tier=known.account.tier.stricter(other.account.tier))


def _less_assurance(known: Facts, other: Facts) -> Facts:
    assume(known.account.assurance.meets(other.account.assurance))
    return _who(known, assurance=other.account.assurance)


def _bad_owner(known: Facts, _: Facts) -> Facts:
    return _who(known, owners=(*known.account.owners, "bytedance"))


def _records_lost(known: Facts, _: Facts) -> Facts:
    return _who(known, status=LookupStatus.UNKNOWN)


def _bad_credential(known: Facts, _: Facts) -> Facts:
    assume(known.credential.status is CredentialStatus.VALID)
    return replace(known, credential=replace(known.credential, status=CredentialStatus.INVALID))


def _embargoed_country(known: Facts, _: Facts) -> Facts:
    assume(known.network.kind is not NetworkKind.PRIVATE)
    return _where(known, country="KP")


def _unknown_country(known: Facts, _: Facts) -> Facts:
    assume(known.network.kind is not NetworkKind.PRIVATE)
    return _where(known, country=None)


def _bad_network(known: Facts, _: Facts) -> Facts:
    assume(known.network.kind is not NetworkKind.PRIVATE)
    return _where(known, owner="tencent")


def _lookups_lost(known: Facts, _: Facts) -> Facts:
    lost = tuple(replace(each, status=LookupStatus.UNKNOWN) for each in known.network.lookups)
    return _where(known, lookups=lost)


def _more_choices(known: Facts, other: Facts) -> Facts:
    more = max(known.call.choices, other.call.choices)
    return replace(known, call=replace(known.call, choices=more))


def _longer(known: Facts, other: Facts) -> Facts:
    mine, its = known.call, other.call
    longer = replace(
        mine,
        input_tokens=max(mine.input_tokens, its.input_tokens),
        max_output_tokens=max(mine.max_output_tokens, its.max_output_tokens),
        cost_cents=max(mine.cost_cents, its.cost_cents),
    )
    return replace(known, call=longer)


RAISERS: tuple[Callable[[Facts, Facts], Facts], ...] = (
    _riskier_kind,
    _on_more_lists,
    _younger,
    _not_known,
    _disposable,
    _banned,
    _lower_tier,
    _less_assurance,
    _bad_owner,
    _records_lost,
    _bad_credential,
    _embargoed_country,
    _unknown_country,
    _bad_network,
    _lookups_lost,
    _more_choices,
    _longer,
)


@pytest.mark.parametrize("raiser", RAISERS, ids=lambda raiser: raiser.__name__.strip("_"))
@settings(max_examples=30, deadline=None)
@given(known=some_facts(), other=some_facts())
def test_more_risk_never_softens_the_default_pack(
    raiser: Callable[[Facts, Facts], Facts], known: Facts, other: Facts
) -> None:
    """Of any facts, one made riskier and all else the same, the pack's verdict is no milder.

    The kinds of network rank as the pack's points do. A country alone is not compared with
    another one that is served: neither is riskier. Nor is it for private addresses, which have
    none. An account that nobody knows any more keeps its age here: an age that is not known counts
    nothing. Limits are not softer either: the tightening is no weaker while the call goes on.
    """
    before, after = judge(known, PACK), judge(raiser(known, other), PACK)
    assert not softened(before.verdict, after.verdict)
    if before.admits and after.admits:
        assert after.tighten <= before.tighten


@pytest.mark.parametrize(
    "raiser", [_banned, _bad_credential, _records_lost], ids=["ban", "credential", "records"]
)
@settings(max_examples=30, deadline=None)
@given(known=some_facts(), some=some_rules())
def test_more_risk_never_softens_any_rules(
    raiser: Callable[[Facts, Facts], Facts], known: Facts, some: RuleSet
) -> None:
    """Facts that no condition reads only ever add to what is found, whatever the rules."""
    assert not softened(judge(known, some).verdict, judge(raiser(known, known), some).verdict)


@settings(max_examples=50, deadline=None)
@given(known=some_facts(), some=some_rules(), more=some_rules())
def test_more_rules_never_soften(known: Facts, some: RuleSet, more: RuleSet) -> None:
    """Adding embargoes, thresholds, step-ups and signals with points never makes a call pass."""
    both = replace(
        some,
        embargo=some.embargo + more.embargo,
        signals=some.signals + tuple(s for s in more.signals if s.points > 0),
        thresholds=some.thresholds + more.thresholds,
        step_up=some.step_up + more.step_up,
        exemptions=(),
    )
    alone = replace(some, exemptions=())
    assert not softened(judge(known, alone).verdict, judge(known, both).verdict)


@pytest.mark.parametrize("strict", [OnUnknown.REFUSE, OnUnknown.STEP_UP])
@settings(max_examples=30, deadline=None)
@given(known=some_facts(), some=some_rules())
def test_h15_stricter_unknown_never_softens(strict: OnUnknown, known: Facts, some: RuleSet) -> None:
    """Saying that unknown means more than nothing never lets a call pass."""
    loose = replace(
        some, embargo=tuple(replace(rule, unknown=OnUnknown.ALLOW) for rule in some.embargo)
    )
    tight = replace(some, embargo=tuple(replace(rule, unknown=strict) for rule in some.embargo))
    assert not softened(judge(known, loose).verdict, judge(known, tight).verdict)
