"""Groups told in words that people and gates read: ids of accounts, shared traits, mixes."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from gatekeeper.campaigns import queries
from gatekeeper.campaigns.links import LAYERS
from gatekeeper.policy.campaigns import Group, SharedTrait
from gatekeeper.policy.containment import mixed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gatekeeper.campaigns.behaviour import Activity
    from gatekeeper.campaigns.bipartite import Ints
    from gatekeeper.campaigns.groups import Neighbours
    from gatekeeper.campaigns.merging import Candidate
    from gatekeeper.campaigns.sightings import Sightings


def shared_traits(around: Neighbours, members: Ints, most: int) -> tuple[SharedTrait, ...]:
    """Return what links some nodes, the most telling of each layer before the next of any.

    A trait tells as much as its rarity times the members who have it.
    """
    links, shared = around.links, around.shared_by(members)
    value = links.weight[shared.trait] * shared.members
    order = np.argsort(-value, kind="stable")
    place_in_layer = np.zeros(order.size, dtype=np.int64)
    layers = links.layer[shared.trait[order]]
    for layer in np.unique(layers):
        rows = np.flatnonzero(layers == layer)
        place_in_layer[rows] = np.arange(rows.size)
    order = order[np.lexsort((np.arange(order.size), place_in_layer))]
    found: dict[tuple[str, int], SharedTrait] = {}
    for place in order:
        if len(found) == most:
            break
        trait = shared.trait[place]
        told = _told(around, int(trait), int(shared.members[place]))
        found.setdefault((told.kind, told.digest), told)
    return tuple(found.values())


def _told(around: Neighbours, trait: int, members: int) -> SharedTrait:
    links = around.links
    kind, digest = str(links.kind[trait]), int(links.digest[trait])
    if kind == "subnet_client":
        digest = mixed(digest, int(links.other[trait]))
    return SharedTrait(
        layer=LAYERS[links.layer[trait]],
        kind=kind,
        digest=digest,
        members=members,
        accounts=int(links.holders[trait]),
        weight=round(float(links.weight[trait]), 3),
    )


def described(
    sightings: Sightings, nodes: dict[str, NDArray[Any]], activity: Activity,
    kept: list[Candidate], most: int,
) -> tuple[Group, ...]:  # fmt: skip
    """Tell the groups; ``calls`` must show the longest window."""
    if not kept:
        return ()
    grouped = np.concatenate([each.members for each in kept])
    codes = np.repeat(np.arange(len(kept)), [each.members.size for each in kept])
    sightings.lend("grouped", {"code": codes, "node": grouped})
    networks = _mix(sightings, queries.GROUP_MIX.format(column="kind"))
    models = _mix(sightings, queries.GROUP_MIX.format(column="model"))
    classes = _mix(sightings, queries.GROUP_CLASSES)
    names = nodes["name"]
    return tuple(
        Group(
            members=tuple(sorted(str(name)[2:] for name in names[each.members])),
            shared=each.shared[:most],
            layers=each.evidence.layers,
            score=each.score,
            q_value=each.q_value,
            first_seen=float(activity.first_at[each.members].min()),
            last_seen=float(activity.last_at[each.members].max()),
            measures=_measures(each, activity),
            capabilities={
                word: round(calls / float(activity.calls[each.members].sum()), 4)
                for word, calls in classes[code].items()
            },
            networks=networks[code],
            models=models[code],
            calls=int(activity.calls[each.members].sum()),
            input_tokens=int(activity.input_tokens[each.members].sum()),
            output_tokens=int(activity.output_tokens[each.members].sum()),
        )
        for code, each in enumerate(kept)
    )


def _mix(sightings: Sightings, query: str) -> defaultdict[int, dict[str, int]]:
    rows = sightings.columns(query)
    found: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for code, word, calls in zip(
        rows["code"].tolist(), rows["word"].tolist(), rows["calls"].tolist(), strict=True
    ):
        found[code][str(word)] = int(calls)
    return found


def _measures(candidate: Candidate, activity: Activity) -> dict[str, float]:
    """Return each measure, what random groups show, and how often they show as much."""
    told = {
        "members": float(candidate.members.size),
        "addresses_per_member": round(candidate.evidence.addresses_per_member, 3),
        "calls_per_member_and_day": round(
            float(np.mean(activity.calls[candidate.members] / activity.days[candidate.members])), 3
        ),
        "p_value": candidate.evidence.p_value,
    }
    for each in candidate.evidence.measures:
        told[each.name] = round(each.value, 4)
        told[f"{each.name}_ordinary"] = round(each.ordinary, 4)
        told[f"{each.name}_p"] = each.p_value
    return told
