"""Logs and metrics: each name is declared here, once."""

from __future__ import annotations

import logging
import sys
from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING, Final, TypeAlias

import structlog
from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric
    from structlog.typing import EventDict

    from gatekeeper.settings import Log

    _Table: TypeAlias = tuple[str, tuple[str, ...], Callable[[], Mapping[tuple[str, ...], float]]]

_COUNTERS: Final = {
    "gatekeeper_decisions": (
        "Decisions by verdict, reason and dialect; enforced=no in observe mode.",
        ("verdict", "reason", "dialect", "enforced"),
    ),
    "gatekeeper_rule_matches": (
        "Findings per rule, and whether the rule is enforced or in shadow.",
        ("rule", "mode", "verdict"),
    ),
    "gatekeeper_parser_refusals": (
        "Requests that the HTTP parser or the PROXY header check refused.",
        ("kind",),
    ),
    "gatekeeper_answers": (
        "Answers of upstreams by status class and how they ended.",
        ("upstream", "status", "ending"),
    ),
    "gatekeeper_upstream_failures": (
        "Calls for which no upstream answer could be had.",
        ("upstream", "reason"),
    ),
    "gatekeeper_drains": (
        "Answers of callers that left: read on (complete, broken, cut at a bound) or refused it.",
        ("upstream", "outcome"),
    ),
    "gatekeeper_tokens": (
        "Settled tokens; estimated=yes where the upstream reported none.",
        ("direction", "estimated"),
    ),
    "gatekeeper_websocket_messages": (
        "Frames and messages of WebSockets by direction (from_caller, to_caller) and kind.",
        ("direction", "kind"),
    ),
    "gatekeeper_websocket_bytes": (
        "Bytes of WebSocket frames by direction, heads included.",
        ("direction",),
    ),
    "gatekeeper_alert_messages": (
        "Messages to the webhook of alerts: delivered, retried, given_up.",
        ("outcome",),
    ),
    "gatekeeper_admin_requests": (
        "Requests of the management API by operation and HTTP status.",
        ("operation", "status"),
    ),
    "gatekeeper_reloads": (
        "New rules, network data or mode, and whether they took effect.",
        ("what", "outcome"),
    ),
    "gatekeeper_verification_cases": ("What happened to identity checks.", ("event",)),
    "gatekeeper_webhooks": (
        "Webhooks of identity vendors, and what became of them.",
        ("vendor", "outcome"),
    ),
    "gatekeeper_limit_looks": (
        "Requests of callers for their own limits: told, or too_many of one caller.",
        ("outcome",),
    ),
    "gatekeeper_store_failures": ("Failures of the limits' store by kind.", ("kind",)),
    "gatekeeper_limits_without_store": (
        "Calls judged while the limits' store could not answer, by what decided them.",
        ("behaviour",),
    ),
    "gatekeeper_stream_records": (
        "Records for the watcher's stream: sent, or dropped while the store could not take them.",
        ("outcome",),
    ),
    "gatekeeper_stream_failures": ("Failures of the watcher's stream by kind.", ("kind",)),
    "gatekeeper_internal_errors": ("Requests that ended in a defect of ours.", ()),
}
_HISTOGRAMS: Final = {
    "gatekeeper_decision_seconds": "Time from a request's arrival to its decision, body included.",
    "gatekeeper_store_seconds": "Time of a reservation in the limits' store.",
    "gatekeeper_first_byte_seconds": "Time from forwarding to the upstream's status line.",
}
_BUCKETS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)


class Metrics(Collector):
    """Counts in plain dictionaries; turned into Prometheus families only when scraped.

    Labels come from enums and the operator's own files, never from callers.
    """

    def __init__(self) -> None:
        self._counts: dict[str, dict[tuple[str, ...], float]] = {
            name: defaultdict(float) for name in _COUNTERS
        }
        self._observed = {name: [0] * (len(_BUCKETS) + 1) for name in _HISTOGRAMS}
        self._sums = dict.fromkeys(_HISTOGRAMS, 0.0)
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self._tables: dict[str, _Table] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Add ``by`` to a counter declared in this module."""
        self._counts[name][labels] += by

    def value(self, name: str, *labels: str) -> float:
        """Return what a counter stands at."""
        return self._counts[name].get(labels, 0.0)

    def total(self, name: str, first: str) -> float:
        """Return the sum over all label sets of a counter whose first label is ``first``."""
        counts = list(self._counts[name].items())
        return sum(count for labels, count in counts if labels[:1] == (first,))

    def observe(self, name: str, seconds: float) -> None:
        """Add one duration to a histogram declared in this module."""
        self._observed[name][bisect_left(_BUCKETS, seconds)] += 1
        self._sums[name] += seconds

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Declare a gauge that is read when scraped."""
        self._declared_once(name)
        self._gauges[name] = (text, read)

    def gauges(
        self,
        name: str,
        text: str,
        labels: tuple[str, ...],
        read: Callable[[], Mapping[tuple[str, ...], float]],
    ) -> None:
        """Declare a gauge with labels; ``read`` returns all that is there now."""
        self._declared_once(name)
        self._tables[name] = (text, labels, read)

    def _declared_once(self, name: str) -> None:
        if name in {*self._gauges, *self._tables, *_COUNTERS, *_HISTOGRAMS}:
            raise ValueError(f"the metric {name} is declared twice")

    def collect(self) -> Iterator[Metric]:
        """Yield every family (called by the registry)."""
        for name, (text, labels) in _COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=labels)
            for values, count in list(self._counts[name].items()):
                counter.add_metric(values, count)
            yield counter
        for name, text in _HISTOGRAMS.items():
            running = 0
            buckets: list[tuple[str, float]] = []
            for bound, count in zip((*_BUCKETS, float("inf")), self._observed[name], strict=True):
                running += count
                buckets.append(("+Inf" if bound == float("inf") else str(bound), running))
            yield HistogramMetricFamily(name, text, buckets=buckets, sum_value=self._sums[name])
        for name, (text, read) in self._gauges.items():
            yield GaugeMetricFamily(name, text, value=read())
        for name, (text, labels, read_all) in self._tables.items():
            table = GaugeMetricFamily(name, text, labels=labels)
            for values, value in read_all().items():
                table.add_metric(values, value)
            yield table

    def render(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self._registry)


def configure_logging(log: Log) -> None:
    """Send structlog and the standard library's log to standard error, one line an event."""
    level = logging.getLevelNamesMapping()[log.level.upper()]
    render: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log.format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # others print local variables
        )
    )
    safe: list[structlog.typing.Processor] = [] if log.format == "json" else [_printable]
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *safe,
                render,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # else a line for each change


def _printable(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Escape what could break a line or steer a terminal (H38); tracebacks keep their lines."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            lines = value.split("\n") if name in {"exception", "stack"} else [value]
            event[name] = "\n".join(
                line if line.isprintable() else line.encode("unicode_escape").decode()
                for line in lines
            )
    return event
