"""Keeps the containment in force: the campaigns of the records, as the rules in force have them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import structlog

from gatekeeper.live.outcome import Outcome, What
from gatekeeper.policy.containment import Containment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gatekeeper.live.outcome import Judging
    from gatekeeper.policy.campaigns import Campaign
    from gatekeeper.telemetry import Metrics


class Campaigns(Protocol):
    """The campaigns in the records. Methods raise :class:`RecordsError`."""

    async def revision(self) -> int:
        """Return a number that is another whenever any campaign is."""
        ...

    async def contained(self) -> Sequence[Campaign]:
        """Return those that gates treat in any way of their own."""
        ...


class ContainmentKeeper:
    """Keeps ``gate.snapshot.containment``. One that was read serves on while the records fail."""

    def __init__(
        self, gate: Judging, campaigns: Campaigns, *, probe_key: bytes, metrics: Metrics
    ) -> None:
        """Start from what the gate has; all gates must have the same ``probe_key``."""
        self._gate = gate
        self._campaigns = campaigns
        self._probe_key = probe_key
        self._metrics = metrics
        self._seen: tuple[int, str] | None = None
        """What the containment in force was made of: campaigns and rules."""
        self._log = structlog.get_logger("gatekeeper")

    @property
    def outdated(self) -> bool:
        """Whether the rules in force are not those that it was made by."""
        return self._seen is None or self._seen[1] != self._gate.snapshot.rules.revision

    async def follow(self) -> None:
        """Take what the watcher or an admin wrote; raises :class:`RecordsError`."""
        rules = self._gate.snapshot.rules
        found = (await self._campaigns.revision(), rules.revision)
        if found == self._seen:
            return
        campaigns = await self._campaigns.contained()
        fresh = await asyncio.to_thread(Containment.of_campaigns, campaigns, rules, self._probe_key)
        self._seen = found
        before = self._gate.snapshot
        if fresh.revision == before.containment.revision:
            self._metrics.count("gatekeeper_reloads", What.CONTAINMENT, Outcome.UNCHANGED)
            return
        self._gate.snapshot = replace(before, containment=fresh)
        self._metrics.count("gatekeeper_reloads", What.CONTAINMENT, Outcome.APPLIED)
        self._log.info(
            "containment_in_force",
            revision=fresh.revision,
            before=before.containment.revision,
            campaigns=len(fresh.campaigns),
            members=len(fresh.members),
        )
