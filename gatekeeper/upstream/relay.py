"""Passes an upstream's answer on, chunk by chunk, and tells how it ended."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from aiohttp.web import StreamResponse

from gatekeeper.upstream.client import AnswerBrokenError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.web import BaseRequest
    from multidict import CIMultiDict

    from gatekeeper.dialects.base import Dialect, UsageReader
    from gatekeeper.settings import Deadlines
    from gatekeeper.upstream.client import Answer

_DROPPED: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "alt-svc",
    }
)
_BODILESS: Final = frozenset({204, 304})


class Ending(StrEnum):
    """How an answer ended."""

    COMPLETE = "complete"
    UPSTREAM_BROKE = "upstream_broke"
    UPSTREAM_SILENT = "upstream_silent"
    CLIENT_GONE = "client_gone"
    CLIENT_STALLED = "client_stalled"


class Relay:
    """One answer on its way to the caller; ``ending`` and ``bytes_sent`` hold at every moment."""

    __slots__ = ("_answer", "_dialect", "_reader", "bytes_sent", "ending")

    def __init__(self, answer: Answer, dialect: Dialect, reader: UsageReader | None) -> None:
        self._answer = answer
        self._dialect = dialect
        self._reader = reader
        self.ending = Ending.CLIENT_GONE  # until proven otherwise: a cancelled task stops anywhere
        self.bytes_sent = 0

    async def run(
        self, request: BaseRequest, ours: Mapping[str, str], deadlines: Deadlines
    ) -> StreamResponse:
        """Send head and body; ``ours`` are headers of the gate, which win over the upstream's.

        A broken answer never looks complete: the dialect's error event is sent where the stream
        has one, and the connection is closed without a proper end (H32).
        """
        answer = self._answer
        response = StreamResponse(
            status=answer.status, reason=answer.reason, headers=_pass_on(answer)
        )
        response.headers.update(ours)
        try:
            await response.prepare(request)
            if request.method != "HEAD" and answer.status not in _BODILESS:
                await self._body(response, deadlines)
            else:
                self.ending = Ending.COMPLETE
        except ConnectionError:
            self.ending = Ending.CLIENT_GONE
        finally:
            answer.close()
        if self.ending is not Ending.COMPLETE:
            await self._break_off(request, response)
        return response

    async def _body(self, response: StreamResponse, deadlines: Deadlines) -> None:
        answer, reader = self._answer, self._reader
        loop = asyncio.get_running_loop()
        now = loop.time
        reading = True
        try:
            async with asyncio.timeout(deadlines.idle_s) as deadline:
                while chunk := await answer.read_chunk():
                    if reader is not None:
                        reader.feed(chunk)
                    reading = False
                    deadline.reschedule(now() + deadlines.write_s)
                    await response.write(chunk)
                    self.bytes_sent += len(chunk)
                    reading = True
                    deadline.reschedule(now() + deadlines.idle_s)
        except TimeoutError:
            self.ending = Ending.UPSTREAM_SILENT if reading else Ending.CLIENT_STALLED
        except AnswerBrokenError:
            self.ending = Ending.UPSTREAM_BROKE
        else:
            complete = reader is None or reader.complete
            self.ending = Ending.COMPLETE if complete else Ending.UPSTREAM_BROKE

    async def _break_off(self, request: BaseRequest, response: StreamResponse) -> None:
        transport = request.transport
        if transport is None:
            return
        response.force_close()
        upstream_died = self.ending in {Ending.UPSTREAM_BROKE, Ending.UPSTREAM_SILENT}
        streamed = response.headers.get("content-type", "").startswith("text/event-stream")
        reader = self._reader
        if upstream_died and streamed and reader is not None and not reader.mid_event:
            await response.write(self._dialect.stream_error())
        transport.close()


def _pass_on(answer: Answer) -> CIMultiDict[str]:
    headers = answer.headers.copy()
    nominated = ",".join(headers.getall("connection", ()))
    dropped = _DROPPED
    if nominated:
        dropped = dropped | {token.strip().lower() for token in nominated.split(",")}
    for name in dropped:
        headers.popall(name, None)
    return headers
