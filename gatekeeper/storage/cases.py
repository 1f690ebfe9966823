"""Records of identity checks: one transaction moves a case and raises its account's assurance.

Each writer takes its numbers first, which makes writers queue on SQLite and PostgreSQL alike: what
is read after that is what is decided on.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, insert, or_, select, update

from gatekeeper.policy.lifecycles import CaseEvent, CaseState, step
from gatekeeper.policy.words import Assurance
from gatekeeper.storage.cases_schema import (
    CASE_STEPS,
    CASES,
    MAX_ACTOR,
    MAX_REASON,
    VENDOR_EVENTS,
    CaseRow,
    CaseStep,
    Change,
    Finding,
    Opening,
)
from gatekeeper.storage.database import RecordsError, take_numbers
from gatekeeper.storage.records_schema import ACCOUNTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from gatekeeper.storage.cases_schema import TryRules
    from gatekeeper.storage.database import Database

FIRST_CHECK_S: Final = 60.0
"""How long a webhook may take before the vendor is asked."""
_COLUMNS: Final = tuple(CASES.c[field.name] for field in fields(CaseRow))
_MOST_STEPS: Final = 4
"""Steps that one transaction may take: a proof lapses, the case is restarted and opened."""
_LINK: Final = "link"
"""Actor of what a caller does by opening a link."""


class Cases:
    """Identity checks. Every method raises :class:`RecordsError` when SQL could not."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(
        self,
        account_id: str,
        assurance: Assurance,
        link_id: str,
        *,
        case_id: str,
        vendor: str,
        rules: TryRules,
        at: float,
    ) -> tuple[Opening, CaseRow | None]:
        """Begin a try for whoever opened a link, or say how it stands; twice is once.

        ``case_id`` names the case if there is none yet.
        """
        async with self._database.writing() as connection:
            seq = await take_numbers(connection, _MOST_STEPS)
            mover = _Mover(connection, seq, at)
            account = await mover.account(account_id)
            if account is None or (account.banned_until or 0.0) > at:
                return Opening.NOT_ELIGIBLE, None
            found = await connection.execute(
                select(*_COLUMNS).where(CASES.c.account_id == account_id)
            )
            rows = [_case(row) for row in found]
            row = next((each for each in rows if each.assurance is assurance), None)
            if _effective(account, at).meets(assurance):
                return Opening.PROVEN, row
            if row is not None and row.state is CaseState.PENDING:
                return Opening.UNDER_WAY, row
            over = row is not None and row.state in {CaseState.REJECTED, CaseState.EXPIRED}
            if over and row is not None and row.link_id == link_id:
                return Opening.ENDED, row
            recent = [each for each in rows if each.tries_since + rules.period_s > at]
            if sum(each.tries for each in recent) >= rules.max_tries:
                return Opening.EXHAUSTED, row
            if row is None:
                row = await mover.create(case_id, account_id, assurance, link_id)
            if row.state is CaseState.VERIFIED:  # a proof that the account lost counts no more
                row = await mover.move(row, Finding(CaseEvent.LAPSED, _LINK)) or row
            if row.state is not CaseState.REQUIRED:
                row = await mover.move(row, Finding(CaseEvent.RESTARTED, _LINK)) or row
            going = row in recent or row.tries_since + rules.period_s > at
            started = await mover.move(
                row,
                Finding(CaseEvent.OPENED, _LINK),
                link_id=link_id,
                vendor=vendor,
                reference=None,
                attempt=row.attempt + 1,
                tries=row.tries + 1 if going else 1,
                tries_since=row.tries_since if going else at,
                started_at=at,
                expires_at=at + rules.pending_s,
                next_check_at=at + FIRST_CHECK_S if vendor else at + rules.pending_s,
                decided_at=None,
            )
        return Opening.STARTED, started

    async def attach(self, case: CaseRow, reference: str, *, at: float) -> CaseRow | None:
        """Keep the vendor's name of a try; of two that started it at once, the first wins."""
        async with self._database.writing() as connection:
            seq = await take_numbers(connection, 1)
            await connection.execute(
                update(CASES)
                .where(
                    CASES.c.id == case.id,
                    CASES.c.attempt == case.attempt,
                    CASES.c.reference.is_(None),
                )
                .values(reference=reference, updated_at=at, seq=seq)
            )
            return await _one(connection, select(*_COLUMNS).where(CASES.c.id == case.id))

    async def apply(
        self,
        case_id: str,
        finding: Finding,
        *,
        at: float,
        valid_s: float | None,
        reference: str | None = None,
        delivery: tuple[str, str] | None = None,
    ) -> tuple[Change, CaseRow | None]:
        """Move a case, and raise the account in the same transaction when it is approved.

        ``reference`` holds the finding to one try, so that what is learned of an earlier one
        changes nothing. ``delivery`` (vendor and event id) has its effect once.
        """
        async with self._database.writing() as connection:
            seq = await take_numbers(connection, _MOST_STEPS)
            mover = _Mover(connection, seq, at)
            if delivery is not None and not await self._note(connection, delivery, at):
                return Change.DUPLICATE, None
            row = await _one(connection, select(*_COLUMNS).where(CASES.c.id == case_id))
            if row is None:
                return Change.NO_CASE, None
            if reference is not None and row.reference != reference:
                return Change.NOT_NOW, row
            if step(row.state, finding.event) is None:
                return Change.NOT_NOW, row
            changes: dict[str, Any] = {"next_check_at": None, "decided_at": at}
            if finding.event is CaseEvent.APPROVED:
                until = None if valid_s is None else at + valid_s
                if not await mover.grant(row.account_id, finding.assurance, until):
                    return Change.NOT_NOW, row
                changes |= {"expires_at": until, "next_check_at": until}
            elif finding.event is CaseEvent.RESTARTED:
                changes |= {"tries": 0, "tries_since": at, "expires_at": None, "decided_at": None}
            return Change.DONE, await mover.move(row, finding, **changes)

    async def note(self, vendor: str, event_id: str, *, at: float) -> None:
        """Keep that a delivery was dealt with, though it changed nothing."""
        async with self._database.writing() as connection:
            await self._note(connection, (vendor, event_id), at)

    async def noted(self, vendor: str, event_id: str) -> bool:
        """Tell whether a delivery was dealt with before."""
        query = select(VENDOR_EVENTS.c.id).where(
            VENDOR_EVENTS.c.vendor == vendor, VENDOR_EVENTS.c.id == event_id
        )
        async with self._database.reading() as connection:
            return await connection.scalar(query) is not None

    async def forget_deliveries(self, *, before: float) -> None:
        """Drop what was noted long ago; a replay that late is refused by its age."""
        async with self._database.writing() as connection:
            await connection.execute(
                delete(VENDOR_EVENTS).where(VENDOR_EVENTS.c.received_at < before)
            )

    async def claim(self, case: CaseRow, *, until: float) -> bool:
        """Take the next look at a case for oneself; false when another node has taken it."""
        async with self._database.writing() as connection:
            done = await connection.execute(
                update(CASES)
                .where(CASES.c.id == case.id, CASES.c.next_check_at == case.next_check_at)
                .values(next_check_at=until)
            )
            return bool(done.rowcount)

    async def due(self, *, at: float, limit: int) -> tuple[CaseRow, ...]:
        """Return cases whose time has come to be looked at, the longest waiting first."""
        query = select(*_COLUMNS).where(CASES.c.next_check_at <= at)
        async with self._database.reading() as connection:
            rows = await connection.execute(query.order_by(CASES.c.next_check_at).limit(limit))
            return tuple(_case(row) for row in rows)

    async def get(self, case_id: str) -> CaseRow | None:
        """Return one case."""
        return await self._read_one(select(*_COLUMNS).where(CASES.c.id == case_id))

    async def of_account(self, account_id: str, assurance: Assurance) -> CaseRow | None:
        """Return the case of an account and level."""
        return await self._read_one(
            select(*_COLUMNS).where(
                CASES.c.account_id == account_id, CASES.c.assurance == assurance.value
            )
        )

    async def by_reference(self, vendor: str, reference: str) -> CaseRow | None:
        """Return the case whose current try the vendor calls by this name."""
        return await self._read_one(
            select(*_COLUMNS).where(CASES.c.vendor == vendor, CASES.c.reference == reference)
        )

    async def page(
        self,
        *,
        after: str = "",
        limit: int = 100,
        state: CaseState | None = None,
        account_id: str | None = None,
        text: str = "",
    ) -> tuple[CaseRow, ...]:
        """Return a page of cases by id, from the first id greater than ``after``.

        ``text`` searches account, link (decision id) and the vendor's reference for exactly this.
        """
        query = select(*_COLUMNS).where(CASES.c.id > after)
        if state is not None:
            query = query.where(CASES.c.state == state.value)
        if account_id is not None:
            query = query.where(CASES.c.account_id == account_id)
        if text:
            named = (CASES.c.id, CASES.c.account_id, CASES.c.link_id, CASES.c.reference)
            query = query.where(or_(*(column == text for column in named)))
        async with self._database.reading() as connection:
            rows = await connection.execute(query.order_by(CASES.c.id).limit(limit))
            return tuple(_case(row) for row in rows)

    async def history(self, case_id: str, *, limit: int = 100) -> tuple[CaseStep, ...]:
        """Return what happened to a case, the latest first."""
        table = CASE_STEPS.c
        query = select(table.at, table.event, table.state, table.actor, table.reason)
        query = query.where(table.case_id == case_id).order_by(table.seq.desc()).limit(limit)
        async with self._database.reading() as connection:
            return tuple(
                CaseStep(at, CaseEvent(event), CaseState(state), actor, reason)
                for at, event, state, actor, reason in await connection.execute(query)
            )

    async def _read_one(self, query: Select[Any]) -> CaseRow | None:
        async with self._database.reading() as connection:
            return await _one(connection, query)

    async def _note(
        self, connection: AsyncConnection, delivery: tuple[str, str], at: float
    ) -> bool:
        vendor, event_id = delivery
        done = await connection.execute(
            self._database.insert(VENDOR_EVENTS)
            .values(vendor=vendor, id=event_id, received_at=at)
            .on_conflict_do_nothing()
        )
        return bool(done.rowcount)


class _Mover:
    """The steps of one transaction, which holds the numbers from ``seq`` on."""

    def __init__(self, connection: AsyncConnection, seq: int, at: float) -> None:
        self._connection = connection
        self._seq = seq
        self._at = at

    async def account(self, account_id: str) -> Any:
        """Return assurance, its expiry and the ban of an account, or ``None``."""
        columns = (ACCOUNTS.c.assurance, ACCOUNTS.c.assurance_expires, ACCOUNTS.c.banned_until)
        found = await self._connection.execute(select(*columns).where(ACCOUNTS.c.id == account_id))
        return found.one_or_none()

    async def create(
        self, case_id: str, account_id: str, assurance: Assurance, link_id: str
    ) -> CaseRow:
        """Add a case that nobody has opened yet."""
        row = CaseRow(
            case_id,
            account_id,
            assurance,
            CaseState.REQUIRED,
            link_id,
            tries_since=self._at,
            created_at=self._at,
            updated_at=self._at,
        )
        values = {field.name: getattr(row, field.name) for field in fields(CaseRow)}
        await self._connection.execute(insert(CASES).values(values | {"seq": self._seq}))
        return row

    async def move(self, row: CaseRow, finding: Finding, **changes: Any) -> CaseRow | None:
        """Take one step and write it into the history; ``None`` when it is not allowed."""
        state = step(row.state, finding.event)
        if state is None:
            return None
        actor, reason = finding.actor[:MAX_ACTOR], finding.reason[:MAX_REASON]
        changes |= {"state": state, "updated_at": self._at, "actor": actor, "reason": reason}
        await self._connection.execute(
            update(CASES).where(CASES.c.id == row.id).values(changes | {"seq": self._seq})
        )
        await self._connection.execute(
            insert(CASE_STEPS).values(
                seq=self._seq,
                case_id=row.id,
                at=self._at,
                event=finding.event.value,
                state=state.value,
                actor=actor,
                reason=reason,
            )
        )
        self._seq += 1
        return replace(row, **changes)

    async def grant(self, account_id: str, assurance: Assurance, until: float | None) -> bool:
        """Raise an account to ``assurance`` until then; never lowers, never shortens."""
        account = await self.account(account_id)
        if account is None:
            return False
        held = _effective(account, self._at)
        if held.rank > assurance.rank:
            return True
        if held is assurance and (
            account.assurance_expires is None
            or (until is not None and account.assurance_expires > until)
        ):
            return True
        await self._connection.execute(
            update(ACCOUNTS)
            .where(ACCOUNTS.c.id == account_id)
            .values(
                assurance=assurance.value,
                assurance_expires=until,
                updated_at=self._at,
                seq=self._seq,
            )
        )
        self._seq += 1
        return True


def _effective(account: Any, at: float) -> Assurance:
    expires = account.assurance_expires
    return Assurance(account.assurance) if expires is None or at < expires else Assurance.NONE


async def _one(connection: AsyncConnection, query: Select[Any]) -> CaseRow | None:
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _case(row)


def _case(row: Sequence[Any]) -> CaseRow:
    values = dict(zip((column.name for column in _COLUMNS), row, strict=True))
    try:
        values["assurance"] = Assurance(values["assurance"])
        values["state"] = CaseState(values["state"])
    except ValueError as error:
        raise RecordsError(f"case {values['id']!r} was damaged by hand: {error}") from error
    return CaseRow(**values)
