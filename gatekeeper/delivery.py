"""Delivers an admitted call: forward it, pass the answer back, settle what was held, record it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, cast

from msgspec import Struct
from msgspec.structs import replace

from gatekeeper.dialects.base import NO_CHANGES, UNCHANGED
from gatekeeper.listener.answers import grant_headers, refuse
from gatekeeper.listener.body import BodyRefusedError, stream_body
from gatekeeper.listener.onward import headers_onward
from gatekeeper.policy.model import Usage
from gatekeeper.policy.words import CredentialKind, CredentialStatus, Reason, Verdict
from gatekeeper.storage.decision_log import encode_record
from gatekeeper.storage.limiter import charge_beyond
from gatekeeper.terms import answer_plan, worst_usage
from gatekeeper.upstream.client import Outgoing
from gatekeeper.upstream.relay import Drained, Ending, Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiohttp.web import BaseRequest, StreamResponse
    from multidict import CIMultiDict

    from gatekeeper.dialects.base import AnswerPlan, AnswerReader, Dialect
    from gatekeeper.draining import Drains
    from gatekeeper.facts.directory import Directory
    from gatekeeper.listener.head import Head
    from gatekeeper.listener.intake import Taken
    from gatekeeper.policy.model import Decision, Facts, Moment
    from gatekeeper.policy.pricing import PriceBook
    from gatekeeper.settings import Settings
    from gatekeeper.storage.decision_log import DecisionLog
    from gatekeeper.storage.limiter import Limiter, Reservation
    from gatekeeper.storage.usage import UsageBook
    from gatekeeper.telemetry import Metrics
    from gatekeeper.terms import Terms
    from gatekeeper.tracing import Tracing
    from gatekeeper.upstream.client import Answer, Client
    from gatekeeper.upstream.routes import DrainBounds, RouteTable

_SUCCESS: Final = 2
_UNSURE_S: Final = 1.0
"""After its end the store may still settle a hold: its clock is another."""
_STATUS_CLASSES: Final = ("", "1xx", "2xx", "3xx", "4xx", "5xx")


class Admitted(Struct, frozen=True, gc=False):
    """A call on its way to an upstream, with all that was decided of it."""

    request: BaseRequest
    head: Head
    taken: Taken
    dialect: Dialect
    facts: Facts
    decision: Decision
    reservation: Reservation | None
    prices: PriceBook
    terms: Terms


@dataclass(frozen=True, slots=True)
class Delivery:
    """What it takes to forward and settle; built in :mod:`gatekeeper.app`."""

    settings: Settings
    clock: Callable[[], Moment]
    directory: Directory
    limiter: Limiter
    log: DecisionLog
    routes: RouteTable
    client: Client
    metrics: Metrics
    usage: UsageBook
    plan: AnswerPlan
    """How answers are read in which nothing is changed."""
    noise_key: bytes
    drains: Drains
    tracing: Tracing | None = None

    async def deliver(
        self, call: Admitted, reached: Answer | Reason | None = None
    ) -> StreamResponse:
        """Forward one call. Success, error and a caller that hangs up are settled alike.

        ``reached`` is what came of it, where it was sent already.
        """
        settings, outcome = self.settings, _Outcome(self, call)
        call, plan = self._prepared(call)
        try:
            if reached is None:
                sending = self._send(call, plan, outcome)
                if outcome.bounds is not None:  # a task of its own outlives the caller
                    outcome.sending = asyncio.create_task(sending)
                    reached = await asyncio.shield(outcome.sending)
                else:
                    reached = await sending
            relay = outcome.begun(reached, plan)
            if relay is None:
                return self._failed(call, cast("Reason", outcome.failure))
            ours = grant_headers(call.request, call.decision, settings.cors)
            answered = await relay.run(call.request, ours, settings.deadlines)
            if answered is not None:
                return answered
            outcome.failure = Reason.UPSTREAM_INVALID
            return self._failed(call, Reason.UPSTREAM_INVALID)
        finally:
            if not self._read_on(outcome, plan):
                await outcome.settle()

    def _read_on(self, outcome: _Outcome, plan: AnswerPlan) -> bool:
        """Tell whether an answer whose caller has left is read on: then it settles by itself."""
        bounds = outcome.bounds
        if bounds is None or not outcome.left_open:
            return False
        started = self.drains.start(
            outcome.upstream, bounds.at_once, partial(outcome.read_on, bounds, plan)
        )
        if not started:
            outcome.let_go()
        return started

    def _failed(self, call: Admitted, reason: Reason) -> StreamResponse:
        # In observe mode the decision may be a refusal: nothing of it is told.
        failed = replace(call.decision, verdict=Verdict.UNAVAILABLE, reason=reason, detail=None)
        return refuse(call.request, failed, call.dialect, self.settings)

    def _prepared(self, call: Admitted) -> tuple[Admitted, AnswerPlan]:
        """Work out what of call and answer is changed."""
        ask, terms = call.taken.ask, call.terms
        if ask is None:
            return call, self.plan
        route = call.taken.route
        unasked = ask.wants_usage is False and route.reports_usage
        if unasked or (ask.wants_usage and route.reports_continuously):
            often = route.reports_continuously
            changes = replace(terms.changes, report_usage=True, report_continuously=often)
            terms = replace(terms, changes=changes)
            call = replace(call, terms=terms)
        shaping = call.decision.shaping if call.decision.enforced else None
        return call, answer_plan(terms, ask, shaping, partial(self._seed, call), self.plan)

    def _seed(self, call: Admitted) -> bytes:
        """Return the seed of a decision's noise: the same whenever it replays, and secret."""
        return blake2b(call.decision.id.encode(), key=self.noise_key, digest_size=32).digest()

    async def _send(self, call: Admitted, plan: AnswerPlan, outcome: _Outcome) -> Answer | Reason:
        request, head, taken = call.request, call.head, call.taken
        route, now = taken.route, self.clock()
        endpoint = self.routes.pick(route, now.unix_s)
        streams = taken.body is None and request.body_exists
        source = outcome.upload = _BodySource(request, self.settings) if streams else None
        headers, body = _headers_for(call), taken.body
        if call.terms.changes is not NO_CHANGES and taken.incoming and taken.ask:
            changes = replace(call.terms.changes, bound_field=route.chat_bound)
            body = call.dialect.rewrite(taken.incoming, taken.ask, changes)
            headers.popall("Content-Encoding", None)
            headers["Content-Length"] = str(len(body))
        if plan.changes:
            headers["Accept-Encoding"] = "identity"
            headers.popall("Range", None)  # a piece of an answer cannot be read
        reached = await self.client.send(
            Outgoing(
                head.method,
                endpoint.at(head.target.raw),
                headers,
                body or None if source is None else source.stream(),
                route.tls,
            )
        )
        taken.let_go()
        if isinstance(reached, Reason):
            if source is not None and source.refused is not None:
                return source.refused
            if reached is Reason.UPSTREAM_UNREACHABLE:
                self.routes.failed(endpoint, now.unix_s)
            return reached
        self.routes.succeeded(endpoint)
        took_us = self.clock().monotonic_us - now.monotonic_us
        self.metrics.observe("gatekeeper_first_byte_seconds", took_us * 1e-6)
        return reached


def _reports(taken: Taken) -> bool:
    """Tell whether something is learned from the rest of an answer, and the request is whole."""
    ask = taken.ask
    if ask is None or ask.unreported or taken.body is None:
        return False
    return ask.input_tokens > 0 or ask.generates


def countable(facts: Facts) -> bool:
    """Tell whether a call's usage is somebody's: anybody can make up a key that we do not check."""
    credential = facts.credential
    if credential.status is not CredentialStatus.VALID:
        return False
    return facts.account.known or credential.kind is not CredentialKind.OPAQUE


class _BodySource:
    """A body that streams through; remembers why it stopped, which the client would not tell."""

    def __init__(self, request: BaseRequest, settings: Settings) -> None:
        self._request = request
        self._settings = settings
        self.refused: Reason | None = None
        self.bytes = 0
        """How much of it went on."""

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the caller's body; raises :class:`BodyRefusedError` when a bound breaks."""
        try:
            async for chunk in stream_body(
                self._request.content,
                most_bytes=self._settings.sizes.max_upload_bytes,
                within_s=self._settings.deadlines.body_s,
            ):
                self.bytes += len(chunk)
                yield chunk
        except BodyRefusedError as refused:
            self.refused = refused.reason
            raise


class _Outcome:
    """How one admitted call ended, and what it is charged."""

    def __init__(self, delivery: Delivery, call: Admitted) -> None:
        self._delivery = delivery
        self._admitted = call
        self.failure: Reason | None = None
        self.status: int | None = None
        self.reader: AnswerReader | None = None
        self.relay: Relay | None = None
        self.sending: asyncio.Task[Answer | Reason] | None = None
        """The request on its way, where it outlives the caller."""
        self.drained: Drained | None = None
        self.upload: _BodySource | None = None
        self.upstream = call.taken.route.name
        self.bounds = call.taken.route.drain
        """How far the answer is read on when the caller leaves; ``None``: not at all."""
        if self.bounds is not None and not _reports(call.taken):
            self.bounds = None

    def begun(self, reached: Answer | Reason, plan: AnswerPlan) -> Relay | None:
        """Take note of the head of the answer, or of why there is none."""
        if isinstance(reached, Reason):
            self.failure = reached
            return None
        call = self._admitted
        ask, dialect = call.taken.ask, call.dialect
        if ask is not None and reached.status // 100 == _SUCCESS:
            self.reader = dialect.reader(ask, reached.headers, plan)
        self.status = reached.status
        self.relay = Relay(reached, dialect, self.reader, keeps=self.bounds is not None)
        return self.relay

    @property
    def left_open(self) -> bool:
        """Whether the caller left before the answer was over, and the answer is kept."""
        sending = self.sending
        if self.relay is not None:
            return self.relay.left_open
        if sending is None or self.failure is not None or sending.cancelled():
            return False
        return not sending.done() or sending.exception() is None

    def let_go(self) -> None:
        """Drop the connection of an answer that is not read on."""
        if self.relay is not None:
            self.relay.close()
        elif self.sending is not None and not self.sending.cancel() and self.left_open:
            self.begun(self.sending.result(), UNCHANGED)
            self.let_go()

    async def read_on(self, bounds: DrainBounds, plan: AnswerPlan) -> Drained:
        """Read an answer to its end for its usage alone, and settle."""
        self.drained = Drained.CUT
        try:
            async with asyncio.timeout(bounds.within_s):
                relay = self.relay
                if relay is None and self.sending is not None:
                    relay = self.begun(await self.sending, plan)
                if relay is None:
                    self.drained = Drained.BROKEN
                else:
                    self.drained = await relay.read_on(bounds.most_bytes)
        except TimeoutError:
            pass
        finally:
            self.let_go()
            await self.settle()
        return self.drained

    async def settle(self) -> None:
        """Charge, record and count, exactly once; runs on cancellation too."""
        delivery, facts = self._delivery, self._admitted.facts
        reservation, upstream = self._admitted.reservation, self.upstream
        now = delivery.clock()
        changes = self._admitted.terms.changes
        sent = 0 if self.relay is None else self.relay.bytes_sent
        received = facts.call.body_bytes if self.upload is None else self.upload.bytes
        usage = self._priced(self._usage(), received + sent)
        if reservation is not None:
            if self.failure is Reason.UPSTREAM_UNREACHABLE:
                await delivery.limiter.cancel(reservation, now)
            else:
                await delivery.limiter.settle(reservation, usage, now)
        succeeded = self.status is not None and self.status // 100 == _SUCCESS
        if succeeded and facts.credential.kind is CredentialKind.OPAQUE:
            delivery.directory.note_opaque_success(facts.account.id, now.unix_s)
        self._count(usage)
        ending = self.relay.ending if self.relay is not None else Ending.CLIENT_GONE
        delivery.log.append(
            encode_record(
                {
                    "kind": "outcome",
                    "id": self._admitted.decision.id,
                    "at": now.unix_s,
                    "upstream": upstream,
                    "status": self.status,
                    "failure": self.failure,
                    "ending": ending if self.failure is None else None,
                    "drained": self.drained,
                    "bytes_sent": sent,
                    "changes": None if changes is NO_CHANGES else changes,
                    "usage": usage,
                    "took_s": round(now.unix_s - facts.at, 6),
                }
            )
        )
        metrics = delivery.metrics
        if self.failure is not None:
            metrics.count("gatekeeper_upstream_failures", upstream, self.failure)
        else:
            status = _STATUS_CLASSES[(self.status or 0) // 100]
            metrics.count("gatekeeper_answers", upstream, status, ending)
        estimated = "yes" if usage.estimated else "no"
        metrics.count("gatekeeper_tokens", "input", estimated, by=usage.input_tokens)
        metrics.count("gatekeeper_tokens", "output", estimated, by=usage.output_tokens)
        if delivery.tracing is not None:
            delivery.tracing.settled(upstream, self.failure or ending, usage)
        hold_s = delivery.settings.deadlines.hold_s
        if reservation is not None and now.unix_s - facts.at > hold_s + _UNSURE_S:
            await charge_beyond(delivery.limiter, reservation, usage, now, hold_s)

    def _count(self, usage: Usage) -> None:
        facts = self._admitted.facts
        accepted = self.status is not None and _STATUS_CLASSES[self.status // 100] == "2xx"
        if countable(facts) or accepted:
            row = self._admitted.prices.row(facts.call.model)
            self._delivery.usage.settled(facts.account.id, facts.at, row.model, usage)

    def _usage(self) -> Usage:
        """Tell what the answer consumed: reported, or estimated and never above what was held."""
        call, ask = self._admitted.terms.call, self._admitted.taken.ask
        if self.failure is Reason.UPSTREAM_UNREACHABLE:
            return Usage()
        if self.relay is None:  # nothing came back, but the upstream may have read the prompt
            if ask is not None and ask.outlasts:
                return worst_usage(ask, call.input_tokens, call.max_output_tokens)
            return Usage(call.input_tokens, 0, estimated=True)
        if self.reader is None or ask is None:
            return Usage()
        if ask.unreported:
            return worst_usage(ask, call.input_tokens, call.max_output_tokens)
        found = self.reader.result(call.max_output_tokens)
        came = self.relay.bytes_sent or self.drained is not None or ask.outlasts
        if found is None and not came:
            found = Usage(call.input_tokens, 0, estimated=True)
        elif found is None or (found.estimated and ask.held_unless_reported):
            # What came of it may be all that was asked for.
            found = worst_usage(ask, call.input_tokens, call.max_output_tokens)
        return found

    def _priced(self, usage: Usage, body_bytes: int) -> Usage:
        ask = self._admitted.taken.ask
        cents = self._admitted.prices.cents(self._admitted.facts.call.model, usage)
        factor = 1.0 if ask is None else ask.price_factor
        return replace(usage, cost_cents=cents * factor, bytes=body_bytes)


def _headers_for(call: Admitted) -> CIMultiDict[str]:
    headers = headers_onward(call.head, call.taken.route, call.facts.credential.kind)
    if call.request.body_exists and call.request.content_length is not None:
        headers["Content-Length"] = str(call.request.content_length)
    return headers
