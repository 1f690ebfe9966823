"""Opening the store: standalone, TLS, ACL users, Sentinel and Cluster, without endless waits."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trustme
from redis.exceptions import AuthenticationError, ConnectionError, TimeoutError  # noqa: A004
from support.gates import eventually
from support.pipe import piped
from support.valkey import serving, serving_cluster, serving_sentinel

from gatekeeper.policy.mistake import Mistake
from gatekeeper.settings import SecretSource, Store, StoreTls
from gatekeeper.storage.redis_client import Address, StoreAccess, open_client, read_access

if TYPE_CHECKING:
    from pathlib import Path


def access(environ: dict[str, str] | None = None, **fields: object) -> StoreAccess:
    """Return the access that settings and environment give."""
    found = read_access(Store.model_validate(fields), environ or {})
    assert isinstance(found, StoreAccess), found
    return found


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("valkey.internal:6379", Address("valkey.internal", 6379)),
        ("[::1]:6379", Address("::1", 6379)),
        ("unix:/run/valkey.sock", Address("/run/valkey.sock", 0)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    """Names, IPv6 in brackets, Unix sockets."""
    assert Address.parse(text) == address


def test_secrets_that_are_missing_are_told_and_never_shown(tmp_path: Path) -> None:
    """A variable that is not set is a mistake; what was read does not appear when printed."""
    password = SecretSource(env="STORE_PASSWORD")
    missing = read_access(Store(kind="standalone", addresses=("a:1",), password=password), {})
    assert isinstance(missing, Mistake)
    tls = StoreTls(ca_file=tmp_path / "none.pem")
    assert isinstance(
        read_access(Store(kind="standalone", addresses=("a:1",), tls=tls), {}), Mistake
    )
    found = access(
        {"STORE_PASSWORD": "hush"}, kind="standalone", addresses=("a:1",), password=password
    )
    assert "hush" not in repr(found)


async def test_a_standalone_server(tmp_path: Path) -> None:
    """A client of the settings speaks RESP3 with the database asked for."""
    async with serving(tmp_path) as server:
        client = open_client(access(kind="standalone", addresses=(server.address,), database=3))
        await client.set("a", "1")
        info = await client.execute_command("CLIENT", "INFO")
        assert "db=3" in str(info)
        assert "resp=3" in str(info)
        await client.aclose()


async def test_a_unix_socket(tmp_path: Path) -> None:
    """The server beside the gate needs no port."""
    path = tmp_path / "socket"
    async with serving(tmp_path, "--unixsocket", str(path)):
        client = open_client(access(kind="standalone", addresses=(f"unix:{path}",)))
        assert await client.ping()
        await client.aclose()


async def test_acl_users(tmp_path: Path) -> None:
    """The user of the settings is let in, with the right password only."""
    users = ("--user", *["gate", "on", ">hush", "~*", "&*", "+@all"], "--user", "default", "off")
    async with serving(tmp_path, *users) as server:
        fields = {
            "kind": "standalone",
            "addresses": (server.address,),
            "username": "gate",
            "password": SecretSource(env="PASSWORD"),
        }
        client = open_client(access({"PASSWORD": "hush"}, **fields))
        assert await client.execute_command("ACL", "WHOAMI") == b"gate"
        await client.aclose()
        wrong = open_client(access({"PASSWORD": "loud"}, **fields))
        with pytest.raises(AuthenticationError):
            await wrong.ping()
        await wrong.aclose()


def certificates(folder: Path) -> dict[str, Path]:
    """Write an authority with a certificate for the server and one for the client."""
    authority = trustme.CA()
    files = {name: folder / f"{name}.pem" for name in ("ca", "server", "client")}
    authority.cert_pem.write_to_path(files["ca"])
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(files["server"])
    client = authority.issue_cert("gate@example.com")
    client.private_key_and_cert_chain_pem.write_to_path(files["client"])
    return files


async def test_tls_with_client_certificates(tmp_path: Path) -> None:
    """Both sides prove who they are; a stranger's authority is not believed."""
    files = certificates(tmp_path)
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(stranger)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files["ca"])
    context.load_cert_chain(files["server"])
    context.verify_mode = ssl.CERT_REQUIRED
    async with serving(tmp_path) as server, piped(server.port, context) as pipe:
        address = pipe.address
        own = StoreTls(ca_file=files["ca"], certificate=files["client"], key=files["client"])
        client = open_client(access(kind="standalone", addresses=(address,), tls=own))
        assert await client.ping()
        await client.aclose()
        for tls in (
            StoreTls(ca_file=stranger, certificate=files["client"], key=files["client"]),
            StoreTls(ca_file=files["ca"]),
        ):
            wrong = open_client(access(kind="standalone", addresses=(address,), tls=tls))
            with pytest.raises(ConnectionError):
                await wrong.ping()
            await wrong.aclose()


@pytest.mark.fleet
async def test_a_cluster(tmp_path: Path) -> None:
    """Keys of all slots are reached, and messages pass between nodes."""
    async with serving_cluster(tmp_path) as servers:
        fields = {"kind": "cluster", "addresses": (servers[-1].address,)}
        client = open_client(access(**fields))
        for number in range(20):
            await client.set(f"key{number}", number)
        assert [int(await client.get(f"key{number}")) for number in range(20)] == list(range(20))
        await client.aclose()


@pytest.mark.fleet
async def test_sentinel_failover(tmp_path: Path) -> None:
    """The client writes to the new master once the Sentinels have agreed on one."""
    async with serving_sentinel(tmp_path) as watched:
        addresses = tuple(sentinel.address for sentinel in watched.sentinels)
        client = open_client(access(kind="sentinel", addresses=addresses, master=watched.name))
        await client.set("a", "1")
        await client.wait(1, 1000)
        watched.servers[0].kill()

        async def writes() -> bool:
            try:
                await client.set("b", "2")
            except (ConnectionError, TimeoutError):
                return False
            return True

        await eventually(writes)
        assert await client.get("a") == b"1"
        await client.aclose()
