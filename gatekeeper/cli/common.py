"""What the commands share: settings, mistakes, records, output."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from gatekeeper.settings.load import FILE_VARIABLE, load_settings
from gatekeeper.sources import StartError, master_secret, records_url
from gatekeeper.storage.audit import AuditEntry, AuditTrail
from gatekeeper.storage.database import RecordsError
from gatekeeper.storage.records import Records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence

    from gatekeeper.policy.mistake import Mistake
    from gatekeeper.settings import Settings

FAILED: Final = 1
"""Exit code: the command ran, and the answer is not the wanted one."""
MISTAKES: Final = 2
"""Exit code: the input or the configuration is wrong."""

_NO_FOLD: Final = 10_000
"""Characters a line; tables are only as wide as they need to be."""

_Result = TypeVar("_Result")

settings_option = click.option(
    "--settings",
    "settings_file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar=FILE_VARIABLE,
    help=f"Settings file (YAML); {FILE_VARIABLE} names it too.",
)
data_dir_option = click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Where the gate keeps its data."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


def console() -> Console:
    """Return the console that results go to; piped, they have no colours and no line is folded."""
    piped = not sys.stdout.isatty()
    return Console(width=_NO_FOLD if piped else None, soft_wrap=piped, highlight=False)


def progress_bar(*more: str) -> Progress:
    """Return a bar on standard error, with columns of text; piped, there is none."""
    shown = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *map(TextColumn, more),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=shown,
        disable=not shown.is_terminal,
    )


def give_up(mistakes: Iterable[Mistake]) -> NoReturn:
    """Print every mistake on standard error and exit with 2."""
    for mistake in mistakes:
        click.echo(str(mistake), err=True)
    raise SystemExit(MISTAKES)


def settings_from(
    settings_file: Path | None, flags: Mapping[str, object] | None = None, *, to_serve: bool = False
) -> Settings:
    """Load settings from file, environment and flags, or give up with all mistakes."""
    found = load_settings(settings_file, os.environ, flags or {}, to_serve=to_serve)
    if isinstance(found, list):
        give_up(found)
    return found


def secret_of(settings: Settings) -> bytes:
    """Return the gate's master secret, or give up."""
    try:
        return master_secret(settings, os.environ)
    except StartError as error:
        give_up(error.mistakes)


def with_records(settings: Settings, work: Callable[[Records], Awaitable[_Result]]) -> _Result:
    """Run ``work`` on the open records, or give up when they cannot be used."""

    async def run() -> _Result:
        records = await Records.open(records_url(settings))
        try:
            return await work(records)
        finally:
            await records.close()

    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return asyncio.run(run())
    except (RecordsError, OSError) as error:
        click.echo(f"The records cannot be used: {error}", err=True)
        raise SystemExit(MISTAKES) from error


@dataclass(slots=True)
class Trace:
    """What the audit trail will say of a command."""

    target_id: str = ""
    detail: dict[str, Any] = field(default_factory=dict)

    def of(self, target_id: str, **detail: Any) -> None:
        """Name what was acted on, and add what was done to it."""
        self.target_id = target_id
        self.detail.update(detail)


@asynccontextmanager
async def audited(
    records: Records, action: str, target_kind: str, *, at: float
) -> AsyncIterator[Trace]:
    """Put what is done inside, and an entry that tells of it, into one transaction."""
    trace = Trace()
    async with records.database.together():
        yield trace
        await AuditTrail(records.database).write(
            AuditEntry(
                at=at,
                actor=operator(),
                action=action,
                target_kind=target_kind,
                target_id=trace.target_id,
                detail=trace.detail,
            )
        )


def operator() -> str:
    """Return who runs this command, as histories name it."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):  # a container's user need not have a name
        return f"cli:{os.getuid()}"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows as a table; without rows, nothing. Cells are text, whatever they look like."""
    rows = list(rows)
    if not rows:
        return
    drawn = Table(title=escape(title), title_justify="left", show_edge=False)
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text("" if cell is None else _shown(str(cell))) for cell in row))
    console().print(drawn)


def _shown(text: str) -> str:
    """Return a text in which nothing moves a cursor or turns the direction of writing."""
    return "".join(each if each.isprintable() or each == "\n" else "\ufffd" for each in text)


def day(unix_s: float | None) -> str:
    """Return a time as people read it, in UTC; empty for none."""
    if unix_s is None:
        return ""
    try:
        return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):
        return "forever"
