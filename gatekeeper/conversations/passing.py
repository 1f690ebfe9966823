"""Both ways of a WebSocket between a caller and an upstream, until either ends it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from gatekeeper.conversations.metering import Say, Stop
from gatekeeper.upstream.relay import Ending
from gatekeeper.websocket.frames import CloseCode, FrameError, Message, Opcode

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.conversations.metering import Meter
    from gatekeeper.settings import Deadlines
    from gatekeeper.websocket.line import Line

_GOODBYE_S: Final = 2.0
"""How long a close may take to be answered (RFC 6455, 7.1.1)."""


class Leaving:
    """What conversations are told when the gate stops: end at the next pause, or now."""

    def __init__(self) -> None:
        self.soon = asyncio.Event()
        self.now = asyncio.Event()


class _End(Struct, frozen=True, gc=False):
    """Why one way ended, and what each side is told of it."""

    ending: Ending
    to_caller: CloseCode | None = None
    to_upstream: CloseCode | None = None
    """``None``: the connection is broken off, which no upstream takes for a proper end."""
    event: bytes | None = None
    reason: str = ""


class Conversation:
    """One WebSocket on its way through; ``ending`` holds at every moment."""

    def __init__(
        self,
        caller: Line,
        upstream: Line,
        meter: Meter,
        deadlines: Deadlines,
        on_message: Callable[[Message, bool], None],
    ) -> None:
        """``on_message`` is told what passes, and whether it came from the caller."""
        self._caller = caller
        self._upstream = upstream
        self._meter = meter
        self._deadlines = deadlines
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._seen_s = self._loop.time()
        self.ending = Ending.CLIENT_GONE  # until proven otherwise: a cancelled task stops anywhere
        self._caller_closed = False
        self.closed_properly = False
        """Whether the upstream was told why, so that its connection need not be broken off."""

    async def run(self, leaving: Leaving) -> None:
        """Pass messages both ways. A side that breaks never looks like a proper end."""
        ways = [
            asyncio.create_task(each) for each in (self._up(), self._down(), self._watch(leaving))
        ]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            end = _first(done)
            if end is None:  # a close was passed on: its answer, and what comes before it, too
                await asyncio.wait(ways[:2], timeout=_GOODBYE_S)
                end = _first({each for each in ways[:2] if each.done()}) or _End(Ending.COMPLETE)
        except asyncio.CancelledError:
            self._pass_last_close()
            raise
        finally:
            for each in ways:
                each.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        self.ending = end.ending
        await self._tell(end)

    async def _up(self) -> _End | None:
        """Pass on what the caller sends; ``None`` once that is a close."""
        caller, upstream = self._caller, self._upstream
        while True:
            try:
                message = await caller.receive()
            except FrameError as error:
                return _End(Ending.CLIENT_BROKE, error.code)
            if message is None:
                return _End(Ending.CLIENT_GONE)
            self._seen_s = self._loop.time()
            self._on_message(message, True)  # noqa: FBT003 - see its signature
            said = await self._meter.from_caller(message)
            if isinstance(said, Stop):
                return _stopped(said)
            try:
                if isinstance(said, Say):
                    caller.send(Opcode.TEXT, said.event)
                    await caller.drain(self._deadlines.write_s)
                    continue
                upstream.send(message.opcode, message.payload)
                if message.opcode is Opcode.CLOSE:
                    self._caller_closed = True
                    return None
                await upstream.drain(self._deadlines.write_s)
            except TimeoutError:
                return _End(Ending.UPSTREAM_SILENT, CloseCode.INTERNAL_ERROR)
            except ConnectionError:
                return await self._till_told()

    async def _down(self) -> _End | None:
        """Pass on what the upstream sends; ``None`` once that is a close."""
        caller, upstream = self._caller, self._upstream
        while True:
            try:
                message = await upstream.receive()
            except FrameError as error:
                return _End(Ending.UPSTREAM_BROKE, CloseCode.INTERNAL_ERROR, error.code)
            if message is None:
                return _End(Ending.UPSTREAM_BROKE, CloseCode.INTERNAL_ERROR)
            self._seen_s = self._loop.time()
            said = await self._meter.from_upstream(message)
            if said is not None:
                return _stopped(said)
            self._on_message(message, False)  # noqa: FBT003 - see its signature
            try:
                caller.send(message.opcode, message.payload)
                if message.opcode is Opcode.CLOSE:
                    return None
                await caller.drain(self._deadlines.write_s)
            except TimeoutError:
                return _End(Ending.CLIENT_STALLED)
            except ConnectionError:
                return await self._till_told()

    async def _watch(self, leaving: Leaving) -> _End:
        """End what is silent for too long, lasts too long, or must end with the gate."""
        deadlines = self._deadlines
        last_s = self._loop.time() + deadlines.hold_s
        soon = asyncio.ensure_future(leaving.soon.wait())
        try:
            while True:
                now_s = self._loop.time()
                until_s = min(last_s, self._seen_s + deadlines.websocket_idle_s)
                if until_s <= now_s:
                    code = CloseCode.GOING_AWAY
                    return _End(Ending.TIMED_OUT, code, code)
                await asyncio.wait({soon}, timeout=until_s - now_s)
                if soon.done():
                    break
        finally:
            soon.cancel()
        now = asyncio.ensure_future(leaving.now.wait())
        pause = asyncio.ensure_future(self._meter.pause())
        try:
            await asyncio.wait({now, pause}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            now.cancel()
            pause.cancel()
        return _End(Ending.RESTARTED, CloseCode.SERVICE_RESTART, CloseCode.GOING_AWAY)

    async def _till_told(self) -> _End | None:
        """Wait to be cancelled: whose end could not be sent to, the other way will tell."""
        await asyncio.sleep(_GOODBYE_S)
        return _End(Ending.UPSTREAM_BROKE, CloseCode.INTERNAL_ERROR)

    def _pass_last_close(self) -> None:
        """Pass on the close of a caller that hung up at once behind it."""
        with contextlib.suppress(FrameError, ConnectionError):
            while not self._caller_closed and (message := self._caller.unread()) is not None:
                if message.opcode is Opcode.CLOSE:
                    self._upstream.send(message.opcode, message.payload)
                    self._caller_closed = True
        if self._caller_closed:
            self.ending, self.closed_properly = Ending.COMPLETE, True

    async def _tell(self, end: _End) -> None:
        """Say goodbye to both sides, and wait a moment for what the caller still sends.

        A connection that is closed with bytes unread is reset, and the caller might never see why.
        """
        self.closed_properly = end.to_upstream is not None or end.ending is Ending.COMPLETE
        with contextlib.suppress(ConnectionError):
            if end.to_upstream is not None:
                self._upstream.say_goodbye(end.to_upstream)
        with contextlib.suppress(ConnectionError, TimeoutError):
            if end.event is not None:
                self._caller.send(Opcode.TEXT, end.event)
            if end.to_caller is not None:
                self._caller.say_goodbye(end.to_caller, end.reason)
                async with asyncio.timeout(_GOODBYE_S):
                    while (message := await self._caller.receive()) is not None:
                        if message.opcode is Opcode.CLOSE:
                            break


def _first(done: set[asyncio.Task[_End | None]] | set[asyncio.Task[_End]]) -> _End | None:
    """Return the first end that is more than a close passed on; raises what a way raised."""
    ends = [each.result() for each in done]
    return next((end for end in ends if end is not None), None)


def _stopped(said: Stop) -> _End:
    code = CloseCode.POLICY_VIOLATION
    reason = f"{said.reason.value}; decision {said.decision_id}"
    return _End(Ending.STOPPED, code, CloseCode.GOING_AWAY, said.event, reason)
