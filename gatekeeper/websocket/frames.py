"""Frames of WebSocket (RFC 6455), without I/O: strict, since whoever is lenient can be fooled.

Extensions are never agreed on, so reserved bits are always wrong.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct as Packing
from typing import Final

from aiohttp._websocket.helpers import websocket_mask  # in C; nothing public does it
from msgspec import Struct

_FIN: Final = 0x80
_RESERVED: Final = 0x70
_MASKED: Final = 0x80
_MOST_CONTROL_BYTES: Final = 125
_TWO_MORE: Final = 126
_EIGHT_MORE: Final = 127
_LONG: Final = 0x1_0000
_MASK_BYTES: Final = 4
_SHORT_HEAD: Final = Packing("!BB")
_MIDDLE_HEAD: Final = Packing("!BBH")
_LONG_HEAD: Final = Packing("!BBQ")
_CODE: Final = Packing("!H")


class Opcode(IntEnum):
    """What a frame is (RFC 6455, 5.2)."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class CloseCode(IntEnum):
    """Why a connection is closed (RFC 6455, 7.4.1), as far as the gate says it itself."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    INVALID_TEXT = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012


_SENDABLE: Final = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})
"""Codes that may stand in a frame: 1005, 1006 and 1015 only tell that there was none."""
_DATA: Final = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION})
_LONGEST_REASON: Final = 123


class Message(Struct, frozen=True, gc=False):
    """A whole message, or a control frame."""

    opcode: Opcode
    payload: bytes
    wire_bytes: int
    """What its frames weighed, heads included."""

    @property
    def is_data(self) -> bool:
        """Whether it is text or binary."""
        return self.opcode in _DATA


class FrameError(Exception):
    """The other end broke the protocol or a bound; ``code`` is what it is told."""

    def __init__(self, code: CloseCode) -> None:
        """Keep the code alone: nothing that was sent is repeated."""
        super().__init__(code.name)
        self.code = code


class FrameReader:
    """Turns bytes, cut anywhere, into messages; holds at most one message and one read more."""

    __slots__ = ("_buffer", "_masked", "_most_bytes", "_opcode", "_parts", "_wire_bytes")

    def __init__(self, *, masked: bool, most_bytes: int) -> None:
        """``masked``: whether the other end is a client, which must mask what it sends (5.1)."""
        self._masked = masked
        self._most_bytes = most_bytes
        self._buffer = bytearray()
        self._parts = bytearray()
        self._opcode: Opcode | None = None
        """Of the message that came in part."""
        self._wire_bytes = 0

    @property
    def buffered_bytes(self) -> int:
        """How much has come and was not read."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._buffer += data

    def next(self) -> Message | None:
        """Return the next message, ``None`` when more must come; raises :class:`FrameError`."""
        while (frame := self._frame()) is not None:
            fin, opcode, payload, wire_bytes = frame
            if opcode not in _DATA:
                return Message(opcode, _judged_control(opcode, payload), wire_bytes)
            self._wire_bytes += wire_bytes
            if not fin:
                self._opcode = self._opcode or opcode
                self._parts += payload
                continue
            if self._opcode is not None:
                opcode, payload = self._opcode, bytes(self._parts + payload)
                self._opcode = None
                self._parts.clear()
            if opcode is Opcode.TEXT and not _is_utf8(payload):
                raise FrameError(CloseCode.INVALID_TEXT)
            weighed, self._wire_bytes = self._wire_bytes, 0
            return Message(opcode, payload, weighed)
        return None

    def _frame(self) -> tuple[bool, Opcode, bytes, int] | None:
        """Take one frame off the buffer; a head is judged before its payload is waited for."""
        buffer = self._buffer
        if len(buffer) < _SHORT_HEAD.size:
            return None
        first, second = buffer[0], buffer[1]
        opcode = self._judged_head(first, second)
        size, head_bytes = second & ~_MASKED, _SHORT_HEAD.size
        if size >= _TWO_MORE:
            head = _MIDDLE_HEAD if size == _TWO_MORE else _LONG_HEAD
            if len(buffer) < head.size:
                return None
            least = _TWO_MORE if size == _TWO_MORE else _LONG
            size, head_bytes = head.unpack_from(buffer)[2], head.size
            if size < least:  # 5.2: the shortest form must be used
                raise FrameError(CloseCode.PROTOCOL_ERROR)
        if opcode in _DATA and len(self._parts) + size > self._most_bytes:
            too_long = size >> 63  # 5.2: the highest bit must be 0
            raise FrameError(CloseCode.PROTOCOL_ERROR if too_long else CloseCode.MESSAGE_TOO_BIG)
        if self._masked:
            head_bytes += _MASK_BYTES
        if len(buffer) < head_bytes + size:
            return None
        payload = buffer[head_bytes : head_bytes + size]
        if self._masked:
            websocket_mask(bytes(buffer[head_bytes - _MASK_BYTES : head_bytes]), payload)
        del buffer[: head_bytes + size]
        return bool(first & _FIN), opcode, bytes(payload), head_bytes + size

    def _judged_head(self, first: int, second: int) -> Opcode:
        """Return what a frame is; every rule of RFC 6455, 5.1 to 5.5 that its head can break."""
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError:
            raise FrameError(CloseCode.PROTOCOL_ERROR) from None
        if opcode not in _DATA:
            broken = not first & _FIN or second & ~_MASKED > _MOST_CONTROL_BYTES
        else:
            broken = (opcode is Opcode.CONTINUATION) is (self._opcode is None)
        if broken or first & _RESERVED or bool(second & _MASKED) is not self._masked:
            raise FrameError(CloseCode.PROTOCOL_ERROR)
        return opcode


def frame_head(opcode: Opcode, size: int, *, masked: bool) -> bytes:
    """Return the head of an unfragmented frame; the mask, if any, comes right behind it."""
    first, bit = _FIN | opcode, _MASKED if masked else 0
    if size < _TWO_MORE:
        return _SHORT_HEAD.pack(first, size | bit)
    if size < _LONG:
        return _MIDDLE_HEAD.pack(first, _TWO_MORE | bit, size)
    return _LONG_HEAD.pack(first, _EIGHT_MORE | bit, size)


def masked_with(mask: bytes, payload: bytes) -> bytearray:
    """Return ``payload`` under a mask of four bytes (RFC 6455, 5.3)."""
    masked = bytearray(payload)
    websocket_mask(mask, masked)
    return masked


def close_payload(code: int, reason: str = "") -> bytes:
    """Return the payload of a close frame; a long reason is cut at a whole character."""
    text = reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
    return _CODE.pack(code) + text.encode()


def close_code(payload: bytes) -> int | None:
    """Return the code of a close frame that was read, ``None`` when it names none."""
    return int(_CODE.unpack_from(payload)[0]) if payload else None


def _judged_control(opcode: Opcode, payload: bytes) -> bytes:
    if opcode is not Opcode.CLOSE or not payload:
        return payload
    if len(payload) < _CODE.size or close_code(payload) not in _SENDABLE:
        raise FrameError(CloseCode.PROTOCOL_ERROR)
    if not _is_utf8(payload[_CODE.size :]):
        raise FrameError(CloseCode.INVALID_TEXT)
    return payload


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
