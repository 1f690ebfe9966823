"""What is counted of a conversation, and the one that counts messages and bytes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct

from gatekeeper.dialects.base import Ask
from gatekeeper.policy.model import Usage
from gatekeeper.policy.words import Reason, Unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.dialects.base import RefusalText
    from gatekeeper.storage.limiter import Reservation
    from gatekeeper.websocket.frames import Message

_MESSAGE: Final = frozenset({Unit.REQUESTS, Unit.BYTES})
_VOLUME: Final = frozenset({Unit.BYTES})
_UNPAID_BYTES: Final = 65_536
"""What an upstream may have sent before it is charged."""


class Granted(Struct, frozen=True, gc=False):
    """What was held of the limits; no reservation where none is asked (bypass)."""

    reservation: Reservation | None
    input_tokens: int = 0
    output_tokens: int = 0
    budget_tokens: int | None = None
    """Output after which the answer is ended: a quota gave less than was asked for."""


class Refused(Struct, frozen=True, gc=False):
    """Why nothing more is held. Nobody was told yet, and nothing recorded."""

    reason: Reason
    tell: Callable[[str | None], RefusalText]
    """Records the refusal and returns what the caller is told; takes a sentence to add."""


class Allowance(Protocol):
    """What one caller's limits leave, asked for again and again as a conversation goes on."""

    async def hold(
        self, ask: Ask, units: frozenset[Unit], body_bytes: int = 0
    ) -> Granted | Refused:
        """Judge a further piece as a call of its own, and hold it."""
        ...

    async def settle(self, reservation: Reservation | None, usage: Usage) -> None:
        """Replace what was held by what was used."""
        ...

    async def cancel(self, reservation: Reservation | None) -> None:
        """Give back what was held."""
        ...

    async def charge(self, usage: Usage) -> None:
        """Charge what nothing is held for, whether it fits or not."""
        ...

    def refuse(self, reason: Reason, detail: str | None) -> RefusalText:
        """Return what the caller is told of a message that cannot be taken."""
        ...


class Book(Protocol):
    """Keeps account of one conversation."""

    def turned(self, usage: Usage) -> Usage:
        """Note a turn; return its usage with its price, and the bytes since the last one."""
        ...

    def rest_bytes(self) -> int:
        """Return the bytes that no turn has been charged for, once."""
        ...


class Say(Struct, frozen=True, gc=False):
    """The message is not passed on; its sender is told this instead."""

    event: bytes


class Stop(Struct, frozen=True, gc=False):
    """The conversation is at its end, whatever the other side would still say."""

    reason: Reason
    decision_id: str
    event: bytes | None
    """Told to the caller before the connection is closed."""


class Meter(Protocol):
    """Counts the messages of one conversation, and says which may pass."""

    async def from_caller(self, message: Message) -> Say | Stop | None:
        """Judge a message of the caller before it is passed on."""
        ...

    async def from_upstream(self, message: Message) -> Stop | None:
        """Count a message of the upstream before it is passed on."""
        ...

    async def pause(self) -> None:
        """Return once nothing is under way, so that the conversation could end there."""

    async def finish(self) -> None:
        """Settle what is still held; the conversation is over."""
        ...


class MessageMeter:
    """A WebSocket of no known family: every message is a request, and every byte counts."""

    def __init__(self, allowance: Allowance, first: Granted, book: Book) -> None:
        self._allowance = allowance
        self._first = first
        self._book = book
        self._unpaid_bytes = 0

    async def pause(self) -> None:
        """Return at once: nobody knows where it could end, so it may anywhere."""

    async def from_caller(self, message: Message) -> Say | Stop | None:
        """Hold a request for a message, and its bytes with those that are still to be paid."""
        return await self._pay(message.wire_bytes, _MESSAGE if message.is_data else _VOLUME)

    async def from_upstream(self, message: Message) -> Stop | None:
        """Count bytes; now and then they are charged."""
        if self._unpaid_bytes + message.wire_bytes < _UNPAID_BYTES:
            self._unpaid_bytes += message.wire_bytes
            return None
        return await self._pay(message.wire_bytes, _VOLUME)

    async def finish(self) -> None:
        """Charge the bytes that are left, beside the connection's own request."""
        rest = Usage(bytes=self._unpaid_bytes)
        await self._allowance.settle(self._first.reservation, rest)

    async def _pay(self, more: int, units: frozenset[Unit]) -> Stop | None:
        """Charge ``more`` bytes and what has passed unpaid; that is owed even if it is refused."""
        passed, self._unpaid_bytes = self._unpaid_bytes, 0
        granted = await self._allowance.hold(Ask(), units, passed + more)
        if isinstance(granted, Refused):
            self._unpaid_bytes += passed
            text = granted.tell(None)
            return Stop(text.reason, text.decision_id, None)
        await self._allowance.settle(granted.reservation, Usage(bytes=passed + more))
        return None
