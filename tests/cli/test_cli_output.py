"""What commands print is text, whoever wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekeeper.cli.common import table

if TYPE_CHECKING:
    import pytest


def test_cells_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing in a cell or a title is markup, or moves a cursor, or turns the writing."""
    table("[red]of[/red]", ("what",), [("[bold]a[/bold] [/x]",), ("\x1b[31mb\u202ec",), ("d\ne",)])
    told = capsys.readouterr().out
    for words in ("[red]of[/red]", "[bold]a[/bold] [/x]", "\ufffd[31mb\ufffdc", "d", "e"):
        assert words in told
    assert "\x1b" not in told
    assert len(told.splitlines()) == 7
