"""The mode of all gates: set with a reason, followed, and given back when it runs out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog
from support.live import AT, Judge, limited

from gatekeeper.live.modes import ModeDesk, ModeKeeper, ModeState
from gatekeeper.live.rule_files import RuleFiles
from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.words import GateMode
from gatekeeper.storage.controls import Controls
from gatekeeper.storage.database import RecordsError
from gatekeeper.telemetry import Metrics

if TYPE_CHECKING:
    from support.flaky import FlakyDatabase


def gate_with_mode(
    database: FlakyDatabase, setting: GateMode = GateMode.ENFORCE
) -> tuple[Judge, ModeKeeper, ModeDesk]:
    """Return a gate, the keeper of its mode, and the desk where people set it."""
    files = RuleFiles.parse({"rules.yaml": limited(1)})
    assert isinstance(files, RuleFiles)
    gate = Judge(files.rules)
    controls = Controls(database)
    keeper = ModeKeeper(gate, controls, setting, Metrics())
    return gate, keeper, ModeDesk(keeper, controls)


async def test_an_override_stands_above_the_settings_of_every_gate(
    database: FlakyDatabase,
) -> None:
    """The gate of the desk has it at once, others when they look; each change is one log line."""
    gate, _, desk = gate_with_mode(database)
    other, follower, _ = gate_with_mode(database, GateMode.OBSERVE)
    await follower.follow(AT)
    assert other.snapshot.mode is GateMode.OBSERVE
    with structlog.testing.capture_logs() as logs:
        state = await desk.set(GateMode.CLOSED, by="ops", reason="Model is broken", at=AT)
        await follower.follow(AT)
        await follower.follow(AT)
    assert isinstance(state, ModeState)
    assert (state.mode, state.setting) == (GateMode.CLOSED, GateMode.ENFORCE)
    assert gate.snapshot.mode is other.snapshot.mode is GateMode.CLOSED
    assert [line["by"] for line in logs if line["event"] == "mode"] == ["ops", "ops"]
    await desk.clear(by="ops", at=AT + 1)
    await follower.follow(AT + 1)
    assert (gate.snapshot.mode, other.snapshot.mode) == (GateMode.ENFORCE, GateMode.OBSERVE)


async def test_it_runs_out_by_itself_even_without_the_records(database: FlakyDatabase) -> None:
    """An expiry needs nobody, and an override that was read holds while the records fail."""
    gate, keeper, desk = gate_with_mode(database)
    await desk.set(GateMode.BYPASS, by="ops", reason="Store is down", at=AT, expires_at=AT + 60)
    database.broken = True
    with pytest.raises(RecordsError):
        await keeper.follow(AT + 59)
    keeper.expire(AT + 59.9)
    assert gate.snapshot.mode is GateMode.BYPASS
    keeper.expire(AT + 60)
    assert gate.snapshot.mode is GateMode.ENFORCE
    assert desk.get(AT + 60) == ModeState(GateMode.ENFORCE, GateMode.ENFORCE, None)


async def test_it_survives_a_restart(database: FlakyDatabase) -> None:
    """The records keep it, for gates that start later too."""
    _, _, desk = gate_with_mode(database)
    await desk.set(GateMode.OBSERVE, by="ops", reason="New rules", at=AT)
    gate, keeper, _ = gate_with_mode(database)
    await keeper.follow(AT + 5)
    assert gate.snapshot.mode is GateMode.OBSERVE


@pytest.mark.parametrize(
    ("reason", "expires_at", "path"),
    [
        ("", None, "reason"),
        ("  ", None, "reason"),
        ("two\nlines", None, "reason"),
        ("x" * 501, None, "reason"),
        ("good", AT, "expires_at"),
        ("good", float("nan"), "expires_at"),
        ("good", float("inf"), "expires_at"),
    ],
)
async def test_what_makes_no_sense_is_told(
    database: FlakyDatabase, reason: str, expires_at: float | None, path: str
) -> None:
    """Nothing is written then."""
    gate, _, desk = gate_with_mode(database)
    wrong = await desk.set(GateMode.CLOSED, by="ops", reason=reason, at=AT, expires_at=expires_at)
    assert isinstance(wrong, Mistake)
    assert wrong.path == path
    assert await Controls(database).mode() is None
    assert gate.snapshot.mode is GateMode.ENFORCE
