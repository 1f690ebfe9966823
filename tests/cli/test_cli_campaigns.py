"""`gatekeeper campaigns`: list, show, and a report that others can be sent."""

from __future__ import annotations

import asyncio
import json
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
import stix2
from support.campaigns import AT, campaign, group, traits
from support.changes import replace

from gatekeeper.cli import campaigns as command
from gatekeeper.policy.campaigns import CampaignState, Event, Stage
from gatekeeper.storage.campaigns import CampaignBook
from gatekeeper.storage.records import Records

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., Any]

HOSTILE = "<script>alert(1)</script>"
ID = "cmp_000000000001"


@pytest.fixture
def found(tmp_path: Path, run: Run) -> Path:
    """Write two campaigns, one of them with hostile words; return where reports may go."""
    assert run("campaigns", "list").exit_code == 0  # makes the records
    strong = group(
        ("acct-1", "acct-2", HOSTILE, *(f"acct-{n}" for n in range(3, 10))),
        score=90.0,
        shared=traits(0xABCDEF0123456, 12, 13),
        models={HOSTILE: 3, "gpt-4.1": 7},
        networks={"hosting": 8, "unknown": 2},
        capabilities={"reasoning": 0.8, HOSTILE: 0.1},
        measures={"gini": 0.2},
        input_tokens=1_000,
        output_tokens=2_345,
    )
    history = (
        Event(AT - 100, "found", "10 members, 2 layers"),
        Event(AT - 50, "stage", f"step_up {HOSTILE}", by="ada@example.org"),
    )
    first = campaign(strong, stage=Stage.STEP_UP, history=history)
    second = campaign(id="cmp_000000000002", state=CampaignState.DISMISSED)

    async def write() -> None:
        records = await Records.open(f"sqlite:///{tmp_path / 'data' / 'records.db'}")
        await CampaignBook(records.database).write((first, second), at=AT, seen=0)
        await records.close()

    asyncio.run(write())
    return tmp_path / "out"


def test_campaigns_are_listed_the_surest_first(run: Run, found: Path) -> None:
    """All, or those of one state; people get a table, scripts JSON lines."""
    assert not found.exists()
    rows = [json.loads(line) for line in run("campaigns", "list", "--json").stdout.splitlines()]
    assert [each["id"] for each in rows] == [ID, "cmp_000000000002"]
    assert rows[0]["members"] == 10
    assert rows[0]["layers"] == ["address", "scaffold"]
    only = run("campaigns", "list", "--state", "dismissed").stdout
    assert "cmp_000000000002" in only
    assert ID not in only


def test_one_is_shown_with_why(run: Run, found: Path) -> None:
    """One sentence says what the accounts share; the rest is its state and history."""
    assert not found.exists()
    told = run("campaigns", "show", ID).stdout
    assert "These 10 accounts share" in told
    assert "network addresses" in told
    assert "step_up" in told
    assert len(json.loads(run("campaigns", "show", ID, "--json").stdout)["members"]) == 10


class _Page(HTMLParser):
    """Notes tags and text, and that nothing is asked for elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.add(tag)
        assert not {"src", "href"} & {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text.append(data)


def written(folder: Path) -> tuple[_Page, dict[str, Any]]:
    """Return the page and the bundle, each read strictly."""
    page = _Page()
    page.feed((folder / f"{ID}.html").read_text())
    text = (folder / f"{ID}.stix.json").read_text()
    stix2.parse(text, allow_custom=False)
    return page, json.loads(text)


def test_the_report_tells_no_more_of_people_than_it_may(run: Run, found: Path) -> None:
    """Neither members, digests nor admins; hostile words are words."""
    run("campaigns", "report", ID, "--out", str(found), "--by", "Example & Sons")
    page, bundle = written(found)
    text = " ".join(page.text)
    assert {"svg", "table", "title", "desc"} <= page.tags
    assert not {"script", "img", "link", "iframe"} & page.tags
    assert HOSTILE in text
    assert "2,345" in text
    assert "no rate among honest people" in text
    for secret in ("acct-1", "ada@example.org", "000abcdef0123456"):
        assert secret not in text
        assert secret not in json.dumps(bundle)
    kinds = [each["type"] for each in bundle["objects"]]
    assert sorted(kinds) == [
        "attack-pattern", "campaign", "identity", "note", "relationship", "report",
    ]  # fmt: skip
    told = next(each for each in bundle["objects"] if each["type"] == "campaign")
    assert told["confidence"] == 45
    assert told["object_marking_refs"] == [stix2.TLP_AMBER.id]


def test_the_operator_may_choose_to_tell_more(run: Run, found: Path) -> None:
    """Accounts, digests and names, each by itself."""
    every = [arg for what in ("members", "digests", "people") for arg in ("--include", what)]
    run("campaigns", "report", ID, "--out", str(found), *every, "--tlp", "red")
    page, bundle = written(found)
    text = " ".join(page.text)
    for told in ("acct-1", "ada@example.org", "000abcdef0123456"):
        assert told in text
    users = [each for each in bundle["objects"] if each["type"] == "user-account"]
    assert len(users) == 10
    assert users[0]["object_marking_refs"] == [stix2.TLP_RED.id]


def test_the_same_campaign_has_the_same_ids(run: Run, found: Path) -> None:
    """Whoever gets it twice has one object, not two; nothing is written over unasked."""
    run("campaigns", "report", ID, "--out", str(found))
    _, first = written(found)
    refused = run("campaigns", "report", ID, "--out", str(found), code=2)
    assert "--force" in refused.stderr
    run("campaigns", "report", ID, "--out", str(found), "--force")
    _, second = written(found)
    assert [each["id"] for each in first["objects"]] == [each["id"] for each in second["objects"]]


def test_an_unknown_one_is_told(run: Run, found: Path) -> None:
    """Nothing is written."""
    for verb in ("show", "report"):
        refused = run("campaigns", verb, "cmp_none", code=1)
        assert "campaigns list" in refused.stderr
    assert not found.exists()


def test_without_the_extra_there_is_a_page(
    run: Run, found: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a word on what to install."""
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    told = run("campaigns", "report", ID, "--out", str(found))
    assert "gatekeeper[stix]" in told.stderr
    assert [each.name for each in found.iterdir()] == [f"{ID}.html"]


def test_confirmed_is_surer(run: Run, found: Path, tmp_path: Path) -> None:
    """An admin's word doubles the confidence told to others."""
    assert found == tmp_path / "out"

    async def confirm() -> None:
        records = await Records.open(f"sqlite:///{tmp_path / 'data' / 'records.db'}")
        book = CampaignBook(records.database)
        every = await book.all()
        one = next(each for each in every.campaigns if each.id == ID)
        changed = replace(one, state=CampaignState.CONFIRMED)
        await book.write((changed,), at=AT, seen=every.revision)
        await records.close()

    asyncio.run(confirm())
    run("campaigns", "report", ID, "--out", str(found))
    _, bundle = written(found)
    told = next(each for each in bundle["objects"] if each["type"] == "campaign")
    assert told["confidence"] == 90
