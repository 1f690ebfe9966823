"""``gatekeeper cases``: find identity checks and decide them by hand."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

import click

from gatekeeper.cli.common import (
    FAILED,
    audited,
    data_dir_option,
    day,
    json_option,
    operator,
    settings_from,
    settings_option,
    table,
    with_records,
)
from gatekeeper.policy.lifecycles import CaseState
from gatekeeper.sources import try_rules
from gatekeeper.storage.cases import Cases
from gatekeeper.storage.cases_schema import MAX_ACTOR, MAX_REASON, Change
from gatekeeper.verification.desk import CaseDesk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from gatekeeper.settings import Settings
    from gatekeeper.storage.cases_schema import CaseRow, CaseStep
    from gatekeeper.storage.records import Records

_PAGE: Final = 500
_Result = TypeVar("_Result")

_reason_option = click.option(
    "--reason", required=True, help="Why; kept with the case.", metavar="TEXT"
)
_actor_option = click.option(
    "--by", "actor", help="Who decides; by default whoever runs this.", metavar="NAME"
)


@click.group()
def cases() -> None:
    """Find and decide identity checks; a running gate follows within a second.

    \b
    Example:
      gatekeeper cases list --state pending
      gatekeeper cases approve case_... --reason "passport seen in the office"
    """


@cases.command(name="list")
@click.option("--state", type=click.Choice([state.value for state in CaseState]))
@click.option("--account", help="Cases of this account only.")
@click.option("--search", help="A whole id: of a case, account, decision or vendor's session.")
@json_option
@settings_option
@data_dir_option
def list_cases(
    *,
    state: str | None,
    account: str | None,
    search: str | None,
    as_json: bool,
    settings_file: Path | None,
    data_dir: Path | None,
) -> None:
    """List cases.

    \b
    Example:
      gatekeeper cases list --state pending
    """

    async def every(desk: CaseDesk) -> list[CaseRow]:
        found: list[CaseRow] = []
        while page := await desk.page(
            after=found[-1].id if found else "",
            limit=_PAGE,
            state=None if state is None else CaseState(state),
            account_id=account,
            text=search or "",
        ):
            found.extend(page)
        return found

    rows = _at_the_desk(settings_from(settings_file, {"--data-dir": data_dir}), every)
    if as_json:
        for row in rows:
            click.echo(json.dumps(asdict(row)))
        return
    table(
        "Identity checks",
        ("id", "account", "level", "state", "vendor", "try", "updated", "reason"),
        (
            (
                row.id,
                row.account_id,
                row.assurance,
                row.state,
                row.vendor,
                row.attempt,
                day(row.updated_at),
                row.reason,
            )
            for row in rows
        ),
    )


@cases.command()
@click.argument("case")
@settings_option
@data_dir_option
def show(*, case: str, settings_file: Path | None, data_dir: Path | None) -> None:
    """Show one case with its history as JSON.

    \b
    Example:
      gatekeeper cases show case_0123456789abcdef0123456789
    """

    async def whole(desk: CaseDesk) -> tuple[CaseRow | None, tuple[CaseStep, ...]]:
        return await desk.get(case), await desk.history(case)

    settings = settings_from(settings_file, {"--data-dir": data_dir})
    row, steps = _at_the_desk(settings, whole)
    if row is None:
        _say_and_fail(f"there is no case {case}")
    click.echo(json.dumps({**asdict(row), "history": [asdict(step) for step in steps]}))


@cases.command()
@click.argument("case")
@_reason_option
@_actor_option
@settings_option
@data_dir_option
def approve(
    *, case: str, reason: str, actor: str | None, settings_file: Path | None, data_dir: Path | None
) -> None:
    """Find the identity proven; the account's assurance rises at once.

    \b
    Example:
      gatekeeper cases approve case_... --reason "passport seen in the office"
    """
    _decide(
        settings_from(settings_file, {"--data-dir": data_dir}),
        "approveCase",
        lambda desk, now: desk.approve(case, actor=_actor(actor), reason=_text(reason), at=now),
    )


@cases.command()
@click.argument("case")
@_reason_option
@_actor_option
@settings_option
@data_dir_option
def decline(
    *, case: str, reason: str, actor: str | None, settings_file: Path | None, data_dir: Path | None
) -> None:
    """Find the identity not proven.

    \b
    Example:
      gatekeeper cases decline case_... --reason "name does not match"
    """
    _decide(
        settings_from(settings_file, {"--data-dir": data_dir}),
        "declineCase",
        lambda desk, now: desk.decline(case, actor=_actor(actor), reason=_text(reason), at=now),
    )


@cases.command()
@click.argument("case")
@_reason_option
@_actor_option
@settings_option
@data_dir_option
def restart(
    *, case: str, reason: str, actor: str | None, settings_file: Path | None, data_dir: Path | None
) -> None:
    """Let an account try again after a check that failed or lapsed; its tries count anew.

    \b
    Example:
      gatekeeper cases restart case_... --reason "camera was broken"
    """
    _decide(
        settings_from(settings_file, {"--data-dir": data_dir}),
        "restartCase",
        lambda desk, now: desk.restart(case, actor=_actor(actor), reason=_text(reason), at=now),
    )


def _at_the_desk(settings: Settings, work: Callable[[CaseDesk], Awaitable[_Result]]) -> _Result:
    return with_records(settings, lambda records: work(_desk(settings, records)))


def _desk(settings: Settings, records: Records) -> CaseDesk:
    return CaseDesk(Cases(records.database), valid_s=try_rules(settings.step_up).valid_s)


def _decide(
    settings: Settings,
    action: str,
    work: Callable[[CaseDesk, float], Awaitable[tuple[Change, CaseRow | None]]],
) -> None:
    async def decided(records: Records) -> tuple[Change, CaseRow | None]:
        now = time.time()
        change, row = await work(_desk(settings, records), now)
        if row is not None and change is Change.DONE:
            async with audited(records, action, "case", at=now) as trace:
                trace.of(row.id, account=row.account_id, reason=row.reason, decided_by=row.actor)
        return change, row

    change, row = with_records(settings, decided)
    if row is None:
        _say_and_fail("there is no such case")
    if change is not Change.DONE:
        _say_and_fail(f"not possible: the case is {row.state.value}")
    click.echo(f"case {row.id} of account {row.account_id} is {row.state.value}")


def _say_and_fail(text: str) -> NoReturn:
    click.echo(text, err=True)
    raise SystemExit(FAILED)


def _actor(given: str | None) -> str:
    return _text(given or operator(), MAX_ACTOR)


def _text(text: str, most: int = MAX_REASON) -> str:
    if not text.isprintable() or not text.strip() or len(text) > most:
        raise click.BadParameter(f"at most {most} printable characters are kept")
    return text
