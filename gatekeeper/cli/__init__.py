"""The commands. Exit codes: 0 done, 1 not as wanted (a failing case, nothing found), 2 mistakes."""

from __future__ import annotations

import click

from gatekeeper import __version__
from gatekeeper.cli.accounts import accounts
from gatekeeper.cli.admin_keys import admin_keys
from gatekeeper.cli.cases import cases
from gatekeeper.cli.check import check
from gatekeeper.cli.demo import demo
from gatekeeper.cli.explain import explain
from gatekeeper.cli.feeds import lists
from gatekeeper.cli.geoip import geoip
from gatekeeper.cli.keys import keys
from gatekeeper.cli.mode import mode
from gatekeeper.cli.organizations import organizations
from gatekeeper.cli.rules import rules
from gatekeeper.cli.sandbox import sandbox_vendor
from gatekeeper.cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="gatekeeper")
def main() -> None:
    """Stand in front of model endpoints: identify, locate, score, limit, decide, explain.

    \b
    Example:
      gatekeeper serve --demo
      gatekeeper check
      gatekeeper explain --set network.country=CU
    """


for _command in (
    serve,
    check,
    explain,
    geoip,
    lists,
    keys,
    accounts,
    organizations,
    cases,
    rules,
    mode,
    admin_keys,
    sandbox_vendor,
    demo,
):
    main.add_command(_command)
