"""Several gates on one PostgreSQL: what one learns all learn, and losing it turns nobody away."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from support.gates import eventually, rules_text

from gatekeeper.facts.api_keys import issue_key
from gatekeeper.policy.words import Tier
from gatekeeper.settings import SecretSource
from gatekeeper.storage import database
from gatekeeper.storage.database import RecordsError
from gatekeeper.storage.records import Records
from gatekeeper.storage.records_schema import AccountPatch
from gatekeeper.storage.secrets import derive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.gates import Gates, RunningGate
    from support.postgres import Postgres

SECRET = "the secret that all gates of the fleet have in common"
AT = 1_790_000_000.0


@dataclass
class Fleet:
    """Two gates and the records as the operator's own system writes them."""

    gates: list[RunningGate]
    records: Records
    drawn: int = 100

    async def new_key(self, account: str) -> tuple[str, str]:
        """Create a key of an account; return its id and text."""

        def chance(size: int) -> bytes:
            self.drawn += 1
            return self.drawn.to_bytes(size, "big")

        minted = await issue_key(
            self.records,
            subkey=derive(SECRET.encode(), "credentials"),
            account_id=account,
            label="",
            at=AT,
            expires_at=None,
            random_bytes=chance,
        )
        return minted.row.key_id, minted.text

    async def set(self, account: str, **fields: Any) -> None:
        """Write fields of an account, as often as it takes."""

        async def written() -> bool:
            try:
                await self.records.upsert_account(AccountPatch(account, fields), at=AT)
            except RecordsError:
                return False
            return True

        await eventually(written)

    async def everywhere(self, wanted: int, key: str, model: str = "demo-small") -> None:
        """Wait until each gate answers calls with ``wanted``."""
        for gate in self.gates:

            async def ends_so(gate: RunningGate = gate) -> bool:
                return await status(gate, key, model) == wanted

            await eventually(ends_so)


async def status(gate: RunningGate, key: str, model: str = "demo-small") -> int:
    """Send one chat completion and return its status."""
    body = {"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"x-api-key": key}
    async with gate.http.post("/v1/chat/completions", headers=headers, json=body) as answer:
        return answer.status


@pytest.fixture
async def fleet(
    gates: Gates, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Fleet]:
    """Start two gates on one PostgreSQL, with deadlines that tests need not wait long for."""
    monkeypatch.setattr(database, "_DEADLINE_S", 1.0)
    monkeypatch.setattr(database, "_CONNECT_S", 1.0)
    url = postgres.new_url()
    started = [
        await gates(
            rules=rules_text(),
            records_url=url,
            secret=SecretSource(env="FLEET_SECRET"),
            environ={"FLEET_SECRET": SECRET},
        )
        for _ in range(2)
    ]
    records = await Records.open(url)
    yield Fleet(started, records)
    await records.close()


async def test_h19_a_change_reaches_every_gate(fleet: Fleet) -> None:
    """Tier, ban, a new key and a revoked one: no gate is restarted, none is told but by SQL."""
    key = fleet.gates[0].keys["acme"]
    await fleet.everywhere(200, key)
    await fleet.set("acme", tier=Tier.RESTRICTED)
    await fleet.everywhere(403, key, model="gpt-5")
    await fleet.set("acme", tier=Tier.TRUSTED)
    await fleet.everywhere(200, key, model="gpt-5")
    await fleet.set("acme", banned_until=float("inf"))
    await fleet.everywhere(403, key)
    await fleet.set("acme", banned_until=None)
    await fleet.everywhere(200, key)

    key_id, text = await fleet.new_key("newcomer")
    await fleet.everywhere(200, text)
    await fleet.records.revoke_key(key_id, at=AT)
    await fleet.everywhere(401, text)
    await fleet.everywhere(200, key)


async def test_h19_no_change_is_lost_while_connections_are_cut(
    fleet: Fleet, postgres: Postgres
) -> None:
    """Twenty accounts are banned while an administrator ends connections all the time."""
    names = [f"caller-{number}" for number in range(20)]
    keys = [(await fleet.new_key(name))[1] for name in names]
    for key in keys:
        await fleet.everywhere(200, key)
    for number, name in enumerate(names):
        if number % 3 == 0:
            await asyncio.to_thread(postgres.cut)
        await fleet.set(name, banned_until=float("inf"))
    for key in keys:
        await fleet.everywhere(403, key)


@pytest.mark.parametrize("loss", ["kill", "freeze"])
async def test_h19_without_its_database_the_fleet_serves_on(
    fleet: Fleet, postgres: Postgres, loss: str
) -> None:
    """Known callers pass and banned ones do not; a key that may be new is not called wrong."""
    key, banned = fleet.gates[0].keys["acme"], (await fleet.new_key("mallory"))[1]
    revoked_id, revoked = await fleet.new_key("acme")
    await fleet.everywhere(200, revoked)
    await fleet.records.revoke_key(revoked_id, at=AT)
    await fleet.set("mallory", banned_until=float("inf"))
    await fleet.everywhere(401, revoked)
    await fleet.everywhere(403, banned)

    await asyncio.to_thread(getattr(postgres, loss))
    try:
        for gate in fleet.gates:

            async def noticed(gate: RunningGate = gate) -> bool:
                assert await status(gate, key) == 200
                assert await status(gate, banned) == 403
                return await status(gate, revoked) == 503

            await eventually(noticed)
    finally:
        await asyncio.to_thread(postgres.start if loss == "kill" else postgres.thaw)

    await fleet.everywhere(401, revoked)
    await fleet.set("acme", banned_until=float("inf"))
    await fleet.everywhere(403, key)
    await fleet.set("acme", banned_until=None)
    await fleet.everywhere(200, key)
