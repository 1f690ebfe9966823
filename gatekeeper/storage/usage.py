"""What each account used on each day (UTC), gathered in memory and added up in the records.

A batch is added exactly once: it carries the number of the flush, and the records keep the last
number of each process in the same transaction. A batch whose commit was in doubt is sent again
under its number, and does nothing if it had arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
    delete,
    select,
    tuple_,
)

from gatekeeper.storage.database import RecordsError
from gatekeeper.storage.schema import METADATA

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gatekeeper.policy.model import Usage
    from gatekeeper.storage.database import Database

_DAY_S: Final = 86_400
_CHUNK_ROWS: Final = 500
_FORGOTTEN_AFTER_S: Final = 7 * 86_400.0
"""A process that sent nothing for so long will not ask again whether its last batch arrived."""
_FLUSH_EVERY_S: Final = 5.0
"""How soon usage is in the records; what a killed process had not written is lost."""
_FLUSH_S: Final = 10.0
_COUNTS: Final = (
    "requests",
    "refused",
    "estimated_requests",
    "input_tokens",
    "output_tokens",
    "cost_microcents",
)

USAGE_DAILY: Final = Table(
    "usage_daily",
    METADATA,
    Column("account_id", String(255), nullable=False),
    Column("day", Integer, nullable=False),
    Column("model", String(200), nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in _COUNTS),
    PrimaryKeyConstraint("day", "account_id", "model"),
)
"""``day`` counts from 1970-01-01."""

USAGE_FLUSHES: Final = Table(
    "usage_flushes",
    METADATA,
    Column("process", String(40), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
)


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one account used of one row of the model table on one day."""

    account_id: str
    day: int
    """Days since 1970-01-01, UTC."""
    model: str
    """Pattern of the row in the model table by which calls were priced; empty for refusals."""
    requests: int = 0
    """Calls that were admitted."""
    refused: int = 0
    """Calls that were not."""
    estimated_requests: int = 0
    """Admitted calls whose usage the upstream did not report."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_microcents: int = 0
    """Millionths of a US cent, so that sums lose nothing."""


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which rows are wanted: days from ``first_day`` to ``last_day``, both included."""

    first_day: int
    last_day: int
    account_id: str | None = None


class UsageTable:
    """Usage in the records. Methods raise :class:`RecordsError` when SQL could not."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self,
        rows: Mapping[tuple[str, int, str], list[int]],
        *,
        process: str,
        number: int,
        at: float,
    ) -> bool:
        """Add a batch, once; ``False`` when this process sent a batch of this number before."""
        async with self._database.writing() as connection:
            claim = self._database.insert(USAGE_FLUSHES).values(
                process=process, number=number, at=at
            )
            claimed = await connection.execute(
                claim.on_conflict_do_update(
                    index_elements=[USAGE_FLUSHES.c.process],
                    set_={"number": number, "at": at},
                    where=USAGE_FLUSHES.c.number < number,
                ).returning(USAGE_FLUSHES.c.number)
            )
            if claimed.first() is None:
                return False
            insert = self._database.insert(USAGE_DAILY)
            adding = insert.on_conflict_do_update(
                index_elements=[USAGE_DAILY.c.day, USAGE_DAILY.c.account_id, USAGE_DAILY.c.model],
                set_={name: USAGE_DAILY.c[name] + insert.excluded[name] for name in _COUNTS},
            )
            # Sorted, so that two nodes never wait for each other's rows.
            ordered = sorted(rows.items())
            for start in range(0, len(ordered), _CHUNK_ROWS):
                await connection.execute(
                    adding,
                    [
                        {"account_id": account_id, "day": day, "model": model}
                        | dict(zip(_COUNTS, counts, strict=True))
                        for (account_id, day, model), counts in ordered[start : start + _CHUNK_ROWS]
                    ],
                )
            return True

    async def forget_processes(self, *, at: float) -> None:
        """Drop the numbers of processes that are long gone."""
        async with self._database.writing() as connection:
            await connection.execute(
                delete(USAGE_FLUSHES).where(USAGE_FLUSHES.c.at < at - _FORGOTTEN_AFTER_S)
            )

    async def page(
        self, query: UsageQuery, *, after: tuple[int, str, str] | None = None, limit: int = 100
    ) -> tuple[UsageRow, ...]:
        """Return rows by day, account and model, from the first after ``after``."""
        place = (USAGE_DAILY.c.day, USAGE_DAILY.c.account_id, USAGE_DAILY.c.model)
        wanted = select(
            USAGE_DAILY.c.account_id,
            USAGE_DAILY.c.day,
            USAGE_DAILY.c.model,
            *(USAGE_DAILY.c[name] for name in _COUNTS),
        ).where(USAGE_DAILY.c.day.between(query.first_day, query.last_day))
        if query.account_id is not None:
            wanted = wanted.where(USAGE_DAILY.c.account_id == query.account_id)
        if after is not None:
            wanted = wanted.where(tuple_(*place) > tuple_(*after))
        async with self._database.reading() as connection:
            rows: Any = await connection.execute(wanted.order_by(*place).limit(limit))
            return tuple(UsageRow(*row) for row in rows)


class UsageBook:
    """Counts in memory until a flush; bounded by giving up, and counting, what has no room."""

    def __init__(self, table: UsageTable, *, process: str, most_rows: int = 100_000) -> None:
        """Gather nothing yet. ``process`` names this run of the gate and no other."""
        self._table = table
        self._process = process
        self._most_rows = most_rows
        self._rows: dict[tuple[str, int, str], list[int]] = {}
        self._sending: dict[tuple[str, int, str], list[int]] = {}
        self._number = 0
        self.dropped = 0
        """Calls not counted because too many accounts waited for the records."""
        self.failures = 0
        """Flushes that the records refused."""

    @property
    def waiting(self) -> int:
        """How many rows are not yet in the records."""
        return len(self._rows) + len(self._sending)

    def settled(self, account_id: str, at: float, model: str, usage: Usage) -> None:
        """Count an admitted call. ``at`` is when it came, Unix seconds."""
        counts = self._counts(account_id, at, model)
        if counts is not None:
            counts[0] += 1
            counts[2] += usage.estimated
            counts[3] += usage.input_tokens
            counts[4] += usage.output_tokens
            counts[5] += round(usage.cost_cents * 1_000_000)

    def refused(self, account_id: str, at: float) -> None:
        """Count a call that was not admitted."""
        counts = self._counts(account_id, at, "")
        if counts is not None:
            counts[1] += 1

    async def flush(self, at: float) -> bool:
        """Add what was gathered to the records; on failure all of it is kept for the next time."""
        if not self._sending:
            if not self._rows:
                return True
            self._sending, self._rows = self._rows, {}
            self._number += 1
        try:
            async with asyncio.timeout(_FLUSH_S):
                await self._table.add(
                    self._sending, process=self._process, number=self._number, at=at
                )
        except (RecordsError, TimeoutError):
            self.failures += 1
            return False
        self._sending = {}
        return True

    async def run(self, clock: Callable[[], float]) -> None:
        """Flush every few seconds until cancelled; ``clock`` tells Unix seconds."""
        with contextlib.suppress(RecordsError):
            await self._table.forget_processes(at=clock())
        while True:
            await asyncio.sleep(_FLUSH_EVERY_S)
            await self.flush(clock())

    async def finish(self, at: float) -> None:
        """Record what was used since the last flush, and what that one could not."""
        while await self.flush(at) and self.waiting:
            pass

    def _counts(self, account_id: str, at: float, model: str) -> list[int] | None:
        key = (account_id, int(at) // _DAY_S, model)
        counts = self._rows.get(key)
        if counts is None:
            if len(self._rows) >= self._most_rows:
                self.dropped += 1
                return None
            counts = self._rows[key] = [0, 0, 0, 0, 0, 0]
        return counts
