"""Checks of the machine that is about to serve; they open the files that are named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatekeeper.settings.problems import HOLDING_SECRETS, Check, Problem, secrets_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from gatekeeper.settings import Settings
    from gatekeeper.settings.shape import Place


def _some_upstream(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    if not settings.upstreams:
        message = "This is empty: name a model endpoint here or by --upstream, or try --demo."
        yield Problem(("upstreams",), message)


def _listener_files(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    for number, listener in enumerate(settings.listeners):
        if listener.tls is not None:
            place: Place = ("listeners", number, "tls")
            yield from _readable((*place, "certificate"), listener.tls.certificate)
            yield from _readable((*place, "key"), listener.tls.key)


def _admin_files(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    if settings.admin.enabled and settings.admin.tls is not None:
        yield from _readable(("admin", "tls", "certificate"), settings.admin.tls.certificate)
        yield from _readable(("admin", "tls", "key"), settings.admin.tls.key)


def _upstream_files(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    for number, upstream in enumerate(settings.upstreams):
        if upstream.ca_file is not None:
            yield from _readable(("upstreams", number, "ca_file"), upstream.ca_file)


def _key_files(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    for number, issuer in enumerate(settings.jwt):
        if issuer.jwks_file is not None:
            yield from _readable(("jwt", number, "jwks_file"), issuer.jwks_file)


def _store_files(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Problem]:
    if settings.store.tls is not None:
        for field in ("ca_file", "certificate", "key"):
            path = getattr(settings.store.tls, field)
            if path is not None:
                yield from _readable(("store", "tls", field), path)


def _secrets_present(settings: Settings, environ: Mapping[str, str]) -> Iterator[Problem]:
    for place, source in secrets_of(settings):
        if source.env is not None and not environ.get(source.env):
            yield Problem((*place, "env"), f"The variable {source.env} is not set.")
        if source.file is not None:
            yield from _readable((*place, "file"), source.file)


def _readable(place: Place, path: Path) -> Iterator[Problem]:
    try:
        with path.open("rb"):
            return
    except OSError as error:
        yield Problem(place, f"{path} cannot be read: {error.strerror}.")


SERVING: Final = (
    Check(frozenset({"upstreams"}), _some_upstream),
    Check(frozenset({"listeners"}), _listener_files),
    Check(frozenset({"admin"}), _admin_files),
    Check(frozenset({"upstreams"}), _upstream_files),
    Check(frozenset({"jwt"}), _key_files),
    Check(HOLDING_SECRETS, _secrets_present),
    Check(frozenset({"store"}), _store_files),
)
"""Checks of the machine that is about to serve; they open the files that are named."""
