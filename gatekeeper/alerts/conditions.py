"""What a gate alerts of: each name of the settings with the fact behind it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from gatekeeper.alerts.webhook import Growth
from gatekeeper.policy.words import Verdict
from gatekeeper.settings import AlertName

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.alerts.webhook import Alerts
    from gatekeeper.facts.directory import Directory
    from gatekeeper.gate import Gate
    from gatekeeper.settings import Settings
    from gatekeeper.storage.decision_log import DecisionLog
    from gatekeeper.telemetry import Metrics

_STALE_S: Final = 10.0
"""Age of accounts and keys from which on it is an alert; they are read twice a second."""


def watch_gate(
    alerts: Alerts,
    *,
    gate: Gate,
    settings: Settings,
    directory: Directory,
    log: DecisionLog,
    metrics: Metrics,
    clock: Callable[[], float],
) -> None:
    """Watch what every gate has; ``clock`` is in Unix seconds."""

    def records_stale() -> str | None:
        age_s = directory.staleness_s(clock())
        return f"accounts and keys are {age_s:.0f} s old" if age_s > _STALE_S else None

    def log_failing() -> str | None:
        return None if log.accepting else "decisions cannot be written, so calls are refused"

    def network_data() -> str | None:
        problems = gate.snapshot.network.problems
        return f"{len(problems)} databases or lists cannot be used" if problems else None

    def not_enforcing() -> str | None:
        return None if settings.mode == "enforce" else f"the mode is {settings.mode}"

    refused = partial(metrics.total, "gatekeeper_decisions", Verdict.EMBARGOED.word)
    alerts.watch(AlertName.EMBARGO_HITS, Growth(refused, "calls were refused by an embargo"))
    alerts.watch(AlertName.RECORDS_STALE, records_stale)
    alerts.watch(AlertName.LOG_FAILING, log_failing)
    alerts.watch(AlertName.NETWORK_DATA, network_data)
    alerts.watch(AlertName.NOT_ENFORCING, not_enforcing)
