"""Traits of calls through a whole gate: in the record, and nothing of the prompt anywhere."""

from __future__ import annotations

import json
from itertools import count
from typing import TYPE_CHECKING, Any

import aiohttp
from redis.asyncio import Redis
from support.gates import eventually, rules_text
from support.served import served
from support.upstream import Upstream
from support.valkey import serving

if TYPE_CHECKING:
    from pathlib import Path

    from support.served import Served

    from gatekeeper.settings import Geoip

RULES = rules_text("""
capabilities:
  - {id: thinking, description: T., when: '"reasoning" in call.asks'}
limits:
  - {id: thoughts, description: T., unit: requests, per: [account], rate: 1/day,
     when: '"thinking" in call.capabilities'}
""")
CANARY = "canary7f3a"
_NUMBERS = count()


def planted() -> str:
    """Return a canary of its own, in words that are looked for."""
    return f"{CANARY}{next(_NUMBERS)} step by step rubric dataset"


def prompts() -> dict[str, bytes]:
    """Return bodies with a canary in every part of a prompt, well-formed and not."""
    tool = {"type": "function", "function": {"name": CANARY, "description": planted()}}
    turns = [
        {"role": "system", "content": planted()},
        {"role": "user", "content": [{"type": "text", "text": planted()}]},
        {"role": "assistant", "content": planted()},
        {"role": CANARY, "content": planted(), "name": CANARY},
        {"role": "user", "content": planted() * 2_000},
    ]
    schema = {"type": "json_schema", "json_schema": {"name": CANARY, "schema": {}}}
    chat = {"model": "demo-small", "messages": turns, "tools": [tool], "max_tokens": 9}
    whole: dict[str, Any] = {
        "/v1/chat/completions": {**chat, "response_format": schema, "stop": [planted()]},
        "/v1/responses": {
            "model": "demo-small",
            "instructions": planted(),
            "input": turns[1:2],
            "max_output_tokens": 9,
        },
        "/v1/completions": {"model": "demo-small", "prompt": planted(), "max_tokens": 9},
        "/v1/messages": {**chat, "system": planted(), "messages": turns[1:3] + turns[4:]},
        "/v1/embeddings": {"model": "demo-small", "input": planted()},
    }
    bodies = {path: json.dumps(body).encode() for path, body in whole.items()}
    bodies["/x/v1/chat/completions"] = f'{{"model": "demo-small", "messages": {CANARY}'.encode()
    bodies["/x/v1/messages"] = json.dumps({"model": CANARY, "messages": planted()}).encode()
    return bodies


def contents(folder: Path) -> dict[Path, bytes]:
    """Return what all files hold."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def call(node: Served, path: str, body: bytes, key: str = "one") -> int:
    """Send a call, whatever comes of it."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    url = f"http://127.0.0.1:{node.port}{path}"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers=headers) as answer,
    ):
        await answer.read()
        return answer.status


async def decided(node: Served, number: int) -> list[dict[str, Any]]:
    """Wait for so many decisions."""

    async def there() -> bool:
        return sum(each["kind"] == "decision" for each in node.records()) >= number

    await eventually(there)
    return [each for each in node.records() if each["kind"] == "decision"]


async def test_no_word_of_a_prompt_is_kept(tmp_path: Path, small_geoip: Geoip) -> None:
    """Planted strings are found in no file of the gate, and nowhere in the store."""
    upstream = Upstream()
    await upstream.start()
    async with serving(tmp_path / "valkey") as server, Redis(port=server.port) as store:
        shared = {"kind": "standalone", "addresses": (server.address,), "deadline_ms": 5_000}
        async with served(
            tmp_path / "gate", small_geoip, upstream.url, rules=RULES, store=shared
        ) as node:
            bodies = prompts()
            for path, body in bodies.items():
                await call(node, path, body)
            records = await decided(node, len(bodies))
            node.terminate()
            assert await node.ended() == 0
        await store.save()
        assert CANARY in "".join(each.body.decode() for each in upstream.book)
        kept = contents(tmp_path)
        assert {".jsonl", ".rdb", ".db"} <= {path.suffix for path in kept}
        assert [path for path, content in kept.items() if CANARY.encode() in content] == []
    await upstream.stop()
    looked = [each["facts"] for each in records if each["facts"].get("traits")]
    assert len(looked) >= 4
    assert {"reasoning", "tools"} <= {ask for each in looked for ask in each["call"]["asks"]}


async def test_callers_of_one_program_show_the_same_traits(
    tmp_path: Path, small_geoip: Geoip
) -> None:
    """On every account, and after a restart; a class of calls has a limit of its own."""
    upstream = Upstream()
    await upstream.start()

    def body(question: str) -> bytes:
        turns = [{"role": "system", "content": "S"}, {"role": "user", "content": question}]
        return json.dumps({"model": "demo-small", "messages": turns, "max_tokens": 9}).encode()

    secret = tmp_path / "secret"
    secret.write_text("s" * 40)
    found = []
    for folder in ("first", "second"):
        async with served(
            tmp_path / folder,
            small_geoip,
            upstream.url,
            rules=RULES,
            traits={"secret": {"file": secret}},
        ) as node:
            path = "/v1/chat/completions"
            assert await call(node, path, body("Hello?"), folder) == 200
            assert await call(node, path, body("Think step by step."), folder) == 200
            assert await call(node, path, body("Think step by step!"), folder) == 429
            found += [each["facts"] for each in await decided(node, 3)]
    await upstream.stop()
    assert len({each["account"]["id"] for each in found}) == 2
    assert len({each["traits"][0]["scaffold"] for each in found}) == 1
    assert len({each["traits"][0]["client"] for each in found}) == 1
    assert len({tuple(each["traits"][0]["blocks"]) for each in found}) == 3
    assert [each["call"].get("capabilities") for each in found[:2]] == [None, ["thinking"]]
