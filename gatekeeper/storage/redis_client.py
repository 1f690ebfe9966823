"""Opens Redis or Valkey as the settings say: standalone, Sentinel or Cluster, with TLS and ACL.

Nothing connects before it is asked, so that a gate starts beside a store that is down. Every
connection speaks RESP3, has timeouts, and no command is tried more than twice.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from gatekeeper.policy.mistake import Mistake
from gatekeeper.storage.secrets import read_secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.settings import SecretSource, Store, StoreTls

_RETRY_AFTER_S: Final = 0.05
_UNIX: Final = "unix:"
_RESP3: Final = 3
_CLIENT_NAME: Final = "gatekeeper"

AnyRedis: TypeAlias = "Redis | RedisCluster"


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


def open_client(access: StoreAccess, *, answer_s: float = 5.0) -> AnyRedis:
    """Return a client for everything that is not on the request path; ``aclose()`` it at the end.

    It follows failovers of Sentinel and Cluster by itself. ``answer_s`` bounds the wait for each
    answer; a subscriber waits for messages as long as it likes.
    """
    store = access.settings
    common = {**_common(access, answer_s), **_credentials(access.login)}
    if store.kind == "cluster":
        nodes = [ClusterNode(each.host, each.port) for each in access.addresses]
        return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **common)
    if store.kind == "sentinel":
        sentinel = open_sentinel(access)
        master: _OfSentinels = sentinel.master_for(
            store.master, redis_class=_OfSentinels, db=store.database, **common
        )
        master.sentinels = tuple(sentinel.sentinels)
        return master
    (address,) = access.addresses
    where: dict[str, Any] = (
        {"host": address.host, "port": address.port}
        if address.port
        else {"unix_socket_path": address.host}
    )
    if not address.port:
        common = {name: value for name, value in common.items() if not name.startswith("ssl")}
    return Redis(**where, db=store.database, **common)


def open_sentinel(access: StoreAccess) -> Sentinel:
    """Return the Sentinels of ``access``, to ask which server is the master."""
    return Sentinel(  # type: ignore[no-untyped-call]  # redis-py
        [(each.host, each.port) for each in access.addresses],
        sentinel_kwargs={
            **_common(access, access.connect_s),
            **_credentials(access.sentinel_login),
        },
    )


class _OfSentinels(Redis):
    """A client that closes the ones it asks for the master, too."""

    sentinels: tuple[Redis, ...] = ()

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - theirs
        """Close the clients of the Sentinels as well."""
        await super().aclose(close_connection_pool)
        for sentinel in self.sentinels:
            await sentinel.aclose()


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


def _common(access: StoreAccess, answer_s: float) -> dict[str, Any]:
    tls = access.settings.tls
    encrypted: dict[str, Any] = {}
    if tls is not None:
        encrypted = {
            "ssl": True,
            "ssl_ca_certs": _text(tls.ca_file),
            "ssl_certfile": _text(tls.certificate),
            "ssl_keyfile": _text(tls.key),
            "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        }
    return {
        "protocol": _RESP3,
        "socket_timeout": answer_s,
        "socket_connect_timeout": access.connect_s,
        "client_name": _CLIENT_NAME,
        "retry": Retry(ConstantBackoff(_RETRY_AFTER_S), 1),
        **encrypted,
    }


def _text(path: object) -> str | None:
    return None if path is None else str(path)


def _credentials(login: Login) -> dict[str, Any]:
    return {"username": login.username, "password": login.password}
