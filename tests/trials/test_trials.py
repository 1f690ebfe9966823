"""Trials: what is measured of a simulated campaign, alone and in the closed loop."""

from __future__ import annotations

import asyncio
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from click.testing import CliRunner

from gatekeeper.cli import main
from gatekeeper.rehearsal.formats import AccountLine
from gatekeeper.settings import Settings
from gatekeeper.simulator.population import made
from gatekeeper.simulator.scenario import Adversary, Scenario
from gatekeeper.simulator.traffic import events_of
from gatekeeper.storage.rule_store import read_rules
from gatekeeper.trials.calls import calls_of, rows_of
from gatekeeper.trials.columns import column_trial
from gatekeeper.trials.loop import loop_trial
from gatekeeper.trials.measured import LoopTrial, Share
from gatekeeper.trials.page import page_of

if TYPE_CHECKING:
    from gatekeeper.policy.ruleset import RuleSet

RULES = Path(__file__).parents[2] / "rules"
SMALL = Scenario("small", Adversary.A, seed=2, days=4, honest=1_000, accounts=60, first_day=1)


@pytest.fixture(scope="module")
def rules() -> RuleSet:
    """Return the shipped rules."""
    found = read_rules(RULES)
    assert not isinstance(found, list)
    return found


@pytest.fixture(scope="module")
def loop(rules: RuleSet, tmp_path_factory: pytest.TempPathFactory) -> LoopTrial:
    """Return a closed loop in which lost accounts are replaced."""
    scenario = msgspec.structs.replace(SMALL, adversary=Adversary.I, honest=2_000, accounts=100)
    folder = tmp_path_factory.mktemp("loop")
    return asyncio.run(loop_trial(scenario, Settings(), rules, folder))


def test_a_contained_campaign_stays_contained(loop: LoopTrial) -> None:
    """Replacements inherit: once the campaign is found, what it gets is next to nothing."""
    assert loop.recall.value > 0.95
    assert loop.accounts > 100
    assert loop.hours is not None
    assert loop.hours <= 24
    assert 0 < loop.leaked.part < 0.5 * loop.leaked.whole
    assert loop.admitted_by_day[0] == 0
    assert loop.admitted_by_day[-1] <= 0.02 * loop.asked_by_day[-1]
    assert sum(loop.asked_by_day) == loop.leaked.whole
    assert all(harm.refused == 0 for harm in loop.harm.values())


def test_without_a_campaign_nobody_is_stepped_up(rules: RuleSet, tmp_path: Path) -> None:
    """The run without any attack tells what is flagged wrongly: nothing of this population."""
    scenario = msgspec.structs.replace(SMALL, adversary=Adversary.NONE, days=3)
    trial = asyncio.run(loop_trial(scenario, Settings(), rules, tmp_path))
    assert trial.leaked == Share(0, 0)
    assert trial.hours is None
    assert sum(each.stepped_up for each in trial.harm.values()) == 0


def test_the_detector_alone_finds_what_simpler_ways_do_not(rules: RuleSet, tmp_path: Path) -> None:
    """In columns: recall and harm at each look, and the baselines beside them."""
    trial = column_trial(SMALL, rules, tmp_path, looks_h=(24, 48))
    assert [each.hours for each in trial.looks] == [24, 48]
    last = trial.looks[-1]
    assert last.recall.value >= 0.95
    assert Share.sum(last.harm.values()).part <= 1
    assert last.baselines["limit by account"][0].value < 0.05
    assert last.baselines["limit by address"][0].value < 0.05
    assert last.baselines["address blocklist"][1].value > 0.05  # it flags the honest
    again = column_trial(SMALL, rules, tmp_path, looks_h=(24,))
    assert again.looks[0].recall == trial.looks[0].recall


def test_calls_are_what_a_gate_reads() -> None:
    """Bodies are JSON, accounts are those of the records; nobody who waits is there."""
    world = made(SMALL)
    calls = [call for _, call in calls_of(world, events_of(world, 2))]
    assert len(calls) > 1_000
    for call in calls[:300]:
        body = json.loads(call.body)
        assert body["messages"][-1]["role"] == "user"
        assert body["model"]
    rows = {row.id: row for row in rows_of(world)}
    assert {call.account for call in calls} <= rows.keys()
    assert all(AccountLine(id=row.id).id == row.id for row in list(rows.values())[:5])
    waiting = made(msgspec.structs.replace(SMALL, adversary=Adversary.I))
    names = {row.id for row in rows_of(waiting)}
    assert waiting.names[int(waiting.spare[0])] not in names


class _Checked(HTMLParser):
    """Notes what a page must not have."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag, and that it asks for nothing elsewhere."""
        self.tags.append(tag)
        assert not {"src", "href", "onload"} & {name for name, _ in attrs}


def test_the_page_has_charts_and_no_script(loop: LoopTrial) -> None:
    """One file that asks for nothing, with what was measured."""
    page = _Checked()
    page.feed(page_of(msgspec.structs.replace(SMALL, name="<i>"), loop))
    assert {"svg", "table", "title"} <= set(page.tags)
    assert not {"script", "i", "link", "img"} & set(page.tags)


def test_the_command(tmp_path: Path) -> None:
    """A file or the name of a shipped scenario; JSON, a page, exit codes."""
    scenario, page = tmp_path / "s.yaml", tmp_path / "s.html"
    scenario.write_text(
        "name: tiny\nadversary: a\nhonest: 300\naccounts: 30\ndays: 3\nfirst_day: 1"
    )
    run = CliRunner().invoke
    arguments = ["simulate", str(scenario), "--json", "--rules", str(RULES)]
    told = run(main, [*arguments, "--report", str(page)])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["scenario"] == "tiny"
    assert "<svg" in page.read_text()
    assert "Example:" in run(main, ["simulate", "--help"]).output
    wrong = run(main, ["simulate", "no-such", "--rules", str(RULES)])
    assert (wrong.exit_code, "no-such" in wrong.stderr) == (2, True)


def test_intervals_hold_what_they_should() -> None:
    """Wilson's: never beyond 0 and 1, wide for few, nothing known of none."""
    assert Share(0, 0).interval() == (0.0, 1.0)
    low, high = Share(250, 250).interval()
    assert high == pytest.approx(1.0)
    assert 0.98 < low < 0.99
    assert Share(5, 10).interval() == pytest.approx((0.2366, 0.7634), abs=1e-3)
