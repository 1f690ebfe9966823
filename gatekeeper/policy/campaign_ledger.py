"""Campaigns from run to run: one id each, their history, and how far they are contained.

Pure: the watcher's groups, the rules and the time go in, the campaigns come out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from gatekeeper.policy.campaign_matching import match
from gatekeeper.policy.campaign_stages import Stages
from gatekeeper.policy.campaign_steps import joined, noted, taken_in
from gatekeeper.policy.campaigns import Campaign, CampaignState, Event, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gatekeeper.policy.campaigns import Group, ProbeCount
    from gatekeeper.policy.ruleset import RuleSet

_NOTHING: Final[Mapping[str, ProbeCount]] = MappingProxyType({})
_PROBED: Final = frozenset({Stage.PROBE, Stage.STEP_UP})
"""Stages at which members are asked who they are, so that the answers tell something."""


def advance(
    campaigns: tuple[Campaign, ...],
    groups: tuple[Group, ...],
    rules: RuleSet,
    at: float,
    new_id: Callable[[], str],
    *,
    verified: frozenset[str] = frozenset(),
    probes: Mapping[str, ProbeCount] = _NOTHING,
) -> tuple[Campaign, ...]:
    """Return the campaigns after a run that found ``groups``: those known before, then new ones.

    ``verified`` are accounts that have proven who they are: they leave. ``probes`` tells, by id of
    the campaign, how those fared that were asked. The order of ``groups`` does not matter.
    """
    stages = Stages(rules)
    found, fresh = _told_apart(campaigns, groups, verified, stages)
    made = [
        _made(group, _origin(group, campaigns), stage, at, new_id())
        for group in fresh
        if (stage := stages.first(group)) is not None
    ]
    owners = {member: name for name, group in found.items() for member in group.members}
    owners |= {member: each.id for each in made for member in each.group.members}
    run = _Run(at, stages, verified, owners)
    after: dict[str, Campaign] = {each.id: each for each in made}
    for each in campaigns:
        if each.state.contains or each.id in found:
            after[each.id] = _updated(each, found.get(each.id), run)
    for each in campaigns:
        if each.state is CampaignState.PROPOSED and each.id not in found:
            _go_on_in_another(after, each.id, owners, at)
    seen = found.keys() | {each.id for each in made}
    for name, each in after.items():
        if each.state.contains:
            after[name] = _judged(each, stages, at, probes.get(name), seen=name in seen)
    known = tuple(after.pop(each.id, each) for each in campaigns)
    return known + tuple(after.values())


@dataclass(frozen=True, slots=True)
class _Run:
    """What holds for all campaigns of one run."""

    at: float
    stages: Stages
    verified: frozenset[str]
    owners: Mapping[str, str]
    """Id of the campaign in whose group an account was found."""


def _told_apart(
    campaigns: tuple[Campaign, ...],
    groups: Iterable[Group],
    verified: frozenset[str],
    stages: Stages,
) -> tuple[dict[str, Group], list[Group]]:
    """Return the groups that are known campaigns, by their ids, and those that are new.

    What goes on as a campaign that was dismissed or released is neither.
    """
    staying = [_without(each, verified) for each in groups]
    ordered = sorted((each for each in staying if each.members), key=lambda each: each.members)
    absorbing = frozenset(each.into for each in campaigns if each.into is not None)
    found: dict[str, Group] = {}
    fresh: list[Group] = []
    for group, campaign in zip(ordered, match(ordered, campaigns, absorbing), strict=True):
        if campaign is None:
            fresh.append(group)
        elif campaign.state.contains or (campaign.faded and stages.first(group) is not None):
            known = found.get(campaign.id)
            found[campaign.id] = group if known is None else joined(known, group)
    return found, fresh


def _without(group: Group, accounts: Iterable[str]) -> Group:
    gone = frozenset(accounts)
    if gone.isdisjoint(group.members):
        return group
    return replace(group, members=tuple(each for each in group.members if each not in gone))


def _origin(group: Group, campaigns: Iterable[Campaign]) -> Campaign | None:
    """Return the campaign that a new group has split off from: it is contained as far."""
    for each in campaigns:
        if each.state.contains:
            contained = each.contained
            if 2 * sum(member in contained for member in group.members) >= len(group.members):
                return each
    return None


def _made(group: Group, origin: Campaign | None, stage: Stage, at: float, name: str) -> Campaign:
    detail = _size(group)
    if origin is not None:
        detail += f", split off from {origin.id}"
        inherited = min(origin.stage, Stage.STEP_UP, key=lambda each: each.rank)
        stage = max(stage, inherited, key=lambda each: each.rank)
    campaign = Campaign(name, CampaignState.PROPOSED, stage, group, since=at, staged_at=at)
    return noted(campaign, Event(at, "found", detail), Event(at, "stage", stage))


def _updated(campaign: Campaign, group: Group | None, run: _Run) -> Campaign:
    """Take in what the run found of a campaign; members that it did not find stay for a while."""
    at, verified = run.at, run.verified
    had = frozenset[str]() if campaign.faded else campaign.contained
    leaving = sorted(had & verified)
    left = tuple(sorted({*campaign.left, *leaving}))
    now = _without(campaign.group if group is None else group, left)
    if had and not run.stages.bears(campaign.stage, now):
        # Too weak to say who else belongs, or what by: what it was contained by goes on to hold.
        now = replace(_without(now, frozenset(now.members) - had), shared=campaign.group.shared)
    hold_s = run.stages.hold_s(campaign.stage)
    since = {member: campaign.missing.get(member, at) for member in had.difference(now.members)}
    missing = {
        member: since[member]
        for member in sorted(since)
        if at - since[member] < hold_s and member not in run.owners and member not in verified
    }
    changed = replace(campaign, group=now, left=left, missing=missing)
    if campaign.faded:
        changed = replace(
            changed, state=CampaignState.PROPOSED, stage=Stage.OBSERVE, staged_at=at, faded=False
        )
        changed = noted(changed, Event(at, "found", f"{_size(now)}, again"))
    elif len(changed.contained).bit_length() > len(had).bit_length():
        changed = noted(changed, Event(at, "grew", _size(now)))
    if leaving:
        changed = noted(changed, Event(at, "verified", _members(len(leaving))))
    return changed


def _go_on_in_another(
    after: dict[str, Campaign], name: str, owners: Mapping[str, str], at: float
) -> None:
    """Merge a campaign whose members are mostly found in another one now."""
    gone = after[name]
    contained = gone.contained
    places = Counter(owners[member] for member in gone.group.members if member in owners)
    into, most = places.most_common(1)[0] if places else ("", 0)
    if not most or 2 * most < len(contained):
        return
    other = after[into]
    kept = {
        member: gone.missing.get(member, at)
        for member in sorted(contained.difference(other.group.members))
        if member not in owners
    }
    other = taken_in(other, gone, Event(at, "merged", gone.id))
    after[into] = replace(other, missing=kept | other.missing)
    merged = replace(gone, state=CampaignState.MERGED, into=into, weak_since=None)
    after[name] = noted(merged, Event(at, "merged", into))


def _judged(
    campaign: Campaign, stages: Stages, at: float, probe: ProbeCount | None, *, seen: bool
) -> Campaign:
    """Release a campaign whose probe passed; else see to its stage."""
    proposed = campaign.state is CampaignState.PROPOSED
    if proposed and campaign.stage in _PROBED and probe is not None and probe.passed:
        released = replace(campaign, state=CampaignState.RELEASED, weak_since=None)
        proved = f"{probe.verified} of {probe.asked} that were asked proved who they are"
        return noted(released, Event(at, "probe_passed", proved))
    return stages.staged(campaign, at, seen=seen)


def _size(group: Group) -> str:
    layers = len(set(group.layers))
    return f"{_members(len(group.members))}, {layers} {'layer' if layers == 1 else 'layers'}"


def _members(count: int) -> str:
    return f"{count} {'member' if count == 1 else 'members'}"
