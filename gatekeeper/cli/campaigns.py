"""``gatekeeper campaigns``: find campaigns, look at one, and report it to others."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gatekeeper.cli.common import (
    FAILED,
    MISTAKES,
    audited,
    data_dir_option,
    day,
    json_option,
    settings_from,
    settings_option,
    table,
    with_records,
)
from gatekeeper.policy.campaigns import CampaignState
from gatekeeper.reports import content
from gatekeeper.reports.content import Include, ReportOptions, Tlp, printable
from gatekeeper.reports.html import html_report
from gatekeeper.storage.campaigns import CampaignBook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.policy.campaigns import Campaign
    from gatekeeper.settings import Settings
    from gatekeeper.storage.campaigns import CampaignRow
    from gatekeeper.storage.records import Records

NEEDED: Final = "A STIX bundle needs another package: pip install 'gatekeeper[stix]'."
_PAGE: Final = 500
_MOST_EVENTS: Final = 12
_MOST_BY: Final = 200


@click.group()
def campaigns() -> None:
    """Find what the watcher found, and report it to others.

    Judge campaigns by the management API: confirm, dismiss, merge, release.

    \b
    Example:
      gatekeeper campaigns list --state proposed
      gatekeeper campaigns report cmp_0123456789ab --by "Example Inc" --out reports
    """


@campaigns.command(name="list")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in CampaignState]),
    help="Only those; several times for several.",
)
@json_option
@settings_option
@data_dir_option
def list_campaigns(
    *, states: tuple[str, ...], as_json: bool, settings_file: Path | None, data_dir: Path | None
) -> None:
    """List campaigns, those with the highest score first.

    \b
    Example:
      gatekeeper campaigns list --state proposed --state confirmed
    """
    wanted = tuple(CampaignState(each) for each in states)

    async def every(records: Records) -> list[CampaignRow]:
        book = CampaignBook(records.database)
        found: list[CampaignRow] = []
        while page := await book.page(
            states=wanted, after=found[-1].id if found else "", limit=_PAGE
        ):
            found.extend(page)
        return found

    rows = with_records(settings_from(settings_file, {"--data-dir": data_dir}), every)
    rows.sort(key=lambda row: (-row.score, row.id))
    if as_json:
        for row in rows:
            click.echo(json.dumps(asdict(row)))
        return
    table(
        "Campaigns",
        ("id", "state", "stage", "score", "members", "since", "last seen"),
        (
            (
                row.id,
                row.state,
                row.stage,
                f"{row.score:.0f}",
                row.members,
                day(row.since),
                day(row.last_seen),
            )
            for row in rows
        ),
    )


@campaigns.command()
@click.argument("campaign_id", metavar="ID")
@json_option
@settings_option
@data_dir_option
def show(
    *, campaign_id: str, as_json: bool, settings_file: Path | None, data_dir: Path | None
) -> None:
    """Show why a campaign is one, and what was done about it.

    As JSON with the whole history and the ids of its members.

    \b
    Example:
      gatekeeper campaigns show cmp_0123456789ab
    """
    found = _one(settings_from(settings_file, {"--data-dir": data_dir}), campaign_id)
    if as_json:
        click.echo(json.dumps(_whole(found)))
        return
    group = found.group
    table(
        found.id,
        ("what", "value"),
        (
            ("state", f"{found.state}: {content.STATES[found.state]}"),
            ("stage", f"{found.stage} since {day(found.staged_at)}"),
            *((("goes on in", found.into),) if found.into else ()),
            ("score", f"{group.score:.0f} of 100, q value {group.q_value:.2g}"),
            ("layers", ", ".join(dict.fromkeys(group.layers))),
            ("since", day(found.since)),
            ("seen", f"{day(group.first_seen)} to {day(group.last_seen)}"),
            (
                "accounts",
                f"{len(found.contained):,} contained, {len(found.left):,} left by proof",
            ),
            (
                "calls",
                f"{group.calls:,}, with {group.input_tokens:,} + {group.output_tokens:,} tokens",
            ),
        ),
    )
    click.echo(f"\n{content.summary(found)}\n")
    table(
        "Shared",
        ("kind", "layer", "different ones", "members with the most common"),
        ((row.kind, row.layer, row.traits, row.members) for row in content.shared_kinds(found)),
    )
    earlier = len(found.history) - _MOST_EVENTS
    click.echo()
    table(
        f"History, without {earlier} earlier events" if earlier > 0 else "History",
        ("when", "what", "detail", "by"),
        (
            (day(each.at), *map(printable, (each.what, each.detail, each.by)))
            for each in found.history[-_MOST_EVENTS:]
        ),
    )


def _included(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> frozenset[Include]:
    words = [word.strip() for each in value for word in each.split(",")]
    one = click.Choice([each.value for each in Include])
    return frozenset(Include(one.convert(word, parameter, context)) for word in words)


@campaigns.command()
@click.argument("campaign_id", metavar="ID")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory that ID.html and ID.stix.json are written to; by default this one.",
)
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the page to this file; the bundle only where --stix says.",
)
@click.option(
    "--stix",
    "bundle",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the bundle to this file; the page only where --html says.",
)
@click.option(
    "--include",
    multiple=True,
    callback=_included,
    metavar="[members,digests,people]",
    help="Tell ids of accounts, keyed digests of traits, or names and words of admins too.",
)
@click.option("--by", help="Whom the report is from.", metavar="NAME")
@click.option(
    "--tlp",
    type=click.Choice([each.value for each in Tlp]),
    default=Tlp.AMBER.value,
    show_default=True,
    help="To whom it may be passed on (Traffic Light Protocol).",
)
@click.option("--force", is_flag=True, help="Write over files that are there.")
@settings_option
@data_dir_option
def report(
    *,
    campaign_id: str,
    out: Path | None,
    page: Path | None,
    bundle: Path | None,
    include: frozenset[Include],
    by: str | None,
    tlp: str,
    force: bool,
    settings_file: Path | None,
    data_dir: Path | None,
) -> None:
    """Write a campaign as an HTML page and as a STIX 2.1 bundle, to send to others.

    No text of prompts was kept, and nothing is told of people unless it is included. The audit
    trail keeps who included what.

    \b
    Example:
      gatekeeper campaigns report cmp_0123456789ab --by "Example Inc" --out reports
    """
    options = ReportOptions(
        made_at=time.time(),
        tlp=Tlp(tlp),
        include=include,
        **({} if by is None else {"by": _name(by)}),
    )
    page, bundle = _places(campaign_id, out, page, bundle)
    found = _one(settings_from(settings_file, {"--data-dir": data_dir}), campaign_id, options)
    texts = {} if page is None else {page: html_report(found, options)}
    with_stix = bundle is None or find_spec("stix2") is not None
    if bundle is not None and with_stix:
        from gatekeeper.reports.stix import stix_report  # noqa: PLC0415 - loads the extra

        texts[bundle] = stix_report(found, options)
    try:
        _write(texts, force=force)
    except OSError as error:
        click.echo(f"{error.filename}: {error.strerror}", err=True)
        raise SystemExit(MISTAKES) from error
    if not with_stix:
        click.echo(NEEDED, err=True)
        raise SystemExit(FAILED)


def _places(
    name: str, out: Path | None, page: Path | None, bundle: Path | None
) -> tuple[Path | None, Path | None]:
    """Return where the page and the bundle go; ``None`` for one that is not asked for."""
    if page is None and bundle is None:
        folder = out or Path()
        return folder / f"{name}.html", folder / f"{name}.stix.json"
    if out is not None:
        raise click.UsageError("--out is where both go: leave it out, or --html and --stix")
    if page == bundle:
        raise click.UsageError("--html and --stix name the same file")
    return page, bundle


def _write(texts: Mapping[Path, str], *, force: bool) -> None:
    """Write all files, or none where one is there already; nobody else can read them."""
    there = [path for path in texts if os.path.lexists(path)]
    if there and not force:
        for path in there:
            click.echo(f"{path} is there already: use --force, or another place.", err=True)
        raise SystemExit(MISTAKES)
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if force:
            path.unlink(missing_ok=True)
        with open(path, "x", encoding="utf-8", opener=_private) as file:
            file.write(text)
        click.echo(str(path))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _one(settings: Settings, campaign_id: str, options: ReportOptions | None = None) -> Campaign:
    """Return a campaign, or give up; what a report tells of people is noted in the audit trail."""

    async def read(records: Records) -> Campaign | None:
        found = await CampaignBook(records.database).get(campaign_id)
        if found is None:
            return None
        if options is not None and options.include:
            at = options.made_at
            async with audited(records, "reportCampaign", "campaign", at=at) as trace:
                trace.of(campaign_id, include=sorted(options.include), tlp=options.tlp)
        return found[0]

    found = with_records(settings, read)
    if found is None:
        click.echo("there is no such campaign: `gatekeeper campaigns list` lists them", err=True)
        raise SystemExit(FAILED)
    return found


def _whole(campaign: Campaign) -> dict[str, Any]:
    group = campaign.group
    return {
        "id": campaign.id,
        "state": campaign.state,
        "stage": campaign.stage,
        "into": campaign.into,
        "score": group.score,
        "q_value": group.q_value,
        "since": campaign.since,
        "staged_at": campaign.staged_at,
        "first_seen": group.first_seen,
        "last_seen": group.last_seen,
        "why": content.summary(campaign),
        "layers": list(dict.fromkeys(group.layers)),
        "shared": [asdict(row) for row in content.shared_kinds(campaign)],
        "calls": group.calls,
        "input_tokens": group.input_tokens,
        "output_tokens": group.output_tokens,
        "capabilities": group.capabilities,
        "networks": group.networks,
        "models": group.models,
        "measures": group.measures,
        "members": sorted(campaign.contained),
        "left": len(campaign.left),
        "history": [
            {"at": each.at, "what": each.what, "detail": each.detail, "by": each.by}
            for each in campaign.history
        ],
    }


def _name(text: str) -> str:
    if not text.isprintable() or not text.strip() or len(text) > _MOST_BY:
        raise click.BadParameter(f"--by takes at most {_MOST_BY} printable characters")
    return text
