"""The listener of probes and metrics."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from gatekeeper.settings import Ops
    from gatekeeper.telemetry import Metrics


def ops_app(
    metrics: Metrics,
    checks: Mapping[str, Callable[[], bool]],
    degraded: Mapping[str, Callable[[], bool]] | None = None,
) -> web.Application:
    """Return an application with ``/healthz``, ``/readyz`` and ``/metrics``.

    ``/readyz`` is 503 and names each of ``checks`` that does not hold. It also names what is
    ``degraded``, which is no reason to take this gate out: its calls are still served as declared.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        wrong = [name for name, holds in checks.items() if not holds()]
        lines = wrong or ["ready"]
        lines += [f"degraded: {name}" for name, holds in (degraded or {}).items() if holds()]
        return web.Response(status=503 if wrong else 200, text="\n".join(lines) + "\n")

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(
            body=metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"}
        )

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", scrape)
    return app


@contextlib.asynccontextmanager
async def listening_ops(app: web.Application, where: Ops) -> AsyncIterator[int]:
    """Serve ``app`` and yield the port; raises ``OSError`` when it is taken."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, where.host, where.port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
