"""Keeps databases and lists fresh: loads them again when files change or grow too old."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from gatekeeper.facts.network import NetworkData
from gatekeeper.facts.network_database import MANIFEST
from gatekeeper.facts.network_sources import NetworkParts
from gatekeeper.live.files import FileWatch
from gatekeeper.live.outcome import Outcome, Refusal, What
from gatekeeper.sources import unknown_owners

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gatekeeper.live.files import Cause
    from gatekeeper.live.outcome import Judging
    from gatekeeper.settings import Geoip
    from gatekeeper.telemetry import Metrics

_AGAIN_S: Final = 60.0
"""Soonest that data is loaded anew because of its age."""


class NetworkKeeper:
    """Keeps ``gate.snapshot.network``. What is wrong with one source keeps its last good state."""

    def __init__(
        self,
        gate: Judging,
        geoip: Geoip,
        *,
        secret: bytes,
        clock: Callable[[], float],
        metrics: Metrics,
        watch: FileWatch,
    ) -> None:
        """Start from what the gate has; ``secret`` keys the digests of addresses."""
        self._gate = gate
        self._geoip = geoip
        self._secret = secret
        self._clock = clock
        self._metrics = metrics
        self._changing = asyncio.Lock()
        self._aged_at = 0.0
        self._log = structlog.get_logger("gatekeeper")
        self.watch = watch
        watch.also(lambda: network_files(geoip, gate.snapshot.network.parts))
        self.last_refused: Refusal | None = None
        """Why some source serves its last good state; ``None`` when none does."""

    async def reload(self, cause: Cause) -> None:  # noqa: ARG002 - whatever the cause
        """Load everything again, and put it in force as a whole."""
        async with self._changing:
            before = self._gate.snapshot.network
            now = self._clock()
            fresh = await asyncio.to_thread(
                NetworkData.load,
                self._geoip,
                secret=self._secret,
                now_unix_s=now,
                previous=before,
            )
            kept = bool(fresh.parts.kept)
            self.last_refused = Refusal(now, fresh.problems) if kept else None
            applied = fresh.sources != before.sources
            outcome = Outcome.APPLIED if applied else Outcome.UNCHANGED
            self._metrics.count(
                "gatekeeper_reloads", What.NETWORKS, Outcome.REFUSED if kept else outcome
            )
            for problem in fresh.problems:
                if problem not in before.problems:
                    self._log.warning("network_data", problem=str(problem))
            if not applied and fresh.problems == before.problems:
                return
            # Only now, so that a change of rules or mode meanwhile is not taken back.
            self._gate.snapshot = replace(self._gate.snapshot, network=fresh)
            self._log.info(
                "network_data_in_force",
                revision=fresh.revision,
                before=before.revision,
                kept=fresh.parts.kept,
            )
            for mistake in unknown_owners(self._gate.snapshot.rules, fresh):
                self._log.warning("rules", problem=str(mistake))

    def due(self, at: float) -> bool:
        """Tell whether a source has become too old since it was loaded."""
        stale_at = self._gate.snapshot.network.stale_at
        if stale_at is None or at < stale_at or at < self._aged_at + _AGAIN_S:
            return False
        self._aged_at = at
        return True


def network_folders(geoip: Geoip) -> set[Path]:
    """Return the folders that hold what the settings name."""
    folders = {path.parent for path in (*geoip.databases, *geoip.networks)}
    return folders | {geoip.feeds_dir} if geoip.feeds else folders


def watch_networks(geoip: Geoip) -> FileWatch:
    """Return a watch over databases and lists; make it before they are read."""
    return FileWatch(lambda: network_folders(geoip), lambda: network_files(geoip, NetworkParts()))


def network_files(geoip: Geoip, parts: NetworkParts) -> set[Path]:
    """Return the files whose change changes the data; those of feeds are named by a manifest."""
    files = {*geoip.databases, *geoip.networks}
    files |= {folder / MANIFEST for folder in network_folders(geoip)}
    for lists in parts.lists.values():
        files |= set(lists.files)
    return files
