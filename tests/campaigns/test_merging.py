"""Groups of several windows become one, and only those that are one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gatekeeper.campaigns.merging import Candidate, merged
from gatekeeper.campaigns.score import Evidence
from gatekeeper.policy.campaigns import Layer, SharedTrait

if TYPE_CHECKING:
    from typing import Any


def candidate(first: int, last: int, score: float, trait: Any = 1) -> Candidate:
    """Return a group of the nodes from ``first`` to before ``last``."""
    shared = (SharedTrait(Layer.ADDRESS, "address", trait, 2, 2),)
    return Candidate(np.arange(first, last), Evidence((), (), 1.0, 0.0), shared, 0.0, score)


def spans(groups: Any) -> list[tuple[int, int]]:
    """Return the first and last node of each."""
    return [(int(each.members[0]), int(each.members[-1])) for each in groups]


def test_as_sure_windows_add_their_members_and_traits() -> None:
    """Two looks at one campaign are one group with the traits of both."""
    (group,) = merged([candidate(0, 60, 95, 1), candidate(20, 80, 90, 2)], 5)
    assert (group.members.size, group.score) == (80, 95)
    assert [each.digest for each in group.shared] == [1, 2]


def test_a_dim_look_sweeps_nobody_in() -> None:
    """A group that scores far less brings no members along."""
    assert spans(merged([candidate(0, 60, 95), candidate(0, 100, 30)], 5)) == [(0, 59)]


def test_strangers_with_a_few_in_common_stay_apart() -> None:
    """Who overlaps in less than half keeps the rest for itself, and no node is in two."""
    groups = merged([candidate(0, 60, 95), candidate(50, 120, 90)], 5)
    assert spans(groups) == [(0, 59), (60, 119)]


def test_what_is_left_over_is_no_group() -> None:
    """Fewer than the least members are dropped."""
    assert spans(merged([candidate(0, 60, 95), candidate(57, 64, 90)], 5)) == [(0, 59)]
    assert merged([], 5) == []


def test_a_look_that_glues_two_together_leaves_them_apart() -> None:
    """What the surest windows see apart stays apart; the others go where the look has most."""
    glued = candidate(0, 90, 90)
    groups = merged([candidate(0, 30, 95), candidate(30, 80, 95), glued], 5)
    assert [each.members.tolist() for each in groups] == [[*range(30)], [*range(30, 90)]]
