"""Campaigns from run to run: ids, members, splits and merges, people's word, probes."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.builders import AT, DAY_S, rules
from support.campaigns import (
    STAGED,
    accounts,
    campaign,
    group,
    ids,
    traits,
    words,
)

from gatekeeper.policy.campaign_ledger import advance
from gatekeeper.policy.campaign_steps import confirm, dismiss, merge, release
from gatekeeper.policy.campaigns import (
    Campaign,
    CampaignState,
    Group,
    Layer,
    ProbeCount,
    Stage,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

S = CampaignState


def run(
    before: Sequence[Campaign],
    *groups: Group,
    at: float = AT,
    verified: Sequence[str] = (),
    probe: ProbeCount | None = None,
) -> tuple[Campaign, ...]:
    """Advance by the staged rules; ``probe`` is of the first campaign."""
    probes = {} if probe is None else {before[0].id: probe}
    return advance(
        tuple(before), groups, STAGED, at, ids(), verified=frozenset(verified), probes=probes
    )


def test_a_group_becomes_a_campaign_with_a_history() -> None:
    """It stands at the furthest stage that it reaches, under an id that was made for it."""
    (made,) = run((), group(score=65.0))
    assert (made.id, made.state, made.stage) == ("cmp_000000000064", S.PROPOSED, Stage.PROBE)
    assert (made.since, made.staged_at) == (AT, AT)
    assert [(each.what, each.detail) for each in made.history] == [
        ("found", "10 members, 2 layers"),
        ("stage", "probe"),
    ]


def test_a_weak_group_is_no_campaign() -> None:
    """Below every stage nothing is proposed, nor is an id used up; without members neither."""
    assert run((), group(score=29.9)) == ()
    assert run((), group(), verified=accounts(0, 10)) == ()


def test_without_rules_every_group_is_observed() -> None:
    """Nothing is contained, and it is told as a campaign all the same."""
    (made,) = advance((), (group(score=1.0),), rules(), AT, ids())
    assert made.stage is Stage.OBSERVE


def test_it_keeps_its_id_while_members_come_and_go() -> None:
    """New members are noted when it has doubled, missing ones stay for the hold time."""
    first = run((), group())
    later = run(first, group(accounts(5, 25)), at=AT + 60)
    (one,) = later
    assert one.id == first[0].id
    assert one.group.members == accounts(5, 25)
    assert one.missing == dict.fromkeys(accounts(0, 5), AT + 60)
    assert one.contained == set(accounts(0, 25))
    assert words(one)[-1] == "grew"
    (kept,) = run(later, group(accounts(5, 25)), at=AT + 60 + 2 * DAY_S - 1)
    assert kept.missing == one.missing
    (gone,) = run(later, group(accounts(5, 25)), at=AT + 60 + 2 * DAY_S)
    assert gone.contained == set(accounts(5, 25))
    (back,) = run(later, group(accounts(0, 25)), at=AT + 120)
    assert (back.missing, back.group.members) == ({}, accounts(0, 25))


def test_accounts_that_are_replaced_do_not_make_it_another() -> None:
    """All members are new, and the traits are the same: the same campaign (adversary I)."""
    (one,) = run([campaign()], group(accounts(50, 60)))
    assert one.id == campaign().id
    assert one.contained == {*accounts(0, 10), *accounts(50, 60)}


def test_one_trait_in_common_is_not_enough() -> None:
    """Two groups may share a public template and nothing else."""
    for shared in (traits(11), traits(11, 99, 98)):
        old, new = run([campaign()], group(accounts(50, 60), shared=shared))
        assert (old.group, new.id) == (campaign().group, "cmp_000000000064")


def test_members_in_common_go_before_traits() -> None:
    """A group stays with the campaign whose people it has, whoever else uses the same things."""
    same_traits = campaign(id="cmp_1")
    same_people = campaign(group(accounts(50, 60), shared=traits(21, 22)), id="cmp_2")
    one, two = run([same_traits, same_people], group(accounts(50, 60)))
    assert (one.group, two.group.members) == (same_traits.group, accounts(50, 60))
    assert two.group.shared == same_traits.group.shared


def test_whoever_proves_an_identity_leaves() -> None:
    """For good: it is no member when it is found again, whether seen in the run or missing."""
    before = replace(campaign(), missing={"m1": AT - 60, "m2": AT - 60})
    (one,) = run([before], group(), verified=["a00003", "m1", "stranger"])
    assert one.left == ("a00003", "m1")
    assert one.group.members == tuple(each for each in accounts(0, 10) if each != "a00003")
    assert one.missing == {"m2": AT - 60}
    assert (words(one), one.history[0].detail) == (["verified"], "2 members")
    (again,) = run([one], group(), at=AT + 60)
    assert again.group.members == one.group.members
    (unseen,) = run([one], at=AT + 60, verified=["a00004"])
    assert unseen.left == ("a00003", "a00004", "m1")
    assert "a00004" not in unseen.contained


def test_a_split_contains_both_parts_as_before() -> None:
    """The larger part keeps the id; the other gets one and the stage, but never a ban."""
    whole = campaign(stage=Stage.BAN, state=S.CONFIRMED)
    old, new = run([whole], group(accounts(0, 6)), group(accounts(6, 10), shared=traits(11, 12)))
    assert (old.id, old.group.members) == (whole.id, accounts(0, 6))
    assert old.missing == {}
    assert (new.state, new.stage, new.group.members) == (
        S.PROPOSED,
        Stage.STEP_UP,
        accounts(6, 10),
    )
    assert new.history[0].detail == f"4 members, 2 layers, split off from {whole.id}"


def test_groups_that_grow_together_go_on_under_the_larger_one() -> None:
    """The other says where it went; it contains nobody any more, and nobody gets away."""
    one = campaign()
    other = campaign(
        group(accounts(20, 24), shared=traits(21, 22)), id="cmp_2", stage=Stage.STEP_UP
    )
    led, gone = run([one, other], group((*accounts(0, 10), *accounts(20, 22))))
    assert (led.id, led.stage) == (one.id, Stage.STEP_UP)
    assert led.contained == {*accounts(0, 10), *accounts(20, 24)}
    assert (gone.state, gone.into, words(gone)) == (S.MERGED, one.id, ["merged"])
    assert (led.history[-1].what, led.history[-1].detail) == ("merged", "cmp_2")
    again = run([led, gone], group(), group(accounts(20, 24)), at=AT + 60)
    assert [each.id for each in again] == [one.id, "cmp_2"]
    assert again[0].group.members == (*accounts(0, 10), *accounts(20, 24))


@pytest.mark.parametrize(
    ("state", "taken"),
    [(S.PROPOSED, 1), (S.CONFIRMED, 4)],  # fewer than half of four; all of them
)
def test_not_every_campaign_goes_on_in_another(state: CampaignState, taken: int) -> None:
    """Most of its members must be there, and what an admin confirmed is merged by admins."""
    other = campaign(group(accounts(20, 24), shared=traits(21, 22)), id="cmp_2", state=state)
    led, still = run([campaign(), other], group((*accounts(0, 10), *accounts(20, 20 + taken))))
    assert (still.state, still.into) == (state, None)
    assert "merged" not in words(led)


def test_what_is_seen_no_more_is_let_go_after_the_hold_time() -> None:
    """It comes back under its id, with those who are found then."""
    (weak,) = run([campaign()], at=AT)
    assert (weak.state, weak.stage, weak.weak_since) == (S.PROPOSED, Stage.BUDGET, AT)
    (still,) = run([weak], at=AT + 2 * DAY_S - 1)
    assert still == weak
    (faded,) = run([weak], at=AT + 2 * DAY_S)
    assert (faded.state, faded.faded, words(faded)) == (S.RELEASED, True, ["released"])
    assert run([faded], group(score=10.0), at=AT + 3 * DAY_S) == (faded,)
    (back,) = run([faded], group(accounts(5, 12)), at=AT + 3 * DAY_S)
    assert (back.id, back.state, back.faded) == (faded.id, S.PROPOSED, False)
    assert (back.stage, back.contained) == (Stage.BUDGET, set(accounts(5, 12)))
    assert words(back)[-2:] == ["found", "stage"]


def test_what_an_admin_confirmed_only_an_admin_lets_go() -> None:
    """Containment makes the evidence dwindle: a ban that works must not end by itself."""
    banned = campaign(stage=Stage.BAN, state=S.CONFIRMED)
    (still,) = run(run([banned]), at=AT + 300 * DAY_S)
    assert (still.state, still.stage) == (S.CONFIRMED, Stage.BAN)


@pytest.mark.parametrize("stage", [Stage.PROBE, Stage.STEP_UP])
def test_a_group_whose_probe_passes_is_released(stage: Stage) -> None:
    """Its members stay free; strangers on the same evidence are a campaign of their own."""
    before = campaign(group(score=75.0), stage=stage)
    (free,) = run([before], group(score=75.0), probe=ProbeCount(5, 3))
    assert (free.state, words(free)[-1]) == (S.RELEASED, "probe_passed")
    assert run([free], group(accounts(0, 12)), at=AT + 60) == (free,)
    _, other = run([free], group(accounts(8, 30)), at=AT + 60)
    assert other.state is S.PROPOSED


@pytest.mark.parametrize(
    ("stage", "state", "probe"),
    [
        (Stage.PROBE, S.PROPOSED, ProbeCount(4, 2)),
        (Stage.PROBE, S.PROPOSED, ProbeCount(3, 3)),
        (Stage.PROBE, S.CONFIRMED, ProbeCount(9, 9)),
        (Stage.BUDGET, S.PROPOSED, ProbeCount(9, 9)),
    ],
)
def test_a_probe_that_tells_little_releases_nobody(
    stage: Stage, state: CampaignState, probe: ProbeCount
) -> None:
    """Nor does one half, or one against the word of an admin."""
    (one,) = run([campaign(stage=stage, state=state)], group(), probe=probe)
    assert one.state is state


def dismissed() -> Campaign:
    """Return a campaign that an admin dismissed."""
    done = dismiss(campaign(), "admin", AT - 60)
    assert done is not None
    return done


@pytest.mark.parametrize(
    "found",
    [
        group(),
        group(accounts(50, 60)),  # the same traits
        group(shared=traits(21, 22, 23)),  # the same members, linked in no new way
        group(accounts(0, 12), shared=(), layers=(Layer.ADDRESS,)),
        group(accounts(50, 60), shared=traits(11, 12, 21, 22)),  # half of them
    ],
)
def test_a_dismissed_group_stays_dismissed_for_the_same_evidence(found: Group) -> None:
    """Whatever it scores."""
    before = dismissed()
    assert run([before], replace(found, score=99.0)) == (before,)


@pytest.mark.parametrize(
    "found",
    [
        group(shared=traits(21, 22), layers=(Layer.ADDRESS, Layer.SIGNUP)),
        group(accounts(8, 30), shared=traits(21, 22)),
        group(accounts(50, 60), shared=traits(11, 21, 22)),
    ],
)
def test_new_evidence_makes_a_new_campaign(found: Group) -> None:
    """The dismissed one stays as it is, and the new one has its own id from then on."""
    before = dismissed()
    old, new = run([before], found)
    assert old is before
    assert new.state is S.PROPOSED
    again = run([old, new], found, at=AT + 60)
    assert [each.id for each in again] == [old.id, new.id]


def test_what_an_admin_released_stays_so() -> None:
    """Until people confirm it after all."""
    free = release(campaign(), "admin", AT - 60)
    assert free is not None
    assert run([free], group(score=99.0)) == (free,)
    agreed = confirm(free, "admin", AT)
    assert agreed is not None
    (one,) = run([agreed], group(score=99.0))
    assert (one.state, one.stage) == (S.CONFIRMED, Stage.BAN)


def test_what_an_admin_merged_stays_together() -> None:
    """Both groups go on under one id, run after run, and count as one."""
    other = campaign(group(accounts(20, 25), shared=traits(21, 22)), id="cmp_2")
    both = merge(campaign(), other, "admin", AT)
    assert both is not None
    for turn in range(3):
        led, gone = run(both, group(), group(accounts(20, 25), shared=traits(21, 22)), at=AT + turn)
        assert led.group.members == (*accounts(0, 10), *accounts(20, 25))
        assert (led.group.calls, gone.state) == (200, S.MERGED)
        both = (led, gone)


def groups_of(cells: list[set[int]]) -> list[Group]:
    """Return disjoint groups of numbered accounts, each with traits of its own members."""
    taken: set[int] = set()
    found = []
    for number, cell in enumerate(cells):
        members = sorted(cell - taken)
        taken |= cell
        if members:
            shared = traits(*(1_000 + each for each in members[:4]))
            names = tuple(f"a{each:05}" for each in members)
            found.append(group(names, shared=shared, score=40.0 + 10 * (number % 5)))
    return found


CELLS = st.lists(st.sets(st.integers(0, 40), min_size=1, max_size=12), max_size=6)


@given(first=CELLS, second=CELLS, seed=st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_the_order_of_groups_changes_nothing(
    first: list[set[int]], second: list[set[int]], seed: int
) -> None:
    """Ids are stable however a run happens to number what it finds."""
    before = run((), *groups_of(first))
    found = groups_of(second)
    shuffled = random.Random(seed).sample(found, len(found))
    assert run(before, *found, at=AT + 60) == run(before, *shuffled, at=AT + 60)


@given(cells=CELLS)
@settings(max_examples=80, deadline=None)
def test_the_same_groups_keep_their_ids_and_stages(cells: list[set[int]]) -> None:
    """A run that finds what the one before found changes nothing, and makes no new campaign."""
    found = groups_of(cells)
    once = run((), *found)
    assert run(once, *found, at=AT + 60) == once


@given(runs=st.lists(CELLS, min_size=1, max_size=8), hours=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_ids_never_vanish_and_members_are_contained_once_found(
    runs: list[list[set[int]]], hours: int
) -> None:
    """No campaign is lost, none has two ids, and all that a run found strongly is contained.

    A group that is too weak for the stage of its campaign brings nobody new into it.
    """
    now: tuple[Campaign, ...] = ()
    make = ids()
    for turn, cells in enumerate(runs):
        found = groups_of(cells)
        known = [each.id for each in now]
        now = advance(now, tuple(found), STAGED, AT + turn * hours * 3600, make)
        assert [each.id for each in now][: len(known)] == known
        assert len({each.id for each in now}) == len(now)
        inside = {member for each in now if each.state.contains for member in each.contained}
        strong = [each for each in found if len(each.members) >= 2 and each.score >= 70]
        assert {member for each in strong for member in each.members} <= inside


@given(scores=st.lists(st.floats(0, 100), min_size=2, max_size=40))
@settings(max_examples=80, deadline=None)
def test_no_stage_is_left_downwards_within_its_hold_time(scores: list[float]) -> None:
    """Whatever the score does, a stage that was reached lasts as long as its rule says."""
    holds = {rule.stage: rule.hold_s for rule in STAGED.containment}
    now: tuple[Campaign, ...] = run((), group(score=95.0))
    reached = AT
    for turn, score in enumerate(scores, start=1):
        at = AT + turn * 6 * 3600
        (before,) = now
        now = run(now, group(score=score), at=at)
        (after,) = now
        lowered = after.stage.rank < before.stage.rank or not after.state.contains
        if lowered and before.state.contains:
            assert at - reached >= holds[before.stage]
        if after.stage is not before.stage or after.state is not before.state:
            reached = at


def test_a_weak_run_neither_brings_anybody_in_nor_forgets_by_what_it_was_contained() -> None:
    """Replacements flood what linked the members: the traits that they inherit by go on to hold."""
    found = run((), group(accounts(0, 10), score=65.0, shared=traits(11, 12)))
    weak = group(accounts(4, 14), score=30.0, shared=traits(98, 99))
    (after,) = run(found, weak, at=AT + 3600)
    assert after.stage is found[0].stage
    assert after.group.score == 30.0
    assert after.group.shared == traits(11, 12)
    assert after.contained == frozenset(accounts(0, 10))
    strong = group(accounts(4, 14), score=66.0, shared=traits(98, 99))
    (again,) = run((after,), strong, at=AT + 7200)
    assert again.group.shared == traits(98, 99)
    assert accounts(12, 13)[0] in again.contained
