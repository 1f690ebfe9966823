"""``gatekeeper accounts``: import, list and set accounts."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gatekeeper.cli.common import (
    FAILED,
    MISTAKES,
    audited,
    data_dir_option,
    day,
    give_up,
    json_option,
    settings_from,
    settings_option,
    table,
    with_records,
)
from gatekeeper.storage.account_files import AccountFormat, parse_account, parse_accounts
from gatekeeper.storage.audit import changes

if TYPE_CHECKING:
    from gatekeeper.storage.records import Records
    from gatekeeper.storage.records_schema import AccountRow, ImportCount


@click.group()
def accounts() -> None:
    """Import, list and set what is known of accounts; a running gate follows within a second.

    \b
    Example:
      gatekeeper accounts set acme tier=trusted
      gatekeeper accounts list
    """


@accounts.command(name="import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@settings_option
@data_dir_option
def import_(*, file: Path, settings_file: Path | None, data_dir: Path | None) -> None:
    """Create or update accounts from FILE (JSON lines or CSV): all of them, or none.

    \b
    Fields: id, organization, tier, assurance, assurance_expires, created_at, email_domain,
    email_pattern, email_digest, payment_fingerprint, signup_address, banned_until, ban_reason,
    owners, owner_countries. Example:
      gatekeeper accounts import accounts.csv
    """
    settings = settings_from(settings_file, {"--data-dir": data_dir})
    kind = AccountFormat.CSV if file.suffix.lower() == ".csv" else AccountFormat.JSON_LINES
    patches = parse_accounts(file.read_bytes(), file=str(file), kind=kind)
    if isinstance(patches, list):
        give_up(patches)
    now = time.time()

    async def put(records: Records) -> ImportCount:
        async with audited(records, "importAccounts", "accounts", at=now) as trace:
            done = await records.import_accounts(patches, at=now)
            trace.of("", created=done.created, updated=done.updated)
            return done

    done = with_records(settings, put)
    click.echo(f"{done.created} created, {done.updated} updated")


@accounts.command(name="list")
@json_option
@settings_option
@data_dir_option
def list_accounts(*, as_json: bool, settings_file: Path | None, data_dir: Path | None) -> None:
    """List accounts.

    \b
    Example:
      gatekeeper accounts list --json | jq -r 'select(.tier == "restricted") | .id'
    """
    settings = settings_from(settings_file, {"--data-dir": data_dir})

    async def every(records: Records) -> list[AccountRow]:
        found: list[AccountRow] = []
        while page := await records.accounts(after=found[-1].id if found else "", limit=1_000):
            found.extend(page)
        return found

    rows = with_records(settings, every)
    if as_json:
        for row in rows:
            click.echo(json.dumps(_plain(row)))
        return
    table(
        "Accounts",
        ("id", "organization", "tier", "assurance", "created", "banned until"),
        (
            (
                row.id,
                row.organization,
                row.tier,
                row.assurance,
                day(row.created_at),
                day(row.banned_until),
            )
            for row in rows
        ),
    )


@accounts.command(name="set")
@click.argument("account")
@click.argument("assignments", nargs=-1, required=True, metavar="FIELD=VALUE...")
@settings_option
@data_dir_option
def set_(
    *, account: str, assignments: tuple[str, ...], settings_file: Path | None, data_dir: Path | None
) -> None:
    """Set fields of ACCOUNT; it is created if missing. An empty value clears the field.

    \b
    Example:
      gatekeeper accounts set acme tier=trusted assurance=ial1
      gatekeeper accounts set mallory banned_until=forever ban_reason="stolen cards"
    """
    record: dict[str, object] = {"id": account}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise click.BadParameter(f"{assignment!r} is not FIELD=VALUE")
        record[name] = _value(name, value)
    patch = parse_account(record)
    if isinstance(patch, list):
        for name, problem in patch:
            click.echo(f"command line: {name}: {problem}", err=True)
        raise SystemExit(MISTAKES)
    settings = settings_from(settings_file, {"--data-dir": data_dir})
    now = time.time()

    async def put(records: Records) -> AccountRow:
        async with audited(records, "putAccount", "account", at=now) as trace:
            before = await records.account(account)
            row = await records.upsert_account(patch, at=now)
            old, new = ({} if each is None else _plain(each) for each in (before, row))
            named = {name: new[name] for name in sorted(patch.fields)}
            trace.of(account, changed=changes(old, named))
            return row

    row = with_records(settings, put)
    click.echo(json.dumps(_plain(row)))


@accounts.command()
@click.argument("account")
@settings_option
@data_dir_option
def show(*, account: str, settings_file: Path | None, data_dir: Path | None) -> None:
    """Show one account as JSON.

    \b
    Example:
      gatekeeper accounts show acme
    """
    settings = settings_from(settings_file, {"--data-dir": data_dir})
    row = with_records(settings, lambda records: records.account(account))
    if row is None:
        click.echo(f"there is no account {account}", err=True)
        raise SystemExit(FAILED)
    click.echo(json.dumps(_plain(row)))


def _value(name: str, text: str) -> object:
    if name in {"owners", "owner_countries"}:
        return [item for item in text.split(",") if item]
    return text or None


def _plain(row: AccountRow) -> dict[str, object]:
    values = asdict(row)
    if row.banned_until is not None and math.isinf(row.banned_until):
        values["banned_until"] = "forever"
    return values
