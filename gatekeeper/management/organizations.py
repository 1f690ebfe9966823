"""Organizations, with the ranges from which they are registered to call."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field

from gatekeeper.facts.organizations import MAX_EGRESS, parse_organization
from gatekeeper.management.etags import unmet
from gatekeeper.management.operation import Answer, Asked, Audit, Method, Operation, Tag, Wire
from gatekeeper.management.paging import PageQuery, next_cursor, position
from gatekeeper.management.problems import Code, FieldError, Problem, invalid, missing
from gatekeeper.management.wire import Name
from gatekeeper.storage.admin_keys import Role
from gatekeeper.storage.organizations import EgressOverlap, OrganizationConflict, OrganizationRow

if TYPE_CHECKING:
    from gatekeeper.management.services import Services


class Organization(Wire):
    """One organization."""

    id: str
    """What accounts of it carry as `organization`."""
    name: str
    verified: bool
    """Whether somebody has checked that it is who it says."""
    egress: list[str]
    """Prefixes from which its accounts call."""
    updated_at: float


class OrganizationPut(Wire):
    """Fields to set; those that are not named keep their value."""

    name: Name | None = None
    """What people call it; at first its id. `null` leaves it as it is."""
    verified: bool = False
    egress: Annotated[list[Annotated[str, Field(max_length=60)]], Field(max_length=MAX_EGRESS)] = (
        Field(default_factory=list)
    )
    """Prefixes such as `198.51.100.0/24`. No two organizations share an address; private ranges
    and very wide ones are refused."""


class OrganizationPage(Wire):
    """Organizations by id."""

    items: list[Organization]
    next_cursor: str | None


async def _list(services: Services, asked: Asked) -> Answer | Problem:
    query: PageQuery = asked.query
    after = position(query, "s")
    if isinstance(after, Problem):
        return after
    rows = await services.organizations.page(
        after=str(after[0]) if after else "", limit=query.limit + 1
    )
    more = next_cursor(query, [rows[query.limit - 1].id]) if len(rows) > query.limit else None
    items = [_told(row) for row in rows[: query.limit]]
    return Answer(OrganizationPage(items=items, next_cursor=more))


async def _get(services: Services, asked: Asked) -> Answer | Problem:
    row = await services.organizations.get(asked.path["organization_id"])
    return missing("organization") if row is None else Answer(_told(row))


async def _put(services: Services, asked: Asked) -> Answer | Problem:
    put: OrganizationPut = asked.body
    organization_id = asked.path["organization_id"]
    asked.trace.of("organization", organization_id)
    values = put.model_dump(exclude_unset=True, exclude_none=True)
    patch = parse_organization({"id": organization_id, **values})
    if isinstance(patch, list):
        return invalid(FieldError(f"/{name}", f"This {text}.") for name, text in patch)
    row = await services.organizations.get(organization_id)
    before = None if row is None else _told(row)
    if wrong := unmet(asked, before):
        return wrong
    done = await services.organizations.put(patch, at=asked.at)
    if isinstance(done, EgressOverlap):
        text = f"{done.prefix} overlaps {done.registered}, which is registered for "
        return Problem(
            Code.CONFLICT,
            f"{text}`{done.organization}`: no two organizations share an address.",
            (FieldError("/egress", "This overlaps another organization's ranges."),),
        )
    if isinstance(done, OrganizationConflict):
        raise TypeError("no version was asked for")
    after = _told(done)
    asked.trace.changed(
        {} if before is None else before.model_dump(exclude={"updated_at"}),
        after.model_dump(exclude={"updated_at"}),
    )
    return Answer(after, status=201 if before is None else 200)


def _told(row: OrganizationRow) -> Organization:
    values = asdict(row)
    del values["seq"]
    return Organization(**values | {"egress": list(row.egress)})


_ONE: Final = "/v1/organizations/{organization_id}"

OPERATIONS: Final = (
    Operation(
        "listOrganizations",
        Method.GET,
        "/v1/organizations",
        Role.VIEWER,
        Tag.ORGANIZATIONS,
        "List organizations",
        _list,
        query=PageQuery,
        answer=OrganizationPage,
        problems=(Code.INVALID_CURSOR,),
    ),
    Operation(
        "getOrganization",
        Method.GET,
        _ONE,
        Role.VIEWER,
        Tag.ORGANIZATIONS,
        "Read an organization",
        _get,
        answer=Organization,
        tagged=True,
        problems=(Code.NOT_FOUND,),
    ),
    Operation(
        "putOrganization",
        Method.PUT,
        _ONE,
        Role.OPERATOR,
        Tag.ORGANIZATIONS,
        "Create or update an organization",
        _put,
        description="Calls of its accounts from `egress` have `network.registered_egress`, which "
        "conditions of rules can read.",
        body=OrganizationPut,
        answer=Organization,
        tagged=True,
        matched=True,
        problems=(Code.CONFLICT, Code.PRECONDITION_FAILED),
        audit=Audit.WITHIN,
    ),
)
