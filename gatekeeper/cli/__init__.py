"""The commands. Exit codes: 0 done, 1 not as wanted (a failing case, nothing found), 2 mistakes."""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

from gatekeeper import __version__

_COMMANDS: Final = {
    "accounts": "accounts:accounts",
    "admin-keys": "admin_keys:admin_keys",
    "backtest": "backtest:backtest",
    "campaigns": "campaigns:campaigns",
    "cases": "cases:cases",
    "check": "check:check",
    "demo": "demo:demo",
    "explain": "explain:explain",
    "geoip": "geoip:geoip",
    "keys": "keys:keys",
    "lists": "feeds:lists",
    "mode": "mode:mode",
    "organizations": "organizations:organizations",
    "replay": "replay:replay",
    "rules": "rules:rules",
    "sandbox-vendor": "sandbox:sandbox_vendor",
    "serve": "serve:serve",
    "simulate": "simulate:simulate",
    "watch": "watch:watch",
}
"""Name of each command, and where it is."""


class _OnDemand(click.Group):
    """Imports a command when it is asked for: most need little of what serving needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click calls it
        """Return the names, in their order in the help."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return a command, or ``None`` when there is none of this name."""
        place = _COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        found: click.Command = getattr(import_module(f"gatekeeper.cli.{module}"), attribute)
        return found


@click.group(
    cls=_OnDemand,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="gatekeeper")
def main() -> None:
    """Stand in front of model endpoints: identify, locate, score, limit, decide, explain.

    \b
    Example:
      gatekeeper serve --demo
      gatekeeper check
      gatekeeper explain --set network.country=CU
    """
