"""``gatekeeper simulate``: a simulated campaign against the gate, and what became of it."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from gatekeeper.cli.common import (
    FAILED,
    MISTAKES,
    give_up,
    json_option,
    progress_bar,
    settings_from,
    settings_option,
    table,
)
from gatekeeper.cli.watch import NEEDED, installed
from gatekeeper.sources import StartError
from gatekeeper.storage.rule_store import read_rules

if TYPE_CHECKING:
    from gatekeeper.policy.ruleset import RuleSet
    from gatekeeper.settings import Settings
    from gatekeeper.simulator.scenario import Scenario
    from gatekeeper.trials.measured import ColumnTrial, LoopTrial

SHIPPED: Final = Path(__file__).parent.parent / "simulator" / "scenarios"


@click.command()
@click.argument("scenario_file", metavar="SCENARIO", type=click.Path(path_type=Path))
@click.option(
    "--view",
    type=click.Choice(["loop", "columns"]),
    default="loop",
    show_default=True,
    help="The closed loop through the gate's own code, or the detector alone.",
)
@click.option("--rules", "rules_dir", type=click.Path(path_type=Path), help="Rule directory.")
@click.option("--seed", type=click.IntRange(min=0), help="Instead of the scenario's.")
@click.option("--days", type=click.IntRange(min=1, max=90), help="Instead of the scenario's.")
@click.option(
    "--watch-every",
    "every_s",
    type=click.FloatRange(min=300),
    default=21_600.0,
    show_default=True,
    metavar="SECONDS",
    help="How often the watcher runs in the closed loop, in simulated time.",
)
@click.option(
    "--report",
    "report_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write an HTML page with charts.",
)
@json_option
@settings_option
def simulate(
    *,
    scenario_file: Path,
    view: str,
    rules_dir: Path | None,
    seed: int | None,
    days: int | None,
    every_s: float,
    report_file: Path | None,
    as_json: bool,
    settings_file: Path | None,
) -> None:
    """Let a simulated population and a campaign call the gate, and measure what is found.

    SCENARIO is a YAML file, or the name of one that ships: none, or a letter from a to l.
    docs/simulator.md says who these are. Exits with 1 when an honest account was refused without a
    way to verify.

    \b
    Example:
      gatekeeper simulate a --days 10 --report a.html
      gatekeeper simulate scenario.yaml --view columns --json
    """
    settings = settings_from(settings_file, {"--rules-dir": rules_dir})
    if not installed():
        click.echo(NEEDED, err=True)
        raise SystemExit(MISTAKES)
    rules = read_rules(settings.rules_dir)
    if isinstance(rules, list):
        give_up(rules)
    scenario = _scenario(scenario_file, seed, days)
    try:
        trial = _run(scenario, settings, rules, view=view, every_s=every_s)
    except StartError as error:
        give_up(error.mistakes)
    if report_file is not None:
        from gatekeeper.trials.page import page_of  # noqa: PLC0415 - loads the extra

        try:
            report_file.write_text(page_of(scenario, trial), "utf-8")
        except OSError as error:
            click.echo(f"{report_file}: {error.strerror}", err=True)
            raise SystemExit(MISTAKES) from error
    if as_json:
        click.echo(msgspec.json.encode(trial))
    else:
        _tell(trial)
    if any(each.refused for each in _harm(trial).values()):
        raise SystemExit(FAILED)


def _scenario(file: Path, seed: int | None, days: int | None) -> Scenario:
    from gatekeeper.simulator.scenario import (  # noqa: PLC0415 - loads the extra
        ScenarioError,
        read_scenario,
    )

    shipped = SHIPPED / f"{file.name}.yaml"
    try:
        found = read_scenario(shipped if not file.exists() and shipped.exists() else file)
    except ScenarioError as error:
        click.echo(str(error), err=True)
        raise SystemExit(MISTAKES) from error
    changes: dict[str, Any] = {}
    if seed is not None:
        changes["seed"] = seed
    if days is not None:
        changes |= {"days": days, "first_day": min(found.first_day, days // 4)}
    return msgspec.structs.replace(found, **changes)


def _run(
    scenario: Scenario, settings: Settings, rules: RuleSet, *, view: str, every_s: float
) -> LoopTrial | ColumnTrial:
    from gatekeeper.trials.columns import LOOKS_H, column_trial  # noqa: PLC0415 - loads the extra
    from gatekeeper.trials.loop import loop_trial  # noqa: PLC0415 - loads the extra

    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="gatekeeper-simulate-"))
        )
        progress = stack.enter_context(progress_bar("day {task.completed} of {task.total}"))
        days = scenario.days if view == "loop" else scenario.first_day + max(LOOKS_H) // 24
        task = progress.add_task(f"Simulating {scenario.name}", total=days)
        if view == "columns":
            return column_trial(
                scenario, rules, folder, progress=lambda day: progress.update(task, completed=day)
            )
        return asyncio.run(
            loop_trial(
                scenario,
                settings,
                rules,
                folder,
                watch_every_s=every_s,
                progress=lambda day: progress.update(task, completed=day),
            )
        )


def _harm(trial: LoopTrial | ColumnTrial) -> dict[str, Any]:
    return getattr(trial, "harm", {})


def _tell(trial: LoopTrial | ColumnTrial) -> None:
    from gatekeeper.trials.measured import LoopTrial  # noqa: PLC0415 - loads the extra
    from gatekeeper.trials.words import rows_of  # noqa: PLC0415 - loads the extra

    kind = "closed loop" if isinstance(trial, LoopTrial) else "detector alone"
    table(f"{trial.scenario}: {kind}, seed {trial.seed}", ("what", "measured"), rows_of(trial))
    click.echo(f"{trial.calls} calls in {trial.seconds:.0f} s")
