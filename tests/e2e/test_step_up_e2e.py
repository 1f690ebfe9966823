"""Step-up: a signed link, the page behind it, and the way through once identity is proven."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import openai
import pytest
from support.gates import Clock, eventually, rules_text

from gatekeeper.settings import StepUp

if TYPE_CHECKING:
    from support.gates import Gates, RunningGate

WATCHED: dict[str, dict[str, object]] = {"watched": {"tier": "elevated"}}


async def link_of(gate: RunningGate) -> tuple[str, str]:
    """Be asked to prove an identity; return the link's path and the decision id."""
    with pytest.raises(openai.PermissionDeniedError) as raised:
        await gate.openai("watched").models.list()
    body: Any = raised.value.body
    url = body["verification_url"]
    base, _, token = url.partition("/gatekeeper/v1/verify/")
    assert base == "http://127.0.0.1:0"  # the address of the first listener, as it is set
    return f"/gatekeeper/v1/verify/{token}", body["decision_id"]


async def page(gate: RunningGate, path: str) -> tuple[int, str]:
    """Open a page as a browser does: without any credential."""
    async with gate.http.get(path) as answer:
        assert answer.content_type == "text/html"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        return answer.status, await answer.text()


async def test_the_link_opens_and_cannot_be_forged(gates: Gates) -> None:
    """The page says whom to ask, naming account and decision; a changed or old link is refused."""
    clock = Clock()
    gate = await gates(
        rules=rules_text(), accounts=WATCHED, clock=clock,
        step_up=StepUp(link_ttl_s=600, support="Write to <help@example.com>."),
    )  # fmt: skip
    path, decision_id = await link_of(gate)
    status, text = await page(gate, path)
    assert status == 200
    assert "watched" in text
    assert decision_id in text
    assert "&lt;help@example.com&gt;" in text
    header, payload, signature = path.rsplit("/", 1)[1].split(".")
    for forged in (
        f"{header}.{payload}.{signature[:-2]}AA",
        f"{header}.{payload}x.{signature}",
        f"{header}.{payload}.",
        "x" * 2000,
    ):
        assert (await page(gate, f"/gatekeeper/v1/verify/{forged}"))[0] == 410
    clock.advance(601)
    assert (await page(gate, path))[0] == 410


async def test_links_of_another_gate_are_refused(gates: Gates) -> None:
    """Each gate signs with its own secret."""
    one, two = [await gates(rules=rules_text(), accounts=WATCHED) for _ in range(2)]
    path, _ = await link_of(one)
    assert (await page(two, path))[0] == 410


async def test_a_verified_account_goes_through(gates: Gates) -> None:
    """Once the operator has set the assurance, the same call passes, without a restart."""
    gate = await gates(rules=rules_text(), accounts=WATCHED)
    _, decision_id = await link_of(gate)
    record = await gate.decision(decision_id)
    assert record["obligation"] == {"assurance": "ial1", "rule": "tier-elevated"}
    await gate.cli("accounts", "set", "watched", "assurance=ial1")

    async def passes() -> bool:
        async with gate.http.get("/v1/models", headers=gate.headers("watched")) as answer:
            return answer.status == 200

    await eventually(passes)
    assert (await gate.openai("watched").models.list()).data


async def test_the_link_uses_the_public_url(gates: Gates) -> None:
    """Behind another name the link is good for those outside."""
    gate = await gates(rules=rules_text(), accounts=WATCHED, public_url="https://ai.example/gate/")
    with pytest.raises(openai.PermissionDeniedError) as raised:
        await gate.openai("watched").models.list()
    assert re.search(
        r"Open https://ai\.example/gate/gatekeeper/v1/verify/\S+ to verify", str(raised.value)
    )
