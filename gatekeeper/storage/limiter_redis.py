"""Limits that a fleet shares, in Redis or Valkey: one script for each decision.

The scripts in ``lua/`` do the arithmetic of :mod:`gatekeeper.policy.limits` in the store's time, to
the unit as :class:`~gatekeeper.storage.limiter_memory.MemoryLimiter` does. All keys share one hash
tag, so that a Cluster keeps them on one node and every hierarchy is reserved as a whole:

- ``{prefix}:1:clock``: the time of the limits, see ``lua/common.lua``;
- ``{prefix}:1:c:<rule>:<unit>:<partition>``: a bucket or pool, gone once it says nothing any more;
- ``{prefix}:1:h:<id>``: an open hold, gone when it may no longer be settled;
- ``{prefix}:1:nodes``: the gates that share the limits.

The 1 is the layout. Servers know a script by its digest, so gates of several releases run theirs
side by side: on the same keys while the layout is the same, where each leaves alone the fields of a
bucket that it does not know.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final, Protocol, Self

from gatekeeper.policy.limits import MICRO
from gatekeeper.policy.words import Mode, Unit
from gatekeeper.storage.limiter import Reservation, Reserved
from gatekeeper.storage.store_line import Script, StoreError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from typing import Any

    from gatekeeper.policy.limits import Claim, Quota
    from gatekeeper.policy.model import LimitStatus, Moment, Usage

LAYOUT: Final = "1"
"""Changes when older scripts could not work on the keys of newer ones."""

_CONCURRENCY: Final = Unit.CONCURRENCY
_ENFORCE: Final = Mode.ENFORCE
_MOST_QUOTAS: Final = 10_000
_SHADOW, _POOL, _YIELDS = 1, 2, 4

_DOUBLE: Final = struct.Struct("<d")
_TWO: Final = struct.Struct("<2d")
_THREE: Final = struct.Struct("<3d")


class Runner(Protocol):
    """Runs a script in the store."""

    def run(self, script: Script, keys: Sequence[bytes], *arguments: bytes) -> asyncio.Future[Any]:
        """Return a future of the answer; it fails with :class:`StoreError`."""
        ...


@dataclass(frozen=True, slots=True)
class Scripts:
    """The scripts of this release."""

    reserve: Script
    settle: Script
    beat: Script
    look: Script

    @classmethod
    def of(cls, before: str = "") -> Self:
        """Read the scripts; tests put a clock of their own ``before`` them."""
        folder = files("gatekeeper.storage") / "lua"
        common, *texts = (
            (folder / f"{name}.lua").read_text(encoding="utf-8")
            for name in ("common", "reserve", "settle", "beat", "look")
        )
        return cls(*(Script.of(before + common + text) for text in texts))


@cache
def scripts() -> Scripts:
    """Return the scripts as they are shipped."""
    return Scripts.of()


class RedisLimiter:
    """A :class:`~gatekeeper.storage.limiter.Limiter` whose state a fleet shares.

    Every method raises :class:`~gatekeeper.storage.store_line.StoreError` when the store could not
    answer; whether it did what was asked is then not known. The store's own clock counts: the
    ``at`` of calls is not used.
    """

    __slots__ = ("_ahead_us", "_clock_us", "_keys", "_packed", "_run", "_scripts")

    def __init__(
        self,
        runner: Runner,
        prefix: str,
        *,
        own: Scripts | None = None,
        clock_us: Callable[[], int] = lambda: time.monotonic_ns() // 1_000,
    ) -> None:
        """Share limits with every gate of the same ``prefix``. ``clock_us`` must never step."""
        self._run = runner.run
        self._scripts = own or scripts()
        self._clock_us = clock_us
        base = f"{{{prefix}}}:{LAYOUT}:"
        self._keys = (f"{base}clock".encode(), f"{base}c:", f"{base}h:")
        self._ahead_us = 0
        """How far the time of the limits is ahead of ours, 0 while that is not known."""
        self._packed: dict[int, tuple[Quota, bytes, bytes, str]] = {}

    async def reserve(
        self,
        claims: Sequence[Claim],
        at: Moment,  # noqa: ARG002 - the store's clock counts
        hold_s: float,
        hold_id: str,
    ) -> Reserved:
        """See :class:`~gatekeeper.storage.limiter.Limiter`."""
        if not claims:
            return Reserved(Reservation(hold_id, ()), ())
        clock, _, holds = self._keys
        keys = [clock, f"{holds}{hold_id}".encode()]
        parts = [_TWO.pack(self._expected(), int(hold_s * MICRO))]
        for claim in claims:
            head, rate, prefix = self._quota(claim.quota)
            keys.append(f"{prefix}{claim.partition}".encode())
            parts += (head, _DOUBLE.pack(claim.amount), rate)
        answer = await self._run(self._scripts.reserve, keys, b"".join(parts), hold_id.encode())
        if not isinstance(answer, bytes) or len(answer) not in {16, 16 + 16 * len(claims)}:
            raise StoreError("protocol")
        found = struct.unpack(f"<{len(answer) // 8}d", answer)
        if found[0] < 0:
            raise ValueError("hold_id is already in use")
        self._ahead_us = int(found[1]) - self._clock_us()
        return _reserved(claims, found, hold_id)

    async def look(
        self,
        claims: Sequence[Claim],
        at: Moment,  # noqa: ARG002 - as in reserve
    ) -> tuple[LimitStatus, ...]:
        """See :class:`~gatekeeper.storage.limiter.Limiter`."""
        if not claims:
            return ()
        keys, numbers = [self._keys[0]], [self._expected()]
        for claim in claims:
            keys.append(f"{self._quota(claim.quota)[2]}{claim.partition}".encode())
            numbers.append(_POOL if claim.quota.unit is _CONCURRENCY else 0)
        packed = struct.pack(f"<{len(numbers)}d", *numbers)
        answer = await self._run(self._scripts.look, keys, packed)
        if not isinstance(answer, bytes) or len(answer) != 16 * len(claims):
            raise StoreError("protocol")
        levels = _TWO.iter_unpack(answer)
        return tuple(
            claim.untaken(int(used), int(remainder))
            for claim, (used, remainder) in zip(claims, levels, strict=True)
        )

    async def settle(self, reservation: Reservation, used: Usage, at: Moment) -> None:  # noqa: ARG002 - as in reserve
        """See :class:`~gatekeeper.storage.limiter.Limiter`."""
        await self.settling(reservation, used)

    async def cancel(self, reservation: Reservation, at: Moment) -> None:  # noqa: ARG002 - as in reserve
        """See :class:`~gatekeeper.storage.limiter.Limiter`."""
        await self.settling(reservation, None)

    def settling(self, reservation: Reservation, used: Usage | None) -> asyncio.Future[Any]:
        """Send a settlement, or (``None``) a cancellation; the future tells when it is done."""
        clock, _, holds = self._keys
        hold_id = reservation.hold_id
        keys = [clock, f"{holds}{hold_id}".encode()]
        parts = [_DOUBLE.pack(self._expected())]
        for claim in reservation.claims:
            quota = claim.quota
            pooled = quota.unit is _CONCURRENCY
            delta = -claim.amount if used is None else claim.correction(used)
            if pooled or delta:
                _, rate, prefix = self._quota(quota)
                keys.append(f"{prefix}{claim.partition}".encode())
                parts += (_TWO.pack(_POOL if pooled else 0, delta), rate)
        return self._run(self._scripts.settle, keys, b"".join(parts), hold_id.encode())

    def _expected(self) -> int:
        return self._clock_us() + self._ahead_us if self._ahead_us else 0

    def _quota(self, quota: Quota) -> tuple[bytes, bytes, str]:
        """Return a quota as the scripts take it, and what its keys begin with."""
        known = self._packed.get(id(quota))  # held below, so the id is not used again
        if known is None:
            if len(self._packed) >= _MOST_QUOTAS:
                self._packed.clear()
            known = self._packed[id(quota)] = (
                quota,
                *_pack(quota),
                f"{self._keys[1]}{quota.key}:",
            )
        return known[1:]


async def beat(runner: Runner, prefix: str, gate_id: str, counts_s: float) -> int:
    """Say that a gate lives, and counts for ``counts_s``; return how many do."""
    key = f"{{{prefix}}}:{LAYOUT}:nodes".encode()
    counts_us = str(int(counts_s * MICRO)).encode()
    return int(await runner.run(scripts().beat, [key], gate_id.encode(), counts_us))


def _pack(quota: Quota) -> tuple[bytes, bytes]:
    kind = (0 if quota.mode is _ENFORCE else _SHADOW) + (_YIELDS if quota.yields else 0)
    if quota.unit is _CONCURRENCY:
        return _TWO.pack(kind + _POOL, quota.burst), _THREE.pack(quota.lease_us, 0, 0)
    return _TWO.pack(kind, quota.burst), _THREE.pack(*quota.rate)


def _reserved(claims: Sequence[Claim], found: tuple[float, ...], hold_id: str) -> Reserved:
    """Work out what the memory store would have answered, from the levels before the call."""
    admitted = found[0] > 0
    statuses: list[LimitStatus] = []
    charged: list[Claim] = []
    position = 2
    for claim in claims:
        used, remainder = int(found[position]), int(found[position + 1])
        position += 2
        quota = claim.quota
        left = quota.burst - used
        claim = claim.granted(left)  # noqa: PLW2901 - the claim as the script granted it
        amount = claim.amount
        if amount > left and amount:
            statuses.append(claim.status(left, quota.wait_s(used, remainder, amount)))
        else:
            statuses.append(claim.status(left - amount if admitted else left, 0.0))
            charged.append(claim)
    held = Reservation(hold_id, tuple(charged)) if admitted else None
    return Reserved(held, tuple(statuses))
