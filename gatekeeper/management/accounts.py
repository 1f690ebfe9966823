"""Accounts: search, read, upsert, import, tier, ban, unban, notes."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final

from gatekeeper.management.account_wire import (
    Account,
    AccountPage,
    AccountPut,
    AccountSearch,
    Ban,
    Imported,
    NewNote,
    Note,
    NotePage,
    Reason,
    TierChange,
    account_of,
)
from gatekeeper.management.etags import unmet
from gatekeeper.management.operation import Answer, Asked, Audit, Method, Operation, Tag
from gatekeeper.management.paging import PageQuery, next_cursor, position
from gatekeeper.management.problems import Code, FieldError, Problem, invalid, missing
from gatekeeper.management.wire import seconds
from gatekeeper.storage.account_files import AccountFormat, parse_account, parse_accounts
from gatekeeper.storage.account_search import AccountQuery
from gatekeeper.storage.admin_keys import Role
from gatekeeper.storage.notes import NoteRow
from gatekeeper.storage.records_schema import AccountPatch

if TYPE_CHECKING:
    from gatekeeper.management.services import Services

_ID_BYTES: Final = 8
_OFF_LOOP_BYTES: Final = 65_536
_MISTAKE: Final = "accounts.jsonl"


async def _search(services: Services, asked: Asked) -> Answer | Problem:
    query: AccountSearch = asked.query
    after = position(query, "s")
    if isinstance(after, Problem):
        return after
    wanted = AccountQuery(**query.model_dump(exclude={"limit", "cursor"}))
    rows = await services.records.search(
        wanted, at=asked.at, after=str(after[0]) if after else "", limit=query.limit + 1
    )
    more = next_cursor(query, [rows[query.limit - 1].id]) if len(rows) > query.limit else None
    items = [account_of(row) for row in rows[: query.limit]]
    return Answer(AccountPage(items=items, next_cursor=more))


async def _get(services: Services, asked: Asked) -> Answer | Problem:
    row = await services.records.account(asked.path["account_id"])
    return missing("account") if row is None else Answer(account_of(row))


async def _put(services: Services, asked: Asked) -> Answer | Problem:
    put: AccountPut = asked.body
    return await _changed(services, asked, put.model_dump(exclude_unset=True), may_create=True)


async def _set_tier(services: Services, asked: Asked) -> Answer | Problem:
    change: TierChange = asked.body
    asked.trace.detail["reason"] = change.reason
    return await _changed(services, asked, {"tier": change.tier}, may_create=False)


async def _ban(services: Services, asked: Asked) -> Answer | Problem:
    ban: Ban = asked.body
    asked.trace.detail["reason"] = ban.reason
    if ban.until != "forever" and ban.until <= asked.at:
        return invalid([FieldError("/until", "This lies in the past.")])
    values: dict[str, Any] = {"banned_until": seconds(ban.until), "ban_reason": ban.reason}
    return await _changed(services, asked, values, may_create=False)


async def _unban(services: Services, asked: Asked) -> Answer | Problem:
    lifted: Reason = asked.body
    asked.trace.detail["reason"] = lifted.reason
    values: dict[str, Any] = {"banned_until": None, "ban_reason": None}
    return await _changed(services, asked, values, may_create=False)


async def _changed(
    services: Services, asked: Asked, values: dict[str, Any], *, may_create: bool
) -> Answer | Problem:
    """Set ``values`` on the account of the path, if that is allowed as it stands."""
    account_id = asked.path["account_id"]
    asked.trace.of("account", account_id)
    patch = _patch(account_id, values)
    if isinstance(patch, Problem):
        return patch
    row = await services.records.account(account_id)
    if row is None and not may_create:
        return missing("account")
    before = None if row is None else account_of(row)
    if wrong := unmet(asked, before):
        return wrong
    after = account_of(await services.records.upsert_account(patch, at=asked.at))
    asked.trace.changed(
        {} if before is None else before.model_dump(mode="json", exclude={"updated_at"}),
        after.model_dump(mode="json", exclude={"updated_at"}),
    )
    return Answer(after, status=201 if before is None else 200)


def _patch(account_id: str, values: dict[str, Any]) -> AccountPatch | Problem:
    """Check values as an import does; a ban without end is the one that JSON has no number for."""
    endless = values.get("banned_until") == math.inf
    told = values | ({"banned_until": "forever"} if endless else {})
    found = parse_account({"id": account_id, **told})
    if isinstance(found, AccountPatch):
        return found
    return invalid(FieldError(f"/{name}", f"This {text}.") for name, text in found)


async def _import(services: Services, asked: Asked) -> Answer | Problem:
    content: bytes = asked.body
    if len(content) > _OFF_LOOP_BYTES:
        found = await asyncio.to_thread(_parsed, content)
    else:
        found = _parsed(content)
    if isinstance(found, list):
        return invalid(found)
    done = await services.records.import_accounts(found, at=asked.at)
    asked.trace.of("accounts", "", created=done.created, updated=done.updated)
    return Answer(Imported(created=done.created, updated=done.updated))


def _parsed(content: bytes) -> tuple[AccountPatch, ...] | list[FieldError]:
    found = parse_accounts(content, file=_MISTAKE, kind=AccountFormat.JSON_LINES)
    if isinstance(found, tuple):
        return found
    return [
        FieldError(
            f"line/{mistake.line or 0}" + (f"/{mistake.path}" if mistake.path else ""),
            f"This {mistake.message}.",
        )
        for mistake in found
    ]


async def _notes(services: Services, asked: Asked) -> Answer | Problem:
    query: PageQuery = asked.query
    before = position(query, "s")
    if isinstance(before, Problem):
        return before
    account_id = asked.path["account_id"]
    if await services.records.account(account_id) is None:
        return missing("account")
    rows = await services.notes.page(
        account_id, before=str(before[0]) if before else None, limit=query.limit + 1
    )
    more = next_cursor(query, [rows[query.limit - 1].id]) if len(rows) > query.limit else None
    return Answer(NotePage(items=[_note(row) for row in rows[: query.limit]], next_cursor=more))


async def _add_note(services: Services, asked: Asked) -> Answer | Problem:
    new: NewNote = asked.body
    account_id = asked.path["account_id"]
    asked.trace.of("account", account_id)
    row = NoteRow(
        id=f"note_{int(asked.at * 1_000):012x}{services.random_bytes(_ID_BYTES).hex()}",
        account_id=account_id,
        at=asked.at,
        author=asked.actor.name,
        text=new.text,
    )
    if not await services.notes.add(row):
        return missing("account")
    asked.trace.detail["note"] = row.id
    return Answer(_note(row))


def _note(row: NoteRow) -> Note:
    return Note(id=row.id, at=row.at, author=row.author, text=row.text)


_ONE: Final = "/v1/accounts/{account_id}"
_CHANGE: Final[dict[str, Any]] = {
    "role": Role.OPERATOR,
    "tag": Tag.ACCOUNTS,
    "answer": Account,
    "tagged": True,
    "matched": True,
    "problems": (Code.NOT_FOUND, Code.PRECONDITION_FAILED),
    "audit": Audit.WITHIN,
}

OPERATIONS: Final = (
    Operation(
        "searchAccounts",
        Method.GET,
        "/v1/accounts",
        Role.VIEWER,
        Tag.ACCOUNTS,
        "Search accounts",
        _search,
        query=AccountSearch,
        answer=AccountPage,
        problems=(Code.INVALID_CURSOR,),
    ),
    Operation(
        "getAccount",
        Method.GET,
        _ONE,
        Role.VIEWER,
        Tag.ACCOUNTS,
        "Read an account",
        _get,
        answer=Account,
        tagged=True,
        problems=(Code.NOT_FOUND,),
    ),
    Operation(
        "putAccount",
        Method.PUT,
        _ONE,
        summary="Create or update an account",
        handle=_put,
        description="For the operator's own system, as accounts are made. What the body names is "
        "set, the rest keeps its value, and sending it again changes nothing. Nodes follow within "
        "a second. Accounts are never deleted: ban them.",
        body=AccountPut,
        **_CHANGE | {"problems": (Code.PRECONDITION_FAILED,)},
    ),
    Operation(
        "setAccountTier",
        Method.PUT,
        f"{_ONE}/tier",
        summary="Set the risk tier",
        handle=_set_tier,
        body=TierChange,
        **_CHANGE,
    ),
    Operation(
        "banAccount",
        Method.POST,
        f"{_ONE}/ban",
        summary="Ban an account",
        handle=_ban,
        description="Every node refuses its calls within a second, until the time that is given.",
        body=Ban,
        **_CHANGE,
    ),
    Operation(
        "unbanAccount",
        Method.POST,
        f"{_ONE}/unban",
        summary="Lift a ban",
        handle=_unban,
        body=Reason,
        **_CHANGE,
    ),
    Operation(
        "importAccounts",
        Method.POST,
        "/v1/accounts:import",
        Role.OPERATOR,
        Tag.ACCOUNTS,
        "Create or update many accounts",
        _import,
        description="One JSON object a line, as `gatekeeper accounts import` takes them: `id` and "
        "the fields of an account. All of them are taken, or none, with every mistake told by its "
        "line.",
        file_type="application/jsonl",
        answer=Imported,
        audit=Audit.WITHIN,
    ),
    Operation(
        "listAccountNotes",
        Method.GET,
        f"{_ONE}/notes",
        Role.VIEWER,
        Tag.ACCOUNTS,
        "Read the notes on an account",
        _notes,
        query=PageQuery,
        answer=NotePage,
        problems=(Code.NOT_FOUND, Code.INVALID_CURSOR),
    ),
    Operation(
        "addAccountNote",
        Method.POST,
        f"{_ONE}/notes",
        Role.OPERATOR,
        Tag.ACCOUNTS,
        "Write a note on an account",
        _add_note,
        description="Notes are added, never changed.",
        body=NewNote,
        answer=Note,
        status=201,
        problems=(Code.NOT_FOUND,),
        audit=Audit.WITHIN,
    ),
)
