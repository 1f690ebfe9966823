"""How this node is, and what it serves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from gatekeeper import __version__
from gatekeeper.management.operation import Answer, Asked, Method, Operation, Tag, Wire
from gatekeeper.policy.words import GateMode
from gatekeeper.storage.admin_keys import Role

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gatekeeper.facts.directory import Directory
    from gatekeeper.gate import Gate
    from gatekeeper.management.services import Services
    from gatekeeper.storage.decision_log import DecisionLog
    from gatekeeper.storage.nodes import Node as FleetNode
    from gatekeeper.storage.usage import UsageBook


@dataclass(frozen=True, slots=True)
class LimitStore:
    """Who keeps the limits, and whether it answers."""

    shared: bool
    answering: bool


@dataclass(frozen=True, slots=True)
class Node:
    """The parts of this process that status tells of."""

    name: str
    started_at: float
    """Unix seconds."""
    gate: Gate
    directory: Directory
    log: DecisionLog
    usage: UsageBook
    ready: Callable[[], bool]
    limits: Callable[[], LimitStore]
    fleet: Callable[[], Awaitable[Sequence[FleetNode]]]
    """The gates over the same records that told of themselves lately."""


class RecordsStatus(Wire):
    """The replica of accounts and keys that calls are judged by."""

    answering: bool
    """Whether the last look at the records succeeded."""
    stale_s: float
    accounts: int
    keys: int


class LogStatus(Wire):
    """The decision log."""

    accepting: bool
    written: int
    waiting: int
    dropped: int
    failures: int


class LimitsStatus(Wire):
    """Who keeps the limits."""

    shared: bool
    """Whether a fleet shares them in a store; `false`: this process alone."""
    answering: bool
    """`false`: the store fails, and each rule does what its `on_store_failure` says."""


class UsageStatus(Wire):
    """Usage that is not yet in the records."""

    waiting: int
    dropped: int
    failures: int


class Member(Wire):
    """One gate of the fleet, as it last told of itself."""

    id: str
    """Drawn anew at each start."""
    name: str
    started_at: float
    seen_at: float
    version: str
    rules_revision: str
    network_revision: str
    mode: str


class Status(Wire):
    """This node, and the fleet that it is one of."""

    name: str
    version: str
    ready: bool
    started_at: float
    uptime_s: float
    active_calls: int
    mode: GateMode
    rules_revision: str
    network_revision: str
    network_problems: int
    containment_revision: str
    """Of the campaigns that this node contains; empty for none."""
    records: RecordsStatus
    limits: LimitsStatus
    decision_log: LogStatus
    usage: UsageStatus
    nodes: list[Member]
    """Every gate over the same records that told of itself in the last 15 seconds; one whose
    `rules_revision` differs does not follow yet."""


async def _get(services: Services, asked: Asked) -> Answer:
    node = services.node
    snapshot = node.gate.snapshot
    accounts, keys, _ = node.directory.sizes
    return Answer(
        Status(
            name=node.name,
            version=__version__,
            ready=node.ready(),
            started_at=node.started_at,
            uptime_s=round(max(0.0, asked.at - node.started_at), 3),
            active_calls=node.gate.active,
            mode=snapshot.mode,
            rules_revision=snapshot.rules.revision,
            network_revision=snapshot.network.revision,
            network_problems=len(snapshot.network.problems),
            containment_revision=snapshot.containment.revision,
            records=RecordsStatus(
                answering=not node.directory.failing,
                stale_s=round(node.directory.staleness_s(asked.at), 3),
                accounts=accounts,
                keys=keys,
            ),
            limits=LimitsStatus(**asdict(node.limits())),
            decision_log=LogStatus(
                accepting=node.log.accepting,
                written=node.log.written,
                waiting=node.log.waiting,
                dropped=node.log.dropped,
                failures=node.log.failed,
            ),
            usage=UsageStatus(
                waiting=node.usage.waiting,
                dropped=node.usage.dropped,
                failures=node.usage.failures,
            ),
            nodes=[Member(**asdict(each)) for each in await node.fleet()],
        )
    )


OPERATIONS: Final = (
    Operation(
        "getStatus",
        Method.GET,
        "/v1/status",
        Role.VIEWER,
        Tag.STATUS,
        "How this node is, and what it serves",
        _get,
        answer=Status,
    ),
)
