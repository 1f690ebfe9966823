"""The path of one request: identify, locate, score, limit, decide, record, forward or refuse."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from gatekeeper.batch_files import OF_A_FILE
from gatekeeper.conversations.metering import Granted, Refused
from gatekeeper.conversations.opening import OF_A_TURN, Socket
from gatekeeper.deciding import Arrival, Deciding
from gatekeeper.delivery import Admitted
from gatekeeper.dialects import PLAIN, dialect_for, dialect_of_socket
from gatekeeper.facts.address import AddressSource
from gatekeeper.facts.credentials import NOBODY
from gatekeeper.judging import Case, Judged, Judging, classed
from gatekeeper.listener.answers import preflight
from gatekeeper.listener.head import METHODS, BadRequest, read_head
from gatekeeper.listener.intake import Taken, read_small
from gatekeeper.listener.own_limits import OWN_LIMITS, OwnLimits
from gatekeeper.policy.decide import assess, screen, stops
from gatekeeper.policy.model import Call, Credential, Facts, Usage
from gatekeeper.policy.ratelimit_headers import own_claims
from gatekeeper.policy.view import before_a_call, view_of
from gatekeeper.policy.words import (
    CredentialKind,
    CredentialStatus,
    GateMode,
    Reason,
    Unit,
    Verdict,
)
from gatekeeper.terms import asked
from gatekeeper.verification.pages import WEBHOOKS, PageCall

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.web import BaseRequest, StreamResponse

    from gatekeeper.batch_files import BatchFiles
    from gatekeeper.conversations.opening import Conversations
    from gatekeeper.conversations.passing import Leaving
    from gatekeeper.delivery import Delivery
    from gatekeeper.dialects.base import Ask, Dialect
    from gatekeeper.door import Door
    from gatekeeper.facts.address import ClientAddress
    from gatekeeper.facts.credentials import Authenticator
    from gatekeeper.facts.directory import Directory
    from gatekeeper.facts.traits import TraitMaker
    from gatekeeper.listener.head import Head
    from gatekeeper.listener.intake import Intake
    from gatekeeper.policy.limits import Claim
    from gatekeeper.policy.model import Moment, NetworkFacts, Standing
    from gatekeeper.policy.traits import Traits
    from gatekeeper.settings import Settings
    from gatekeeper.snapshot import Snapshot
    from gatekeeper.storage.decision_log import DecisionLog
    from gatekeeper.storage.limiter import Limiter
    from gatekeeper.storage.usage import UsageBook
    from gatekeeper.telemetry import Metrics
    from gatekeeper.tracing import Tracing
    from gatekeeper.verification.links import LinkSigner

OWN_PATHS: Final = "/gatekeeper/"
"""Paths that the gate answers itself."""
_PAGE_BODY_S: Final = 10.0
"""How long a body for the gate itself may take."""
_UNREAD: Final = Credential(CredentialKind.NONE, CredentialStatus.MISSING)


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything a gate is made of; built in :mod:`gatekeeper.app`."""

    settings: Settings
    clock: Callable[[], Moment]
    new_id: Callable[[Moment], str]
    directory: Directory
    authenticator: Authenticator
    limiter: Limiter
    log: DecisionLog
    intake: Intake
    delivery: Delivery
    batch_files: BatchFiles
    conversations: Conversations
    links: LinkSigner
    metrics: Metrics
    usage: UsageBook
    own_page: Callable[[PageCall], Awaitable[StreamResponse]]
    """Answers a path under :data:`OWN_PATHS`."""
    tracing: Tracing | None = None
    traits: TraitMaker | None = None


class Gate:
    """Judges and forwards calls. ``snapshot`` may be replaced at any time."""

    def __init__(self, parts: Parts, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.active = 0
        """Calls under way."""
        self._drained: asyncio.Future[None] | None = None
        self._parts = parts
        self._own_limits = OwnLimits(parts.limiter, parts.metrics, parts.settings.cors)
        self._judging = Judging(parts.limiter, parts.settings.deadlines.hold_s)
        self._deciding = Deciding(
            parts.settings,
            parts.clock,
            parts.log,
            parts.links,
            parts.metrics,
            parts.usage,
            parts.tracing,
        )

    async def handle(self, door: Door, request: BaseRequest) -> StreamResponse:
        """Answer one request of a listener."""
        self.active += 1
        try:
            response = await self._handle(door, request)
        finally:
            self.active -= 1
            if self._drained is not None and not self.active and not self._drained.done():
                self._drained.set_result(None)
        if self._drained is not None:
            response.force_close()
        return response

    @property
    def leaving(self) -> Leaving:
        """What tells conversations to end."""
        return self._parts.conversations.leaving

    async def drained(self) -> None:
        """Close each connection after its answer from now on; return when no call is left."""
        self._drained = asyncio.get_running_loop().create_future()
        if self.active:
            await self._drained
        await self._parts.delivery.drains.ended()

    async def cut(self) -> None:
        """Read on no answer whose caller has left."""
        await self._parts.delivery.drains.stop()

    async def _handle(self, door: Door, request: BaseRequest) -> StreamResponse:
        parts, now, at = self._parts, self.snapshot, self._parts.clock()
        case = Arrival(parts.new_id(at), at, now, request)
        client = door.client_of(request)
        network = now.network.observe_client(client)
        head = read_head(request, parts.settings.name)
        if isinstance(head, BadRequest):
            # Nothing of a malformed head is believed or kept, not even its method.
            method = request.method if request.method in METHODS else ""
            facts = Facts(at.unix_s, network, _UNREAD, NOBODY, Call(method, ""))
            refusal = self._deciding.refuse_outright(case, head, facts, PLAIN)
            refusal.force_close()  # nor are the bytes that follow it
            return refusal
        path = head.target.path
        upgrade = head.upgrade
        dialect = (
            dialect_for(head.method, path, has_body=request.body_exists)
            if upgrade is None
            else dialect_of_socket(path)
        )
        if (allowed := preflight(request, parts.settings.cors)) is not None:
            return allowed
        own = path.startswith(OWN_PATHS)
        if own and path != OWN_LIMITS:
            return await self._answer_own(case, head.method, path, network)

        credential, account = parts.authenticator.identify(request.headers, door.modes, at.unix_s)
        network = parts.directory.placed(network, client, account)
        call = Call(head.method, path, dialect.name, client=head.client)
        facts = Facts(at.unix_s, network, credential, account, call)
        standing = screen(facts, now.rules, now.mode)
        if own or stops(standing, mode=now.mode):  # nothing spent, no body read
            return await self._end_screened(case, standing, facts, dialect)

        taken = await self._take(case, head, dialect, standing, facts)
        if not isinstance(taken, Taken):
            return taken
        facts = replace(
            facts, call=asked(call, taken, now.prices), traits=self._traits(case, taken, client)
        )
        facts = classed(facts, now)
        if upgrade is None:
            judged = await self._judging.judge(case, facts, standing, taken)
        else:
            judged = await self._judging.judge(case, facts, standing, taken, OF_A_TURN)
            judged = await self._judging.with_slot(case, facts, taken, judged)
        admitted = False
        try:
            decision = self._deciding.decide(case, judged.standing, facts, judged.statuses)
            admitted = decision.admits
        finally:
            if not admitted:
                await self._judging.give_back(judged, at)
        if not admitted:
            return self._deciding.refuse(case, decision, facts, dialect)
        admission = Admitted(
            request, head, taken, dialect, facts, decision, judged.held, now.prices, judged.terms
        )
        if upgrade is None:
            return await parts.delivery.deliver(admission)
        further = partial(self._hold_more, door, admission)
        return await parts.conversations.deliver(Socket(admission, upgrade, judged.slot, further))

    def _traits(self, case: Arrival, taken: Taken, client: ClientAddress) -> tuple[Traits, ...]:
        """Return what the call shows of what accounts can share."""
        maker, ask = self._parts.traits, taken.ask
        if maker is None or ask is None:
            return ()
        from_edge = client.source is AddressSource.FORWARDED
        return maker.traits_of(
            case.request.headers, ask.evidence, case.at.unix_s, from_edge=from_edge
        )

    async def _take(
        self, case: Arrival, head: Head, dialect: Dialect, standing: Standing, facts: Facts
    ) -> Taken | StreamResponse:
        """Read what is asked, or refuse it.

        The file of a batch is read as a call of its own, which is free if a batch comes of it:
        otherwise one small request after the other could have large files read, at no charge.
        """
        parts = self._parts
        taken = await parts.intake.take(case.request, head, dialect)
        if isinstance(taken, BadRequest):
            return self._deciding.refuse_outright(case, taken, facts, dialect)
        if taken.ask is None or taken.ask.file is None:
            return taken
        apart = replace(case, id=f"{case.id}.file")
        judged = await self._judging.judge(apart, facts, standing, taken, OF_A_FILE)
        found: Taken | BadRequest | None = None
        try:
            if self._deciding.concluded(case, judged.standing, facts, judged.statuses).admits:
                found = await parts.batch_files.read(head, facts.credential.kind, taken)
        finally:
            if isinstance(found, Taken):
                await self._judging.give_back(judged, parts.clock())
            elif judged.held is not None:
                await parts.limiter.settle(judged.held, Usage(), parts.clock())
        if found is None:
            decision = self._deciding.decide(case, judged.standing, facts, judged.statuses)
            return self._deciding.refuse(case, decision, facts, dialect)
        if isinstance(found, BadRequest):
            return self._deciding.refuse_outright(case, found, facts, dialect)
        return found

    async def _hold_more(
        self, door: Door, call: Admitted, ask: Ask, units: frozenset[Unit], body_bytes: int
    ) -> Granted | Refused:
        """Judge a further piece of a conversation as if it were a call, by what holds now."""
        parts, now, at = self._parts, self.snapshot, self._parts.clock()
        case = Case(parts.new_id(at), at, now)
        headers = call.request.headers
        credential, account = parts.authenticator.identify(headers, door.modes, at.unix_s)
        taken = Taken(call.taken.route, None, None, ask, body_bytes)
        facts = replace(
            call.facts,
            at=at.unix_s,
            credential=credential,
            account=account,
            call=asked(call.facts.call, taken, now.prices),
        )
        facts = classed(facts, now)
        standing = screen(facts, now.rules, now.mode)
        judged = Judged(standing, call.terms)
        if not stops(standing, mode=now.mode):
            judged = await self._judging.judge(case, facts, standing, taken, units)
        decision = self._deciding.concluded(case, judged.standing, facts, judged.statuses)
        terms = judged.terms
        output, asked_for = terms.call.max_output_tokens, ask.max_output_tokens or 0
        if decision.admits and (output >= asked_for or terms.budget_tokens is not None):
            return Granted(judged.held, ask.input_tokens, output, terms.budget_tokens)
        await self._judging.give_back(judged, at)
        if decision.admits:  # shaping allows less, and the bound is the caller's to send
            reason = Reason.REQUEST_EXCEEDS_LIMIT
            decision = replace(decision, verdict=Verdict.RATE_LIMITED, reason=reason)
        reason = decision.reason or Reason.SERVICE_UNAVAILABLE
        return Refused(reason, partial(self._deciding.tell, case, decision, facts))

    async def _end_screened(
        self, case: Arrival, screened: Standing, facts: Facts, dialect: Dialect
    ) -> StreamResponse:
        """Refuse a call, or tell its caller where its own limits stand for a call of it now."""
        request, now, ours = case.request, case.now, self._own_limits
        if stops(screened, mode=now.mode):
            return self._deciding.end(case, screened, facts, dialect)
        if (answered := ours.unanswerable(request, facts, case.at)) is not None:
            return answered
        claims: tuple[Claim, ...] = ()
        if now.mode is not GateMode.BYPASS:
            view = view_of(facts)
            standing = assess(facts, view, now.rules, screened)
            if not screened.admits and stops(standing, mode=now.mode):  # a region that is unknown
                return self._deciding.end(case, standing, facts, dialect)
            claims = own_claims(now.planner.claims(facts, standing, before_a_call(view)))
        if (told := await ours.tell(request, facts, claims, case.at)) is not None:
            return told
        unknown = BadRequest(Reason.SERVICE_UNAVAILABLE, None)
        return self._deciding.refuse_outright(case, unknown, facts, dialect)

    async def _answer_own(
        self, case: Arrival, method: str, path: str, network: NetworkFacts
    ) -> StreamResponse:
        """Answer callers and vendors; an embargo holds for pages too, but not for webhooks."""
        request, at = case.request, case.at.unix_s
        if not path.startswith(WEBHOOKS):
            facts = Facts(at, network, _UNREAD, NOBODY, Call(method, path))
            standing = screen(facts, case.now.rules, case.now.mode)
            banned = standing.verdict is Verdict.EMBARGOED
            if banned and stops(standing, mode=case.now.mode):
                return self._deciding.end(case, standing, facts, PLAIN)
        read = partial(read_small, request, within_s=_PAGE_BODY_S)
        call = PageCall(
            method,
            path,
            request.headers,
            network.address_key,
            at,
            lambda most_bytes: read(most_bytes=most_bytes),
        )
        return await self._parts.own_page(call)
