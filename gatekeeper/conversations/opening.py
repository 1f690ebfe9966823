"""Delivers an admitted WebSocket: opens it upstream, lets both sides talk, settles and records."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from msgspec import Struct
from msgspec.structs import asdict, replace

from gatekeeper.conversations.metering import Granted, MessageMeter
from gatekeeper.conversations.passing import Conversation, Leaving
from gatekeeper.conversations.turns import TurnMeter
from gatekeeper.dialects import REALTIME
from gatekeeper.dialects.realtime_reader import RealtimeReader
from gatekeeper.facts.credentials import CREDENTIAL_PROTOCOL
from gatekeeper.listener.answers import grant_headers, refusal_text
from gatekeeper.listener.onward import headers_onward
from gatekeeper.listener.websocket import Switching
from gatekeeper.policy.limits import Claim
from gatekeeper.policy.model import NO_PARTS, Usage, UsageParts
from gatekeeper.policy.words import CredentialKind, Reason, Unit, Verdict
from gatekeeper.storage.decision_log import encode_record
from gatekeeper.upstream.client import Outgoing
from gatekeeper.upstream.relay import Ending, pass_on
from gatekeeper.upstream.websocket import Opened, open_line
from gatekeeper.websocket.handshake import PROTOCOLS
from gatekeeper.websocket.line import Line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from aiohttp.web import StreamResponse

    from gatekeeper.conversations.metering import Meter, Refused
    from gatekeeper.delivery import Admitted, Delivery
    from gatekeeper.dialects.base import Ask, RefusalText
    from gatekeeper.listener.websocket import Upgrade
    from gatekeeper.storage.limiter import Reservation
    from gatekeeper.upstream.client import Answer
    from gatekeeper.websocket.frames import Message

OF_A_TURN: Final = frozenset(Unit) - {Unit.CONCURRENCY}
"""What a turn takes; the connection keeps its slot as long as it lasts."""
_NEVER_CORRECTED: Final = frozenset({Unit.CONCURRENCY, Unit.REQUESTS})
_SWITCHING: Final = 101


class Socket(Struct, frozen=True, gc=False):
    """A call that asks for a WebSocket, on its way to an upstream."""

    call: Admitted
    """Its reservation is for the first turn."""
    upgrade: Upgrade
    slot: Reservation | None
    """What is held as long as the connection lasts."""
    hold_more: Callable[[Ask, frozenset[Unit], int], Awaitable[Granted | Refused]]


@dataclass(frozen=True, slots=True)
class Conversations:
    """What it takes to let callers and upstreams talk; built in :mod:`gatekeeper.app`."""

    delivery: Delivery
    random_bytes: Callable[[int], bytes]
    """Makes keys and masks, which nobody may foresee."""
    leaving: Leaving = field(default_factory=Leaving)

    async def deliver(self, socket: Socket) -> StreamResponse:
        """Open a WebSocket and stay with it until it ends; one that is refused is an answer."""
        delivery, call = self.delivery, socket.call
        book = _Book(delivery, call)
        meter = self._meter(socket, book)
        talked = True
        try:
            reached = await self._open(socket)
            if isinstance(reached, Opened):
                return await self._talk(socket, reached, meter, book)
            talked = False
            return await delivery.deliver(call, reached)  # settles and records by itself
        finally:
            # Whoever hangs up now must not keep the books from being closed.
            await _to_its_end(self._settle(socket, meter, book, talked=talked))

    async def _settle(self, socket: Socket, meter: Meter, book: _Book, *, talked: bool) -> None:
        if talked:  # to its end, or until the caller was gone
            await meter.finish()
            book.close()
        if socket.slot is not None:
            await self.delivery.limiter.settle(socket.slot, Usage(), self.delivery.clock())

    async def _open(self, socket: Socket) -> Opened | Answer | Reason:
        """Shake hands with the upstream."""
        delivery, call = self.delivery, socket.call
        route, now = call.taken.route, delivery.clock()
        endpoint = delivery.routes.pick(route, now.unix_s)
        headers = headers_onward(call.head, route, call.facts.credential.kind)
        outgoing = Outgoing("GET", endpoint.at(call.head.target.raw), headers, None, route.tls)
        reached = await open_line(
            delivery.client,
            outgoing,
            _protocols_for(socket),
            random_bytes=self.random_bytes,
            most_bytes=delivery.settings.sizes.max_message_bytes,
        )
        if reached is Reason.UPSTREAM_UNREACHABLE:
            delivery.routes.failed(endpoint, now.unix_s)
        elif not isinstance(reached, Reason):
            delivery.routes.succeeded(endpoint)
            took_us = delivery.clock().monotonic_us - now.monotonic_us
            delivery.metrics.observe("gatekeeper_first_byte_seconds", took_us * 1e-6)
        return reached

    async def _talk(
        self, socket: Socket, opened: Opened, meter: Meter, book: _Book
    ) -> StreamResponse:
        call, settings = socket.call, self.delivery.settings
        request, response = call.request, Switching()
        talk: Conversation | None = None
        try:
            ours = grant_headers(request, call.decision, settings.cors)
            headers = pass_on(opened.headers, ours)
            if opened.protocol is not None:
                headers[PROTOCOLS] = opened.protocol
            await response.switch(request, socket.upgrade, headers)
            caller = Line(
                request.protocol, most_bytes=settings.sizes.max_message_bytes, new_mask=None
            )
            request.protocol.set_parser(cast("Any", caller))
            talk = Conversation(caller, opened.line, meter, settings.deadlines, book.note)
            await talk.run(self.leaving)
        finally:
            if talk is not None:
                book.ending = talk.ending
            if talk is not None and talk.closed_properly:
                opened.close()
            else:
                opened.abort()
        return response

    def _meter(self, socket: Socket, book: _Book) -> Meter:
        call = socket.call
        allowance = _Allowance(self.delivery, socket)
        held, ask = call.terms.call, call.taken.ask
        first = Granted(
            call.reservation, held.input_tokens, held.max_output_tokens, call.terms.budget_tokens
        )
        if ask is None:
            return MessageMeter(allowance, first, book)
        return TurnMeter(
            REALTIME,
            RealtimeReader(self.delivery.plan.count),
            allowance,
            ask,
            first,
            book=book,
            model_output_tokens=call.prices.row(ask.model).max_output_tokens,
        )


class _Allowance:
    """What the limits of one conversation leave; see :class:`.metering.Allowance`."""

    def __init__(self, delivery: Delivery, socket: Socket) -> None:
        self._delivery = delivery
        self._socket = socket
        self._charges = 0

    async def hold(
        self, ask: Ask, units: frozenset[Unit], body_bytes: int = 0
    ) -> Granted | Refused:
        return await self._socket.hold_more(ask, units, body_bytes)

    async def settle(self, reservation: Reservation | None, usage: Usage) -> None:
        if reservation is not None:
            delivery = self._delivery
            await delivery.limiter.settle(reservation, usage, delivery.clock())

    async def cancel(self, reservation: Reservation | None) -> None:
        if reservation is not None:
            delivery = self._delivery
            await delivery.limiter.cancel(reservation, delivery.clock())

    async def charge(self, usage: Usage) -> None:
        """Hold nothing, which always fits, and settle it to what was used."""
        delivery, call = self._delivery, self._socket.call
        if call.reservation is None:
            return
        claims = [
            Claim(claim.quota, claim.partition, 0)
            for claim in call.reservation.claims
            if claim.quota.unit not in _NEVER_CORRECTED
        ]
        self._charges += 1
        hold_id = f"{call.decision.id}.{self._charges}"
        hold_s = delivery.settings.deadlines.hold_s
        reserved = await delivery.limiter.reserve(claims, delivery.clock(), hold_s, hold_id)
        await self.settle(reserved.held, usage)

    def refuse(self, reason: Reason, detail: str | None) -> RefusalText:
        call = self._socket.call
        decision = replace(call.decision, verdict=Verdict.INVALID, reason=reason, detail=detail)
        return refusal_text(decision, self._delivery.settings)


class _Book:
    """Counts and records one conversation: its turns as they end, and the whole at its end."""

    def __init__(self, delivery: Delivery, call: Admitted) -> None:
        self._delivery = delivery
        self._call = call
        self._turns = 0
        self._total = Usage()
        self._messages = {True: 0, False: 0}
        self._bytes = {True: 0, False: 0}
        self._charged_bytes = 0
        self.ending = Ending.CLIENT_GONE

    def note(self, message: Message, from_caller: bool) -> None:  # noqa: FBT001 - one of two ways
        """Count what passed."""
        way = "from_caller" if from_caller else "to_caller"
        self._messages[from_caller] += 1
        self._bytes[from_caller] += message.wire_bytes
        metrics = self._delivery.metrics
        metrics.count("gatekeeper_websocket_messages", way, message.opcode.name.lower())
        metrics.count("gatekeeper_websocket_bytes", way, by=message.wire_bytes)

    def turned(self, usage: Usage) -> Usage:
        """Price, count and record a turn."""
        delivery, call = self._delivery, self._call
        cents = call.prices.cents(call.facts.call.model, usage)
        usage = replace(usage, cost_cents=cents, bytes=self.rest_bytes())
        now = delivery.clock()
        self._turns += 1
        self._total = _sum(self._total, usage)
        self._count(usage, now.unix_s)
        delivery.log.append(
            encode_record(
                {
                    "kind": "turn",
                    "id": call.decision.id,
                    "at": now.unix_s,
                    "turn": self._turns,
                    "usage": usage,
                }
            )
        )
        estimated = "yes" if usage.estimated else "no"
        metrics = delivery.metrics
        metrics.count("gatekeeper_tokens", "input", estimated, by=usage.input_tokens)
        metrics.count("gatekeeper_tokens", "output", estimated, by=usage.output_tokens)
        return usage

    def rest_bytes(self) -> int:
        """Return the bytes that no turn has been charged for, once."""
        total = sum(self._bytes.values())
        rest, self._charged_bytes = total - self._charged_bytes, total
        return rest

    def close(self) -> None:
        """Record how the conversation ended, and the sum of its turns."""
        delivery, call, facts = self._delivery, self._call, self._call.facts
        now = delivery.clock()
        upstream = call.taken.route.name
        if facts.credential.kind is CredentialKind.OPAQUE:
            delivery.directory.note_opaque_success(facts.account.id, now.unix_s)
        if not self._turns:
            self._count(Usage(), now.unix_s)
        usage = replace(self._total, bytes=sum(self._bytes.values()))
        delivery.log.append(
            encode_record(
                {
                    "kind": "outcome",
                    "id": call.decision.id,
                    "at": now.unix_s,
                    "upstream": upstream,
                    "status": _SWITCHING,
                    "failure": None,
                    "ending": self.ending,
                    "bytes_sent": self._bytes[False],
                    "messages": {
                        "from_caller": self._messages[True],
                        "to_caller": self._messages[False],
                    },
                    "turns": self._turns,
                    "usage": usage,
                    "took_s": round(now.unix_s - facts.at, 6),
                }
            )
        )
        delivery.metrics.count("gatekeeper_answers", upstream, "1xx", self.ending)
        if delivery.tracing is not None:
            delivery.tracing.settled(upstream, self.ending, usage)

    def _count(self, usage: Usage, at: float) -> None:
        facts = self._call.facts
        row = self._call.prices.row(facts.call.model)
        self._delivery.usage.settled(facts.account.id, at, row.model, usage)


async def _to_its_end(work: Coroutine[None, None, None]) -> None:
    """Wait for ``work`` however often the call is cancelled meanwhile; then it is."""
    task, cancelled = asyncio.create_task(work), False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError


def _protocols_for(socket: Socket) -> tuple[str, ...]:
    """Return the subprotocols to offer; a key of ours among them is nobody else's to see."""
    call = socket.call
    own = call.facts.credential.kind is CredentialKind.API_KEY
    if call.taken.route.credential is None and not own:
        return socket.upgrade.protocols
    return tuple(
        each for each in socket.upgrade.protocols if not each.startswith(CREDENTIAL_PROTOCOL)
    )


def _sum(one: Usage, other: Usage) -> Usage:
    parts = NO_PARTS
    if one.parts is not NO_PARTS or other.parts is not NO_PARTS:
        theirs = asdict(other.parts)
        parts = UsageParts(
            **{name: number + theirs[name] for name, number in asdict(one.parts).items()}
        )
    return Usage(
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        one.cost_cents + other.cost_cents,
        estimated=one.estimated or other.estimated,
        parts=parts,
    )
