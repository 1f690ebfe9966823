"""Which upstream serves a call, and which of its URLs is in good health."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec import Struct
from yarl import URL

from gatekeeper.policy.patterns import matches_any

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from gatekeeper.settings import Health


@dataclass(slots=True)
class Endpoint:
    """One base URL with its passive health: failures in a row, and until when it rests."""

    url: URL
    failures: int = 0
    resting_until_s: float = 0.0
    base: str = field(init=False)

    def __post_init__(self) -> None:
        """Keep the base as text: targets are appended to it verbatim."""
        self.base = str(self.url).rstrip("/")

    def at(self, target: str) -> URL:
        """Return the URL of ``target``, which is sent exactly as it stands (H1)."""
        return URL(self.base + target, encoded=True)


class DrainBounds(Struct, frozen=True, gc=False):
    """How far the answers of callers that left are read on."""

    within_s: float
    most_bytes: int
    at_once: int


@dataclass(frozen=True, slots=True)
class Route:
    """A named upstream: what it serves and where it is."""

    name: str
    models: tuple[str, ...]
    paths: tuple[str, ...]
    endpoints: tuple[Endpoint, ...]
    credential: tuple[str, str] | None = None
    """Header name and value that replace the caller's credential."""
    tls: ssl.SSLContext | None = None
    reports_usage: bool = True
    """Whether streams can be made to report their usage."""
    reports_continuously: bool = False
    """Whether they can be made to report it with every chunk."""
    chat_bound: str = "max_completion_tokens"
    """How a chat completion's bound on output is called here."""
    drain: DrainBounds | None = None
    """``None``: an answer whose caller leaves is cancelled."""

    def serves(self, path: str, model: str | None) -> bool:
        """Tell whether path and model belong here; a call without a model goes by path alone."""
        return any(_under(path, prefix) for prefix in self.paths) and (
            model is None or matches_any(model, self.models)
        )


def _under(path: str, prefix: str) -> bool:
    stem = prefix.rstrip("/")
    return path.startswith(stem) and (len(path) == len(stem) or path[len(stem)] == "/")


class RouteTable:
    """The routes in the order of the settings; the first that serves a call is used."""

    def __init__(self, routes: Sequence[Route], health: Health) -> None:
        self.routes = tuple(routes)
        self._health = health
        self._turn = 0

    def find(self, path: str, model: str | None) -> Route | None:
        """Return the first route that serves ``path`` and ``model``."""
        for route in self.routes:
            if route.serves(path, model):
                return route
        return None

    def pick(self, route: Route, now_s: float) -> Endpoint:
        """Return the next endpoint in good health, in turn; the least bad one if none is."""
        endpoints = route.endpoints
        if len(endpoints) == 1:
            return endpoints[0]
        self._turn += 1
        for step in range(len(endpoints)):
            endpoint = endpoints[(self._turn + step) % len(endpoints)]
            if endpoint.resting_until_s <= now_s:
                return endpoint
        return min(endpoints, key=lambda endpoint: endpoint.resting_until_s)

    def succeeded(self, endpoint: Endpoint) -> None:
        """Note that ``endpoint`` answered."""
        endpoint.failures = 0
        endpoint.resting_until_s = 0.0

    def failed(self, endpoint: Endpoint, now_s: float) -> None:
        """Note that ``endpoint`` could not be reached; several in a row make it rest."""
        endpoint.failures += 1
        if endpoint.failures >= self._health.failures:
            endpoint.resting_until_s = now_s + self._health.retry_after_s
