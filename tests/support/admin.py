"""Clients of the management API of a running gate, one for each role."""

from __future__ import annotations

import itertools
import re
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
from support.builders import AT
from support.campaigns import campaign
from support.gates import rules_text
from yarl import URL

from gatekeeper.facts.admin_keys import issue_admin_key
from gatekeeper.sources import master_secret, records_url
from gatekeeper.storage.admin_keys import AdminKeys, Role
from gatekeeper.storage.audit import AuditEntry, AuditQuery, AuditTrail
from gatekeeper.storage.campaigns import CampaignBook
from gatekeeper.storage.database import Database
from gatekeeper.storage.secrets import derive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.gates import Gates, RunningGate


@dataclass(frozen=True)
class Reply:
    """An answer of the API, read whole."""

    status: int
    headers: Any
    body: bytes
    json: Any

    @property
    def code(self) -> str | None:
        """Code of the problem, if it is one."""
        return self.json.get("code") if isinstance(self.json, dict) else None


class Admins:
    """A gate and the keys that open its management API."""

    def __init__(self, gate: RunningGate, keys: dict[str, str], database: Database) -> None:
        self.gate = gate
        self.keys = keys
        """``viewer``, ``operator``, ``admin``, and ``expired`` and ``revoked`` ones of admins."""
        self.database = database
        self.url = f"http://127.0.0.1:{gate.app.admin_port}"
        self._http = aiohttp.ClientSession()

    @classmethod
    @asynccontextmanager
    async def of(cls, gates: Gates, **options: Any) -> AsyncIterator[Admins]:
        """Start a gate and make a key of each role."""
        gate = await gates(**{"rules": rules_text(), **options})
        database = await Database.open(records_url(gate.settings))
        admins = cls(gate, await make_keys(gate, database), database)
        try:
            yield admins
        finally:
            await admins._http.close()
            await database.close()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        key: str | None = "admin",
        **options: Any,
    ) -> Reply:
        """Send a request with the key of a role, a key as text, or none."""
        headers = dict(options.pop("headers", {}))
        if key is not None:
            headers.setdefault("Authorization", f"Bearer {self.keys.get(key, key)}")
        url = URL(self.url + path, encoded=True)
        async with self._http.request(method, url, headers=headers, **options) as answer:
            body = await answer.read()
            told = None
            if body and "json" in answer.headers.get("Content-Type", ""):
                told = await answer.json(content_type=None)
            return Reply(answer.status, answer.headers, body, told)

    async def get(self, path: str, **options: Any) -> Reply:
        """Send a GET."""
        return await self.ask("GET", path, **options)

    async def some_history(self) -> dict[str, str]:
        """Leave a decision, a case and a campaign behind; needs the account ``watched``.

        Returns their ids, and the revision of the rules in force.
        """
        asks = {"model": "demo-small", "messages": [], "max_tokens": 5}
        async with self.gate.http.post(
            "/v1/chat/completions", headers=self.gate.headers("watched"), json=asks
        ) as refused:
            told = await refused.json()
            decision_id = refused.headers["x-request-id"]
        link = URL(re.findall(r"http[^\s\"]+", told["error"]["message"])[0].rstrip("."))
        async with self.gate.http.post(self.gate.url + link.path, allow_redirects=False) as opened:
            assert opened.status in {200, 303}
        cases = await self.get("/v1/cases")
        rules = await self.get("/v1/rules/active")
        await self.gate.decision(decision_id)
        await CampaignBook(self.database).write((campaign(),), at=AT, seen=0)
        return {
            "campaign_id": campaign().id,
            "decision_id": decision_id,
            "case_id": cases.json["items"][0]["id"],
            "revision": rules.json["revision"],
        }

    async def trail(self, **query: Any) -> list[AuditEntry]:
        """Return the audit trail, oldest first, without what was refused for lack of a key."""
        trail = AuditTrail(self.database)
        rows = await trail.page(AuditQuery(**query), limit=10_000)
        return list(reversed(rows))


async def make_keys(gate: RunningGate, database: Database) -> dict[str, str]:
    """Make a key of each role, an expired and a revoked one."""
    subkey = derive(master_secret(gate.settings, {}), "admin-keys")
    table = AdminKeys(database)
    chance = itertools.count(1)
    now = time.time()
    made: dict[str, str] = {}
    for name in (*Role, "expired", "revoked"):
        minted = await issue_admin_key(
            table,
            subkey=subkey,
            name=str(name),
            role=name if isinstance(name, Role) else Role.ADMIN,
            at=now - 1_000,
            expires_at=now - 500 if name == "expired" else None,
            random_bytes=lambda size: next(chance).to_bytes(size, "big"),
        )
        made[str(name)] = minted.text
        if name == "revoked":
            await table.revoke(minted.row.key_id, at=now - 500)
    return made
