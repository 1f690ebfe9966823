"""``gatekeeper rules``: which rules are in force on all gates, and how to change that."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from gatekeeper.cli.common import (
    FAILED,
    audited,
    data_dir_option,
    day,
    give_up,
    json_option,
    operator,
    settings_from,
    settings_option,
    table,
    with_records,
)
from gatekeeper.live.desk import RuleDiff, RuleLibrary, UnknownRevision
from gatekeeper.policy.mistake import Mistake
from gatekeeper.storage.rule_history import Activation, Conflict, RuleHistory, Source
from gatekeeper.storage.rule_store import read_texts

if TYPE_CHECKING:
    from gatekeeper.storage.records import Records

expect_option = click.option(
    "--expect", metavar="REVISION", help="Only if this revision is in force now."
)


@click.group()
def rules() -> None:
    """Show, compare and change the rules that all gates serve.

    \b
    Example:
      gatekeeper rules active
      gatekeeper rules activate rules --comment "Tighter limits"
      gatekeeper rules rollback
    """


@rules.command()
@json_option
@settings_option
@data_dir_option
def active(*, as_json: bool, settings_file: Path | None, data_dir: Path | None) -> None:
    """Show which rules are in force, since when and by whom.

    \b
    Example:
      gatekeeper rules active
    """
    settings = settings_from(settings_file, {"--data-dir": data_dir})
    found = with_records(settings, lambda records: RuleHistory(records.database).latest())
    if found is None:
        click.echo("No gate has activated rules here yet.", err=True)
        raise SystemExit(FAILED)
    _show([found], as_json=as_json)


@rules.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=20, help="At most so many.")
@json_option
@settings_option
@data_dir_option
def history(
    *, limit: int, as_json: bool, settings_file: Path | None, data_dir: Path | None
) -> None:
    """List what was put in force, newest first.

    \b
    Example:
      gatekeeper rules history --limit 5
    """
    settings = settings_from(settings_file, {"--data-dir": data_dir})
    found = with_records(settings, lambda records: RuleHistory(records.database).page(limit=limit))
    _show(list(found), as_json=as_json)


@rules.command()
@click.argument("before")
@click.argument("after")
@json_option
@settings_option
@data_dir_option
def diff(
    *, before: str, after: str, as_json: bool, settings_file: Path | None, data_dir: Path | None
) -> None:
    """Show what differs between the revision BEFORE and AFTER: a revision, or a directory.

    \b
    Example:
      gatekeeper rules diff 6586bef75809 rules
    """
    settings = settings_from(settings_file, {"--data-dir": data_dir})
    target = _target(after)
    found = with_records(settings, lambda records: _library(records).diff(before, target))
    if not isinstance(found, RuleDiff):
        _not_done(found)
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    click.echo(found.text, nl=False)
    table(
        "Rules",
        ("section", "rule", "change"),
        ((each.section, each.rule, each.kind) for each in found.changes),
    )
    for loss in found.weakened:
        click.echo(f"Embargo weakened: {loss}", err=True)


@rules.command()
@click.argument("target")
@click.option("--comment", default="", help="Why, for the history.")
@expect_option
@settings_option
@data_dir_option
def activate(
    *,
    target: str,
    comment: str,
    expect: str | None,
    settings_file: Path | None,
    data_dir: Path | None,
) -> None:
    """Put TARGET, a directory of rule files or a revision, in force on all gates.

    Running gates follow within a second; nothing takes effect when there is a mistake.

    \b
    Example:
      gatekeeper rules activate rules --comment "Tighter limits"
    """
    settings = settings_from(settings_file, {"--data-dir": data_dir})
    wanted = _target(target)

    async def work(records: Records) -> object:
        made = await _library(records).activate(
            wanted, by=operator(), at=time.time(), comment=comment, expected_active=expect
        )
        return await _kept(records, "activateRules", made)

    _tell(with_records(settings, work))


@rules.command()
@expect_option
@settings_option
@data_dir_option
def rollback(*, expect: str | None, settings_file: Path | None, data_dir: Path | None) -> None:
    """Put the rules in force again that were before those that are.

    \b
    Example:
      gatekeeper rules rollback
    """
    settings = settings_from(settings_file, {"--data-dir": data_dir})

    async def work(records: Records) -> object:
        made = await _library(records).roll_back(
            by=operator(), at=time.time(), expected_active=expect
        )
        return await _kept(records, "rollBackRules", made)

    _tell(with_records(settings, work))


async def _kept(records: Records, action: str, made: object) -> object:
    """Put what was done into the audit trail."""
    if isinstance(made, Activation):
        async with audited(records, action, "rules", at=made.at) as trace:
            trace.of(made.revision, comment=made.comment)
    return made


def _library(records: Records) -> RuleLibrary:
    return RuleLibrary(RuleHistory(records.database), Source.COMMAND)


def _target(text: str) -> str | dict[str, str]:
    """Return a revision as it is, and a directory as its files by name."""
    if not Path(text).is_dir():
        return text
    found = read_texts(Path(text))
    if isinstance(found, list):
        give_up(found)
    return {Path(name).name: content for name, content in found.items()}


def _tell(made: object) -> None:
    if not isinstance(made, Activation):
        _not_done(made)
    click.echo(f"{made.revision} is in force; running gates follow within a second.")


def _not_done(why: object) -> NoReturn:
    if isinstance(why, list) and all(isinstance(each, Mistake) for each in why):
        give_up(why)
    if isinstance(why, Conflict):
        click.echo(f"Nothing was changed: {why.active} is in force.", err=True)
    elif isinstance(why, UnknownRevision) and why.revision:
        click.echo(f"There is no revision or directory {why.revision}.", err=True)
    else:
        click.echo("There are no earlier rules.", err=True)
    raise SystemExit(FAILED)


def _show(found: list[Activation], *, as_json: bool) -> None:
    if as_json:
        for each in found:
            click.echo(json.dumps(asdict(each)))
        return
    table(
        "Rules in force, newest first",
        ("revision", "since", "by", "source", "comment"),
        ((each.revision, day(each.at), each.by, each.source, each.comment) for each in found),
    )
