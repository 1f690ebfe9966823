"""A TCP pipe between client and server that can speak TLS on the client's side, or be slow."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

_CHUNK = 65_536


@dataclass
class Pipe:
    """What a running pipe does to each chunk that passes."""

    port: int = 0
    delay_s: float = 0.0
    """Held back for so long, in both directions."""
    connections: int = 0
    """How many were opened so far."""
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def address(self) -> str:
        """Where clients connect, as the settings write it."""
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(chunk)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def piped(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Pipe]:
    """Pipe a free port to ``port`` of this machine."""
    pipe = Pipe()
    under_way: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        pipe.connections += 1
        try:
            inner, outer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        pipe._writers |= {writer, outer}
        try:
            await asyncio.gather(pipe._pump(reader, outer), pipe._pump(inner, writer))
        finally:
            pipe._writers -= {writer, outer}
            for each in (writer, outer):
                each.transport.abort()
            under_way.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    pipe.port = server.sockets[0].getsockname()[1]
    try:
        yield pipe
    finally:
        server.close()
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
