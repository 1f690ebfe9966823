"""Answers that are read on after their callers left, so that they are charged to the token.

Callers that hang up cost their upstream the rest of an answer where that is what the operator
chose; how many at once, how long and how much is bounded, and beyond it answers are cut.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from gatekeeper.telemetry import Metrics


class Drains:
    """The answers that are read on at the moment, by upstream."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._running: dict[asyncio.Task[str], str] = {}
        self._closed = False
        self._log = structlog.get_logger("gatekeeper")

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._running)

    def start(
        self, upstream: str, at_once: int, work: Callable[[], Coroutine[object, object, str]]
    ) -> bool:
        """Run ``work``, which settles and returns how it went; false when there are too many."""
        if self._closed or list(self._running.values()).count(upstream) >= at_once:
            self._metrics.count("gatekeeper_drains", upstream, "refused")
            return False
        task = asyncio.create_task(work())
        self._running[task] = upstream
        task.add_done_callback(self._done)
        return True

    async def ended(self) -> None:
        """Wait until none is left."""
        while self._running:
            await asyncio.wait(self._running)

    async def stop(self) -> None:
        """Take no more, and cut what is left: each settles to what has come."""
        self._closed = True
        await asyncio.sleep(0)  # one that has not begun would never settle
        for task in self._running:
            task.cancel()
        await self.ended()

    def _done(self, task: asyncio.Task[str]) -> None:
        upstream = self._running.pop(task)
        how = "cut"
        if not task.cancelled():
            defect = task.exception()
            if defect is not None:
                self._metrics.count("gatekeeper_internal_errors")
                self._log.error("defect", exc_info=defect)
                return
            how = task.result()
        self._metrics.count("gatekeeper_drains", upstream, how)
