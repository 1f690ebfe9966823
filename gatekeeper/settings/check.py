"""What the types of the settings cannot say: fields that must fit each other.

A check yields problems at their place in the settings; :mod:`gatekeeper.settings.load` adds the
file, variable or flag. Each names the top-level fields it reads, so that the others still run when
one of them is wrong already.
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from gatekeeper.policy.countries import country_problem
from gatekeeper.settings import DATABASE_FORMAT
from gatekeeper.settings.problems import HOLDING_SECRETS, Check, Problem, secrets_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gatekeeper.settings import Feed, Settings, Store
    from gatekeeper.settings.shape import Place


_HOST_NAME: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def _urls(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    for number, upstream in enumerate(settings.upstreams):
        if not upstream.urls:
            yield Problem(("upstreams", number, "urls"), "This needs at least one URL.")
        for index, url in enumerate(upstream.urls):
            if wrong := _wrong_with_url(url):
                yield Problem(("upstreams", number, "urls", index), wrong)


def _public_url(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    if settings.public_url and (wrong := _wrong_with_url(settings.public_url)):
        yield Problem(("public_url",), wrong)


def _wrong_with_url(url: str) -> str | None:
    # The URL itself is never repeated in a message: it may carry a password.
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return "This must be a URL of printable ASCII characters without spaces."
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.scheme not in {"http", "https"}:
        return "This must be an http or https URL, such as https://host:port/path."
    if parts.username is not None or parts.password is not None:
        return (
            "This must not carry a user name or password; use a credential from a file or variable."
        )
    if "?" in url or "#" in url:
        return "This must not have a query or fragment."
    return None


def _upstream_tables(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for number, upstream in enumerate(settings.upstreams):
        if not upstream.name:
            yield Problem(("upstreams", number, "name"), "This must not be empty.")
        if upstream.name in first:
            message = f"This is the name of upstreams[{first[upstream.name]}] already."
            yield Problem(("upstreams", number, "name"), message)
        first.setdefault(upstream.name, number)
        for field in ("models", "paths"):
            if not getattr(upstream, field):
                yield Problem(
                    ("upstreams", number, field), "This must not be empty: it would match no call."
                )
        for index, path in enumerate(upstream.paths):
            if not path.startswith("/"):
                yield Problem(("upstreams", number, "paths", index), "This must start with /.")


def _secret_shapes(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    for place, source in secrets_of(settings):
        if (source.env is None) == (source.file is None):
            yield Problem(place, "This needs exactly one of env and file.")


def _issuers(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    for number, issuer in enumerate(settings.jwt):
        place: Place = ("jwt", number)
        if (issuer.jwks_url is None) == (issuer.jwks_file is None):
            yield Problem(place, "This needs exactly one of jwks_url and jwks_file.")
        if issuer.jwks_url is not None and (wrong := _wrong_with_jwks_url(issuer.jwks_url)):
            yield Problem((*place, "jwks_url"), wrong)
        if not issuer.algorithms:
            yield Problem((*place, "algorithms"), "This must not be empty.")
        for field in ("issuer", "audience", "account_claim"):
            if not getattr(issuer, field):
                yield Problem((*place, field), "This must not be empty.")
        if issuer.issuer in {other.issuer for other in settings.jwt[:number]}:
            yield Problem((*place, "issuer"), "This is listed twice.")


def _wrong_with_jwks_url(url: str) -> str | None:
    base, _, _query = url.partition("?")  # some identity providers select keys by a query
    return _wrong_with_url(base)


def _listeners(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    if not settings.listeners:
        yield Problem(("listeners",), "This needs at least one listener.")
    taken: dict[tuple[str, int], int] = {}
    for number, listener in enumerate(settings.listeners):
        place: Place = ("listeners", number)
        if not listener.credentials:
            yield Problem((*place, "credentials"), "This needs at least one mode.")
        for index, proxy in enumerate(listener.trusted_proxies):
            if not _is_network(proxy):
                message = (
                    "This must be an address or a prefix without host bits, such as 10.0.0.0/8."
                )
                yield Problem((*place, "trusted_proxies", index), message)
        if listener.proxy_protocol and not listener.trusted_proxies:
            yield Problem(
                (*place, "proxy_protocol"), "This needs trusted_proxies: who may send the header."
            )
        if listener.proxy_protocol and listener.tls is not None:
            yield Problem(
                (*place, "proxy_protocol"), "This cannot be combined with tls on one listener."
            )
        address = (listener.host, listener.port)
        if listener.port and address in taken:
            yield Problem((*place, "port"), f"This is taken by listeners[{taken[address]}].")
        taken.setdefault(address, number)


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def _ops_port(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    taken = {(each.host, each.port) for each in settings.listeners if each.port}
    if (settings.ops.host, settings.ops.port) in taken:
        yield Problem(("ops", "port"), "This is taken by a listener of callers.")


def _admin(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    admin = settings.admin
    taken = {(each.host, each.port) for each in settings.listeners if each.port}
    if settings.ops.port:
        taken.add((settings.ops.host, settings.ops.port))
    if admin.enabled and (admin.host, admin.port) in taken:
        yield Problem(("admin", "port"), "This is taken by another listener.")
    for index, host in enumerate(admin.hosts):
        if not _HOST_NAME.fullmatch(host):
            message = "This must be a host name such as gate.example.com, without a port."
            yield Problem(("admin", "hosts", index), message)


def _jwt_mode(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    if settings.jwt:
        return
    for number, listener in enumerate(settings.listeners):
        if "jwt" in listener.credentials:
            message = "This asks for jwt, but no issuer is listed under jwt."
            yield Problem(("listeners", number, "credentials"), message)


def _opaque_mode(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    if all(upstream.credential is None for upstream in settings.upstreams):
        return
    for number, listener in enumerate(settings.listeners):
        if "opaque" in listener.credentials:
            message = (
                "This lets anybody in: opaque keys are checked by the upstream alone, and an "
                "upstream whose credential is swapped in never sees them. "
                "Take opaque out, or the credential of every upstream."
            )
            yield Problem(("listeners", number, "credentials"), message)


def _cors(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    for index, origin in enumerate(settings.cors.allow_origins):
        wrong = origin != "*" and (_wrong_with_url(origin) or urlsplit(origin).path)
        if wrong:
            message = (
                "This must be * or an origin, such as https://app.example.com, without a path."
            )
            yield Problem(("cors", "allow_origins", index), message)


def _tracing(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    endpoint = settings.tracing.endpoint
    if endpoint and (wrong := _wrong_with_url(endpoint)):
        yield Problem(("tracing", "endpoint"), wrong)


def _alerts(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    url = settings.alerts.webhook_url
    if url and (wrong := _wrong_with_url(url.partition("?")[0])):  # services put keys in a query
        yield Problem(("alerts", "webhook_url"), wrong)
    if url and settings.alerts.secret is None:
        message = "This is missing: a receiver must be able to tell our messages from others'."
        yield Problem(("alerts", "secret"), message)


def _feeds(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    feeds = settings.geoip.feeds
    for number, feed in enumerate(feeds):
        place: Place = ("geoip", "feeds", number)
        if feed.id in {other.id for other in feeds[:number]}:
            yield Problem((*place, "id"), "This is listed twice.")
        yield from _feed_source(place, feed)
        if feed.format == DATABASE_FORMAT and (feed.kind or feed.owner):
            yield Problem(place, "A database says itself what kind and whose a network is.")
        if feed.owner_country is not None:
            if feed.owner is None:
                yield Problem((*place, "owner_country"), "This needs an owner.")
            if problem := country_problem(feed.owner_country):
                yield Problem((*place, "owner_country"), problem)


def _feed_source(place: Place, feed: Feed) -> Iterator[Problem]:
    if (feed.url is None) == (feed.file is None):
        yield Problem(place, "This needs exactly one of url and file.")
    if feed.url is not None and (wrong := _wrong_with_feed_url(feed.url)):
        yield Problem((*place, "url"), wrong)
    if feed.credential is not None:
        if feed.url is None:
            yield Problem((*place, "credential"), "Only a url needs one.")
        if (feed.credential.env is None) == (feed.credential.file is None):
            yield Problem((*place, "credential"), "This needs exactly one of env and file.")


def _wrong_with_feed_url(url: str) -> str | None:
    base, _, _query = url.partition("?")  # MaxMind tells the packing by a query
    base = base.replace("{year}", "2000").replace("{month}", "01")
    if wrong := _wrong_with_url(base):
        return wrong
    parts = urlsplit(base)
    if "#" in url or "{" in base or "}" in base:
        return "This must not have a fragment, nor braces other than {year} and {month}."
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        return "This must be https: what is altered on the way would decide who is refused."
    return None


def is_loopback(host: str) -> bool:
    """Tell whether a host name of a URL can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _vendor(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    step_up = settings.step_up
    if step_up.vendor == "none":
        return
    for field in ("vendor_url", "vendor_key", "webhook_secrets"):
        if not getattr(step_up, field):
            yield Problem(("step_up", field), f"The vendor {step_up.vendor} needs this.")
    if step_up.vendor_url and (wrong := _wrong_with_url(step_up.vendor_url)):
        yield Problem(("step_up", "vendor_url"), wrong)
    pages = step_up.vendor_pages
    if pages and (_wrong_with_url(pages) or urlsplit(pages).path):
        message = "This must be an origin, such as https://verify.example.com, without a path."
        yield Problem(("step_up", "vendor_pages"), message)


def _store(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    store = settings.store
    if store.kind == "memory":
        return
    yield from _store_addresses(store)
    if (store.kind == "sentinel") != bool(store.master):
        message = "This names the server that Sentinels watch: needed there, and nowhere else."
        yield Problem(("store", "master"), message)
    if store.kind == "cluster" and store.database:
        yield Problem(("store", "database"), "A Cluster has database 0 only.")
    if store.username and store.password is None:
        yield Problem(("store", "password"), "A user name needs a password.")
    if store.tls is not None and (store.tls.certificate is None) != (store.tls.key is None):
        yield Problem(("store", "tls"), "A client certificate needs certificate and key.")


def _store_addresses(store: Store) -> Iterator[Problem]:
    place: Place = ("store", "addresses")
    if not store.addresses:
        yield Problem(place, "This needs at least one address.")
    if store.kind == "standalone" and len(store.addresses) > 1:
        message = "A standalone server has one address; several need kind: sentinel or cluster."
        yield Problem(place, message)
    for index, address in enumerate(store.addresses):
        host, _, port = address.rpartition(":")
        named = host and port.isascii() and port.isdecimal() and 0 < int(port) <= _LAST_PORT
        if not named and not (address.startswith("unix:/") and store.kind == "standalone"):
            message = "This must be host:port, such as valkey.internal:6379."
            yield Problem((*place, index), message)


_LAST_PORT: Final = 65_535


def _watch(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    if settings.watch.stream and settings.store.kind == "memory":
        yield Problem(("watch", "stream"), "A stream needs a store in Redis or Valkey: see store.")


CONSISTENCY: Final = (
    Check(frozenset({"upstreams"}), _urls),
    Check(frozenset({"upstreams"}), _upstream_tables),
    Check(HOLDING_SECRETS, _secret_shapes),
    Check(frozenset({"step_up"}), _vendor),
    Check(frozenset({"jwt"}), _issuers),
    Check(frozenset({"listeners"}), _listeners),
    Check(frozenset({"listeners", "ops"}), _ops_port),
    Check(frozenset({"listeners", "ops", "admin"}), _admin),
    Check(frozenset({"listeners", "jwt"}), _jwt_mode),
    Check(frozenset({"listeners", "upstreams"}), _opaque_mode),
    Check(frozenset({"public_url"}), _public_url),
    Check(frozenset({"cors"}), _cors),
    Check(frozenset({"tracing"}), _tracing),
    Check(frozenset({"alerts"}), _alerts),
    Check(frozenset({"geoip"}), _feeds),
    Check(frozenset({"store"}), _store),
    Check(frozenset({"store", "watch"}), _watch),
)
"""Checks that hold wherever the settings are read; they touch nothing outside them."""
