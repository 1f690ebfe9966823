"""The page tells what the records say, runs nothing, and is silent about people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.campaigns import AT, campaign, group
from support.reported import ADMIN, ATTRIBUTE, DIGEST, REASON, SCRIPT, Page, hostile

from gatekeeper.policy.campaigns import CampaignState, Event, Stage
from gatekeeper.reports.content import Include, ReportOptions, Tlp
from gatekeeper.reports.html import html_report

if TYPE_CHECKING:
    from gatekeeper.policy.campaigns import Campaign

EVERYTHING = frozenset(Include)


def page(of: Campaign, *include: Include, **changes: Any) -> Page:
    """Return the page of a campaign."""
    options = ReportOptions(made_at=AT, include=frozenset(include), **changes)
    return Page(html_report(of, options))


def test_hostile_values_stay_text() -> None:
    """Not one of them is in the file as it is; read as text, each is there."""
    options = ReportOptions(made_at=AT, by=SCRIPT, include=EVERYTHING)
    html = html_report(hostile(), options)
    for raw in ("<script", "<img", "\u202e", "\x1b"):
        assert raw not in html
    text = Page(html).text
    assert SCRIPT in text
    assert ATTRIBUTE in text
    assert "\ufffdevil" in text


def test_nothing_is_loaded() -> None:
    """One file, no script, no address of anything elsewhere, and a policy that forbids both."""
    html = html_report(hostile(), ReportOptions(made_at=AT, include=EVERYTHING))
    assert "default-src 'none'" in html
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html


def test_people_are_left_out() -> None:
    """No members, digests or admins, nor what these wrote, unless chosen, each by itself."""
    kept = {
        Include.MEMBERS: "acct-1",
        Include.DIGESTS: f"{DIGEST:016x}",
        Include.PEOPLE: ADMIN,
    }
    silent = page(hostile()).text
    assert "an admin" in silent
    for chosen, told in kept.items():
        assert told not in silent
        text = page(hostile(), chosen).text
        assert [told in text for told in kept.values()] == [each is chosen for each in kept]
    assert REASON not in silent
    assert REASON in page(hostile(), Include.PEOPLE).text
    assert "left-1" not in page(hostile(), *EVERYTHING).text


def test_who_proved_an_identity_since_the_last_run_is_no_member() -> None:
    """An admin's page may be made between the proof and the next run."""
    text = page(hostile(left=("acct-1",)), Include.MEMBERS).text
    assert "acct-1" not in text
    assert "acct-2" in text


def test_figures_are_those_of_the_records() -> None:
    """Size, networks, traits, capabilities, models, what was taken, confidence, stage."""
    found = page(hostile(), tlp=Tlp.RED, by="Example & Sons")
    for row in (
        ["members that the last run found", "10"],
        ["left, having proven who they are", "1"],
        ["hosting", "80", "80.0 %"],
        ["reasoning", "80.0 %"],
        ["gpt-4.1", "95"],
        ["calls", "100"],
        ["input tokens", "1,000"],
        ["output tokens", "2,345"],
        ["score", "90 of 100"],
        ["q value", "0.01"],
        ["address", "addresses that few accounts use"],
    ):
        assert row in found.rows
    (shared,) = [row for row in found.rows if row[0] == "network addresses"]
    assert shared[2:] == ["2", "9", "90.0 %"]
    assert "TLP:RED" in found.text
    assert "From Example & Sons" in found.text
    assert "Confidence 90 of 100" in found.text
    assert "no rate among honest people" in found.text
    assert "Not in it are calls from before that window" in found.text
    assert "made with a secret key" in found.text


def test_stages_are_drawn_from_the_history() -> None:
    """The line and the table have each step."""
    found = page(hostile())
    assert [row[1] for row in found.rows if len(row) == 2 and row[1] in set(Stage)] == [
        "observe",
        "step_up",
    ]


def test_growth_is_drawn_from_the_history() -> None:
    """Each size that was told, and the one of now; of what an admin wrote, nothing."""
    events = (
        Event(AT - 300, "found", "1 member, 1 layer"),
        Event(AT - 200, "grew", "6 members, 2 layers"),
        Event(AT - 100, "grew", "many"),
        Event(AT - 50, "confirmed", "99 members", ADMIN),
    )
    found = page(hostile(history=events))
    assert [row[1] for row in found.rows if len(row) == 2 and row[0].endswith("UTC")][-3:] == [
        "1", "6", "10",
    ]  # fmt: skip


def test_what_is_no_name_of_a_model_is_counted_and_not_told() -> None:
    """A caller may write anything there, a prompt too."""
    models = {"claude-3@20250101": 5, "Translate for John Doe": 2, "a\nb": 1, "": 1}
    text = page(campaign(group(models=models))).text
    assert "claude-3@20250101" in text
    assert "(not a name of a model)4" in text
    assert "Doe" not in text


def test_each_chart_has_a_title_a_description_and_a_table() -> None:
    """Who does not see it loses nothing."""
    tags = page(hostile()).tags
    drawn = tags.count("svg")
    assert drawn == 5
    assert tags.count("desc") == drawn
    assert tags.count("title") == drawn + 1
    for place, tag in enumerate(tags):
        if tag == "svg":
            after = [each for each in tags[place + 1 :] if each in {"svg", "table"}]
            assert after[0] == "table"
    html = html_report(hostile(), ReportOptions(made_at=AT))
    ids = [each.split('"')[0] for each in html.split(' id="')[1:]]
    assert len(ids) == len(set(ids)) == 2 * drawn


@pytest.mark.parametrize(
    ("state", "last", "confidence"),
    [
        (CampaignState.PROPOSED, "found", "Confidence 45 of 100: half"),
        (CampaignState.CONFIRMED, "confirmed", "Confidence 90 of 100"),
        (CampaignState.DISMISSED, "dismissed", "Confidence 0 of 100: people"),
        (CampaignState.RELEASED, "probe_passed", "Confidence 0 of 100"),
        (CampaignState.RELEASED, "released", "Confidence 45 of 100"),
        (CampaignState.MERGED, "merged", "Confidence 45 of 100"),
    ],
)
def test_confidence_is_that_of_people_too(state: CampaignState, last: str, confidence: str) -> None:
    """Half as long as nobody has looked, none once people or a probe have spoken against it."""
    found = page(hostile(state=state, history=(Event(AT, last),)))
    assert confidence in found.text
    assert ("Nothing is done to its members now." in found.text) is not state.contains


def test_what_was_merged_says_where_it_goes_on() -> None:
    """Whoever has a report of the one finds the other."""
    found = page(hostile(state=CampaignState.MERGED, into="cmp_2"))
    assert ["goes on in", "cmp_2", ""] in found.rows


def test_little_is_known() -> None:
    """A group of nothing is a page all the same."""
    bare = campaign(group((), shared=(), layers=(), calls=0, score=0.0))
    found = page(bare, *EVERYTHING)
    assert "None are known." in found.text
    assert found.tags.count("svg") == 2


def test_long_lists_and_texts_are_bounded() -> None:
    """The callers name models: neither many nor long names swell the page."""
    models = {f"model-{number:03}": number for number in range(1, 101)} | {"x" * 9_999: 1_000}
    html = html_report(campaign(group(models=models)), ReportOptions(made_at=AT))
    assert "81 others" in html
    assert "x" * 201 not in html
