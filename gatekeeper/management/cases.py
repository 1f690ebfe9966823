"""Identity checks: found, read, decided by a person."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field

from gatekeeper.management.operation import Answer, Asked, Audit, Method, Operation, Tag, Wire
from gatekeeper.management.paging import PageQuery, next_cursor, position
from gatekeeper.management.problems import Code, Problem, missing
from gatekeeper.management.wire import AccountId
from gatekeeper.policy.lifecycles import CaseEvent, CaseState
from gatekeeper.policy.words import Assurance
from gatekeeper.storage.admin_keys import Role
from gatekeeper.storage.cases_schema import MAX_REASON, CaseRow, Change

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gatekeeper.management.services import Services


class CaseSummary(Wire):
    """One identity check. Times are Unix seconds."""

    id: str
    account_id: str
    assurance: Assurance
    """The level that is asked for."""
    state: CaseState
    link_id: str
    """Decision whose link began the current try."""
    vendor: str
    """Empty: a person decides."""
    reference: str | None
    """The vendor's name for the current try."""
    tries: int
    started_at: float | None
    expires_at: float | None
    """Pending: when the try lapses. Verified: when the proof does."""
    decided_at: float | None
    reason: str
    actor: str
    """Who decided: `vendor:NAME`, or a person."""
    created_at: float
    updated_at: float


class Step(Wire):
    """One thing that happened to a case."""

    at: float
    event: CaseEvent
    state: CaseState
    """The state after it."""
    actor: str
    reason: str


class Case(CaseSummary):
    """One identity check and all that happened to it."""

    history: list[Step]
    """The latest first."""


class CasePage(Wire):
    """Cases by id."""

    items: list[CaseSummary]
    next_cursor: str | None


class CaseSearch(PageQuery):
    """Which cases; all that is given must fit."""

    state: CaseState | None = None
    account: AccountId | None = None
    named: Annotated[str, Field(pattern=r"^[!-~]{1,255}$")] | None = None
    """The whole id of a case, account or decision, or the vendor's reference."""


class Verdict(Wire):
    """Why a person decides so."""

    reason: Annotated[
        str, Field(min_length=1, max_length=MAX_REASON, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")
    ]


async def _search(services: Services, asked: Asked) -> Answer | Problem:
    query: CaseSearch = asked.query
    after = position(query, "s")
    if isinstance(after, Problem):
        return after
    rows = await services.cases.page(
        after=str(after[0]) if after else "",
        limit=query.limit + 1,
        state=query.state,
        account_id=query.account,
        text=query.named or "",
    )
    more = next_cursor(query, [rows[query.limit - 1].id]) if len(rows) > query.limit else None
    items = [CaseSummary(**_told(row)) for row in rows[: query.limit]]
    return Answer(CasePage(items=items, next_cursor=more))


async def _get(services: Services, asked: Asked) -> Answer | Problem:
    row = await services.cases.get(asked.path["case_id"])
    return missing("case") if row is None else Answer(await _whole(services, row))


async def _approve(services: Services, asked: Asked) -> Answer | Problem:
    return await _decided(services, asked, services.cases.approve)


async def _decline(services: Services, asked: Asked) -> Answer | Problem:
    return await _decided(services, asked, services.cases.decline)


async def _restart(services: Services, asked: Asked) -> Answer | Problem:
    return await _decided(services, asked, services.cases.restart)


async def _decided(
    services: Services,
    asked: Asked,
    decide: Callable[..., Awaitable[tuple[Change, CaseRow | None]]],
) -> Answer | Problem:
    verdict: Verdict = asked.body
    case_id = asked.path["case_id"]
    asked.trace.of("case", case_id, reason=verdict.reason)
    before = await services.cases.get(case_id)
    actor = f"{asked.actor.name} ({asked.actor.key_id})"[-_ACTOR_CHARS:]
    change, row = await decide(case_id, actor=actor, reason=verdict.reason, at=asked.at)
    if change is Change.NO_CASE or row is None:
        return missing("case")
    if change is not Change.DONE:
        return Problem(
            Code.CONFLICT,
            f"The case is {row.state.value}, in which this is not possible: look at its history.",
        )
    old = "" if before is None else before.state.value
    asked.trace.of(
        "case", case_id, account=row.account_id, changed={"state": [old, row.state.value]}
    )
    return Answer(await _whole(services, row))


async def _whole(services: Services, row: CaseRow) -> Case:
    steps = await services.cases.history(row.id)
    return Case(**_told(row), history=[Step(**asdict(step)) for step in steps])


def _told(row: CaseRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in CaseSummary.model_fields}


_ACTOR_CHARS: Final = 100
_ONE: Final = "/v1/cases/{case_id}"
_CHANGE: Final[dict[str, Any]] = {
    "role": Role.OPERATOR,
    "tag": Tag.CASES,
    "body": Verdict,
    "answer": Case,
    "problems": (Code.NOT_FOUND, Code.CONFLICT),
    "audit": Audit.AROUND,
}

OPERATIONS: Final = (
    Operation(
        "searchCases",
        Method.GET,
        "/v1/cases",
        Role.VIEWER,
        Tag.CASES,
        "Search verification cases",
        _search,
        query=CaseSearch,
        answer=CasePage,
        problems=(Code.INVALID_CURSOR,),
    ),
    Operation(
        "getCase",
        Method.GET,
        _ONE,
        Role.VIEWER,
        Tag.CASES,
        "Read a verification case",
        _get,
        answer=Case,
        tagged=True,
        problems=(Code.NOT_FOUND,),
    ),
    Operation(
        "approveCase",
        Method.POST,
        f"{_ONE}/approve",
        summary="Find an identity proven",
        handle=_approve,
        description="The account has the level that the case asks for, on every node within a "
        "second.",
        **_CHANGE,
    ),
    Operation(
        "declineCase",
        Method.POST,
        f"{_ONE}/decline",
        summary="Find an identity not proven",
        handle=_decline,
        **_CHANGE,
    ),
    Operation(
        "restartCase",
        Method.POST,
        f"{_ONE}/restart",
        summary="Let an account try again",
        handle=_restart,
        description="As if it had never tried.",
        **_CHANGE,
    ),
)
