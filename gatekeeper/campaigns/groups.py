"""Groups in a graph of links: a core, its parts, the densest of each, and who clearly belongs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gatekeeper.campaigns.bipartite import Rows, components, core, densest
from gatekeeper.campaigns.links import CAPS, FAMILY, LAYERS
from gatekeeper.policy.campaigns import Layer

if TYPE_CHECKING:
    from gatekeeper.campaigns.bipartite import Flags, Floats, Ints
    from gatekeeper.campaigns.links import Links
    from gatekeeper.campaigns.options import DetectionOptions

_MOST_PARTS: Final = 40
"""Dense parts that are taken out of one component, one after the other."""
_LARGE: Final = 50
"""Accounts that so many pairs do not link by chance."""
_OWN: Final = 0.5
"""Part of the holders of a trait who are in a group, from which the trait is the group's own."""
_ROUNDS: Final = 3
"""Times that a group takes in who belongs to it, or lets go of who does not."""
_LINKS: Final = 0.5
"""Part of the members who show a group's own traits of a layer, from which the layer links it."""
_HABIT: Final = np.array([layer in {Layer.RELEASE, Layer.TIMING} for layer in LAYERS])
"""Layers in which many strangers are alike on the same day: they speak of a group, and hold none
together."""
_NO_FAMILY: Final = -1
_COMMON: Final = 0.05
"""Part of the rest of a group who must have a trait, for a clique to have it in common with it."""
_SEVERAL: Final = 12
"""How many of the rest are enough, however large it is: the traits of a large campaign are no wider
than those of a small one."""
_BRIDGED: Final = 0.5
"""Part of a clique that must have something in common with the rest of its group."""
NO_CHANCE: Final = 40
"""Accounts that no coincidence gives something in common with a group, however many there are."""
_FAMILIES: Final = 2
"""Independent layers in which an account must show a group's own traits to be taken in."""


@dataclass(frozen=True, slots=True)
class Own:
    """The traits that are a group's own: half of those who have one are in it, and two at least."""

    trait: Ints
    members: Ints
    """How many members have each."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A graph of links that is asked for the surroundings of a group, at the cost of those."""

    links: Links
    by_node: Rows
    by_trait: Rows

    @classmethod
    def of(cls, links: Links, nodes: int) -> Neighbours:
        """Sort the links of a graph by both ends."""
        return cls(links, Rows.by(links.node, nodes), Rows.by(links.trait, links.traits))

    def shared_by(self, nodes: Ints) -> Own:
        """Return the traits that some nodes have in common, and how many of them have each."""
        trait, members = np.unique(self.links.trait[self.by_node.of(nodes)], return_counts=True)
        shared = members > 1
        return Own(trait[shared], members[shared])

    def own(self, nodes: Ints) -> Own:
        """Return the traits that are a group's own."""
        shared = self.shared_by(nodes)
        own = shared.members >= _OWN * self.links.holders[shared.trait]
        return Own(shared.trait[own], shared.members[own])

    def showing(self, own: Own) -> tuple[Ints, Flags]:
        """Return who has any of these traits, and in which families of layers; habits are none."""
        edges = self.by_trait.of(own.trait)
        nodes, place = np.unique(self.links.node[edges], return_inverse=True)
        shown = np.zeros((nodes.size, len(LAYERS)), dtype=bool)
        shown[place, FAMILY[self.links.layer[self.links.trait[edges]]]] = True
        shown[:, _HABIT] = False
        return nodes, shown


def groups_of(links: Links, joinable: Flags, options: DetectionOptions) -> list[Ints]:
    """Return groups of nodes, the densest of each component first; none is in two.

    Nodes that are not ``joinable`` (proven accounts, organizations) are evidence, not members.
    """
    kept = links.only(core(links.node, links.trait, links.layer, CAPS, options.fewest_traits))
    if not kept.node.size:
        return []
    label = components(kept.node, kept.trait, joinable.size, links.traits)
    kept = kept.only(_worth_a_look(kept, label, options.fewest_members)[label[kept.node]])
    part = label[kept.node]
    order = np.argsort(part, kind="stable")
    bounds = np.flatnonzero(np.diff(part[order], prepend=-1))
    free = np.ones(joinable.size, dtype=bool)
    around = Neighbours.of(links, joinable.size)
    weight = _weights(kept)
    found: list[Ints] = []
    for rows in np.split(order, bounds[1:]):
        found += _parts(around, kept, weight, rows, free=free, joinable=joinable, options=options)
    return found


def _worth_a_look(kept: Links, label: Ints, fewest: int) -> Flags:
    """Return which components, by label, may hold a group.

    Small ones that hang together by pairs only are families that met at some address.
    """
    holders = np.bincount(kept.trait, minlength=kept.traits)
    sizes = np.bincount(label[np.unique(kept.node)], minlength=label.size)
    widely = np.unique(kept.node[holders[kept.trait] >= fewest])
    wide = np.bincount(label[widely], minlength=label.size)
    return (sizes >= fewest) & ((2 * wide >= sizes) | (sizes >= _LARGE))


def _weights(links: Links) -> Floats:
    """Return the weight of each link: rarity, and no layer more than the traits that count."""
    slot = links.node * len(LAYERS) + links.layer[links.trait]
    _, place, counts = np.unique(slot, return_inverse=True, return_counts=True)
    bounded = np.minimum(1.0, CAPS[links.layer[links.trait]] / counts[place])
    result: Floats = links.weight[links.trait] * bounded
    return result


def _parts(
    around: Neighbours,
    kept: Links,
    weight: Floats,
    rows: Ints,
    *,
    free: Flags,
    joinable: Flags,
    options: DetectionOptions,
) -> list[Ints]:
    """Take the dense parts out of one component until what is left is small."""
    found: list[Ints] = []
    for _ in range(_MOST_PARTS):
        rows = rows[free[kept.node[rows]]]
        if np.unique(kept.node[rows]).size < options.fewest_members:
            break
        dense = densest(kept.node[rows], kept.trait[rows], weight[rows], kept.holders)
        for part in _split(kept, rows, dense, options.fewest_members):
            members = _cleaned(around, _taken_in(around, part[free[part]], free))
            free[members] = False
            members = members[joinable[members]]
            if members.size >= options.fewest_members:
                found.append(members)
        free[dense] = False
    return found


def _split(kept: Links, rows: Ints, dense: Ints, fewest: int) -> list[Ints]:
    """Part groups that only hang together by what two or three have, or mostly others.

    Where most of a group have nothing else in common, as with a pool of addresses, it stays whole.
    """
    rows = rows[np.isin(kept.node[rows], dense)]
    traits, trait, inside = np.unique(kept.trait[rows], return_inverse=True, return_counts=True)
    holds = ~_HABIT[kept.layer[traits]]
    wide = (holds & (inside >= fewest) & (inside >= _OWN * kept.holders[traits]))[trait]
    present, node = np.unique(kept.node[rows[wide]], return_inverse=True)
    if 2 * present.size < dense.size:
        return [dense]
    label = components(node, trait[wide], present.size, inside.size)
    sizes = np.bincount(label, minlength=present.size)
    return [present[label == each] for each in np.flatnonzero(sizes >= fewest)]


def _taken_in(around: Neighbours, members: Ints, free: Flags) -> Ints:
    """Add to a group those who show what is its own in two independent layers."""
    for _ in range(_ROUNDS):
        nodes, shown = around.showing(around.own(members))
        more = np.union1d(members, nodes[free[nodes] & (shown.sum(axis=1) >= _FAMILIES)])
        if more.size == members.size:
            break
        members = more
    return members


def _cleaned(around: Neighbours, members: Ints) -> Ints:
    """Let go of those who only happen to be near: what links the others does not link them.

    Where two independent layers link a group, a member shows two of these.
    """
    for _ in range(_ROUNDS):
        nodes, shown = around.showing(around.own(members))
        inside = np.isin(nodes, members)
        nodes, shown = nodes[inside], shown[inside]
        linking = shown.sum(axis=0) >= _LINKS * members.size
        wanted = min(_FAMILIES, int(linking.sum()))
        if not wanted:
            break
        kept = nodes[shown[:, linking].sum(axis=1) >= wanted]
        if kept.size == members.size:
            break
        members = kept
    return members


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a group that one family of layers alone, or nothing, holds to the rest."""

    nodes: Ints
    held: int
    """How many of them have a trait of that family in common with several of the others."""

    @property
    def loose(self) -> bool:
        """Whether so few are held that a coincidence may have glued the part to the rest."""
        return bool(self.held < _least_held(self.nodes.size))


def _least_held(sizes: Ints | int) -> Floats:
    """Return how many of parts of these sizes must be held to the rest."""
    return np.minimum(_BRIDGED * np.asarray(sizes), NO_CHANCE)


def parts_of(around: Neighbours, members: Ints, fewest: int) -> tuple[list[Part], Ints]:
    """Return the parts of a group, and the dust: loose ones of less than ``fewest``.

    Dust is also who has nothing of the group's own. Where no other family holds most of a group
    together, one that is left out tells nothing of who is dust.
    """
    links, own = around.links, around.own(members)
    edges = around.by_node.of(members)
    family = FAMILY[links.layer[links.trait[edges]]]
    held = np.isin(links.trait[edges], own.trait) & ~_HABIT[family]
    nodes, node = np.unique(links.node[edges[held]], return_inverse=True)
    traits, trait = np.unique(links.trait[edges[held]], return_inverse=True)
    family = family[held]
    holders = np.bincount(trait, minlength=traits.size)
    dust = np.zeros(nodes.size, dtype=bool)
    found: list[Part] = []
    for each in (_NO_FAMILY, *np.unique(family).tolist()):
        mine = family == each
        label = components(node[~mine], trait[~mine], nodes.size, traits.size)
        sizes = np.bincount(label, minlength=nodes.size)
        bridging = _bridging(node[mine], trait[mine], label, sizes, holders)
        bridged = np.bincount(label[bridging], minlength=nodes.size)
        found += [
            Part(nodes[label == part], int(bridged[part]))
            for part in np.flatnonzero((sizes >= fewest) & (sizes < nodes.size))
        ]
        if each == _NO_FAMILY or 2 * sizes.max(initial=0) >= nodes.size:
            dust |= ((sizes < fewest) & (bridged < _least_held(sizes)))[label]
    return found, np.union1d(nodes[dust], np.setdiff1d(members, nodes))


def _bridging(node: Ints, trait: Ints, label: Ints, sizes: Ints, holders: Ints) -> Ints:
    """Return the nodes who have a trait in common with several outside of their part."""
    part = label[node]
    _, place, within = np.unique(
        part * holders.size + trait, return_inverse=True, return_counts=True
    )
    enough = np.clip(_COMMON * (label.size - sizes[part]), 2.0, _SEVERAL)
    return np.unique(node[holders[trait] - within[place] >= enough])
