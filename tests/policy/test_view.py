"""The flat view of facts: complete, typed, and silent about what is not known."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from support.builders import AT, account, call, facts, in_campaign, network
from support.strategies import some_facts

from gatekeeper.policy.model import Credential, Facts
from gatekeeper.policy.view import FIELDS, FieldType, before_a_call, view_of
from gatekeeper.policy.words import CredentialKind, CredentialStatus

TYPES = {
    FieldType.STRING: str,
    FieldType.INT: int,
    FieldType.DOUBLE: float,
    FieldType.BOOL: bool,
    FieldType.STRINGS: tuple,
}


def test_full_facts_fill_every_field() -> None:
    """No field can be declared that the view never holds."""
    known = facts(
        where=network(
            subdivision="US-CA",
            as_organization="o",
            owner="x",
            owner_country="DE",
            asn=1,
            registered_egress=False,
        ),
        who=account(organization="org", email_domain="example.com"),
        what=call(client="c"),
        campaign=in_campaign(),
    )
    assert set(view_of(known)) == set(FIELDS)


def test_no_campaign_is_known_and_not_unknown() -> None:
    """Rules on campaigns must not hit everybody who belongs to none."""
    view = view_of(facts())
    assert view["campaign.stage"] == "none"
    assert view["campaign.probed"] is view["campaign.inherited"] is False
    assert "campaign.id" not in view


@settings(max_examples=60, deadline=None)
@given(known=some_facts())
def test_values_have_the_declared_type(known: Facts) -> None:
    """Compiled conditions rely on it; nothing is ever ``None``."""
    for name, value in view_of(known).items():
        assert type(value) is TYPES[FIELDS[name]], name


def test_unknown_is_absent() -> None:
    """What is not known is left out, so that a condition on it is unknown and not false."""
    bare = facts(
        where=network(country=None, registered_country=None, asn=None),
        key=Credential(CredentialKind.NONE, CredentialStatus.MISSING),
        who=account(age_days=None),
        what=call(model=None, client=None),
    )
    left = set(FIELDS) - set(view_of(bare))
    assert {"network.country", "network.asn", "account.age_days", "call.model"} <= left
    assert {"credential.key_id", "network.owner", "call.client"} <= left


@pytest.mark.parametrize(("age_days", "seen"), [(0.0, 0.0), (1.5, 1.5), (-1.0, -1.0)])
def test_age_is_in_days(age_days: float, seen: float) -> None:
    """Age is measured at the call; an account from the future is simply very new."""
    assert view_of(facts(at=AT, who=account(age_days=age_days)))["account.age_days"] == seen


def test_before_a_call_nothing_of_it_is_known() -> None:
    """Whoever calls is known, the program that calls included; what it will ask is not."""
    whole = view_of(facts(what=call(client="c")))
    before = before_a_call(whole)
    assert {name for name in whole if name not in before} == {
        name for name in FIELDS if name.startswith("call.") and name != "call.client"
    }
    assert before.items() <= whole.items()
