"""Turns of a conversation against limits: what is held, settled, given back, whatever happens."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.conversations.metering import Granted, MessageMeter, Refused, Say, Stop
from gatekeeper.conversations.turns import TurnMeter
from gatekeeper.dialects import REALTIME
from gatekeeper.dialects.base import Ask, RefusalText
from gatekeeper.dialects.realtime_reader import RealtimeReader
from gatekeeper.policy.words import Reason, Unit
from gatekeeper.storage.limiter import Reservation
from gatekeeper.websocket.frames import Message, Opcode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gatekeeper.policy.model import Usage

MOST = 100
MODEL = "demo"


@dataclass
class Purse:
    """An allowance of output tokens, with a book of every reservation."""

    left: int
    open: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Id to input and output tokens held."""
    charged: list[Usage] = field(default_factory=list)
    given_back: int = 0
    number: int = 0
    before_answer: Callable[[], Awaitable[None]] | None = None

    async def hold(
        self, ask: Ask, units: frozenset[Unit], body_bytes: int = 0
    ) -> Granted | Refused:
        """Hold, or refuse what does not fit."""
        if self.before_answer is not None:
            await self.before_answer()
        output = ask.max_output_tokens or 0
        if output > self.left:
            reason = Reason.TOKEN_LIMIT_EXCEEDED
            return Refused(reason, lambda detail: self.refuse(reason, detail))
        self.left -= output
        self.number += 1
        self.open[f"h{self.number}"] = (ask.input_tokens, output)
        return Granted(Reservation(f"h{self.number}", ()), ask.input_tokens, output)

    async def settle(self, reservation: Reservation | None, usage: Usage) -> None:
        """Settle what is open, once."""
        assert reservation is not None
        _, output = self.open.pop(reservation.hold_id)
        self.left += output - usage.output_tokens
        self.charged.append(usage)

    async def cancel(self, reservation: Reservation | None) -> None:
        """Give back what is open, once."""
        assert reservation is not None
        _, output = self.open.pop(reservation.hold_id)
        self.left += output
        self.given_back += 1

    async def charge(self, usage: Usage) -> None:
        """Charge without a hold."""
        self.left -= usage.output_tokens
        self.charged.append(usage)

    def refuse(self, reason: Reason, detail: str | None) -> RefusalText:
        """Return what is told."""
        return RefusalText(429, reason, detail or "no", "dec_1")


@dataclass
class Book:
    """Remembers turns."""

    turns: list[Usage] = field(default_factory=list)

    def turned(self, usage: Usage) -> Usage:
        """Note one."""
        self.turns.append(usage)
        return usage

    def rest_bytes(self) -> int:
        """Owe nothing."""
        return 0


def text(kind: str, **fields: Any) -> Message:
    """Return an event as a message."""
    payload = json.dumps({"type": kind, **fields}).encode()
    return Message(Opcode.TEXT, payload, len(payload) + 2)


async def metering(left: int) -> tuple[TurnMeter, Purse, Book]:
    """Return a meter whose first turn is held."""
    purse, book = Purse(left), Book()
    ask = Ask(MODEL, stream=True, max_output_tokens=None)
    first = await purse.hold(Ask(MODEL, max_output_tokens=MOST), frozenset())
    assert isinstance(first, Granted)
    meter = TurnMeter(
        REALTIME, RealtimeReader(), purse, ask, first, book=book, model_output_tokens=MOST
    )
    return meter, purse, book


async def test_an_unused_turn_is_a_request_and_nothing_else() -> None:
    """The connection's own request stays; tokens come back."""
    meter, purse, book = await metering(1_000)
    await meter.finish()
    assert (purse.left, purse.open, purse.given_back) == (1_000, {}, 0)
    assert [usage.output_tokens for usage in purse.charged] == [0]
    assert book.turns == []


async def test_two_responses_asked_for_at_once_hold_two_turns() -> None:
    """Before the upstream has told of either."""
    meter, purse, _ = await metering(1_000)
    assert await meter.from_caller(text("response.create")) is None
    assert await meter.from_caller(text("response.create")) is None
    assert len(purse.open) >= 2
    for name in ("a", "b"):
        assert await meter.from_upstream(text("response.created", response={"id": name})) is None
    reported = {"input_tokens": 1, "output_tokens": 2}
    for name in ("b", "a"):
        done = text("response.done", response={"id": name, "usage": reported})
        assert await meter.from_upstream(done) is None
    await meter.finish()
    assert purse.open == {}
    assert purse.left == 1_000 - 4


async def test_an_error_frees_the_turn_for_the_next_response() -> None:
    """A response that never begins leaves nothing held."""
    meter, purse, _ = await metering(MOST)
    assert await meter.from_caller(text("response.create")) is None
    assert await meter.from_upstream(text("error", error={})) is None
    assert await meter.from_caller(text("response.create")) is None
    await meter.from_upstream(text("response.created", response={"id": "a"}))
    done = {"id": "a", "usage": {"input_tokens": 1, "output_tokens": 2}}
    await meter.from_upstream(text("response.done", response=done))
    await meter.finish()
    assert (purse.open, purse.left) == ({}, MOST - 2)


async def test_a_response_that_was_promised_is_charged_its_input() -> None:
    """The upstream may have read it, though it never said so."""
    meter, purse, book = await metering(1_000)
    await meter.from_caller(text("response.create", response={"instructions": "Say a word."}))
    await meter.finish()
    [usage] = book.turns
    assert usage.estimated
    assert usage.input_tokens > 3
    assert purse.left == 1_000


async def test_a_turn_that_is_taken_while_more_is_held_for_it() -> None:
    """The two ways interleave: what one waits for, the other may have taken."""
    meter, purse, _ = await metering(1_000)

    async def begin() -> None:
        purse.before_answer = None
        await meter.from_upstream(text("response.created", response={"id": "a"}))

    purse.before_answer = begin
    long = {"instructions": "word " * 200}
    assert await meter.from_caller(text("response.create", response=long)) is None
    done = {"id": "a", "usage": {"input_tokens": 1, "output_tokens": 2}}
    await meter.from_upstream(text("response.done", response=done))
    assert await meter.from_upstream(text("response.created", response={"id": "b"})) is None
    done["id"] = "b"
    await meter.from_upstream(text("response.done", response=done))
    await meter.finish()
    assert (purse.open, purse.left) == ({}, 1_000 - 4)


async def test_pauses() -> None:
    """Between turns there is one, within a turn there is none."""
    meter, _, _ = await metering(1_000)
    await meter.pause()
    await meter.from_caller(text("response.create"))
    waiting = asyncio.ensure_future(meter.pause())
    await asyncio.sleep(0)
    assert not waiting.done()
    await meter.from_upstream(text("response.created", response={"id": "a"}))
    await meter.from_upstream(text("response.done", response={"id": "a"}))
    await waiting
    await meter.finish()


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG, Opcode.CLOSE])
async def test_control_frames_are_no_events(opcode: Opcode) -> None:
    """They pass, whatever they hold."""
    meter, _, _ = await metering(1_000)
    assert await meter.from_caller(Message(opcode, b"", 6)) is None
    assert await meter.from_upstream(Message(opcode, b"", 2)) is None
    await meter.finish()


_IDS = st.sampled_from(["a", "b", "c"])
_NUMBERS = st.integers(0, 60)
_STEPS = st.one_of(
    st.tuples(st.just("create"), st.integers(1, 150) | st.none()),
    st.tuples(st.just("append"), st.integers(1, 20_000)),
    st.tuples(st.just("update"), st.integers(1, 150) | st.just("inf")),
    st.tuples(st.just("created"), _IDS),
    st.tuples(st.just("delta"), _IDS),
    st.tuples(st.just("done"), _IDS, _NUMBERS, _NUMBERS),
    st.tuples(st.just("silent"), _IDS),
    st.tuples(st.just("error")),
)


def _message(step: tuple[Any, ...]) -> Message:
    """Return the event of a step."""
    kind, *rest = step
    if kind == "create":
        bound = {} if rest[0] is None else {"max_output_tokens": rest[0]}
        return text("response.create", response=bound)
    if kind == "append":
        return text("input_audio_buffer.append", audio="A" * rest[0])
    if kind == "update":
        return text("session.update", session={"max_output_tokens": rest[0]})
    if kind == "created":
        return text("response.created", response={"id": rest[0]})
    if kind == "delta":
        return text("response.output_text.delta", response_id=rest[0], delta=" cat")
    if kind == "error":
        return text("error")
    usage = None if kind == "silent" else {"input_tokens": rest[1], "output_tokens": rest[2]}
    return text("response.done", response={"id": rest[0], "usage": usage})


async def _play(steps: list[tuple[Any, ...]], left: int) -> None:
    meter, purse, book = await metering(left)
    reported: dict[str, tuple[int, int]] = {}
    ended: set[str] = set()
    for step in steps:
        message = _message(step)
        if step[0] == "done" and step[1] not in ended:
            reported[step[1]] = step[2:]
        if step[0] in {"done", "silent"}:
            ended.add(step[1])
        try:
            if step[0] in {"create", "append", "update"}:
                async with asyncio.timeout(0.001):
                    said = await meter.from_caller(message)
            else:
                said = await meter.from_upstream(message)
        except TimeoutError:
            break  # it waits for a turn that no further step ends
        if isinstance(said, Stop):
            break
        assert said is None or isinstance(said, Say)
    await meter.finish()
    assert purse.open == {}
    exact = [(u.input_tokens, u.output_tokens) for u in book.turns if not u.estimated]
    assert sorted(exact) == sorted(reported.values())
    assert all(usage.output_tokens <= 150 for usage in book.turns)
    assert purse.left == left - sum(usage.output_tokens for usage in book.turns)


@settings(max_examples=200)
@given(st.lists(_STEPS, max_size=25), st.sampled_from([100, 250, 10_000]))
def test_laws_of_turns(steps: list[tuple[Any, ...]], left: int) -> None:
    """Whatever both sides say: nothing stays held, and reported usage is charged to the token."""
    asyncio.run(_play(steps, left))


async def test_messages_pay_for_what_has_passed() -> None:
    """Bytes of the upstream are owed until the next message, or until they are many."""

    class Bytes(Purse):
        owed: list[int]

        async def hold(
            self, ask: Ask, units: frozenset[Unit], body_bytes: int = 0
        ) -> Granted | Refused:
            self.owed.append(body_bytes)
            return await super().hold(ask, units, body_bytes)

    purse = Bytes(0)
    purse.owed = []
    meter = MessageMeter(purse, Granted(Reservation("first", ())), Book())
    purse.open["first"] = (0, 0)
    assert await meter.from_upstream(Message(Opcode.BINARY, b"", 100)) is None
    assert await meter.from_caller(Message(Opcode.BINARY, b"", 20)) is None
    assert await meter.from_upstream(Message(Opcode.BINARY, b"", 70_000)) is None
    assert await meter.from_upstream(Message(Opcode.BINARY, b"", 7)) is None
    await meter.finish()
    assert purse.owed == [120, 70_000]
    assert [usage.bytes for usage in purse.charged] == [120, 70_000, 7]
