"""Every command can be learned from itself and from docs/cli.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from gatekeeper import __version__
from gatekeeper.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


def commands(group: click.Group, above: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its whole name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{above}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{above}{name} ")


COMMANDS = dict(commands(main))
LEAVES = [name for name, command in COMMANDS.items() if not isinstance(command, click.Group)]


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_has_an_example(name: str) -> None:
    """`--help` says what the command does and shows a call of it."""
    result = CliRunner().invoke(main, [*name.split(), "--help"])
    assert result.exit_code == 0
    _, _, examples = result.stdout.partition("Example:")
    first = examples.strip().splitlines()[0]
    assert first.startswith(f"gatekeeper {name}".strip())


@pytest.mark.parametrize("name", LEAVES)
def test_docs_name_every_command_and_option(name: str) -> None:
    """Each command has a row in docs/cli.md, which names all of its options."""
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}`")]
    assert len(rows) == 1
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option) and parameter.name != "settings_file":
            assert f"`{parameter.opts[0]}`" in rows[0]


def test_docs_name_no_other_command() -> None:
    """A command that is gone does not live on in docs/cli.md."""
    rows = [line.split("`")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    assert set(rows) <= set(LEAVES)


def test_runs_as_a_module() -> None:
    """`python -m gatekeeper` is the same program."""
    command = [sys.executable, "-m", "gatekeeper", "--version"]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == f"gatekeeper, version {__version__}"
