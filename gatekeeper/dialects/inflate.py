"""Undoes gzip and deflate on a copy of an answer, in bounded pieces."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_INFLATED_BYTES: Final = 67_108_864
_PIECE_BYTES: Final = 65_536
_ANY_HEADER: Final = 32 + zlib.MAX_WBITS


class Inflater:
    """Inflates chunk by chunk; gives up on damage and beyond ``most_bytes`` in all (a bomb)."""

    __slots__ = ("_left", "_stream", "_untried", "gave_up")

    def __init__(self, most_bytes: int = MOST_INFLATED_BYTES) -> None:
        self._stream = zlib.decompressobj(_ANY_HEADER)
        self._left = most_bytes
        self._untried = True
        self.gave_up = False
        """Whether the rest of the body stays unread."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what ``chunk`` inflates to, at most 64 KiB at a time."""
        while chunk and not self.gave_up:
            piece = self._inflate(chunk)
            self._left -= len(piece)
            if self._left < 0:
                self.gave_up = True
                return
            if piece:
                yield piece
            chunk = self._stream.unconsumed_tail
            if self._stream.eof and self._stream.unused_data:  # gzip members may follow each other
                chunk = self._stream.unused_data
                self._stream = zlib.decompressobj(_ANY_HEADER)

    def _inflate(self, chunk: bytes) -> bytes:
        untried, self._untried = self._untried, False
        try:
            return self._stream.decompress(chunk, _PIECE_BYTES)
        except zlib.error:
            if untried:  # "deflate" is sent without its zlib wrapper by some servers
                self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
                return self._inflate(chunk)
            self.gave_up = True
            return b""
