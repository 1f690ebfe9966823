"""Fetching key sets: off the path, at most one early fetch, and the last good set serves on."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec
from jwt import PyJWK
from jwt.algorithms import ECAlgorithm

from gatekeeper.facts.jwks import JwksError
from gatekeeper.facts.jwks_source import JwksSource, Lookup, file_loader, url_loader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

AT = 1_790_000_000.0
DAY_S = 86_400.0


def document(*kids: str) -> bytes:
    """Return a JWK Set with a new P-256 key for each ``kid``."""
    keys = [
        {
            **ECAlgorithm.to_jwk(
                ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True
            ),
            "kid": kid,
        }
        for kid in kids
    ]
    return json.dumps({"keys": keys}).encode()


class Provider:
    """An identity provider in memory that counts how often it is asked."""

    def __init__(self, *kids: str) -> None:
        self.data = document(*kids)
        self.down = False
        self.loads = 0
        self.asked = asyncio.Event()

    async def load(self) -> bytes:
        """Answer with the current document, or fail."""
        self.loads += 1
        self.asked.set()
        if self.down:
            raise JwksError("down")
        return self.data


def source_of(provider: Provider, **options: Any) -> JwksSource:
    """Return a source with literal time and chance."""
    return JwksSource(
        provider.load,
        **{
            "algorithms": ("ES256",),
            "refresh_s": 300.0,
            "clock": lambda: AT,
            "chance": lambda: 1.0,
            **options,
        },
    )


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until ``condition`` holds."""
    while not condition():  # noqa: ASYNC110 - the source has no event to wait for
        await asyncio.sleep(0)


async def test_h18_a_provider_down_at_start_is_unknown_until_it_answers() -> None:
    """Before the first success there are no keys, which is not the same as no such key."""
    provider = Provider("a")
    provider.down = True
    source = source_of(provider)
    assert source.find("a", "ES256", AT) is Lookup.NO_KEYS
    assert not await source.refresh(AT)
    assert source.find("a", "ES256", AT) is Lookup.NO_KEYS
    assert (source.failing, source.failures, source.last_error) == (True, 1, "down")
    provider.down = False
    assert await source.refresh(AT + 1)
    assert isinstance(source.find("a", "ES256", AT + 1), PyJWK)
    assert not source.failing


async def test_h18_the_last_good_keys_serve_through_a_day_and_end_after_a_week() -> None:
    """An outage of 24 h is not noticed by callers; keys nobody confirmed for a week are."""
    provider = Provider("a")
    source = source_of(provider)
    await source.refresh(AT)
    provider.down = True
    assert not await source.refresh(AT + DAY_S)
    assert isinstance(source.find("a", "ES256", AT + DAY_S), PyJWK)
    assert source.find("a", "ES256", AT + 8 * DAY_S) is Lookup.NO_KEYS


@pytest.mark.parametrize("bad", [b"", b'{"keys": []}', b"<html>", b"{" * 1000])
async def test_a_bad_document_never_replaces_a_good_one(bad: bytes) -> None:
    """A provider that answers with nonsense has failed, nothing more."""
    provider = Provider("a")
    source = source_of(provider)
    await source.refresh(AT)
    before = source.keys(AT)
    provider.data = bad
    assert not await source.refresh(AT + 1)
    assert source.keys(AT + 1) is before


async def test_an_unchanged_document_keeps_the_same_set() -> None:
    """Caches keyed by the set survive a refresh that brings nothing new, and no other."""
    provider = Provider("a")
    source = source_of(provider)
    await source.refresh(AT)
    before = source.keys(AT)
    await source.refresh(AT + 1)
    assert source.keys(AT + 1) is before
    provider.data = document("a")
    await source.refresh(AT + 2)
    assert source.keys(AT + 2) is not before


async def test_h18_ten_thousand_random_kids_cause_one_fetch_per_interval() -> None:
    """Unknown key ids are believed once per interval; until then the answer is no."""
    provider = Provider("a")
    source = source_of(provider)
    await source.refresh(AT)
    early = {source.find(f"k{n}", "ES256", AT + 1) for n in range(10_000)}
    late = {source.find(f"k{n}", "ES256", AT + 31) for n in range(10_000)}
    assert (early, late) == ({Lookup.NO_SUCH_KEY}, {Lookup.NOT_ASKED})
    assert provider.loads == 1, "nothing is fetched on the path"
    await source.refresh(AT + 31)
    assert source.find("k1", "ES256", AT + 32) is Lookup.NO_SUCH_KEY


async def test_h28_a_clock_stepped_back_does_not_stop_early_fetches() -> None:
    """An hour back is as far away as an hour ahead."""
    provider = Provider("a")
    source = source_of(provider)
    await source.refresh(AT)
    assert source.find("new", "ES256", AT - 3600) is Lookup.NOT_ASKED


async def test_while_the_provider_fails_an_unknown_kid_stays_open() -> None:
    """After rotation during an outage the caller is told to come back, not to go away."""
    provider = Provider("a")
    source = source_of(provider)
    await source.refresh(AT)
    provider.down = True
    await source.refresh(AT + 300)
    assert source.find("b", "ES256", AT + 301) is Lookup.NOT_ASKED
    assert source.find(None, "ES384", AT + 301) is Lookup.NO_SUCH_KEY
    assert source.find("a", "ES384", AT + 301) is Lookup.NO_SUCH_KEY


async def test_retries_back_off_with_chance_and_never_past_the_interval() -> None:
    """Pauses double from one second to a minute, halved at most by chance."""
    provider = Provider("a")
    source = source_of(provider)
    provider.down = True
    pauses = []
    for _ in range(8):
        await source.refresh(AT)
        pauses.append(source.due_in_s())
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert source_of(provider, refresh_s=5.0).due_in_s() == 5
    lucky = source_of(provider, chance=lambda: 0.0)
    await lucky.refresh(AT)
    assert lucky.due_in_s() == 0.5


async def test_the_task_fetches_at_start_and_early_when_a_kid_is_unknown() -> None:
    """After rotation one token with the new ``kid`` brings the new keys."""
    provider = Provider("a")
    source = source_of(provider, early_interval_s=0.0)
    task = asyncio.create_task(source.run())
    try:
        async with asyncio.timeout(10):
            await until(lambda: source.keys(AT) is not None)
            before = source.keys(AT)
            provider.data = document("b")
            for number in range(100):
                assert source.find(f"b{number}", "ES256", AT) is Lookup.NOT_ASKED
            await until(lambda: source.keys(AT) is not before)
        assert isinstance(source.find("b", "ES256", AT), PyJWK)
        assert provider.loads == 2
    finally:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_task_retries_after_a_failure() -> None:
    """A provider down at start is asked again without anybody calling."""
    provider = Provider("a")
    provider.down = True
    source = source_of(provider, refresh_s=0.001)
    task = asyncio.create_task(source.run())
    try:
        async with asyncio.timeout(10):
            await provider.asked.wait()
            provider.down = False
            await until(lambda: source.keys(AT) is not None)
    finally:
        task.cancel()
    assert source.failures >= 1


async def test_the_task_fetches_again_after_its_interval() -> None:
    """Nobody has to ask for a regular refresh."""
    provider = Provider("a")
    task = asyncio.create_task(source_of(provider, refresh_s=0.001, early_interval_s=0.0).run())
    try:
        async with asyncio.timeout(10):
            await until(lambda: provider.loads >= 3)
    finally:
        task.cancel()


def test_algorithms_outside_the_list_are_refused() -> None:
    """HS256 and none cannot even be configured."""
    for algorithms in (("HS256",), ("none",), ()):
        with pytest.raises(ValueError, match="must be some of"):
            source_of(Provider(), algorithms=algorithms)


async def test_a_file_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    """A missing file and one past the cap are failures like any other."""
    file = tmp_path / "jwks.json"
    load = file_loader(file)
    with pytest.raises(JwksError, match="cannot read"):
        await load()
    file.write_bytes(document("a"))
    assert await load() == file.read_bytes()
    file.write_bytes(b" " * 1_000_001)
    with pytest.raises(JwksError, match="larger than"):
        await load()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open a client session."""
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    """Start a provider that answers well and badly."""

    async def good(_: web.Request) -> web.Response:
        return web.Response(body=b'{"keys": []}')

    async def redirect(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "file:///etc/passwd"})

    async def moved(_: web.Request) -> web.Response:
        return web.Response(status=301, headers={"Location": "/good"})

    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(100):
            await answer.write(b" " * 100_000)
        return answer

    async def coded(_: web.Request) -> web.Response:
        answer = web.Response(body=b" " * 10_000)
        answer.enable_compression(web.ContentCoding.gzip)
        return answer

    async def cut(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "100"})
        await answer.prepare(request)
        await answer.write(b"{")
        assert request.transport is not None
        request.transport.close()
        return answer

    async def silent(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application()
    for handler in (good, redirect, moved, endless, coded, cut, silent):
        app.router.add_get(f"/{handler.__name__}", handler)
    opened = TestServer(app, handler_cancellation=True)
    await opened.start_server()
    yield opened
    await opened.close()


def loader(
    session: aiohttp.ClientSession, server: TestServer, path: str, **options: float
) -> Callable[[], Awaitable[bytes]]:
    """Return a loader for one path of the provider."""
    return url_loader(session, str(server.make_url(path)), **options)


async def test_a_url_is_fetched(session: aiohttp.ClientSession, server: TestServer) -> None:
    """The body comes back as it was sent."""
    assert await loader(session, server, "/good")() == b'{"keys": []}'


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/redirect", "answered 302"),
        ("/moved", "answered 301"),
        ("/absent", "answered 404"),
        ("/endless", "larger than"),
        ("/coded", "content coding"),
        ("/cut", "not reachable"),
    ],
)
async def test_h18_bad_answers_are_failures(
    session: aiohttp.ClientSession, server: TestServer, path: str, why: str
) -> None:
    """Redirects are not followed, giants not read to the end, codings not undone."""
    with pytest.raises(JwksError, match=why):
        await loader(session, server, path)()


async def test_h18_silence_and_a_closed_port_are_failures(
    session: aiohttp.ClientSession, server: TestServer
) -> None:
    """A provider that does not answer holds nobody up."""
    with pytest.raises(JwksError, match="TimeoutError"):
        await loader(session, server, "/silent", timeout_s=0.05)()
    url = str(server.make_url("/good"))
    await server.close()
    with pytest.raises(JwksError, match="not reachable"):
        await url_loader(session, url)()


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/x", "/jwks", "https://", "http://[::1", "data:,x"]
)
async def test_only_http_urls_are_taken(session: aiohttp.ClientSession, url: str) -> None:
    """Everything else is a mistake in the settings, found at start."""
    with pytest.raises(ValueError, match="URL"):
        url_loader(session, url)
