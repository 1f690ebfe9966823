"""Fetching: bounds, redirects, credentials, and errors that give nothing away."""

from __future__ import annotations

import asyncio
import os
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from aiohttp import encode_basic_auth, web
from aiohttp.test_utils import TestServer

from gatekeeper.feeds.errors import FeedError
from gatekeeper.feeds.fetch import Bounds, Fetched, fetch
from gatekeeper.settings import Feed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

AT = datetime(2026, 3, 9, tzinfo=UTC)
SMALL = Bounds(max_bytes=10_000, total_s=5.0, idle_s=5.0, connect_s=5.0)
SECRET = "s3cr3t-license"


@asynccontextmanager
async def serving(
    routes: dict[str, Handler], tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve handlers by path and yield the base URL."""
    app = web.Application()
    for path, handler in routes.items():
        app.router.add_get(path, handler)
    server = TestServer(app)
    await server.start_server(ssl=tls)
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.port}"
    finally:
        await server.close()


def text(body: str = "1.2.3.4\n", **options: Any) -> Handler:
    """Return a handler with one answer."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(text=body, **options)

    return handle


def to(location: str, status: int = 302) -> Handler:
    """Return a handler that redirects."""
    return text("", status=status, headers={"Location": location})


def feed(url: str | None = None, **options: Any) -> Feed:
    """Return a feed of prefixes."""
    return Feed(id="f", url=url, format="prefixes", **options)


async def got(
    wanted: Feed,
    into: Path,
    *,
    credential: str | None = None,
    known: Fetched | None = None,
    bounds: Bounds = SMALL,
) -> Fetched:
    """Fetch with the time and bounds of this file."""
    return await fetch(
        wanted,
        into / "fetched",
        credential=credential,
        known=known,
        at=AT,
        bounds=bounds,
        progress=lambda *_: None,
    )


async def test_content_comes_with_its_validators(tmp_path: Path) -> None:
    """What the source calls its content is kept, to ask with the next time."""
    headers = {"ETag": '"v1"', "Last-Modified": "Mon, 09 Mar 2026 00:00:00 GMT"}
    async with serving({"/list": text(headers=headers)}) as base:
        found = await got(feed(f"{base}/list"), tmp_path)
    assert found == Fetched(True, '"v1"', "Mon, 09 Mar 2026 00:00:00 GMT")
    assert (tmp_path / "fetched").read_text() == "1.2.3.4\n"


async def test_unchanged_content_is_not_sent_again(tmp_path: Path) -> None:
    """The validators are sent back, and 304 is an answer only to who sent some."""
    asked: list[tuple[str | None, str | None]] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(
            (request.headers.get("If-None-Match"), request.headers.get("If-Modified-Since"))
        )
        return web.Response(status=304)

    known = Fetched(True, '"v1"', "Mon, 09 Mar 2026 00:00:00 GMT")
    async with serving({"/list": handle}) as base:
        found = await got(feed(f"{base}/list"), tmp_path, known=known)
        assert not found.changed
        assert not (tmp_path / "fetched").exists()
        for nothing in (None, Fetched(changed=True)):
            with pytest.raises(FeedError, match="answered 304"):
                await got(feed(f"{base}/list"), tmp_path, known=nothing)
    assert asked == [('"v1"', "Mon, 09 Mar 2026 00:00:00 GMT"), (None, None), (None, None)]


async def test_the_month_stands_in_the_url(tmp_path: Path) -> None:
    """DB-IP publishes a new address each month."""
    async with serving({"/dbip-2026-03.mmdb.gz": text()}) as base:
        assert (await got(feed(base + "/dbip-{year}-{month}.mmdb.gz"), tmp_path)).changed


async def test_redirects_are_followed_three_times(tmp_path: Path) -> None:
    """Three lead to the list, a fourth is one too many."""
    routes = {f"/{n}": to(f"/{n - 1}") for n in range(1, 5)} | {"/0": text()}
    async with serving(routes) as base:
        assert (await got(feed(f"{base}/3"), tmp_path)).changed
        with pytest.raises(FeedError, match="more than 3 times"):
            await got(feed(f"{base}/4"), tmp_path)


@pytest.mark.parametrize(
    "location",
    [
        "http://lists.example/list",
        "ftp://127.0.0.1/list",
        "file:///etc/passwd",
        "//lists.example/list",
        "http://127.0.0.1.example/list",
        "https://user:pass@lists.example/",
        "https://[::1",
        "",
        "javascript:alert(1)",
    ],
)
async def test_h18_redirect_tricks_are_refused(tmp_path: Path, location: str) -> None:
    """A redirect leads to https, or stays on this machine; never to a file or a clear-text host."""
    async with serving({"/list": to(location)}) as base:
        with pytest.raises(FeedError, match="redirects"):
            await got(feed(f"{base}/list"), tmp_path)


async def test_https_is_checked_and_never_left(tmp_path: Path) -> None:
    """A certificate nobody knows is refused, a bundle makes it known, and http ends it."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    async with serving({"/list": text()}) as clear:
        routes = {"/list": text(), "/down": to(f"{clear}/list")}
        async with serving(routes, context) as base:
            with pytest.raises(FeedError, match="cannot be read from"):
                await got(feed(f"{base}/list"), tmp_path)
            assert (await got(feed(f"{base}/list", ca_file=bundle), tmp_path)).changed
            with pytest.raises(FeedError, match="not https"):
                await got(feed(f"{base}/down", ca_file=bundle), tmp_path)
    with pytest.raises(FeedError, match="no bundle"):
        await got(feed(f"{base}/list", ca_file=tmp_path / "none.pem"), tmp_path)


@pytest.mark.parametrize(
    ("how", "secret", "header", "query"),
    [
        ("basic", f"42:{SECRET}", encode_basic_auth("42", SECRET), ""),
        ("bearer", SECRET, f"Bearer {SECRET}", ""),
        ("token", SECRET, None, f"token={SECRET}"),
    ],
)
async def test_a_credential_goes_to_its_own_host_alone(
    tmp_path: Path, how: Any, secret: str, header: str | None, query: str
) -> None:
    """Publishers redirect to a store of somebody else's, which gets a signed URL and no more."""
    seen: list[tuple[str | None, str]] = []

    def keep(request: web.Request) -> None:
        seen.append((request.headers.get("Authorization"), request.raw_path.partition("?")[2]))

    async def elsewhere(request: web.Request) -> web.Response:
        keep(request)
        return web.Response(text="1.2.3.4\n")

    async with serving({"/signed": elsewhere}) as store:

        async def publisher(request: web.Request) -> web.Response:
            keep(request)
            headers = {"Location": f"{store}/signed?sig=a%2Fb%3D"}
            return web.Response(status=302, headers=headers)

        async with serving({"/list": publisher}) as base:
            wanted = feed(f"{base}/list?suffix=tar.gz", credential_as=how)
            await got(wanted, tmp_path, credential=secret)
    assert seen[0] == (header, "suffix=tar.gz" + (f"&{query}" if query else ""))
    assert seen[1] == (None, "sig=a%2Fb%3D"), "and the signature arrives as it was written"


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "credential"), (403, "credential"), (404, "404"), (500, "500"), (206, "206")],
)
async def test_other_answers_are_errors_that_keep_the_secret(
    tmp_path: Path, status: int, words: str
) -> None:
    """Only 200 is a list, and no message repeats a secret, a path or a query."""
    async with serving({"/private-path": text(status=status)}) as base:
        with pytest.raises(FeedError, match=words) as told:
            await got(
                feed(f"{base}/private-path", credential_as="token"), tmp_path, credential=SECRET
            )
    for secret in (SECRET, "private-path", "token="):
        assert secret not in str(told.value)


async def test_too_much_is_given_up(tmp_path: Path) -> None:
    """An announced length is believed at once, an endless body is cut at the bound."""

    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b"1.2.3.4\n" * 100)

    async with serving({"/long": text("x" * 10_001), "/endless": endless}) as base:
        for path in ("long", "endless"):
            with pytest.raises(FeedError, match="larger than 10000 bytes"):
                await got(feed(f"{base}/{path}"), tmp_path)
            assert (tmp_path / "fetched").stat().st_size <= 10_000


async def test_slow_sources_are_given_up(tmp_path: Path) -> None:
    """Silence ends at one bound, a trickle at the other."""
    done = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await done.wait()
        return answer

    async def trickle(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while not done.is_set():
            await answer.write(b"1")
            await asyncio.sleep(0.01)
        return answer

    async with serving({"/silent": silent, "/trickle": trickle}) as base:
        for path, bounds in (
            ("silent", Bounds(1_000, idle_s=0.1)),
            ("trickle", Bounds(1_000, total_s=0.2)),
        ):
            with pytest.raises(FeedError, match="took too long"):
                await got(feed(f"{base}/{path}"), tmp_path, bounds=bounds)
        done.set()


async def test_an_answer_that_breaks_off_is_an_error(tmp_path: Path) -> None:
    """Fewer bytes than announced are not a list, nor is a coding nobody asked for."""

    async def broken(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "1000"})
        await answer.prepare(request)
        await answer.write(b"1.2.3.4\n")
        assert request.transport is not None
        request.transport.close()
        return answer

    coded = text(headers={"Content-Encoding": "gzip"})
    async with serving({"/broken": broken, "/coded": coded}) as base:
        with pytest.raises(FeedError, match="cannot be read from"):
            await got(feed(f"{base}/broken"), tmp_path)
        with pytest.raises(FeedError, match="content coding"):
            await got(feed(f"{base}/coded"), tmp_path)
    with pytest.raises(FeedError, match="cannot be read from"):
        await got(feed(f"{base}/gone"), tmp_path)


async def test_validators_that_cannot_be_sent_back_are_dropped(tmp_path: Path) -> None:
    """An ETag of a kilobyte is not kept."""
    async with serving({"/list": text(headers={"ETag": f'"{"x" * 1000}"'})}) as base:
        assert (await got(feed(f"{base}/list"), tmp_path)).etag == ""


async def test_files_are_copied_within_bounds(tmp_path: Path) -> None:
    """A regular file is; a missing, an oversized one or a pipe is told without waiting."""
    source = tmp_path / "source"
    source.write_text("1.2.3.4\n")
    assert await got(feed(file=source), tmp_path) == Fetched(changed=True)
    assert (tmp_path / "fetched").read_text() == "1.2.3.4\n"
    source.write_bytes(b"x" * 10_001)
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (source, "larger"),
        (tmp_path / "none", "No such file"),
        (tmp_path / "pipe", "regular"),
    ):
        with pytest.raises(FeedError, match=words):
            await got(feed(file=path), tmp_path)
