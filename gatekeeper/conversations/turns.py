"""Turns of OpenAI realtime: each response is held before it can begin, and settled when done."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from gatekeeper.conversations.metering import Refused, Say, Stop
from gatekeeper.dialects.base import Ask
from gatekeeper.dialects.realtime_events import event_id_of
from gatekeeper.dialects.realtime_reader import Failed, Settled, Started
from gatekeeper.policy.model import Usage
from gatekeeper.policy.words import Reason, Unit
from gatekeeper.websocket.frames import Opcode

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from gatekeeper.conversations.metering import Allowance, Book, Granted
    from gatekeeper.dialects.base import RefusalText
    from gatekeeper.dialects.openai_realtime import OpenAIRealtime
    from gatekeeper.dialects.realtime_reader import RealtimeReader, Sent
    from gatekeeper.storage.limiter import Reservation
    from gatekeeper.websocket.frames import Message

_TOKENS: Final = frozenset({Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS, Unit.COST})
_TURN: Final = frozenset({Unit.REQUESTS, Unit.BYTES}) | _TOKENS
_HEADROOM_TOKENS: Final = 64
"""Held beyond what is known of the next input, so that speech does not ask for each packet."""


class _Hold:
    """What one turn holds."""

    __slots__ = ("budget_tokens", "extras", "first", "input_tokens", "output_tokens", "read_tokens")

    def __init__(self, granted: Granted) -> None:
        self.first = granted.reservation
        self.extras: list[Reservation | None] = []
        self.input_tokens = granted.input_tokens
        self.output_tokens = granted.output_tokens
        self.budget_tokens = granted.budget_tokens
        self.read_tokens = 0
        """What its response read when it began. Estimated."""


class TurnMeter:
    """OpenAI realtime: each response is a turn; no event passes that could begin one unheld."""

    def __init__(
        self,
        dialect: OpenAIRealtime,
        reader: RealtimeReader,
        allowance: Allowance,
        ask: Ask,
        first: Granted,
        *,
        book: Book,
        model_output_tokens: int,
    ) -> None:
        """``model_output_tokens`` bounds a response for which the caller names no bound."""
        self._dialect = dialect
        self._reader = reader
        self._allowance = allowance
        self._ask = ask
        self._model_output_tokens = model_output_tokens
        self._book = book
        self._kept = _Hold(first)
        """Counts the connection's own request, whether or not a turn comes of it."""
        self._free = [self._kept]
        self._promised = 0
        """Responses asked for of which the upstream has told nothing yet."""
        self._turns: dict[str, _Hold] = {}
        self._moved = asyncio.Event()
        self._paused = asyncio.Event()
        self._note()
        self._settling: set[asyncio.Task[None]] = set()

    async def pause(self) -> None:
        """Return once no response is under way."""
        await self._paused.wait()

    async def from_caller(self, message: Message) -> Say | Stop | None:
        """Judge an event; one that may begin a response waits until a turn is held for it."""
        if not message.is_data:
            return None
        if message.opcode is not Opcode.TEXT:
            return self._not_taken("Events are sent as text.", None)
        event = message.payload
        sent = self._reader.sent(event)
        if isinstance(sent, str):
            return self._not_taken(sent, event)
        for model in sent.models:
            if model != self._ask.model:
                judged = await self._allowance.hold(Ask(model), frozenset())
                if isinstance(judged, Refused):
                    return self._stop(judged, event)
                await self._allowance.cancel(judged.reservation)
        if not sent.may_start:
            return None
        refused = await self._cover(sent)
        if refused is None:
            self._promised += sent.starts
            self._note()
            return None
        if refused.reason is not Reason.REQUEST_EXCEEDS_LIMIT:
            return self._stop(refused, event)
        text = refused.tell(
            "Name a smaller bound: session.update with session.max_output_tokens, "
            "or response.max_output_tokens."
        )
        return Say(self._dialect.error_event(text, event_id_of(event)))

    async def from_upstream(self, message: Message) -> Stop | None:
        """Follow responses; their usage is charged before it goes on to the caller."""
        if message.opcode is not Opcode.TEXT:
            return None
        found = self._reader.received(message.payload)
        if found is None:
            return self._over_budget()
        if isinstance(found, Started):
            return await self._begin(found)
        if isinstance(found, Failed):
            self._promised = max(0, self._promised - 1)
        elif isinstance(found, Settled):
            await asyncio.shield(self._spawn(self._charge(found)))
        self._note()
        self._moved.set()
        return None

    async def finish(self) -> None:
        """Settle what is under way to an estimate, and give back what was never used."""
        if self._settling:
            await asyncio.wait(self._settling)
        for response_id, hold in self._turns.items():
            output = self._reader.delivered_tokens(response_id)
            await self._settle(hold, _bounded(hold, hold.read_tokens, output))
        for hold in self._free[: self._promised]:  # the upstream may have read them
            await self._settle(hold, _bounded(hold, self._reader.input_tokens, 0))
        rest = Usage(bytes=self._book.rest_bytes())
        for hold in self._free[self._promised :]:
            if hold is self._kept:  # the connection stays a request
                for extra in hold.extras:
                    await self._allowance.cancel(extra)
                await self._allowance.settle(hold.first, rest)
                rest = Usage()
            else:
                await self._give_back(hold)
        if rest.bytes:
            await self._allowance.charge(rest)

    async def _cover(self, sent: Sent) -> Refused | None:
        """Make sure that a free turn is held that covers what is sent; wait for one under way."""
        output = sent.max_output_tokens
        if output is None:
            output = self._model_output_tokens
        while not self._covered(sent.input_tokens, output):
            self._moved.clear()
            refused = await self._hold_more(sent.input_tokens, output)
            if refused is None:
                continue
            if self._quiet or refused.reason is Reason.REQUEST_EXCEEDS_LIMIT:
                return refused
            await self._moved.wait()
        return None

    @property
    def _quiet(self) -> bool:
        return not self._turns and not self._promised

    def _note(self) -> None:
        if self._quiet:
            self._paused.set()
        else:
            self._paused.clear()

    @property
    def _spare(self) -> _Hold | None:
        """A turn that is held for no response yet."""
        return self._free[-1] if len(self._free) > self._promised else None

    def _covered(self, read: int, output: int) -> bool:
        hold = self._spare
        if hold is None or hold.input_tokens < read:
            return False
        return hold.output_tokens >= output or hold.budget_tokens is not None

    async def _hold_more(self, read: int, output: int) -> Refused | None:
        """Hold a turn, or add to the one that is too small; it may be gone once that is done."""
        hold = self._spare
        if hold is not None and hold.output_tokens < output and hold.budget_tokens is None:
            self._free.remove(hold)
            await self._give_back(hold)
            hold = None
        if hold is None:
            ask = self._asking(read + _HEADROOM_TOKENS, output)
            granted = await self._allowance.hold(ask, _TURN)
            if isinstance(granted, Refused):
                return granted
            self._free.append(_Hold(granted))
            return None
        more = read - hold.input_tokens + _HEADROOM_TOKENS
        granted = await self._allowance.hold(self._asking(more, 0), _TOKENS)
        if isinstance(granted, Refused):
            return granted
        hold.extras.append(granted.reservation)
        hold.input_tokens += more
        return None

    async def _begin(self, started: Started) -> Stop | None:
        """Give a response the turn that is held for it; one that nobody asked for needs one too."""
        read = self._reader.input_tokens
        if not self._free:
            refused = await self._hold_more(read, self._model_output_tokens)
            if refused is not None:
                return self._stop(refused, None)
        hold = self._turns[started.id] = self._free.pop(0)
        hold.read_tokens = read
        self._promised = max(0, self._promised - 1)
        self._note()
        return None

    async def _charge(self, settled: Settled) -> None:
        """Charge a turn as reported; what nothing was held for is charged all the same."""
        hold = None
        if settled.id is not None:
            hold = self._turns.pop(settled.id, None)
        elif self._ask.model is None and self._free:
            hold = self._free.pop(0)  # a session that only transcribes has no other turns
        usage = settled.usage
        if hold is None:
            await self._allowance.charge(self._book.turned(usage))
            return
        if usage.estimated:
            usage = _bounded(hold, usage.input_tokens, usage.output_tokens)
        await self._settle(hold, usage)

    async def _settle(self, hold: _Hold, usage: Usage) -> None:
        usage = self._book.turned(usage)
        for extra in hold.extras:
            await self._allowance.settle(extra, Usage())
        await self._allowance.settle(hold.first, usage)

    async def _give_back(self, hold: _Hold) -> None:
        for reservation in (hold.first, *hold.extras):
            await self._allowance.cancel(reservation)

    def _asking(self, read: int, output: int) -> Ask:
        return replace(self._ask, input_tokens=read, max_output_tokens=output)

    def _over_budget(self) -> Stop | None:
        for response_id, hold in self._turns.items():
            budget = hold.budget_tokens
            if budget is not None and self._reader.delivered_tokens(response_id) > budget:
                text = self._allowance.refuse(Reason.TOKEN_LIMIT_EXCEEDED, None)
                return self._stopped(text, None)
        return None

    def _not_taken(self, sentence: str, event: bytes | None) -> Say:
        text = self._allowance.refuse(Reason.INVALID_BODY, sentence)
        return Say(self._dialect.error_event(text, event_id_of(event or b"")))

    def _stop(self, refused: Refused, event: bytes | None) -> Stop:
        return self._stopped(refused.tell(None), event)

    def _stopped(self, text: RefusalText, event: bytes | None) -> Stop:
        told = self._dialect.error_event(text, event_id_of(event or b""))
        return Stop(text.reason, text.decision_id, told)

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        """Run a settlement that nobody may cut in two."""
        task = asyncio.ensure_future(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task


def _bounded(hold: _Hold, read: int, output: int) -> Usage:
    """Return an estimate that is never above what was held."""
    return Usage(min(read, hold.input_tokens), min(output, hold.output_tokens), estimated=True)
