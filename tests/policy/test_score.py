"""The risk score is the sum of its contributions, enforced and in shadow apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from support.builders import account, call, facts, network, rules
from support.strategies import some_facts, some_rules

from gatekeeper.policy.model import Contribution, Facts
from gatekeeper.policy.score import score
from gatekeeper.policy.view import view_of
from gatekeeper.policy.words import Mode, NetworkKind, Tier

if TYPE_CHECKING:
    from gatekeeper.policy.ruleset import RuleSet

SIGNALS = rules(
    """
signals:
  - {id: tor, description: d, when: network.kind == "tor", points: 40}
  - {id: trusted, description: d, when: account.tier == "trusted", points: -15}
  - {id: stream, description: d, mode: shadow, when: call.stream, points: 7}
  - {id: model, description: d, when: call.model == "x", points: 100}
"""
)


def test_points_add_up() -> None:
    """What holds counts, negative points too; shadow counts apart; unknown counts nothing."""
    known = facts(
        where=network(kind=NetworkKind.TOR),
        who=account(tier=Tier.TRUSTED),
        what=call(stream=True, model=None),
    )
    risk = score(view_of(known), SIGNALS)
    assert (risk.total, risk.shadow_total) == (25, 32)
    assert risk.contributions == (
        Contribution("tor", 40, Mode.ENFORCE),
        Contribution("trusted", -15, Mode.ENFORCE),
        Contribution("stream", 7, Mode.SHADOW),
    )


def test_exempt_signals_do_not_count() -> None:
    """An exemption takes the points away; one in shadow takes them from the shadow total only."""
    view = view_of(facts(where=network(kind=NetworkKind.TOR)))
    assert score(view, SIGNALS, frozenset({"tor"})).contributions == ()
    shadow = score(view, SIGNALS, frozenset(), frozenset({"tor"}))
    assert (shadow.total, shadow.shadow_total) == (40, 0)


@settings(max_examples=40, deadline=None)
@given(known=some_facts(), some=some_rules())
def test_total_is_the_sum_of_contributions(known: Facts, some: RuleSet) -> None:
    """Of any facts and rules."""
    risk = score(view_of(known), some)
    enforced = [each.points for each in risk.contributions if each.mode is Mode.ENFORCE]
    assert risk.total == sum(enforced)
    assert risk.shadow_total == sum(each.points for each in risk.contributions)
