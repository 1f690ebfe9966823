"""One line for all calls: order, deadlines, refusals, and what cannot be read."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
import trustme
from support.limits import access_to
from support.pipe import piped
from support.valkey import serving

from gatekeeper.settings import SecretSource, StoreTls
from gatekeeper.storage.store_line import Script, StoreError, StoreLine, dial

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.valkey import Server


@pytest.fixture
async def line(valkey: Server) -> AsyncIterator[StoreLine]:
    """Return a line to Valkey."""
    found = await dial(access_to(valkey.address), 5.0)
    yield found
    found.fail("closed")


async def test_answers_come_in_order(line: StoreLine) -> None:
    """A thousand commands at once share the line, and each gets its own answer."""
    answers = await asyncio.gather(*(line.command("ECHO", str(n)) for n in range(1_000)))
    assert answers == [str(n).encode() for n in range(1_000)]


async def test_a_refusal_ends_the_line_with_its_kind(line: StoreLine) -> None:
    """What a store cannot do once it cannot do for the next call either."""
    with pytest.raises(StoreError, match="err"):
        await line.run(Script.of("return redis.call('NONSENSE')"), [])
    with pytest.raises(StoreError):
        await line.command("PING")
    assert line.closed.done()


async def test_h30_silence_ends_the_line_for_all_that_wait(valkey: Server) -> None:
    """The deadline of the oldest is that of all: nobody waits for a line that hangs."""
    async with piped(valkey.port) as pipe:
        line = await dial(access_to(pipe.address), 0.05)
        pipe.delay_s = 60.0
        first = line.command("PING")
        answers = await asyncio.gather(
            first, *(line.command("PING") for _ in range(9)), return_exceptions=True
        )
        assert {str(answer) for answer in answers} == {"deadline"}


async def test_the_patience_of_setting_up_ends_with_it(valkey: Server) -> None:
    """Nothing of the longer wait for a connection is left once the line is there."""
    line = await dial(access_to(valkey.address, connect_ms=60_000), 5.0)
    assert line._watch is None
    await line.command("PING")
    assert line._watch is not None
    assert line._watch.when() - asyncio.get_running_loop().time() <= 5.0
    line.fail("closed")


async def test_a_connection_that_is_cut_fails_what_waits(valkey: Server) -> None:
    """At once, not at the deadline."""
    async with piped(valkey.port) as pipe:
        line = await dial(access_to(pipe.address), 60.0)
        pipe.delay_s = 60.0
        waiting = line.command("PING")
        pipe.cut()
        with pytest.raises(StoreError, match="connection"):
            await waiting


@contextlib.asynccontextmanager
async def saying(*lines: bytes) -> AsyncIterator[str]:
    """Serve whoever connects these lines, one for each chunk that comes in."""
    under_way: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        under_way.append(asyncio.current_task())
        with contextlib.suppress(OSError):
            for each in lines:
                await reader.read(65_536)
                writer.write(each)
            await reader.read(65_536)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*filter(None, under_way))
        await asyncio.sleep(0)  # what is aborted closes in the next round of the loop


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n+more\r\n"])
async def test_what_is_not_an_answer_ends_the_line(nonsense: bytes) -> None:
    """Another protocol, or an answer that nobody asked for, is no reason to crash."""
    async with saying(b"%0\r\n", nonsense) as address:
        line = await dial(access_to(address), 5.0)
        answer = line.command("PING")
        await line.closed
        assert line.failure is not None
        assert str(line.failure) == "protocol"
        await asyncio.wait((answer,))
        assert answer.exception() is None or str(answer.exception()) == "protocol"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"-WRONGPASS invalid username-password pair\r\n", "wrongpass"),
        (b"-SECRET the label of a metric is of our own words\r\n", "other"),
        (b"-LOADING the dataset\r\n", "loading"),
    ],
)
async def test_who_is_not_let_in_is_told_why(said: bytes, kind: str) -> None:
    """By a word of a closed list."""
    async with saying(said) as address:
        with pytest.raises(StoreError) as raised:
            await dial(access_to(address), 5.0)
        assert raised.value.kind == kind


async def test_who_does_not_greet_is_no_store() -> None:
    """What connects to a port that nobody listens on may end up talking to itself."""
    async with saying(b"+HELLO\r\n") as address:
        line = await dial(access_to(address), 5.0)
        with pytest.raises(StoreError, match="protocol"):
            await line.command("PING")


# --- finding the way in


async def test_a_name_and_a_numbered_database(valkey: Server) -> None:
    """A name is looked up, whichever of its addresses answers; the database is the one named."""
    line = await dial(access_to(f"localhost:{valkey.port}", database=3), 5.0)
    info = await line.command("CLIENT", "INFO")
    assert "db=3" in str(info)
    assert "resp=3" in str(info)
    line.fail("closed")


async def test_a_unix_socket(tmp_path: Path) -> None:
    """The server beside the gate needs no port."""
    path = tmp_path / "socket"
    async with serving(tmp_path, "--unixsocket", str(path)):
        line = await dial(access_to(f"unix:{path}"), 5.0)
        assert await line.command("PING") == b"PONG"
        line.fail("closed")


async def test_acl_users(tmp_path: Path) -> None:
    """The user of the settings is let in, with the right password only."""
    users = ("--user", *["gate", "on", ">hush", "~*", "&*", "+@all"], "--user", "default", "off")
    login = {"username": "gate", "password": SecretSource(env="PASSWORD")}
    async with serving(tmp_path, *users) as server:
        right = access_to(server.address, {"PASSWORD": "hush"}, **login)
        line = await dial(right, 5.0)
        assert await line.command("ACL", "WHOAMI") == b"gate"
        line.fail("closed")
        with pytest.raises(StoreError, match="wrongpass"):
            await dial(access_to(server.address, {"PASSWORD": "loud"}, **login), 5.0)


async def test_tls_with_client_certificates(valkey: Server, tmp_path: Path) -> None:
    """Both sides prove who they are; a stranger's authority is not believed."""
    authority = trustme.CA()
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "server", "client", "stranger")}
    authority.cert_pem.write_to_path(files["ca"])
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(files["server"])
    client = authority.issue_cert("gate@example.com")
    client.private_key_and_cert_chain_pem.write_to_path(files["client"])
    trustme.CA().cert_pem.write_to_path(files["stranger"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files["ca"])
    context.load_cert_chain(files["server"])
    context.verify_mode = ssl.CERT_REQUIRED
    own = {"certificate": files["client"], "key": files["client"]}
    async with piped(valkey.port, context) as pipe:
        line = await dial(access_to(pipe.address, tls=StoreTls(ca_file=files["ca"], **own)), 5.0)
        assert await line.command("PING") == b"PONG"
        line.fail("closed")
        for tls in (StoreTls(ca_file=files["stranger"], **own), StoreTls(ca_file=files["ca"])):
            with pytest.raises(StoreError):
                await dial(access_to(pipe.address, tls=tls), 5.0)


async def test_a_look_up_that_outlives_its_deadline_ends_unheard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name server that is slow and then fails costs one attempt, and no complaint of the loop."""
    loop, complaints = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    ended = asyncio.Event()

    async def slow(*_: object, **__: object) -> None:
        try:
            await asyncio.sleep(0.2)
            raise socket.gaierror(socket.EAI_AGAIN, "name server")
        finally:
            ended.set()

    monkeypatch.setattr(loop, "getaddrinfo", slow)
    with pytest.raises(StoreError, match="connect"):
        await dial(access_to("valkey.internal:6379", connect_ms=20), 5.0)
    await ended.wait()
    await asyncio.sleep(0)
    gc.collect()
    assert complaints == []
