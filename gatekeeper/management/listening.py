"""The admin listener: the API, its document and its reader."""

from __future__ import annotations

import asyncio
import contextlib
from functools import cache, partial
from importlib import resources
from typing import TYPE_CHECKING, Final

from gatekeeper.listener.protocol import GateServer
from gatekeeper.management.api import ManagementApi, Page
from gatekeeper.management.openapi import encoded
from gatekeeper.management.operations import OPERATIONS

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Mapping

    from gatekeeper.management.services import Services
    from gatekeeper.telemetry import Metrics

_READER_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_GOODBYE_S: Final = 1.0


def pages() -> Mapping[str, Page]:
    """Return what anybody who reaches the listener may read: it holds no secret."""
    reader = resources.files("gatekeeper.management") / "reader"
    files = {
        "/": ("index.html", "text/html; charset=utf-8"),
        "/reader.css": ("reader.css", "text/css; charset=utf-8"),
        "/reader.js": ("reader.js", "text/javascript; charset=utf-8"),
    }
    return {
        # Made when it is first asked for, and kept.
        "/v1/openapi.json": Page("application/json", cache(partial(encoded, OPERATIONS))),
        **{
            path: Page(kind, cache((reader / name).read_bytes), _READER_POLICY)
            for path, (name, kind) in files.items()
        },
    }


@contextlib.asynccontextmanager
async def listening_admin(
    services: Services,
    metrics: Metrics,
    *,
    tls: ssl.SSLContext | None,
    on_error: Callable[[str, BaseException | None, str], None],
) -> AsyncIterator[int]:
    """Serve the management API and yield its port; raises ``OSError`` when it is taken."""
    settings = services.settings
    api = ManagementApi(OPERATIONS, pages(), services, metrics)
    server = GateServer(
        api.handle,
        deadlines=settings.deadlines,
        sizes=settings.sizes,
        trusted=None,
        on_error=on_error,
    )
    listening = await asyncio.get_running_loop().create_server(
        server, settings.admin.host, settings.admin.port, ssl=tls
    )
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        server.leaving = True
        server.close_idle()
        await server.shutdown(_GOODBYE_S)
