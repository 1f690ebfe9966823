"""Reads what a gate is made of: secrets, rules, network data, routes; all mistakes are told."""

from __future__ import annotations

import contextlib
import random
import ssl
import time
from typing import TYPE_CHECKING, Final

import structlog
from yarl import URL

from gatekeeper.dialects.estimate import estimate_tokens
from gatekeeper.dialects.exact_tokens import ExactTokens
from gatekeeper.facts.network import NetworkData
from gatekeeper.facts.traits import TraitMaker
from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.rules import parse_rules
from gatekeeper.policy.ruleset import EmbargoView
from gatekeeper.policy.validation import did_you_mean
from gatekeeper.policy.words import GateMode
from gatekeeper.settings import SecretSource
from gatekeeper.snapshot import Snapshot
from gatekeeper.storage.cases_schema import TryRules
from gatekeeper.storage.rule_store import archive, read_texts
from gatekeeper.storage.secrets import (
    MIN_SECRET_BYTES,
    derive,
    load_or_create_secret,
    read_secret,
)
from gatekeeper.storage.store_access import read_access
from gatekeeper.upstream.routes import DrainBounds, Endpoint, Route
from gatekeeper.verification.sandbox import SandboxVendor
from gatekeeper.verification.standard_webhooks import key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import aiohttp

    from gatekeeper.policy.ruleset import RuleSet
    from gatekeeper.settings import Listener, Settings, StepUp, Upstream
    from gatekeeper.storage.store_access import StoreAccess
    from gatekeeper.tracing import Tracing
    from gatekeeper.verification.vendor import Vendor

_DAY_S: Final = 86_400.0
_MIN_WEBHOOK_SECRET_BYTES: Final = 24
"""Anyone who guesses it can make the gate ask the vendor, though not grant anything."""


class StartError(Exception):
    """The gate cannot start; ``mistakes`` says everything that is wrong."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        """Keep the mistakes for whoever prints them."""
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes


@contextlib.contextmanager
def mistake_at(place: str) -> Iterator[None]:
    """Tell an address that cannot be listened on as a mistake at its place in the settings."""
    try:
        yield
    except OSError as error:
        raise StartError([Mistake("settings", None, place, str(error))]) from error


def master_secret(settings: Settings, environ: Mapping[str, str]) -> bytes:
    """Return the secret that keys everything; raises :class:`StartError`."""
    try:
        found = (
            load_or_create_secret(settings.data_dir)
            if settings.secret is None
            else read_secret(settings.secret, environ, min_bytes=MIN_SECRET_BYTES)
        )
    except OSError as error:
        raise StartError([_unwritable(settings, error)]) from error
    if isinstance(found, Mistake):
        raise StartError([found])
    return found


def _unwritable(settings: Settings, error: OSError) -> Mistake:
    wrong = f"{settings.data_dir} cannot be written: {error.strerror}."
    return Mistake("settings", None, "data_dir", wrong)


def public_url(settings: Settings) -> str:
    """Return how callers reach this gate: as set, or the address of the first listener."""
    if settings.public_url:
        return settings.public_url
    first = settings.listeners[0]
    host = f"[{first.host}]" if ":" in first.host else first.host
    return f"http{'s' if first.tls else ''}://{host}:{first.port}"


def records_url(settings: Settings) -> str:
    """Return where the records are."""
    return settings.records_url or f"sqlite:///{settings.data_dir / 'records.db'}"


def rules_archive(settings: Settings) -> Path:
    """Return the directory that keeps every revision of the rules."""
    return settings.data_dir / "revisions"


def first_snapshot(
    settings: Settings, rules: RuleSet, network_secret: bytes, *, now_unix_s: float
) -> Snapshot:
    """Return what the first calls are judged by, and log what is wrong with it."""
    log = structlog.get_logger("gatekeeper")
    network = NetworkData.load(settings.geoip, secret=network_secret, now_unix_s=now_unix_s)
    snapshot = Snapshot.of(rules, network, GateMode(settings.mode))
    for problem in network.problems:
        log.warning("network_data", problem=str(problem))
    for mistake in unknown_owners(rules, network):
        log.warning("rules", problem=str(mistake))
    # Behind a balancer that is not trusted, no caller would have a region.
    for listener in settings.listeners:
        reached = listener.host not in {"127.0.0.1", "::1", "localhost"}
        if reached and not listener.trusted_proxies and rules.private.allow:
            log.warning(
                "no_trusted_proxies",
                listener=f"{listener.host}:{listener.port}",
                hint="behind a proxy every caller would count as a private address, which "
                "embargo rules on regions do not test: set trusted_proxies",
            )
    return snapshot


def unknown_owners(rules: RuleSet, network: NetworkData) -> list[Mistake]:
    """Tell which owners of AS rules no network list knows: a misspelt one would lift an embargo."""
    owners = network.owners
    if owners is None:  # a list is missing, which is a problem of its own
        return []
    return [
        Mistake(
            "rules",
            None,
            f"embargo {rule.id}",
            f"no network list names the owner `{owner}`{did_you_mean(owner, owners)}",
        )
        for rule in rules.embargo
        if EmbargoView.ASN in rule.on
        for owner in sorted(rule.owners - owners)
    ]


def load_rules(settings: Settings) -> tuple[Mapping[str, str], RuleSet]:
    """Read and archive the rule files; raises :class:`StartError` for rules that are wrong."""
    texts = read_texts(settings.rules_dir)
    rules: RuleSet | list[Mistake] = texts if isinstance(texts, list) else parse_rules(texts)
    if isinstance(texts, list) or isinstance(rules, list):
        raise StartError(rules if isinstance(rules, list) else [])
    try:
        archive(rules_archive(settings), rules.revision, texts)
    except OSError as error:
        raise StartError([_unwritable(settings, error)]) from error
    return texts, rules


def try_rules(step_up: StepUp) -> TryRules:
    """Return how often an account may prove its identity, and for how long that is good."""
    return TryRules(
        pending_s=step_up.pending_for_days * _DAY_S,
        valid_s=step_up.valid_for_days * _DAY_S or None,
        max_tries=step_up.max_attempts,
        period_s=step_up.attempts_period_days * _DAY_S,
    )


def vendor_of(
    step_up: StepUp, environ: Mapping[str, str], session: aiohttp.ClientSession
) -> Vendor | None:
    """Return who checks identities; raises :class:`StartError` for a secret."""
    if step_up.vendor == "none":
        return None
    secrets = [
        read_secret(step_up.vendor_key or SecretSource(), environ),
        *(
            read_secret(source, environ, min_bytes=_MIN_WEBHOOK_SECRET_BYTES)
            for source in step_up.webhook_secrets
        ),
    ]
    if mistakes := [each for each in secrets if isinstance(each, Mistake)]:
        raise StartError(mistakes)
    key, *webhook_secrets = [each.decode() for each in secrets if isinstance(each, bytes)]
    return SandboxVendor(
        session,
        url=step_up.vendor_url,
        page_origin=str(URL(step_up.vendor_pages or step_up.vendor_url).origin()),
        api_key=key,
        webhook_keys=[key_of(each) for each in webhook_secrets],
        tolerance_s=step_up.webhook_tolerance_s,
        timeout_s=step_up.vendor_timeout_s,
    )


def tracing_of(settings: Settings, environ: Mapping[str, str]) -> Tracing | None:
    """Return what makes traces, if it is configured; raises :class:`StartError`."""
    if not settings.tracing.endpoint:
        return None
    try:
        from gatekeeper.tracing import Tracing  # noqa: PLC0415 - an extra that not everybody has
    except ImportError as error:
        wrong = "Traces need more packages: pip install 'gatekeeper[tracing]'."
        raise StartError([Mistake("settings", None, "tracing.endpoint", wrong)]) from error
    headers: dict[str, str] = {}
    for header in settings.tracing.headers:
        secret = read_secret(header.value, environ)
        if isinstance(secret, Mistake):
            raise StartError([secret])
        headers[header.name] = secret.decode()
    return Tracing(settings.tracing, headers, clock_ns=time.time_ns, chance=random.random)


def counter_of(settings: Settings) -> Callable[[bytes], int]:
    """Return what counts the tokens of text; raises :class:`StartError`."""
    if settings.token_count == "estimate":  # noqa: S105 - a word, not a secret
        return estimate_tokens
    try:
        return ExactTokens()
    except ImportError as error:
        wrong = "Exact counts need another package: pip install 'gatekeeper[exact-tokens]'."
        raise StartError([Mistake("settings", None, "token_count", wrong)]) from error


def trait_maker(settings: Settings, secret: bytes, environ: Mapping[str, str]) -> TraitMaker | None:
    """Return what makes the traits of calls, ``None`` for none; raises :class:`StartError`."""
    traits = settings.traits
    if not traits.enabled:
        return None
    found = [derive(secret, "traits")] if traits.secret is None else []
    for source in (traits.secret, traits.previous_secret):
        if source is not None:
            own = read_secret(source, environ, min_bytes=MIN_SECRET_BYTES)
            if isinstance(own, Mistake):
                raise StartError([own])
            found.append(own)
    return TraitMaker(
        found,
        epoch_s=traits.epoch_days * _DAY_S,
        overlap_s=traits.overlap_days * _DAY_S,
        edge_header=traits.ja4_header,
    )


def alert_secret(settings: Settings, environ: Mapping[str, str]) -> str:
    """Return what signs alerts, empty when none are sent; raises :class:`StartError`."""
    if not settings.alerts.webhook_url or settings.alerts.secret is None:
        return ""
    secret = read_secret(settings.alerts.secret, environ)
    if isinstance(secret, Mistake):
        raise StartError([secret])
    return secret.decode()


def listener_tls(listener: Listener) -> ssl.SSLContext | None:
    """Return the TLS context of a listener; raises :class:`StartError` for files that are wrong."""
    if listener.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(listener.tls.certificate, listener.tls.key)
    return context


def admin_tls(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS context of the management API."""
    if settings.admin.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.admin.tls.certificate, settings.admin.tls.key)
    return context


def store_access(settings: Settings, environ: Mapping[str, str]) -> StoreAccess | None:
    """Return how the limits' store is reached, ``None`` for limits of this process alone.

    Raises :class:`StartError` for a secret or certificate that cannot be read.
    """
    if settings.store.kind == "memory":
        return None
    access = read_access(settings.store, environ)
    if isinstance(access, Mistake):
        raise StartError([access])
    return access


def route_of(upstream: Upstream, environ: Mapping[str, str]) -> Route:
    """Return the route of an upstream; raises :class:`StartError` for a secret or bundle."""
    credential = None
    if upstream.credential is not None:
        secret = read_secret(upstream.credential, environ)
        if isinstance(secret, Mistake):
            raise StartError([secret])
        value = secret.decode()
        bearer = upstream.credential_header == "authorization"
        credential = (upstream.credential_header, f"Bearer {value}" if bearer else value)
    tls = None
    if upstream.ca_file is not None:
        try:
            tls = ssl.create_default_context(cafile=upstream.ca_file)
        except OSError as error:
            wrong = f"{upstream.ca_file} is no bundle of certificates: {error.strerror}"
            raise StartError([Mistake("settings", None, "upstreams.ca_file", wrong)]) from error
    return Route(
        name=upstream.name,
        models=upstream.models,
        paths=upstream.paths,
        endpoints=tuple(Endpoint(URL(url)) for url in upstream.urls),
        credential=credential,
        tls=tls,
        reports_usage=upstream.stream_usage != "leave",
        reports_continuously=upstream.stream_usage == "continuous",
        chat_bound=upstream.chat_bound,
        drain=(
            DrainBounds(upstream.drain_s, upstream.drain_bytes, upstream.drains)
            if upstream.on_disconnect == "drain"
            else None
        ),
    )
