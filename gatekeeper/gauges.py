"""What a gate tells of its state: gauges, read when somebody looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekeeper.live.outcome import What
from gatekeeper.policy.campaigns import Stage
from gatekeeper.policy.words import GateMode

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.facts.directory import Directory
    from gatekeeper.facts.network import NetworkSource
    from gatekeeper.gate import Gate
    from gatekeeper.live.fleet import Live
    from gatekeeper.storage.decision_log import DecisionLog
    from gatekeeper.storage.usage import UsageBook
    from gatekeeper.telemetry import Metrics


def declare_gauges(
    metrics: Metrics,
    *,
    gate: Gate,
    live: Live,
    directory: Directory,
    log: DecisionLog,
    usage: UsageBook,
    clock: Callable[[], float],
) -> None:
    """Declare every gauge of these parts; ``clock`` is in Unix seconds."""
    gauge = metrics.gauge
    gauge("gatekeeper_active_calls", "Calls under way.", lambda: gate.active)
    gauge("gatekeeper_log_written", "Records written.", lambda: log.written)
    gauge("gatekeeper_log_dropped", "Records given up.", lambda: log.dropped)
    gauge("gatekeeper_log_waiting", "Records not yet written.", lambda: log.waiting)
    gauge("gatekeeper_log_failures", "Writes that the disk refused.", lambda: log.failed)
    gauge(
        "gatekeeper_records_stale_seconds",
        "Age of the accounts and keys served.",
        lambda: directory.staleness_s(clock()),
    )
    gauge(
        "gatekeeper_network_problems",
        "Databases and lists that could not be used.",
        lambda: len(gate.snapshot.network.problems),
    )
    gauge("gatekeeper_usage_waiting", "Rows of usage not yet recorded.", lambda: usage.waiting)
    gauge("gatekeeper_usage_dropped", "Calls whose usage had no room.", lambda: usage.dropped)
    _declare_network_gauges(metrics, gate, clock)
    metrics.gauges(
        "gatekeeper_refused_state",
        "1 while a changed file is refused and the last good state serves on.",
        ("what",),
        lambda: {
            (What.RULES,): live.rules.last_refused is not None,
            (What.NETWORKS,): live.networks.last_refused is not None,
        },
    )
    metrics.gauges(
        "gatekeeper_mode",
        "1 for the mode in force, 0 for the others.",
        ("mode",),
        lambda: {(each.value,): each is gate.snapshot.mode for each in GateMode},
    )
    metrics.gauges(
        "gatekeeper_campaigns",
        "Campaigns that are contained, by their stage.",
        ("stage",),
        lambda: {(each.value,): _at_stage(gate, each) for each in Stage},
    )
    gauge(
        "gatekeeper_campaign_members",
        "Accounts that belong to a campaign.",
        lambda: len(gate.snapshot.containment.members),
    )
    metrics.gauges(
        "gatekeeper_containment_info",
        "Always 1; the revision of the containment in force, empty for none.",
        ("revision",),
        lambda: {(gate.snapshot.containment.revision,): 1},
    )
    gauge("gatekeeper_accounts", "Accounts known.", lambda: directory.sizes[0])
    gauge("gatekeeper_keys", "API keys in force.", lambda: directory.sizes[1])


def _at_stage(gate: Gate, stage: Stage) -> int:
    campaigns = gate.snapshot.containment.campaigns.values()
    return sum(each.facts.stage is stage for each in campaigns)


def _declare_network_gauges(metrics: Metrics, gate: Gate, clock: Callable[[], float]) -> None:
    """Tell what each database and list in force is; of two with one name, the last."""
    gauges = metrics.gauges

    def sources() -> tuple[NetworkSource, ...]:
        return gate.snapshot.network.sources

    gauges(
        "gatekeeper_network_source_age_seconds",
        "Time since a database was built, or a fetched list confirmed by its source.",
        ("source",),
        lambda: {
            (each.name,): max(0.0, clock() - each.as_of_unix_s)
            for each in sources()
            if each.as_of_unix_s is not None
        },
    )
    gauges(
        "gatekeeper_network_source_entries",
        "Nodes of a database, or AS numbers and prefixes of lists.",
        ("source",),
        lambda: {(each.name,): each.entries for each in sources()},
    )
    gauges(
        "gatekeeper_network_source_info",
        "Always 1; the revision of each database and list in force.",
        ("source", "revision"),
        lambda: {(each.name, each.revision): 1 for each in sources()},
    )
