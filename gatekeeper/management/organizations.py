"""Organizations, with the ranges from which they are registered to call."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Final

from pydantic import Field

from gatekeeper.management.etags import unmet
from gatekeeper.management.operation import Answer, Asked, Audit, Method, Operation, Tag, Wire
from gatekeeper.management.paging import PageQuery, next_cursor, position
from gatekeeper.management.problems import Code, FieldError, Problem, invalid, missing
from gatekeeper.management.services import Services  # noqa: TC001 - handlers are typed with it
from gatekeeper.management.wire import Name
from gatekeeper.storage.admin_keys import Role
from gatekeeper.storage.organizations import EgressOverlap, OrganizationConflict, OrganizationRow


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

    name: Name = ""
    """What people call it; default: its id."""
    verified: bool = False
    egress: Annotated[list[Annotated[str, Field(max_length=60)]], Field(max_length=1_000)] = []
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
    raise NotImplementedError


def _told(row: OrganizationRow) -> Organization:
    values = asdict(row)
    del values["seq"]
    return Organization(**values | {"egress": list(row.egress)})
