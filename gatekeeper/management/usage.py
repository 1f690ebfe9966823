"""Usage per account and day (UTC), as pages and as one file."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field

from gatekeeper.management.operation import (
    Answer,
    Asked,
    Method,
    Operation,
    Streamed,
    Tag,
    Wire,
)
from gatekeeper.management.paging import PageQuery, next_cursor, position
from gatekeeper.management.problems import Code, FieldError, Problem, invalid
from gatekeeper.management.wire import AccountId
from gatekeeper.storage.admin_keys import Role
from gatekeeper.storage.usage import UsageQuery, UsageRow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gatekeeper.management.services import Services

_EPOCH: Final = date(1970, 1, 1)
_USUAL_DAYS: Final = 30
_ROWS_AT_ONCE: Final = 1_000
_HEADER: Final = (
    "day,account,model,requests,refused,estimated_requests,input_tokens,output_tokens,cost_cents\n"
)

Day = Annotated[
    str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", json_schema_extra={"format": "date"})
]


class UsageDay(Wire):
    """What one account used of one row of the model table on one day."""

    day: str
    """UTC."""
    account: str
    model: str
    """Pattern of the row in the model table by which calls were priced; empty for refusals."""
    requests: int
    """Calls that were admitted."""
    refused: int
    """Calls that were not."""
    estimated_requests: int
    """Admitted calls whose usage the upstream did not report."""
    input_tokens: int
    output_tokens: int
    cost_cents: float


class UsagePage(Wire):
    """Usage by day, account and model."""

    items: list[UsageDay]
    next_cursor: str | None


class UsageRange(Wire):
    """Which days, both included, and whose."""

    first_day: Day | None = None
    """Default: 30 days before the last."""
    last_day: Day | None = None
    """Default: today, whose usage still grows."""
    account: AccountId | None = None


class UsageSearch(PageQuery, UsageRange):
    """Which days, both included, and whose."""


def _wanted(asked: Asked) -> UsageQuery | Problem:
    query: UsageRange = asked.query
    today = datetime.fromtimestamp(asked.at, UTC).date()
    found: dict[str, date] = {}
    errors: list[FieldError] = []
    for name in ("first_day", "last_day"):
        text = getattr(query, name)
        try:
            if text is not None:
                found[name] = date.fromisoformat(text)
        except ValueError:
            errors.append(FieldError(f"query/{name}", "There is no such day."))
    if errors:
        return invalid(errors)
    last = found.get("last_day", today)
    first = found.get("first_day") or last - timedelta(days=min(_USUAL_DAYS, last.toordinal() - 1))
    return UsageQuery((first - _EPOCH).days, (last - _EPOCH).days, query.account)


async def _search(services: Services, asked: Asked) -> Answer | Problem:
    query: UsageSearch = asked.query
    after = position(query, "iss")
    if isinstance(after, Problem):
        return after
    wanted = _wanted(asked)
    if isinstance(wanted, Problem):
        return wanted
    rows = await services.usage.page(
        wanted,
        after=(int(after[0]), str(after[1]), str(after[2])) if after else None,
        limit=query.limit + 1,
    )
    more = next_cursor(query, _place(rows[query.limit - 1])) if len(rows) > query.limit else None
    return Answer(UsagePage(items=[_told(row) for row in rows[: query.limit]], next_cursor=more))


async def _export(services: Services, asked: Asked) -> Streamed | Problem:
    wanted = _wanted(asked)
    if isinstance(wanted, Problem):
        return wanted
    return Streamed(_lines(services, wanted), "text/csv; charset=utf-8", "usage.csv")


async def _lines(services: Services, wanted: UsageQuery) -> AsyncIterator[bytes]:
    """Yield the file page by page: however much there is, little of it is in memory."""
    yield _HEADER.encode()
    after: tuple[int, str, str] | None = None
    while rows := await services.usage.page(wanted, after=after, limit=_ROWS_AT_ONCE):
        yield "".join(map(_line, rows)).encode()
        after = _place(rows[-1])


def _line(row: UsageRow) -> str:
    told = _told(row)
    return (
        f"{told.day},{_cell(told.account)},{_cell(told.model)},{told.requests},{told.refused},"
        f"{told.estimated_requests},{told.input_tokens},{told.output_tokens},{told.cost_cents:.6f}\n"
    )


def _cell(text: str) -> str:
    """Quote a cell; one that a spreadsheet would take for a formula is made text."""
    if text[:1] in {"=", "+", "-", "@"}:
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if set(text) & set(",\"\n\r';") else text


def _place(row: UsageRow) -> tuple[int, str, str]:
    return row.day, row.account_id, row.model


def _told(row: UsageRow) -> UsageDay:
    return UsageDay(
        day=(_EPOCH + timedelta(days=row.day)).isoformat(),
        account=row.account_id,
        model=row.model,
        requests=row.requests,
        refused=row.refused,
        estimated_requests=row.estimated_requests,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cost_cents=row.cost_microcents / 1_000_000,
    )


OPERATIONS: Final = (
    Operation(
        "searchUsage",
        Method.GET,
        "/v1/usage",
        Role.VIEWER,
        Tag.USAGE,
        "Read usage per account and day",
        _search,
        description="Days are UTC. All nodes add up; today's figures lag by a few seconds.",
        query=UsageSearch,
        answer=UsagePage,
        problems=(Code.INVALID_CURSOR,),
    ),
    Operation(
        "exportUsage",
        Method.GET,
        "/v1/usage.csv",
        Role.VIEWER,
        Tag.USAGE,
        "Export usage per account and day",
        _export,
        description="CSV with a header. A cell that a spreadsheet would run begins with `'`.",
        query=UsageRange,
        answer_type="text/csv",
    ),
)
