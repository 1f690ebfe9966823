"""Frames of WebSocket as bytes, well-formed or not: written anew, not by the code under test."""

from __future__ import annotations

import base64
import hashlib

TEXT, BINARY, CLOSE, PING, PONG, MORE = 1, 2, 8, 9, 10, 0
MASK = b"\x11\x22\x33\x44"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The key of RFC 6455, 1.3."""
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
HANDSHAKE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
)


def accept_of(key: str) -> str:
    """Return what answers a key (RFC 6455, 4.2.2)."""
    whole = key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1(whole.encode(), usedforsecurity=False).digest()).decode()


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    mask: bytes | None = MASK,
    fin: bool = True,
    reserved: int = 0,
    form: int = 0,
) -> bytes:
    """Return one frame; ``form`` forces how the length is written: 126 or 127."""
    size = len(payload)
    form = form or (size if size < 126 else 126 if size < 65_536 else 127)
    extended = {126: 2, 127: 8}.get(form, 0)
    masked = 0x80 if mask is not None else 0
    head = bytes([0x80 * fin | reserved << 4 | opcode, masked | form])
    head += size.to_bytes(extended, "big") if extended else b""
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def close(code: int | None = None, reason: bytes = b"", *, mask: bytes | None = MASK) -> bytes:
    """Return a close frame."""
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason, mask=mask)
