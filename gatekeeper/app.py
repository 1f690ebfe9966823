"""The composition root: the only place that builds things and owns clocks, ids and chance."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import signal
import ssl
import time
from functools import partial
from typing import TYPE_CHECKING, Final, Self

import aiohttp
import structlog
from aiohttp import web
from yarl import URL

from gatekeeper.delivery import Delivery
from gatekeeper.facts.address import TrustedProxies
from gatekeeper.facts.credentials import Authenticator
from gatekeeper.facts.directory import Directory
from gatekeeper.facts.email_domains import DisposableDomains
from gatekeeper.facts.jwt_tokens import JwtVerifier, issuer_of
from gatekeeper.facts.network import NetworkData
from gatekeeper.gate import Door, Gate, Parts, Snapshot
from gatekeeper.listener.protocol import GateServer
from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.model import CredentialKind, Moment
from gatekeeper.policy.rules import parse_rules
from gatekeeper.storage.decision_log import DecisionLog
from gatekeeper.storage.limiter_memory import MemoryLimiter
from gatekeeper.storage.records import Records
from gatekeeper.storage.rule_store import archive, read_texts
from gatekeeper.storage.secrets import derive, load_or_create_secret, read_secret
from gatekeeper.telemetry import Metrics
from gatekeeper.upstream.pool import PoolClient
from gatekeeper.upstream.routes import Endpoint, Route, RouteTable
from gatekeeper.verification.links import LinkSigner
from gatekeeper.verification.pages import VerificationPages

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from pathlib import Path

    from gatekeeper.policy.ruleset import RuleSet
    from gatekeeper.settings import Listener, Settings, Upstream

_REFRESH_S: Final = 0.5
"""How soon this process sees what another one wrote into the records."""
_LOG_CLOSE_S: Final = 5.0


class StartError(Exception):
    """The gate cannot start; ``mistakes`` says everything that is wrong."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        """Keep the mistakes for whoever prints them."""
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes


def system_clock() -> Moment:
    """Read both clocks."""
    return Moment(time.time(), time.monotonic_ns() // 1_000)


def new_id(at: Moment) -> str:
    """Return a decision id: milliseconds, so that ids sort by time, then 64 bits of chance."""
    return f"dec_{int(at.unix_s * 1_000):012x}{random.getrandbits(64):016x}"


def master_secret(settings: Settings, environ: Mapping[str, str]) -> bytes:
    """Return the secret that keys everything; raises :class:`StartError`."""
    try:
        found = (
            load_or_create_secret(settings.data_dir)
            if settings.secret is None
            else read_secret(settings.secret, environ, min_bytes=32)
        )
    except OSError as error:
        raise StartError([_unwritable(settings, error)]) from error
    if isinstance(found, Mistake):
        raise StartError([found])
    return found


def _unwritable(settings: Settings, error: OSError) -> Mistake:
    wrong = f"{settings.data_dir} cannot be written: {error.strerror}."
    return Mistake("settings", None, "data_dir", wrong)


def records_url(settings: Settings) -> str:
    """Return where the records are."""
    return settings.records_url or f"sqlite:///{settings.data_dir / 'records.db'}"


def rules_archive(settings: Settings) -> Path:
    """Return the directory that keeps every revision of the rules."""
    return settings.data_dir / "revisions"


def load_snapshot(settings: Settings, secret: bytes, now_unix_s: float) -> Snapshot:
    """Read rules and network data; raises :class:`StartError` for rules that are wrong."""
    texts = read_texts(settings.rules_dir)
    rules: RuleSet | list[Mistake] = texts if isinstance(texts, list) else parse_rules(texts)
    if isinstance(texts, list) or isinstance(rules, list):
        raise StartError(rules if isinstance(rules, list) else [])
    try:
        archive(rules_archive(settings), rules.revision, texts)
    except OSError as error:
        raise StartError([_unwritable(settings, error)]) from error
    network = NetworkData.load(
        settings.geoip, secret=derive(secret, "network"), now_unix_s=now_unix_s
    )
    return Snapshot.of(rules, network)


class App:
    """A gate with its listeners. Use ``async with await App.start(...)``, or :func:`serve`."""

    def __init__(self, settings: Settings, clock: Callable[[], Moment] = system_clock) -> None:
        self.settings = settings
        self._clock = clock
        self.metrics = Metrics()
        self.ports: list[int] = []
        """Bound ports of the data listeners, in the order of the settings."""
        self.ops_port = 0
        self.ready = False
        self.gate: Gate
        self._log = structlog.get_logger("gatekeeper")
        self._exit = contextlib.AsyncExitStack()
        self._servers: list[tuple[asyncio.Server, GateServer]] = []
        self._tasks: set[asyncio.Task[None]] = set()

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
        snapshot = load_snapshot(settings, secret, self._unix_s())
        for problem in snapshot.network.problems:
            self._log.warning("network_data", problem=str(problem))
        records = await Records.open(records_url(settings))
        self._exit.push_async_callback(records.close)
        directory = await Directory.load(
            records, mail_listed_by=DisposableDomains.bundled().listed_by, at=self._unix_s()
        )
        gc.freeze()  # accounts live as long as the process: no collection need walk them again
        self._exit.push_async_callback(self._write_rest, directory)
        self._spawn(self._keep_fresh(directory))
        tokens = await self._tokens(secret)
        log = DecisionLog(settings.decision_log)
        self._exit.push_async_callback(log.close, _LOG_CLOSE_S)
        limiter = MemoryLimiter()
        routes = RouteTable(
            [_route(upstream, environ) for upstream in settings.upstreams], settings.health
        )
        client = PoolClient(settings.deadlines, max_field_bytes=settings.sizes.max_header_bytes)
        self._exit.push_async_callback(client.close)
        links = LinkSigner(
            derive(secret, "links"), settings.public_url, settings.step_up.link_ttl_s
        )
        self.gate = Gate(
            Parts(
                settings=settings,
                clock=self._clock,
                new_id=new_id,
                authenticator=Authenticator(
                    directory, subkey=derive(secret, "credentials"), tokens=tokens
                ),
                limiter=limiter,
                log=log,
                routes=routes,
                delivery=Delivery(
                    settings, self._clock, directory, limiter, log, routes, client, metrics
                ),
                links=links,
                metrics=metrics,
                own_page=VerificationPages(links, settings.step_up.support).page,
            ),
            snapshot,
        )
        self._declare_gauges(directory, log)
        await self._listen(log)

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

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)

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
        gauge("gatekeeper_accounts", "Accounts known.", lambda: directory.sizes[0])
        gauge("gatekeeper_keys", "API keys in force.", lambda: directory.sizes[1])

    async def _listen(self, log: DecisionLog) -> None:
        loop = asyncio.get_running_loop()
        try:
            for listener in self.settings.listeners:
                server = self._server(listener)
                listening = await loop.create_server(
                    server, listener.host, listener.port, ssl=_tls(listener), backlog=2048
                )
                self._servers.append((listening, server))
                self._exit.callback(listening.close)
                self.ports.append(listening.sockets[0].getsockname()[1])
            await self._listen_ops(log)
        except OSError as error:
            raise StartError([Mistake("settings", None, "listeners", str(error))]) from error
        self.ready = True

    def _server(self, listener: Listener) -> GateServer:
        trusted = TrustedProxies(listener.trusted_proxies)
        modes = frozenset(map(CredentialKind, listener.credentials))
        door = Door.of(modes, listener.forwarded_header, trusted)
        return GateServer(
            partial(self.gate.handle, door),
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

    async def _listen_ops(self, log: DecisionLog) -> None:
        ops = web.Application()

        async def healthz(_: web.Request) -> web.Response:
            return web.Response(text="ok\n")

        async def readyz(_: web.Request) -> web.Response:
            wrong = [
                name
                for name, well in (("draining", self.ready), ("decision_log", log.accepting))
                if not well
            ]
            return web.Response(
                status=503 if wrong else 200, text=("\n".join(wrong) or "ready") + "\n"
            )

        async def metrics(_: web.Request) -> web.Response:
            return web.Response(
                body=self.metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"}
            )

        ops.router.add_get("/healthz", healthz)
        ops.router.add_get("/readyz", readyz)
        ops.router.add_get("/metrics", metrics)
        runner = web.AppRunner(ops, access_log=None)
        await runner.setup()
        self._exit.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, self.settings.ops.host, self.settings.ops.port)
        await site.start()
        self.ops_port = runner.addresses[0][1]


def _cut(peer: str) -> str:
    """Return enough of an address to see a pattern: its first half."""
    separator = ":" if ":" in peer else "."
    parts = peer.split(separator)
    return separator.join(parts[: len(parts) // 2]) + separator + "*"


def _tls(listener: Listener) -> ssl.SSLContext | None:
    if listener.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(listener.tls.certificate, listener.tls.key)
    return context


def _route(upstream: Upstream, environ: Mapping[str, str]) -> Route:
    credential = None
    if upstream.credential is not None:
        secret = read_secret(upstream.credential, environ)
        if isinstance(secret, Mistake):
            raise StartError([secret])
        value = secret.decode()
        bearer = upstream.credential_header == "authorization"
        credential = (upstream.credential_header, f"Bearer {value}" if bearer else value)
    tls = None
    if upstream.ca_file is not None:
        try:
            tls = ssl.create_default_context(cafile=upstream.ca_file)
        except OSError as error:
            wrong = f"{upstream.ca_file} is no bundle of certificates: {error.strerror}"
            raise StartError([Mistake("settings", None, "upstreams.ca_file", wrong)]) from error
    return Route(
        name=upstream.name,
        models=upstream.models,
        paths=upstream.paths,
        endpoints=tuple(Endpoint(URL(url)) for url in upstream.urls),
        credential=credential,
        tls=tls,
    )


async def serve(app: App) -> None:
    """Run until SIGTERM or SIGINT; then readiness turns red, calls end, listeners close."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    await asked.wait()
    app.leave()
    await asyncio.sleep(app.settings.deadlines.readiness_s)
    await app.stop(drain_s=app.settings.deadlines.drain_s)
