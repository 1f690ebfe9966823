"""The composition root: the only place that builds things and owns clocks, ids and chance."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from typing import TYPE_CHECKING, Final, Self

import aiohttp

from gatekeeper.alerts.conditions import alerts_of
from gatekeeper.batch_files import BatchFiles
from gatekeeper.conversations.opening import Conversations
from gatekeeper.delivery import Delivery
from gatekeeper.dialects.base import AnswerPlan
from gatekeeper.draining import Drains
from gatekeeper.facts.credentials import Authenticator
from gatekeeper.facts.directory import Directory
from gatekeeper.facts.email_domains import DisposableDomains
from gatekeeper.facts.jwt_tokens import JwtVerifier, issuer_of
from gatekeeper.facts.traits import AccountTraits
from gatekeeper.gate import Gate, Parts
from gatekeeper.gauges import declare_gauges
from gatekeeper.limits import keeping_limits
from gatekeeper.listener.intake import Intake
from gatekeeper.live.containment import ContainmentKeeper
from gatekeeper.live.fleet import Identity, Live, Watches
from gatekeeper.live.rule_files import RuleFiles
from gatekeeper.management.listening import listening_admin
from gatekeeper.management.services import Services
from gatekeeper.management.status import LimitStore, Node
from gatekeeper.ops import listening_ops, ops_app
from gatekeeper.policy.model import Moment
from gatekeeper.serving import CallerListeners
from gatekeeper.sources import (
    admin_tls,
    alert_secret,
    counter_of,
    first_snapshot,
    load_rules,
    master_secret,
    mistake_at,
    public_url,
    records_url,
    route_of,
    store_access,
    tracing_of,
    trait_maker,
    try_rules,
    vendor_of,
)
from gatekeeper.storage.campaigns import CampaignBook
from gatekeeper.storage.cases import Cases
from gatekeeper.storage.decision_log import DecisionLog
from gatekeeper.storage.decision_stream import sending_decisions
from gatekeeper.storage.records import Records
from gatekeeper.storage.secrets import derive
from gatekeeper.storage.usage import UsageBook, UsageTable
from gatekeeper.telemetry import Metrics
from gatekeeper.upstream.pool import PoolClient
from gatekeeper.upstream.routes import RouteTable
from gatekeeper.verification.links import LinkSigner
from gatekeeper.verification.service import Verification

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from gatekeeper.limits import Limits
    from gatekeeper.settings import Settings
    from gatekeeper.storage.limiter import Limiter
    from gatekeeper.tracing import Tracing
    from gatekeeper.upstream.client import Client

_LOG_CLOSE_S: Final = 5.0


def system_clock() -> Moment:
    """Read both clocks."""
    return Moment(time.time(), time.monotonic_ns() // 1_000)


def new_id(at: Moment) -> str:
    """Return a decision id: milliseconds, so that ids sort by time, then 64 bits of chance."""
    return f"dec_{int(at.unix_s * 1_000):012x}{random.getrandbits(64):016x}"


class App:
    """A gate with its listeners. Use ``async with await App.start(...)``."""

    def __init__(self, settings: Settings, clock: Callable[[], Moment] = system_clock) -> None:
        self.settings = settings.model_copy(update={"public_url": public_url(settings)})
        self._clock = clock
        self.metrics = Metrics()
        self.ops_port = 0
        self.admin_port = 0
        """Port of the management API; 0 when it is switched off."""
        self.ready = False
        self.gate: Gate
        self.live: Live
        """What changes while calls are served, and how people change it."""
        self.verification: Verification
        self._exit = contextlib.AsyncExitStack()
        self._listeners: CallerListeners | None = None

    @property
    def ports(self) -> list[int]:
        """Bound ports of the data listeners, in the order of the settings."""
        return [] if self._listeners is None else self._listeners.ports

    @classmethod
    async def start(
        cls,
        settings: Settings,
        environ: Mapping[str, str],
        clock: Callable[[], Moment] = system_clock,
    ) -> Self:
        """Build everything and listen; raises :class:`StartError` with all that is wrong."""
        app = cls(settings, clock)
        try:
            await app._build(environ)
        except BaseException:
            await app._exit.aclose()
            raise
        return app

    async def __aenter__(self) -> Self:
        """Return the running app."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop at once."""
        await self.stop(drain_s=0.0)

    def leave(self) -> None:
        """Turn readiness red and ask callers to connect elsewhere; calls are served on."""
        self.ready = False
        if self._listeners is not None:
            self._listeners.leave()

    async def stop(self, *, drain_s: float) -> None:
        """Stop listening, let calls under way end for ``drain_s``, then cut what is left."""
        self.leave()
        if self._listeners is not None:
            self._listeners.close()
            await self._listeners.drain(drain_s)
        await self._exit.aclose()

    async def _build(self, environ: Mapping[str, str]) -> None:
        settings, metrics = self.settings, self.metrics
        node_id = f"{random.getrandbits(64):016x}"
        secret = master_secret(settings, environ)
        watches = Watches.over(settings)
        texts, rules = load_rules(settings)
        network_secret = derive(secret, "network")
        snapshot = first_snapshot(settings, rules, network_secret, now_unix_s=self._unix_s())
        records, directory = await self._records(AccountTraits(secret))
        usage = UsageBook(UsageTable(records.database), process=secrets.token_hex(8))
        self._exit.push_async_callback(lambda: usage.finish(self._unix_s()))
        self._spawn(usage.run(self._unix_s))
        tokens = await self._tokens(secret)
        access = store_access(settings, environ)
        tee = await self._exit.enter_async_context(
            sending_decisions(settings, access, chance=random.random, metrics=metrics)
        )
        log = DecisionLog(settings.decision_log, tee=tee)
        self._exit.push_async_callback(log.close, _LOG_CLOSE_S)
        limits = await self._exit.enter_async_context(
            keeping_limits(
                settings.store,
                access,
                gate_id=node_id,
                chance=random.random,
                metrics=metrics,
            )
        )
        routes = RouteTable(
            [route_of(upstream, environ) for upstream in settings.upstreams], settings.health
        )
        count = counter_of(settings)
        traits = trait_maker(settings, secret, environ)
        client = PoolClient(settings.deadlines, max_field_bytes=settings.sizes.max_header_bytes)
        self._exit.push_async_callback(client.close)
        tracing = tracing_of(settings, environ)
        limiter, sender = self._traced(tracing, limits.limiter, client)
        links = LinkSigner(
            derive(secret, "links"), settings.public_url, settings.step_up.link_ttl_s
        )
        self.verification = await self._verification(records, directory, links, environ)
        delivery = Delivery(
            settings,
            self._clock,
            directory,
            limiter,
            log,
            routes,
            sender,
            metrics,
            usage,
            AnswerPlan(count),
            derive(secret, "noise"),
            Drains(metrics),
            tracing,
        )
        self.gate = Gate(
            Parts(
                settings=settings,
                clock=self._clock,
                new_id=new_id,
                directory=directory,
                authenticator=Authenticator(
                    directory, subkey=derive(secret, "credentials"), tokens=tokens
                ),
                limiter=limiter,
                log=log,
                intake=self._exit.enter_context(
                    Intake(routes, settings, count, None if traits is None else traits.look)
                ),
                delivery=delivery,
                batch_files=BatchFiles(
                    sender,
                    routes,
                    count,
                    settings.sizes.max_batch_file_bytes,
                    settings.deadlines.body_s,
                ),
                conversations=Conversations(delivery, secrets.token_bytes),
                links=links,
                metrics=metrics,
                usage=usage,
                own_page=self.verification.pages.answer,
                tracing=tracing,
                traits=traits,
            ),
            snapshot,
        )
        self.live = Live(
            self.gate,
            settings,
            RuleFiles.of(texts, rules),
            records.database,
            watches,
            identity=Identity(node_id, settings.name, self._unix_s()),
            network_secret=network_secret,
            clock=self._unix_s,
            metrics=metrics,
            containment=ContainmentKeeper(
                self.gate,
                CampaignBook(records.database),
                probe_key=derive(secret, "probe"),
                metrics=metrics,
            ),
        )
        await self.live.start()
        self._spawn(self.live.run())
        if settings.alerts.webhook_url:
            self._alert(alert_secret(settings, environ), limits, directory, log)
        declare_gauges(
            metrics,
            gate=self.gate,
            live=self.live,
            directory=directory,
            log=log,
            usage=usage,
            clock=self._unix_s,
        )
        listeners = self._listeners = CallerListeners(self.gate, settings, metrics, tracing)
        self._exit.callback(listeners.close)
        checks = {"draining": lambda: self.ready, "decision_log": lambda: log.accepting}
        ops = ops_app(metrics, checks | limits.checks, limits.degraded)
        with mistake_at("listeners"):
            await listeners.open()
        with mistake_at("ops"):
            self.ops_port = await self._exit.enter_async_context(listening_ops(ops, settings.ops))
        if settings.admin.enabled:
            node = Node(
                settings.name,
                self._unix_s(),
                self.gate,
                directory,
                log,
                usage,
                lambda: self.ready,
                lambda: LimitStore(shared=limits.shared, answering=not limits.failing()),
                self.live.nodes,
            )
            services = Services.over(
                settings,
                secret,
                records,
                live=self.live,
                cases=self.verification.desk,
                node=node,
                clock=self._clock,
                random_bytes=secrets.token_bytes,
            )
            api = listening_admin(
                services, metrics, tls=admin_tls(settings), on_error=listeners.on_error
            )
            with mistake_at("admin"):
                self.admin_port = await self._exit.enter_async_context(api)
        self.ready = True

    def _traced(
        self, tracing: Tracing | None, limiter: Limiter, client: Client
    ) -> tuple[Limiter, Client]:
        if tracing is None:
            return limiter, client
        self._exit.push_async_callback(asyncio.to_thread, tracing.close)
        return tracing.limiter(limiter), tracing.client(client)

    async def _records(self, traits: AccountTraits) -> tuple[Records, Directory]:
        records = await Records.open(records_url(self.settings))
        self._exit.push_async_callback(records.close)
        directory = await Directory.load(
            records,
            mail_listed_by=DisposableDomains.bundled().listed_by,
            at=self._unix_s(),
            traits=traits,
        )
        self._exit.push_async_callback(lambda: directory.refresh(self._unix_s()))
        self._spawn(directory.run(self._unix_s))
        return records, directory

    def _alert(self, secret: str, limits: Limits, directory: Directory, log: DecisionLog) -> None:
        alerts = alerts_of(
            self.settings,
            secret,
            gate=self.gate,
            live=self.live,
            limits=limits,
            directory=directory,
            log=log,
            metrics=self.metrics,
            clock=self._unix_s,
            new_id=lambda: new_id(self._clock()).replace("dec_", "evt_"),
            chance=random.random,
        )
        self._spawn(alerts.run())

    def _unix_s(self) -> float:
        return self._clock().unix_s

    async def _tokens(self, secret: bytes) -> JwtVerifier | None:
        if not self.settings.jwt:
            return None
        session = aiohttp.ClientSession()
        self._exit.push_async_callback(session.close)
        issuers = [
            issuer_of(config, session=session, clock=self._unix_s, chance=random.random)
            for config in self.settings.jwt
        ]
        for issuer in issuers:
            self._spawn(issuer.keys.run())
        return JwtVerifier(issuers, subkey=derive(secret, "tokens"))

    async def _verification(
        self, records: Records, directory: Directory, links: LinkSigner, environ: Mapping[str, str]
    ) -> Verification:
        step_up = self.settings.step_up
        session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        self._exit.push_async_callback(session.close)
        verification = Verification(
            Cases(records.database),
            vendor_of(step_up, environ, session),
            try_rules(step_up),
            links=links,
            support=step_up.support,
            refresh=directory.refresh,
            metrics=self.metrics,
        )
        self._spawn(verification.run(self._unix_s, random.random))
        return verification

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._exit.push_async_callback(end)
