"""Who is in which campaign: members, those who left, those who inherit, those who are probed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.builders import AT, DAY_S, account, facts, network, rules
from support.campaigns import PROBE_KEY, STAGED, accounts, campaign, group, trait

from gatekeeper.policy.campaigns import CampaignFacts, CampaignState, Layer, SharedTrait, Stage
from gatekeeper.policy.containment import (
    NO_CONTAINMENT,
    Containment,
    mixed,
    number_of,
    shown,
)
from gatekeeper.policy.traits import Traits
from gatekeeper.policy.words import Assurance

if TYPE_CHECKING:
    from gatekeeper.policy.campaigns import Campaign
    from gatekeeper.policy.model import Account, Facts, NetworkFacts

S = CampaignState
DIGEST = st.integers(0, 2**63 - 1)
SEEN = Traits("e0e0e0e0", client=5, system=6, tools=7, scaffold=8, shape=9, headers=10)
TOLD = (trait(int("a" * 15, 16)), trait(8, kind="scaffold"))
"""Traits of a campaign that :func:`stranger` shows from two layers."""


def where(**changes: Any) -> NetworkFacts:
    """Return an address whose keys are digests."""
    return replace(network(), address_key="a" * 32, prefix_key="b" * 32, **changes)


def contained(*campaigns: Campaign, key: bytes = PROBE_KEY) -> Containment:
    """Work out a containment by rules with every stage but one."""
    return Containment.of_campaigns(campaigns, STAGED, key)


def asked(
    now: Containment, who: Account, traits: tuple[Traits, ...] = (SEEN,), at: float = AT
) -> CampaignFacts | None:
    """Ask of somebody at that address."""
    return now.of(who, where(), traits, at)


def member(number: int = 3, **changes: Any) -> Account:
    """Return one of the first ten accounts, 400 days old."""
    return account(id=accounts(number, number + 1)[0], **changes)


def stranger(**changes: Any) -> Account:
    """Return an account of today that no campaign lists."""
    return account(age_days=0.1, **changes)


def test_a_member_is_known_by_its_account_alone() -> None:
    """With the campaign's stage, score and layers; an old account that is none is nobody."""
    now = contained(campaign())
    assert asked(now, member(), ()) == CampaignFacts(
        "cmp_000000000001", Stage.BUDGET, 55.0, ("address", "scaffold")
    )
    assert asked(now, account()) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"assurance": Assurance.IAL1},
        {"assurance": Assurance.IAL2},
        {"organization": "org-1", "organization_verified": True},
    ],
)
def test_proven_identities_and_organizations_are_never_members(changes: dict[str, Any]) -> None:
    """Neither listed nor by what they show."""
    now = contained(campaign(group(shared=TOLD)))
    assert asked(now, member()) is not None
    assert asked(now, stranger()) is not None
    assert asked(now, member(**changes)) is None
    assert asked(now, stranger(**changes)) is None


def test_an_organization_that_nobody_has_checked_shelters_nobody() -> None:
    """Whoever may name an organization at signup would be out of reach."""
    now = contained(campaign(group(shared=TOLD)))
    assert asked(now, member(organization="org-1")) is not None
    assert asked(now, stranger(organization="org-1")) is not None


def test_members_that_are_missing_stay_and_those_that_left_do_not() -> None:
    """Nor do these come back as newcomers."""
    now = contained(campaign(group(shared=TOLD), missing={"m": AT}, left=("a00003", "acct-1")))
    assert asked(now, account(id="m")) is not None
    assert asked(now, member()) is None
    assert asked(now, stranger()) is None
    assert asked(now, stranger(id="another")) is not None


@pytest.mark.parametrize("state", [S.DISMISSED, S.RELEASED, S.MERGED])
def test_closed_campaigns_contain_nobody(state: CampaignState) -> None:
    """It is as if they were not there."""
    assert contained(campaign(state=state)) is NO_CONTAINMENT


def test_an_account_of_two_campaigns_is_in_the_one_further_on() -> None:
    """Whatever order they come in, as a member and as a newcomer."""
    low = campaign(group(shared=TOLD, score=90.0), id="cmp_low")
    high = campaign(group(shared=TOLD), id="cmp_high", stage=Stage.STEP_UP)
    for now in (contained(low, high), contained(high, low)):
        for who in (member(), stranger()):
            found = asked(now, who)
            assert found is not None
            assert (found.id, found.stage) == ("cmp_high", Stage.STEP_UP)


# --- inheriting ---------------------------------------------------------------------------------


def test_a_new_account_with_traits_from_two_layers_inherits() -> None:
    """On its first call, and the record says from which layers."""
    assert asked(contained(campaign(group(shared=TOLD))), stranger()) == CampaignFacts(
        "cmp_000000000001", Stage.BUDGET, 55.0, ("address", "scaffold"), inherited=True
    )


def told(*kinds: str, digest: int | None = None, **changes: Any) -> tuple[SharedTrait, ...]:
    """Return the traits of those kinds that :func:`stranger` shows."""
    showing = shown(stranger(payment=21, signup=22, mail=23), where(), (SEEN,))
    return tuple(
        trait(shows if digest is None else digest, kind=kind, layer=layer, **changes)
        for layer, kind, shows in showing
        if kind in kinds
    )


@pytest.mark.parametrize(
    ("shared", "inherits"),
    [
        (told("address", "scaffold"), True),
        (told("address", "payment"), True),
        (told("mail", "tools"), True),
        (told("client", "system"), True),
        (told("address"), False),
        (told("scaffold", "system", "tools"), False),
        (told("payment", "signup", "mail"), False),
        (told("address", "subnet_client", "client"), False),  # one place
        ((*told("address"), *told("scaffold", members=2, accounts=4)), False),  # as many strangers
        ((*told("address"), *told("scaffold", digest=99)), False),
        ((*told("address"), *told("scaffold", digest=0)), False),
        ((*told("address"), trait(9, kind="shape")), False),  # by chance
    ],
)
def test_it_takes_two_layers_that_speak_for_the_campaign(
    shared: tuple[SharedTrait, ...],
    inherits: bool,
) -> None:
    """One layer never does, nor a place twice, nor a trait that as many others have."""
    who = stranger(payment=21, signup=22, mail=23)
    assert (asked(contained(campaign(group(shared=shared))), who) is not None) is inherits


def test_who_is_only_observed_inherits_what_goes_further() -> None:
    """A weak group that replacements are found in first is no shelter from the strong one."""
    seen = campaign(group(accounts(3, 9)), id="cmp_2", stage=Stage.OBSERVE)
    new, old = member(age_days=0.1), member()
    strong = campaign(group(accounts(20, 30), shared=TOLD), stage=Stage.STEP_UP)
    now = contained(seen, strong)
    assert [getattr(asked(now, who), "id", None) for who in (new, old)] == [strong.id, "cmp_2"]
    weak = campaign(group(accounts(20, 30), shared=TOLD), stage=Stage.OBSERVE)
    assert getattr(asked(contained(seen, weak), new), "id", None) == "cmp_2"
    assert getattr(asked(contained(seen), new), "id", None) == "cmp_2"


def test_two_layers_of_two_campaigns_are_not_two_of_one() -> None:
    """Nobody inherits from a mixture."""
    one = campaign(group(shared=told("address")))
    other = campaign(group(accounts(20, 30), shared=told("scaffold")), id="cmp_2")
    assert asked(contained(one, other), stranger()) is None


@pytest.mark.parametrize(
    ("made_at", "members", "kind", "inherits"),
    [
        (AT - DAY_S, 9, "scaffold", True),  # when the campaign was found
        (AT - 60, 9, "system", True),
        (AT - DAY_S - 1, 9, "scaffold", False),  # there already
        (None, 9, "scaffold", False),  # perhaps
        (AT - 60, 8, "scaffold", False),  # two strangers work on it, too
        (AT - 60, 9, "address", False),
    ],
)
def test_a_replacement_inherits_by_a_scaffold_that_nobody_else_has(
    made_at: float | None, members: int, kind: str, inherits: bool
) -> None:
    """Lost accounts are replaced at once: made since the campaign was found, for its very work."""
    shared = told(kind, members=members, accounts=10)
    found = asked(contained(campaign(group(shared=shared))), account(created_at=made_at))
    assert (found is not None) is inherits
    assert found is None or found.layers == ("scaffold", "signup")


@pytest.mark.parametrize(
    ("made_at", "stage", "inherits"),
    [
        (AT - 10 * DAY_S, Stage.BUDGET, True),  # when the campaign was first seen
        (AT - 10 * DAY_S - 1, Stage.BUDGET, False),
        (AT - 10 * DAY_S - 1, Stage.STEP_UP, False),
        (None, Stage.BUDGET, True),  # not known before
    ],
)
def test_only_new_accounts_inherit(
    made_at: float | None,
    stage: Stage,
    inherits: bool,
) -> None:
    """Made since the campaign was first seen, or first known now."""
    now = contained(campaign(group(shared=TOLD), stage=stage))
    assert (asked(now, account(created_at=made_at)) is not None) is inherits


def test_a_rule_may_take_younger_accounts_as_new() -> None:
    """Those that were bought or made ahead of the campaign; only at the stage that says so."""
    fresh = group(shared=TOLD, first_seen=AT - DAY_S)
    who = account(created_at=AT - 4 * DAY_S)
    other = campaign(group(accounts(20, 30)), id="cmp_2", stage=Stage.STEP_UP)
    assert asked(contained(campaign(fresh, stage=Stage.STEP_UP)), who) is not None
    assert asked(contained(campaign(fresh), other), who) is None
    late = AT + 1.5 * DAY_S
    assert asked(contained(campaign(fresh, stage=Stage.STEP_UP)), who, at=late) is None


def test_traits_of_every_epoch_in_force_count() -> None:
    """While the key changes, a call shows both."""
    now = contained(campaign(group(shared=TOLD)))
    other = Traits("ffffffff", scaffold=80)
    assert asked(now, stranger(), (other, SEEN)) is not None
    assert asked(now, stranger(), (other,)) is None
    assert asked(now, stranger(), ()) is None


# --- probing ------------------------------------------------------------------------------------


def test_a_probe_asks_its_share_and_nobody_can_tell_whom() -> None:
    """A quarter of many, the same ones each time, others under another key or campaign."""
    names = accounts(0, 2_000)
    probe = campaign(group(names), stage=Stage.PROBE)

    def probed(now: Containment) -> set[str]:
        each = {name: now.of(account(id=name), where(), (), AT) for name in names}
        return {name for name, found in each.items() if found is not None and found.probed}

    first = probed(contained(probe))
    assert 400 < len(first) < 600
    assert probed(contained(probe)) == first
    assert probed(contained(probe, key=b"another key")) != first
    assert probed(contained(replace(probe, id="cmp_2"))) != first
    assert probed(contained(replace(probe, stage=Stage.STEP_UP))) == set()


def test_a_probe_asks_newcomers_too_and_nobody_without_a_rule() -> None:
    """Whoever inherits is drawn like a member."""
    probe = campaign(group(shared=TOLD), stage=Stage.PROBE)
    now = contained(probe)
    found = [asked(now, stranger(id=f"new-{number}")) for number in range(200)]
    assert {each is not None and each.inherited for each in found} == {True}
    assert 20 < sum(each is not None and each.probed for each in found) < 80
    bare = Containment.of_campaigns([probe], rules(), PROBE_KEY)
    assert asked(bare, member()) == CampaignFacts(
        probe.id, Stage.PROBE, 55.0, ("address", "scaffold")
    )


# --- revision, place ----------------------------------------------------------------------------


def test_the_revision_follows_what_matters() -> None:
    """All gates name the same content the same; the history is none of it."""
    revision = contained(campaign()).revision
    assert len(revision) == 12
    assert contained(campaign(staged_at=0.0)).revision == revision
    changes: list[dict[str, Any]] = [
        {"stage": Stage.STEP_UP},
        {"left": ("a00003",)},
        {"missing": {"m": AT}},
        {"group": group(score=56.0)},
        {"group": group(shared=TOLD)},
    ]
    others = {contained(replace(campaign(), **each)).revision for each in changes}
    assert len(others | {revision}) == 6
    probe = campaign(stage=Stage.PROBE)
    bare = Containment.of_campaigns([probe], rules(), PROBE_KEY)
    assert bare.revision != contained(probe).revision


def placed(now: Containment, known: Facts) -> tuple[CampaignFacts | None, str]:
    """Return what facts say of campaigns once they are placed."""
    after = now.placed(known)
    return after.campaign, after.containment


def test_facts_are_placed() -> None:
    """With the revision that was asked, also where nobody was found."""
    now = contained(campaign())
    stranger_facts = facts(where=where())
    member_facts = facts(where=where(), who=member())
    assert NO_CONTAINMENT.placed(stranger_facts) is stranger_facts
    assert placed(now, stranger_facts) == (None, now.revision)
    found, revision = placed(now, member_facts)
    assert found is not None
    assert (found.id, revision) == ("cmp_000000000001", now.revision)


def test_a_later_turn_is_placed_anew() -> None:
    """Who proved an identity meanwhile has left, and a campaign that ended is over."""
    now = contained(campaign())
    first = now.placed(facts(where=where(), who=member()))
    assert first.campaign is not None
    proven = replace(first, account=member(assurance=Assurance.IAL1))
    assert placed(now, proven) == (None, now.revision)
    assert placed(NO_CONTAINMENT, first) == (None, "")
    assert placed(NO_CONTAINMENT, replace(first, campaign=None)) == (None, "")


def test_what_a_call_shows() -> None:
    """Of nothing, nothing: 0 stands for no trait, and links nobody."""
    blank = Traits("e0e0e0e0")
    assert shown(account(), where(), (blank,)) == ((Layer.ADDRESS, "address", int("a" * 15, 16)),)
    everything = shown(stranger(payment=1, signup=2, mail=3), where(), (SEEN,))
    assert {kind: digest for _, kind, digest in everything} == {
        "address": int("a" * 15, 16),
        "payment": 1,
        "signup": 2,
        "mail": 3,
        "subnet_client": mixed(int("b" * 15, 16), 5),
        "client": 5,
        "scaffold": 8,
        "system": 6,
        "tools": 7,
    }


@given(a=DIGEST, b=DIGEST)
def test_mixing_stays_a_digest(a: int, b: int) -> None:
    """A whole number that a signed column of 64 bits holds."""
    assert 0 <= mixed(a, b) < 2**63
    assert mixed(a, b) ^ b == mixed(a, 0)


def test_keys_are_numbers_of_15_digits() -> None:
    """As sightings hold them."""
    assert number_of("0123456789abcdef0123") == 0x0123456789ABCDE
