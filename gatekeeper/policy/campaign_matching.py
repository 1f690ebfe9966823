"""Which group of a run is which campaign: by the members, or by the traits, that they share."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from gatekeeper.policy.campaigns import CampaignState

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from gatekeeper.policy.campaigns import Campaign, Group

_HALF: Final = 0.5
"""Part of the smaller one that must be in both."""
_FEWEST_TRAITS: Final = 2
"""A single trait in common may be a public one."""


def match(
    groups: Sequence[Group], campaigns: Sequence[Campaign], absorbing: frozenset[str]
) -> list[Campaign | None]:
    """Return for each group its campaign, or ``None`` for a new one.

    The most members in common win, then the most traits. A campaign takes one group, save for the
    ``absorbing`` ones, into which others were merged, and those that were dismissed or released:
    they take every group that rests on no more than was known then.
    """
    known = [each for each in campaigns if each.state is not CampaignState.MERGED]
    members = [_members(each) for each in known]
    traits = [_traits(each.group) for each in known]
    by_member, by_trait = _places(members), _places(traits)
    pairs: list[tuple[int, int, float, str, int, int]] = []
    for index, group in enumerate(groups):
        showing = _traits(group)
        common = _counted(group.members, by_member)
        shared = _counted(showing, by_trait)
        for at in common.keys() | shared.keys():
            each, found = known[at], (common[at], shared[at])
            if each.state.contains or each.faded:
                same = _goes_on(found, group, showing, len(members[at]), len(traits[at]))
            else:
                same = _says_nothing_new(found, group, showing, each)
            if same:
                pairs.append((-found[0], -found[1], each.since, each.id, index, at))
    result: list[Campaign | None] = [None] * len(groups)
    taken: set[str] = set()
    for *_, index, at in sorted(pairs):
        each = known[at]
        if result[index] is not None or each.id in taken:
            continue
        result[index] = each
        if (each.state.contains or each.faded) and each.id not in absorbing:
            taken.add(each.id)
    return result


def _goes_on(
    found: tuple[int, int], group: Group, showing: frozenset[Hashable], members: int, traits: int
) -> bool:
    """Tell whether the group is the campaign as it is now."""
    common, shared = found
    if common and common >= _HALF * min(len(group.members), members):
        return True
    return shared >= _FEWEST_TRAITS and shared >= _HALF * min(len(showing), traits)


def _says_nothing_new(
    found: tuple[int, int], group: Group, showing: frozenset[Hashable], campaign: Campaign
) -> bool:
    """Tell whether the group rests on what was known when the campaign was let go.

    What passed a probe or was let go are its members. What was dismissed is the evidence: the same
    traits, or, as traits change with their keys and people with their addresses, the same members
    linked in no new way.
    """
    common, shared = found
    same_members = common >= _HALF * len(group.members)
    if campaign.state is CampaignState.RELEASED:
        return same_members
    if showing and shared >= _HALF * len(showing):
        return True
    return same_members and set(group.layers) <= set(campaign.group.layers)


def _members(campaign: Campaign) -> frozenset[str]:
    if campaign.state.contains or campaign.faded:
        return campaign.contained
    return campaign.contained.union(campaign.left)


def _traits(group: Group) -> frozenset[Hashable]:
    return frozenset((trait.kind, trait.digest) for trait in group.shared)


def _places(
    sets: Sequence[frozenset[Hashable]] | Sequence[frozenset[str]],
) -> dict[Hashable, list[int]]:
    """Return in which of ``sets`` each item is."""
    places: dict[Hashable, list[int]] = {}
    for at, items in enumerate(sets):
        for item in items:
            places.setdefault(item, []).append(at)
    return places


def _counted(items: Iterable[Hashable], places: dict[Hashable, list[int]]) -> Counter[int]:
    return Counter(at for item in items for at in places.get(item, ()))
