"""What a check of the settings is, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gatekeeper.settings import SecretSource, Settings
    from gatekeeper.settings.shape import Place


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong, at its place in the settings."""

    place: Place
    message: str


@dataclass(frozen=True, slots=True)
class Check:
    """A question to the settings, and the top-level fields it needs to be sound."""

    reads: frozenset[str]
    run: Callable[[Settings, Mapping[str, str]], Iterator[Problem]]
    """Arguments: settings, environment."""


HOLDING_SECRETS: Final = frozenset({"upstreams", "secret", "step_up", "store", "tracing", "alerts"})


def secrets_of(settings: Settings) -> Iterator[tuple[Place, SecretSource]]:
    """Yield every secret that the settings name, with its place."""
    if settings.secret is not None:
        yield ("secret",), settings.secret
    for number, upstream in enumerate(settings.upstreams):
        if upstream.credential is not None:
            yield ("upstreams", number, "credential"), upstream.credential
    for number, header in enumerate(settings.tracing.headers):
        yield ("tracing", "headers", number, "value"), header.value
    if settings.alerts.secret is not None:
        yield ("alerts", "secret"), settings.alerts.secret
    if settings.step_up.vendor_key is not None:
        yield ("step_up", "vendor_key"), settings.step_up.vendor_key
    for number, source in enumerate(settings.step_up.webhook_secrets):
        yield ("step_up", "webhook_secrets", number), source
    for field in ("password", "sentinel_password"):
        if (source := getattr(settings.store, field)) is not None:
            yield ("store", field), source
