"""How far a campaign is contained: raised at once, lowered only after a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gatekeeper.policy.campaign_steps import noted
from gatekeeper.policy.campaigns import CampaignState, Event, Stage
from gatekeeper.policy.words import Mode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gatekeeper.policy.campaigns import Campaign, Group
    from gatekeeper.policy.ruleset import ContainmentRule, RuleSet


class Stages:
    """The stages of one rule set."""

    __slots__ = ("_rules", "_shadow")

    def __init__(self, rules: RuleSet) -> None:
        every = sorted(rules.containment, key=lambda rule: rule.stage.rank)
        self._rules = {rule.stage: rule for rule in every if rule.mode is Mode.ENFORCE}
        self._shadow = [rule for rule in every if rule.mode is Mode.SHADOW]

    def first(self, group: Group) -> Stage | None:
        """Return the stage at which a group becomes a campaign; ``None`` when it is too weak."""
        size, layers = len(group.members), len(set(group.layers))
        reached = [
            rule.stage
            for rule in self._rules.values()
            if rule.reached(group.score, size, layers, confirmed=False)
        ]
        lowest = Stage.OBSERVE if Stage.OBSERVE not in self._rules else None
        return reached[-1] if reached else lowest

    def bears(self, stage: Stage, group: Group) -> bool:
        """Tell whether a group is strong enough for a stage to take in newcomers."""
        rule = self._rules.get(stage)
        return rule is None or group.score >= rule.lower_below

    def hold_s(self, stage: Stage) -> int:
        """Return how long a campaign, and a member, stays at ``stage`` for want of evidence."""
        rule = self._rules.get(stage)
        if rule is not None:
            return rule.hold_s
        if stage is not Stage.OBSERVE:  # rules know the stage no more
            return 0
        return max((rule.hold_s for rule in self._rules.values()), default=0)

    def staged(self, campaign: Campaign, at: float, *, seen: bool) -> Campaign:
        """Raise, keep, lower or release a campaign; ``seen`` tells whether the run found it.

        A campaign that an admin confirmed is raised, but neither lowered nor released as long as
        the rules know its stage: containment itself makes the evidence dwindle.
        """
        campaign = self._shadowed(campaign, at) if seen else campaign
        reached = self._those(campaign, borne_out=False) if seen else []
        if reached and reached[-1].stage.rank > campaign.stage.rank:
            return _moved(campaign, reached[-1].stage, at)
        stage = campaign.stage
        borne_out = self._those(campaign, borne_out=True) if seen else []
        known = stage in self._rules or stage is Stage.OBSERVE
        confirmed = campaign.state is CampaignState.CONFIRMED
        kept = (
            any(rule.stage is stage for rule in borne_out)
            or (confirmed and known)
            or (seen and stage is Stage.OBSERVE and stage not in self._rules)
        )
        if kept:
            return campaign if campaign.weak_since is None else replace(campaign, weak_since=None)
        weak_since = at if campaign.weak_since is None else campaign.weak_since
        if at - weak_since < self.hold_s(stage):
            return replace(campaign, weak_since=weak_since)
        below = [rule.stage for rule in borne_out if rule.stage.rank < stage.rank]
        if below:
            return _moved(campaign, below[-1], at)
        if confirmed or (seen and Stage.OBSERVE not in self._rules):
            return _moved(campaign, Stage.OBSERVE, at)
        gone = "" if seen else "not seen for long"
        released = replace(campaign, state=CampaignState.RELEASED, weak_since=None, faded=True)
        return noted(released, Event(at, "released", gone or "too little is left of it"))

    def _those(self, campaign: Campaign, *, borne_out: bool) -> list[ContainmentRule]:
        """Return the rules, the furthest last, whose stage the campaign reaches or may keep."""
        rules: Iterable[ContainmentRule] = self._rules.values()
        return [rule for rule in rules if _applies(rule, campaign, borne_out=borne_out)]

    def _shadowed(self, campaign: Campaign, at: float) -> Campaign:
        """Note once where a rule in shadow would have raised it."""
        for rule in self._shadow:
            event = Event(at, "shadow_stage", f"{rule.stage} (by {rule.id})")
            if rule.stage.rank <= campaign.stage.rank or any(
                (each.what, each.detail) == (event.what, event.detail) for each in campaign.history
            ):
                continue
            if _applies(rule, campaign, borne_out=False):
                campaign = noted(campaign, event)
        return campaign


def _applies(rule: ContainmentRule, campaign: Campaign, *, borne_out: bool) -> bool:
    group, confirmed = campaign.group, campaign.state is CampaignState.CONFIRMED
    size, layers = len(campaign.contained), len(set(group.layers))
    test = rule.borne_out if borne_out else rule.reached
    return test(group.score, size, layers, confirmed=confirmed)


def _moved(campaign: Campaign, stage: Stage, at: float) -> Campaign:
    why = f"{campaign.stage} -> {stage}, score {campaign.group.score:.0f}"
    moved = replace(campaign, stage=stage, staged_at=at, weak_since=None)
    return noted(moved, Event(at, "stage", why))
