"""Organizations: what an account's organization is called, and from where it is known to call.

An organization is never deleted: without egress ranges it has no effect.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, fields
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, String, Table, select

from gatekeeper.storage.database import RecordsError, take_numbers
from gatekeeper.storage.schema import METADATA

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gatekeeper.storage.database import Database


@dataclass(frozen=True, slots=True)
class OrganizationRow:
    """One organization as it is recorded."""

    id: str
    """What accounts of it carry as ``organization``."""
    name: str
    """What people call it."""
    verified: bool = False
    """Whether somebody has checked that it is who it says."""
    egress: tuple[str, ...] = ()
    """Prefixes from which its accounts call, canonical; no two organizations share an address."""
    updated_at: float = 0.0
    seq: int = field(default=0, compare=False)
    """Number of the write that last touched it: its version, for conditional writes."""


OrganizationValue: TypeAlias = "str | bool | tuple[str, ...]"


@dataclass(frozen=True, slots=True)
class OrganizationPatch:
    """What to set on an organization; what is not named keeps its value."""

    id: str
    fields: Mapping[str, OrganizationValue]
    """``name``, ``verified`` and ``egress`` (canonical prefixes) only."""


@dataclass(frozen=True, slots=True)
class OrganizationConflict:
    """The organization is not at the version that the writer had seen; nothing was written."""

    current: OrganizationRow | None


@dataclass(frozen=True, slots=True)
class EgressOverlap:
    """A prefix holds addresses that another organization has registered; nothing was written."""

    prefix: str
    organization: str
    registered: str
    """The other organization's prefix."""


ORGANIZATIONS: Final = Table(
    "organizations",
    METADATA,
    Column("id", String(200), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("verified", Boolean, nullable=False),
    Column("egress", JSON, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("seq", BigInteger, nullable=False, index=True),
)

COLUMNS: Final = tuple(ORGANIZATIONS.c[each.name] for each in fields(OrganizationRow))


class Organizations:
    """Organizations. Every method raises :class:`RecordsError` when SQL could not."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(
        self, patch: OrganizationPatch, *, at: float, expected_seq: int | None = None
    ) -> OrganizationRow | OrganizationConflict | EgressOverlap:
        """Set what ``patch`` names on one organization, creating it when there is none.

        With ``expected_seq`` only if that is its version; 0 expects that there is none yet.
        """
        try:
            async with self._database.writing() as connection:
                # Taken first: other writers wait from here on, so that what is read stays true.
                seq = await take_numbers(connection, 1)
                rows = await connection.execute(select(*COLUMNS))
                known = {row.id: row for row in map(organization, rows)}
                current = known.pop(patch.id, None)
                if expected_seq is not None:
                    _demand(expected_seq, current)
                before = current or OrganizationRow(patch.id, name=patch.id)
                values: dict[str, Any] = {
                    "id": patch.id,
                    "name": patch.fields.get("name", before.name),
                    "verified": patch.fields.get("verified", before.verified),
                    "egress": patch.fields.get("egress", before.egress),
                    "updated_at": at,
                    "seq": seq,
                }
                row = OrganizationRow(**values)
                if row.egress != before.egress:
                    await asyncio.to_thread(_demand_apart, row, known.values())
                values["egress"] = list(row.egress)
                statement = self._database.insert(ORGANIZATIONS).values(values)
                await connection.execute(
                    statement.on_conflict_do_update(
                        index_elements=[ORGANIZATIONS.c.id],
                        set_={name: value for name, value in values.items() if name != "id"},
                    )
                )
        except _RefusedError as refused:
            return refused.answer
        return row

    async def get(self, organization_id: str) -> OrganizationRow | None:
        """Return one organization."""
        async with self._database.reading() as connection:
            found = await connection.execute(
                select(*COLUMNS).where(ORGANIZATIONS.c.id == organization_id)
            )
            row = found.one_or_none()
        return None if row is None else organization(row)

    async def page(self, *, after: str = "", limit: int = 100) -> tuple[OrganizationRow, ...]:
        """Return a page of organizations by id, from the first id greater than ``after``."""
        async with self._database.reading() as connection:
            rows = await connection.execute(
                select(*COLUMNS)
                .where(ORGANIZATIONS.c.id > after)
                .order_by(ORGANIZATIONS.c.id)
                .limit(limit)
            )
            return tuple(organization(row) for row in rows)


class _RefusedError(Exception):
    """Rolls the transaction back; what it carries is the answer."""

    def __init__(self, answer: OrganizationConflict | EgressOverlap) -> None:
        super().__init__()
        self.answer = answer


def organization(row: Sequence[Any]) -> OrganizationRow:
    """Read a row of :data:`COLUMNS`."""
    values = dict(zip((column.name for column in COLUMNS), row, strict=True))
    if not isinstance(values["egress"], list):
        raise RecordsError(f"organization {values['id']!r} was damaged by hand: egress is no list")
    values["egress"] = tuple(values["egress"])
    return OrganizationRow(**values)


def _demand(expected_seq: int, current: OrganizationRow | None) -> None:
    if expected_seq != (0 if current is None else current.seq):
        raise _RefusedError(OrganizationConflict(current))


def _demand_apart(row: OrganizationRow, others: Iterable[OrganizationRow]) -> None:
    """Refuse a row that shares an address with one of the others, which share none."""
    spans = sorted(
        (network.version, int(network[0]), int(network[-1]), owner.id, text)
        for owner in (row, *others)
        for text in owner.egress
        for network in (ip_network(text),)
    )
    # Of ours and of theirs, who reaches furthest so far is all that the next one can touch.
    ours = theirs = (0, 0, -1, "", "")
    for span in spans:
        mine = span[3] == row.id
        facing = theirs if mine else ours
        if facing[0] == span[0] and span[1] <= facing[2]:
            prefix, other = (span[4], facing) if mine else (facing[4], span)
            raise _RefusedError(EgressOverlap(prefix, other[3], other[4]))
        if mine:
            ours = max(ours, span, key=lambda each: (each[0], each[2]))
        else:
            theirs = max(theirs, span, key=lambda each: (each[0], each[2]))
