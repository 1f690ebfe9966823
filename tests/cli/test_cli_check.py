"""`gatekeeper check`: what it accepts, what it finds, and how it ends."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from support.gates import PACK, rules_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., Any]


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """Return a small directory of rules with one case."""
    (tmp_path / "rules" / "cases").mkdir(parents=True)
    (tmp_path / "rules" / "all.yaml").write_text(rules_text())
    write_case(tmp_path / "rules", "CU", "embargoed")
    return tmp_path / "rules"


def write_case(rules: Path, country: str, verdict: str) -> None:
    """Write the one case."""
    (rules / "cases" / "one.yaml").write_text(
        f"- name: the case\n  request: {{network.country: {country}}}\n"
        f"  want: {{verdict: {verdict}}}\n...\n"
    )


def test_the_pack_that_ships_is_right(run: Run) -> None:
    """The default rules pass, every rule covered by a case."""
    told = run("check").stdout
    assert "as wanted" in told
    assert "Every rule is covered by a case" in told


def test_coverage_is_told(run: Run, rules: Path) -> None:
    """Rules that no case reaches are listed, which is no failure."""
    told = json.loads(run("check", "--rules", str(rules), "--json").stdout)
    assert (told["cases"], told["failed"]) == (1, [])
    assert "tier-trusted" in told["uncovered"]
    assert "embargo-cuba" not in told["uncovered"]
    told = run("check", "--rules", str(rules)).stdout
    assert "No case covers: " in told


def test_a_case_that_fails_is_1(run: Run, rules: Path) -> None:
    """The case is named with its place and what came instead."""
    write_case(rules, "DE", "embargoed")
    told = run("check", "--rules", str(rules), code=1).stdout
    assert f"FAILED {rules / 'cases' / 'one.yaml'}:1: the case" in told
    assert "verdict" in told
    as_json = json.loads(run("check", "--rules", str(rules), "--json", code=1).stdout)
    assert [failed["case"] for failed in as_json["failed"]] == ["the case"]


def test_mistakes_are_2_and_told_together(
    run: Run, rules: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Mistakes in rules, cases and network data come in one run, each at its place."""
    (rules / "more.yaml").write_text("version: 1\nsignals:\n  - {id: x}\nnonsense: 1\n...\n")
    (rules / "cases" / "two.yaml").write_text("- name: half\n...\n")
    monkeypatch.setenv("GATEKEEPER_GEOIP__NETWORKS", json.dumps([str(tmp_path / "no-such.yaml")]))
    told = run("check", "--rules", str(rules), code=2).stderr
    for place in ("more.yaml:3: ", "more.yaml:4: nonsense", "two.yaml:1: ", "no-such.yaml"):
        assert place in told


def test_settings_are_checked_first(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mistake in the settings is told, with its variable."""
    monkeypatch.setenv("GATEKEEPER_MODE", "relaxed")
    monkeypatch.setenv("GATEKEEPER_PORT", "80")
    told = run("check", code=2).stderr
    assert "environment: GATEKEEPER_MODE: " in told
    assert "environment: GATEKEEPER_PORT: This is not a setting" in told


@pytest.mark.parametrize("name", ["embargo.yaml", "tiers.yaml", "models.yaml"])
def test_h35_a_file_cut_off_is_a_mistake(run: Run, tmp_path: Path, name: str) -> None:
    """Half a rule file never passes for fewer rules."""
    copied = tmp_path / "rules"
    shutil.copytree(PACK, copied)
    text = (copied / name).read_text()
    (copied / name).write_text(text[: len(text) // 2])
    assert name in run("check", "--rules", str(copied), code=2).stderr
