"""A vendor of identity checks to try step-up on: sessions, a hosted page, signed webhooks.

It is the vendor's side of the wire and checks nothing: whoever opens the page chooses the result.
The gate's side is :mod:`gatekeeper.verification.sandbox`; the two share signatures and no state.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import structlog
from aiohttp import web
from yarl import URL

from gatekeeper.policy.words import Assurance
from gatekeeper.verification.html import Button, Page, Tone, asset, html
from gatekeeper.verification.standard_webhooks import key_of, sign
from gatekeeper.verification.vendor import VendorState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

_RESULTS: Final = {
    "pass": (VendorState.APPROVED, ""),
    "fail": (VendorState.DECLINED, "document_unreadable"),
    "expire": (VendorState.LAPSED, "abandoned"),
}
_LABELS: Final = (
    ("pass", "Pass"),
    ("fail", "Fail"),
    ("expire", "Let it expire"),
)
_NOTE: Final = "Sandbox. No identity is checked here: you choose how the check ends."
_MOST_SESSIONS: Final = 10_000
_MOST_BODY_BYTES: Final = 16_384
_PAUSES_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Between deliveries of a webhook that was not taken."""
_DELIVERY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """How the sandbox is reached, and how it behaves."""

    api_key: str
    webhook_secrets: tuple[str, ...]
    """Each signs; two while a secret is being changed."""
    webhook_url: str = ""
    """Where webhooks go; empty: none are sent."""
    public_url: str = ""
    """How browsers reach the hosted pages."""
    copies: int = 1
    """How many times each webhook is sent at once."""
    clock: Callable[[], float] = time.time
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(slots=True)
class _Session:
    """One check at the vendor."""

    id: str
    case: str
    assurance: Assurance
    return_url: str
    state: VendorState = VendorState.WAITING
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook as it is sent: the same id and body at each try, signed anew."""

    id: str
    body: bytes


@dataclass(slots=True)
class Sandbox:
    """The vendor's cloud in one process; ``app()`` serves it, ``settings`` may be replaced."""

    settings: SandboxSettings
    held: list[Delivery] | None = None
    """When a list, webhooks wait in it until somebody sends them."""
    sessions: dict[str, _Session] = field(default_factory=dict)
    _started: dict[str, str] = field(default_factory=dict)
    _sending: set[asyncio.Task[None]] = field(default_factory=set)
    _http: aiohttp.ClientSession | None = None

    def app(self) -> web.Application:
        """Return the API and the pages as an application."""
        app = web.Application(client_max_size=_MOST_BODY_BYTES)
        app.add_routes(
            [
                web.post("/v1/sessions", self._create),
                web.get("/v1/sessions/{id}", self._show),
                web.get("/verify/{id}", self._page),
                web.post("/verify/{id}", self._choose),
                web.get("/assets/{name}", _asset),
            ]
        )
        app.cleanup_ctx.append(self._client)
        return app

    def reached_at(self, public_url: str) -> None:
        """Say how browsers reach the pages, once the port is known."""
        self.settings = replace(self.settings, public_url=public_url.rstrip("/"))

    def reports_to(self, webhook_url: str) -> None:
        """Say where webhooks go."""
        self.settings = replace(self.settings, webhook_url=webhook_url)

    async def send(self, delivery: Delivery) -> bool:
        """Send one webhook once, signed now; return whether it was taken."""
        settings = self.settings
        if self._http is None or not settings.webhook_url:
            return False
        headers = sign(
            [key_of(each) for each in settings.webhook_secrets],
            delivery.id,
            int(settings.clock()),
            delivery.body,
        )
        headers["Content-Type"] = "application/json"
        try:
            async with self._http.post(
                settings.webhook_url, data=delivery.body, headers=headers, allow_redirects=False
            ) as answer:
                return answer.ok
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    def decide(self, session_id: str, result: str) -> None:
        """End a session as its page does, and tell the gate."""
        session = self.sessions[session_id]
        if session.state is not VendorState.WAITING:
            return
        session.state, session.reason = _RESULTS[result]
        self.announce(session_id)

    def announce(self, session_id: str) -> None:
        """Send, or hold, a webhook with the state of a session as it is now."""
        session = self.sessions[session_id]
        told = {
            "type": f"session.{session.state.value}",
            "timestamp": int(self.settings.clock()),
            "data": {"id": session.id, "case": session.case, "state": session.state.value},
        }
        delivery = Delivery(f"msg_{secrets.token_hex(12)}", json.dumps(told).encode())
        if self.held is not None:
            self.held.append(delivery)
            return
        if self.settings.webhook_url:
            for _ in range(self.settings.copies):
                task = asyncio.create_task(self._deliver(delivery))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

    async def _deliver(self, delivery: Delivery) -> None:
        for pause_s in _PAUSES_S:
            if await self.send(delivery):
                return
            await self.settings.pause(pause_s)
        structlog.get_logger("gatekeeper.sandbox").warning("webhook_given_up", id=delivery.id)

    async def _client(self, _: web.Application) -> AsyncIterator[None]:
        timeout = aiohttp.ClientTimeout(total=_DELIVERY_S)
        async with aiohttp.ClientSession(timeout=timeout) as self._http:
            yield
            for task in self._sending:
                task.cancel()
            await asyncio.gather(*self._sending, return_exceptions=True)

    async def _create(self, request: web.Request) -> web.Response:
        if not self._is_known(request.headers):
            return _problem(401, "The API key is wrong.")
        try:
            asked = json.loads(await request.read())
            assurance, case = Assurance(asked["assurance"]), str(asked["case"])
            return_url = str(URL(asked["return_url"]))
            usable = URL(return_url).scheme in {"http", "https"} and bool(case)
        except (ValueError, KeyError, TypeError, RecursionError):
            usable = False
        if not usable:
            return _problem(400, "Send case, assurance and return_url as JSON.")
        key = request.headers.get("Idempotency-Key", "")
        begun = self._started.get(key) if key else None
        if begun is None:
            if len(self.sessions) >= _MOST_SESSIONS:
                return _problem(503, "There are too many sessions.")
            begun = f"vs_{secrets.token_hex(16)}"
            self.sessions[begun] = _Session(begun, case, assurance, return_url)
            if key:
                self._started[key] = begun
        return web.json_response(self._told(self.sessions[begun]), status=201)

    async def _show(self, request: web.Request) -> web.Response:
        if not self._is_known(request.headers):
            return _problem(401, "The API key is wrong.")
        session = self.sessions.get(request.match_info["id"])
        return _problem(404, "No such session.") if session is None else self._answer(session)

    def _answer(self, session: _Session) -> web.Response:
        return web.json_response(self._told(session))

    def _told(self, session: _Session) -> dict[str, Any]:
        waiting = session.state is VendorState.WAITING
        return {
            "id": session.id,
            "case": session.case,
            "state": session.state.value,
            "assurance": session.assurance.value,
            "reason": session.reason,
            "url": f"{self.settings.public_url}/verify/{session.id}" if waiting else None,
        }

    async def _page(self, request: web.Request) -> web.Response:
        session = self.sessions.get(request.match_info["id"])
        if session is None:
            return html(_NO_SESSION, assets="../assets/", status=404)
        if session.state is not VendorState.WAITING:
            return html(_OVER, assets="../assets/", status=410)
        page = Page(
            "Show who you are",
            ("A real vendor would now ask for a document and a look into the camera.",),
            rows=(("Level", session.assurance.value), ("Case", session.case)),
            button=Button(_LABELS, leads_to=str(URL(session.return_url).origin())),
            small="Afterwards you are led back to where you came from.",
            note=_NOTE,
        )
        return html(page, assets="../assets/")

    async def _choose(self, request: web.Request) -> web.Response:
        session = self.sessions.get(request.match_info["id"])
        if session is None:
            return html(_NO_SESSION, assets="../assets/", status=404)
        result = (await request.post()).get("result")
        if not isinstance(result, str) or result not in _RESULTS:
            return html(_NO_CHOICE, assets="../assets/", status=400)
        self.decide(session.id, result)
        return web.Response(status=303, headers={"Location": session.return_url})

    def _is_known(self, headers: Mapping[str, str]) -> bool:
        given = headers.get("Authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.settings.api_key.encode())


_NO_SESSION: Final = Page("Not found", ("There is no such check.",), note=_NOTE)
_OVER: Final = Page("This check is over", ("Go back to where you came from.",), note=_NOTE)
_NO_CHOICE: Final = Page(
    "Choose a result", ("Go back and press one of the buttons.",), note=_NOTE, tone=Tone.BAD
)


async def _asset(request: web.Request) -> web.Response:
    return asset(request.match_info["name"]) or web.Response(status=404)


def _problem(status: int, detail: str) -> web.Response:
    return web.json_response({"detail": detail}, status=status)
