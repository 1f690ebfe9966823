"""One end of a WebSocket: messages in, messages out, over a connection of aiohttp's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp.http import StreamWriter

from gatekeeper.websocket.frames import (
    CloseCode,
    FrameError,
    FrameReader,
    Message,
    Opcode,
    close_payload,
    frame_head,
    masked_with,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.base_protocol import BaseProtocol

_READ_AHEAD_BYTES: Final = 65_536
_JOINED_BYTES: Final = 65_536
"""Up to here head and payload leave in one write; a larger payload is not copied for it."""


class Line:
    """One end of a WebSocket. Also aiohttp's idea of a parser, which connections feed.

    Bytes wait unread until :meth:`receive` wants them; the connection is paused meanwhile.
    """

    __slots__ = (
        "_deaf",
        "_lost",
        "_new_mask",
        "_protocol",
        "_reader",
        "_said_goodbye",
        "_waiter",
        "_writer",
    )

    def __init__(
        self, protocol: BaseProtocol, *, most_bytes: int, new_mask: Callable[[], bytes] | None
    ) -> None:
        """``new_mask`` returns four bytes that nobody can foresee; ``None`` for a server's end."""
        self._protocol = protocol
        self._reader = FrameReader(masked=new_mask is None, most_bytes=most_bytes)
        self._new_mask = new_mask
        self._writer = StreamWriter(protocol, asyncio.get_running_loop())
        self._waiter: asyncio.Future[None] | None = None
        self._lost = False
        self._deaf = False
        """Whether what still comes is thrown away: nobody can tell any more what it means."""
        self._said_goodbye = False

    @property
    def connected(self) -> bool:
        """Whether anything can still be sent."""
        transport = self._protocol.transport
        return transport is not None and not transport.is_closing()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take what the connection received."""
        if self._deaf:
            return False, b""
        self._reader.feed(data)
        if self._waiter is not None:
            self._wake()
        elif self._reader.buffered_bytes > _READ_AHEAD_BYTES and not self._protocol._reading_paused:  # noqa: SLF001 - aiohttp offers no other look at it
            self._protocol.pause_reading()
        return False, b""

    def feed_eof(self) -> None:
        """Note that the connection is gone."""
        self._lost = True
        self._wake()

    async def receive(self) -> Message | None:
        """Return the next message, ``None`` when the connection is gone.

        Raises :class:`~gatekeeper.websocket.frames.FrameError`.
        """
        while (message := self._next()) is None:
            if self._lost:
                return None
            if self._protocol._reading_paused:  # noqa: SLF001 - as above
                self._protocol.resume_reading()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return message

    def unread(self) -> Message | None:
        """Return the next message that has come already; raises as :meth:`receive` does."""
        return self._next()

    def send(self, opcode: Opcode, payload: bytes) -> None:
        """Send one frame; nothing follows a close frame. Raises ``ConnectionError``."""
        transport = self._protocol.transport
        if transport is None or transport.is_closing() or self._said_goodbye:
            raise ConnectionResetError
        self._said_goodbye = opcode is Opcode.CLOSE
        head = frame_head(opcode, len(payload), masked=self._new_mask is not None)
        body: bytes | bytearray = payload
        if self._new_mask is not None:
            mask = self._new_mask()
            head, body = head + mask, masked_with(mask, payload)
        if len(body) <= _JOINED_BYTES:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)

    async def drain(self, within_s: float) -> None:
        """Wait until the other end has taken most of it; raises ``TimeoutError``."""
        if self._protocol.writing_paused:
            async with asyncio.timeout(within_s):
                await self._writer.drain()

    def say_goodbye(self, code: CloseCode, reason: str = "") -> None:
        """Send a close frame, if that can still be done and was not."""
        if self.connected and not self._said_goodbye:
            self.send(Opcode.CLOSE, close_payload(code, reason))

    def _next(self) -> Message | None:
        try:
            return None if self._deaf else self._reader.next()
        except FrameError:
            self._deaf = True
            raise

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
