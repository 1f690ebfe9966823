"""``gatekeeper sandbox-vendor``: a vendor of identity checks that checks nothing."""

from __future__ import annotations

import click
from aiohttp import web

from gatekeeper.sandbox_vendor import Sandbox, SandboxSettings


@click.command(name="sandbox-vendor")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8070,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="Port to listen on.",
)
@click.option("--public-url", help="How browsers reach it; by default host and port.")
@click.option("--webhook-url", default="", help="Where results are told: the gate's webhook path.")
@click.option(
    "--api-key",
    required=True,
    envvar="SANDBOX_API_KEY",
    help="Key that the gate shows; better given as SANDBOX_API_KEY.",
)
@click.option(
    "--webhook-secret",
    "webhook_secrets",
    required=True,
    multiple=True,
    envvar="SANDBOX_WEBHOOK_SECRET",
    help="Signs webhooks; several while it is changed. Better given as SANDBOX_WEBHOOK_SECRET.",
)
def sandbox_vendor(
    *,
    host: str,
    port: int,
    public_url: str | None,
    webhook_url: str,
    api_key: str,
    webhook_secrets: tuple[str, ...],
) -> None:
    """Run a stand-in for a vendor of identity checks, to try step-up; never for production.

    \b
    Example:
      gatekeeper sandbox-vendor --webhook-url http://127.0.0.1:8080/gatekeeper/v1/webhooks/sandbox
    """
    shown = f"[{host}]" if ":" in host else host
    settings = SandboxSettings(
        api_key, webhook_secrets, webhook_url, (public_url or f"http://{shown}:{port}").rstrip("/")
    )
    click.echo("Sandbox vendor: no identity is checked; whoever opens a page chooses the result.")
    web.run_app(Sandbox(settings).app(), host=host, port=port, access_log=None, print=click.echo)
