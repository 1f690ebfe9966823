"""The callers of a conservation test: raw HTTP, cut where the plan says, and what they saw."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from support.conservation.plan import ASKED_BY_HEAD, FORM, PLAY, UNREAD, WORDS, Cut, Family, Fault
from support.conservation.realtime import create, goodbye, read_frame
from support.frames import CLOSE, HANDSHAKE
from support.wire import reset

if TYPE_CHECKING:
    from support.conservation.plan import Planned

HANG_S: Final = 60.0
"""After which a caller gives up: nothing in a run takes so long."""
_STALL_S: Final = 3.0
_WORD: Final = re.compile(b" (?:" + b"|".join(word.encode() for word in WORDS) + rb")(?![a-z])")
_SWITCHING: Final = 101
_AGAIN: Final = b"response.output_text.done"
"""From here on a stream says the same text again."""
_LAST: Final = {
    Family.CHAT: (b"data: [DONE]",),
    Family.COMPLETIONS: (b"data: [DONE]",),
    Family.RESPONSES: (b'"response.completed"', b'"response.incomplete"'),
    Family.MESSAGES: (b'"message_stop"',),
}
_STREAM_ERRORS: Final = (b'data: {"error":', b"event: error")
_TAIL_BYTES: Final = 400_000
"""More than any answer of the plan is long, but for those that fill buffers."""


@dataclass(slots=True)
class Seen:
    """What one caller knows of its call."""

    planned: Planned
    worker: str
    """Which process it was sent to."""
    began_s: float
    ended_s: float = 0.0
    sent: str = "nothing"
    """``nothing``, ``part`` or ``whole``: of the request."""
    status: int | None = None
    decision: str | None = None
    body_bytes: int = 0
    words: int = 0
    """Tokens that came."""
    framed: bool = False
    """Whether the answer came to its proper end."""
    last: bool = False
    """Whether the last event of its family came."""
    parses: bool = False
    """Whether a document is what its type says."""
    error: bool = False
    """Whether an event said that it broke."""
    usage: bool = False
    """Whether its stream told the usage."""
    cut: bool = False
    """Whether the caller hung up."""
    broke: str | None = None
    """How the connection failed."""
    after: str | None = None
    """The call before it on the same connection."""

    @property
    def looks_whole(self) -> bool:
        """Whether a caller would take the answer for a whole one: JSON is only what parses."""
        streamed = self.planned.stream and self.status == 200
        return self.framed and not self.error and (self.last if streamed else self.parses)


class Connection:
    """A connection that may serve several calls."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.last: str | None = None
        """The call that it served last."""

    @classmethod
    async def open(cls, port: int, *, small: bool) -> Connection:
        """Connect; ``small`` has little room for what is not read."""
        sock = socket.socket()
        sock.setblocking(False)
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            limit = 1_024 if small else 65_536
            return cls(*await asyncio.open_connection(sock=sock, limit=limit))
        except BaseException:
            sock.close()
            raise

    async def close(self, *, with_reset: bool) -> None:
        """Hang up, with a reset or in order."""
        if with_reset and not self.writer.is_closing():
            reset(self.writer)
        else:
            self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Call:
    """One request on a connection, read as far as its plan says."""

    def __init__(self, seen: Seen, connection: Connection) -> None:
        self._seen = seen
        self._plan = seen.planned
        self._connection = connection
        self._body = bytearray()
        self._inflater: zlib._Decompress | None = None
        self._expected = 0
        self._closes = False

    async def run(self) -> bool:
        """Make the call; tell whether the connection can serve another one."""
        seen, plan = self._seen, self._plan
        try:
            async with asyncio.timeout(HANG_S):
                return await self._run()
        except (ConnectionError, asyncio.IncompleteReadError, _CutError) as error:
            if isinstance(error, _CutError):
                seen.cut = True
            else:
                seen.broke = type(error).__name__
            await self._connection.close(with_reset=plan.cut_at < 0.7)
            return False
        except TimeoutError:
            seen.broke = "hang"
            await self._connection.close(with_reset=True)
            return False
        finally:
            self._study()

    async def _run(self) -> bool:
        plan, seen = self._plan, self._seen
        request = _request(plan)
        writer = self._connection.writer
        if plan.cut is Cut.MID_REQUEST:
            seen.sent = "part"
            writer.write(request[: max(1, int(len(request) * plan.cut_at))])
            await writer.drain()
            await asyncio.sleep(0.02)
            raise _CutError
        seen.sent = "whole"
        writer.write(request)
        await writer.drain()
        if plan.cut is Cut.BEFORE_HEAD:
            await asyncio.sleep(plan.cut_at * 0.1)
            raise _CutError
        await self._head()
        if plan.cut is Cut.AFTER_HEAD:
            raise _CutError
        if plan.cut is Cut.STALL and seen.status == 200:
            await asyncio.sleep(_STALL_S)
        if seen.status == _SWITCHING:
            await self._talk()
            return False
        await self._read_body()
        seen.framed = True
        broken = plan.fault is Fault.NO_END  # a document that is cut short, though framed
        return plan.keeps_open and not self._closes and not broken

    async def _head(self) -> None:
        raw = await self._connection.reader.readuntil(b"\r\n\r\n")
        line, *fields = raw[:-4].decode().split("\r\n")
        named = dict(field.lower().split(": ", 1) for field in fields)
        self._seen.status = int(line.split(" ")[1])
        self._seen.decision = named.get("gatekeeper-decision")
        self._closes = named.get("connection") == "close"
        self._length = named.get("content-length")
        if named.get("content-encoding") == "gzip":
            self._inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)

    async def _read_body(self) -> None:
        reader = self._connection.reader
        if self._length is not None:
            left = int(self._length)
            while left:
                left -= await self._take(min(left, 4_096))
            return
        while True:
            size = int(await reader.readuntil(b"\r\n"), 16)
            left = size
            while left:
                left -= await self._take(left)
            await reader.readexactly(2)
            if not size:
                return

    async def _talk(self) -> None:
        """Ask for turn after turn, and say goodbye."""
        plan, seen = self._plan, self._seen
        writer = self._connection.writer
        for _ in range(plan.play["turns"]):
            writer.write(create(plan))
            kind = ""
            while kind not in {"response.done", "error"}:
                opcode, payload = await read_frame(self._connection.reader)
                if opcode == CLOSE:
                    seen.broke = "closed"
                    return
                seen.body_bytes += len(payload)
                self._body += payload
                kind = json.loads(payload)["type"]
                late = plan.cut is Cut.MID_BODY and seen.body_bytes > plan.cut_at * 900
                if late or plan.cut is Cut.FIRST_CHUNK:
                    raise _CutError
            if kind == "error":
                break
        if plan.cut is Cut.LAST_EVENT:
            raise _CutError
        writer.write(goodbye())
        while (await read_frame(self._connection.reader))[0] != CLOSE:
            pass
        seen.framed = True

    async def _take(self, most: int) -> int:
        """Read some of the body, and hang up where the plan says."""
        plan, seen = self._plan, self._seen
        if plan.cut is Cut.MID_BODY:
            most = min(most, max(1, int(plan.cut_at * 900) + 1 - seen.body_bytes))
        piece = await self._connection.reader.read(min(most, 65_536))
        if not piece:
            raise asyncio.IncompleteReadError(b"", most)
        seen.body_bytes += len(piece)
        self._body += piece
        if len(self._body) > 2 * _TAIL_BYTES:  # of comments that only fill buffers
            del self._body[_TAIL_BYTES:-1_000]
        if plan.cut is Cut.FIRST_CHUNK:
            raise _CutError
        if plan.cut is Cut.MID_BODY and seen.body_bytes > plan.cut_at * 900:
            raise _CutError
        last = plan.cut is Cut.LAST_EVENT and plan.stream
        if last and any(mark in self._body for mark in _LAST[plan.family]):
            raise _CutError
        return len(piece)

    def _study(self) -> None:
        """Enter what came."""
        seen, body = self._seen, bytes(self._body)
        if self._inflater is not None:
            with contextlib.suppress(zlib.error):
                body = self._inflater.decompress(body)
        text = body.partition(_AGAIN)[0] if self._plan.stream else body
        seen.words = len(_WORD.findall(text)) if seen.status in {200, _SWITCHING} else 0
        seen.last = any(mark in body for mark in _LAST.get(self._plan.family, ()))
        binary = self._plan.family in {Family.PLAIN, Family.SPEECH} and seen.status == 200
        seen.parses = binary or _is_json(body)
        seen.error = any(mark in body for mark in _STREAM_ERRORS)
        seen.usage = b'"usage"' in body


class _CutError(Exception):
    """The caller hangs up here."""


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def _request(plan: Planned) -> bytes:
    body = plan.body()
    method = "GET" if plan.family in ASKED_BY_HEAD else "POST"
    kind = "application/octet-stream" if plan.family in UNREAD else "application/json"
    if plan.family is Family.TRANSCRIPTS:
        kind = FORM
    talks = plan.family is Family.REALTIME
    query = f"?model={plan.model}" if talks else ""
    lines = [
        f"{method} {plan.family.path}{query} HTTP/1.1",
        "Host: gate.example",
        f"Authorization: Bearer {plan.account}",
        f"User-Agent: {plan.id}/1",
        f"{PLAY}: {json.dumps(plan.play, separators=(',', ':'))}",
    ]
    if talks:
        lines += HANDSHAKE
    if plan.gzip:
        lines.append("Accept-Encoding: gzip")
    if body:
        lines.append(f"Content-Type: {kind}")
        coded = plan.chunked
        lines.append("Transfer-Encoding: chunked" if coded else f"Content-Length: {len(body)}")
        if coded:
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
