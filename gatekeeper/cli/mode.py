"""``gatekeeper mode``: the mode of all gates, the kill switches among them."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from gatekeeper.cli.common import (
    audited,
    data_dir_option,
    day,
    give_up,
    json_option,
    operator,
    settings_from,
    settings_option,
    with_records,
)
from gatekeeper.live.modes import wrong_with_override
from gatekeeper.policy.words import GateMode
from gatekeeper.storage.controls import Controls, ModeOverride

if TYPE_CHECKING:
    from pathlib import Path

    from gatekeeper.storage.records import Records


@click.group()
def mode() -> None:
    """Show, set and clear the mode of all gates.

    enforce: as the rules say. observe: decide and record, but refuse only embargo, bad credentials
    and malformed calls. bypass: skip score, step-up and limits; embargo, bans and credentials hold.
    closed: refuse every call with 503.

    \b
    Example:
      gatekeeper mode set bypass --reason "limiter store is down" --minutes 30
      gatekeeper mode clear
    """


@mode.command()
@json_option
@settings_option
@data_dir_option
def show(*, as_json: bool, settings_file: Path | None, data_dir: Path | None) -> None:
    """Show the mode that is set for all gates, if there is one.

    \b
    Example:
      gatekeeper mode show
    """
    settings = settings_from(settings_file, {"--data-dir": data_dir})
    found = with_records(settings, lambda records: Controls(records.database).mode())
    if found is not None and not found.holds(time.time()):
        found = None
    if as_json:
        click.echo(json.dumps(None if found is None else asdict(found)))
    elif found is None:
        click.echo(f"No mode is set: each gate's settings hold (here: {settings.mode}).")
    else:
        until = "" if found.expires_at is None else f" until {day(found.expires_at)} UTC"
        since = day(found.at)
        click.echo(f"{found.mode}{until}, set by {found.by} at {since} UTC: {found.reason}")


@mode.command(name="set")
@click.argument("wanted", metavar="MODE", type=click.Choice([each.value for each in GateMode]))
@click.option("--reason", required=True, help="Why, for logs and for those who find it set.")
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), help="Give it back after minutes."
)
@settings_option
@data_dir_option
def set_mode(
    *,
    wanted: str,
    reason: str,
    minutes: float | None,
    settings_file: Path | None,
    data_dir: Path | None,
) -> None:
    """Set MODE for all gates, above their settings; running ones follow within a second.

    \b
    Example:
      gatekeeper mode set closed --reason "model answers nonsense"
    """
    settings = settings_from(settings_file, {"--data-dir": data_dir})
    now = time.time()
    expires_at = None if minutes is None else now + minutes * 60
    wrong = wrong_with_override(reason, now, expires_at)
    if wrong is not None:
        give_up([wrong])
    override = ModeOverride(GateMode(wanted), now, operator(), reason, expires_at)

    async def put(records: Records) -> None:
        async with audited(records, "setMode", "mode", at=now) as trace:
            await Controls(records.database).set_mode(override)
            trace.of(wanted, reason=reason, expires_at=expires_at)

    with_records(settings, put)
    click.echo(f"{wanted}: running gates follow within a second.")


@mode.command()
@settings_option
@data_dir_option
def clear(*, settings_file: Path | None, data_dir: Path | None) -> None:
    """Give the mode back to the settings of each gate.

    \b
    Example:
      gatekeeper mode clear
    """
    settings = settings_from(settings_file, {"--data-dir": data_dir})
    now = time.time()

    async def put(records: Records) -> None:
        async with audited(records, "clearMode", "mode", at=now):
            await Controls(records.database).clear_mode(by=operator(), at=now)

    with_records(settings, put)
    click.echo("The settings of each gate hold; running ones follow within a second.")
