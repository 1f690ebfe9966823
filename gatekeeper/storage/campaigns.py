"""Campaigns in the records: the watcher writes them, admins judge them, gates follow them.

What a campaign is made of stands in one packed column, as only whole campaigns are of use; what
lists are made by stands beside it.
"""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import BigInteger, Column, Double, Integer, LargeBinary, String, Table, func, select

from gatekeeper.policy.campaigns import Campaign, CampaignState, Stage
from gatekeeper.policy.words import Assurance
from gatekeeper.storage.database import RecordsError, take_numbers
from gatekeeper.storage.records_schema import ACCOUNTS
from gatekeeper.storage.schema import METADATA

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from gatekeeper.storage.database import Database

_LARGEST_BYTES: Final = 1 << 30
"""Of one campaign, unpacked: tens of millions of members."""
_PACKING: Final = 1
"""Level of compression: ids of accounts pack to a third of their size at once."""
_ROWS_AT_ONCE: Final = 50

CAMPAIGNS: Final = Table(
    "campaigns",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("state", String(16), nullable=False, index=True),
    Column("stage", String(16), nullable=False),
    Column("score", Double, nullable=False),
    Column("members", Integer, nullable=False),
    Column("since", Double, nullable=False),
    Column("last_seen", Double, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("seq", BigInteger, nullable=False, index=True),
)

_LISTED: Final = (
    CAMPAIGNS.c.id,
    CAMPAIGNS.c.state,
    CAMPAIGNS.c.stage,
    CAMPAIGNS.c.score,
    CAMPAIGNS.c.members,
    CAMPAIGNS.c.since,
    CAMPAIGNS.c.last_seen,
    CAMPAIGNS.c.updated_at,
    CAMPAIGNS.c.seq,
)
_CONTAINED: Final = tuple(state.value for state in CampaignState if state.contains)


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """A campaign as lists show it. Times are Unix seconds."""

    id: str
    state: CampaignState
    stage: Stage
    score: float
    members: int
    since: float
    last_seen: float
    updated_at: float
    seq: int
    """Number of the write that last touched it: its version, for conditional writes."""


@dataclass(frozen=True, slots=True)
class Book:
    """All campaigns as of one moment."""

    campaigns: tuple[Campaign, ...]
    revision: int
    """Number of the last write among them; 0 for none."""


class CampaignConflictError(Exception):
    """A campaign is not as the writer had seen it; nothing was written."""


class CampaignBook:
    """The campaigns. Every method raises :class:`RecordsError` when SQL could not."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def revision(self) -> int:
        """Return the number of the last write among campaigns; 0 for none."""
        async with self._database.reading() as connection:
            return int(await connection.scalar(select(func.max(CAMPAIGNS.c.seq))) or 0)

    async def contained(self) -> tuple[Campaign, ...]:
        """Return those that gates treat in any way of their own."""
        return (await self._read(_CONTAINED)).campaigns

    async def all(self) -> Book:
        """Return every campaign, and the revision at which they were read."""
        return await self._read(None)

    async def proven(self, at: float) -> frozenset[str]:
        """Return the accounts that have proven who they are, and whose proof holds at ``at``."""
        ends = ACCOUNTS.c.assurance_expires
        query = select(ACCOUNTS.c.id).where(
            ACCOUNTS.c.assurance != Assurance.NONE.value, ends.is_(None) | (ends > at)
        )
        async with self._database.reading() as connection:
            return frozenset((await connection.execute(query)).scalars())

    async def get(self, campaign_id: str) -> tuple[Campaign, CampaignRow] | None:
        """Return one campaign, whole and as it is listed."""
        query = select(*_LISTED, CAMPAIGNS.c.body).where(CAMPAIGNS.c.id == campaign_id)
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        *listed, body = row
        return await asyncio.to_thread(_unpacked, body), _listed(listed)

    async def page(
        self,
        *,
        states: Collection[CampaignState] = (),
        after: str = "",
        limit: int = 100,
    ) -> tuple[CampaignRow, ...]:
        """Return a page by id, from the first greater than ``after``; all states when none."""
        query = select(*_LISTED).where(CAMPAIGNS.c.id > after)
        if states:
            query = query.where(CAMPAIGNS.c.state.in_([state.value for state in states]))
        async with self._database.reading() as connection:
            rows = await connection.execute(query.order_by(CAMPAIGNS.c.id).limit(limit))
            return tuple(_listed(row) for row in rows)

    async def write(self, campaigns: Sequence[Campaign], *, at: float, seen: int) -> None:
        """Keep what changed, all of it or nothing.

        ``seen`` is the revision at which the campaigns were read that these came of; raises
        :class:`CampaignConflictError` when somebody has written since.
        """
        packed = await asyncio.to_thread(_all_packed, campaigns)
        async with self._database.together():  # other writers wait: what is read stays true
            if await self.revision() != seen:
                raise CampaignConflictError
            await self._put(packed, at)

    async def change(
        self,
        campaign_ids: Sequence[str],
        step: Callable[..., Iterable[Campaign] | None],
        *,
        at: float,
    ) -> tuple[Campaign, ...] | None:
        """Take a step with some campaigns; return them as they are then.

        ``step`` is given them in the order of their ids; ``None``, of it or of this, is that it
        does not apply, or that there is no such campaign.
        """
        async with self._database.together():  # other writers wait: what is read stays true
            found = [await self.get(each) for each in campaign_ids]
            known = [each[0] for each in found if each is not None]
            changed = step(*known) if len(known) == len(found) else None
            if changed is None:
                return None
            after = tuple(changed)
            await self._put(await asyncio.to_thread(_all_packed, after), at)
        return after

    async def _put(self, packed: list[dict[str, Any]], at: float) -> None:
        async with self._database.writing() as connection:
            first = await take_numbers(connection, len(packed))
            for number, values in enumerate(packed):
                values |= {"updated_at": at, "seq": first + number}
            statement = self._database.insert(CAMPAIGNS)
            statement = statement.on_conflict_do_update(
                index_elements=[CAMPAIGNS.c.id],
                set_={
                    column.name: statement.excluded[column.name]
                    for column in CAMPAIGNS.c
                    if column.name != "id"
                },
            )
            for start in range(0, len(packed), _ROWS_AT_ONCE):
                await connection.execute(statement, packed[start : start + _ROWS_AT_ONCE])

    async def _read(self, states: tuple[str, ...] | None) -> Book:
        query = select(CAMPAIGNS.c.body, CAMPAIGNS.c.seq).order_by(CAMPAIGNS.c.id)
        if states is not None:
            query = query.where(CAMPAIGNS.c.state.in_(states))
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).all()
        bodies = await asyncio.to_thread(lambda: tuple(_unpacked(body) for body, _ in rows))
        return Book(bodies, max((seq for _, seq in rows), default=0))


_READ: Final = msgspec.json.Decoder(Campaign)


def _packed(campaign: Campaign) -> dict[str, Any]:
    return {
        "id": campaign.id,
        "state": campaign.state.value,
        "stage": campaign.stage.value,
        "score": campaign.group.score,
        "members": len(campaign.contained),
        "since": campaign.since,
        "last_seen": campaign.group.last_seen,
        "body": zlib.compress(msgspec.json.encode(campaign), _PACKING),
    }


def _all_packed(campaigns: Iterable[Campaign]) -> list[dict[str, Any]]:
    return [_packed(each) for each in campaigns]


def _unpacked(body: bytes) -> Campaign:
    """Read a campaign; one that was damaged by hand is not half believed."""
    unpacking = zlib.decompressobj()
    try:
        return _READ.decode(unpacking.decompress(body, _LARGEST_BYTES))
    except (zlib.error, msgspec.DecodeError) as error:
        raise RecordsError("a campaign in the records is damaged and cannot be read") from error


def _listed(row: Sequence[Any]) -> CampaignRow:
    values: Mapping[str, Any] = dict(zip((each.name for each in _LISTED), row, strict=True))
    return CampaignRow(
        **{**values, "state": CampaignState(values["state"]), "stage": Stage(values["stage"])}
    )
