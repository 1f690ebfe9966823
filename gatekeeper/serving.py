"""The listeners of callers: opened, emptied, closed."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from gatekeeper.door import Door
from gatekeeper.facts.address import TrustedProxies, cut_peer, parse_address
from gatekeeper.listener.protocol import GateServer
from gatekeeper.policy.words import CredentialKind
from gatekeeper.sources import listener_tls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.web import BaseRequest, StreamResponse

    from gatekeeper.gate import Gate
    from gatekeeper.settings import Listener, Settings
    from gatekeeper.telemetry import Metrics
    from gatekeeper.tracing import Tracing

_TLS_GOODBYE_S: Final = 2.0
"""How long a closed TLS connection waits for its peer's own close."""
_CUT_S: Final = 0.5
"""How long connections that are cut may take to close."""


class CallerListeners:
    """Every listener that callers reach, over one gate."""

    def __init__(
        self, gate: Gate, settings: Settings, metrics: Metrics, tracing: Tracing | None
    ) -> None:
        self._gate = gate
        self._settings = settings
        self._metrics = metrics
        self._tracing = tracing
        self._log = structlog.get_logger("gatekeeper")
        self._servers: list[tuple[asyncio.Server, GateServer]] = []
        self.ports: list[int] = []
        """Bound ports, in the order of the settings."""

    async def open(self) -> None:
        """Listen; raises ``OSError`` when an address is taken, and ``StartError`` for files."""
        loop = asyncio.get_running_loop()
        for listener in self._settings.listeners:
            server = self._server(listener)
            tls = listener_tls(listener)
            listening = await loop.create_server(
                server,
                listener.host,
                listener.port,
                ssl=tls,
                backlog=2048,
                ssl_handshake_timeout=self._settings.deadlines.headers_s if tls else None,
                ssl_shutdown_timeout=_TLS_GOODBYE_S if tls else None,
            )
            self._servers.append((listening, server))
            self.ports.append(listening.sockets[0].getsockname()[1])

    def leave(self) -> None:
        """Ask callers to connect elsewhere; calls are served on."""
        for _, server in self._servers:
            server.leaving = True

    def close(self) -> None:
        """Listen no more."""
        for listening, _ in self._servers:
            listening.close()

    async def drain(self, within_s: float) -> None:
        """Let calls under way end for ``within_s``, then cut what is left."""
        for _, server in self._servers:
            server.close_idle()
        leaving = self._gate.leaving
        leaving.soon.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._gate.drained()
        leaving.now.set()
        await self._gate.cut()
        for _, server in self._servers:
            await server.shutdown(_CUT_S)

    def on_error(self, peer: str, defect: BaseException | None, kind: str) -> None:
        """Count and log what never became a call; the kind is a name of ours, not their bytes."""
        if defect is not None:
            self._metrics.count("gatekeeper_internal_errors")
            self._log.error("defect", exc_info=defect)
            return
        self._metrics.count("gatekeeper_parser_refusals", kind)
        self._log.info("refused_by_parser", kind=kind, peer=cut_peer(peer))

    def _server(self, listener: Listener) -> GateServer:
        trusted = TrustedProxies(listener.trusted_proxies)
        modes = frozenset(map(CredentialKind, listener.credentials))
        door = Door.of(modes, listener.forwarded_header, trusted)
        handle: Callable[[BaseRequest], Awaitable[StreamResponse]]
        handle = partial(self._gate.handle, door)
        if self._tracing is not None:
            handle = self._tracing.serving(handle, believes=partial(_comes_from, trusted))
        return GateServer(
            handle,
            deadlines=self._settings.deadlines,
            sizes=self._settings.sizes,
            trusted=trusted if listener.proxy_protocol else None,
            on_error=self.on_error,
        )


def _comes_from(proxies: TrustedProxies, request: BaseRequest) -> bool:
    """Tell whether a request was sent by one of ``proxies``."""
    peer = getattr(request.protocol, "peer", "")
    address = None if proxies.empty else parse_address(peer.partition("%")[0])
    return address is not None and address in proxies
