"""Gets what a feed points to, from a file or by HTTP, into a file of ours.

Redirects are followed by hand: three at most, never to less protection, and a credential is sent
to the host of the settings alone. Errors name a host at most: addresses carry tokens, and
publishers redirect to signed ones.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import IO, TYPE_CHECKING, Final, TypeAlias

import aiohttp
from aiohttp import encode_basic_auth
from yarl import URL

from gatekeeper import __version__
from gatekeeper.feeds.errors import FeedError
from gatekeeper.settings.check import is_loopback

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from gatekeeper.settings import Feed

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with a feed's id, the bytes that have come, and how many will, if that is known."""

_MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_REFUSED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_CHUNK_BYTES: Final = 1 << 16
_MAX_TAG: Final = 512


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much and how long."""

    max_bytes: int
    total_s: float = 900.0
    idle_s: float = 30.0
    connect_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """What the source said of its content; all empty for a file."""

    changed: bool
    """False: the source says that it has nothing newer than what was asked with."""
    etag: str = ""
    last_modified: str = ""


async def fetch(
    feed: Feed,
    into: Path,
    *,
    credential: str | None,
    known: Fetched | None,
    at: datetime,
    bounds: Bounds,
    progress: Progress,
) -> Fetched:
    """Write the content to ``into``; ``known`` is what the last content came with.

    Raises :class:`FeedError`.
    """
    if feed.file is not None:
        await asyncio.to_thread(_copy_file, feed, feed.file, into, bounds, progress)
        return Fetched(changed=True)
    url = _url_of(feed, at)
    try:
        async with asyncio.timeout(bounds.total_s):
            return await _Download(feed, url, into, credential, known, bounds, progress).run()
    except TimeoutError as error:
        raise FeedError(f"{url.host} took too long") from error
    except (aiohttp.ClientError, ValueError) as error:
        raise FeedError(f"{url.host} cannot be read from: {type(error).__name__}") from error
    except OSError as error:
        raise FeedError(f"it cannot be fetched or kept: {error.strerror}") from error


def _url_of(feed: Feed, at: datetime) -> URL:
    text = (feed.url or "").replace("{year}", f"{at:%Y}").replace("{month}", f"{at:%m}")
    return URL(text, encoded=True)


def _copy_file(feed: Feed, source: Path, into: Path, bounds: Bounds, progress: Progress) -> None:
    try:
        # Not to wait for ever on what only looks like a file.
        with os.fdopen(os.open(source, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise FeedError("it is not a regular file")
            with into.open("wb") as out:
                meter = _Meter(feed.id, about.st_size, out, bounds, progress)
                while chunk := file.read(_CHUNK_BYTES):
                    meter.write(chunk)
    except OSError as error:
        raise FeedError(f"the file cannot be read: {error.strerror}") from error


@dataclass(slots=True)
class _Meter:
    """Writes until the bound, and tells how far it is."""

    feed_id: str
    expected: int | None
    out: IO[bytes]
    bounds: Bounds
    progress: Progress
    total: int = 0

    def write(self, chunk: bytes) -> None:
        self.total += len(chunk)
        if max(self.total, self.expected or 0) > self.bounds.max_bytes:
            raise FeedError(f"it is larger than {self.bounds.max_bytes} bytes")
        self.out.write(chunk)
        self.progress(self.feed_id, self.total, self.expected)


@dataclass(frozen=True, slots=True)
class _Download:
    feed: Feed
    url: URL
    into: Path
    credential: str | None
    known: Fetched | None
    bounds: Bounds
    progress: Progress

    async def run(self) -> Fetched:
        """Follow redirects until there is an answer."""
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self.bounds.connect_s, sock_read=self.bounds.idle_s
        )
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=_tls(self.feed.ca_file)),
            timeout=timeout,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session:
            at = self.url
            for _ in range(_MAX_REDIRECTS + 1):
                asked, headers = at, _headers(self.known)
                if self.credential is not None and at.origin() == self.url.origin():
                    asked = _with_credential(self.feed, at, self.credential, headers)
                async with session.get(asked, headers=headers, allow_redirects=False) as answer:
                    if answer.status not in _REDIRECTS:
                        return await self._take(answer)
                    at = _next(at, answer.headers.get("Location", ""))
        raise FeedError(f"{self.url.host} redirects more than {_MAX_REDIRECTS} times")

    async def _take(self, answer: aiohttp.ClientResponse) -> Fetched:
        host = answer.url.host
        known = self.known
        if (
            answer.status == HTTPStatus.NOT_MODIFIED
            and known is not None
            and (known.etag or known.last_modified)
        ):
            return replace(known, changed=False)
        if answer.status in _REFUSED:
            raise FeedError(f"{host} answered {answer.status}: look at the credential")
        if answer.status != HTTPStatus.OK:
            raise FeedError(f"{host} answered {answer.status}")
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise FeedError(f"{host} answered with a content coding, though none was accepted")
        with self.into.open("wb") as out:
            meter = _Meter(self.feed.id, answer.content_length, out, self.bounds, self.progress)
            async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                meter.write(chunk)
        return Fetched(
            changed=True,
            etag=_tag(answer.headers.get("ETag", "")),
            last_modified=_tag(answer.headers.get("Last-Modified", "")),
        )


def _headers(known: Fetched | None) -> dict[str, str]:
    headers = {
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "User-Agent": f"gatekeeper/{__version__}",
    }
    if known is not None and known.etag:
        headers["If-None-Match"] = known.etag
    if known is not None and known.last_modified:
        headers["If-Modified-Since"] = known.last_modified
    return headers


def _with_credential(feed: Feed, url: URL, credential: str, headers: dict[str, str]) -> URL:
    if feed.credential_as == "token":
        return url.update_query({"token": credential})
    if feed.credential_as == "bearer":
        headers["Authorization"] = f"Bearer {credential}"
    else:
        account, _, key = credential.partition(":")
        headers["Authorization"] = encode_basic_auth(account, key)
    return url


def _next(at: URL, location: str) -> URL:
    """Return where a redirect leads; raises :class:`FeedError` for tricks."""
    try:
        target = at.join(URL(location, encoded=True))
        host = target.host or ""
    except ValueError as error:
        raise FeedError(f"{at.host} redirects to something that is no URL") from error
    safe = target.scheme == "https" or (
        target.scheme == at.scheme == "http" and is_loopback(host) and is_loopback(at.host or "")
    )
    if not location or not host or not safe:
        raise FeedError(f"{at.host} redirects to something that is not https")
    if target.user is not None or target.password is not None:
        raise FeedError(f"{at.host} redirects to a URL with a user name")
    return target


def _tag(text: str) -> str:
    """Return a validator that can be sent back, or nothing."""
    return text if len(text) <= _MAX_TAG and text.isascii() and text.isprintable() else ""


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise FeedError(f"ca_file is no bundle of certificates: {error.strerror}") from error
