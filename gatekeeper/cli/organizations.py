"""``gatekeeper organizations``: set, list and show organizations and their egress ranges."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from gatekeeper.cli.common import (
    FAILED,
    MISTAKES,
    audited,
    data_dir_option,
    json_option,
    settings_from,
    settings_option,
    table,
    with_records,
)
from gatekeeper.facts.organizations import parse_organization
from gatekeeper.storage.organizations import (
    EgressOverlap,
    OrganizationConflict,
    OrganizationRow,
    Organizations,
)

if TYPE_CHECKING:
    from pathlib import Path

    from gatekeeper.storage.records import Records

_TRUTH: Final[dict[str, object]] = {"yes": True, "true": True, "no": False, "false": False}


@click.group()
def organizations() -> None:
    """Set, list and show organizations and the networks that they call from.

    \b
    Example:
      gatekeeper organizations set acme egress=8.8.8.0/24,2001:4860::/32
      gatekeeper organizations list
    """


@organizations.command(name="set")
@click.argument("organization")
@click.argument("assignments", nargs=-1, required=True, metavar="FIELD=VALUE...")
@settings_option
@data_dir_option
def set_(
    *,
    organization: str,
    assignments: tuple[str, ...],
    settings_file: Path | None,
    data_dir: Path | None,
) -> None:
    """Set fields of ORGANIZATION, as accounts name it; it is created if missing.

    \b
    Fields: name, verified (yes or no), egress (prefixes with commas; empty: none). Example:
      gatekeeper organizations set acme name="Acme AG" verified=yes
      gatekeeper organizations set acme egress=
    """
    record: dict[str, object] = {"id": organization}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise click.BadParameter(f"{assignment!r} is not FIELD=VALUE")
        record[name] = _value(name, value)
    patch = parse_organization(record)
    if isinstance(patch, list):
        for name, problem in patch:
            click.echo(f"command line: {name}: {problem}", err=True)
        raise SystemExit(MISTAKES)
    settings = settings_from(settings_file, {"--data-dir": data_dir})
    now = time.time()

    async def put(records: Records) -> OrganizationRow | OrganizationConflict | EgressOverlap:
        async with audited(records, "putOrganization", "organization", at=now) as trace:
            done = await Organizations(records.database).put(patch, at=now)
            if isinstance(done, OrganizationRow):
                trace.of(
                    organization, set={name: _plain(patch.fields[name]) for name in patch.fields}
                )
            else:
                trace.of(organization, result=type(done).__name__)
            return done

    row = with_records(settings, put)
    if isinstance(row, EgressOverlap):
        click.echo(
            f"{row.prefix} overlaps {row.registered}, which {row.organization} has registered",
            err=True,
        )
        raise SystemExit(MISTAKES)
    if isinstance(row, OrganizationRow):
        click.echo(json.dumps(asdict(row)))


@organizations.command(name="list")
@json_option
@settings_option
@data_dir_option
def list_organizations(*, as_json: bool, settings_file: Path | None, data_dir: Path | None) -> None:
    """List organizations.

    \b
    Example:
      gatekeeper organizations list --json | jq -r 'select(.egress == []) | .id'
    """
    settings = settings_from(settings_file, {"--data-dir": data_dir})

    async def every(records: Records) -> list[OrganizationRow]:
        found: list[OrganizationRow] = []
        pages = Organizations(records.database)
        while page := await pages.page(after=found[-1].id if found else "", limit=1_000):
            found.extend(page)
        return found

    rows = with_records(settings, every)
    if as_json:
        for row in rows:
            click.echo(json.dumps(asdict(row)))
        return
    table(
        "Organizations",
        ("id", "name", "verified", "egress"),
        ((row.id, row.name, "yes" if row.verified else "", " ".join(row.egress)) for row in rows),
    )


@organizations.command()
@click.argument("organization")
@settings_option
@data_dir_option
def show(*, organization: str, settings_file: Path | None, data_dir: Path | None) -> None:
    """Show one organization as JSON.

    \b
    Example:
      gatekeeper organizations show acme
    """
    settings = settings_from(settings_file, {"--data-dir": data_dir})
    row = with_records(settings, lambda records: Organizations(records.database).get(organization))
    if row is None:
        click.echo(f"there is no organization {organization}", err=True)
        raise SystemExit(FAILED)
    click.echo(json.dumps(asdict(row)))


def _value(name: str, text: str) -> object:
    if name == "egress":
        return [item.strip() for item in text.split(",") if item.strip()]
    return _TRUTH.get(text.lower(), text) if name == "verified" else text


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
