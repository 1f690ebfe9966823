"""Reads the input file of a batch at its upstream, so that what it costs is known beforehand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.openai_batches import endpoint_of, read_batch
from gatekeeper.listener.head import BadRequest
from gatekeeper.listener.onward import headers_onward
from gatekeeper.policy.words import CredentialKind, Reason, Unit
from gatekeeper.upstream.client import AnswerBrokenError, Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.listener.head import Head
    from gatekeeper.listener.intake import Taken
    from gatekeeper.upstream.client import Answer, Client
    from gatekeeper.upstream.routes import RouteTable

OF_A_FILE: Final = frozenset({Unit.REQUESTS, Unit.CONCURRENCY})
"""What reading a file takes, beside what the batch does."""
_AT_ONCE: Final = 2
"""Files that are read at the same time: each may fill memory with its largest size."""
_OK: Final = 200
_UNREADABLE: Final = (
    "The file of `input_file_id` cannot be read at the endpoint. "
    "Check its id, and that it is yours."
)


@dataclass(frozen=True, slots=True)
class BatchFiles:
    """Looks into batches before they are judged."""

    client: Client
    routes: RouteTable
    count: Callable[[bytes], int]
    most_bytes: int
    within_s: float
    """How long a file may take, waiting for others included."""
    _free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    async def read(self, head: Head, kind: CredentialKind, taken: Taken) -> Taken | BadRequest:
        """Return what a batch asks for in all; the same credential reads its file."""
        path, file = head.target.path, "" if taken.ask is None else taken.ask.file
        stem = path.rstrip("/").removesuffix("batches")
        endpoint = None if taken.incoming is None else endpoint_of(taken.incoming.body)
        try:
            async with asyncio.timeout(self.within_s) as bound, self._free:
                content = await self._content(head, kind, taken, f"{stem}files/{file}/content")
                if isinstance(content, BadRequest):
                    return content
                bound.reschedule(None)  # what is left depends on its size alone, and ends
                found = await asyncio.to_thread(
                    read_batch, content, dialect_for, self.count, endpoint
                )
        except TimeoutError:
            return BadRequest(Reason.SERVICE_UNAVAILABLE, None)
        if isinstance(found, str):
            return BadRequest(Reason.INVALID_BODY, found)
        route = self.routes.find(path, found.model)
        if route is None:
            return BadRequest(Reason.MODEL_NOT_SERVED, None)
        return replace(taken, route=route, ask=found)

    async def _content(
        self, head: Head, kind: CredentialKind, taken: Taken, path: str
    ) -> bytes | BadRequest:
        route = taken.route
        headers = headers_onward(head, route, kind)
        for name in ("content-type", "content-encoding"):
            headers.popall(name, None)
        headers["Accept-Encoding"] = "identity"
        endpoint = self.routes.pick(route, 0.0)
        answer = await self.client.send(
            Outgoing("GET", endpoint.at(path), headers, None, route.tls)
        )
        if isinstance(answer, Reason):
            return BadRequest(Reason.SERVICE_UNAVAILABLE, None)
        try:
            return await self._whole(answer)
        except (AnswerBrokenError, TimeoutError):
            return BadRequest(Reason.SERVICE_UNAVAILABLE, None)
        finally:
            answer.close()

    async def _whole(self, answer: Answer) -> bytes | BadRequest:
        if answer.status != _OK or "content-encoding" in answer.headers:
            return BadRequest(Reason.INVALID_BODY, _UNREADABLE)
        content = bytearray()
        while chunk := await answer.read_chunk():
            content += chunk
            if len(content) > self.most_bytes:
                largest = (
                    f"The input file of a batch may have at most {self.most_bytes} bytes here."
                )
                return BadRequest(Reason.BODY_TOO_LARGE, largest)
        return bytes(content)
