"""Three books that agree, and records from which every verdict can be had again offline."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web
from support.gates import PACK, Clock, rules_text
from yarl import URL

from gatekeeper.demo import DemoSettings
from gatekeeper.settings import Geoip, Sizes

if TYPE_CHECKING:
    from support.gates import Gates, RunningGate

ACCOUNTS: dict[str, dict[str, object]] = {
    "acme": {},
    "new": {"created_at": None},
    "banned": {"banned_until": "forever"},
    "watched": {"tier": "elevated"},
    "small": {"tier": "restricted", "assurance": "ial1"},
}
CHAT = "/v1/chat/completions"
PROMPT = "the prompt that nobody may keep"


@dataclass(frozen=True)
class Sent:
    """What the client saw of one of its requests."""

    client_id: str
    decision_id: str
    status: int


def body(model: str = "demo-small", **more: object) -> bytes:
    """Return the body of a chat completion."""
    messages = [{"role": "user", "content": PROMPT}]
    return json.dumps({"model": model, "messages": messages, **more}).encode()


KINDS: tuple[tuple[str, str, str, dict[str, str], bytes | None], ...] = (
    ("acme", "POST", CHAT, {}, body(max_tokens=20)),
    ("acme", "POST", CHAT, {}, body(max_tokens=20, stream=True)),
    ("acme", "POST", "/v1/messages", {"anthropic-version": "2023-06-01"}, body(max_tokens=9)),
    ("acme", "GET", "/v1/models", {}, None),
    ("acme", "HEAD", "/v1/models", {}, None),
    ("acme", "POST", "/v1/batches", {}, b"anything"),
    ("acme", "POST", CHAT, {}, body(model="fails")),
    ("acme", "POST", CHAT, {"x-forwarded-for": "152.206.0.1"}, body()),
    ("acme", "POST", CHAT, {"x-forwarded-for": "5.1.2.3, 8.8.8.8"}, body()),
    ("acme", "POST", CHAT, {}, b"{not json"),
    ("acme", "POST", CHAT, {}, body(model="x" * 70_000)),
    ("acme", "GET", "/v1/../admin", {}, None),
    ("acme", "GET", "/v1/models", {"x-api-key": "gk_wrong"}, None),
    ("acme", "GET", "/v1/models", {"x-api-key": ""}, None),
    ("banned", "POST", CHAT, {}, body()),
    ("new", "POST", CHAT, {}, body()),
    ("watched", "POST", CHAT, {}, body(model="gpt-5")),
    ("watched", "POST", CHAT, {}, body(max_tokens=100)),
    ("small", "POST", CHAT, {}, body(model="gpt-4.1")),
    ("small", "POST", CHAT, {}, body(model="gpt-4.1-mini", max_tokens=100)),
)


async def send(gate: RunningGate, number: int) -> Sent:
    """Send one request of the mix."""
    account, method, path, headers, data = KINDS[number % len(KINDS)]
    sent = gate.headers(account, x_client_id=f"c{number}") | headers
    url = f"http://127.0.0.1:{gate.app.ports[0]}{path}"
    async with gate.http.request(method, URL(url, encoded=True), headers=sent, data=data) as answer:
        await answer.read()
        return Sent(f"c{number}", answer.headers["gatekeeper-decision"], answer.status)


async def fail_some(request: web.Request) -> web.StreamResponse | None:
    """Answer 500 where the model says so."""
    if b'"fails"' in await request.read():
        return web.json_response({"error": {"message": "boom"}}, status=500)
    return None


async def test_three_books(gates: Gates) -> None:
    """Some hundred mixed requests at once: client, gate and upstream tell the same story.

    Every client id has one decision, every upstream id an allowing decision and one outcome, and
    no refused id reached the upstream.
    """
    gate = await gates(accounts=ACCOUNTS, demo=DemoSettings(), sizes=Sizes(max_body_bytes=60_000))
    gate.upstream.answer = fail_some
    numbers = list(range(15 * len(KINDS)))
    random.Random(7).shuffle(numbers)
    busy = asyncio.Semaphore(40)

    async def one(number: int) -> Sent:
        async with busy:
            return await send(gate, number)

    seen = await asyncio.gather(*(one(number) for number in numbers))
    await gate.stop()
    book = gate.book()

    decisions = [record for record in book if record["kind"] == "decision"]
    outcomes = Counter(record["id"] for record in book if record["kind"] == "outcome")
    verdicts = {record["id"]: record["verdict"] for record in decisions}
    assert len(verdicts) == len(decisions) == len(seen)
    assert {each.decision_id for each in seen} == set(verdicts)
    assert set(Counter(verdicts.values())) == {
        "allow", "rate_limited", "step_up", "deny", "embargoed", "invalid", "unauthenticated",
    }  # fmt: skip

    by_client = {each.client_id: each.decision_id for each in seen}
    received = [each.client_id for each in gate.upstream.book]
    assert len(received) == len(set(received))
    allowed = {client for client, found in by_client.items() if verdicts[found] == "allow"}
    assert set(received) == allowed
    assert outcomes == {by_client[client]: 1 for client in allowed}
    for each in seen:
        refused = verdicts[each.decision_id] != "allow"
        assert refused == (each.status in {400, 401, 403, 413, 429, 451}), each

    text = json.dumps(book)
    for secret in (PROMPT, *gate.keys.values(), "gk_wrong", "152.206.0.1", "5.1.2.3", "8.8.8.8"):
        assert secret not in text


async def test_each_kind_of_decision_replays(gates: Gates) -> None:
    """`explain ID` comes to the recorded verdict from the record and the archived rules alone."""
    gate = await gates(accounts=ACCOUNTS, sizes=Sizes(max_body_bytes=60_000))
    ids = [(await send(gate, number)).decision_id for number in range(len(KINDS))]
    ids += [(await send(gate, 19)).decision_id for _ in range(5)]  # into the limit
    records = [await gate.decision(each) for each in ids]
    kinds = {record["verdict"]: record["id"] for record in records}
    assert set(kinds) == {
        "allow", "rate_limited", "step_up", "deny", "embargoed", "invalid", "unauthenticated",
    }  # fmt: skip
    await gate.stop()
    for record in records:
        told = json.loads((await gate.cli("explain", record["id"], "--json")).stdout)
        assert told["same_verdict_offline"] is True
        for name in ("verdict", "reason", "shadow_verdict", "findings", "score", "limits"):
            assert told[name] == record[name], (record["verdict"], name)
    for verdict, decision_id in kinds.items():
        shown = (await gate.cli("explain", decision_id)).stdout
        assert f"Verdict: {verdict}" in shown
        assert "Same verdict offline: yes" in shown


async def test_decisions_of_old_rules_replay_by_them(gates: Gates) -> None:
    """After the rules changed, `explain` uses the archived ones and tells today's verdict too."""
    gate = await gates(rules=rules_text())
    decision_id = (await send(gate, 0)).decision_id
    await gate.stop()
    stricter = (
        rules_text()
        .replace("countries: [CU]", "countries: [CU, DE]")
        .replace("allow: true", "allow: false")
    )
    (gate.settings.rules_dir / "rules.yaml").write_text(stricter)
    shown = (await gate.cli("explain", decision_id)).stdout
    assert "Same verdict offline: yes" in shown
    assert "embargoed" in shown.split("By today's rules")[1]


async def test_a_changed_record_is_found_out(gates: Gates) -> None:
    """A verdict that does not follow from its facts is told, with exit code 1."""
    gate = await gates(rules=rules_text())
    decision_id = (await send(gate, 0)).decision_id
    await gate.stop()
    (file,) = gate.settings.decision_log.directory.glob("*.jsonl")
    file.write_text(file.read_text().replace('"verdict":"allow"', '"verdict":"deny"', 1))
    result = await gate.cli("explain", decision_id, ok=False)
    assert result.exit_code == 1
    assert "Same verdict offline: no" in result.stdout


async def test_real_network_data(gates: Gates) -> None:
    """With the data and rules that ship, an address in Cuba is refused and one in the US is not."""
    geoip = Geoip(
        databases=tuple(
            PACK.parent / "geoip" / f"{name}.mmdb" for name in ("country", "registration", "asn")
        ),
        networks=(PACK.parent / "geoip" / "networks.yaml",),
    )
    gate = await gates(geoip=geoip, clock=Clock())
    statuses = []
    for address in ("8.8.8.8", "152.206.0.1", "47.74.0.1"):  # Google, Cuba, Alibaba
        headers = gate.headers(x_forwarded_for=address)
        async with gate.http.get("/v1/models", headers=headers) as answer:
            statuses.append(answer.status)
    assert statuses == [200, 451, 451]
