"""Everything that keeps one gate of a fleet up to date, run as one task."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from gatekeeper import __version__
from gatekeeper.live.desk import RuleDesk
from gatekeeper.live.modes import ModeDesk, ModeKeeper
from gatekeeper.live.networks import NetworkKeeper, watch_networks
from gatekeeper.live.rule_files import watch_rules
from gatekeeper.live.rules import STEP_TIMEOUT_S, RuleKeeper
from gatekeeper.policy.words import GateMode
from gatekeeper.sources import rules_archive
from gatekeeper.storage.controls import Controls
from gatekeeper.storage.database import RecordsError
from gatekeeper.storage.nodes import Node, Nodes
from gatekeeper.storage.rule_history import RuleHistory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gatekeeper.live.containment import ContainmentKeeper
    from gatekeeper.live.files import Cause, FileWatch
    from gatekeeper.live.outcome import Judging
    from gatekeeper.live.rule_files import RuleFiles
    from gatekeeper.settings import Settings
    from gatekeeper.storage.database import Database
    from gatekeeper.telemetry import Metrics

FOLLOW_S: Final = 0.5
"""How soon this gate sees what another one, or a command, wrote into the records."""
TELL_S: Final = 5.0
"""How often a gate says that it runs."""


@dataclass(frozen=True, slots=True)
class Watches:
    """The watches over files; made before these are read, so that no change is missed."""

    rules: FileWatch
    networks: FileWatch

    @classmethod
    def over(cls, settings: Settings) -> Watches:
        """Watch what the settings name."""
        return cls(watch_rules(settings.rules_dir), watch_networks(settings.geoip))


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this process is among the gates."""

    node_id: str
    """Drawn anew at each start."""
    name: str
    started_at: float


class Live:
    """The keepers of one gate. Call :meth:`start` before it listens, then keep :meth:`run`."""

    def __init__(
        self,
        gate: Judging,
        settings: Settings,
        files: RuleFiles,
        database: Database,
        watches: Watches,
        *,
        identity: Identity,
        network_secret: bytes,
        clock: Callable[[], float],
        metrics: Metrics,
        containment: ContainmentKeeper | None = None,
    ) -> None:
        """Keep ``gate``, which was built from ``files`` and the network data of ``settings``.

        Without a keeper of the ``containment``, nobody is contained.
        """
        self._gate = gate
        self._database = database
        self._identity = identity
        self._clock = clock
        self._nodes = Nodes(database)
        history, controls = RuleHistory(database), Controls(database)
        self.rules = RuleKeeper(
            gate,
            history,
            settings.rules_dir,
            files,
            archive_dir=rules_archive(settings),
            name=identity.name,
            clock=clock,
            metrics=metrics,
            watch=watches.rules,
        )
        self.networks = NetworkKeeper(
            gate,
            settings.geoip,
            secret=network_secret,
            clock=clock,
            metrics=metrics,
            watch=watches.networks,
        )
        self.containment = containment
        self.modes = ModeKeeper(gate, controls, GateMode(settings.mode), metrics)
        self.rule_desk = RuleDesk(self.rules, history)
        self.mode_desk = ModeDesk(self.modes, controls)
        self._seen = -1
        self._told_at = 0.0
        self._told: Node | None = None
        self._failing = False
        self._log = structlog.get_logger("gatekeeper")

    async def start(self) -> None:
        """Agree with the records before the first call; without them, settings and files hold."""
        await self.rules.start()
        await self.turn()

    def reload(self) -> None:
        """Read rule files and network data now, as SIGHUP asks for."""
        self._log.info("reload_asked")
        self.rules.watch.ask()
        self.networks.watch.ask()

    async def run(self) -> None:
        """Follow files and records until cancelled; nothing that fails ends it."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.rules.watch.run(self._guarded(self.rules.reload)))
                group.create_task(self.networks.watch.run(self._guarded(self.networks.reload)))
                group.create_task(self._follow())
        finally:
            await self._leave()

    async def turn(self) -> None:
        """Look once whether the records have anything new, and tell them of this gate."""
        at = self._clock()
        try:
            async with asyncio.timeout(STEP_TIMEOUT_S):
                await self._look(at)
        except (RecordsError, TimeoutError) as error:
            self._fails(str(error) or "the records did not answer in time")
        else:
            self._fails("")
        self.modes.expire(at)
        if self.networks.due(at):
            self.networks.watch.ask()

    async def _look(self, at: float) -> None:
        head = await self._database.last_write()
        if head != self._seen or self.rules.waiting:
            await self.modes.follow(at)  # first: no trouble with rules may hold back a kill switch
            await self.rules.follow()
        if self.containment is not None and (head != self._seen or self.containment.outdated):
            await self.containment.follow()
        self._seen = head
        node = self._node(at)
        news = self._told is None or _state(node) != _state(self._told)
        if news or at >= self._told_at + TELL_S:
            await self._nodes.tell(node)
            self._told, self._told_at = node, at

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW_S)
            await self._survived(self.turn())

    def _guarded(
        self, read: Callable[[Cause], Awaitable[None]]
    ) -> Callable[[Cause], Awaitable[None]]:
        return lambda cause: self._survived(read(cause))

    async def _survived(self, work: Awaitable[None]) -> None:
        """Log a defect and go on: what serves is whole in any case."""
        try:
            await work
        except Exception:  # noqa: BLE001 - one turn must not end all that follow
            self._log.exception("defect")

    def _fails(self, error: str) -> None:
        failing = bool(error)
        if failing != self._failing:
            self._failing = failing
            self._log.warning("records_not_followed", failing=failing, error=error)

    def _node(self, at: float) -> Node:
        snapshot, who = self._gate.snapshot, self._identity
        return Node(
            id=who.node_id,
            name=who.name,
            started_at=who.started_at,
            seen_at=at,
            version=__version__,
            rules_revision=snapshot.rules.revision,
            network_revision=snapshot.network.revision,
            mode=snapshot.mode.value,
        )

    async def nodes(self) -> tuple[Node, ...]:
        """Return the gates that told of themselves lately; raises :class:`RecordsError`."""
        return await self._nodes.running(since=self._clock() - 3 * TELL_S)

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(1.0):
                await self._nodes.leave(self._identity.node_id)
        except (RecordsError, TimeoutError):
            pass  # the row ends with its last sign of life


def _state(node: Node) -> tuple[str, ...]:
    return (node.rules_revision, node.network_revision, node.mode)
