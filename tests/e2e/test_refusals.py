"""Every refusal, as users of the SDKs meet it: the right exception, a message that helps (H33)."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest
from support.gates import Clock, eventually, rules_text

from gatekeeper.settings import Deadlines, DecisionLog, Sizes, StepUp

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import web
    from support.gates import Gates, RunningGate

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
SUPPORT = "Write to help@example.com."
CUBA = {"x-forwarded-for": "152.206.0.1"}

RULES = rules_text("""
limits:
  - {id: one-call, description: One., unit: requests, per: [account], rate: 2/minute, burst: 1}
  - {id: few-tokens, description: Few., unit: output_tokens, per: [account], rate: 9000/minute}
signals:
  - {id: secret-signal, description: S., when: call.model == "demo-denied", points: 77}
thresholds:
  - {id: secret-threshold, description: T., at_least: 70, verdict: deny}
""")
ACCOUNTS: dict[str, dict[str, object]] = {
    "acme": {},
    "banned": {"banned_until": "forever", "ban_reason": "stolen cards"},
    "watched": {"tier": "elevated"},
    "small": {"tier": "restricted"},
}


@dataclass(frozen=True)
class Case:
    """One way to be refused."""

    name: str
    status: int
    code: str
    says: str
    """What to do, as it must stand in the exception's text."""
    openai: type[openai.APIStatusError]
    anthropic: type[anthropic.APIStatusError]
    retried: bool = False
    account: str = "acme"
    model: str = "demo-small"
    headers: dict[str, str] = field(default_factory=dict)
    max_tokens: int = 50
    calls_before: int = 0


CASES = (
    Case("no model named", 400, "invalid_body", "`model` must be the name",
         openai.BadRequestError, anthropic.BadRequestError, model=""),
    Case("unknown key", 401, "credentials_invalid", "mistyped or cut off: copy it again",
         openai.AuthenticationError, anthropic.AuthenticationError, account="gk_nonsense"),
    Case("suspended", 403, "account_suspended", SUPPORT,
         openai.PermissionDeniedError, anthropic.PermissionDeniedError, account="banned"),
    Case("denied", 403, "request_denied", SUPPORT,
         openai.PermissionDeniedError, anthropic.PermissionDeniedError, model="demo-denied"),
    Case("model not permitted", 403, "model_not_permitted", "Choose another model",
         openai.PermissionDeniedError, anthropic.PermissionDeniedError, account="small",
         model="demo-large"),
    Case("step-up", 403, "identity_verification_required",
         "Open https://gate.example/gatekeeper/v1/verify/",
         openai.PermissionDeniedError, anthropic.PermissionDeniedError, account="watched"),
    Case("model not served", 404, "model_not_served", "Check its name",
         openai.NotFoundError, anthropic.NotFoundError, model="other"),
    Case("too large", 413, "body_too_large", "At most 5000 bytes",
         openai.APIStatusError, anthropic.RequestTooLargeError, model="demo-" + "x" * 5000),
    Case("rate limited", 429, "rate_limit_exceeded", "Wait, then send the request again",
         openai.RateLimitError, anthropic.RateLimitError, retried=True, calls_before=1),
    Case("larger than the limit", 429, "request_exceeds_limit", "waiting will not help",
         openai.RateLimitError, anthropic.RateLimitError, max_tokens=9_001),
    Case("embargoed", 451, "region_not_supported", "not available from your region",
         openai.APIStatusError, anthropic.APIStatusError, headers=CUBA),
)  # fmt: skip


async def front(gates: Gates, **more: Any) -> RunningGate:
    """Start a gate that can refuse for every reason of :data:`CASES`."""
    settings: dict[str, Any] = {
        "sizes": Sizes(max_body_bytes=5_000),
        "step_up": StepUp(support=SUPPORT),
        "public_url": "https://gate.example",
    }
    return await gates(
        rules=RULES,
        accounts=ACCOUNTS,
        clock=Clock(),
        upstream={"models": ("demo-*",)},
        **{**settings, **more},
    )


async def ask(gate: RunningGate, family: str, case: Case, **options: Any) -> Any:
    """Send the call of ``case`` with the SDK of ``family``."""
    more: dict[str, Any] = {
        "model": case.model,
        "max_tokens": case.max_tokens,
        "messages": HELLO,
        "extra_headers": case.headers,
    }
    if family == "openai":
        return await gate.openai(case.account, **options).chat.completions.create(**more)
    return await gate.anthropic(case.account, **options).messages.create(**more)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the SDKs wait in no time; returns how long they would have waited."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("anyio.sleep", sleep)
    return waited


async def test_h33_each_refusal_raises_its_exception(gates: Gates, waits: list[float]) -> None:
    """Both SDKs raise the exception of the status, whose text helps and names the decision.

    They repeat only what may pass later, and nothing that is refused reaches the upstream.
    """
    for family, base in (
        ("openai", openai.APIStatusError),
        ("anthropic", anthropic.APIStatusError),
    ):
        gate = await front(gates)
        for case in CASES:
            for _ in range(case.calls_before):
                await ask(gate, family, case)
            received = len(gate.upstream.book)
            with pytest.raises(base) as raised:
                await ask(gate, family, case, max_retries=2)
            error: Any = raised.value
            assert type(error) is getattr(case, family), case.name
            assert error.status_code == case.status, case.name
            assert case.says in str(error), (case.name, str(error))
            decision_id = error.response.headers["gatekeeper-decision"]
            assert error.request_id == decision_id
            assert decision_id in str(error)
            assert case.code in error.response.text, case.name
            assert len(gate.upstream.book) == received, case.name
            tried = int(error.response.request.headers["x-stainless-retry-count"])
            assert tried == (2 if case.retried else 0), case.name
            record = await gate.decision(decision_id)
            assert record["reason"] == case.code
        await gate.stop()
        assert sum(record["kind"] == "decision" for record in gate.book()) == len(CASES) + 1 + 2


async def test_codes_are_fields_of_the_exceptions(gates: Gates) -> None:
    """A program reads code and link without parsing text: `code` and `body` of the exception."""
    gate = await front(gates)
    step_up = next(case for case in CASES if case.name == "step-up")
    with pytest.raises(openai.PermissionDeniedError) as raised:
        await ask(gate, "openai", step_up)
    assert raised.value.code == "identity_verification_required"
    body: Any = raised.value.body
    assert body["verification_url"].startswith("https://gate.example/gatekeeper/v1/verify/")
    assert body["verification_expires_at"].endswith("+00:00")
    with pytest.raises(anthropic.PermissionDeniedError) as also:
        await ask(gate, "anthropic", step_up)
    assert also.value.type == "permission_error"
    body = also.value.body
    assert body["error"]["code"] == "identity_verification_required"


async def test_retry_after_is_what_the_sdks_wait(
    gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that retries waits for Retry-After, and then the call passes."""
    clock = Clock()
    gate = await gates(rules=RULES, accounts=ACCOUNTS, clock=clock)
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        clock.advance(seconds)

    monkeypatch.setattr("anyio.sleep", sleep)
    rate_limited = next(case for case in CASES if case.name == "rate limited")
    for family in ("openai", "anthropic", "openai"):
        await ask(gate, family, rate_limited, max_retries=1)
    assert waited == [30, 30]  # two a minute, one at once
    assert len(gate.upstream.book) == 3


async def test_long_waits_are_not_retried(gates: Gates, waits: list[float]) -> None:
    """SDKs come back after a minute at most, which is too early here: they are told not to."""
    slow = rules_text("""
limits:
  - {id: slow, description: S., unit: requests, per: [account], rate: 1/hour}
""")
    gate = await gates(rules=slow, clock=Clock())
    client = gate.openai(max_retries=2)
    await client.chat.completions.create(model="demo-small", messages=HELLO)
    with pytest.raises(openai.RateLimitError) as raised:
        await client.chat.completions.create(model="demo-small", messages=HELLO)
    assert raised.value.response.headers["retry-after"] == "3600"
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert waits == []


async def hang(_: web.Request) -> None:
    """Never answer."""
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("trouble", "status", "code"),
    [
        ("unreachable", 502, "upstream_unreachable"),
        ("silent", 504, "upstream_timeout"),
    ],
)
async def test_could_not_is_retried(
    gates: Gates, waits: list[float], trouble: str, status: int, code: str
) -> None:
    """What failed on this side is a 5xx that the SDKs repeat, in words that blame nobody else."""
    gate = await gates(rules=rules_text(), deadlines=Deadlines(first_byte_s=0.05))
    if trouble == "unreachable":
        await gate.upstream.stop()
    gate.upstream.answer = hang if trouble == "silent" else None
    for client in (gate.openai(max_retries=1), gate.anthropic(max_retries=1)):
        create: Any = (
            client.chat.completions.create
            if isinstance(client, openai.AsyncOpenAI)
            else client.messages.create
        )
        with pytest.raises((openai.InternalServerError, anthropic.InternalServerError)) as raised:
            await create(model="demo-small", max_tokens=5, messages=HELLO)
        error: Any = raised.value
        assert error.status_code == status
        assert code in error.response.text
        assert "ry again shortly" in str(error)
        assert error.response.request.headers["x-stainless-retry-count"] == "1"


async def test_a_gate_that_cannot_record_admits_nothing(
    gates: Gates, waits: list[float], tmp_path: Path
) -> None:
    """503 while the disk refuses, told by readiness too; what was refused is recorded later."""
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a directory")
    log = DecisionLog(directory=in_the_way / "decisions")
    gate = await gates(rules=rules_text(), decision_log=log)
    ready = f"http://127.0.0.1:{gate.app.ops_port}/readyz"

    async def red() -> bool:
        return (await gate.http.get(ready)).status == 503

    await eventually(red)
    with pytest.raises(openai.InternalServerError) as raised:
        await gate.openai(max_retries=1).chat.completions.create(model="demo-small", messages=HELLO)
    assert raised.value.status_code == 503
    assert "service_unavailable" in raised.value.response.text
    assert len(waits) == 1
    assert gate.upstream.book == []
    in_the_way.unlink()
    assert raised.value.request_id is not None
    assert (await gate.decision(raised.value.request_id))["verdict"] == "unavailable"
    assert (await gate.http.get(ready)).status == 200


async def test_problem_details_where_no_dialect_is_spoken(gates: Gates) -> None:
    """A refusal on another route is RFC 9457, with the same code and decision id."""
    gate = await front(gates)
    async with gate.http.get("/anything", headers=CUBA) as answer:
        problem = await answer.json()
        assert answer.content_type == "application/problem+json"
        assert answer.status == problem["status"] == 451
        assert answer.headers["link"] == '<https://gate.example>; rel="blocked-by"'
        assert problem["code"] == "region_not_supported"
        assert problem["decision_id"] == answer.headers["gatekeeper-decision"]
        assert SUPPORT in problem["detail"]


TWO_CAUSES = rules_text("""
signals:
  - {id: secret-alpha, description: A., when: call.client == "alpha", points: 81}
  - {id: secret-beta, description: B., when: call.client == "beta", points: 93}
thresholds:
  - {id: secret-threshold, description: T., at_least: 60, verdict: deny}
step_up:
  - {id: secret-step, description: S., when: call.client == "gamma", assurance: ial2}
limits:
  - id: secret-shared
    description: All together.
    unit: requests
    per: [everyone]
    rate: 1/minute
    when: call.client == "delta"
""")


async def test_h34_refusals_tell_nothing_of_their_cause(gates: Gates) -> None:
    """Denials of different causes are the same byte for byte but for ids; no rule is ever named."""
    gate = await gates(rules=TWO_CAUSES, clock=Clock())
    whole, ids = [], []
    for client in ("alpha", "beta", "gamma", "delta", "delta"):
        async with gate.http.post(
            "/v1/chat/completions",
            headers=gate.headers(user_agent=client),
            json={"model": "demo-small", "messages": HELLO},
        ) as answer:
            ids.append(answer.headers["gatekeeper-decision"])
            headers = sorted((k, v) for k, v in answer.headers.items() if k != "Date")
            text = f"{answer.status} {headers} {await answer.text()}"
        text = re.sub(r"/verify/[\w.-]+", "/verify/LINK", text).replace(ids[-1], "ID")
        whole.append(text.replace(rules_revision(gate), "REVISION"))
    assert [text[:3] for text in whole] == ["403", "403", "403", "200", "429"]
    assert whole[0] == whole[1]
    for refusal in (*whole[:3], whole[4]):
        for told in ("secret", "signal", "threshold", "score", "everyone", "REVISION", "ial2"):
            assert told not in refusal
    causes = [(await gate.decision(decision_id))["score"]["total"] for decision_id in ids[:2]]
    assert causes == [81, 93]


def rules_revision(gate: RunningGate) -> str:
    """Return the revision of the rules in force, which no caller may see."""
    return gate.app.gate.snapshot.rules.revision
