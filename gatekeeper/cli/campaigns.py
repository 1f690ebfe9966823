"""``gatekeeper campaigns``: find campaigns, look at one, and report it to others."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gatekeeper.cli.common import (
    FAILED,
    MISTAKES,
    data_dir_option,
    day,
    json_option,
    settings_from,
    settings_option,
    table,
    with_records,
)
from gatekeeper.policy.campaigns import CampaignState
from gatekeeper.reports.page import page_of
from gatekeeper.reports.told import Choice, why
from gatekeeper.storage.campaigns import CampaignBook

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gatekeeper.policy.campaigns import Campaign
    from gatekeeper.settings import Settings
    from gatekeeper.storage.records import Records

_STIX: Final = "A STIX bundle needs another package: pip install 'gatekeeper[stix]'."


@click.group()
def campaigns() -> None:
    """Find campaigns that the watcher found, and report them to others.

    Judge them by the management API: confirm, dismiss, merge, release.

    \b
    Example:
      gatekeeper campaigns list
      gatekeeper campaigns report cmp_0123456789ab --by "Example Inc" --out reports
    """


@campaigns.command(name="list")
@click.option("--state", type=click.Choice([state.value for state in CampaignState]))
@json_option
@settings_option
@data_dir_option
def list_campaigns(
    *, state: str | None, as_json: bool, settings_file: Path | None, data_dir: Path | None
) -> None:
    """List campaigns, the surest first.

    \b
    Example:
      gatekeeper campaigns list --state proposed
    """
    found = _every(settings_from(settings_file, {"--data-dir": data_dir}))
    rows = [each for each in found if state is None or each.state.value == state]
    if as_json:
        for each in rows:
            click.echo(json.dumps(_summary(each)))
        return
    table(
        "Campaigns",
        ("id", "state", "stage", "score", "members", "layers", "since", "last seen"),
        (
            (
                each.id,
                each.state.value,
                each.stage.value,
                f"{each.group.score:.0f}",
                len(each.contained),
                ", ".join(map(str, each.group.layers)),
                day(each.since),
                day(each.group.last_seen),
            )
            for each in rows
        ),
    )
    click.echo(f"{len(rows)} campaigns")


@campaigns.command()
@click.argument("campaign_id", metavar="ID")
@json_option
@settings_option
@data_dir_option
def show(
    *, campaign_id: str, as_json: bool, settings_file: Path | None, data_dir: Path | None
) -> None:
    """Show why a campaign is one, and what was done about it.

    \b
    Example:
      gatekeeper campaigns show cmp_0123456789ab
    """
    found = _one(settings_from(settings_file, {"--data-dir": data_dir}), campaign_id)
    if as_json:
        click.echo(json.dumps(_summary(found) | {"members": sorted(found.contained)}))
        return
    click.echo(why(found))
    group = found.group
    table(
        found.id,
        ("what", "value"),
        [
            ("state", found.state.value),
            ("stage", f"{found.stage.value}, since {day(found.staged_at)}"),
            ("score", f"{group.score:.0f} of 100, q value {group.q_value:.2g}"),
            ("layers", ", ".join(map(str, group.layers))),
            ("seen", f"{day(group.first_seen)} to {day(group.last_seen)}"),
            ("calls", f"{group.calls}, {group.input_tokens} + {group.output_tokens} tokens"),
            ("left by proof", len(found.left)),
        ],
    )
    table(
        "History",
        ("when", "what", "detail", "by"),
        [(day(each.at), each.what, each.detail, each.by) for each in found.history],
    )


@campaigns.command()
@click.argument("campaign_id", metavar="ID")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Directory that ID.html and ID.stix.json are written to.",
)
@click.option(
    "--include",
    multiple=True,
    type=click.Choice(["members", "digests", "people"]),
    help="Tell ids of accounts, keyed digests of traits, or names of admins too.",
)
@click.option("--by", default="gatekeeper operator", show_default=True, help="Who sends it.")
@click.option(
    "--tlp",
    type=click.Choice(["clear", "green", "amber", "red"]),
    default="amber",
    show_default=True,
    help="How far it may go (Traffic Light Protocol).",
)
@click.option("--force", is_flag=True, help="Write over files that are there.")
@settings_option
@data_dir_option
def report(
    *,
    campaign_id: str,
    out: Path,
    include: tuple[str, ...],
    by: str,
    tlp: str,
    force: bool,
    settings_file: Path | None,
    data_dir: Path | None,
) -> None:
    """Write a campaign as an HTML page and as a STIX 2.1 bundle, to send to others.

    No prompt was kept, and nothing personal is told unless it is included.

    \b
    Example:
      gatekeeper campaigns report cmp_0123456789ab --by "Example Inc" --out reports
    """
    found = _one(settings_from(settings_file, {"--data-dir": data_dir}), campaign_id)
    choice, at = Choice(**dict.fromkeys(include, True)), time.time()
    written = {f"{found.id}.html": page_of(found, choice, at=at, by=by)}
    if find_spec("stix2") is None:
        click.echo(_STIX, err=True)
    else:
        from gatekeeper.reports.stix import bundle_of  # noqa: PLC0415 - of the extra

        written[f"{found.id}.stix.json"] = bundle_of(found, choice, at=at, by=by, tlp=tlp)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in written.items():
            with (out / name).open("w" if force else "x", encoding="utf-8") as file:
                file.write(text)
            click.echo(str(out / name))
    except FileExistsError as error:
        click.echo(f"{error.filename} is there already: use --force, or another --out.", err=True)
        raise SystemExit(MISTAKES) from error
    except OSError as error:
        click.echo(f"{error.filename}: {error.strerror}", err=True)
        raise SystemExit(MISTAKES) from error


def _every(settings: Settings) -> list[Campaign]:
    async def read(records: Records) -> Iterable[Campaign]:
        return (await CampaignBook(records.database).all()).campaigns

    found = with_records(settings, read)
    return sorted(found, key=lambda each: (-each.group.score, each.id))


def _one(settings: Settings, campaign_id: str) -> Campaign:
    for each in _every(settings):
        if each.id == campaign_id:
            return each
    click.echo("There is no such campaign: `gatekeeper campaigns list` lists them.", err=True)
    raise SystemExit(FAILED)


def _summary(campaign: Campaign) -> dict[str, Any]:
    group = campaign.group
    return {
        "id": campaign.id,
        "state": campaign.state.value,
        "stage": campaign.stage.value,
        "score": group.score,
        "q_value": group.q_value,
        "members": len(campaign.contained),
        "left": len(campaign.left),
        "layers": [str(layer) for layer in group.layers],
        "first_seen": group.first_seen,
        "last_seen": group.last_seen,
        "since": campaign.since,
        "staged_at": campaign.staged_at,
        "calls": group.calls,
        "input_tokens": group.input_tokens,
        "output_tokens": group.output_tokens,
        "why": why(campaign),
    }
