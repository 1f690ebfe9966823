"""The book of the store in a conservation test: what is held, and where every bucket stands."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from support.valkey import Server

PREFIX: Final = "books"


@dataclass
class Hold:
    """An open hold as it was seen last."""

    left_s: float
    seen_s: float


@dataclass
class StoreBook:
    """Reads the keys of the limits, whose layout gatekeeper/storage/limiter_redis.py describes."""

    server: Server
    holds: dict[str, Hold] = field(default_factory=dict)
    """Every hold that was ever seen, by the id of its decision."""
    buckets: dict[str, float] = field(default_factory=dict)
    """Level of each bucket at the end, micro-units."""
    pools: dict[str, int] = field(default_factory=dict)
    """Open leases of each pool at the end."""

    async def look(self) -> int:
        """Look at every open hold; return how many there are."""
        async with self.server.client(socket_timeout=2.0) as client:
            now = await _now(client)
            keys = [key async for key in client.scan_iter(f"{{{PREFIX}}}:1:h:*", count=1_000)]
            ends = await client.mget(keys) if keys else []
            held = 0
            for key, end in zip(keys, ends, strict=True):
                if end is not None and float(end) > now:
                    hold = Hold((float(end) - now) / 1e6, time.monotonic())
                    self.holds[key.decode().rpartition(":")[2]] = hold
                    held += 1
            return held

    async def close(self) -> None:
        """Read where everything stands at the end."""
        async with self.server.client() as client:
            base = f"{{{PREFIX}}}:1:c:"
            async for key in client.scan_iter(f"{base}*", count=1_000):
                name = key.decode().removeprefix(base)
                if await client.type(key) in {b"hash", "hash"}:
                    packed = await client.hget(key, "s")
                    self.buckets[name] = struct.unpack("<6d", packed)[0]
                else:
                    self.pools[name] = await client.zcount(key, await _now(client), "+inf")


async def _now(client: Redis) -> int:
    """Return the time of the limits, in microseconds."""
    seconds, micros = await client.time()
    shift = int(await client.hget(f"{{{PREFIX}}}:1:clock", "shift") or 0)
    return int(seconds * 1_000_000 + micros + shift)
