"""Stages: raised at once, lowered after the hold time, with shadow rules only noted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from support.builders import AT, DAY_S, rules
from support.campaigns import STAGED, STAGES, accounts, campaign, group, words

from gatekeeper.policy.campaign_stages import Stages
from gatekeeper.policy.campaigns import CampaignState, Layer, Stage

if TYPE_CHECKING:
    from gatekeeper.policy.campaigns import Group

S = CampaignState
RULES = Stages(STAGED)
BARE = Stages(rules())
NO_OBSERVE = Stages(
    rules(STAGES[: STAGES.index("  - {id: observe")] + STAGES[STAGES.index("  - {id: budget") :])
)


@pytest.mark.parametrize(
    ("found", "stage"),
    [
        (group(score=29.9), None),
        (group(score=30.0), Stage.OBSERVE),
        (group(score=50.0), Stage.BUDGET),
        (group(score=60.0), Stage.PROBE),
        (group(score=99.0), Stage.STEP_UP),
        (group(accounts(0, 2), score=99.0), Stage.BUDGET),
        (group(score=99.0, layers=(Layer.ADDRESS,)), Stage.BUDGET),
        (group(score=99.0, layers=(Layer.ADDRESS, Layer.ADDRESS)), Stage.BUDGET),
        (group(accounts(0, 1), score=99.0), None),
    ],
)
def test_where_a_group_begins(found: Group, stage: Stage | None) -> None:
    """By score, members and layers; nothing but one layer never gets beyond a shared budget."""
    assert RULES.first(found) is stage
    assert BARE.first(found) is Stage.OBSERVE


def test_how_long_a_stage_holds() -> None:
    """As its rule says; a stage that the rules know no more is over at once."""
    assert RULES.hold_s(Stage.STEP_UP) == 3 * DAY_S
    assert RULES.hold_s(Stage.SHAPE) == 0
    assert NO_OBSERVE.hold_s(Stage.OBSERVE) == 3 * DAY_S
    assert BARE.hold_s(Stage.OBSERVE) == 0


def test_it_is_raised_at_once_past_the_stages_below() -> None:
    """And the history says from where to where, and why."""
    raised = RULES.staged(campaign(group(score=72.4)), AT, seen=True)
    assert (raised.stage, raised.staged_at) == (Stage.STEP_UP, AT)
    assert raised.history[-1].detail == "budget -> step_up, score 72"


def test_only_a_confirmed_campaign_is_banned() -> None:
    """Whatever it scores."""
    high = group(score=100.0)
    proposed = RULES.staged(campaign(high), AT, seen=True)
    assert proposed.stage is Stage.STEP_UP
    confirmed = RULES.staged(campaign(high, state=S.CONFIRMED), AT, seen=True)
    assert confirmed.stage is Stage.BAN


def test_it_is_lowered_when_it_has_fallen_short_for_the_hold_time() -> None:
    """To what is still borne out; between the two scores nothing happens at all."""
    at_step_up = campaign(group(score=60.0), stage=Stage.STEP_UP)
    assert RULES.staged(at_step_up, AT, seen=True) is at_step_up
    low = campaign(group(score=45.0), stage=Stage.STEP_UP)
    weak = RULES.staged(low, AT, seen=True)
    assert (weak.stage, weak.weak_since) == (Stage.STEP_UP, AT)
    assert RULES.staged(weak, AT + 3 * DAY_S - 1, seen=True).stage is Stage.STEP_UP
    lowered = RULES.staged(weak, AT + 3 * DAY_S, seen=True)
    assert (lowered.stage, lowered.weak_since) == (Stage.BUDGET, None)
    assert words(lowered) == ["stage"]


def test_time_counts_only_while_it_falls_short() -> None:
    """One good run in between, and it begins anew."""
    weak = RULES.staged(campaign(group(score=30.0)), AT, seen=True)
    well = RULES.staged(replace(weak, group=group(score=44.0)), AT + DAY_S, seen=True)
    assert well.weak_since is None
    again = RULES.staged(replace(well, group=group(score=30.0)), AT + 2 * DAY_S, seen=True)
    assert (again.stage, again.weak_since) == (Stage.BUDGET, AT + 2 * DAY_S)


def test_too_few_members_left_lower_it_too() -> None:
    """When most have proven who they are, the rest is not worth the stage."""
    left = accounts(0, 8)
    few = campaign(group(accounts(8, 10), score=80.0), stage=Stage.STEP_UP, left=left)
    weak = RULES.staged(few, AT, seen=True)
    assert RULES.staged(weak, AT + 3 * DAY_S, seen=True).stage is Stage.BUDGET


def test_what_falls_below_every_stage_is_let_go() -> None:
    """And says why."""
    weak = RULES.staged(campaign(group(score=5.0)), AT, seen=True)
    gone = RULES.staged(weak, AT + 2 * DAY_S, seen=True)
    assert (gone.state, gone.faded) == (S.RELEASED, True)
    assert gone.history[-1].detail == "too little is left of it"
    unseen = RULES.staged(weak, AT + 2 * DAY_S, seen=False)
    assert unseen.history[-1].detail == "not seen for long"


def test_without_a_rule_for_observe_it_stays_as_long_as_it_is_seen() -> None:
    """Its base then is to be observed."""
    low = campaign(group(score=1.0), weak_since=AT - 2 * DAY_S)
    down = NO_OBSERVE.staged(low, AT, seen=True)
    assert (down.state, down.stage) == (S.PROPOSED, Stage.OBSERVE)
    assert NO_OBSERVE.staged(down, AT + 99 * DAY_S, seen=True) is down
    weak = NO_OBSERVE.staged(down, AT, seen=False)
    assert NO_OBSERVE.staged(weak, AT + 3 * DAY_S, seen=False).state is S.RELEASED


def test_a_stage_without_a_rule_is_left_at_once() -> None:
    """Operators that take a stage out of the rules take campaigns out of the stage."""
    shaped = campaign(group(score=45.0), stage=Stage.SHAPE)
    assert RULES.staged(shaped, AT, seen=True).stage is Stage.BUDGET
    assert BARE.staged(shaped, AT, seen=True).stage is Stage.OBSERVE
    banned = campaign(group(score=5.0), stage=Stage.BAN, state=S.CONFIRMED)
    left = BARE.staged(banned, AT, seen=False)
    assert (left.state, left.stage) == (S.CONFIRMED, Stage.OBSERVE)


def test_h31_a_stage_in_shadow_is_only_noted() -> None:
    """Once, whatever the score does: the campaign stays where the enforced rules put it."""
    shadow = Stages(rules(STAGES.replace("id: step-up", "id: step-up, mode: shadow")))
    probed = campaign(group(score=75.0), stage=Stage.PROBE)
    noted = shadow.staged(probed, AT, seen=True)
    assert (noted.stage, words(noted)) == (Stage.PROBE, ["shadow_stage"])
    assert noted.history[-1].detail == "step_up (by step-up)"
    assert shadow.staged(noted, AT + 1, seen=True) is noted
    low = campaign(group(score=65.0), stage=Stage.PROBE)
    assert shadow.staged(low, AT, seen=True) is low
    assert shadow.first(group(score=75.0)) is Stage.PROBE
