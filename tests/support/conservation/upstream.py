"""The upstream of a conservation test: a process that answers as it is told and keeps a book.

Its book has one JSON line for each request: what arrived, what was sent, what it reported, and how
it ended. What goes wrong stands in a header of each request.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import uvloop
from support.conservation.answers import BATCH_FILE, script_of
from support.conservation.plan import MID_BODY, PLAY, Family, Fault
from support.conservation.realtime import Endpoint
from support.wire import Head, IncompleteError, read_chunked, read_head, read_sized, reset

if TYPE_CHECKING:
    from support.conservation.scripts import Script

SILENCE_S = 30.0
_CLOSING_BYTES = 2
"""Behind a report: the blank line of an event, or a brace."""
_REFUSALS = {
    Fault.SERVER_ERROR: b"500 Internal Server Error",
    Fault.BUSY: b"429 Too Many Requests",
    Fault.BAD_REQUEST: b"400 Bad Request",
}
_REFUSAL = b'{"error":{"message":"no","type":"server_error","param":null,"code":null}}'


class _Exchange:
    """One request, answered."""

    def __init__(
        self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.head = head
        self.reader = reader
        self.writer = writer
        self.play: dict[str, Any] = json.loads(head.one(PLAY) or "{}")
        self.fault = Fault(self.play["fault"])
        self.chance = random.Random(self.play["seed"] + 1)
        self.whole = 0
        """Length of the answer, had it not been cut."""
        self.entry: dict[str, Any] = {
            "id": (head.one("user-agent") or "").partition("/")[0],
            "method": head.line.split(" ")[0],
            "side": head.target.endswith("/content"),
            "fault": self.fault.value,
            "status": None,
            "body_bytes": None,
            "written": 0,
            "end": "gone",
            "given": None,
            "output": None,
            "cached": 0,
            "told": False,
        }

    async def answer(self) -> bool:
        """Play the part; tell whether the connection can serve another request."""
        fields = await self._fields()
        if self.entry["side"]:  # the gate looks what a batch would cost
            line = (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/jsonl\r\nContent-Length: %d\r\n\r\n"
            )
            await self._send(line % len(BATCH_FILE) + BATCH_FILE)
            return True
        if self.fault is Fault.RESET_BEFORE_HEAD:
            self._reset()
            return False
        if self.fault is Fault.CLOSED_BEFORE_HEAD:
            self.entry["end"] = "closed"
            return False
        if self.fault in _REFUSALS:
            self.entry["status"] = int(_REFUSALS[self.fault][:3])
            line = b"HTTP/1.1 " + _REFUSALS[self.fault]
            kind = b"\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            await self._send(line + kind % len(_REFUSAL) + _REFUSAL)
            self.entry["end"] = "complete"
            return True
        if self.fault is Fault.SLOW:
            await asyncio.sleep(self.chance.uniform(0.1, 0.5))
        if self.play["family"] == Family.REALTIME:
            await Endpoint(self.head, self.play, self.entry, self.reader, self.writer).talk()
            return False
        return await self._body(script_of(self.play, fields))

    async def _fields(self) -> dict[str, Any]:
        if self.head.one("transfer-encoding") is not None:
            body = await read_chunked(self.reader)
        else:
            body = await read_sized(self.reader, int(self.head.one("content-length") or 0))
        self.entry["body_bytes"] = len(body)
        return dict(json.loads(body)) if body.startswith(b"{") else {}

    async def _body(self, script: Script) -> bool:
        body = b"".join(script.events)
        coding = ""
        if self.play.get("gzip") and "gzip" in (self.head.one("accept-encoding") or ""):
            body, coding = zlib.compress(body, wbits=16 + zlib.MAX_WBITS), "gzip"
        streamed, self.whole = script.kind == "text/event-stream", len(body)
        sized = not streamed and self.chance.random() < 0.5
        if self.fault is Fault.MALFORMED_CHUNK:
            sized = False
        if self.fault is Fault.NO_END and not streamed:
            body = body[: len(body) // 2]
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {script.kind}\r\n"
        head += f"Content-Encoding: {coding}\r\n" if coding else ""
        head += f"Content-Length: {len(body)}" if sized else "Transfer-Encoding: chunked"
        await self._send(head.encode() + b"\r\n\r\n")
        self.entry["status"] = 200
        if self.fault is Fault.RESET_AFTER_HEAD:
            self._reset()
            return False
        stop = len(body)
        if self.fault in MID_BODY:
            stop = int(len(body) * self.play["at"])
        try:
            for chunk in self._chunks(body[:stop], script):
                self.entry["written"] += len(chunk)
                self._note(script)
                await self._send(chunk if sized else b"%x\r\n%b\r\n" % (len(chunk), chunk))
                if self.play["bulk_kb"]:
                    await self._bulk()
                if self.play["pause_ms"]:
                    await asyncio.sleep(self.play["pause_ms"] / 1_000)
        except ConnectionError:
            return False
        return await self._end(sized=sized)

    async def _end(self, *, sized: bool) -> bool:
        if self.fault is Fault.RESET_MID_BODY:
            self._reset()
            return False
        if self.fault is Fault.TRUNCATED:
            self.entry["end"] = "closed"
            return False
        if self.fault is Fault.MALFORMED_CHUNK:
            self.entry["end"] = "malformed"
            await self._send(b"zz\r\nnonsense\r\n")
            return False
        if self.fault is Fault.SILENT:
            self.entry["end"] = "silent"
            await asyncio.wait_for(self.reader.read(1), SILENCE_S)
            return False
        if not sized:
            await self._send(b"0\r\n\r\n")
        self.entry["end"] = "no_end" if self.fault is Fault.NO_END else "complete"
        return True

    def _chunks(self, body: bytes, script: Script) -> list[bytes]:
        """Cut a body at its events, or anywhere."""
        by_events = self.play["bulk_kb"] or self.chance.random() < 0.5
        if len(script.events) > 1 and by_events:
            found, place = [], 0
            for event in script.events:
                found.append(body[place : place + len(event)])
                place += len(event)
            return [each for each in found if each]
        found = []
        while body:
            size = self.chance.randint(1, max(2, len(body) // 3, 600))
            found.append(body[:size])
            body = body[size:]
        return found

    def _note(self, script: Script) -> None:
        """Enter what is reported by the bytes that are sent now at the latest."""
        entry = self.entry
        entry["told"] = script.output is not None and self._told(script, script.output_after, 0)
        if script.given is not None and self._told(script, script.given_after, _CLOSING_BYTES):
            entry["given"], entry["cached"] = script.given, script.cached
        if script.output is not None and self._told(script, script.output_after, _CLOSING_BYTES):
            entry["output"] = script.output

    def _told(self, script: Script, events: int, without: int) -> bool:
        """Tell whether a report can be read, perhaps without the last bytes of its event."""
        size = sum(len(event) for event in script.events[:events])
        if self.play["gzip"]:  # of what is packed the end may be read before it is there
            size = self.whole // 2 if without else self.whole
        return bool(self.entry["written"] >= size - without)

    async def _bulk(self) -> None:
        """Send comments that fill all buffers on the way to a caller that has stopped to read."""
        comment = b": " + b"x" * 65_533 + b"\n\n"
        for _ in range(self.play.pop("bulk_kb") // 64):
            await self._send(b"%x\r\n%b\r\n" % (len(comment), comment))
        self.play["bulk_kb"] = 0

    async def _send(self, data: bytes) -> None:
        if self.writer.is_closing():
            raise ConnectionError
        self.writer.write(data)
        await self.writer.drain()

    def _reset(self) -> None:
        self.entry["end"] = "reset"
        if not self.writer.is_closing():
            reset(self.writer)


async def _serve(book: IO[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        going = True
        while going:
            exchange = _Exchange(await read_head(reader), reader, writer)
            try:
                going = await exchange.answer()
            finally:
                book.write(json.dumps(exchange.entry) + "\n")
                book.flush()
    except (IncompleteError, ConnectionError, TimeoutError):
        pass  # the gate hung up, or was killed
    finally:
        writer.close()


async def main(book: IO[str]) -> None:
    """Listen, say where, and serve until killed."""
    server = await asyncio.start_server(
        lambda reader, writer: _serve(book, reader, writer), "127.0.0.1", 0, backlog=1_024
    )
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - its parent reads it
    await server.serve_forever()


if __name__ == "__main__":
    with Path(sys.argv[1]).open("a", encoding="utf-8") as opened:
        uvloop.run(main(opened))
