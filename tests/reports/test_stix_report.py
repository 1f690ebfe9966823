"""The bundle is STIX 2.1 by the reference library, the same every time, and silent about people."""

from __future__ import annotations

import json
from typing import Any

import pytest
import stix2
from support.campaigns import AT, campaign, group
from support.reported import ADMIN, DIGEST, MEMBERS, REASON, hostile

from gatekeeper.policy.campaigns import CampaignState, Event
from gatekeeper.reports.content import Include, ReportOptions, Tlp
from gatekeeper.reports.stix import stix_report

LATER = AT + 3600


def bundle(of: Any = None, *include: Include, **changes: Any) -> Any:
    """Return the bundle, parsed strictly."""
    options = ReportOptions(**({"made_at": AT} | changes), include=frozenset(include))
    text = stix_report(hostile() if of is None else of, options)
    return stix2.parse(text, allow_custom=False, version="2.1")


def of_type(found: Any, kind: str) -> list[Any]:
    """Return the objects of a type."""
    return [each for each in found.objects if each.type == kind]


def test_what_is_in_it() -> None:
    """A campaign that uses an attack pattern, a note on confidence, a report that names all."""
    found = bundle()
    assert [each.type for each in found.objects] == [
        "marking-definition",
        "identity",
        "campaign",
        "attack-pattern",
        "relationship",
        "note",
        "opinion",
        "report",
    ]
    _, author, told, pattern, uses, note, opinion, report = found.objects
    assert (uses.source_ref, uses.relationship_type, uses.target_ref) == (
        told.id, "uses", pattern.id,
    )  # fmt: skip
    assert note.object_refs == [told.id]
    assert "no rate among honest people" in note.content
    assert set(report.object_refs) == {each.id for each in found.objects[1:-1]}
    assert "2,345 output tokens" in report.description
    assert told.confidence == report.confidence == 90
    assert uses.confidence == 29
    assert "not a finding" in uses.description
    assert (opinion.opinion, opinion.object_refs) == ("agree", [told.id])
    assert {each.created_by_ref for each in found.objects[2:]} == {author.id}
    for each in found.objects[1:]:
        assert each.created <= each.modified
        assert each.lang == "en"


def test_confidence_is_bounded() -> None:
    """Nobody's word halves it, a dismissal makes it none."""
    for state, expected in ((CampaignState.PROPOSED, 45), (CampaignState.DISMISSED, 0)):
        (told,) = of_type(bundle(hostile(state=state)), "campaign")
        assert told.confidence == expected
    (told,) = of_type(bundle(campaign(group(score=900.0))), "campaign")
    assert told.confidence == 50


def test_the_word_of_a_person_is_an_opinion() -> None:
    """As long as it holds; whose it is, and why, only where people are included."""
    dismissed = hostile(
        state=CampaignState.DISMISSED,
        history=(Event(AT, "confirmed", "", "bob"), Event(AT, "dismissed", REASON, ADMIN)),
    )
    (silent,) = of_type(bundle(dismissed), "opinion")
    assert silent.opinion == "disagree"
    assert "authors" not in silent
    assert "explanation" not in silent
    (told,) = of_type(bundle(dismissed, Include.PEOPLE), "opinion")
    assert (told.authors, told.explanation) == ([ADMIN], REASON)
    assert of_type(bundle(hostile(state=CampaignState.PROPOSED)), "opinion") == []
    assert of_type(bundle(hostile(history=())), "opinion") == []


@pytest.mark.parametrize(
    ("tlp", "marking"),
    [
        (Tlp.CLEAR, stix2.TLP_WHITE),
        (Tlp.GREEN, stix2.TLP_GREEN),
        (Tlp.AMBER, stix2.TLP_AMBER),
        (Tlp.RED, stix2.TLP_RED),
    ],
)
def test_everything_is_marked(tlp: Tlp, marking: Any) -> None:
    """Members too."""
    found = bundle(None, Include.MEMBERS, tlp=tlp)
    assert found.objects[0] == marking
    for each in found.objects[1:]:
        assert each.object_marking_refs == [marking.id]


def test_ids_are_the_same_every_time() -> None:
    """A later report is a new version of the same objects, whatever else is chosen."""
    first, again = bundle(), bundle(made_at=LATER, tlp=Tlp.RED)
    assert first.id == again.id
    assert [each.id for each in first.objects[1:]] == [each.id for each in again.objects[1:]]
    for old, new in zip(first.objects[1:], again.objects[1:], strict=True):
        assert old.created == new.created
        assert old.modified < new.modified
    ids = [each.id for each in bundle(None, *Include).objects]
    assert len(ids) == len(set(ids))


def test_other_senders_and_campaigns_have_other_ids() -> None:
    """Only who made an object may make its next version."""
    first = {each.id for each in bundle().objects[1:]}
    assert first.isdisjoint({each.id for each in bundle(by="Example").objects[1:]})
    other = {each.id for each in bundle(hostile(id="cmp_2")).objects[1:]}
    assert {each.split("--")[0] for each in first & other} == {"identity", "attack-pattern"}


def test_people_are_left_out() -> None:
    """No members, digests, admins or their words, unless chosen."""
    kept = {Include.MEMBERS: "acct-1", Include.DIGESTS: f"{DIGEST:016x}", Include.PEOPLE: ADMIN}
    silent = bundle().serialize()
    assert REASON not in silent
    for chosen, told in kept.items():
        assert told not in silent
        assert told in bundle(None, chosen).serialize()


def test_members_are_accounts_that_were_observed() -> None:
    """Each as it is called, in observed data that belongs to the campaign."""
    found = bundle(None, Include.MEMBERS)
    accounts = of_type(found, "user-account")
    assert {each.user_id for each in accounts} == set(MEMBERS)
    (observed,) = of_type(found, "observed-data")
    assert set(observed.object_refs) == {each.id for each in accounts}
    assert observed.number_observed == 100
    (told,) = of_type(found, "campaign")
    assert (observed.id, told.id) in {
        (each.source_ref, each.target_ref) for each in of_type(found, "relationship")
    }
    everything = {each.id for each in found.objects[1:-1]}
    assert set(of_type(found, "report")[0].object_refs) == everything


def test_what_was_merged_says_where_it_goes_on() -> None:
    """In the report, as the other one may not be known to the reader."""
    (report,) = of_type(bundle(hostile(state=CampaignState.MERGED, into="cmp_2")), "report")
    assert "It goes on in cmp_2." in report.description


def test_little_is_known() -> None:
    """A group of nothing is a bundle all the same, made before it was found or not."""
    bare = campaign(group((), shared=(), layers=(), calls=0, score=0.0))
    found = bundle(bare, *Include, made_at=0.0)
    assert of_type(found, "user-account") == []
    json.loads(found.serialize())
