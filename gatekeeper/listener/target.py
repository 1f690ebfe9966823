"""The request target, canonicalised once: what is matched here is what the upstream gets (H1)."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from msgspec import Struct

_MAX_TARGET: Final = 8_000
_PLAIN: Final = re.compile(r"(?:/[A-Za-z0-9_~:@!$&'()*+,=.-]+)+/?|/")
_QUERY: Final = re.compile(r"(?:[A-Za-z0-9_~:@!$&'()*+,;=./?\[\]|{}^-]|%[0-9A-Fa-f]{2})*")
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~")
_AMBIGUOUS: Final = frozenset(b"/\\.%;#?") | frozenset(range(0x20)) | {0x7F}
"""Bytes that servers disagree about when they arrive percent-encoded."""


class Target(Struct, frozen=True, gc=False):
    """A canonical path and the query exactly as it came, without the ``?``."""

    path: str
    query: str

    @property
    def raw(self) -> str:
        """Path and query as they go to the upstream."""
        return f"{self.path}?{self.query}" if self.query else self.path


def parse_target(raw: str) -> Target | str:
    """Canonicalise a request target in origin form (RFC 9112, 3.2.1).

    Returns a sentence for the caller when the target is malformed or when two servers could read
    it differently: dot segments, empty segments, encoded slashes, dots, percents or controls,
    backslashes, semicolons, fragments and what is not UTF-8 once decoded. Percent-encoded letters,
    digits, ``-``, ``_`` and ``~`` are decoded; other escapes are kept with upper-case digits
    (RFC 3986, 6.2.2).
    """
    if len(raw) > _MAX_TARGET:
        return f"The request target is longer than {_MAX_TARGET} characters."
    path, _, query = raw.partition("?")
    if not path.startswith("/"):
        return "Send the path alone as request target, starting with a slash."
    if "%" in path:
        decoded = _decode(path)
        if decoded is None:
            return "The path holds a percent-encoding that servers read differently."
        path = decoded
    return _judged(path, query)


def _judged(path: str, query: str) -> Target | str:
    if _PLAIN.fullmatch(_ESCAPE.sub("x", path)) is None:
        return "The path holds an empty segment or a character that does not belong in one."
    if "/." in path and any(segment in {".", ".."} for segment in path.split("/")):
        return "The path holds a dot segment: send it resolved."
    if query and _QUERY.fullmatch(query) is None:
        return "The query holds a character that must be percent-encoded."
    return Target(path, query)


def _decode(path: str) -> str | None:
    """Decode unreserved escapes; ``None`` when one is broken or ambiguous."""
    pieces = path.split("%")
    out = [pieces[0]]
    for piece in pieces[1:]:
        code = piece[:2]
        if _ESCAPE.fullmatch(f"%{code}") is None:
            return None
        byte = int(code, 16)
        if byte in _AMBIGUOUS:
            return None
        out.append(chr(byte) if byte in _UNRESERVED else f"%{code.upper()}")
        out.append(piece[2:])
    try:
        unquote_to_bytes(path).decode()  # %C0%AF is a slash to decoders that take overlong forms
    except UnicodeError:
        return None
    return "".join(out)
