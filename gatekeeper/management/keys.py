"""API keys of callers, and the admin keys of this API: made, listed, revoked; shown once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field

from gatekeeper.facts.admin_keys import issue_admin_key
from gatekeeper.facts.api_keys import issue_key
from gatekeeper.management.operation import Answer, Asked, Audit, Method, Operation, Tag, Wire
from gatekeeper.management.paging import PageQuery, next_cursor, position
from gatekeeper.management.problems import Code, FieldError, Problem, invalid, missing
from gatekeeper.management.wire import AccountId, Name, Time
from gatekeeper.storage.admin_keys import AdminKeyRow, Role
from gatekeeper.storage.records_schema import KeyRow, Revocation

if TYPE_CHECKING:
    from gatekeeper.management.services import Services


class NewKey(Wire):
    """What a key is for."""

    label: Annotated[str, Field(max_length=200)] = ""
    """For people."""
    expires_at: Time | None = None
    """Unix seconds; `null` for a key that lasts until it is revoked."""


class Key(Wire):
    """One API key; the key itself is not kept."""

    key_id: str
    account_id: str
    label: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None


class CreatedKey(Key):
    """A new API key."""

    key: str
    """The key: shown this once."""


class KeyPage(Wire):
    """API keys by id."""

    items: list[Key]
    next_cursor: str | None


class KeySearch(PageQuery):
    """Which keys."""

    account: AccountId | None = None


class NewAdminKey(Wire):
    """Whose key it is, and what it may do."""

    name: Name
    role: Role
    expires_at: Time | None = None


class AdminKey(Wire):
    """One admin key; the key itself is not kept."""

    key_id: str
    name: str
    role: Role
    created_at: float
    expires_at: float | None
    revoked_at: float | None


class CreatedAdminKey(AdminKey):
    """A new admin key."""

    key: str
    """The key: shown this once."""


class AdminKeyPage(Wire):
    """Admin keys by id."""

    items: list[AdminKey]
    next_cursor: str | None


async def _list(services: Services, asked: Asked) -> Answer | Problem:
    query: KeySearch = asked.query
    after = position(query, "s")
    if isinstance(after, Problem):
        return after
    rows = await services.records.keys(
        account_id=query.account, after=str(after[0]) if after else "", limit=query.limit + 1
    )
    more = next_cursor(query, [rows[query.limit - 1].key_id]) if len(rows) > query.limit else None
    items = [Key(**_told(row)) for row in rows[: query.limit]]
    return Answer(KeyPage(items=items, next_cursor=more))


async def _create(services: Services, asked: Asked) -> Answer | Problem:
    new: NewKey = asked.body
    account_id = asked.path["account_id"]
    asked.trace.of("account", account_id)
    if wrong := _not_yet_over(new.expires_at, asked):
        return wrong
    if not new.label.isprintable():
        return invalid([FieldError("/label", "This must be printable.")])
    if await services.records.account(account_id) is None:
        return missing("account")
    minted = await issue_key(
        services.records,
        subkey=services.subkeys.credentials,
        account_id=account_id,
        label=new.label,
        at=asked.at,
        expires_at=new.expires_at,
        random_bytes=services.random_bytes,
    )
    asked.trace.detail["key_id"] = minted.row.key_id
    return Answer(CreatedKey(key=minted.text, **_told(minted.row)))


async def _revoke(services: Services, asked: Asked) -> Answer | Problem:
    key_id = asked.path["key_id"]
    asked.trace.of("key", key_id)
    done = await services.records.revoke_key(key_id, at=asked.at)
    if done is Revocation.UNKNOWN_KEY:
        return missing("key")
    asked.trace.detail["result"] = done.value
    return Answer()


async def _list_admin(services: Services, asked: Asked) -> Answer | Problem:
    query: PageQuery = asked.query
    after = position(query, "s")
    if isinstance(after, Problem):
        return after
    rows = await services.admin_keys.page(
        after=str(after[0]) if after else "", limit=query.limit + 1
    )
    more = next_cursor(query, [rows[query.limit - 1].key_id]) if len(rows) > query.limit else None
    items = [AdminKey(**_told_admin(row)) for row in rows[: query.limit]]
    return Answer(AdminKeyPage(items=items, next_cursor=more))


async def _create_admin(services: Services, asked: Asked) -> Answer | Problem:
    new: NewAdminKey = asked.body
    if wrong := _not_yet_over(new.expires_at, asked):
        return wrong
    minted = await issue_admin_key(
        services.admin_keys,
        subkey=services.subkeys.admin,
        name=new.name,
        role=new.role,
        at=asked.at,
        expires_at=new.expires_at,
        random_bytes=services.random_bytes,
    )
    asked.trace.of("admin_key", minted.row.key_id, name=new.name, role=new.role.value)
    return Answer(CreatedAdminKey(key=minted.text, **_told_admin(minted.row)))


async def _revoke_admin(services: Services, asked: Asked) -> Answer | Problem:
    key_id = asked.path["admin_key_id"]
    asked.trace.of("admin_key", key_id)
    if key_id == asked.actor.key_id:
        return Problem(
            Code.CONFLICT, "A key does not revoke itself: use another one, or the command line."
        )
    done = await services.admin_keys.revoke(key_id, at=asked.at)
    if done is Revocation.UNKNOWN_KEY:
        return missing("admin key")
    asked.trace.detail["result"] = done.value
    return Answer()


def _not_yet_over(expires_at: float | None, asked: Asked) -> Problem | None:
    if expires_at is None or expires_at > asked.at:
        return None
    return invalid([FieldError("/expires_at", "This lies in the past.")])


def _told(row: KeyRow) -> dict[str, Any]:
    return {
        "key_id": row.key_id,
        "account_id": row.account_id,
        "label": row.label,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
    }


def _told_admin(row: AdminKeyRow) -> dict[str, Any]:
    return {
        "key_id": row.key_id,
        "name": row.name,
        "role": row.role,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
    }


OPERATIONS: Final = (
    Operation(
        "listKeys",
        Method.GET,
        "/v1/keys",
        Role.VIEWER,
        Tag.KEYS,
        "List API keys",
        _list,
        description="By their readable id; the keys themselves are not kept.",
        query=KeySearch,
        answer=KeyPage,
        problems=(Code.INVALID_CURSOR,),
    ),
    Operation(
        "createKey",
        Method.POST,
        "/v1/accounts/{account_id}/keys",
        Role.OPERATOR,
        Tag.KEYS,
        "Make an API key",
        _create,
        description="The answer holds the key, this once. Every node takes it within a second.",
        body=NewKey,
        answer=CreatedKey,
        status=201,
        problems=(Code.NOT_FOUND,),
        audit=Audit.WITHIN,
    ),
    Operation(
        "revokeKey",
        Method.DELETE,
        "/v1/keys/{key_id}",
        Role.OPERATOR,
        Tag.KEYS,
        "Revoke an API key",
        _revoke,
        description="Every node refuses it within a second. Again is no mistake.",
        status=204,
        problems=(Code.NOT_FOUND,),
        audit=Audit.WITHIN,
    ),
    Operation(
        "listAdminKeys",
        Method.GET,
        "/v1/admin-keys",
        Role.ADMIN,
        Tag.ADMIN_KEYS,
        "List admin keys",
        _list_admin,
        query=PageQuery,
        answer=AdminKeyPage,
        problems=(Code.INVALID_CURSOR,),
    ),
    Operation(
        "createAdminKey",
        Method.POST,
        "/v1/admin-keys",
        Role.ADMIN,
        Tag.ADMIN_KEYS,
        "Make an admin key",
        _create_admin,
        description="The answer holds the key, this once.",
        body=NewAdminKey,
        answer=CreatedAdminKey,
        status=201,
        audit=Audit.WITHIN,
    ),
    Operation(
        "revokeAdminKey",
        Method.DELETE,
        "/v1/admin-keys/{admin_key_id}",
        Role.ADMIN,
        Tag.ADMIN_KEYS,
        "Revoke an admin key",
        _revoke_admin,
        description="It is refused at once, by every node. A key does not revoke itself.",
        status=204,
        problems=(Code.NOT_FOUND, Code.CONFLICT),
        audit=Audit.WITHIN,
    ),
)
