"""``gatekeeper geoip``: show what is known of an address, fetch and build databases."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from rich.progress import Progress

from gatekeeper.cli.common import (
    FAILED,
    MISTAKES,
    console,
    json_option,
    settings_from,
    settings_option,
    table,
)
from gatekeeper.cli.feeds import accept_option, run_update
from gatekeeper.facts.address import parse_address
from gatekeeper.facts.geoip_build import BuildError, build
from gatekeeper.facts.network import NetworkData
from gatekeeper.settings import DATABASE_FORMAT

if TYPE_CHECKING:
    from gatekeeper.policy.model import NetworkFacts


@click.group()
def geoip() -> None:
    """Look at network data, fetch it, and build it.

    \b
    Example:
      gatekeeper geoip show 47.74.0.1
    """


@geoip.command()
@click.argument("address")
@json_option
@settings_option
def show(*, address: str, as_json: bool, settings_file: Path | None) -> None:
    """Show every fact about ADDRESS and which source said so.

    \b
    Example:
      gatekeeper geoip show 47.74.0.1
    """
    settings = settings_from(settings_file)
    parsed = parse_address(address)
    if parsed is None:
        click.echo(f"{address!r} is not an IPv4 or IPv6 address", err=True)
        raise SystemExit(MISTAKES)
    # Digests are of no use outside the gate: a throw-away key keeps them from being compared.
    data = NetworkData.load(settings.geoip, secret=os.urandom(32), now_unix_s=time.time())
    for problem in data.problems:
        click.echo(str(problem), err=True)
    facts = data.observe(parsed)
    if as_json:
        click.echo(json.dumps(_plain(facts)))
    else:
        _print(address, facts)
    if not data.sources:
        raise SystemExit(FAILED)


def _plain(facts: NetworkFacts) -> dict[str, object]:
    values = msgspec.structs.asdict(facts)
    values["lookups"] = msgspec.to_builtins(facts.lookups)
    del values["address_key"], values["prefix_key"]
    return values


def _print(address: str, facts: NetworkFacts) -> None:
    values = _plain(facts)
    lookups = values.pop("lookups")
    values["listed_by"] = ", ".join(facts.listed_by)
    table(address, ("fact", "value"), values.items())
    console().print()
    table(
        "Look-ups",
        ("view", "status", "source", "revision"),
        ((lookup.view, lookup.status, lookup.source, lookup.revision) for lookup in facts.lookups)
        if lookups
        else (),
    )


@geoip.command()
@click.argument("ids", nargs=-1)
@accept_option
@json_option
@settings_option
def update(
    *, ids: tuple[str, ...], accept_size: tuple[str, ...], as_json: bool, settings_file: Path | None
) -> None:
    """Fetch the databases of `geoip.feeds`, or only those with these IDS.

    A database that is damaged, older than the last good one, of another type, or of an unlikely
    size is refused, and the last good one stays. Exits with 1 when any was not fetched or was
    refused.

    \b
    Example:
      gatekeeper geoip update geolite-city
    """
    settings = settings_from(settings_file)
    feeds = [each for each in settings.geoip.feeds if each.format == DATABASE_FORMAT]
    run_update(settings, feeds, ids, accept_size, as_json=as_json)


@geoip.command(name="build")
@click.argument("source_dir", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("geoip"),
    show_default=True,
    help="Directory of the databases.",
)
def build_command(*, source_dir: Path, out: Path) -> None:
    """Build the databases in SOURCE_DIR's format into --out; docs/geoip.md says from what.

    \b
    Example:
      gatekeeper geoip build ./packages --out geoip
    """
    with Progress(console=console()) as progress:
        tasks: dict[str, object] = {}

        def report(name: str, rows: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=None)
            progress.update(tasks[name], completed=rows)  # type: ignore[arg-type]

        try:
            built = build(source_dir, out, report)
        except BuildError as error:
            click.echo(str(error), err=True)
            raise SystemExit(MISTAKES) from error
    table("Built", ("file", "bytes", "rows"), ((f.name, f.bytes, f.rows) for f in built))
