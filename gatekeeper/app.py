"""The composition root: the only place that builds things and owns clocks, ids and chance."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import secrets
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Final, Self

import aiohttp
import structlog

from gatekeeper.alerts.conditions import alerts_of
from gatekeeper.delivery import Delivery
from gatekeeper.facts.address import TrustedProxies, parse_address
from gatekeeper.facts.credentials import Authenticator
from gatekeeper.facts.directory import Directory
from gatekeeper.facts.email_domains import DisposableDomains
from gatekeeper.facts.jwt_tokens import JwtVerifier, issuer_of
from gatekeeper.facts.network import NetworkData
from gatekeeper.gate import Door, Gate, Parts, Snapshot
from gatekeeper.limits import keeping_limits
from gatekeeper.listener.protocol import GateServer
from gatekeeper.live.fleet import Identity, Live, Watches
from gatekeeper.live.outcome import What
from gatekeeper.live.rule_files import RuleFiles
from gatekeeper.management.listening import listening_admin
from gatekeeper.management.services import Services
from gatekeeper.management.status import LimitStore, Node
from gatekeeper.ops import listening_ops, ops_app
from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.model import Moment
from gatekeeper.policy.words import CredentialKind, GateMode
from gatekeeper.sources import (
    StartError,
    admin_tls,
    alert_secret,
    listener_tls,
    load_rules,
    master_secret,
    public_url,
    records_url,
    route_of,
    store_access,
    tracing_of,
    try_rules,
    unknown_owners,
    vendor_of,
)
from gatekeeper.storage.cases import Cases
from gatekeeper.storage.decision_log import DecisionLog
from gatekeeper.storage.records import Records
from gatekeeper.storage.secrets import derive
from gatekeeper.storage.usage import UsageBook, UsageTable
from gatekeeper.telemetry import Metrics
from gatekeeper.upstream.pool import PoolClient
from gatekeeper.upstream.routes import RouteTable
from gatekeeper.verification.links import LinkSigner
from gatekeeper.verification.service import Verification

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from aiohttp.web import BaseRequest, StreamResponse

    from gatekeeper.facts.network import NetworkSource
    from gatekeeper.limits import Limits
    from gatekeeper.settings import Listener, Settings
    from gatekeeper.storage.limiter import Limiter
    from gatekeeper.tracing import Tracing
    from gatekeeper.upstream.client import Client

_REFRESH_S: Final = 0.5
"""How soon this process sees what another one wrote into the records."""
_TLS_GOODBYE_S: Final = 2.0
"""How long a closed TLS connection waits for its peer's own close."""
_YOUNG_OBJECTS: Final = 20_000
"""Collected at 700 by default, that is every few calls; calls leave next to no cycles behind."""
_LOG_CLOSE_S: Final = 5.0


def system_clock() -> Moment:
    """Read both clocks."""
    return Moment(time.time(), time.monotonic_ns() // 1_000)


def new_id(at: Moment) -> str:
    """Return a decision id: milliseconds, so that ids sort by time, then 64 bits of chance."""
    return f"dec_{int(at.unix_s * 1_000):012x}{random.getrandbits(64):016x}"


class App:
    """A gate with its listeners. Use ``async with await App.start(...)``, or :func:`serve`."""

    def __init__(self, settings: Settings, clock: Callable[[], Moment] = system_clock) -> None:
        self.settings = settings.model_copy(update={"public_url": public_url(settings)})
        self._clock = clock
        self.metrics = Metrics()
        self.ports: list[int] = []
        """Bound ports of the data listeners, in the order of the settings."""
        self.ops_port = 0
        self.admin_port = 0
        """Port of the management API; 0 when it is switched off."""
        self.ready = False
        self.gate: Gate
        self.live: Live
        """What changes while calls are served, and how people change it."""
        self.verification: Verification
        self._log = structlog.get_logger("gatekeeper")
        self._exit = contextlib.AsyncExitStack()
        self._servers: list[tuple[asyncio.Server, GateServer]] = []
        self._tracing: Tracing | None = None

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
        for _, server in self._servers:
            server.leaving = True

    async def stop(self, *, drain_s: float) -> None:
        """Stop listening, let calls under way end for ``drain_s``, then cut what is left."""
        self.leave()
        for listening, _ in self._servers:
            listening.close()
        for _, server in self._servers:
            server.close_idle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                await self.gate.drained()
        for _, server in self._servers:
            await server.shutdown(0.5)
        await self._exit.aclose()

    async def _build(self, environ: Mapping[str, str]) -> None:
        settings, metrics = self.settings, self.metrics
        secret = master_secret(settings, environ)
        watches = Watches.over(settings)
        texts, rules = load_rules(settings)
        network_secret = derive(secret, "network")
        network = NetworkData.load(settings.geoip, secret=network_secret, now_unix_s=self._unix_s())
        snapshot = Snapshot.of(rules, network, GateMode(settings.mode))
        for problem in snapshot.network.problems:
            self._log.warning("network_data", problem=str(problem))
        for mistake in unknown_owners(snapshot.rules, snapshot.network):
            self._log.warning("rules", problem=str(mistake))
        self._warn_of_private_callers(snapshot)
        records = await Records.open(records_url(settings))
        self._exit.push_async_callback(records.close)
        directory = await Directory.load(
            records, mail_listed_by=DisposableDomains.bundled().listed_by, at=self._unix_s()
        )
        gc.freeze()  # accounts live as long as the process: no collection need walk them again
        self._exit.push_async_callback(self._write_rest, directory)
        self._spawn(self._keep_fresh(directory))
        usage = UsageBook(UsageTable(records.database), process=secrets.token_hex(8))
        self._exit.push_async_callback(lambda: usage.finish(self._unix_s()))
        self._spawn(usage.run(self._unix_s))
        tokens = await self._tokens(secret)
        log = DecisionLog(settings.decision_log)
        self._exit.push_async_callback(log.close, _LOG_CLOSE_S)
        limits = await self._exit.enter_async_context(
            keeping_limits(
                settings.store,
                store_access(settings, environ),
                gate_id=new_id(self._clock()),
                chance=random.random,
                metrics=metrics,
            )
        )
        routes = RouteTable(
            [route_of(upstream, environ) for upstream in settings.upstreams], settings.health
        )
        client = PoolClient(settings.deadlines, max_field_bytes=settings.sizes.max_header_bytes)
        self._exit.push_async_callback(client.close)
        traced, sender = self._traced(environ, limits.limiter, client)
        links = LinkSigner(
            derive(secret, "links"), settings.public_url, settings.step_up.link_ttl_s
        )
        self.verification = await self._verification(records, directory, links, environ)
        self.gate = Gate(
            Parts(
                settings=settings,
                clock=self._clock,
                new_id=new_id,
                directory=directory,
                authenticator=Authenticator(
                    directory, subkey=derive(secret, "credentials"), tokens=tokens
                ),
                limiter=traced,
                log=log,
                routes=routes,
                delivery=Delivery(
                    settings,
                    self._clock,
                    directory,
                    traced,
                    log,
                    routes,
                    sender,
                    metrics,
                    usage,
                    self._tracing,
                ),
                links=links,
                metrics=metrics,
                usage=usage,
                own_page=self.verification.pages.answer,
                tracing=self._tracing,
            ),
            snapshot,
        )
        self.live = Live(
            self.gate,
            settings,
            RuleFiles.of(texts, rules),
            records.database,
            watches,
            identity=Identity(f"{random.getrandbits(64):016x}", settings.name, self._unix_s()),
            network_secret=network_secret,
            clock=self._unix_s,
            metrics=metrics,
        )
        await self.live.start()
        self._spawn(self.live.run())
        if settings.alerts.webhook_url:
            alerts = alerts_of(
                settings,
                alert_secret(settings, environ),
                gate=self.gate,
                live=self.live,
                limits=limits,
                directory=directory,
                log=log,
                metrics=metrics,
                clock=self._unix_s,
                new_id=lambda: new_id(self._clock()).replace("dec_", "evt_"),
                chance=random.random,
            )
            self._spawn(alerts.run())
        self._declare_gauges(directory, log)
        metrics.gauge(
            "gatekeeper_usage_waiting", "Rows of usage not yet recorded.", lambda: usage.waiting
        )
        metrics.gauge(
            "gatekeeper_usage_dropped", "Calls whose usage had no room.", lambda: usage.dropped
        )
        await self._listen(log, limits)
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
            await self._listen_admin(services)
        self.ready = True

    async def _listen_admin(self, services: Services) -> None:
        try:
            self.admin_port = await self._exit.enter_async_context(
                listening_admin(
                    services,
                    self.metrics,
                    tls=admin_tls(self.settings),
                    on_error=self._on_error,
                )
            )
        except OSError as error:
            raise StartError([Mistake("settings", None, "admin", str(error))]) from error

    def _traced(
        self, environ: Mapping[str, str], limiter: Limiter, client: Client
    ) -> tuple[Limiter, Client]:
        """Return limiter and client as they are, or with spans where traces are configured."""
        self._tracing = tracing = tracing_of(self.settings, environ)
        if tracing is None:
            return limiter, client
        self._exit.push_async_callback(asyncio.to_thread, tracing.close)
        return tracing.limiter(limiter), tracing.client(client)

    def _warn_of_private_callers(self, snapshot: Snapshot) -> None:
        """Say that behind a balancer that is not trusted, no caller would have a region."""
        for listener in self.settings.listeners:
            reached = listener.host not in {"127.0.0.1", "::1", "localhost"}
            if reached and not listener.trusted_proxies and snapshot.rules.private.allow:
                self._log.warning(
                    "no_trusted_proxies",
                    listener=f"{listener.host}:{listener.port}",
                    hint="behind a proxy every caller would count as a private address, which "
                    "embargo rules on regions do not test: set trusted_proxies",
                )

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

    async def _keep_fresh(self, directory: Directory) -> None:
        failing = False
        while True:
            await asyncio.sleep(_REFRESH_S)
            answered = await directory.refresh(self._unix_s())
            if failing == answered:
                failing = not answered
                self._log.warning(
                    "records", failing=failing, error=directory.last_error if failing else ""
                )

    async def _write_rest(self, directory: Directory) -> None:
        """Keep the opaque accounts that became known since the last refresh."""
        await directory.refresh(self._unix_s())

    def _declare_gauges(self, directory: Directory, log: DecisionLog) -> None:
        gauge = self.metrics.gauge
        gauge("gatekeeper_active_calls", "Calls under way.", lambda: self.gate.active)
        gauge("gatekeeper_log_written", "Records written.", lambda: log.written)
        gauge("gatekeeper_log_dropped", "Records given up.", lambda: log.dropped)
        gauge("gatekeeper_log_waiting", "Records not yet written.", lambda: log.waiting)
        gauge("gatekeeper_log_failures", "Writes that the disk refused.", lambda: log.failed)
        gauge(
            "gatekeeper_records_stale_seconds",
            "Age of the accounts and keys served.",
            lambda: directory.staleness_s(self._unix_s()),
        )
        gauge(
            "gatekeeper_network_problems",
            "Databases and lists that could not be used.",
            lambda: len(self.gate.snapshot.network.problems),
        )
        self._declare_network_gauges()
        live = self.live
        self.metrics.gauges(
            "gatekeeper_refused_state",
            "1 while a changed file is refused and the last good state serves on.",
            ("what",),
            lambda: {
                (What.RULES,): live.rules.last_refused is not None,
                (What.NETWORKS,): live.networks.last_refused is not None,
            },
        )
        self.metrics.gauges(
            "gatekeeper_mode",
            "1 for the mode in force, 0 for the others.",
            ("mode",),
            lambda: {(each.value,): each is self.gate.snapshot.mode for each in GateMode},
        )
        gauge("gatekeeper_accounts", "Accounts known.", lambda: directory.sizes[0])
        gauge("gatekeeper_keys", "API keys in force.", lambda: directory.sizes[1])

    def _declare_network_gauges(self) -> None:
        """Tell what each database and list in force is; of two with one name, the last."""
        gauges = self.metrics.gauges

        def sources() -> tuple[NetworkSource, ...]:
            return self.gate.snapshot.network.sources

        gauges(
            "gatekeeper_network_source_age_seconds",
            "Time since a database was built, or a fetched list confirmed by its source.",
            ("source",),
            lambda: {
                (each.name,): max(0.0, self._unix_s() - each.as_of_unix_s)
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

    async def _listen(self, log: DecisionLog, limits: Limits) -> None:
        loop = asyncio.get_running_loop()
        try:
            for listener in self.settings.listeners:
                server = self._server(listener)
                tls = listener_tls(listener)
                listening = await loop.create_server(
                    server,
                    listener.host,
                    listener.port,
                    ssl=tls,
                    backlog=2048,
                    ssl_handshake_timeout=self.settings.deadlines.headers_s if tls else None,
                    ssl_shutdown_timeout=_TLS_GOODBYE_S if tls else None,
                )
                self._servers.append((listening, server))
                self._exit.callback(listening.close)
                self.ports.append(listening.sockets[0].getsockname()[1])
            checks = {"draining": lambda: self.ready, "decision_log": lambda: log.accepting}
            ops = ops_app(self.metrics, checks | limits.checks, limits.degraded)
            self.ops_port = await self._exit.enter_async_context(
                listening_ops(ops, self.settings.ops)
            )
        except OSError as error:
            raise StartError([Mistake("settings", None, "listeners", str(error))]) from error

    def _server(self, listener: Listener) -> GateServer:
        trusted = TrustedProxies(listener.trusted_proxies)
        modes = frozenset(map(CredentialKind, listener.credentials))
        door = Door.of(modes, listener.forwarded_header, trusted)
        handle: Callable[[BaseRequest], Awaitable[StreamResponse]]
        handle = partial(self.gate.handle, door)
        if self._tracing is not None:
            handle = self._tracing.serving(handle, believes=partial(_comes_from, trusted))
        return GateServer(
            handle,
            deadlines=self.settings.deadlines,
            sizes=self.settings.sizes,
            trusted=trusted if listener.proxy_protocol else None,
            on_error=self._on_error,
        )

    def _on_error(self, peer: str, defect: BaseException | None, kind: str) -> None:
        """Count and log what never became a call; the kind is a name of ours, not their bytes."""
        if defect is not None:
            self.metrics.count("gatekeeper_internal_errors")
            self._log.error("defect", exc_info=defect)
            return
        self.metrics.count("gatekeeper_parser_refusals", kind)
        self._log.info("refused_by_parser", kind=kind, peer=_cut(peer))


def _comes_from(proxies: TrustedProxies, request: BaseRequest) -> bool:
    """Tell whether a request was sent by one of ``proxies``."""
    peer = getattr(request.protocol, "peer", "")
    address = None if proxies.empty else parse_address(peer.partition("%")[0])
    return address is not None and address in proxies


def _cut(peer: str) -> str:
    """Return enough of an address to see a pattern: its first half."""
    separator = ":" if ":" in peer else "."
    parts = peer.split(separator)
    return separator.join(parts[: len(parts) // 2]) + separator + "*"


async def serve(app: App) -> None:
    """Run until SIGTERM or SIGINT; then readiness turns red, calls end, listeners close."""
    gc.set_threshold(_YOUNG_OBJECTS, 20, 50)
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    loop.add_signal_handler(signal.SIGHUP, app.live.reload)
    await asked.wait()
    app.leave()
    await asyncio.sleep(app.settings.deadlines.readiness_s)
    await app.stop(drain_s=app.settings.deadlines.drain_s)
