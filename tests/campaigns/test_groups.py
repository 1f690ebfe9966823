"""Groups in small graphs drawn by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from gatekeeper.campaigns.groups import Neighbours, groups_of, parts_of
from gatekeeper.campaigns.links import LAYERS, Links
from gatekeeper.campaigns.options import DetectionOptions
from gatekeeper.campaigns.score import linking_layers
from gatekeeper.policy.campaigns import Layer

NODES = 400


def graph(traits: list[tuple[Layer, list[int]]]) -> Links:
    """Return a graph of traits, each of one layer and with these nodes."""
    holders = np.array([len(nodes) for _, nodes in traits])
    return Links(
        node=np.array([node for _, nodes in traits for node in nodes]),
        trait=np.repeat(np.arange(len(traits)), holders),
        layer=np.array([LAYERS.index(layer) for layer, _ in traits]),
        kind=np.array([layer.value for layer, _ in traits], dtype=object),
        digest=np.arange(1, len(traits) + 1),
        other=np.zeros(len(traits), dtype=np.int64),
        holders=holders,
        weight=np.log(NODES / holders),
    )


def found(traits: list[tuple[Layer, list[int]]], left_out: tuple[int, ...] = ()) -> list[list[int]]:
    """Return the groups in such a graph."""
    joinable = np.ones(NODES, dtype=bool)
    joinable[list(left_out)] = False
    return [each.tolist() for each in groups_of(graph(traits), joinable, DetectionOptions())]


def ring(first: int, last: int) -> list[tuple[Layer, list[int]]]:
    """Return traits of three layers that all from ``first`` to before ``last`` share."""
    nodes = list(range(first, last))
    return [(layer, nodes) for layer in (Layer.SIGNUP, Layer.SCAFFOLD, Layer.SUBNET_CLIENT)]


def test_a_group_of_three_layers_is_found() -> None:
    """Twenty who share three things are one group."""
    assert found(ring(0, 20)) == [list(range(20))]


def test_one_layer_carries_nobody_but_by_addresses() -> None:
    """Two traits of a layer count, so that ten scaffolds alone make no core."""
    nodes = list(range(20))
    assert found([(Layer.SCAFFOLD, nodes)] * 10) == []


def test_two_campaigns_on_one_pool_stay_apart() -> None:
    """Addresses that one of each used link the two, and yet they are two groups."""
    bridges = [(Layer.ADDRESS, [node, node + 20]) for node in range(20)]
    assert sorted(found(ring(0, 20) + ring(20, 40) + bridges)) == [
        list(range(20)),
        list(range(20, 40)),
    ]


def test_a_customer_in_passing_is_not_taken() -> None:
    """Somebody who met members at three addresses shares nothing else with them."""
    met = [(Layer.ADDRESS, [node, 50]) for node in range(3)]
    assert found(ring(0, 20) + met) == [list(range(20))]


def test_who_shows_two_layers_is_taken_in() -> None:
    """An account outside of the core, with two of three things, belongs."""
    layers = ring(0, 20)
    joined = [(layer, [*nodes, 60] if place < 2 else nodes) for place, (layer, nodes) in
              enumerate(layers)]  # fmt: skip
    assert found(joined) == [[*range(20), 60]]


def test_evidence_need_not_be_a_member() -> None:
    """A proven account among them holds the group together, and is not in it."""
    assert found(ring(0, 20), left_out=(3, 4)) == [
        [node for node in range(20) if node not in {3, 4}]
    ]


def test_families_that_met_are_passed_over() -> None:
    """Couples who share three things, chained by an address each, make no group."""
    couples = [
        (layer, [node, node + 1])
        for node in range(0, 20, 2)
        for layer in (Layer.SIGNUP, Layer.SIGNUP, Layer.SCAFFOLD)
    ]
    chained = [(Layer.ADDRESS, [one, other]) for one, other in pairwise(range(1, 20, 2))]
    assert found(couples + chained) == []


def parts(
    traits: list[tuple[Layer, list[int]]], members: range
) -> tuple[list[tuple[list[int], int]], list[int]]:
    """Return the parts that one family alone holds, with how many of each it does, and the dust."""
    around = Neighbours.of(graph(traits), NODES)
    told, dust = parts_of(around, np.array(members), 5)
    return [(each.nodes.tolist(), each.held) for each in told], dust.tolist()


def test_a_clique_that_one_coincidence_holds_is_told_apart() -> None:
    """One account of an office has a shape like the campaign's: one in ten is held by it."""
    shape = (Layer.SCAFFOLD, [*range(20), 25])
    office = [(layer, list(range(20, 30))) for layer in (Layer.SIGNUP, Layer.SUBNET_CLIENT)]
    told, dust = parts([*ring(0, 20), *office, shape], range(30))
    assert (list(range(20, 30)), 1) in told
    assert not dust


def test_a_small_clique_that_one_coincidence_holds_is_dust() -> None:
    """The same of an office of four, and of somebody who has nothing of the group's own."""
    shape = (Layer.SCAFFOLD, [*range(20), 21])
    office = [(layer, list(range(20, 24))) for layer in (Layer.SIGNUP, Layer.SUBNET_CLIENT)]
    told, dust = parts([*ring(0, 20), *office, shape], range(25))
    assert dust == [20, 21, 22, 23, 24]
    assert [part for part, _ in told] == [list(range(20))] * len(told)


def test_where_one_family_is_all_nobody_is_dust() -> None:
    """Who only meets at addresses is no less of a group than the others, who do as well."""
    met = [(Layer.ADDRESS, [node, (node + 1) % 20]) for node in range(20)]
    assert parts(met, range(20)) == ([], [])


def test_cells_of_one_scaffold_are_held_whole() -> None:
    """Cells with cards and subnets of their own all have the scaffold in common."""
    cells = [
        (layer, list(range(first, first + 10)))
        for first in (0, 10, 20)
        for layer in (Layer.SIGNUP, Layer.SUBNET_CLIENT)
    ]
    told, _ = parts([*cells, (Layer.SCAFFOLD, list(range(30)))], range(30))
    assert [held for _, held in told] == [len(part) for part, _ in told]
    assert (list(range(10)), 10) in told


def test_what_twelve_of_the_rest_have_is_common_in_a_large_group() -> None:
    """A mail pattern of 22, ten of them of the part, holds these ten to 300 others."""
    mail = (Layer.SIGNUP, [*range(12), *range(300, 310)])
    clique = [(layer, list(range(300, 310))) for layer in (Layer.SUBNET_CLIENT, Layer.SCAFFOLD)]
    told, _ = parts([*ring(0, 300), *clique, mail], range(310))
    assert (list(range(300, 310)), 10) in told


def test_forty_hold_a_part_however_large_it_is() -> None:
    """Of 150 who share cards and subnets, and a scaffold with a few others: 39 are too few."""
    cliques = [
        (layer, list(range(first, first + 150)))
        for first in (0, 150)
        for layer in (Layer.SIGNUP, Layer.SUBNET_CLIENT)
    ]
    for held, loose in ((39, True), (40, False)):
        scaffold = (Layer.SCAFFOLD, [*range(20), *range(150, 150 + held)])
        around = Neighbours.of(graph([*cliques, scaffold]), NODES)
        found_parts, _ = parts_of(around, np.arange(300), 5)
        (part,) = [each for each in found_parts if each.nodes[0] == 150]
        assert (part.held, part.loose) == (held, loose)


def test_what_nothing_holds_is_a_part() -> None:
    """Two cliques that were glued by somebody who is gone have nothing in common."""
    assert (list(range(10, 20)), 0) in parts([*ring(0, 10), *ring(10, 20)], range(20))[0]


def test_a_fifth_of_many_is_linked_by_a_layer_and_a_third_of_few_is_not() -> None:
    """Of 250, a shape of 55 is a second layer; one of 35 is not, nor one of 20 of 60."""
    for size, with_shape, layers in (
        (250, 55, (Layer.SIGNUP, Layer.SCAFFOLD)),
        (250, 35, (Layer.SIGNUP,)),
        (60, 20, (Layer.SIGNUP,)),
        (60, 30, (Layer.SIGNUP, Layer.SCAFFOLD)),
    ):
        cards = (Layer.SIGNUP, list(range(size)))
        links = graph([cards, (Layer.SCAFFOLD, list(range(with_shape)))])
        assert linking_layers(Neighbours.of(links, NODES), np.arange(size)) == layers


def test_habits_hold_nobody() -> None:
    """To come to a new model on its day says nothing of belonging."""
    together = (Layer.RELEASE, list(range(20)))
    told, _ = parts([*ring(0, 10), *ring(10, 20), together], range(20))
    assert (list(range(10)), 0) in told
