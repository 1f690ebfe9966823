"""One gate among others: it follows, tells of itself, and outlives whatever fails."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import update
from support.campaigns import PROBE_KEY, Book, campaign
from support.gates import eventually
from support.live import (
    AT,
    NETWORK_SECRET,
    Judge,
    limited,
    revision_of,
    write_rules,
)

from gatekeeper.live.containment import ContainmentKeeper
from gatekeeper.live.files import Cause
from gatekeeper.live.fleet import TELL_S, Identity, Live, Watches
from gatekeeper.live.rule_files import RuleFiles
from gatekeeper.policy.campaigns import Stage
from gatekeeper.policy.words import GateMode
from gatekeeper.settings import Geoip, Settings
from gatekeeper.storage.controls import Controls, ModeOverride
from gatekeeper.storage.nodes import Nodes
from gatekeeper.storage.rule_history import RULE_REVISIONS, RuleHistory, Source
from gatekeeper.telemetry import Metrics

if TYPE_CHECKING:
    from pathlib import Path

    from support.flaky import FlakyDatabase


class Gate:
    """A gate without listeners, on a clock of its own."""

    def __init__(
        self, folder: Path, database: FlakyDatabase, name: str = "a", book: Book | None = None
    ) -> None:
        """Read the rules of ``folder``; campaigns are those of ``book``."""
        self.at = AT
        settings = Settings(
            data_dir=folder / name, rules_dir=folder, geoip=Geoip(databases=(), networks=())
        )
        watches = Watches.over(settings)
        files = RuleFiles.read(folder)
        assert isinstance(files, RuleFiles)
        self.judge = Judge(files.rules)
        metrics = Metrics()
        containment = None
        if book is not None:
            containment = ContainmentKeeper(self.judge, book, probe_key=PROBE_KEY, metrics=metrics)
        self.live = Live(
            self.judge,
            settings,
            files,
            database,
            watches,
            identity=Identity(f"id-{name}", name, AT),
            network_secret=NETWORK_SECRET,
            clock=lambda: self.at,
            metrics=metrics,
            containment=containment,
        )


async def test_a_gate_tells_of_itself_at_once_and_in_time(
    tmp_path: Path, database: FlakyDatabase
) -> None:
    """At its start, every few seconds, and whenever what it serves is another."""
    write_rules(tmp_path / "rules", limited(1))
    gate = Gate(tmp_path / "rules", database)
    await gate.live.start()
    (told,) = await Nodes(database).running(since=0.0)
    assert (told.id, told.name, told.mode) == ("id-a", "a", "enforce")
    assert told.rules_revision == revision_of(limited(1))
    gate.at += TELL_S - 1
    await gate.live.turn()
    assert (await Nodes(database).running(since=0.0))[0].seen_at == AT
    await Controls(database).set_mode(ModeOverride(GateMode.OBSERVE, AT, "ops", "why"))
    await gate.live.turn()
    (told,) = await gate.live.nodes()
    assert (told.seen_at, told.mode) == (gate.at, "observe")
    gate.at += TELL_S
    await gate.live.turn()
    assert (await gate.live.nodes())[0].seen_at == gate.at


async def test_campaigns_are_followed_with_the_records_and_with_the_rules(
    tmp_path: Path, database: FlakyDatabase
) -> None:
    """From the first call on; when others are in force, by theirs; and kept while records fail."""
    write_rules(tmp_path / "rules", limited(1))
    book = Book(campaign())
    gate = Gate(tmp_path / "rules", database, book=book)
    await gate.live.start()
    assert set(gate.judge.snapshot.containment.campaigns) == {"cmp_000000000001"}
    book.write(campaign(stage=Stage.STEP_UP))
    await gate.live.turn()
    assert book.reads == 1, "nothing was written to the records"
    await Controls(database).set_mode(ModeOverride(GateMode.OBSERVE, AT, "ops", "why"))
    await gate.live.turn()
    (contained,) = gate.judge.snapshot.containment.campaigns.values()
    assert (contained.facts.stage, gate.judge.snapshot.mode) == (Stage.STEP_UP, GateMode.OBSERVE)
    before = gate.judge.snapshot.containment
    write_rules(tmp_path / "rules", limited(2))
    await gate.live.rules.reload(Cause.CHANGED)
    assert gate.judge.snapshot.rules.revision == revision_of(limited(2))
    assert gate.judge.snapshot.containment is before
    database.broken = book.broken = True
    await gate.live.turn()
    assert gate.judge.snapshot.containment is before
    database.broken = book.broken = False
    await gate.live.turn()
    assert book.reads == 3
    assert set(gate.judge.snapshot.containment.campaigns) == {"cmp_000000000001"}


async def test_records_that_fail_are_said_once_and_followed_again(
    tmp_path: Path, database: FlakyDatabase
) -> None:
    """Meanwhile an override runs out all the same."""
    write_rules(tmp_path / "rules", limited(1))
    gate = Gate(tmp_path / "rules", database)
    await Controls(database).set_mode(ModeOverride(GateMode.CLOSED, AT, "ops", "why", AT + 10))
    await gate.live.start()
    assert gate.judge.snapshot.mode is GateMode.CLOSED
    database.broken = True
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            gate.at += 4
            await gate.live.turn()
        assert gate.judge.snapshot.mode is GateMode.ENFORCE
        database.broken = False
        await gate.live.turn()
    told = [line["failing"] for line in logs if line["event"] == "records_not_followed"]
    assert told == [True, False]


async def test_a_running_gate_follows_files_and_outlives_defects(
    tmp_path: Path, database: FlakyDatabase
) -> None:
    """A turn that raises is logged, and the next one works; the row goes with the gate."""
    write_rules(tmp_path / "rules", limited(1))
    gate = Gate(tmp_path / "rules", database)
    await gate.live.start()
    failing = gate.live.rules.reload
    calls = 0

    async def defective(cause: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ZeroDivisionError
        await failing(cause)  # type: ignore[arg-type]

    gate.live.rules.reload = defective  # type: ignore[method-assign]
    with structlog.testing.capture_logs() as logs:
        task = asyncio.create_task(gate.live.run())
        gate.live.reload()

        async def failed() -> bool:
            return calls >= 1

        await eventually(failed)
        write_rules(tmp_path / "rules", limited(2))

        async def followed() -> bool:
            return gate.judge.snapshot.rules.revision == revision_of(limited(2))

        await eventually(followed)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [line["log_level"] for line in logs if line["event"] == "defect"] == ["error"]
    assert await Nodes(database).running(since=0.0) == ()


async def test_damaged_rules_do_not_hold_back_a_kill_switch(
    tmp_path: Path, database: FlakyDatabase
) -> None:
    """The mode is followed before the rules, whose trouble is told."""
    write_rules(tmp_path / "rules", limited(1))
    gate = Gate(tmp_path / "rules", database)
    await gate.live.start()
    history = RuleHistory(database)
    await history.activate("f" * 12, {"a.yaml": ""}, at=AT, by="x", source=Source.API)
    async with database.writing() as connection:
        await connection.execute(update(RULE_REVISIONS).values(texts=["damaged"]))
    await Controls(database).set_mode(ModeOverride(GateMode.CLOSED, AT, "ops", "why"))
    with structlog.testing.capture_logs() as logs:
        await gate.live.turn()
    assert gate.judge.snapshot.mode is GateMode.CLOSED
    assert gate.judge.snapshot.rules.revision == revision_of(limited(1))
    (told,) = [line for line in logs if line["event"] == "records_not_followed"]
    assert "damaged by hand" in told["error"]
