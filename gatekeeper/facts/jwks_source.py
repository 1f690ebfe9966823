"""Keeps the keys of an identity provider fresh, off the request path.

A set is read whole and swapped whole; one that cannot be read leaves the last good one serving.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import aiohttp

from gatekeeper.facts.jwks import ALGORITHMS, JwksError, KeySet, parse_jwks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from pathlib import Path

    from jwt import PyJWK

MAX_JWKS_BYTES: Final = 1_000_000
_FETCH_TIMEOUT_S: Final = 10.0
_EARLY_INTERVAL_S: Final = 30.0
_FIRST_RETRY_S: Final = 1.0
_LAST_RETRY_S: Final = 60.0
_MAX_STALE_S: Final = 7 * 86_400.0


class Lookup(Enum):
    """Why there is no key for a token."""

    NO_KEYS = "no_keys"
    """The provider's keys were never read, or too long ago."""
    NOT_ASKED = "not_asked"
    """The provider may have a newer set; it is being asked."""
    NO_SUCH_KEY = "no_such_key"
    """The provider was asked a moment ago and has no such key."""


class JwksSource:
    """Keeps one provider's key set fresh. ``find`` is for the request path, ``run`` for a task.

    ``load`` returns the document's bytes or raises :class:`JwksError`; ``clock`` is Unix seconds;
    ``chance`` is in [0, 1) and spreads retries.
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[bytes]],
        *,
        algorithms: Collection[str],
        refresh_s: float,
        clock: Callable[[], float],
        chance: Callable[[], float],
        early_interval_s: float = _EARLY_INTERVAL_S,
        max_stale_s: float = _MAX_STALE_S,
    ) -> None:
        unknown = set(algorithms) - ALGORITHMS
        if unknown or not algorithms:
            raise ValueError(f"algorithms must be some of {sorted(ALGORITHMS)}")
        self._load = load
        self._algorithms = frozenset(algorithms)
        self._refresh_s = refresh_s
        self._early_interval_s = early_interval_s
        self._max_stale_s = max_stale_s
        self._clock = clock
        self._chance = chance
        self._wanted = asyncio.Event()
        self._keys: KeySet | None = None
        self._read_at = 0.0
        self._asked_at = float("-inf")
        self._failures_in_a_row = 0
        self.failures = 0
        """Fetches that failed, ever."""
        self.last_error = ""
        """Why the last one did; for operators."""

    @property
    def failing(self) -> bool:
        """Whether the last fetch failed."""
        return self._failures_in_a_row > 0

    def keys(self, at: float) -> KeySet | None:
        """Return the set in force, or ``None`` when none was read or it is a week out of date."""
        return self._keys if at - self._read_at <= self._max_stale_s else None

    def find(self, kid: str | None, algorithm: str, at: float) -> PyJWK | Lookup:
        """Return the key for a token's header; a ``kid`` not known may cause one early fetch."""
        keys = self.keys(at)
        if keys is None:
            return Lookup.NO_KEYS
        key = keys.find(kid, algorithm)
        if key is not None:
            return key
        if kid is None or keys.knows(kid):
            return Lookup.NO_SUCH_KEY
        # A clock stepped back must not silence early fetches, hence the absolute distance (H28).
        if abs(at - self._asked_at) < self._early_interval_s and not self.failing:
            return Lookup.NO_SUCH_KEY
        self._wanted.set()
        return Lookup.NOT_ASKED

    async def refresh(self, at: float) -> bool:
        """Fetch and swap the set once; on failure the last good one stays. Return success."""
        self._wanted.clear()
        self._asked_at = at
        try:
            keys = await asyncio.to_thread(parse_jwks, await self._load(), self._algorithms)
        except JwksError as error:
            self.failures += 1
            self._failures_in_a_row += 1
            self.last_error = str(error)
            return False
        if self._keys is None or self._keys.revision != keys.revision:
            self._keys = keys
        self._read_at = at
        self._failures_in_a_row = 0
        return True

    def due_in_s(self) -> float:
        """Return the pause before the next regular fetch: the interval, or a jittered back-off."""
        if not self._failures_in_a_row:
            return self._refresh_s
        doubled = _FIRST_RETRY_S * 2.0 ** min(self._failures_in_a_row - 1, 10)
        longest = min(doubled, _LAST_RETRY_S, self._refresh_s)
        return longest * (0.5 + self._chance() / 2)

    async def run(self) -> None:
        """Keep the set fresh until cancelled."""
        while True:
            await self.refresh(self._clock())
            await self._pause()

    async def _pause(self) -> None:
        """Wait for the next regular fetch, or for an early one once its interval has passed."""
        pause = self.due_in_s()
        earliest = min(pause, self._early_interval_s)
        if self.failing:
            await asyncio.sleep(pause)
            return
        await asyncio.sleep(earliest)
        try:
            async with asyncio.timeout(pause - earliest):
                await self._wanted.wait()
        except TimeoutError:
            return


def url_loader(
    session: aiohttp.ClientSession, url: str, *, timeout_s: float = _FETCH_TIMEOUT_S
) -> Callable[[], Awaitable[bytes]]:
    """Return a loader for an http(s) URL: no redirects, 1 MB, no content coding.

    Raises :class:`ValueError` for any other URL.
    """
    try:
        target = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from error
    if target.scheme not in {"http", "https"} or not target.hostname:
        raise ValueError("a JWKS URL starts with https:// (or http://) and names a host")

    timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def load() -> bytes:
        try:
            async with session.get(
                url,
                allow_redirects=False,
                timeout=timeout,
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            ) as answer:
                if answer.status != HTTPStatus.OK:
                    raise JwksError(f"answered {answer.status} (redirects are not followed)")
                if "Content-Encoding" in answer.headers:
                    raise JwksError("answered with a content coding, though none was accepted")
                return await _read_capped(answer.content)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise JwksError(f"not reachable: {type(error).__name__}") from error

    return load


async def _read_capped(content: aiohttp.StreamReader) -> bytes:
    data = bytearray()
    async for chunk in content.iter_any():
        data += chunk
        if len(data) > MAX_JWKS_BYTES:
            raise JwksError(f"larger than {MAX_JWKS_BYTES} bytes")
    return bytes(data)


def file_loader(path: Path) -> Callable[[], Awaitable[bytes]]:
    """Return a loader for a file, at most 1 MB."""

    def read() -> bytes:
        with path.open("rb") as file:
            data = file.read(MAX_JWKS_BYTES + 1)
        if len(data) > MAX_JWKS_BYTES:
            raise JwksError(f"{path} is larger than {MAX_JWKS_BYTES} bytes")
        return data

    async def load() -> bytes:
        try:
            return await asyncio.to_thread(read)
        except OSError as error:
            raise JwksError(f"cannot read {path}: {error.strerror}") from error

    return load
