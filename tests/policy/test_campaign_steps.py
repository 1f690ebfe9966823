"""What people do with campaigns: the table, held against what it is for, and joining two."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from support.builders import AT
from support.campaigns import accounts, campaign, group, trait, traits, words

from gatekeeper.policy.campaign_steps import (
    MOST_EVENTS,
    MOST_SHARED,
    TRANSITIONS,
    CampaignStep,
    confirm,
    dismiss,
    joined,
    merge,
    noted,
    release,
)
from gatekeeper.policy.campaigns import CampaignState, Event, Layer, Stage

S, T = CampaignState, CampaignStep


@pytest.mark.parametrize(
    ("step", "word", "end"),
    [
        (confirm, "confirmed", S.CONFIRMED),
        (dismiss, "dismissed", S.DISMISSED),
        (release, "released", S.RELEASED),
    ],
)
def test_a_step_says_who_when_and_why(step: object, word: str, end: CampaignState) -> None:
    """The history has it, and a state that it does not apply to is left alone."""
    assert callable(step)
    before = campaign(weak_since=AT, faded=True)
    after = step(before, "alice", AT, "ticket 7")
    assert (after.state, after.weak_since, after.faded) == (end, None, False)
    assert after.history == (Event(AT, word, "ticket 7", "alice"),)
    assert after.group is before.group
    assert step(campaign(state=S.MERGED), "alice", AT) is None


def test_every_state_is_reached_and_only_merging_is_final() -> None:
    """What people decide, people can take back."""
    assert {state for state, _ in TRANSITIONS} == set(S) - {S.MERGED}
    assert set(TRANSITIONS.values()) == set(S) - {S.PROPOSED}
    assert {step for _, step in TRANSITIONS} == set(T)


def test_merging_joins_members_stage_and_word() -> None:
    """The one that stays is contained as far as either, and confirmed if either was."""
    one = campaign(left=("x",), missing={"m1": AT}, since=AT - 5)
    other = campaign(
        group(accounts(8, 12), shared=traits(11, 31), score=70.0),
        id="cmp_2",
        state=S.CONFIRMED,
        stage=Stage.BAN,
        staged_at=AT - 1,
        left=("y",),
        missing={"m2": AT - 9},
        since=AT - 9,
    )
    both = merge(one, other, "alice", AT)
    assert both is not None
    led, gone = both
    assert (led.id, led.state, led.stage, led.staged_at) == (one.id, S.CONFIRMED, Stage.BAN, AT - 1)
    assert (led.since, led.left, led.missing) == (AT - 9, ("x", "y"), {"m1": AT, "m2": AT - 9})
    assert led.group.members == accounts(0, 12)
    assert (gone.state, gone.into) == (S.MERGED, one.id)
    assert (words(led), words(gone)) == (["merged"], ["merged"])
    assert (led.history[0].detail, gone.history[0].detail) == ("cmp_2", one.id)
    back = merge(other, one, "alice", AT)
    assert back is not None
    assert (back[0].state, back[0].stage) == (S.CONFIRMED, Stage.BAN)


@pytest.mark.parametrize("state", [S.DISMISSED, S.RELEASED, S.MERGED])
def test_only_open_campaigns_are_merged(state: CampaignState) -> None:
    """Neither into what was let go, nor out of it, nor into itself."""
    closed = campaign(id="cmp_2", state=state)
    assert merge(campaign(), closed, "alice", AT) is None
    assert merge(closed, campaign(), "alice", AT) is None
    assert merge(campaign(), campaign(), "alice", AT) is None


def test_a_history_is_bounded_and_keeps_how_it_began() -> None:
    """The first event and the newest."""
    long = campaign()
    for number in range(MOST_EVENTS + 50):
        long = noted(long, Event(AT + number, "grew"))
    assert len(long.history) == MOST_EVENTS
    assert (long.history[0].at, long.history[1].at) == (AT, AT + 51)
    assert long.history[-1].at == AT + MOST_EVENTS + 49


def test_groups_are_joined() -> None:
    """Sums of what is counted, shares by their weight, of each trait the wider one."""
    one = replace(
        group(("a", "b"), shared=(trait(1, members=2), trait(2)), score=60.0, calls=30),
        capabilities={"agentic": 1.0},
        networks={"vpn": 3},
        models={"m": 1},
        input_tokens=5,
        output_tokens=7,
        measures={"synchrony": 0.5},
        last_seen=AT - 9,
    )
    other = replace(
        group(("b", "c"), shared=(trait(1, members=3), trait(3)), score=50.0, calls=10),
        capabilities={"agentic": 0.5, "code": 1.0},
        networks={"vpn": 1, "tor": 2},
        layers=(Layer.SIGNUP, Layer.ADDRESS),
        q_value=0.04,
        first_seen=AT - 99,
        input_tokens=50,
    )
    both = joined(other, one)
    assert both == replace(joined(one, other), shared=both.shared)
    assert both.members == ("a", "b", "c")
    assert {each.digest: each.members for each in both.shared} == {1: 3, 2: 4, 3: 4}
    assert (both.score, both.q_value, both.measures) == (60.0, 0.04, {"synchrony": 0.5})
    assert both.layers == (Layer.ADDRESS, Layer.SCAFFOLD, Layer.SIGNUP)
    assert both.capabilities == {"agentic": 0.875, "code": 0.25}
    assert (both.networks, both.models) == ({"vpn": 4, "tor": 2}, {"m": 1})
    assert (both.calls, both.input_tokens, both.output_tokens) == (40, 55, 7)
    assert (both.first_seen, both.last_seen) == (AT - 10 * 86_400, AT)
    many = group(shared=tuple(trait(each) for each in range(1, 99)))
    assert len(joined(many, one).shared) == MOST_SHARED
