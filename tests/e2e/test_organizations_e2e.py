"""Registered egress ranges: a key used from elsewhere is noticed, and the verdict replays."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from support.gates import eventually, rules_text

if TYPE_CHECKING:
    from support.gates import Gates, RunningGate

STRAY = """
signals:
  - {id: stray, description: Elsewhere., when: "!network.registered_egress", points: 50}
thresholds:
  - {id: deny-stray, description: Refuse., at_least: 50, verdict: deny}
"""


async def send(gate: RunningGate, address: str) -> tuple[int, str]:
    """Send a call from an address; return its status and decision id."""
    headers = gate.headers(x_forwarded_for=address)
    async with gate.http.get("/v1/models", headers=headers) as answer:
        return answer.status, answer.headers["gatekeeper-decision"]


async def test_a_call_from_elsewhere_is_refused_and_replays(gates: Gates) -> None:
    """Without ranges nothing is known, with ranges both outcomes are, live and in the record."""
    gate = await gates(rules=rules_text(STRAY), accounts={"acme": {"organization": "Acme AG"}})
    status, silent = await send(gate, "5.1.1.1")
    assert status == 200
    await gate.cli("organizations", "set", "Acme AG", "egress=8.8.0.0/16")

    async def refused() -> bool:
        return (await send(gate, "5.1.1.1"))[0] == 403

    await eventually(refused)
    away, home = await send(gate, "5.1.1.1"), await send(gate, "8.8.8.8")
    assert (away[0], home[0]) == (403, 200)
    records = [await gate.decision(each) for each in (silent, away[1], home[1])]
    told = [record["facts"]["network"].get("registered_egress") for record in records]
    assert told == [None, False, True]
    await gate.stop()
    for record in records:
        shown = json.loads((await gate.cli("explain", record["id"], "--json")).stdout)
        assert shown["same_verdict_offline"] is True
        assert shown["verdict"] == record["verdict"]
