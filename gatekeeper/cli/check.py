"""``gatekeeper check``: validate settings and rules, run the cases, tell what no case covers."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gatekeeper.cli.common import (
    FAILED,
    console,
    give_up,
    json_option,
    settings_from,
    settings_option,
)
from gatekeeper.facts.network import NetworkData
from gatekeeper.policy.cases import coverage, parse_cases, run_case
from gatekeeper.sources import unknown_owners
from gatekeeper.storage.rule_store import read_rules, read_texts

if TYPE_CHECKING:
    from gatekeeper.policy.cases import Case, CaseResult
    from gatekeeper.policy.mistake import Mistake
    from gatekeeper.policy.ruleset import RuleSet


@click.command()
@click.option(
    "--rules", "rules_dir", type=click.Path(path_type=Path), help="Directory of rule files."
)
@json_option
@settings_option
def check(*, rules_dir: Path | None, as_json: bool, settings_file: Path | None) -> None:
    """Validate settings, rules and network data, and run the cases of rules/cases.

    Exits with 1 when a case fails, with 2 when something cannot be read.

    \b
    Example:
      gatekeeper check --rules rules
    """
    settings = settings_from(settings_file, {"--rules-dir": rules_dir})
    rules = read_rules(settings.rules_dir)
    cases = _cases(settings.rules_dir / "cases")
    mistakes: list[Mistake] = []
    if isinstance(rules, list):
        mistakes += rules
    if isinstance(cases, list):
        mistakes += cases
    network = NetworkData.load(settings.geoip, secret=os.urandom(32), now_unix_s=time.time())
    mistakes += network.problems
    if not isinstance(rules, list):
        mistakes += unknown_owners(rules, network)
    if mistakes or isinstance(rules, list) or isinstance(cases, list):
        give_up(mistakes)
    results = [run_case(case, rules) for case in cases]
    uncovered = coverage(results, rules)
    if as_json:
        _as_json(rules, results, uncovered)
    else:
        _print(rules, network, results, uncovered)
    if not all(result.passed for result in results):
        raise SystemExit(FAILED)


def _cases(directory: Path) -> tuple[Case, ...] | list[Mistake]:
    if not directory.is_dir():
        return ()
    texts = read_texts(directory)
    return texts if isinstance(texts, list) else parse_cases(texts)


def _as_json(rules: RuleSet, results: list[CaseResult], uncovered: list[str]) -> None:
    failed = [
        {"case": result.case.name, "differences": list(result.differences)}
        for result in results
        if not result.passed
    ]
    click.echo(
        json.dumps(
            {
                "revision": rules.revision,
                "cases": len(results),
                "failed": failed,
                "uncovered": uncovered,
            }
        )
    )


def _print(
    rules: RuleSet, network: NetworkData, results: list[CaseResult], uncovered: list[str]
) -> None:
    out = console()
    sections = {
        "embargo": rules.embargo,
        "capabilities": rules.capabilities,
        "signals": rules.signals,
        "thresholds": rules.thresholds,
        "tiers": rules.tiers,
        "limits": rules.limits,
        "containment": rules.containment,
        "shaping": rules.shaping,
        "step-up": rules.step_up,
        "exemptions": rules.exemptions,
        "models": rules.models,
    }
    out.print(f"Rules {rules.revision}: " + ", ".join(f"{len(v)} {k}" for k, v in sections.items()))
    out.print(f"Network data {network.revision}: {len(network.sources)} sources")
    for result in results:
        if not result.passed:
            place = f"{result.case.file}:{result.case.line}"
            out.print(f"FAILED {place}: {result.case.name}", markup=False)
            for difference in result.differences:
                out.print(f"  {difference}", markup=False)
    passed = sum(result.passed for result in results)
    out.print(f"Cases: {passed} of {len(results)} as wanted")
    if uncovered:
        out.print(f"No case covers: {', '.join(uncovered)}", markup=False)
    else:
        out.print("Every rule is covered by a case")
