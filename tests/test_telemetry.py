"""Telemetry: metrics that Prometheus can read, and log lines that stay lines."""

from __future__ import annotations

import ast
import io
import json
import logging
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

import gatekeeper
from gatekeeper.settings import Log
from gatekeeper.telemetry import _BUCKETS, _COUNTERS, _HISTOGRAMS, Metrics, configure_logging

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

PACKAGE = Path(gatekeeper.__file__).parent


def scraped(metrics: Metrics) -> dict[str, Metric]:
    """Render and parse as Prometheus does; every family is declared once."""
    families = list(text_string_to_metric_families(metrics.render().decode()))
    by_name = {family.name: family for family in families}
    assert len(by_name) == len(families)
    return by_name


# --- metrics ------------------------------------------------------------------------------------


def test_every_metric_is_there_from_the_start() -> None:
    """Families that never counted are declared all the same, with help."""
    families = scraped(Metrics())
    for name in (*_COUNTERS, *_HISTOGRAMS):
        assert families[name].documentation
    assert "process_resident_memory_bytes" in families


def test_counters() -> None:
    """Counts add up per label set, under the declared label names."""
    metrics = Metrics()
    metrics.count("gatekeeper_decisions", "deny", "request_denied", "openai_chat", "yes")
    metrics.count("gatekeeper_decisions", "deny", "request_denied", "openai_chat", "yes", by=2)
    metrics.count("gatekeeper_internal_errors")
    families = scraped(metrics)
    (sample,) = families["gatekeeper_decisions"].samples
    assert (sample.name, sample.value) == ("gatekeeper_decisions_total", 3)
    assert sample.labels == {
        "verdict": "deny",
        "reason": "request_denied",
        "dialect": "openai_chat",
        "enforced": "yes",
    }
    assert families["gatekeeper_internal_errors"].samples[0].value == 1
    asked = metrics.value("gatekeeper_decisions", "deny", "request_denied", "openai_chat", "yes")
    assert asked == 3
    assert metrics.value("gatekeeper_decisions", "allow", "", "plain", "yes") == 0


def test_asking_for_a_value_counts_nothing() -> None:
    """Reading a counter does not create its label set."""
    metrics = Metrics()
    metrics.value("gatekeeper_parser_refusals", "x")
    assert scraped(metrics)["gatekeeper_parser_refusals"].samples == []


def test_histograms() -> None:
    """Buckets are cumulative, their bounds inclusive, and the rest is in ``+Inf``."""
    metrics = Metrics()
    for seconds in (0.0, 0.0001, 0.00011, 1.0, 100.0):
        metrics.observe("gatekeeper_decision_seconds", seconds)
    samples = scraped(metrics)["gatekeeper_decision_seconds"].samples
    buckets = {s.labels["le"]: s.value for s in samples if s.name.endswith("_bucket")}
    assert len(buckets) == len(_BUCKETS) + 1
    assert (buckets["0.0001"], buckets["0.00025"]) == (2, 3)
    assert (buckets["0.5"], buckets["1.0"]) == (3, 4)
    assert (buckets["60.0"], buckets["+Inf"]) == (4, 5)
    assert list(buckets.values()) == sorted(buckets.values())
    totals = {s.name.rpartition("_")[2]: s.value for s in samples}
    assert totals["count"] == 5
    assert totals["sum"] == pytest.approx(101.00021)


def test_gauges_are_read_when_scraped() -> None:
    """A gauge shows what is so now."""
    metrics, held = Metrics(), [1.0]
    metrics.gauge("gatekeeper_test", "For a test.", lambda: held[0])
    held[0] = 7.0
    assert scraped(metrics)["gatekeeper_test"].samples[0].value == 7


def test_gauges_with_labels_show_what_is_there_now() -> None:
    """A label set that is gone is not shown again; odd names come back as they are."""
    metrics, held = Metrics(), {("a", '"x"'): 1.0, ("b", "y"): 2.0}
    metrics.gauges("gatekeeper_table", "For a test.", ("source", "revision"), lambda: held)
    samples = scraped(metrics)["gatekeeper_table"].samples
    assert {(s.labels["source"], s.labels["revision"]): s.value for s in samples} == held
    del held["b", "y"]
    assert len(scraped(metrics)["gatekeeper_table"].samples) == 1


@pytest.mark.parametrize(
    "name",
    ["gatekeeper_test", "gatekeeper_table", "gatekeeper_decisions", "gatekeeper_decision_seconds"],
)
def test_a_name_is_declared_once(name: str) -> None:
    """A second declaration would render twice, which Prometheus refuses whole."""
    metrics = Metrics()
    metrics.gauge("gatekeeper_test", "For a test.", lambda: 0)
    metrics.gauges("gatekeeper_table", "For a test.", ("a",), dict)
    with pytest.raises(ValueError, match="twice"):
        metrics.gauge(name, "Again.", lambda: 0)
    with pytest.raises(ValueError, match="twice"):
        metrics.gauges(name, "Again.", ("a",), dict)


@pytest.mark.parametrize("value", ['a"b', "a\nb", "a\\b", "é", "{}", ""])
def test_h38_odd_names_of_operators_render(value: str) -> None:
    """The operator's own names of rules and upstreams come back as they are."""
    metrics = Metrics()
    metrics.count("gatekeeper_upstream_failures", value, "upstream_timeout")
    (sample,) = scraped(metrics)["gatekeeper_upstream_failures"].samples
    assert sample.labels["upstream"] == value


def counted() -> Iterator[tuple[str, list[ast.expr]]]:
    """Find every place in the package that counts or observes: its name and its labels."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.func, ast.Attribute):
                name = node.args[0]
                if (
                    node.func.attr in {"count", "observe", "value"}
                    and isinstance(name, ast.Constant)
                    and str(name.value).startswith("gatekeeper_")
                ):
                    yield str(name.value), node.args[1:]


COUNTED = list(counted())


@pytest.mark.parametrize("name", [*_COUNTERS, *_HISTOGRAMS])
def test_what_is_declared_is_counted(name: str) -> None:
    """With exactly the labels declared; a metric that nobody counts would always read zero."""
    uses = [labels for used, labels in COUNTED if used == name]
    assert uses
    width = len(_COUNTERS[name][1]) if name in _COUNTERS else 1
    assert [len(labels) for labels in uses] == [width] * len(uses)


def test_what_is_counted_is_declared() -> None:
    """A misspelt name would fail on the first request that meets it."""
    assert {name for name, _ in COUNTED} <= {*_COUNTERS, *_HISTOGRAMS}


def test_labels_never_come_from_callers() -> None:
    """No label is an attribute that holds what a caller sent."""
    sent = {"account", "address", "client", "detail", "host", "key_id", "method", "model", "path"}
    for name, labels in COUNTED:
        for label in labels:
            used = {node.attr for node in ast.walk(label) if isinstance(node, ast.Attribute)}
            assert not used & sent, name


# --- logs ---------------------------------------------------------------------------------------

NASTY = 'x\r\n{"level":"error"}\x1b[2J\x9b31m\u2028\x00'


def fail() -> None:
    """Raise what holds a caller's bytes."""
    raise ValueError(NASTY)


@pytest.fixture
def logged(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[io.StringIO]:
    """Configure the log in the format asked for; put everything back afterwards."""
    root, stream = logging.getLogger(), io.StringIO()
    before, level = root.handlers[:], root.level
    monkeypatch.setattr("sys.stderr", stream)
    configure_logging(Log(level="info", format=request.param))
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


as_json = pytest.mark.parametrize("logged", ["json"], indirect=True)
in_any_format = pytest.mark.parametrize("logged", ["json", "console"], indirect=True)


def line_of(logged: io.StringIO) -> dict[str, Any]:
    """Return the one line that was logged, parsed."""
    line, end, more = logged.getvalue().partition("\n")
    assert (end, more) == ("\n", "")
    parsed: dict[str, Any] = json.loads(line)
    return parsed


@as_json
def test_h38_json_line_keeps_its_fields(logged: io.StringIO) -> None:
    """Time, level and event beside what was given, to the character."""
    structlog.get_logger("test").warning("something", value=NASTY, number=3)
    line = line_of(logged)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "something", "level": "warning", "value": NASTY, "number": 3}


@as_json
def test_h38_library_logs_and_tracebacks_are_one_line(logged: io.StringIO) -> None:
    """What the standard library logs takes the same way."""
    try:
        fail()
    except ValueError:
        logging.getLogger("aiohttp.server").exception("failed: %s", NASTY)
    line = line_of(logged)
    assert line["event"] == f"failed: {NASTY}"
    assert "Traceback" in line["exception"]


class Shade(StrEnum):
    """Something that is logged as its value."""

    DARK = "dark"


@as_json
def test_odd_values_are_logged_all_the_same(logged: io.StringIO) -> None:
    """A log call never fails for what it is given."""
    structlog.get_logger("test").info("odd", shade=Shade.DARK, raw=b"\n", thing={1, 2})
    line = line_of(logged)
    assert line["shade"] == "dark"
    assert line["raw"] == r"b'\n'"


@in_any_format
@pytest.mark.parametrize("how", ["field", "event", "library", "list"])
def test_h38_no_value_breaks_the_line_or_the_terminal(
    logged: io.StringIO, how: Literal["field", "event", "library", "list"]
) -> None:
    """Line ends and control characters are escaped, wherever they stand."""
    log = structlog.get_logger("test")
    if how == "field":
        log.info("e", value=NASTY)
    elif how == "event":
        log.info(NASTY)
    elif how == "list":
        log.info("e", value=[NASTY])
    else:
        logging.getLogger("aiohttp").warning("bad: %s", NASTY)
    err = logged.getvalue()
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert err[:-1].isprintable()


@pytest.mark.parametrize("logged", ["console"], indirect=True)
def test_h38_console_traceback_keeps_its_lines(logged: io.StringIO) -> None:
    """People read it line by line; nothing in it steers their terminal."""
    try:
        fail()
    except ValueError:
        structlog.get_logger("test").exception("failed")
    err = logged.getvalue()
    assert err.count("\n") > 3
    assert all(line.isprintable() for line in err.split("\n"))


@in_any_format
def test_level(logged: io.StringIO) -> None:
    """Below the level nothing is written, of ours or of libraries."""
    structlog.get_logger("test").debug("quiet")
    logging.getLogger("aiohttp").debug("quiet")
    assert logged.getvalue() == ""


@in_any_format
def test_configuring_twice_logs_once(logged: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second configuration replaces the first."""
    monkeypatch.setattr("sys.stderr", logged)  # pytest has put its own back after the fixture
    configure_logging(Log(format="json"))
    structlog.get_logger("test").info("once")
    assert line_of(logged)["event"] == "once"
