"""H39: webhooks that are forged, old, repeated, out of order, too big, or come at a bad moment."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from support.gates import SOON_S, eventually
from support.served import served
from support.vendors import (
    API_KEY,
    OLD_SECRET,
    SECRET,
    WEBHOOK,
    gate_with,
    opened,
    passes,
    run_sandbox,
)

from gatekeeper.policy.lifecycles import CaseState
from gatekeeper.settings import SecretSource
from gatekeeper.storage.cases import Cases
from gatekeeper.storage.database import RecordsError
from gatekeeper.verification.standard_webhooks import key_of, sign

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.gates import Gates, RunningGate
    from support.vendors import RunningSandbox

KEY = key_of(SECRET)
OUTCOMES = ("applied", "duplicate")


@pytest.fixture
async def sandbox() -> AsyncIterator[RunningSandbox]:
    """Serve a sandbox vendor that keeps its webhooks until they are asked for."""
    running = await run_sandbox()
    running.cloud.held = []
    yield running
    await running.runner.cleanup()


async def begun(gates: Gates, sandbox: RunningSandbox, **more: Any) -> tuple[RunningGate, str]:
    """Start a gate with a check under way; return it and the vendor's name for the check."""
    gate = await gate_with(gates, sandbox, **more)
    _, page = await opened(gate)
    return gate, page.rpartition("/")[2]


def told(session_id: str, state: str = "approved") -> bytes:
    """Return the body of a webhook."""
    return json.dumps({"type": "session", "data": {"id": session_id, "state": state}}).encode()


async def post(
    gate: RunningGate,
    body: bytes,
    *,
    keys: tuple[bytes, ...] = (KEY,),
    message_id: str = "msg_1",
    sent_at: float | None = None,
    path: str = WEBHOOK,
    signed: bytes | None = None,
    **headers: str,
) -> int:
    """Send a webhook, and return the status."""
    at = int(time.time() if sent_at is None else sent_at)
    given = sign(keys, message_id, at, body if signed is None else signed) | headers
    async with gate.http.post(path, data=body, headers=given) as answer:
        assert await answer.read() == b""  # nothing is echoed
        return answer.status


async def state(gate: RunningGate) -> CaseState:
    """Return where the one case stands."""
    (case,) = await gate.app.verification.desk.page()
    return case.state


async def count(gate: RunningGate, outcome: str) -> float:
    """Return how many webhooks ended like this."""
    return gate.app.metrics.value("gatekeeper_webhooks", "sandbox", outcome)


async def test_h39_a_true_one_is_taken(gates: Gates, sandbox: RunningSandbox) -> None:
    """Signed, in time, and the vendor says the same: the call goes through."""
    gate, session_id = await begun(gates, sandbox)
    sandbox.cloud.decide(session_id, "pass")
    assert await post(gate, told(session_id)) == 204
    assert await state(gate) is CaseState.VERIFIED
    assert await passes(gate)
    assert await count(gate, "applied") == 1


async def test_h39_its_word_alone_grants_nothing(gates: Gates, sandbox: RunningSandbox) -> None:
    """Whoever has the secret but not the vendor cannot raise anybody: the vendor is asked."""
    gate, session_id = await begun(gates, sandbox)
    assert await post(gate, told(session_id, "approved")) == 204
    assert await state(gate) is CaseState.PENDING
    assert not await passes(gate)
    assert await count(gate, "unchanged") == 1
    sandbox.cloud.decide(session_id, "fail")
    assert await post(gate, told(session_id, "approved"), message_id="msg_2") == 204
    assert await state(gate) is CaseState.REJECTED
    assert not await passes(gate)


@pytest.mark.parametrize("kind", ["unsigned", "foreign key", "re-serialised", "no headers"])
async def test_h39_forged(gates: Gates, sandbox: RunningSandbox, kind: str) -> None:
    """Without a signature of ours over these very bytes, the vendor is not even asked."""
    gate, session_id = await begun(gates, sandbox)
    sandbox.cloud.decide(session_id, "pass")
    body = told(session_id)
    if kind == "unsigned":
        status = await post(gate, body, **{"webhook-signature": ""})
    elif kind == "foreign key":
        status = await post(gate, body, keys=(b"f" * 32,))
    elif kind == "re-serialised":
        compact = json.dumps(json.loads(body), separators=(",", ":")).encode()
        status = await post(gate, compact, signed=body)
    else:
        async with gate.http.post(WEBHOOK, data=body) as answer:
            status = answer.status
    assert status == (400 if kind == "no headers" else 401)
    assert await state(gate) is CaseState.PENDING
    assert not await passes(gate)


async def test_h39_replayed_after_the_tolerance(gates: Gates, sandbox: RunningSandbox) -> None:
    """Old ones are refused by their signed time; within it, a repetition changes nothing."""
    gate, session_id = await begun(gates, sandbox)
    sandbox.cloud.decide(session_id, "pass")
    for age_s in (310, -310):
        assert await post(gate, told(session_id), sent_at=time.time() - age_s) == 401
    assert await state(gate) is CaseState.PENDING
    assert await count(gate, "stale") == 2
    assert await post(gate, told(session_id), sent_at=time.time() - 200) == 204
    assert await state(gate) is CaseState.VERIFIED
    assert await post(gate, told(session_id), sent_at=time.time() - 200) == 204
    assert await count(gate, "duplicate") == 1


async def test_h39_tenfold_at_once(gates: Gates, sandbox: RunningSandbox, tmp_path: Path) -> None:
    """Ten copies for each of two nodes: one effect, and every one is acknowledged."""
    shared = {"records_url": f"sqlite:///{tmp_path / 'records.db'}"}
    one, session_id = await begun(gates, sandbox, **shared)
    two = await gate_with(gates, sandbox, accounts={}, **shared)
    sandbox.cloud.decide(session_id, "pass")
    deliveries = [post(gate, told(session_id)) for gate in (one, two) for _ in range(10)]
    assert await asyncio.gather(*deliveries) == [204] * 20
    assert [await count(one, outcome) + await count(two, outcome) for outcome in OUTCOMES] == [
        1,
        19,
    ]
    (case,) = await one.app.verification.desk.page()
    assert len(await one.app.verification.desk.history(case.id)) == 2
    approved = ("gatekeeper_verification_cases", "approved")
    assert sum(gate.app.metrics.value(*approved) for gate in (one, two)) == 1


async def test_h39_out_of_order(gates: Gates, sandbox: RunningSandbox) -> None:
    """Approved first, then an older pending and an older failure: it stays approved."""
    gate, session_id = await begun(gates, sandbox)
    sandbox.cloud.announce(session_id)
    sandbox.cloud.decide(session_id, "pass")
    assert sandbox.cloud.held is not None
    pending, approved = sandbox.cloud.held
    for delivery in (approved, pending):
        assert await sandbox.cloud.send(delivery)
    assert await post(gate, told(session_id, "declined"), sent_at=time.time() - 100) == 204
    assert await state(gate) is CaseState.VERIFIED
    assert await passes(gate)


@pytest.mark.parametrize("here", [True, False], ids=["two secrets here", "two signatures there"])
async def test_h39_a_secret_is_being_changed(
    gates: Gates, sandbox: RunningSandbox, *, here: bool
) -> None:
    """No webhook is lost on either side of the change, and the old secret ends with it."""
    both = (SecretSource(env="WEBHOOK_SECRET"), SecretSource(env="OLD_WEBHOOK_SECRET"))
    more = {"step_up": sandbox.step_up().model_copy(update={"webhook_secrets": both})}
    gate, session_id = await begun(gates, sandbox, **(more if here else {}))
    sandbox.cloud.decide(session_id, "pass")
    old = key_of(OLD_SECRET)
    keys = (old,) if here else (old, KEY)
    assert await post(gate, told(session_id), keys=keys) == 204
    assert await state(gate) is CaseState.VERIFIED
    assert await post(gate, told(session_id), keys=(old,), message_id="msg_2") == (
        204 if here else 401
    )


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
async def test_h39_ten_megabytes(gates: Gates, sandbox: RunningSandbox, *, announced: bool) -> None:
    """Refused before it is read whole; what is exactly as long as allowed is read."""
    gate, session_id = await begun(gates, sandbox)
    body = b'{"x":"' + b"a" * 10_000_000 + b'"}'

    async def in_pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 50_000):
            yield body[start : start + 50_000]

    headers = sign([KEY], "msg_1", int(time.time()), body)
    try:
        data = io.BytesIO(body) if announced else in_pieces()
        async with gate.http.post(WEBHOOK, data=data, headers=headers) as answer:
            assert answer.status == 413
    except aiohttp.ClientConnectionError:
        pass  # cut off while it was still being sent
    assert await count(gate, "malformed") == 1
    filled = told(session_id)[:-1] + b', "more": "'
    filled += b"x" * (65_536 - len(filled) - 2) + b'"}'
    assert await post(gate, filled) == 204
    assert await post(gate, filled + b" ", message_id="msg_2") == 413


async def test_h39_unknown_sessions_and_vendors(gates: Gates, sandbox: RunningSandbox) -> None:
    """A session of nobody we know grants nothing and is acknowledged; a vendor is 404."""
    gate, _ = await begun(gates, sandbox)
    assert await post(gate, told("vs_somebody_else")) == 204
    assert await count(gate, "unknown") == 1
    for path in ("/gatekeeper/v1/webhooks/stripe", WEBHOOK + "/x", "/gatekeeper/v1/webhooks/"):
        assert await post(gate, told("vs_1"), path=path) == 404
    async with gate.http.get(WEBHOOK) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert not await passes(gate)
    alone = await gate_with(gates, None)
    assert await post(alone, told("vs_1")) == 404


@pytest.mark.parametrize("when", ["before", "during"])
async def test_h39_crash_between_receipt_and_commit(
    gates: Gates, sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """What was not committed was not acknowledged: the vendor sends it again, and it counts."""
    gate, session_id = await begun(gates, sandbox)
    name = "noted" if when == "before" else "apply"

    async def broken(*_: Any, **__: Any) -> Any:
        raise RecordsError("the disk is gone")

    monkeypatch.setattr(Cases, name, broken)
    sandbox.cloud.held = None
    sandbox.cloud.decide(session_id, "pass")

    async def was_refused() -> bool:
        return await count(gate, "unavailable") >= 1

    await eventually(was_refused)
    assert await state(gate) is CaseState.PENDING
    monkeypatch.undo()
    await eventually(lambda: passes(gate))

    async def was_applied() -> bool:  # counted after it took effect
        return await count(gate, "applied") == 1

    await eventually(was_applied)


async def test_h39_a_vendor_that_cannot_be_asked(gates: Gates, sandbox: RunningSandbox) -> None:
    """Without the vendor's own word nothing rises, and the webhook has to come again."""
    gate, session_id = await begun(gates, sandbox)
    sandbox.cloud.decide(session_id, "pass")
    whole = sandbox.cloud.settings
    sandbox.cloud.settings = replace(whole, api_key="changed")
    assert await post(gate, told(session_id)) == 503
    assert await state(gate) is CaseState.PENDING
    sandbox.cloud.settings = whole
    assert await post(gate, told(session_id)) == 204
    assert await state(gate) is CaseState.VERIFIED


async def test_h39_a_flood_of_forged_ones_is_not_read(
    gates: Gates, sandbox: RunningSandbox
) -> None:
    """After sixty in a minute an address is told to go away; the vendor's own is not."""
    gate, session_id = await begun(gates, sandbox)
    statuses = [await post(gate, b"{}", keys=(b"f" * 32,)) for _ in range(62)]
    assert statuses[:60] == [401] * 60
    assert statuses[-1] == 429
    sandbox.cloud.decide(session_id, "pass")
    elsewhere = {"X-Forwarded-For": "8.8.8.8"}
    assert await post(gate, told(session_id), **elsewhere) == 204
    assert await state(gate) is CaseState.VERIFIED


class Watched(dict[str, Any]):
    """Sessions that tell when somebody has asked for one."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    def get(self, *arguments: Any) -> Any:
        """Tell, then answer."""
        self.asked.set()
        return super().get(*arguments)


async def test_h39_a_node_killed_before_its_commit_loses_nothing(
    gates: Gates, sandbox: RunningSandbox, tmp_path: Path
) -> None:
    """SIGKILL after the vendor was asked, before the commit: the next delivery does it all.

    The records are locked from outside, so that the node is surely waiting to write when it dies.
    """
    for name, text in (("secret", "s" * 40), ("key", API_KEY), ("hook", SECRET)):
        (tmp_path / name).write_text(text)
    shared: dict[str, Any] = {
        "records_url": f"sqlite:///{tmp_path / 'records.db'}",
        "secret": SecretSource(file=tmp_path / "secret"),
        "step_up": sandbox.step_up().model_copy(
            update={
                "vendor_key": SecretSource(file=tmp_path / "key"),
                "webhook_secrets": (SecretSource(file=tmp_path / "hook"),),
            }
        ),
    }
    gate, session_id = await begun(gates, sandbox, **shared)
    watched = Watched()
    watched.update(sandbox.cloud.sessions)
    sandbox.cloud.sessions = watched
    geoip, model = gate.settings.geoip, gate.upstream.url
    async with served(tmp_path / "doomed", geoip, model, **shared) as doomed:
        sandbox.cloud.held = None
        sandbox.cloud.reports_to(f"http://127.0.0.1:{doomed.port}{WEBHOOK}")
        lock = sqlite3.connect(tmp_path / "records.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        watched.asked.clear()
        sandbox.cloud.decide(session_id, "pass")
        async with asyncio.timeout(SOON_S):
            await watched.asked.wait()
        doomed.kill()
        assert await doomed.ended() != 0
        sandbox.cloud.reports_to(f"{gate.url}{WEBHOOK}")
        lock.execute("ROLLBACK")
        lock.close()
    await eventually(lambda: passes(gate))
    assert await count(gate, "applied") == 1
    (case,) = await gate.app.verification.desk.page()
    assert len(await gate.app.verification.desk.history(case.id)) == 2
