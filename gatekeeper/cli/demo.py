"""``gatekeeper demo``: a model endpoint without a model."""

from __future__ import annotations

import click
from aiohttp import web

from gatekeeper.demo import DemoSettings, build_demo_app


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8081,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 picks a free one.",
)
@click.option("--first-token-s", default=0.2, show_default=True, help="Pause before an answer.")
@click.option("--token-s", default=0.02, show_default=True, help="Pause before each token.")
def demo(host: str, port: int, first_token_s: float, token_s: float) -> None:
    """Serve a model endpoint without a model, for trying out what stands in front of it.

    \b
    Example:
      gatekeeper demo
      gatekeeper demo --host 0.0.0.0 --port 8081 --token-s 0
    """
    settings = DemoSettings(first_token_s=first_token_s, token_s=token_s)
    web.run_app(build_demo_app(settings), host=host, port=port, handler_cancellation=True)
