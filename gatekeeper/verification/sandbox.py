"""The sandbox vendor as the gate sees it: by HTTP and webhooks, like any other vendor.

What it checks is nothing: whoever opens its page chooses the result. The other side of the wire is
:mod:`gatekeeper.sandbox_vendor`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

import aiohttp
import msgspec
from yarl import URL

from gatekeeper.policy.words import Assurance  # noqa: TC001 - msgspec reads it
from gatekeeper.verification.standard_webhooks import check
from gatekeeper.verification.vendor import (
    StartRequest,
    VendorError,
    VendorEvent,
    VendorSession,
    VendorState,
    WebhookRefusal,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MOST_ANSWER_BYTES: Final = 65_536
_LONGEST_URL: Final = 2_000
_NOT_FOUND: Final = 404
_Name = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,200}\Z")]


class _Session(msgspec.Struct, frozen=True):
    """What the vendor answers; more fields may come."""

    id: _Name
    state: VendorState
    assurance: Assurance
    url: str | None = None
    reason: str = ""


class _Named(msgspec.Struct, frozen=True):
    id: _Name


class _Event(msgspec.Struct, frozen=True):
    """What a webhook says; its ``data`` names the session, and only that is read."""

    data: _Named


class SandboxVendor:
    """Asks the sandbox at ``url``; its answers are parsed like a stranger's."""

    name = "sandbox"

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        url: str,
        page_origin: str,
        api_key: str,
        webhook_keys: Sequence[bytes],
        tolerance_s: float,
        timeout_s: float,
    ) -> None:
        self.page_origin = page_origin
        self._session = session
        self._url = URL(url)
        self._auth = {"Authorization": f"Bearer {api_key}"}
        self._webhook_keys = tuple(webhook_keys)
        self._tolerance_s = tolerance_s
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def start(self, request: StartRequest) -> VendorSession:
        """Begin a session, or return the one begun with this key; raises VendorError."""
        asked = {
            "case": request.case_id,
            "assurance": request.assurance.value,
            "return_url": request.return_url,
        }
        headers = {"Idempotency-Key": request.idempotency_key}
        found = await self._ask("POST", self._url / "v1/sessions", headers, asked)
        if found is None:
            raise VendorError("the vendor knows no sessions: is the URL right?")
        return found

    async def fetch(self, reference: str) -> VendorSession | None:
        """Ask how a session stands, ``None`` if there is none; raises VendorError."""
        return await self._ask("GET", self._url / "v1/sessions" / reference, {})

    def read_webhook(
        self, headers: Mapping[str, str], body: bytes, now_s: float
    ) -> VendorEvent | WebhookRefusal:
        """Check the signature over the bytes as they came, then read what they say."""
        message_id = check(
            self._webhook_keys, headers, body, now_s=now_s, tolerance_s=self._tolerance_s
        )
        if isinstance(message_id, WebhookRefusal):
            return message_id
        try:
            event = msgspec.json.decode(body, type=_Event)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return WebhookRefusal.MALFORMED
        return VendorEvent(message_id, event.data.id)

    async def _ask(
        self, method: str, url: URL, headers: Mapping[str, str], asked: object = None
    ) -> VendorSession | None:
        options: dict[str, Any] = {"headers": {**self._auth, **headers}, "allow_redirects": False}
        if asked is not None:
            options["data"] = json.dumps(asked)
            options["headers"]["Content-Type"] = "application/json"
        try:
            async with self._session.request(
                method, url, timeout=self._timeout, **options
            ) as answer:
                status = answer.status
                body = await _bounded(answer.content)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise VendorError(f"the vendor did not answer: {type(error).__name__}") from error
        if status == _NOT_FOUND:
            return None
        if status not in {200, 201}:
            raise VendorError(f"the vendor answered with status {status}")
        return self._parsed(body)

    def _parsed(self, body: bytes) -> VendorSession:
        try:
            told = msgspec.json.decode(body, type=_Session)
            at_home = told.url is None or _origin(told.url) == self.page_origin
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise VendorError("the vendor's answer could not be read") from error
        if not at_home:
            raise VendorError("the vendor named a page outside of its own origin")
        return VendorSession(told.id, told.state, told.assurance, told.url, told.reason)


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    """Read an answer to its end, unless it is longer than any of ours."""
    body = b""
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > _MOST_ANSWER_BYTES:
            raise VendorError("the vendor's answer is too long")
    return body


def _origin(url: str) -> str:
    if len(url) > _LONGEST_URL or not url.isascii() or not url.isprintable():
        raise ValueError("no URL")
    return str(URL(url).origin())
