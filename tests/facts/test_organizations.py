"""What an organization may be called, and which ranges can be its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.facts.organizations import MAX_EGRESS, parse_organization
from gatekeeper.storage.organizations import OrganizationPatch


def test_fields_are_read_and_ranges_made_canonical() -> None:
    """Each range has one spelling and stands once."""
    assert parse_organization(
        {
            "id": "acme",
            "name": "Acme AG",
            "verified": True,
            "egress": ["8.8.8.0/24", "2001:4860:0:0::/32", "8.8.8.0/24", "9.9.9.9"],
        }
    ) == OrganizationPatch(
        "acme",
        {
            "name": "Acme AG",
            "verified": True,
            "egress": ("8.8.8.0/24", "2001:4860::/32", "9.9.9.9/32"),
        },
    )
    assert parse_organization({"id": "acme"}) == OrganizationPatch("acme", {})


@pytest.mark.parametrize(
    ("prefix", "problem"),
    [
        ("0.0.0.0/0", "too large"),
        ("8.0.0.0/7", "too large"),
        ("2600::/19", "too large"),
        ("::/0", "too large"),
        ("10.1.0.0/16", "not public"),
        ("100.64.0.0/10", "not public"),
        ("192.0.0.0/8", "not public"),
        ("127.0.0.1", "not public"),
        ("224.0.0.0/8", "not public"),
        ("fd00::/48", "not public"),
        ("fe80::/64", "not public"),
        ("2002:808:808::/48", "not public"),
        ("2001::/32", "not public"),
        ("64:ff9b::/96", "not public"),
        ("::ffff:10.0.0.0/104", "not public"),
        ("8.8.8.8/24", "did you mean 8.8.8.0/24"),
        ("8.8.8.0/33", "is not an IP prefix"),
        ("fe80::%eth0/64", "zone id"),
        ("acme.example", "is not an IP prefix"),
        (7, "must be a prefix"),
        ("8" * 100, "must be a prefix"),
    ],
)
def test_ranges_that_cannot_be_one_organizations(prefix: object, problem: str) -> None:
    """Private, reserved, tunnelled, huge or misspelt ranges are told with their place."""
    found = parse_organization({"id": "acme", "egress": ["8.8.8.0/24", prefix]})
    assert isinstance(found, list)
    ((path, text),) = found
    assert path == "egress[1]"
    assert problem in text


def test_every_mistake_is_told() -> None:
    """Wrong fields come together; no text is taken for a truth."""
    found = parse_organization(
        {"id": " ", "name": "", "verified": "yes", "colour": "red", "egress": "8.8.8.0/24"}
    )
    assert isinstance(found, list)
    assert [path for path, _ in found] == ["id", "name", "verified", "colour", "egress"]
    many = parse_organization({"id": "acme", "egress": ["8.8.8.8"] * (MAX_EGRESS + 1)})
    assert isinstance(many, list)


@given(st.dictionaries(st.text(max_size=12) | st.just("egress"), st.lists(st.text()) | st.text()))
def test_anything_else_is_mistakes_and_never_an_exception(record: dict[str, object]) -> None:
    """Whatever stands in a record, the answer is a patch or a list of mistakes."""
    assert isinstance(parse_organization(record), OrganizationPatch | list)
