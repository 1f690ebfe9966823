"""Keeps the mode in force: what somebody set for all gates, until it runs out, or the settings'."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import structlog

from gatekeeper.live.outcome import Outcome, What
from gatekeeper.policy.mistake import Mistake
from gatekeeper.storage.controls import ModeOverride

if TYPE_CHECKING:
    from gatekeeper.live.outcome import Judging
    from gatekeeper.policy.words import GateMode
    from gatekeeper.storage.controls import Controls
    from gatekeeper.telemetry import Metrics

_MAX_REASON: Final = 500


@dataclass(frozen=True, slots=True)
class ModeState:
    """The mode of a gate and why it is so."""

    mode: GateMode
    setting: GateMode
    """What the gate's own settings say."""
    override: ModeOverride | None
    """What somebody set and did not run out."""


class ModeKeeper:
    """Keeps ``gate.snapshot.mode``. An override that was read serves on while the records fail."""

    def __init__(
        self, gate: Judging, controls: Controls, setting: GateMode, metrics: Metrics
    ) -> None:
        """Start from ``setting``."""
        self._gate = gate
        self._controls = controls
        self._setting = setting
        self._metrics = metrics
        self._override: ModeOverride | None = None
        self._log = structlog.get_logger("gatekeeper")

    async def follow(self, at: float) -> None:
        """Read what was set; raises :class:`RecordsError`."""
        self._override = await self._controls.mode()
        self.expire(at)

    def expire(self, at: float) -> None:
        """Put in force what holds at ``at``."""
        before, state = self._gate.snapshot, self.state(at)
        if before.mode is state.mode:
            return
        self._gate.snapshot = replace(before, mode=state.mode)
        self._metrics.count("gatekeeper_reloads", What.MODE, Outcome.APPLIED)
        override = state.override
        self._log.warning(
            "mode",
            mode=state.mode.value,
            before=before.mode.value,
            by="settings" if override is None else override.by,
            reason="" if override is None else override.reason,
            expires_at=None if override is None else override.expires_at,
        )

    def state(self, at: float) -> ModeState:
        """Return what holds at ``at``."""
        override = self._override
        if override is not None and not override.holds(at):
            override = None
        mode = self._setting if override is None else override.mode
        return ModeState(mode, self._setting, override)


class ModeDesk:
    """Sets the mode of all gates; this one has it when a method returns."""

    def __init__(self, keeper: ModeKeeper, controls: Controls) -> None:
        self._keeper = keeper
        self._controls = controls

    def get(self, at: float) -> ModeState:
        """Return the mode of this gate."""
        return self._keeper.state(at)

    async def set(
        self, mode: GateMode, *, by: str, reason: str, at: float, expires_at: float | None = None
    ) -> ModeState | Mistake:
        """Override the mode, until ``expires_at`` if given; raises :class:`RecordsError`."""
        wrong = wrong_with_override(reason, at, expires_at)
        if wrong is not None:
            return wrong
        await self._controls.set_mode(ModeOverride(mode, at, by, reason, expires_at))
        await self._keeper.follow(at)
        return self._keeper.state(at)

    async def clear(self, *, by: str, at: float) -> ModeState:
        """Give the mode back to the settings; raises :class:`RecordsError`."""
        await self._controls.clear_mode(by=by, at=at)
        await self._keeper.follow(at)
        return self._keeper.state(at)


def wrong_with_override(reason: str, at: float, expires_at: float | None) -> Mistake | None:
    """Tell what is wrong with an override: it needs a reason, and must end after it began."""
    if not reason.strip() or len(reason) > _MAX_REASON or not reason.isprintable():
        what = f"Say why, in one line of at most {_MAX_REASON} printable characters."
        return Mistake("request", None, "reason", what)
    if expires_at is not None and not at < expires_at < float("inf"):
        return Mistake("request", None, "expires_at", "This must be in the future.")
    return None
