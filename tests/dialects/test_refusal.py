"""Refusals as the real SDKs see them (H33), and as plain HTTP clients do."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gatekeeper.dialects import PLAIN, dialect_for
from gatekeeper.dialects.base import RefusalText
from gatekeeper.policy.reasons import REASONS
from gatekeeper.policy.words import Reason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gatekeeper.dialects.base import Dialect

CHAT = dialect_for("POST", "/v1/chat/completions")
MESSAGES = dialect_for("POST", "/v1/messages")
LINK = "https://gate.example/verify/abc"


def refusal(reason: Reason, **more: Any) -> RefusalText:
    """Return a refusal as the gate builds it."""
    message = REASONS[reason].message
    if reason is Reason.IDENTITY_VERIFICATION_REQUIRED:
        message = f"{message} Open {LINK} to verify."
        more = {"verification_url": LINK, "verification_expires_at": 1_800_000_000.0, **more}
    return RefusalText(REASONS[reason].status, reason, message, "dec_123", **more)


class Refuser:
    """A server that refuses every call with what ``text`` says at the moment."""

    def __init__(self) -> None:
        self.text = refusal(Reason.REQUEST_DENIED)
        self.calls = 0

    async def handle(self, request: web.Request) -> web.Response:
        """Refuse in the dialect of the route."""
        self.calls += 1
        dialect = dialect_for(request.method, request.path)
        return web.Response(
            status=self.text.status,
            body=dialect.refusal_body(self.text),
            headers=dialect.refusal_headers(self.text),
        )


@pytest.fixture
async def served() -> AsyncIterator[tuple[Refuser, str]]:
    """Serve a refuser; yield it with its base URL."""
    refuser = Refuser()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuser.handle)
    async with TestServer(app) as server:
        yield refuser, str(server.make_url("")).rstrip("/")


OPENAI_EXCEPTIONS: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    408: openai.APIStatusError,
    413: openai.APIStatusError,
    429: openai.RateLimitError,
    451: openai.APIStatusError,
    502: openai.InternalServerError,
    503: openai.InternalServerError,
    504: openai.InternalServerError,
    508: openai.InternalServerError,
}
ANTHROPIC_EXCEPTIONS: dict[int, tuple[type[anthropic.APIStatusError], str]] = {
    400: (anthropic.BadRequestError, "invalid_request_error"),
    401: (anthropic.AuthenticationError, "authentication_error"),
    403: (anthropic.PermissionDeniedError, "permission_error"),
    404: (anthropic.NotFoundError, "not_found_error"),
    408: (anthropic.APIStatusError, "timeout_error"),
    413: (anthropic.APIStatusError, "request_too_large"),
    429: (anthropic.RateLimitError, "rate_limit_error"),
    451: (anthropic.APIStatusError, "permission_error"),
    502: (anthropic.InternalServerError, "api_error"),
    503: (anthropic.InternalServerError, "overloaded_error"),
    504: (anthropic.InternalServerError, "timeout_error"),
    508: (anthropic.InternalServerError, "api_error"),
}


async def test_h33_openai_raises_the_right_exception(served: tuple[Refuser, str]) -> None:
    """For every reason: class by status, text, code and request id in the exception."""
    refuser, url = served
    async with openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as client:
        for reason in Reason:
            refuser.text = refusal(reason)
            with pytest.raises(OPENAI_EXCEPTIONS[refuser.text.status]) as raised:
                await client.chat.completions.create(model="m", messages=[])
            error = raised.value
            assert error.status_code == refuser.text.status
            assert error.code == reason.value
            assert error.request_id == "dec_123"
            assert refuser.text.message in str(error)


async def test_h33_anthropic_raises_the_right_exception(served: tuple[Refuser, str]) -> None:
    """For every reason: class by status, type, text, code and request id in the exception."""
    refuser, url = served
    async with anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=0) as client:
        for reason in Reason:
            refuser.text = refusal(reason)
            kind, error_type = ANTHROPIC_EXCEPTIONS[refuser.text.status]
            with pytest.raises(kind) as raised:
                await client.messages.create(model="m", max_tokens=1, messages=[])
            error = raised.value
            assert error.status_code == refuser.text.status
            assert error.type == error_type
            assert error.error_code == reason.value
            assert error.request_id == "dec_123"
            assert error.api_message == refuser.text.message
            assert refuser.text.message[:40] in str(error)


async def test_h33_step_up_tells_what_to_do_from_the_exception_alone(
    served: tuple[Refuser, str],
) -> None:
    """The link is in the text of the exception and, with its expiry, in the body."""
    refuser, url = served
    refuser.text = refusal(Reason.IDENTITY_VERIFICATION_REQUIRED)
    async with openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1") as client:
        with pytest.raises(openai.PermissionDeniedError) as raised:
            await client.chat.completions.create(model="m", messages=[])
    assert LINK in str(raised.value)
    body: Any = raised.value.body
    assert body["code"] == "identity_verification_required"
    assert body["verification_url"] == LINK
    assert body["verification_expires_at"] == "2027-01-15T08:00:00+00:00"
    assert body["decision_id"] == "dec_123"
    async with anthropic.AsyncAnthropic(api_key="k", base_url=url) as other:
        with pytest.raises(anthropic.PermissionDeniedError) as denied:
            await other.messages.create(model="m", max_tokens=1, messages=[])
    assert LINK in str(denied.value)
    inner: Any = denied.value.body
    assert inner["error"]["verification_url"] == LINK
    assert refuser.calls == 2  # neither tried again


@pytest.mark.parametrize("reason", list(Reason))
async def test_h33_sdks_try_again_only_where_it_helps(
    served: tuple[Refuser, str], reason: Reason
) -> None:
    """``x-should-retry`` decides, whatever the SDKs think of the status."""
    refuser, url = served
    refuser.text = refusal(reason)
    calls = 2 if REASONS[reason].retryable else 1
    quick: dict[str, Any] = {"api_key": "k", "max_retries": 1}
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", **quick) as client:
        client._calculate_retry_timeout = lambda *_: 0.0  # type: ignore[method-assign]
        with pytest.raises(openai.APIStatusError):
            await client.chat.completions.create(model="m", messages=[])
    assert refuser.calls == calls
    async with anthropic.AsyncAnthropic(base_url=url, **quick) as other:
        other._calculate_retry_timeout = lambda *_: 0.0  # type: ignore[method-assign]
        with pytest.raises(anthropic.APIStatusError):
            await other.messages.create(model="m", max_tokens=1, messages=[])
    assert refuser.calls == 2 * calls


async def test_h33_sdks_show_the_text_of_plain_routes_too(served: tuple[Refuser, str]) -> None:
    """A refusal as problem details still has its text in the exception."""
    refuser, url = served
    async with openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as client:
        with pytest.raises(openai.PermissionDeniedError, match="not permitted") as raised:
            await client.batches.list()
    assert raised.value.request_id == "dec_123"
    async with anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=0) as other:
        with pytest.raises(anthropic.PermissionDeniedError, match="not permitted") as denied:
            await other.messages.batches.list()
    assert denied.value.request_id == "dec_123"
    assert refuser.calls == 2


@pytest.mark.parametrize(
    ("wait_s", "header", "again"),
    [
        (None, None, "true"),
        (0.2, "1", "true"),
        (17.01, "18", "true"),
        (61.0, "61", "false"),
        (math.inf, None, "false"),
    ],
)
@pytest.mark.parametrize("dialect", [CHAT, MESSAGES, PLAIN])
def test_retry_after(
    dialect: Dialect, wait_s: float | None, header: str | None, again: str
) -> None:
    """Whole seconds, rounded up; SDKs do not keep long waits, so they are told not to come."""
    headers = dialect.refusal_headers(refusal(Reason.RATE_LIMIT_EXCEEDED, retry_after_s=wait_s))
    assert headers.get("Retry-After") == header
    assert headers["x-should-retry"] == again
    assert headers["Cache-Control"] == "no-store"


def test_problem_details() -> None:
    """Plain refusals follow RFC 9457, with the project's fields as extensions."""
    text = refusal(Reason.REGION_NOT_SUPPORTED)
    body = json.loads(PLAIN.refusal_body(text))
    assert body["type"] == "about:blank"
    assert body["title"] == "Unavailable For Legal Reasons"
    assert body["status"] == 451
    assert body["detail"] == text.message
    assert body["code"] == "region_not_supported"
    assert PLAIN.refusal_headers(text)["Content-Type"] == "application/problem+json"
    documented = refusal(Reason.REGION_NOT_SUPPORTED, documentation_url="https://d.example/r")
    assert json.loads(PLAIN.refusal_body(documented))["type"] == "https://d.example/r"
    odd = RefusalText(599, Reason.SERVICE_UNAVAILABLE, "x", "d")
    assert json.loads(PLAIN.refusal_body(odd))["title"] == "Error"


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES, PLAIN])
def test_h38_text_cannot_break_out_of_the_body(dialect: Dialect) -> None:
    """Quotes, line ends and control characters in a text stay in it."""
    message = 'say "hi"\r\n\x1b[0m</script>'
    text = RefusalText(400, Reason.INVALID_BODY, message, "d")
    body = dialect.refusal_body(text)
    assert b"\n" not in body
    assert message in json.loads(body).get("detail", json.loads(body)["error"]["message"])


def test_openai_names_the_parameter_at_fault() -> None:
    """Refusals about the model point to it."""
    for reason, param in ((Reason.MODEL_NOT_SERVED, "model"), (Reason.INVALID_BODY, None)):
        assert json.loads(CHAT.refusal_body(refusal(reason)))["error"]["param"] == param


async def stream_handler(request: web.Request) -> web.StreamResponse:
    """Send half an answer, then what the gate sends when its upstream dies."""
    dialect = dialect_for(request.method, request.path)
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    if dialect is CHAT:
        chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": "half"}}]}
        await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
    else:
        start = {"type": "message_start", "message": {"id": "m", "content": [], "usage": {}}}
        await response.write(f"event: message_start\ndata: {json.dumps(start)}\n\n".encode())
    await response.write(dialect.stream_error())
    return response


async def test_h33_h32_sdks_raise_in_the_middle_of_a_stream() -> None:
    """After half an answer both SDKs raise with the text, rather than end quietly."""
    app = web.Application()
    app.router.add_post("/{path:.*}", stream_handler)
    async with TestServer(app) as server:
        url = str(server.make_url("")).rstrip("/")
        async with openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1") as client:
            chunks = await client.chat.completions.create(model="m", messages=[], stream=True)
            assert (await anext(chunks)).choices[0].delta.content == "half"
            with pytest.raises(openai.APIError, match="broke off its answer") as raised:
                await anext(chunks)
            assert raised.value.code == "upstream_invalid"
        async with anthropic.AsyncAnthropic(api_key="k", base_url=url) as other:
            events = await other.messages.create(model="m", max_tokens=1, messages=[], stream=True)
            assert (await anext(events)).type == "message_start"
            with pytest.raises(anthropic.APIStatusError, match="broke off its answer") as broken:
                await anext(events)
            assert broken.value.type == "api_error"
    assert PLAIN.stream_error() == b""
