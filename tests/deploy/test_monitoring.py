"""Alert rules and dashboard: every metric and label in them is one that a gate exposes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.gates import Gates, rules_text
from support.valkey import serving

from gatekeeper.policy.lifecycles import CaseEvent
from gatekeeper.policy.words import Verdict
from gatekeeper.settings import Geoip
from gatekeeper.telemetry import _COUNTERS, _HISTOGRAMS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
DASHBOARD: dict[str, Any] = json.loads(
    (ROOT / "deploy" / "grafana" / "gatekeeper.json").read_text(encoding="utf-8")
)
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"] for rule in group["rules"]
]
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
OF_PROMETHEUS = {"job", "instance", "le"}
SELECTOR = re.compile(r"\b(gatekeeper_[a-z_]+)(?:\{([^}]*)\})?")
GROUPED = re.compile(r"\b(?:by|ignoring|on) \(([^)]*)\)")


def expressions() -> Iterator[Any]:
    """Yield every expression of both files, by where it is."""
    for rule in RULES:
        yield pytest.param(rule["expr"], id=rule["alert"])
    for panel in PANELS:
        for target in panel.get("targets", ()):
            yield pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")


def labels_of(name: str) -> set[str] | None:
    """Return the labels of a counter or histogram, ``None`` for gauges."""
    family = re.sub(r"_(total|bucket|sum|count)$", "", name)
    if family in _COUNTERS:
        return {*_COUNTERS[family][1], *OF_PROMETHEUS}
    return OF_PROMETHEUS if family in _HISTOGRAMS else None


async def test_every_metric_is_one_that_a_gate_exposes(tmp_path: Path) -> None:
    """Asked of a running gate, not of its code."""
    gates = Gates(tmp_path, Geoip(databases=(), networks=()))
    async with serving(tmp_path / "valkey") as store:
        shared = {"kind": "standalone", "addresses": (store.address,)}
        gate = await gates(rules=rules_text(), store=shared)
        try:
            families = list(text_string_to_metric_families(await gate.metrics()))
        finally:
            await gates.stop()
    exposed = {family.name for family in families if family.type in {"gauge", "unknown"}}
    exposed |= {f"{family.name}_total" for family in families if family.type == "counter"}
    exposed |= {f"{family.name}_bucket" for family in families if family.type == "histogram"}
    named = {name for case in expressions() for name, _ in SELECTOR.findall(str(case.values[0]))}
    assert named - exposed == set()
    assert len(named) > 15


@pytest.mark.parametrize("expression", list(expressions()))
def test_every_label_is_one_of_the_metric(expression: str) -> None:
    """A misspelt label would match nothing for ever, and an alert would stay silent."""
    known: set[str] = set()
    gauges = False
    for name, inside in SELECTOR.findall(expression):
        labels = labels_of(name)
        asked = set(re.findall(r"(\w+)\s*[=!]", inside))
        if labels is None:
            gauges = True
        else:
            assert asked <= labels, name
            known |= labels
    grouped = {label for found in GROUPED.findall(expression) for label in found.split(", ")} - {""}
    assert gauges or not SELECTOR.search(expression) or grouped <= known


def test_verdicts_that_are_named_exist() -> None:
    """Values of labels that come from enumerations are values of them."""
    text = ALERTS.read_text(encoding="utf-8") + json.dumps(DASHBOARD).replace('\\"', '"')
    assert set(re.findall(r'verdict!?="(\w+)"', text)) <= {each.word for each in Verdict}
    assert set(re.findall(r'event="(\w+)"', text)) <= {each.value for each in CaseEvent}


def test_the_dashboard_can_be_loaded() -> None:
    """Ids are unique, nothing overlaps, each panel says what it shows and uses the data source."""
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    assert DASHBOARD["uid"] == "gatekeeper"
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert panel["datasource"]["uid"] == "${datasource}"
            references = [target["refId"] for target in panel["targets"]]
            assert len(set(references)) == len(references)


def test_the_dashboard_shows_what_is_asked_of_it() -> None:
    """Embargo hits, the store, ages of lists, refusals by reason, and the funnel of step-up."""
    titles = {panel["title"] for panel in PANELS}
    assert {
        "Embargo hits",
        "Without the shared store",
        "Age of lists and databases",
        "Refusals by reason",
        "Funnel, 24 h",
    } <= titles


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    """A severity, a summary that names what is concerned, and a row in docs/monitoring.md."""
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"]["summary"].endswith(".")
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    assert f"| `{rule['alert']}` |" in page


def test_prometheus_finds_nothing_wrong() -> None:
    """Promtool checks the rules and the configuration, and runs the unit tests of the alerts."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian: prometheus) is not installed")
    for command in (
        ("check", "rules", ALERTS),
        ("check", "config", ALERTS.with_name("prometheus.yaml")),
        ("test", "rules", ROOT / "tests" / "deploy" / "alerts_test.yaml"),
    ):
        done = subprocess.run([promtool, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
