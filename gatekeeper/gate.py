"""The path of one request: identify, locate, score, limit, decide, record, forward or refuse."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from gatekeeper.delivery import Admitted, countable
from gatekeeper.dialects import PLAIN, dialect_for
from gatekeeper.facts.address import client_address
from gatekeeper.facts.credentials import NOBODY
from gatekeeper.listener.answers import preflight, refuse
from gatekeeper.listener.head import METHODS, BadRequest, read_head
from gatekeeper.listener.intake import read_small, take
from gatekeeper.listener.own_limits import OWN_LIMITS, OwnLimits
from gatekeeper.policy.decide import assess, conclude, outright, screen, stops
from gatekeeper.policy.limits import LimitPlanner
from gatekeeper.policy.model import Call, Credential, Facts
from gatekeeper.policy.pricing import PriceBook
from gatekeeper.policy.ratelimit_headers import own_claims
from gatekeeper.policy.record import to_record
from gatekeeper.policy.view import before_a_call, view_of
from gatekeeper.policy.words import CredentialKind, CredentialStatus, GateMode, Reason, Verdict
from gatekeeper.settings import ForwardedHeader
from gatekeeper.storage.decision_log import encode_record
from gatekeeper.storage.limiter import Reserved
from gatekeeper.terms import Terms, asked, fitted, granted, shaped
from gatekeeper.verification.pages import WEBHOOKS, PageCall

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from aiohttp.web import BaseRequest, StreamResponse

    from gatekeeper.batch_files import BatchFiles
    from gatekeeper.delivery import Delivery
    from gatekeeper.dialects.base import Dialect
    from gatekeeper.facts.address import ClientAddress, TrustedProxies
    from gatekeeper.facts.credentials import Authenticator
    from gatekeeper.facts.directory import Directory
    from gatekeeper.facts.network import NetworkData
    from gatekeeper.listener.intake import Taken
    from gatekeeper.policy.limits import Claim
    from gatekeeper.policy.model import Decision, LimitStatus, Moment, NetworkFacts, Standing, View
    from gatekeeper.policy.ruleset import RuleSet
    from gatekeeper.settings import Settings
    from gatekeeper.storage.decision_log import DecisionLog
    from gatekeeper.storage.limiter import Limiter
    from gatekeeper.storage.usage import UsageBook
    from gatekeeper.telemetry import Metrics
    from gatekeeper.tracing import Tracing
    from gatekeeper.upstream.routes import RouteTable
    from gatekeeper.verification.links import LinkSigner

_REMEMBERED: Final = 8_192
OWN_PATHS: Final = "/gatekeeper/"
"""Paths that the gate answers itself."""
_FORWARDED_LINES: Final = {
    ForwardedHeader.X_FORWARDED_FOR: "x-forwarded-for",
    ForwardedHeader.FORWARDED: "forwarded",
}
_NOTHING_HELD: Final = Reserved(None, ())
_PAGE_BODY_S: Final = 10.0
"""How long a body for the gate itself may take."""
_UNREAD: Final = Credential(CredentialKind.NONE, CredentialStatus.MISSING)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one request is judged by, swapped as a whole: rules, network data, mode."""

    rules: RuleSet
    network: NetworkData
    planner: LimitPlanner
    prices: PriceBook
    mode: GateMode

    @classmethod
    def of(
        cls, rules: RuleSet, network: NetworkData, mode: GateMode = GateMode.ENFORCE
    ) -> Snapshot:
        """Work out what can be worked out once."""
        return cls(rules, network, LimitPlanner(rules), PriceBook(rules), mode)


@dataclass(frozen=True, slots=True)
class Door:
    """What differs from listener to listener."""

    modes: Collection[CredentialKind]
    forwarded_header: ForwardedHeader
    locate: Callable[[str, tuple[str, ...]], ClientAddress]
    """Client address from peer and forwarded lines; remembers, as callers keep connections."""

    @classmethod
    def of(
        cls,
        modes: Collection[CredentialKind],
        header: ForwardedHeader,
        trusted: TrustedProxies,
    ) -> Door:
        """Return a door that believes ``header`` of ``trusted`` proxies."""

        def locate(peer: str, lines: tuple[str, ...]) -> ClientAddress:
            return client_address(peer, lines, header, trusted)

        return cls(modes, header, lru_cache(_REMEMBERED)(locate))


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
    routes: RouteTable
    delivery: Delivery
    batch_files: BatchFiles
    links: LinkSigner
    metrics: Metrics
    usage: UsageBook
    own_page: Callable[[PageCall], Awaitable[StreamResponse]]
    """Answers a path under :data:`OWN_PATHS`."""
    tracing: Tracing | None = None


class Gate:
    """Judges and forwards calls. ``snapshot`` may be replaced at any time."""

    def __init__(self, parts: Parts, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.active = 0
        """Calls under way."""
        self._drained: asyncio.Future[None] | None = None
        self._parts = parts
        self._own_limits = OwnLimits(parts.limiter, parts.metrics, parts.settings.cors)

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

    async def drained(self) -> None:
        """Close each connection after its answer from now on; return when no call is left."""
        self._drained = asyncio.get_running_loop().create_future()
        if self.active:
            await self._drained

    async def _handle(self, door: Door, request: BaseRequest) -> StreamResponse:
        parts, now, at = self._parts, self.snapshot, self._parts.clock()
        case = _Case(request, parts.new_id(at), at, now)
        client = _address(door, request)
        network = now.network.observe_client(client)
        head = read_head(request, parts.settings.name)
        if isinstance(head, BadRequest):
            # Nothing of a malformed head is believed or kept, not even its method.
            method = request.method if request.method in METHODS else ""
            facts = Facts(at.unix_s, network, _UNREAD, NOBODY, Call(method, ""))
            refusal = self._refuse_outright(case, head, facts, PLAIN)
            refusal.force_close()  # nor are the bytes that follow it
            return refusal
        path = head.target.path
        dialect = dialect_for(head.method, path)
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

        taken = await take(request, head, dialect, parts.routes, parts.settings)
        taken = await parts.batch_files.read(head, credential.kind, taken)
        if isinstance(taken, BadRequest):
            return self._refuse_outright(case, taken, facts, dialect)
        facts = replace(facts, call=asked(call, taken, now.prices))
        reserved, terms = _NOTHING_HELD, Terms(facts.call)
        if now.mode is not GateMode.BYPASS:
            view = view_of(facts)
            standing = assess(facts, view, now.rules, standing)
            if stops(standing, mode=now.mode):
                return self._refuse(case, self._decide(case, standing, facts), facts, dialect)
            terms, reserved = await self._reserve(case, facts, standing, view, taken)
        admitted = False
        try:
            decision = self._decide(case, standing, facts, reserved.statuses)
            admitted = decision.admits
        finally:
            if not admitted and reserved.held is not None:
                await parts.limiter.cancel(reserved.held, at)
        if not admitted:
            return self._refuse(case, decision, facts, dialect)
        return await parts.delivery.deliver(
            Admitted(
                request, head, taken, dialect, facts, decision, reserved.held, now.prices, terms
            )
        )

    async def _reserve(
        self, case: _Case, facts: Facts, standing: Standing, view: View, taken: Taken
    ) -> tuple[Terms, Reserved]:
        """Hold the worst case that shaping and the quotas leave of what is asked."""
        now, parts = case.now, self._parts
        ask = taken.ask if now.mode is GateMode.ENFORCE else None  # else nothing is changed
        terms = shaped(facts.call, ask, standing.shaping, now.prices)
        claims = now.planner.claims(_held(facts, terms), standing, view)
        fitting = fitted(terms, ask, claims, now.prices)
        if fitting is not terms:
            terms = fitting
            claims = now.planner.claims(_held(facts, terms), standing, view)
        hold_s = parts.settings.deadlines.hold_s
        reserved = await parts.limiter.reserve(claims, case.at, hold_s, case.id)
        return granted(terms, ask, reserved.held, now.prices), reserved

    async def _end_screened(
        self, case: _Case, screened: Standing, facts: Facts, dialect: Dialect
    ) -> StreamResponse:
        """Refuse a call, or tell its caller where its own limits stand for a call of it now."""
        request, now, ours = case.request, case.now, self._own_limits
        if stops(screened, mode=now.mode):
            return self._refuse(case, self._decide(case, screened, facts), facts, dialect)
        if (answered := ours.unanswerable(request, facts, case.at)) is not None:
            return answered
        claims: tuple[Claim, ...] = ()
        if now.mode is not GateMode.BYPASS:
            view = view_of(facts)
            standing = assess(facts, view, now.rules, screened)
            if not screened.admits and stops(standing, mode=now.mode):  # a region that is unknown
                return self._refuse(case, self._decide(case, standing, facts), facts, dialect)
            claims = own_claims(now.planner.claims(facts, standing, before_a_call(view)))
        if (told := await ours.tell(request, facts, claims, case.at)) is not None:
            return told
        unknown = BadRequest(Reason.SERVICE_UNAVAILABLE, None)
        return self._refuse_outright(case, unknown, facts, dialect)

    async def _answer_own(
        self, case: _Case, method: str, path: str, network: NetworkFacts
    ) -> StreamResponse:
        """Answer callers and vendors; an embargo holds for pages too, but not for webhooks."""
        request, at = case.request, case.at.unix_s
        if not path.startswith(WEBHOOKS):
            facts = Facts(at, network, _UNREAD, NOBODY, Call(method, path))
            standing = screen(facts, case.now.rules, case.now.mode)
            banned = standing.verdict is Verdict.EMBARGOED
            if banned and stops(standing, mode=case.now.mode):
                return self._refuse(case, self._decide(case, standing, facts), facts, PLAIN)
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

    def _decide(
        self,
        case: _Case,
        standing: Standing,
        facts: Facts,
        limits: tuple[LimitStatus, ...] = (),
    ) -> Decision:
        """Conclude, record and count. A gate that cannot record admits nothing."""
        parts = self._parts
        decision = self._concluded(case, standing, facts, limits)
        if decision.admits and not parts.log.accepting:
            decision = self._concluded(case, outright(Reason.SERVICE_UNAVAILABLE), facts, ())
        parts.log.append(encode_record(to_record(decision, facts, mode=case.now.mode)))
        parts.metrics.count(
            "gatekeeper_decisions",
            decision.verdict.word,
            decision.reason or "",
            facts.call.dialect,
            "yes" if decision.enforced else "no",
        )
        if not decision.admits and countable(facts):
            parts.usage.refused(facts.account.id, facts.at)
        for found in decision.findings:
            parts.metrics.count(
                "gatekeeper_rule_matches", found.rule, found.mode, found.verdict.word
            )
        took_us = parts.clock().monotonic_us - case.at.monotonic_us
        parts.metrics.observe("gatekeeper_decision_seconds", took_us * 1e-6)
        if parts.tracing is not None:
            parts.tracing.decided(decision, facts.call.dialect, facts.call.method)
        return decision

    def _concluded(
        self, case: _Case, standing: Standing, facts: Facts, limits: tuple[LimitStatus, ...]
    ) -> Decision:
        return conclude(
            standing,
            limits,
            case.now.rules,
            decision_id=case.id,
            at=facts.at,
            mode=case.now.mode,
        )

    def _refuse_outright(
        self, case: _Case, why: BadRequest, facts: Facts, dialect: Dialect
    ) -> StreamResponse:
        decision = self._decide(case, outright(why.reason, why.detail), facts)
        return self._refuse(case, decision, facts, dialect)

    def _refuse(
        self, case: _Case, decision: Decision, facts: Facts, dialect: Dialect
    ) -> StreamResponse:
        link = None
        if decision.obligation is not None and decision.verdict is Verdict.STEP_UP:
            link = self._parts.links.issue(
                facts.account.id, decision.obligation.assurance, case.id, case.at.unix_s
            )
        return refuse(
            case.request,
            decision,
            dialect,
            self._parts.settings,
            kind=facts.credential.kind,
            link=link,
            said=facts.credential.detail,
        )


class _Case(Struct, frozen=True, gc=False):
    """One request under judgement."""

    request: BaseRequest
    id: str
    at: Moment
    now: Snapshot


def _address(door: Door, request: BaseRequest) -> ClientAddress:
    protocol = request.protocol
    proxied = getattr(protocol, "proxied", None)
    peer = getattr(protocol, "peer", "") if proxied is None else str(proxied)
    header = _FORWARDED_LINES.get(door.forwarded_header)
    lines = () if header is None else tuple(request.headers.getall(header, ()))
    return door.locate(peer, lines)


def _held(facts: Facts, terms: Terms) -> Facts:
    """Return the facts with the call as it is held, which is what its limits count."""
    return facts if terms.call is facts.call else replace(facts, call=terms.call)
