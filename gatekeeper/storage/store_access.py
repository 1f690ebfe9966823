"""How Redis or Valkey is reached: addresses, users and certificates, as the settings say."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import Sentinel
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from gatekeeper.policy.mistake import Mistake
from gatekeeper.storage.secrets import read_secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.settings import SecretSource, Store, StoreTls

_RETRY_AFTER_S: Final = 0.05
_UNIX: Final = "unix:"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens; ``port`` 0 means that ``host`` is the path of a Unix socket."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``host:port`` or ``unix:/path``, as the settings have checked it."""
        if text.startswith(_UNIX):
            return cls(text.removeprefix(_UNIX), 0)
        host, _, port = text.rpartition(":")
        return cls(host.removeprefix("[").removesuffix("]"), int(port))


@dataclass(frozen=True, slots=True)
class Login:
    """An ACL user and password; both ``None`` where none is asked for."""

    username: str | None = None
    password: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class StoreAccess:
    """All it takes to connect to the store, secrets included (and so never printed)."""

    settings: Store
    addresses: tuple[Address, ...]
    login: Login
    sentinel_login: Login
    tls: ssl.SSLContext | None

    @property
    def connect_s(self) -> float:
        """Longest time to wait for a connection."""
        return self.settings.connect_ms / 1_000


def read_access(store: Store, environ: Mapping[str, str]) -> StoreAccess | Mistake:
    """Read the secrets and certificates that ``store`` names."""
    login = _login(store.username, store.password, environ)
    sentinel = _login(store.sentinel_username, store.sentinel_password, environ)
    if isinstance(login, Mistake):
        return login
    if isinstance(sentinel, Mistake):
        return sentinel
    try:
        tls = None if store.tls is None else _context(store.tls)
    except OSError as error:  # SSLError is one
        wrong = f"These certificates cannot be used: {error.strerror or 'no PEM in them'}."
        return Mistake("settings", None, "store.tls", wrong)
    addresses = tuple(map(Address.parse, store.addresses))
    return StoreAccess(store, addresses, login, sentinel, tls)


def open_sentinel(access: StoreAccess) -> Sentinel:
    """Return the Sentinels of ``access``, to ask which server is the master."""
    tls, login = access.settings.tls, access.sentinel_login
    encrypted: dict[str, Any] = {}
    if tls is not None:
        encrypted = {
            "ssl": True,
            "ssl_ca_certs": _text(tls.ca_file),
            "ssl_certfile": _text(tls.certificate),
            "ssl_keyfile": _text(tls.key),
            "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        }
    return Sentinel(  # type: ignore[no-untyped-call]  # redis-py
        [(each.host, each.port) for each in access.addresses],
        sentinel_kwargs={
            "socket_timeout": access.connect_s,
            "socket_connect_timeout": access.connect_s,
            "retry": Retry(ConstantBackoff(_RETRY_AFTER_S), 1),
            "username": login.username,
            "password": login.password,
            **encrypted,
        },
    )


def _login(
    username: str, password: SecretSource | None, environ: Mapping[str, str]
) -> Login | Mistake:
    if password is None:
        return Login()
    secret = read_secret(password, environ)
    return secret if isinstance(secret, Mistake) else Login(username or None, secret.decode())


def _context(tls: StoreTls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.certificate is not None and tls.key is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


def _text(path: object) -> str | None:
    return None if path is None else str(path)
