"""Conversations of OpenAI realtime in a conservation test, on both sides of the gates."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import TYPE_CHECKING, Any, Final

from support.conservation.plan import Fault
from support.conservation.scripts import Writer
from support.frames import CLOSE, TEXT, close, frame
from support.sockets import switched
from support.wire import reset

if TYPE_CHECKING:
    from support.conservation.plan import Planned
    from support.wire import Head

_BREAKS: Final = frozenset({Fault.RESET_MID_BODY, Fault.TRUNCATED, Fault.NO_END})


def create(plan: Planned) -> bytes:
    """Return the event that asks for a turn."""
    asked: dict[str, Any] = {"instructions": plan.prompt}
    if plan.bound is not None:
        asked["max_output_tokens"] = plan.bound
    return frame(TEXT, json.dumps({"type": "response.create", "response": asked}).encode())


def goodbye() -> bytes:
    """Return the close of a caller that has all it wanted."""
    return close(1000)


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one frame, masked or not; raises ``IncompleteReadError`` at the end."""
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size >= 126:
        form = "!H" if size == 126 else "!Q"
        (size,) = struct.unpack(form, await reader.readexactly(struct.calcsize(form)))
    mask = await reader.readexactly(4) if second & 0x80 else bytes(4)
    payload = await reader.readexactly(size)
    return first & 0x0F, bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


class Endpoint:
    """One conversation at the upstream, entered into its book turn by turn."""

    def __init__(
        self,
        head: Head,
        play: dict[str, Any],
        entry: dict[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.head = head
        self.play = play
        self.entry = entry
        self.reader = reader
        self.writer = writer
        self.fault = Fault(play["fault"])
        entry["turns"] = []

    async def talk(self) -> None:
        """Take the connection and answer until either side ends it."""
        self.writer.write(switched(self.head.one("sec-websocket-key") or ""))
        self.entry["status"] = 101
        if self.fault is Fault.RESET_AFTER_HEAD:
            await self.writer.drain()
            self._break()
            return
        number = 0
        try:
            while True:
                opcode, payload = await read_frame(self.reader)
                if opcode == CLOSE:
                    self.writer.write(close(1000, mask=None))
                    self.entry["end"] = "complete"
                    return
                if opcode == TEXT and not await self._turn(json.loads(payload), number):
                    return
                number += 1
        except asyncio.IncompleteReadError:
            return

    async def _turn(self, event: dict[str, Any], number: int) -> bool:
        asked = event.get("response", {})
        writer = Writer({**self.play, "seed": self.play["seed"] + number}, asked)
        name = f"resp_{number}"
        pieces = [text for _, text in writer.pieces()]
        self._say("response.created", response={"id": name})
        broken = self.fault in _BREAKS and number == self.play["turns"] - 1
        if broken:
            pieces = pieces[: int(len(pieces) * self.play["at"])]
        for text in pieces:
            self._say("response.output_text.delta", response_id=name, delta=text)
            await self.writer.drain()
            if self.play["pause_ms"]:
                await asyncio.sleep(self.play["pause_ms"] / 1_000)
        if broken:
            self._break()
            return False
        if self.fault is Fault.MALFORMED_CHUNK:
            self.entry["end"] = "malformed"
            self.writer.write(frame(TEXT, b"{}", mask=None, reserved=7))
            return False
        usage = None
        if writer.reports:
            cached = {"cached_tokens": writer.cached}
            usage = {"input_tokens": writer.given, "output_tokens": writer.output}
            usage["input_token_details"] = cached
            self.entry["turns"].append((writer.given, writer.output, writer.cached))
        for _ in range(writer.times):
            self._say("response.done", response={"id": name, "status": "completed", "usage": usage})
        await self.writer.drain()
        return True

    def _say(self, kind: str, **fields: Any) -> None:
        if self.writer.is_closing():
            raise ConnectionError
        event = json.dumps({"type": kind, **fields}, separators=(",", ":")).encode()
        self.writer.write(frame(TEXT, event, mask=None))

    def _break(self) -> None:
        self.entry["end"] = "reset" if self.fault is not Fault.TRUNCATED else "closed"
        if self.fault is not Fault.TRUNCATED and not self.writer.is_closing():
            reset(self.writer)
