"""Routes: which upstream serves a call, and which of its URLs is asked."""

from __future__ import annotations

import pytest
from yarl import URL

from gatekeeper.settings import Health
from gatekeeper.upstream.routes import Endpoint, Route, RouteTable

NOW = 1_000.0


def route(
    name: str = "r",
    *,
    models: tuple[str, ...] = ("*",),
    paths: tuple[str, ...] = ("/",),
    urls: int = 1,
) -> Route:
    """Return a route with this many endpoints."""
    ends = tuple(Endpoint(URL(f"http://{name}-{n}:8000")) for n in range(urls))
    return Route(name, models, paths, ends)


def table(*routes: Route) -> RouteTable:
    """Return a table that rests an endpoint for 10 seconds after 2 failures."""
    return RouteTable(routes, Health(failures=2, retry_after_s=10))


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://up:8000", "http://up:8000/v1/a?b=%2F"),
        ("http://up:8000/", "http://up:8000/v1/a?b=%2F"),
        ("https://up/openai/", "https://up/openai/v1/a?b=%2F"),
    ],
)
def test_h1_target_is_appended_verbatim(base: str, url: str) -> None:
    """A path of the base URL is put before the caller's; nothing is re-encoded."""
    assert str(Endpoint(URL(base)).at("/v1/a?b=%2F")) == url


@pytest.mark.parametrize(
    ("paths", "path", "serves"),
    [
        (("/",), "/", True),
        (("/",), "/v1/x", True),
        (("/v1",), "/v1", True),
        (("/v1/",), "/v1", True),
        (("/v1",), "/v1/", True),
        (("/v1",), "/v1/chat", True),
        (("/v1",), "/v1x", False),
        (("/v1",), "/", False),
        (("/v1",), "/V1", False),
        (("/a", "/b"), "/b/c", True),
        ((), "/", False),
    ],
)
def test_paths(paths: tuple[str, ...], path: str, *, serves: bool) -> None:
    """A prefix ends where a segment does."""
    assert route(paths=paths).serves(path, None) is serves


@pytest.mark.parametrize(
    ("models", "model", "serves"),
    [
        (("gpt-*",), "gpt-4o", True),
        (("gpt-*",), "GPT-4o", False),
        (("gpt-*", "o3"), "o3", True),
        (("gpt-*",), "claude", False),
        (("gpt-*",), None, True),
        (("gpt-4o",), "gpt-4o\n", False),
    ],
)
def test_models(models: tuple[str, ...], model: str | None, *, serves: bool) -> None:
    """Patterns match whole names; a call without a model goes by its path."""
    assert route(models=models).serves("/v1", model) is serves


def test_first_route_that_serves_is_used() -> None:
    """In the order of the settings; none is an answer too."""
    openai, rest = route("a", models=("gpt-*",)), route("b", paths=("/v1",))
    routes = table(openai, rest)
    assert routes.find("/v1", "gpt-4o") is openai
    assert routes.find("/v1", "claude") is rest
    assert routes.find("/v2", "claude") is None


def test_endpoints_take_turns() -> None:
    """Equal URLs get equal shares."""
    several = route(urls=3)
    routes = table(several)
    picked = [routes.pick(several, NOW) for _ in range(6)]
    assert [picked.count(end) for end in several.endpoints] == [2, 2, 2]


def test_failures_in_a_row_make_an_endpoint_rest() -> None:
    """One failure is forgiven, two are not; after its rest it is tried again."""
    several = route(urls=2)
    bad, good = several.endpoints
    routes = table(several)
    routes.failed(bad, NOW)
    assert {routes.pick(several, NOW).base for _ in range(4)} == {bad.base, good.base}
    routes.failed(bad, NOW)
    assert {routes.pick(several, NOW + 9.9).base for _ in range(4)} == {good.base}
    assert {routes.pick(several, NOW + 10).base for _ in range(4)} == {bad.base, good.base}


def test_one_more_failure_after_the_rest_rests_again() -> None:
    """An endpoint that has not answered since has no new credit."""
    several = route(urls=2)
    bad, good = several.endpoints
    routes = table(several)
    for at in (NOW, NOW, NOW + 10):
        routes.failed(bad, at)
    assert {routes.pick(several, NOW + 19).base for _ in range(4)} == {good.base}


def test_an_answer_clears_the_failures() -> None:
    """Failures count in a row only."""
    several = route(urls=2)
    shaky = several.endpoints[0]
    routes = table(several)
    routes.failed(shaky, NOW)
    routes.succeeded(shaky)
    routes.failed(shaky, NOW)
    assert shaky.resting_until_s == 0
    assert len({routes.pick(several, NOW).base for _ in range(4)}) == 2


@pytest.mark.parametrize("urls", [1, 3])
def test_with_all_at_rest_the_least_bad_is_asked(urls: int) -> None:
    """The gate does not decide that an upstream is down: it asks."""
    several = route(urls=urls)
    routes = table(several)
    for late, end in enumerate(several.endpoints):
        routes.failed(end, NOW + late)
        routes.failed(end, NOW + late)
    assert all(routes.pick(several, NOW + 5) is several.endpoints[0] for _ in range(4))
