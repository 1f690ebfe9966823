"""``gatekeeper keys``: create, revoke and list API keys."""

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
from gatekeeper.facts.api_keys import MintedKey, issue_key
from gatekeeper.storage.records_schema import Revocation
from gatekeeper.storage.secrets import derive

if TYPE_CHECKING:
    from pathlib import Path

    from gatekeeper.storage.records import Records
    from gatekeeper.storage.records_schema import KeyRow


@click.group()
def keys() -> None:
    """Create, revoke and list Gatekeeper's own API keys.

    \b
    Example:
      gatekeeper keys create acme
      gatekeeper keys list
    """


@keys.command()
@click.argument("account")
@click.option("--label", default="", help="What the key is for, for people.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="Expire after days.")
@json_option
@settings_option
@data_dir_option
def create(
    *,
    account: str,
    label: str,
    days: float | None,
    as_json: bool,
    settings_file: Path | None,
    data_dir: Path | None,
) -> None:
    """Create a key for ACCOUNT and show it, this once.

    \b
    Example:
      gatekeeper keys create acme-production --label "CI runner" --days 90
    """
    settings = settings_from(settings_file, {"--data-dir": data_dir})
    subkey = derive(secret_of(settings), "credentials")
    now = time.time()

    async def make(records: Records) -> MintedKey:
        async with audited(records, "createKey", "account", at=now) as trace:
            minted = await issue_key(
                records,
                subkey=subkey,
                account_id=account,
                label=label,
                at=now,
                expires_at=None if days is None else now + days * 86_400,
                random_bytes=os.urandom,
            )
            trace.of(account, key_id=minted.row.key_id)
            return minted

    try:
        minted = with_records(settings, make)
    except ValueError as error:
        click.echo(f"{error}", err=True)
        raise SystemExit(MISTAKES) from error
    if as_json:
        click.echo(
            json.dumps({"key": minted.text, "key_id": minted.row.key_id, "account": account})
        )
        return
    click.echo(minted.text)
    note = "new account " if minted.account_created else "account "
    click.echo(f"{note}{account}: keep the key now, it is not shown again.", err=True)


@keys.command()
@click.argument("key_id")
@settings_option
@data_dir_option
def revoke(*, key_id: str, settings_file: Path | None, data_dir: Path | None) -> None:
    """Revoke the key named KEY_ID; a running gate refuses it within a second.

    \b
    Example:
      gatekeeper keys revoke gk_7f3a9c2e
    """
    settings = settings_from(settings_file, {"--data-dir": data_dir})
    now = time.time()

    async def end(records: Records) -> Revocation:
        async with audited(records, "revokeKey", "key", at=now) as trace:
            done = await records.revoke_key(key_id, at=now)
            trace.of(key_id[:32], result=done.value)
            return done

    done = with_records(settings, end)
    click.echo(f"{key_id}: {done.value.replace('_', ' ')}")
    if done is Revocation.UNKNOWN_KEY:
        raise SystemExit(FAILED)


@keys.command(name="list")
@click.option("--account", help="Only keys of this account.")
@json_option
@settings_option
@data_dir_option
def list_keys(
    *, account: str | None, as_json: bool, settings_file: Path | None, data_dir: Path | None
) -> None:
    """List keys by their readable id; the keys themselves are not kept.

    \b
    Example:
      gatekeeper keys list --account acme-production
    """
    settings = settings_from(settings_file, {"--data-dir": data_dir})

    async def every(records: Records) -> list[KeyRow]:
        found: list[KeyRow] = []
        while page := await records.keys(
            account_id=account, after=found[-1].key_id if found else ""
        ):
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
        "API keys",
        ("key", "account", "label", "created", "expires", "revoked"),
        (
            (
                row.key_id,
                row.account_id,
                row.label,
                day(row.created_at),
                day(row.expires_at),
                day(row.revoked_at),
            )
            for row in rows
        ),
    )
