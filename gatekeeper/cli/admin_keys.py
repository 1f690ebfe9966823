"""``gatekeeper admin-keys``: create, revoke and list the keys of the management API."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from gatekeeper.cli.common import (
    FAILED,
    MISTAKES,
    audited,
    data_dir_option,
    day,
    json_option,
    secret_of,
    settings_from,
    settings_option,
    table,
    with_records,
)
from gatekeeper.facts.admin_keys import MintedAdminKey, issue_admin_key
from gatekeeper.storage.admin_keys import AdminKeys, Role
from gatekeeper.storage.records_schema import Revocation
from gatekeeper.storage.secrets import derive

if TYPE_CHECKING:
    from pathlib import Path

    from gatekeeper.storage.admin_keys import AdminKeyRow
    from gatekeeper.storage.records import Records


@click.group(name="admin-keys")
def admin_keys() -> None:
    """Create, revoke and list the keys of the management API; without one it is closed.

    \b
    Example:
      gatekeeper admin-keys create alice --role admin
      gatekeeper admin-keys list
    """


@admin_keys.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    required=True,
    help="viewer reads, operator handles accounts and cases, admin changes rules and keys.",
)
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="Expire after days.")
@json_option
@settings_option
@data_dir_option
def create(
    *,
    name: str,
    role: str,
    days: float | None,
    as_json: bool,
    settings_file: Path | None,
    data_dir: Path | None,
) -> None:
    """Create an admin key for NAME, a person or a program, and show it, this once.

    \b
    Example:
      gatekeeper admin-keys create alice --role admin --days 365
    """
    settings = settings_from(settings_file, {"--data-dir": data_dir})
    subkey = derive(secret_of(settings), "admin-keys")
    now = time.time()

    async def make(records: Records) -> MintedAdminKey:
        async with audited(records, "createAdminKey", "admin_key", at=now) as trace:
            minted = await issue_admin_key(
                AdminKeys(records.database),
                subkey=subkey,
                name=name,
                role=Role(role),
                at=now,
                expires_at=None if days is None else now + days * 86_400,
                random_bytes=os.urandom,
            )
            trace.of(minted.row.key_id, name=name, role=role)
            return minted

    try:
        minted = with_records(settings, make)
    except ValueError as error:
        click.echo(f"{error}", err=True)
        raise SystemExit(MISTAKES) from error
    if as_json:
        told = {"key": minted.text, "key_id": minted.row.key_id, "name": name, "role": role}
        click.echo(json.dumps(told))
        return
    click.echo(minted.text)
    click.echo(f"{role} {name}: keep the key now, it is not shown again.", err=True)


@admin_keys.command()
@click.argument("key_id")
@settings_option
@data_dir_option
def revoke(*, key_id: str, settings_file: Path | None, data_dir: Path | None) -> None:
    """Revoke the admin key named KEY_ID; running gates refuse it at once.

    \b
    Example:
      gatekeeper admin-keys revoke gka_7f3a9c2e
    """
    settings = settings_from(settings_file, {"--data-dir": data_dir})
    now = time.time()

    async def end(records: Records) -> Revocation:
        async with audited(records, "revokeAdminKey", "admin_key", at=now) as trace:
            done = await AdminKeys(records.database).revoke(key_id, at=now)
            trace.of(key_id[:32], result=done.value)
            return done

    done = with_records(settings, end)
    click.echo(f"{key_id}: {done.value.replace('_', ' ')}")
    if done is Revocation.UNKNOWN_KEY:
        raise SystemExit(FAILED)


@admin_keys.command(name="list")
@json_option
@settings_option
@data_dir_option
def list_keys(*, as_json: bool, settings_file: Path | None, data_dir: Path | None) -> None:
    """List admin keys by their readable id; the keys themselves are not kept.

    \b
    Example:
      gatekeeper admin-keys list
    """
    settings = settings_from(settings_file, {"--data-dir": data_dir})

    async def every(records: Records) -> list[AdminKeyRow]:
        keys = AdminKeys(records.database)
        found: list[AdminKeyRow] = []
        while page := await keys.page(after=found[-1].key_id if found else ""):
            found.extend(page)
        return found

    rows = with_records(settings, every)
    if as_json:
        for row in rows:
            shown = asdict(row)
            del shown["digest"]
            click.echo(json.dumps(shown))
        return
    table(
        "Admin keys",
        ("key", "name", "role", "created", "expires", "revoked"),
        (
            (
                row.key_id,
                row.name,
                row.role,
                day(row.created_at),
                day(row.expires_at),
                day(row.revoked_at),
            )
            for row in rows
        ),
    )
