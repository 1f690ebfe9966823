"""What docs/operations.md tells operators to do, done."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from support.gates import rules_text
from support.valkey import serving

from gatekeeper.settings import SecretSource

if TYPE_CHECKING:
    from support.gates import Gates, RunningGate
    from support.postgres import Postgres

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
LIMITED = rules_text(
    """
limits:
  - {id: requests, description: R., unit: requests, per: [account], rate: 5/day}
  - {id: at-once, description: C., unit: concurrency, per: [account], slots: 3, lease: 1 minute}
"""
)
CHAT = {"model": "demo-small", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}


async def ask(gate: RunningGate, key: str) -> int:
    """Send a chat with a key; return its status."""
    async with gate.http.post("/v1/chat/completions", json=CHAT, headers={"x-api-key": key}) as got:
        await got.read()
        return got.status


async def test_the_acl_user_of_the_page_is_enough_and_no_more(gates: Gates, tmp_path: Path) -> None:
    """A gate decides and settles as that user, and the user can read nobody else's keys."""
    found = re.search(r"^user gatekeeper .*$", PAGE, re.MULTILINE)
    assert found is not None
    _, *user = found[0].replace(">PASSWORD", ">hush").split()
    async with serving(tmp_path, "--user", *user) as server:
        store = {
            "kind": "standalone",
            "addresses": (server.address,),
            "username": "gatekeeper",
            "password": SecretSource(env="PASSWORD"),
            "on_failure": "closed",
        }
        gate = await gates(rules=LIMITED, store=store, environ={"PASSWORD": "hush"})
        assert [await ask(gate, gate.keys["acme"]) for _ in range(6)] == [200] * 5 + [429]
        async with server.client() as anybody:
            await anybody.set("others", "1")
        async with server.client(username="gatekeeper", password="hush") as itself:
            for command in (("GET", "others"), ("FLUSHALL",), ("CONFIG", "GET", "*")):
                with pytest.raises(Exception, match=r"NOPERM|permissions"):
                    await itself.execute_command(*command)
        assert "gatekeeper_store_failures_total{" not in await gate.metrics()


async def test_a_restored_postgresql_knows_its_keys(gates: Gates, postgres: Postgres) -> None:
    """Dumped and restored by the page's commands, with the same secret, the keys are good."""
    secret = {"secret": SecretSource(env="SECRET"), "environ": {"SECRET": "s" * 32}}
    database = postgres.new_url()
    before = await gates(rules=LIMITED, records_url=database, **secret)
    key = before.keys["acme"]
    assert await ask(before, key) == 200
    await before.stop()
    dumped = before.folder / "records.dump"
    restored = postgres.new_url()
    for tool in ("pg_dump", "pg_restore"):
        command = re.search(rf"`({tool} [^`]+)`", PAGE)
        assert command is not None
        url = database if tool == "pg_dump" else restored
        line = command[1].replace('"$DATABASE"', _name(url)).replace("records.dump", str(dumped))
        postgres.tool(*line.split())
    after = await gates(rules=LIMITED, records_url=restored, accounts={"else": {}}, **secret)
    assert await ask(after, key) == 200
    other = await gates(rules=LIMITED, records_url=restored, accounts={"third": {}})
    assert await ask(other, key) == 401


async def test_a_copied_sqlite_file_knows_its_keys(gates: Gates, tmp_path: Path) -> None:
    """A copy made by SQLite while the gate runs is whole."""
    secret = {"secret": SecretSource(env="SECRET"), "environ": {"SECRET": "s" * 32}}
    before = await gates(rules=LIMITED, **secret)
    copy = tmp_path / "copy.db"
    with (
        closing(sqlite3.connect(before.folder / "records.db")) as records,
        closing(sqlite3.connect(copy)) as target,
    ):
        records.backup(target)  # what `.backup` of the sqlite3 command does
    after = await gates(
        rules=LIMITED, records_url=f"sqlite:///{copy}", accounts={"b": {}}, **secret
    )
    assert await ask(after, before.keys["acme"]) == 200


def _name(url: str) -> str:
    return urlsplit(url).path.lstrip("/")
