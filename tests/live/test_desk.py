"""The desk for rules: what people do takes effect everywhere, whole, or is told why not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from support.live import AT, Judge, keeper_of, limited, revision_of, write_rules

from gatekeeper.live.desk import MAX_FILES, RuleDesk, RuleDiff, UnknownRevision
from gatekeeper.policy.rule_changes import ChangeKind, RuleChange
from gatekeeper.policy.ruleset import RuleSet
from gatekeeper.storage.rule_history import Activation, Conflict, RuleHistory, Source

if TYPE_CHECKING:
    from pathlib import Path

    from support.flaky import FlakyDatabase

ONE, TWO, THREE = limited(1), limited(2), limited(3)
R1, R2, R3 = map(revision_of, (ONE, TWO, THREE))
BAD = {"rules.yaml": TWO.replace("rate: 2/hour", "rate: often")}


@pytest.fixture
async def desk(tmp_path: Path, database: FlakyDatabase) -> tuple[RuleDesk, Judge]:
    """Return the desk of a gate that serves the first rules."""
    write_rules(tmp_path / "rules", ONE)
    keeper, gate = await keeper_of(tmp_path / "rules", database)
    return RuleDesk(keeper, RuleHistory(database)), gate


async def test_activating_files_and_rolling_back(desk: tuple[RuleDesk, Judge]) -> None:
    """This gate serves what was activated when the call returns; the history tells all."""
    rules, gate = desk
    made = await rules.activate({"rules.yaml": TWO}, by="ops", at=AT, comment="tighter")
    assert isinstance(made, Activation)
    assert (made.revision, made.source, made.comment) == (R2, Source.API, "tighter")
    assert gate.snapshot.rules.revision == R2
    active = rules.active()
    assert (active.revision, active.activation, active.files_revision) == (R2, made, R1)
    back = await rules.roll_back(by="ops", at=AT + 1)
    assert isinstance(back, Activation)
    assert (back.revision, gate.snapshot.rules.revision) == (R1, R1)
    again = await rules.activate(R2, by="ops", at=AT + 2)
    assert isinstance(again, Activation)
    assert [each.revision for each in await rules.history()] == [R2, R1, R2, R1]
    assert [each.revision for each in await rules.history(before=again.seq, limit=2)] == [R1, R2]
    assert await rules.texts(R2) == {"rules.yaml": TWO}


async def test_who_expects_other_rules_is_stopped(desk: tuple[RuleDesk, Judge]) -> None:
    """Two people at once: the second one learns what is in force now."""
    rules, gate = desk
    both = await asyncio.gather(
        rules.activate({"rules.yaml": TWO}, by="a", at=AT, expected_active=R1),
        rules.activate({"rules.yaml": THREE}, by="b", at=AT, expected_active=R1),
    )
    (made,) = [each for each in both if isinstance(each, Activation)]
    assert [each for each in both if isinstance(each, Conflict)] == [Conflict(made.revision)]
    assert gate.snapshot.rules.revision == made.revision
    assert await rules.roll_back(by="a", at=AT, expected_active=R1) == Conflict(made.revision)


async def test_mistakes_take_no_effect(desk: tuple[RuleDesk, Judge]) -> None:
    """They are told all at once, by the name of the file that was given."""
    rules, gate = desk
    for mistakes in (
        await rules.validate(BAD),
        await rules.activate(BAD, by="ops", at=AT),
        await rules.diff(R1, BAD),
    ):
        assert isinstance(mistakes, list)
        assert [mistake.file for mistake in mistakes] == ["rules.yaml"]
        assert mistakes[0].line is not None
    assert isinstance(await rules.validate({"rules.yaml": TWO}), RuleSet)
    assert gate.revisions == [R1]
    assert len(await rules.history()) == 1


async def test_unknown_revisions_and_nothing_to_roll_back_to(
    desk: tuple[RuleDesk, Judge],
) -> None:
    """They are values, not errors."""
    rules, _ = desk
    missing = UnknownRevision("0" * 12)
    assert await rules.activate("0" * 12, by="ops", at=AT) == missing
    assert await rules.diff("0" * 12, R1) == missing
    assert await rules.diff(R1, "0" * 12) == missing
    assert await rules.texts("0" * 12) is None
    assert isinstance(await rules.roll_back(by="ops", at=AT), UnknownRevision)


async def test_a_diff_names_rules_lines_and_what_embargoes_lose(
    desk: tuple[RuleDesk, Judge],
) -> None:
    """What a reviewer needs: by rule, by line, and the warning."""
    rules, _ = desk
    found = await rules.diff(R1, {"rules.yaml": limited(2, country="IR")})
    assert isinstance(found, RuleDiff)
    assert found.changes == (
        RuleChange("embargo", "embargo-cuba", ChangeKind.CHANGED),
        RuleChange("limits", "l", ChangeKind.CHANGED),
    )
    assert found.weakened == ("embargo-cuba: no longer countries CU",)
    assert f"--- {R1}/rules.yaml" in found.text
    assert (
        "+  - {id: l, description: d, unit: requests, per: [account], rate: 2/hour}" in found.text
    )
    same = await rules.diff(R1, R1)
    assert isinstance(same, RuleDiff)
    assert (same.changes, same.text) == ((), "")


@pytest.mark.parametrize(
    "texts",
    [
        {},
        {f"{n}.yaml": "" for n in range(MAX_FILES + 1)},
        {"a.yaml": "#" * 600_000, "b.yaml": "#" * 600_000},
        {"../a.yaml": TWO},
        {".a.yaml": TWO},
        {"a.yml": TWO},
        {"a\n.yaml": TWO},
        {"x" * 200 + ".yaml": TWO},
    ],
    ids=["none", "many", "long", "path", "hidden", "ending", "control", "long name"],
)
async def test_what_is_no_set_of_files_is_refused_unread(
    desk: tuple[RuleDesk, Judge], texts: dict[str, str]
) -> None:
    """Names are as those of a directory, and sizes are bounded; nothing is echoed."""
    rules, _ = desk
    mistakes = await rules.validate(texts)
    assert isinstance(mistakes, list)
    assert len(str(mistakes[0])) < 200
    assert "\n" not in str(mistakes[0])


async def test_comments_are_one_line(desk: tuple[RuleDesk, Judge]) -> None:
    """They stand in logs and tables."""
    rules, _ = desk
    for comment in ("a\nb", "x" * 501):
        wrong = await rules.activate({"rules.yaml": TWO}, by="ops", at=AT, comment=comment)
        assert isinstance(wrong, list)
        assert wrong[0].path == "comment"
