"""Gates follow the campaigns in the records: swapped whole, and kept while the records fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog
from support.campaigns import PROBE_KEY, STAGES, Book, campaign
from support.gates import rules_text
from support.live import Judge, limited

from gatekeeper.live.containment import ContainmentKeeper
from gatekeeper.live.outcome import Outcome, What
from gatekeeper.live.rule_files import RuleFiles
from gatekeeper.policy.campaigns import Stage
from gatekeeper.policy.containment import NO_CONTAINMENT, Containment
from gatekeeper.snapshot import Snapshot
from gatekeeper.storage.database import RecordsError
from gatekeeper.telemetry import Metrics

if TYPE_CHECKING:
    from gatekeeper.policy.ruleset import RuleSet


def rules_of(text: str) -> RuleSet:
    """Parse one rule file."""
    files = RuleFiles.parse({"rules.yaml": text})
    assert isinstance(files, RuleFiles)
    return files.rules


def followed(book: Book, *, gate: Judge | None = None) -> tuple[Judge, ContainmentKeeper, Metrics]:
    """Return a gate and the keeper of its containment."""
    gate = gate or Judge(rules_of(rules_text(STAGES)))
    metrics = Metrics()
    return gate, ContainmentKeeper(gate, book, probe_key=PROBE_KEY, metrics=metrics), metrics


async def test_a_gate_contains_what_the_records_say() -> None:
    """From the first look on, swapped whole; what it had is untouched for calls under way."""
    book = Book()
    gate, keeper, metrics = followed(book)
    await keeper.follow()
    assert gate.snapshot.containment is NO_CONTAINMENT
    book.write(campaign())
    before = gate.snapshot
    with structlog.testing.capture_logs() as logs:
        await keeper.follow()
    after = gate.snapshot
    assert before.containment is NO_CONTAINMENT
    assert after.containment.campaigns["cmp_000000000001"].facts.stage is Stage.BUDGET
    assert (after.rules, after.planner, after.prices) == (
        before.rules,
        before.planner,
        before.prices,
    )
    assert [(line["event"], line["members"]) for line in logs] == [("containment_in_force", 10)]
    assert metrics.value("gatekeeper_reloads", What.CONTAINMENT, Outcome.APPLIED) == 1
    assert metrics.value("gatekeeper_reloads", What.CONTAINMENT, Outcome.UNCHANGED) == 1
    book.write()
    await keeper.follow()
    assert gate.snapshot.containment is NO_CONTAINMENT


async def test_nothing_is_read_while_nothing_changes() -> None:
    """A number tells, and content that is the same swaps nothing."""
    book = Book(campaign())
    gate, keeper, _ = followed(book)
    await keeper.follow()
    await keeper.follow()
    assert book.reads == 1
    before = gate.snapshot
    book.write(campaign())
    await keeper.follow()
    assert book.reads == 2
    assert gate.snapshot is before


async def test_the_last_good_one_serves_on_while_the_records_fail() -> None:
    """And what was written meanwhile is taken afterwards."""
    book = Book(campaign())
    gate, keeper, _ = followed(book)
    await keeper.follow()
    before = gate.snapshot
    book.broken = True
    book.write(campaign(stage=Stage.STEP_UP))
    with pytest.raises(RecordsError):
        await keeper.follow()
    assert gate.snapshot is before
    book.broken = False
    await keeper.follow()
    (contained,) = gate.snapshot.containment.campaigns.values()
    assert contained.facts.stage is Stage.STEP_UP


async def test_other_rules_make_another_containment() -> None:
    """The share that is probed is theirs; until they are followed, the containment stays."""
    probe = campaign(stage=Stage.PROBE)
    book = Book(probe)
    gate, keeper, _ = followed(book)
    assert keeper.outdated
    await keeper.follow()
    assert not keeper.outdated
    old = gate.snapshot
    fresh = rules_of(limited(1))
    gate.snapshot = Snapshot.of(fresh, old.network, old.mode, old.containment)
    assert keeper.outdated
    await keeper.follow()
    assert gate.snapshot.rules is fresh
    wanted = Containment.of_campaigns([probe], fresh, PROBE_KEY)
    assert gate.snapshot.containment.revision == wanted.revision != old.containment.revision
    assert gate.snapshot.network.revision == old.network.revision
