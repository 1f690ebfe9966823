"""What a gate alerts of: each name of the settings with the fact behind it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from gatekeeper.alerts.webhook import Alerts, Growth
from gatekeeper.policy.words import GateMode, Verdict
from gatekeeper.settings import AlertName

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.facts.directory import Directory
    from gatekeeper.gate import Gate
    from gatekeeper.limits import Limits
    from gatekeeper.live.fleet import Live
    from gatekeeper.settings import Settings
    from gatekeeper.storage.decision_log import DecisionLog
    from gatekeeper.telemetry import Metrics

_STALE_S: Final = 10.0
"""Age of accounts and keys from which on it is an alert; they are read twice a second."""


def alerts_of(
    settings: Settings,
    secret: str,
    *,
    gate: Gate,
    live: Live,
    limits: Limits,
    directory: Directory,
    log: DecisionLog,
    metrics: Metrics,
    clock: Callable[[], float],
    new_id: Callable[[], str],
    chance: Callable[[], float],
) -> Alerts:
    """Return the alerts of a gate, every condition watched; ``clock`` is in Unix seconds."""

    def records_stale() -> str | None:
        age_s = directory.staleness_s(clock())
        return f"accounts and keys are {age_s:.0f} s old" if age_s > _STALE_S else None

    def store_degraded() -> str | None:
        return "limits are judged without the shared store" if limits.failing() else None

    def log_failing() -> str | None:
        return None if log.accepting else "decisions cannot be written, so calls are refused"

    def network_data() -> str | None:
        if (refused := live.networks.last_refused) is not None:
            return str(refused)
        problems = gate.snapshot.network.problems
        return f"{len(problems)} databases or lists cannot be used" if problems else None

    def rules_refused() -> str | None:
        refused = live.rules.last_refused
        return None if refused is None else str(refused)

    def not_enforcing() -> str | None:
        mode = gate.snapshot.mode
        return None if mode is GateMode.ENFORCE else f"the mode is {mode}"

    alerts = Alerts(
        settings.alerts,
        secret,
        source=f"{settings.public_url}/gatekeeper/{settings.name}",
        clock=clock,
        new_id=new_id,
        chance=chance,
        metrics=metrics,
    )
    refused = partial(metrics.total, "gatekeeper_decisions", Verdict.EMBARGOED.word)
    alerts.watch(AlertName.EMBARGO_HITS, Growth(refused, "calls were refused by an embargo"))
    alerts.watch(AlertName.STORE_DEGRADED, store_degraded)
    alerts.watch(AlertName.RECORDS_STALE, records_stale)
    alerts.watch(AlertName.LOG_FAILING, log_failing)
    alerts.watch(AlertName.NETWORK_DATA, network_data)
    alerts.watch(AlertName.RULES_REFUSED, rules_refused)
    alerts.watch(AlertName.NOT_ENFORCING, not_enforcing)
    return alerts
