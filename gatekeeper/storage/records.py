"""Records of accounts and API keys in SQL: SQLite by default, PostgreSQL for a fleet."""

from __future__ import annotations

from dataclasses import fields
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Self, overload

from sqlalchemy import Table, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from gatekeeper.policy.words import Assurance, Tier
from gatekeeper.storage import organizations
from gatekeeper.storage.account_search import conditions
from gatekeeper.storage.database import Database, RecordsError, take_numbers
from gatekeeper.storage.records_schema import (
    ACCOUNTS,
    API_KEYS,
    AccountConflict,
    AccountPatch,
    AccountRow,
    Changes,
    ImportCount,
    KeyCreation,
    KeyRow,
    Position,
    Revocation,
)
from gatekeeper.storage.schema import META

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from gatekeeper.storage.account_search import AccountQuery

_BATCH_ROWS: Final = 100
"""Few, so that an import through the API of a running gate holds up its calls for some ten ms."""
_ACCOUNT_COLUMNS: Final = tuple(ACCOUNTS.c[field.name] for field in fields(AccountRow))
_KEY_COLUMNS: Final = tuple(API_KEYS.c[field.name] for field in fields(KeyRow))
_COLUMNS: Final = {
    ACCOUNTS.name: _ACCOUNT_COLUMNS,
    API_KEYS.name: _KEY_COLUMNS,
    organizations.ORGANIZATIONS.name: organizations.COLUMNS,
}


class Records:
    """Accounts and API keys. Every method raises :class:`RecordsError` when SQL could not."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    async def open(cls, url: str) -> Self:
        """Open the database at an SQLAlchemy ``url``; see :meth:`Database.open`."""
        return cls(await Database.open(url))

    async def close(self) -> None:
        """Close every connection."""
        await self.database.close()

    @overload
    async def upsert_account(
        self, patch: AccountPatch, *, at: float, expected_seq: None = None
    ) -> AccountRow: ...
    @overload
    async def upsert_account(
        self, patch: AccountPatch, *, at: float, expected_seq: int
    ) -> AccountRow | AccountConflict: ...
    async def upsert_account(
        self, patch: AccountPatch, *, at: float, expected_seq: int | None = None
    ) -> AccountRow | AccountConflict:
        """Set what ``patch`` names on one account, creating it when there is none.

        With ``expected_seq`` only if that is its version; 0 expects that there is none yet.
        """
        one = select(*_ACCOUNT_COLUMNS).where(ACCOUNTS.c.id == patch.id)
        try:
            async with self.database.writing() as connection:
                # Taken first: other writers wait from here on, so that what is read stays true.
                seq = await take_numbers(connection, 1)
                if expected_seq is not None:
                    _demand(expected_seq, (await connection.execute(one)).one_or_none())
                await self._put_accounts(connection, [patch], seq=seq, at=at)
                return _account((await connection.execute(one)).one())
        except _ConflictError as conflict:
            return AccountConflict(conflict.current)

    async def import_accounts(self, patches: Iterable[AccountPatch], *, at: float) -> ImportCount:
        """Apply all ``patches`` in one transaction: either every account is set or none."""
        async with self.database.writing() as connection:
            before = await connection.scalar(select(func.count()).select_from(ACCOUNTS)) or 0
            rows = 0
            for batch in _batches(patches):
                seq = await take_numbers(connection, len(batch))
                await self._put_accounts(connection, batch, seq=seq, at=at)
                rows += len(batch)
            after = await connection.scalar(select(func.count()).select_from(ACCOUNTS)) or 0
        created = after - before
        return ImportCount(created=created, updated=rows - created)

    async def keep_opaque(self, first_success_at: Mapping[str, float]) -> None:
        """Record opaque accounts by the time their key first worked; known ones stay."""
        if not first_success_at:
            return
        async with self.database.writing() as connection:
            seq = await take_numbers(connection, len(first_success_at))
            statement = self.database.insert(ACCOUNTS).on_conflict_do_nothing()
            await connection.execute(
                statement,
                [
                    _new_account(account_id, at=at)
                    | {"created_at": at, "opaque": True, "seq": seq + offset}
                    for offset, (account_id, at) in enumerate(first_success_at.items())
                ],
            )

    async def account(self, account_id: str) -> AccountRow | None:
        """Return one account."""
        async with self.database.reading() as connection:
            found = await connection.execute(
                select(*_ACCOUNT_COLUMNS).where(ACCOUNTS.c.id == account_id)
            )
            row = found.one_or_none()
        return None if row is None else _account(row)

    async def accounts(self, *, after: str = "", limit: int = 100) -> tuple[AccountRow, ...]:
        """Return a page of accounts by id, from the first id greater than ``after``."""
        return await self._page([], after, limit)

    async def search(
        self, query: AccountQuery, *, at: float, after: str = "", limit: int = 100
    ) -> tuple[AccountRow, ...]:
        """Return a page of the accounts that ``query`` describes; bans are judged as of ``at``."""
        return await self._page(conditions(query, at=at), after, limit)

    async def _page(
        self, where: Sequence[ColumnElement[bool]], after: str, limit: int
    ) -> tuple[AccountRow, ...]:
        query = select(*_ACCOUNT_COLUMNS).where(ACCOUNTS.c.id > after, *where)
        async with self.database.reading() as connection:
            rows = await connection.execute(query.order_by(ACCOUNTS.c.id).limit(limit))
            return tuple(_account(row) for row in rows)

    async def create_key(self, key: KeyRow) -> KeyCreation:
        """Record ``key``; an account that does not exist is created at ``key.created_at``."""
        try:
            async with self.database.writing(passing=IntegrityError) as connection:
                seq = await take_numbers(connection, 2)
                account = _new_account(key.account_id, at=key.created_at)
                made = await connection.execute(
                    self.database.insert(ACCOUNTS)
                    .values(account | {"created_at": key.created_at, "seq": seq})
                    .on_conflict_do_nothing()
                )
                row = {field.name: getattr(key, field.name) for field in fields(KeyRow)}
                await connection.execute(insert(API_KEYS).values(row | {"seq": seq + 1}))
        except IntegrityError:
            return KeyCreation.TAKEN
        return KeyCreation.CREATED_WITH_ACCOUNT if made.rowcount else KeyCreation.CREATED

    async def revoke_key(self, key_id: str, *, at: float) -> Revocation:
        """End a key at once and for good; running gates follow within a second."""
        async with self.database.writing() as connection:
            seq = await take_numbers(connection, 1)
            done = await connection.execute(
                update(API_KEYS)
                .where(API_KEYS.c.key_id == key_id, API_KEYS.c.revoked_at.is_(None))
                .values(revoked_at=at, seq=seq)
            )
            if done.rowcount:
                return Revocation.REVOKED
            found = await connection.scalar(
                select(API_KEYS.c.key_id).where(API_KEYS.c.key_id == key_id)
            )
        return Revocation.UNKNOWN_KEY if found is None else Revocation.ALREADY_REVOKED

    async def keys(
        self, *, account_id: str | None = None, after: str = "", limit: int = 100
    ) -> tuple[KeyRow, ...]:
        """Return a page of keys by id, of one account or of all."""
        query = select(*_KEY_COLUMNS).where(API_KEYS.c.key_id > after)
        if account_id is not None:
            query = query.where(API_KEYS.c.account_id == account_id)
        async with self.database.reading() as connection:
            rows = await connection.execute(query.order_by(API_KEYS.c.key_id).limit(limit))
            return tuple(_key(row) for row in rows)

    async def changes_since(self, position: Position, *, limit: int = 250) -> Changes:
        """Return rows written after ``position``, at most ``limit`` of each table."""
        async with self.database.reading() as connection:
            # Read first: what is written while we read is then found by the next call.
            head = await connection.scalar(select(META.c.seq).where(META.c.id == 1)) or 0
            if head == position.all_of:
                return Changes((), (), position, complete=True)
            accounts = await _newer(connection, ACCOUNTS, position.accounts, limit)
            keys = await _newer(connection, API_KEYS, position.keys, limit)
            named = await _newer(
                connection, organizations.ORGANIZATIONS, position.organizations, limit
            )
        complete = max(len(accounts), len(keys), len(named)) < limit
        return Changes(
            accounts=tuple(_account(row[1:]) for row in accounts),
            keys=tuple(_key(row[1:]) for row in keys),
            organizations=tuple(organizations.organization(row[1:]) for row in named),
            position=Position(
                accounts=accounts[-1][0] if accounts else position.accounts,
                keys=keys[-1][0] if keys else position.keys,
                organizations=named[-1][0] if named else position.organizations,
                all_of=head if complete else position.all_of,
            ),
            complete=complete,
        )

    async def _put_accounts(
        self,
        connection: AsyncConnection,
        patches: Sequence[AccountPatch],
        *,
        seq: int,
        at: float,
    ) -> None:
        # One statement per set of named fields: files name the same ones line after line.
        groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for offset, patch in enumerate(patches):
            named = {name: _plain(value) for name, value in patch.fields.items()}
            row = _new_account(patch.id, at=at) | named | {"seq": seq + offset}
            groups.setdefault(tuple(sorted(named)), []).append(row)
        for named_fields, rows in groups.items():
            statement = self.database.insert(ACCOUNTS)
            touched = (*named_fields, "updated_at", "seq")
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=[ACCOUNTS.c.id],
                    set_={name: statement.excluded[name] for name in touched},
                ),
                rows,
            )


class _ConflictError(Exception):
    """Rolls the transaction back."""

    def __init__(self, current: AccountRow | None) -> None:
        super().__init__()
        self.current = current


def _demand(expected_seq: int, found: Row[Any] | None) -> None:
    current = None if found is None else _account(found)
    if expected_seq != (0 if current is None else current.seq):
        raise _ConflictError(current)


async def _newer(
    connection: AsyncConnection, table: Table, after: int, limit: int
) -> Sequence[Row[Any]]:
    query = select(table.c.seq, *_COLUMNS[table.name]).where(table.c.seq > after)
    return (await connection.execute(query.order_by(table.c.seq).limit(limit))).all()


def _new_account(account_id: str, *, at: float) -> dict[str, Any]:
    return _DEFAULTS | {"id": account_id, "updated_at": at}


def _plain(value: object) -> object:
    """Return ``value`` as the database takes it."""
    if isinstance(value, Tier | Assurance):
        return value.value
    return list(value) if isinstance(value, tuple) else value


def _account(row: Sequence[Any]) -> AccountRow:
    values = dict(zip(_DEFAULTS, row, strict=True))
    try:
        values["tier"] = Tier(values["tier"])
        values["assurance"] = Assurance(values["assurance"])
        values["owners"] = tuple(values["owners"])
        values["owner_countries"] = tuple(values["owner_countries"])
    except (TypeError, ValueError) as error:
        raise RecordsError(f"account {values['id']!r} was damaged by hand: {error}") from error
    return AccountRow(**values)


def _key(row: Sequence[Any]) -> KeyRow:
    return KeyRow(*row)


def _batches(patches: Iterable[AccountPatch]) -> Iterator[list[AccountPatch]]:
    rest = iter(patches)
    while batch := list(islice(rest, _BATCH_ROWS)):
        yield batch


_DEFAULTS: Final = {
    each.name: _plain(getattr(AccountRow(""), each.name)) for each in fields(AccountRow)
}
"""Columns of a new account; worked out once, as imports make a hundred thousand."""
