"""The audit trail, read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field

from gatekeeper.management.operation import Answer, Asked, Method, Operation, Tag, Wire
from gatekeeper.management.paging import PageQuery, next_cursor, position
from gatekeeper.management.problems import Code, Problem
from gatekeeper.management.wire import Time
from gatekeeper.storage.admin_keys import Role
from gatekeeper.storage.audit import AuditEntry, AuditOutcome, AuditQuery

if TYPE_CHECKING:
    from gatekeeper.management.services import Services


class Entry(Wire):
    """Who did what, and how it ended."""

    id: int
    at: float
    actor: str
    """Readable id of the admin key, `cli:<user>` for a command, empty for nobody known."""
    actor_name: str
    role: str
    action: str
    """Operation of this API, or the command."""
    target_kind: str
    target_id: str
    outcome: AuditOutcome
    status: int
    """HTTP status of the answer, 0 for a command."""
    request_id: str
    peer: str
    """Network of the address it came from."""
    detail: dict[str, Any]
    """What changed: `changed` has the value before and after of each field."""


class EntryPage(Wire):
    """Entries, the newest first."""

    items: list[Entry]
    next_cursor: str | None


_Word = Annotated[str, Field(pattern=r"^[!-~]{1,255}$")]


class EntrySearch(PageQuery):
    """Which entries; all that is given must fit."""

    actor: _Word | None = None
    action: _Word | None = None
    target_kind: _Word | None = None
    target_id: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    outcome: AuditOutcome | None = None
    since: Time | None = None
    until: Time | None = None


async def _search(services: Services, asked: Asked) -> Answer | Problem:
    query: EntrySearch = asked.query
    before = position(query, "i")
    if isinstance(before, Problem):
        return before
    rows = await services.trail.page(
        AuditQuery(**query.model_dump(exclude={"limit", "cursor"})),
        before=int(before[0]) if before else None,
        limit=query.limit + 1,
    )
    more = next_cursor(query, [rows[query.limit - 1].id]) if len(rows) > query.limit else None
    return Answer(EntryPage(items=[_entry(row) for row in rows[: query.limit]], next_cursor=more))


def _entry(row: AuditEntry) -> Entry:
    return Entry(**{name: getattr(row, name) for name in Entry.model_fields})


OPERATIONS: Final = (
    Operation(
        "searchAudit",
        Method.GET,
        "/v1/audit",
        Role.VIEWER,
        Tag.AUDIT,
        "Read the audit trail",
        _search,
        description="Every change, and every attempt that was refused (bounded by address).",
        query=EntrySearch,
        answer=EntryPage,
        problems=(Code.INVALID_CURSOR,),
    ),
)
