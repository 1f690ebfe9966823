"""The demo endpoint with a book of every request it received, and answers on demand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from gatekeeper.demo import DemoSettings, build_demo_app

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from multidict import CIMultiDict

CLIENT_ID = "x-client-id"
"""Header by which tests tell their requests apart in both books."""


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived at the upstream."""

    method: str
    target: str
    headers: CIMultiDict[str]
    body: bytes

    @property
    def client_id(self) -> str | None:
        """The id that the test gave the request."""
        return self.headers.get(CLIENT_ID)


@dataclass
class Upstream:
    """A running upstream. ``answer`` may replace what the demo endpoint says."""

    url: str = ""
    book: list[Received] = field(default_factory=list)
    answer: Callable[[web.Request], Awaitable[web.StreamResponse | None]] | None = None
    """Returns ``None`` to let the demo endpoint answer after all."""
    runner: web.AppRunner | None = None

    async def start(self, demo: DemoSettings | None = None) -> None:
        """Listen on a free port."""
        app = build_demo_app(demo)
        app.middlewares.append(self._note())
        app.router.add_route("*", "/{anything:.*}", _echo)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Stop listening; may be called twice."""
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    def _note(self) -> Callable[..., Awaitable[web.StreamResponse]]:
        @web.middleware
        async def note(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            body = await request.read()
            self.book.append(
                Received(request.method, request.raw_path, request.headers.copy(), body)
            )
            said = None if self.answer is None else await self.answer(request)
            return await handler(request) if said is None else said

        return note


async def _echo(request: web.Request) -> web.Response:
    return web.json_response({"method": request.method, "path": request.raw_path})
