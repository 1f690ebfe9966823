"""Traces of sampled calls, sent by OTLP: one span for the call, below it decide, reserve, upstream.

Attributes are words of ours, words of the operator's files, and numbers. Nothing that a caller
wrote is among them (no path, model, address, prompt or key), nor an account: more people read
traces than records, and the decision id leads from one to the other. A call that is not sampled
costs a roll of the dice, and goes on with the trace headers it came with.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Timer
from typing import TYPE_CHECKING, Final, TypeVar

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from gatekeeper import __version__
from gatekeeper.policy.words import Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from aiohttp.web import BaseRequest, StreamResponse
    from opentelemetry.trace import Span

    from gatekeeper.policy.limits import Claim
    from gatekeeper.policy.model import Decision, LimitStatus, Moment, Usage
    from gatekeeper.settings import TracingSettings
    from gatekeeper.storage.limiter import Limiter, Reservation, Reserved
    from gatekeeper.upstream.client import Answer, Client, Outgoing, Switched

    Handler = Callable[[BaseRequest], Awaitable[StreamResponse]]

_Reached = TypeVar("_Reached", bound="Switched | Answer | Reason")
_PARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED: Final = 0x01
_SERVER_ERROR: Final = 500
_QUEUED_SPANS: Final = 4_096
"""Spans that wait for the collector; what comes on top is dropped, calls never wait."""
_EXPORT_S: Final = 3.0
_FLUSH_S: Final = 2.0
"""How long spans that wait are still sent when the gate stops."""


def parent_of(lines: Sequence[str]) -> SpanContext | None:
    """Read ``traceparent`` (W3C Trace Context, 3.2); ``None`` when it is absent or malformed."""
    found = _PARENT.fullmatch(lines[0]) if len(lines) == 1 else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    context = SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16) & _SAMPLED),
    )
    return context if context.is_valid else None


class Tracing:
    """Makes spans of sampled calls and hands them to a thread that exports them."""

    def __init__(
        self,
        settings: TracingSettings,
        headers: Mapping[str, str],
        *,
        clock_ns: Callable[[], int],
        chance: Callable[[], float],
    ) -> None:
        """``headers`` go to the collector; ``chance`` returns a number from 0 up to 1."""
        self._ratio = settings.sample_ratio
        self._follow = settings.follow_parents
        self._clock_ns = clock_ns
        self._chance = chance
        resource = Resource.create(
            {"service.name": settings.service_name, "service.version": __version__}
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._exporter = OTLPSpanExporter(
            settings.endpoint, headers=dict(headers), timeout=_EXPORT_S
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(self._exporter, max_queue_size=_QUEUED_SPANS)
        )
        self._tracer = self._provider.get_tracer("gatekeeper", __version__)
        self._current: ContextVar[_Call | None] = ContextVar("gatekeeper_call", default=None)

    def serving(self, handle: Handler, *, believes: Callable[[BaseRequest], bool]) -> Handler:
        """Return ``handle`` with a span around each sampled call.

        ``believes`` tells whether who connects may say which trace a call belongs to.
        """

        async def traced(request: BaseRequest) -> StreamResponse:
            parent = None
            if self._follow == "everyone" or believes(request):
                parent = parent_of(request.headers.getall("traceparent", ()))
            if not self._samples(parent):
                return await handle(request)
            call = self._begin(parent)
            token = self._current.set(call)
            try:
                response = await handle(request)
                call.answered(response.status)
            except BaseException as error:
                call.span.set_attribute("error.type", type(error).__name__)
                call.span.set_status(StatusCode.ERROR)
                raise
            finally:
                self._current.reset(token)
                call.span.end(self._clock_ns())
            return response

        return traced

    def decided(self, decision: Decision, dialect: str, method: str) -> None:
        """Note what was decided of the call under way; the span ``decide`` ends here."""
        call = self._current.get()
        if call is None:
            return
        call.span.update_name(f"{method} {dialect}")
        call.span.set_attributes(
            {
                "http.request.method": method,
                "gatekeeper.dialect": dialect,
                "gatekeeper.decision.id": decision.id,
                "gatekeeper.verdict": decision.verdict.word,
                "gatekeeper.reason": decision.reason or "",
                "gatekeeper.enforced": decision.enforced,
            }
        )
        call.decide.end(self._clock_ns())

    def settled(self, upstream: str, ending: str, usage: Usage) -> None:
        """Note how the admitted call under way ended."""
        call = self._current.get()
        if call is None:
            return
        call.span.set_attributes(
            {
                "gatekeeper.upstream": upstream,
                "gatekeeper.ending": ending,
                "gen_ai.usage.input_tokens": usage.input_tokens,
                "gen_ai.usage.output_tokens": usage.output_tokens,
            }
        )

    def limiter(self, limiter: Limiter) -> Limiter:
        """Return the limiter with a span around each reservation."""
        return _TracedLimiter(limiter, self)

    def client(self, client: Client) -> Client:
        """Return the client with a span around each request, its id in the request's head."""
        return _TracedClient(client, self)

    @contextmanager
    def span(self, name: str, kind: SpanKind = SpanKind.INTERNAL) -> Iterator[Span]:
        """Open a span below the sampled call under way."""
        call = self._current.get()
        assert call is not None, "ask `active` first"  # noqa: S101 - a defect of ours
        below = call.context if kind is SpanKind.CLIENT else call.deciding
        span = self._tracer.start_span(name, below, kind, start_time=self._clock_ns())
        try:
            yield span
        finally:
            span.end(self._clock_ns())

    @property
    def active(self) -> bool:
        """Whether the call under way is sampled."""
        return self._current.get() is not None

    @property
    def follows(self) -> bool:
        """Whether the call under way belongs to a trace that its caller began."""
        call = self._current.get()
        return call is not None and call.followed

    def close(self) -> None:
        """Send what waits, within a few seconds. Blocks: call it in a thread."""
        # The SDK would try every batch that waits, however long each takes to fail.
        enough = Timer(_FLUSH_S, self._exporter.shutdown)
        enough.daemon = True
        enough.start()
        try:
            self._provider.shutdown()
        finally:
            enough.cancel()

    def _samples(self, parent: SpanContext | None) -> bool:
        """Tell whether to sample: as the parent was, where there is one to be followed."""
        if parent is not None:
            return parent.trace_flags.sampled
        return self._chance() < self._ratio

    def _begin(self, parent: SpanContext | None) -> _Call:
        above = None if parent is None else set_span_in_context(NonRecordingSpan(parent))
        now_ns = self._clock_ns()
        # Without a parent the context is empty: OpenTelemetry's own current span is not ours.
        span = self._tracer.start_span(
            "call", above or Context(), SpanKind.SERVER, start_time=now_ns
        )
        return _Call(self._tracer.start_span, span, now_ns, followed=parent is not None)


class _Call:
    """The spans of one sampled call."""

    __slots__ = ("context", "decide", "deciding", "followed", "span")

    def __init__(
        self, start: Callable[..., Span], span: Span, now_ns: int, *, followed: bool
    ) -> None:
        self.span = span
        self.context: Context = set_span_in_context(span, Context())
        self.decide = start("decide", self.context, start_time=now_ns)
        self.deciding: Context = set_span_in_context(self.decide, Context())
        self.followed = followed
        """Whether the caller's trace goes on; its ``tracestate`` goes on with it."""

    def answered(self, status: int) -> None:
        """Note the status of the answer; the gate's own 5xx and the upstream's are errors."""
        self.span.set_attribute("http.response.status_code", status)
        if status >= _SERVER_ERROR:
            self.span.set_attribute("error.type", str(status))
            self.span.set_status(StatusCode.ERROR)


class _TracedLimiter:
    """A limiter whose reservations show in traces."""

    def __init__(self, inner: Limiter, tracing: Tracing) -> None:
        self._inner = inner
        self._tracing = tracing

    async def reserve(
        self, claims: Sequence[Claim], at: Moment, hold_s: float, hold_id: str
    ) -> Reserved:
        """Reserve, within a span."""
        if not self._tracing.active:
            return await self._inner.reserve(claims, at, hold_s, hold_id)
        with self._tracing.span("reserve") as span:
            reserved = await self._inner.reserve(claims, at, hold_s, hold_id)
            span.set_attribute("gatekeeper.claims", len(claims))
            span.set_attribute("gatekeeper.held", reserved.held is not None)
            return reserved

    async def look(self, claims: Sequence[Claim], at: Moment) -> tuple[LimitStatus, ...]:
        """Look as it is."""
        return await self._inner.look(claims, at)

    async def settle(self, reservation: Reservation, used: Usage, at: Moment) -> None:
        """Settle as it is."""
        await self._inner.settle(reservation, used, at)

    async def cancel(self, reservation: Reservation, at: Moment) -> None:
        """Cancel as it is."""
        await self._inner.cancel(reservation, at)


class _TracedClient:
    """A client whose requests carry the trace on."""

    def __init__(self, inner: Client, tracing: Tracing) -> None:
        self._inner = inner
        self._tracing = tracing

    async def send(self, outgoing: Outgoing) -> Answer | Reason:
        """Send within a span, which ends with the head of the answer."""
        return await self._within_span(self._inner.send, outgoing)

    async def upgrade(self, outgoing: Outgoing) -> Switched | Answer | Reason:
        """Ask to leave HTTP within a span, which ends with the head of the answer."""
        return await self._within_span(self._inner.upgrade, outgoing)

    async def _within_span(
        self, send: Callable[[Outgoing], Awaitable[_Reached]], outgoing: Outgoing
    ) -> _Reached:
        if not self._tracing.active:
            return await send(outgoing)
        with self._tracing.span("upstream", SpanKind.CLIENT) as span:
            own = span.get_span_context()
            headers = outgoing.headers
            headers["traceparent"] = f"00-{own.trace_id:032x}-{own.span_id:016x}-01"
            if not self._tracing.follows:
                headers.popall("tracestate", None)
            span.set_attribute("server.address", outgoing.url.host or "")
            span.set_attribute("server.port", outgoing.url.port or 0)
            reached = await send(outgoing)
            if isinstance(reached, Reason):
                span.set_attribute("error.type", reached)
                span.set_status(StatusCode.ERROR)
            else:
                span.set_attribute("http.response.status_code", reached.status)
            return reached

    async def close(self) -> None:
        """Close the client."""
        await self._inner.close()
