"""Builds the limits as the settings say: in this process alone, or guarded in a shared store."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from gatekeeper.policy.words import OnFailure
from gatekeeper.storage.limiter_guarded import GuardedLimiter
from gatekeeper.storage.limiter_memory import MemoryLimiter
from gatekeeper.storage.limiter_redis import RedisLimiter, beat
from gatekeeper.storage.store_link import COUNTS_S, StoreLink, StoreState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gatekeeper.settings import Store
    from gatekeeper.storage.limiter import Limiter
    from gatekeeper.storage.store_access import StoreAccess
    from gatekeeper.telemetry import Metrics

STORE_CHECK: Final = "limits_store"
"""Name of the store among the checks of readiness."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limiter of a gate, and how it is doing."""

    limiter: Limiter
    local: MemoryLimiter
    """Counts alone: always, or while the store cannot answer."""
    failing: Callable[[], bool]
    """Whether there is a store that cannot answer."""
    on_failure: OnFailure

    @property
    def shared(self) -> bool:
        """Whether a fleet shares them in a store."""
        return self.limiter is not self.local

    @property
    def checks(self) -> dict[str, Callable[[], bool]]:
        """Return what must hold for readiness: a store, where the operator said `closed`."""
        if self.on_failure is not OnFailure.CLOSED:
            return {}
        return {STORE_CHECK: lambda: not self.failing()}

    @property
    def degraded(self) -> dict[str, Callable[[], bool]]:
        """Return what readiness tells without turning red.

        All gates lose the store together. If that turned them red, a balancer would be left with
        none of them, and the callers with nothing, whatever the rules declare.
        """
        return {STORE_CHECK: self.failing}


@contextlib.asynccontextmanager
async def keeping_limits(
    store: Store,
    access: StoreAccess | None,
    *,
    gate_id: str,
    chance: Callable[[], float],
    metrics: Metrics,
) -> AsyncIterator[Limits]:
    """Yield the limits; ``access`` is ``None`` for those of this process alone.

    ``gate_id`` names this process among the gates that share the store; ``chance`` is in [0, 1).
    """
    local = MemoryLimiter()
    _declare_local(metrics, local)
    if access is None:
        yield Limits(local, local, lambda: False, OnFailure.LOCAL_SHARE)
        return
    watcher = _Watcher(metrics)
    link = StoreLink(
        access,
        partial(beat, prefix=store.prefix, gate_id=gate_id, counts_s=COUNTS_S),
        chance=chance,
        observer=watcher,
    )
    guarded = GuardedLimiter(
        RedisLimiter(link, store.prefix),
        local,
        answering=lambda: link.answering,
        nodes=lambda: store.nodes or link.gates,
        on_failure=store.on_failure,
        metrics=metrics,
    )
    watcher.recovered = guarded.recovered
    _declare_shared(metrics, link, guarded)
    await link.start()
    try:
        yield Limits(guarded, local, lambda: not link.answering, store.on_failure)
    finally:
        await guarded.settled(store.deadline_ms / 1_000)
        await link.close()


class _Watcher:
    """Tells metrics and the process log how the store does; never an address or a key."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._log = structlog.get_logger("gatekeeper")
        self.recovered: Callable[[], None] = lambda: None

    def changed(self, state: StoreState, kind: str) -> None:
        """Log it, and settle what waited."""
        if state is StoreState.ANSWERING:
            self._log.info(STORE_CHECK, failing=False)
            self.recovered()
        else:
            self._log.warning(STORE_CHECK, failing=True, kind=kind)

    def failed(self, kind: str) -> None:
        """Count it."""
        self._metrics.count("gatekeeper_store_failures", kind)


def _declare_local(metrics: Metrics, local: MemoryLimiter) -> None:
    metrics.gauge("gatekeeper_limit_cells", "Buckets and pools kept.", lambda: len(local))
    metrics.gauge(
        "gatekeeper_limit_overflowed",
        "Claims that shared an overflow bucket because too many partitions are in use.",
        lambda: local.overflowed,
    )


def _declare_shared(metrics: Metrics, link: StoreLink, guarded: GuardedLimiter) -> None:
    gauge = metrics.gauge
    gauge("gatekeeper_store_up", "1 while the limits' store answers.", lambda: link.answering)
    gauge("gatekeeper_store_gates", "Gates that share the limits.", lambda: link.gates)
    gauge(
        "gatekeeper_store_settlements_waiting",
        "Settlements kept until the limits' store answers.",
        lambda: guarded.waiting,
    )
    gauge(
        "gatekeeper_store_settlements_lost",
        "Settlements given up: what they would have given back stays charged.",
        lambda: guarded.lost,
    )
