"""Alerts end to end: a running gate tells a real receiver what is the case with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from support.gates import eventually, rules_text
from support.valkey import serving

from gatekeeper.app import App
from gatekeeper.settings import Settings
from gatekeeper.sources import StartError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.gates import Gates

CHAT = "/v1/chat/completions"
BODY = {"model": "demo-small", "messages": [{"role": "user", "content": "Hello"}]}
ENVIRON = {"ALERT_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
Taken = list[dict[str, Any]]


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[str, Taken]]:
    """Run a receiver; yields its URL and what it took."""
    taken: Taken = []

    async def take(request: web.Request) -> web.Response:
        taken.append(json.loads(await request.read()))
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/", taken
    await runner.cleanup()


async def test_an_embargo_hit_is_told(receiver: tuple[str, Taken], gates: Gates) -> None:
    """A refused call reaches the webhook without a word about who called."""
    url, taken = receiver
    gate = await gates(
        rules=rules_text(),
        environ=ENVIRON,
        alerts={"webhook_url": url, "secret": {"env": "ALERT_SECRET"}},
    )
    headers = gate.headers(x_forwarded_for="152.206.0.1")
    async with gate.http.post(CHAT, json=BODY, headers=headers) as answer:
        assert answer.status == 451

    async def told() -> bool:
        return bool(taken)

    await eventually(told)
    assert taken[0]["subject"] == "embargo_hits"
    assert taken[0]["type"] == "gatekeeper.alert.firing"
    assert taken[0]["data"]["text"] == "1 calls were refused by an embargo"
    assert "152.206" not in str(taken)
    assert "acme" not in str(taken)


async def test_a_gate_that_only_observes_says_so(receiver: tuple[str, Taken], gates: Gates) -> None:
    """What refuses nothing is told at once."""
    url, taken = receiver
    await gates(
        rules=rules_text(),
        environ=ENVIRON,
        mode="observe",
        alerts={"webhook_url": url, "secret": {"env": "ALERT_SECRET"}},
    )

    async def told() -> bool:
        return [each["subject"] for each in taken] == ["not_enforcing"]

    await eventually(told)


async def test_a_store_that_is_gone_is_told(
    receiver: tuple[str, Taken], gates: Gates, tmp_path: Path
) -> None:
    """Told while it is away; embargo and credentials do not depend on it (H30)."""
    url, taken = receiver
    async with serving(tmp_path / "valkey") as store:
        await gates(
            rules=rules_text(),
            environ=ENVIRON,
            store={"kind": "standalone", "addresses": (store.address,)},
            alerts={
                "webhook_url": url,
                "secret": {"env": "ALERT_SECRET"},
                "events": ("store_degraded",),
            },
        )
        store.kill()

        async def told() -> bool:
            return [each["subject"] for each in taken] == ["store_degraded"]

        await eventually(told)


async def test_rules_with_a_mistake_are_told(receiver: tuple[str, Taken], gates: Gates) -> None:
    """A bad file changes nothing but this."""
    url, taken = receiver
    gate = await gates(
        rules=rules_text(),
        environ=ENVIRON,
        alerts={
            "webhook_url": url,
            "secret": {"env": "ALERT_SECRET"},
            "events": ("rules_refused",),
        },
    )
    (gate.settings.rules_dir / "more.yaml").write_text("version: 1\nembrago: []\n...\n")

    async def told() -> bool:
        return [each["subject"] for each in taken] == ["rules_refused"]

    await eventually(told)


async def test_a_secret_that_is_missing_is_a_mistake_at_start(tmp_path: Path) -> None:
    """The gate does not start to send what nobody can verify."""
    settings = Settings.model_validate(
        {
            "data_dir": tmp_path,
            "upstreams": [{"name": "m", "urls": ["http://127.0.0.1:9"]}],
            "alerts": {"webhook_url": "http://127.0.0.1:9/", "secret": {"env": "NOT_THERE"}},
        }
    )
    with pytest.raises(StartError, match="NOT_THERE"):
        await App.start(settings, {})
