"""Answers requests of the admin listener: who asks, may they, what exactly; then act and audit."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp.web import Response, StreamResponse

from gatekeeper.facts.address import cut_peer
from gatekeeper.management.auth import (
    Authenticator,
    authority_problem,
    too_many_failures,
)
from gatekeeper.management.etags import etag_of, is_known
from gatekeeper.management.operation import Answer, Asked, Audit, Method, Streamed, Trace
from gatekeeper.management.problems import PROBLEM_TYPE, Code, Problem
from gatekeeper.management.reading import read_conditions, read_content, read_path, read_query
from gatekeeper.management.routing import Route, Routes, not_allowed
from gatekeeper.policy.bound import Bound
from gatekeeper.storage.audit import AuditEntry, AuditOutcome
from gatekeeper.storage.database import RecordsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aiohttp.web import BaseRequest

    from gatekeeper.management.operation import Operation
    from gatekeeper.management.services import Services
    from gatekeeper.storage.admin_keys import AdminKeyRow
    from gatekeeper.telemetry import Metrics

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_WITHIN_S: Final = 15.0
"""How long an operation may take; files are read from the caller before that."""
_DENIALS_PER_MINUTE: Final = 60
_ID_BYTES: Final = 10
_NOT_MODIFIED: Final = 304


@dataclass(frozen=True, slots=True)
class Page:
    """Something public that is served as it is: the document of the API and its reader."""

    content_type: str
    body: Callable[[], bytes]
    security_policy: str = HEADERS["Content-Security-Policy"]


class ManagementApi:
    """All operations behind one handler."""

    def __init__(
        self,
        operations: Sequence[Operation],
        pages: Mapping[str, Page],
        services: Services,
        metrics: Metrics,
    ) -> None:
        self._routes = Routes(operations)
        self._pages = pages
        self._services = services
        self._metrics = metrics
        self._authenticator = Authenticator(services.admin_keys, services.subkeys.admin)
        self._hosts = frozenset(
            host.lower() for host in (services.settings.admin.host, *services.settings.admin.hosts)
        )
        self._failures = Bound(services.settings.admin.failures_per_minute)
        self._acting: set[asyncio.Task[Answer | Streamed | Problem]] = set()
        self._denials = Bound(_DENIALS_PER_MINUTE)
        self._log = structlog.get_logger("gatekeeper.management")

    async def handle(self, request: BaseRequest) -> StreamResponse:
        """Answer one request; nothing that happens in here is left unanswered."""
        now = self._services.clock()
        visit = _Visit(
            request,
            f"req_{self._services.random_bytes(_ID_BYTES).hex()}",
            now.unix_s,
            now.monotonic_us,
            getattr(request.protocol, "peer", ""),
        )
        try:
            answer = await self._answer(visit)
        except (RecordsError, TimeoutError) as error:
            self._log.warning("records", request_id=visit.id, error=str(error) or "too slow")
            answer = _unavailable()
        except Exception:  # noqa: BLE001 - told below, and counted
            self._log.exception("defect", request_id=visit.id)
            self._metrics.count("gatekeeper_internal_errors")
            answer = Problem(
                Code.INTERNAL, "Report this with the `request_id`; the log of the gate says more."
            )
        if isinstance(answer, Problem):
            answer = _problem(answer, visit.id)
        named = visit.operation.id if visit.operation is not None else ""
        self._metrics.count("gatekeeper_admin_requests", named, str(answer.status))
        answer.headers.setdefault("X-Request-Id", visit.id)
        for name, value in HEADERS.items():
            answer.headers.setdefault(name, value)
        if not request.content.is_eof():  # a body that was not read is not the next request
            answer.force_close()
        return answer

    async def finished(self, within_s: float) -> None:
        """Wait for changes under way whose callers are gone."""
        if self._acting:
            await asyncio.wait(self._acting, timeout=within_s)

    async def _answer(self, visit: _Visit) -> StreamResponse | Problem:
        request = visit.request
        if wrong := authority_problem(request.headers, self._hosts):
            return wrong
        path, _, query = request.raw_path.partition("?")
        page = self._pages.get(path)
        if page is not None and request.method in {"GET", "HEAD"}:
            return Response(
                body=page.body(),
                headers={
                    "Content-Type": page.content_type,
                    "Content-Security-Policy": page.security_policy,
                },
            )
        found = self._routes.find(request.method, path)
        visit.operation = found.operation if isinstance(found, Route) else None
        actor = await self._authenticator.identify(request.headers, visit.at)
        if isinstance(actor, Problem):
            return await self._turned_away(visit, actor)
        visit.actor = actor
        if page is not None:
            return not_allowed({Method.GET})
        if not isinstance(found, Route):
            return found
        operation = found.operation
        if not actor.role.includes(operation.role):
            return await self._denied(visit, operation)
        return await self._perform(visit, found, query)

    async def _turned_away(self, visit: _Visit, why: Problem) -> Problem:
        """Bound what strangers can do to the audit trail, by their address."""
        if not self._failures.take(cut_peer(visit.peer), visit.at_us):
            return too_many_failures()
        if visit.operation is not None:
            await self._services.trail.write(visit.entry(why.status, AuditOutcome.REFUSED))
        return why

    async def _denied(self, visit: _Visit, operation: Operation) -> Problem:
        why = Problem(
            Code.ROLE_REQUIRED,
            f"This needs an admin key with the role `{operation.role.value}`; "
            "ask somebody who has one.",
        )
        actor = "" if visit.actor is None else visit.actor.key_id
        if self._denials.take(actor, visit.at_us):
            await self._services.trail.write(visit.entry(why.status, AuditOutcome.REFUSED))
        return why

    async def _perform(self, visit: _Visit, route: Route, query: str) -> StreamResponse | Problem:
        asked = await self._read(visit, route, query)
        if isinstance(asked, Problem):
            if route.operation.audit is not Audit.NO:
                entry = visit.entry(asked.status, AuditOutcome.REFUSED)
                await self._services.trail.write(replace(entry, detail={"code": asked.code.value}))
            return asked
        acting = asyncio.create_task(self._acted(visit, route.operation, asked))
        self._acting.add(acting)
        acting.add_done_callback(self._acting.discard)
        # Whoever hangs up does not undo half of what they asked for.
        answer = await asyncio.shield(acting)
        if isinstance(answer, Problem):
            return answer
        if isinstance(answer, Streamed):
            return await _streamed(visit, answer)
        return _success(route.operation, asked, answer)

    async def _read(self, visit: _Visit, route: Route, query: str) -> Asked | Problem:
        operation, request = route.operation, visit.request
        path = read_path(route.parameters)
        if isinstance(path, Problem):
            return path
        wanted = read_query(operation, query)
        if isinstance(wanted, Problem):
            return wanted
        conditions = read_conditions(request)
        if isinstance(conditions, Problem):
            return conditions
        body = await read_content(
            operation,
            request,
            most_bytes=self._services.settings.admin.max_body_bytes,
            within_s=self._services.settings.deadlines.body_s,
        )
        if isinstance(body, Problem):
            return body
        assert visit.actor is not None  # noqa: S101 - only the authenticated come here
        return Asked(
            visit.id,
            visit.at,
            visit.actor,
            path,
            wanted,
            body,
            *conditions,
            visit.trace,
        )

    async def _acted(
        self, visit: _Visit, operation: Operation, asked: Asked
    ) -> Answer | Streamed | Problem:
        async with asyncio.timeout(_WITHIN_S):
            return await self._audited(visit, operation, asked)

    async def _audited(
        self, visit: _Visit, operation: Operation, asked: Asked
    ) -> Answer | Streamed | Problem:
        services = self._services
        if operation.audit is Audit.NO:
            return await operation.handle(services, asked)
        if operation.audit is Audit.WITHIN:
            return await self._within(visit, operation, asked)
        return await self._around(visit, operation, asked)

    async def _within(
        self, visit: _Visit, operation: Operation, asked: Asked
    ) -> Answer | Streamed | Problem:
        services = self._services
        try:
            async with services.database.together():
                answer = await operation.handle(services, asked)
                if isinstance(answer, Problem):
                    raise _UndoneError(answer)  # noqa: TRY301 - what rolls back is an exception
                status = _status(operation, answer)
                await services.trail.write(visit.entry(status, AuditOutcome.DONE))
                return answer
        except _UndoneError as undone:
            why = undone.problem
            await services.trail.write(_refused(visit, why))
            return why

    async def _around(
        self, visit: _Visit, operation: Operation, asked: Asked
    ) -> Answer | Streamed | Problem:
        trail = self._services.trail
        entry_id = await trail.write(visit.entry(0, AuditOutcome.STARTED))
        try:
            answer = await operation.handle(self._services, asked)
        except BaseException:
            await asyncio.shield(trail.finish(entry_id, visit.entry(0, AuditOutcome.FAILED)))
            raise
        if isinstance(answer, Problem):
            await trail.finish(entry_id, _refused(visit, answer))
        else:
            status = _status(operation, answer)
            await trail.finish(entry_id, visit.entry(status, AuditOutcome.DONE))
        return answer


@dataclass(slots=True)
class _Visit:
    """One request on its way, and what has become known of it."""

    request: BaseRequest
    id: str
    at: float
    at_us: int
    peer: str
    operation: Operation | None = None
    actor: AdminKeyRow | None = None
    trace: Trace = field(default_factory=Trace)

    def entry(self, status: int, outcome: AuditOutcome) -> AuditEntry:
        """Return what the audit trail keeps of it."""
        actor = self.actor
        return AuditEntry(
            at=self.at,
            actor="" if actor is None else actor.key_id,
            actor_name="" if actor is None else actor.name,
            role="" if actor is None else actor.role.value,
            action="" if self.operation is None else self.operation.id,
            target_kind=self.trace.target_kind,
            target_id=self.trace.target_id,
            outcome=outcome,
            status=status,
            request_id=self.id,
            peer=cut_peer(self.peer),
            detail=self.trace.detail,
        )


class _UndoneError(Exception):
    """Rolls the transaction back of an operation that ended in a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code.value)
        self.problem = problem


def _refused(visit: _Visit, why: Problem) -> AuditEntry:
    entry = visit.entry(why.status, AuditOutcome.REFUSED)
    return replace(entry, detail={**entry.detail, "code": why.code.value})


def _status(operation: Operation, answer: Answer | Streamed) -> int:
    return (answer.status if isinstance(answer, Answer) else None) or operation.status


def _success(operation: Operation, asked: Asked, answer: Answer) -> Response:
    status = _status(operation, answer)
    headers = dict(answer.headers)
    if answer.body is None:
        return Response(status=status, headers=headers)
    body = answer.body.model_dump_json().encode()
    if operation.tagged:
        headers["ETag"] = answer.etag or etag_of(answer.body)
        if operation.method is Method.GET and is_known(asked, headers["ETag"]):
            return Response(status=_NOT_MODIFIED, headers=headers)
    headers["Content-Type"] = "application/json"
    return Response(status=status, body=body, headers=headers)


async def _streamed(visit: _Visit, answer: Streamed) -> StreamResponse:
    response = StreamResponse(
        headers={
            **HEADERS,
            "Content-Type": answer.content_type,
            "Content-Disposition": f'attachment; filename="{answer.file_name}"',
            "X-Request-Id": visit.id,
        }
    )
    await response.prepare(visit.request)
    try:
        async for chunk in answer.chunks:
            await response.write(chunk)
    except (RecordsError, TimeoutError):  # what came so far must not look complete
        if visit.request.transport is not None:
            visit.request.transport.abort()
        return response
    await response.write_eof()
    return response


def _problem(problem: Problem, request_id: str) -> Response:
    document = problem.document(request_id)
    return Response(
        status=problem.status,
        body=json.dumps(document).encode(),
        headers={**problem.headers, "Content-Type": PROBLEM_TYPE},
    )


def _unavailable() -> Problem:
    return Problem(
        Code.RECORDS_UNAVAILABLE,
        "Send the request again shortly; calls are served meanwhile. If a change was begun, "
        "`GET /v1/audit` has it under this `request_id`.",
        headers={"Retry-After": "1"},
    )
