"""PROXY protocol v1 and v2 (HAProxy specification), without I/O.

Feed bytes as they come; the answer does not depend on how they were split. Memory is bounded by
the longest header that is accepted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

from gatekeeper.facts.address import IPAddress, canonical

V1_MAX_BYTES: Final = 107
"""Longest version 1 line with its line end."""
V2_MAX_BYTES: Final = 4096
"""Longest version 2 header accepted, TLVs included."""

_V1_START: Final = b"PROXY "
_V2_START: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_FIXED: Final = 16
_V1_LINE: Final = re.compile(
    rb"PROXY (?:(?P<unknown>UNKNOWN)(?: [ -~]*)?"
    rb"|TCP(?P<family>[46]) (?P<source>[0-9A-Fa-f:.]{2,45}) (?P<target>[0-9A-Fa-f:.]{2,45})"
    rb" (?P<source_port>0|[1-9][0-9]{0,4}) (?P<target_port>0|[1-9][0-9]{0,4}))\r\n"
)
_MAX_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class Incomplete:
    """More bytes are needed."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A whole header. ``source`` is ``None`` when the proxy speaks for itself or does not know."""

    source: IPAddress | None
    port: int | None
    consumed: int
    """Bytes of the connection that the header took."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """Not a PROXY header; the connection must be closed."""

    reason: str


ProxyOutcome: TypeAlias = Incomplete | Parsed | Malformed


class ProxyHeader:
    """The header of one connection. Once parsed or malformed, the answer stays."""

    __slots__ = ("_buffer", "_outcome", "rest")

    def __init__(self) -> None:
        self._buffer = b""
        self._outcome: ProxyOutcome = Incomplete()
        self.rest = b""
        """Bytes fed together with the end of the header that belong to what follows it."""

    def feed(self, data: bytes) -> ProxyOutcome:
        """Take the next bytes of the connection and tell how far the header is."""
        if not isinstance(self._outcome, Incomplete):
            return self._outcome
        # Everything kept was part of an incomplete header, so it is shorter than the longest one.
        self._buffer += data
        self._outcome = _parse(self._buffer)
        if isinstance(self._outcome, Parsed):
            self.rest = self._buffer[self._outcome.consumed :]
        if not isinstance(self._outcome, Incomplete):
            self._buffer = b""
        return self._outcome


def _parse(data: bytes) -> ProxyOutcome:
    if data.startswith(_V2_START):
        return _parse_v2(data)
    if data.startswith(_V1_START):
        return _parse_v1(data)
    if _V1_START.startswith(data) or _V2_START.startswith(data):
        return Incomplete()
    return Malformed("neither a version 1 nor a version 2 signature")


def _parse_v1(data: bytes) -> ProxyOutcome:
    end = data.find(b"\r\n", 0, V1_MAX_BYTES)
    if end < 0:
        if len(data) >= V1_MAX_BYTES:
            return Malformed("version 1 line is too long")
        return Incomplete()
    line = _V1_LINE.fullmatch(data, 0, end + 2)
    if line is None:
        return Malformed("version 1 line does not follow the grammar")
    if line["unknown"]:
        return Parsed(None, None, end + 2)
    family = IPv4Address if line["family"] == b"4" else IPv6Address
    try:
        source = family(line["source"].decode())
        family(line["target"].decode())
    except ValueError:
        return Malformed("version 1 line has an address of another family, or none")
    port = int(line["source_port"])
    if max(port, int(line["target_port"])) > _MAX_PORT:
        return Malformed("version 1 line has a port above 65535")
    return Parsed(canonical(source), port, end + 2)


def _parse_v2(data: bytes) -> ProxyOutcome:
    if len(data) < _V2_FIXED:
        return Incomplete()
    version_command, family = data[12], data[13]
    end = _V2_FIXED + int.from_bytes(data[14:16], "big")
    if version_command not in (0x20, 0x21):
        return Malformed("unknown version or command")
    if end > V2_MAX_BYTES:
        return Malformed("version 2 header is too long")
    if len(data) < end:
        return Incomplete()
    if version_command == 0x20 or family in (0x00, 0x31):  # noqa: PLR2004 - LOCAL; UNSPEC, Unix stream
        return Parsed(None, None, end)
    body = data[_V2_FIXED:end]
    if family == 0x11 and len(body) >= 12:  # noqa: PLR2004 - TCP over IPv4
        return Parsed(IPv4Address(body[:4]), int.from_bytes(body[8:10], "big"), end)
    if family == 0x21 and len(body) >= 36:  # noqa: PLR2004 - TCP over IPv6
        source = canonical(IPv6Address(body[:16]))
        return Parsed(source, int.from_bytes(body[32:34], "big"), end)
    return Malformed("version 2 header names no TCP address, or less than a whole one")
