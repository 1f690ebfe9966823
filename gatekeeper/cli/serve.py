"""``gatekeeper serve``: run the gate."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import uvloop

from gatekeeper.app import App
from gatekeeper.cli.common import MISTAKES, give_up, settings_from, settings_option
from gatekeeper.cli.running import Signals, run_until_asked
from gatekeeper.cli.tour import Tour
from gatekeeper.cli.watching import watch_beside
from gatekeeper.sources import StartError
from gatekeeper.storage.database import RecordsError
from gatekeeper.telemetry import configure_logging

if TYPE_CHECKING:
    from gatekeeper.settings import Settings


_KEYS: Final = {
    "api_key": "a key made by `gatekeeper keys create`",
    "jwt": "a bearer token",
    "opaque": "the endpoint's own key",
}


@click.command()
@click.option("--demo", is_flag=True, help="Front a built-in demo endpoint and print a tour.")
@click.option("--upstream", multiple=True, help="URL of a model endpoint; several are equal ones.")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on.")
@click.option("--ops-port", type=int, help="Port of probes and metrics.")
@click.option("--admin-port", type=int, help="Port of the management API.")
@click.option(
    "--mode",
    type=click.Choice(["enforce", "observe"]),
    help="observe decides and records, but refuses only embargo and bad credentials.",
)
@click.option("--rules-dir", type=click.Path(path_type=Path), help="Directory of rule files.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where the gate keeps its data.")
@click.option("--public-url", help="How callers reach this gate from outside.")
@click.option("--name", help="Name of this gate in Via; chained gates need different ones.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Least severity that is logged.",
)
@click.option("--log-format", type=click.Choice(["json", "console"]), help="Form of the log.")
@settings_option
def serve(*, demo: bool, settings_file: Path | None, **flags: object) -> None:
    """Run the gate until SIGTERM.

    \b
    Example:
      gatekeeper serve --demo
      gatekeeper serve --upstream http://127.0.0.1:8000 --port 8080
      gatekeeper serve --settings gatekeeper.yaml
    """
    given = {f"--{name.replace('_', '-')}": value for name, value in flags.items()}
    given["--upstream"] = given["--upstream"] or None
    tour = Tour() if demo else None
    if tour is not None:
        given["--upstream"] = (tour.endpoint_url,)
    settings = settings_from(settings_file, given, to_serve=True)
    if flags["upstream"]:
        settings = _with_own_keys(settings)
    configure_logging(settings.log)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_run(settings, tour))
        except StartError as error:
            give_up(error.mistakes)
        except RecordsError as error:
            click.echo(f"The records cannot be used: {error}", err=True)
            raise SystemExit(MISTAKES) from error


def _with_own_keys(settings: Settings) -> Settings:
    """Let callers of an endpoint named by flag use the keys they have, unless settings say."""
    first, *rest = settings.listeners
    if "credentials" in first.model_fields_set:
        return settings
    first = first.model_copy(update={"credentials": ("api_key", "opaque")})
    return settings.model_copy(update={"listeners": (first, *rest)})


async def _run(settings: Settings, tour: Tour | None) -> None:
    signals = Signals()
    if tour is not None:
        settings = tour.prepared(settings)
        await tour.start(settings)
    app = await App.start(settings, os.environ if tour is None else tour.environ())
    for listener, port in zip(settings.listeners, app.ports, strict=True):
        scheme = "http" if listener.tls is None else "https"
        keys = " or ".join(_KEYS[mode] for mode in listener.credentials)
        click.echo(f"Callers: {scheme}://{listener.host}:{port} with {keys}")
    click.echo(f"Probes and metrics: http://{settings.ops.host}:{app.ops_port}/metrics")
    if app.admin_port:
        scheme = "http" if settings.admin.tls is None else "https"
        at = f"{scheme}://{settings.admin.host}:{app.admin_port}/"
        click.echo(f"Management API: {at} with a key made by `gatekeeper admin-keys create`")
    for upstream in settings.upstreams:
        click.echo(f"Upstream {upstream.name}: {', '.join(upstream.urls)}")
    if tour is not None:
        tour.tell(app.ports[0])
    watching = asyncio.create_task(watch_beside(settings))
    await run_until_asked(app, signals)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    if tour is not None:
        await tour.stop()
