"""Where network facts come from: databases and lists, their age, and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatekeeper.management.operation import Answer, Asked, Audit, Method, Operation, Tag, Wire
from gatekeeper.management.rules import Told
from gatekeeper.storage.admin_keys import Role

if TYPE_CHECKING:
    from gatekeeper.management.services import Services


class NetworkSource(Wire):
    """One database or list."""

    name: str
    layout: str
    """`database_type` of a database, `lists` for lists."""
    revision: str
    views: list[str]
    """What it answers."""
    entries: int
    as_of: float | None
    """When a database was built, or a fetched list last confirmed; Unix seconds."""
    age_s: float | None
    stale: bool
    """Too old to be believed: it answers `unknown`."""


class NetworkSources(Wire):
    """All network data that this node serves."""

    revision: str
    sources: list[NetworkSource]
    problems: list[Told]
    """What could not be loaded, is out of date, or was refused while the last good one serves."""


class Reloading(Wire):
    """That it was asked for; `GET /v1/lists` tells what came of it."""

    asked: bool = True


async def _get(services: Services, asked: Asked) -> Answer:
    network = services.node.gate.snapshot.network
    return Answer(
        NetworkSources(
            revision=network.revision,
            sources=[
                NetworkSource(
                    name=each.name,
                    layout=each.layout,
                    revision=each.revision,
                    views=list(each.views),
                    entries=each.entries,
                    as_of=each.as_of_unix_s,
                    age_s=None
                    if each.as_of_unix_s is None
                    else round(max(0.0, asked.at - each.as_of_unix_s), 3),
                    stale=each.stale,
                )
                for each in network.sources
            ],
            problems=[
                Told(file=each.file, line=each.line, path=each.path, message=each.message)
                for each in network.problems
            ],
        )
    )


async def _reload(services: Services, asked: Asked) -> Answer:
    asked.trace.of("lists", "")
    services.reload()
    return Answer(Reloading())


OPERATIONS: Final = (
    Operation(
        "getLists",
        Method.GET,
        "/v1/lists",
        Role.VIEWER,
        Tag.LISTS,
        "Which databases and lists this node serves",
        _get,
        answer=NetworkSources,
    ),
    Operation(
        "reloadFiles",
        Method.POST,
        "/v1/lists:reload",
        Role.ADMIN,
        Tag.LISTS,
        "Read rule files, databases and lists of this node again",
        _reload,
        description="As SIGHUP does; changed files are noticed without it. What is wrong is "
        "refused, and the last good one serves on.",
        answer=Reloading,
        status=202,
        audit=Audit.AROUND,
    ),
)
