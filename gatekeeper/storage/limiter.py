"""What a store of limits promises, whichever it is."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from gatekeeper.policy.limits import MICRO, Claim
from gatekeeper.policy.model import Usage
from gatekeeper.policy.words import Unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gatekeeper.policy.model import LimitStatus, Moment


class Keeper(Enum):
    """Who keeps what a call holds."""

    STORE = auto()
    NODE = auto()
    """This process alone, because the store that is shared could not answer."""


class Reservation(Struct, frozen=True, gc=False):
    """What an admitted call holds until it is settled or cancelled, or the hold expires."""

    hold_id: str
    claims: tuple[Claim, ...]
    keeper: Keeper = Keeper.STORE


class Reserved(Struct, frozen=True, gc=False):
    """The answer to a reservation: what is held, and where every quota stands."""

    held: Reservation | None
    """``None`` when an enforced quota had no room: then nothing at all was charged."""
    statuses: tuple[LimitStatus, ...]
    """One for each claim, in their order, shadow ones included."""


class Limiter(Protocol):
    """Keeps buckets and leases. One suite of tests holds every implementation to this."""

    async def reserve(
        self, claims: Sequence[Claim], at: Moment, hold_s: float, hold_id: str
    ) -> Reserved:
        """Hold the worst case of every enforced claim, or of none (H22).

        A claim in shadow mode never stands in the way (H31): when the call is admitted it is
        charged if it fits, as it would be if it were enforced, and it is reported either way.
        ``hold_s`` is how long the hold may be settled; after that it stays charged. ``hold_id``
        is unique among open holds; a second use is a ``ValueError``.
        """
        ...

    async def look(self, claims: Sequence[Claim], at: Moment) -> tuple[LimitStatus, ...]:
        """Tell where the quota of each claim stands, whatever the claim asks; take nothing.

        No later answer is another than without the look. The wait of each status is until the
        quota is whole again (:meth:`~gatekeeper.policy.limits.Claim.untaken`).
        """
        ...

    async def settle(self, reservation: Reservation, used: Usage, at: Moment) -> None:
        """Replace the worst case by what was used, and free the slots; once, later ones do nothing.

        What was used beyond the worst case is carried as debt. A request stays one request.
        """
        ...

    async def cancel(self, reservation: Reservation, at: Moment) -> None:
        """Give everything back: the call never reached the upstream. Once, like ``settle``."""
        ...


async def charge_beyond(
    limiter: Limiter, ended: Reservation, used: Usage, at: Moment, hold_s: float
) -> None:
    """Charge what was used beyond a hold that has ended, which itself stays charged as it stands.

    Otherwise whoever reads slowly enough pays for no more than was known beforehand.
    """
    held = {claim.quota.unit: claim.amount / MICRO for claim in ended.claims}
    beyond = Usage(
        max(0, used.input_tokens - int(held.get(Unit.INPUT_TOKENS, 0))),
        max(0, used.output_tokens - int(held.get(Unit.OUTPUT_TOKENS, 0))),
        max(0.0, used.cost_cents - held.get(Unit.COST, 0.0)),
        bytes=max(0, used.bytes - int(held.get(Unit.BYTES, 0))),
    )
    nothing = [
        Claim(claim.quota, claim.partition, 0)
        for claim in ended.claims
        if claim.quota.unit is not Unit.CONCURRENCY
    ]
    reserved = await limiter.reserve(nothing, at, hold_s, f"{ended.hold_id}.late")
    if reserved.held is not None:
        await limiter.settle(reserved.held, beyond, at)
