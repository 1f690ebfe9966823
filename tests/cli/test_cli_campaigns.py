"""`gatekeeper campaigns`: list, show, and a report that others can be sent."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
import stix2
from support.campaigns import AT, campaign
from support.reported import ADMIN, REASON, SCRIPT, Page, hostile

from gatekeeper.cli import campaigns as command
from gatekeeper.policy.campaigns import CampaignState, Event
from gatekeeper.storage.audit import AuditQuery, AuditTrail
from gatekeeper.storage.campaigns import CampaignBook
from gatekeeper.storage.records import Records

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gatekeeper.policy.campaigns import Campaign

    Run = Callable[..., Any]

ID = "cmp_000000000001"
OTHER = "cmp_000000000002"


def write(tmp_path: Path, *found: Campaign) -> None:
    """Put campaigns into the records, as the watcher does."""

    async def put() -> None:
        (tmp_path / "data").mkdir(exist_ok=True)
        records = await Records.open(f"sqlite:///{tmp_path / 'data' / 'records.db'}")
        book = CampaignBook(records.database)
        await book.write(found, at=AT, seen=await book.revision())
        await records.close()

    asyncio.run(put())


def trail(tmp_path: Path) -> Any:
    """Return the entries of the audit trail."""

    async def read() -> Any:
        records = await Records.open(f"sqlite:///{tmp_path / 'data' / 'records.db'}")
        try:
            return await AuditTrail(records.database).page(AuditQuery())
        finally:
            await records.close()

    return asyncio.run(read())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Write two campaigns, one of them hostile; return where reports may go."""
    weak = campaign(id=OTHER, state=CampaignState.DISMISSED)
    write(tmp_path, weak, hostile())
    return tmp_path / "out"


def lines(text: str) -> list[Any]:
    """Return JSON lines."""
    return [json.loads(line) for line in text.splitlines()]


def test_the_highest_score_is_listed_first(run: Run, out: Path) -> None:
    """All, or those of some states; people get a table, scripts JSON lines."""
    rows = lines(run("campaigns", "list", "--json").stdout)
    assert [each["id"] for each in rows] == [ID, OTHER]
    assert rows[0]["members"] == 10
    assert rows[0]["state"] == "confirmed"
    only = run("campaigns", "list", "--state", "dismissed").stdout
    assert OTHER in only
    assert ID not in only
    both = ("--state", "dismissed", "--state", "confirmed")
    assert len(lines(run("campaigns", "list", "--json", *both).stdout)) == 2
    assert run("campaigns", "list", "--state", "merged").stdout == ""
    run("campaigns", "list", "--state", "lost", code=2)


def test_long_lists_are_whole(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page after page."""
    monkeypatch.setattr(command, "_PAGE", 2)
    write(tmp_path, *(campaign(id=f"cmp_{number:012x}") for number in range(5)))
    assert len(lines(run("campaigns", "list", "--json").stdout)) == 5


def test_one_is_shown_with_why(run: Run, out: Path) -> None:
    """What is shared, how sure that is, and its history; no text moves the terminal."""
    told = run("campaigns", "show", ID).stdout
    for words in (
        "These 10 accounts share 2 kinds of things that strangers do not: network addresses; ",
        "90 of 100, q value 0.01",
        "address, scaffold",
        "network addresses",
        "step_up since",
        "[/bold] [red]",
        ADMIN,
    ):
        assert words in told
    assert "\x1b" not in told
    assert "\u202e" not in told
    assert len(told.splitlines()) < 40


def test_a_long_history_is_cut_on_the_screen_alone(run: Run, tmp_path: Path) -> None:
    """What fits; JSON has it whole, and the members."""
    events = tuple(Event(AT + number, "grew", f"{number} members") for number in range(30))
    write(tmp_path, hostile(history=events))
    told = run("campaigns", "show", ID).stdout
    assert "without 18 earlier events" in told
    assert "17 members" not in told
    assert "29 members" in told
    whole = json.loads(run("campaigns", "show", ID, "--json").stdout)
    assert len(whole["history"]) == 30
    assert SCRIPT in whole["members"]
    assert whole["shared"][0] == {
        "layer": "address", "kind": "network addresses", "traits": 2, "members": 9,
    }  # fmt: skip


def test_a_report_is_two_files(run: Run, out: Path) -> None:
    """For those alone who made them; neither says who is in it, nor who judged it."""
    told = run("campaigns", "report", ID, "--out", str(out), "--by", "Example & Sons").stdout
    page, bundle = out / f"{ID}.html", out / f"{ID}.stix.json"
    assert told.splitlines() == [str(page), str(bundle)]
    assert {each.stat().st_mode & 0o777 for each in out.iterdir()} == {0o600}
    html, text = page.read_text(encoding="utf-8"), bundle.read_text(encoding="utf-8")
    assert "From Example & Sons" in Page(html).text
    stix2.parse(text, allow_custom=False, version="2.1")
    for written in (html, text):
        for secret in ("acct-1", ADMIN, REASON):
            assert secret not in written
    assert "TLP:AMBER" in html


def test_who_tells_more_is_in_the_audit_trail(run: Run, out: Path) -> None:
    """Of a report that names accounts or people, and of no other."""
    run("campaigns", "report", ID, "--out", str(out / "plain"))
    run("campaigns", "report", ID, "--out", str(out), "--include", "people,members")
    told = [(each.action, each.target_id, each.detail) for each in trail(out.parent)]
    assert told == [("reportCampaign", ID, {"include": ["members", "people"], "tlp": "amber"})]


def test_the_operator_may_choose_to_tell_more(run: Run, out: Path) -> None:
    """Of accounts and people, to fewer readers."""
    chosen = ("--include", "members", "--include", "people", "--tlp", "red")
    run("campaigns", "report", ID, "--out", str(out), *chosen)
    html = (out / f"{ID}.html").read_text(encoding="utf-8")
    found = stix2.parse((out / f"{ID}.stix.json").read_text(encoding="utf-8"))
    text = Page(html).text
    for told in ("acct-1", ADMIN, REASON, "TLP:RED"):
        assert told in text
    assert [each.type for each in found.objects].count("user-account") == 10
    assert found.objects[0] == stix2.TLP_RED


def test_nothing_is_written_over_unasked(run: Run, out: Path) -> None:
    """Where one file is there, the other is not written either; ids stay when both are."""
    run("campaigns", "report", ID, "--out", str(out))
    page, bundle = out / f"{ID}.html", out / f"{ID}.stix.json"
    first = json.loads(bundle.read_text(encoding="utf-8"))
    page.unlink()
    bundle.write_text("mine", encoding="utf-8")
    refused = run("campaigns", "report", ID, "--out", str(out), code=2)
    assert "--force" in refused.stderr
    assert bundle.read_text(encoding="utf-8") == "mine"
    assert not page.exists()
    run("campaigns", "report", ID, "--out", str(out), "--force")
    again = json.loads(bundle.read_text(encoding="utf-8"))
    assert [each["id"] for each in first["objects"]] == [each["id"] for each in again["objects"]]


def test_each_file_can_have_a_place_of_its_own(run: Run, out: Path, tmp_path: Path) -> None:
    """What is named is written, and nothing else; a file is written anew, not its old self."""
    page, bundle = tmp_path / "a.html", tmp_path / "b.json"
    assert run("campaigns", "report", ID, "--html", str(page)).stdout == f"{page}\n"
    assert run("campaigns", "report", ID, "--stix", str(bundle)).stdout == f"{bundle}\n"
    stix2.parse(bundle.read_text(encoding="utf-8"), allow_custom=False, version="2.1")
    page.chmod(0o644)
    linked = tmp_path / "linked"
    bundle.rename(linked)
    bundle.symlink_to(linked)
    before = linked.read_bytes()
    both = ("--html", str(page), "--stix", str(bundle))
    run("campaigns", "report", ID, *both, code=2)
    run("campaigns", "report", ID, *both, "--tlp", "red", "--force")
    assert page.stat().st_mode & 0o777 == 0o600
    assert linked.read_bytes() == before
    assert not bundle.is_symlink()
    for wrong in (("--out", str(out), "--html", str(page)), ("--html", "a", "--stix", "a")):
        run("campaigns", "report", ID, *wrong, code=2)


def test_several_inclusions_may_be_one_word(run: Run, tmp_path: Path, out: Path) -> None:
    """With commas or option by option."""
    page = tmp_path / "a.html"
    run("campaigns", "report", ID, "--html", str(page), "--include", "members, people")
    text = Page(page.read_text(encoding="utf-8")).text
    assert "acct-1" in text
    assert ADMIN in text
    for wrong in ("members,prompts", "", "members,"):
        run("campaigns", "report", ID, "--html", str(page), "--include", wrong, code=2)


def test_what_cannot_be_reported(run: Run, out: Path, tmp_path: Path) -> None:
    """No such campaign is 1; a bad name or place is 2; nothing is written."""
    for verb in ("show", "report"):
        assert "no such campaign" in run("campaigns", verb, "../cmp", code=1).stderr
    for name in ("", " ", "a\nb", "\u202ex", "x" * 201):
        run("campaigns", "report", ID, "--out", str(out), "--by", name, code=2)
    run("campaigns", "report", ID, "--tlp", "blue", code=2)
    run("campaigns", "report", ID, "--include", "prompts", code=2)
    (tmp_path / "file").touch()
    told = run("campaigns", "report", ID, "--out", str(tmp_path / "file" / "in"), code=2).stderr
    assert "Not a directory" in told
    assert not out.exists()


def test_without_the_extra_there_is_a_page(
    run: Run, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a word on what to install; what was asked for was not all done."""
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    told = run("campaigns", "report", ID, "--out", str(out), code=1)
    assert "pip install 'gatekeeper[stix]'" in told.stderr
    assert [each.name for each in out.iterdir()] == [f"{ID}.html"]
    run("campaigns", "report", ID, "--html", str(out / "page.html"))
    run("campaigns", "report", ID, "--stix", str(out / "bundle.json"), code=1)
    assert not (out / "bundle.json").exists()
