"""TLS on both sides."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trustme
from support.wire import (
    ASK_STREAM,
    SSE_HEAD,
    Exchange,
    IncompleteError,
    RawUpstream,
    ask,
    read_chunked,
    wired,
)

if TYPE_CHECKING:
    from pathlib import Path

    from support.gates import Gates


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Return the authority that everybody here trusts."""
    return trustme.CA()


def server_side(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """Return the context of a server that has these names."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    return context


def bundle(authority: trustme.CA, folder: Path) -> Path:
    """Write an authority's certificate for `ca_file`."""
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


async def streaming(exchange: Exchange) -> None:
    """Send events and the end, or only some and break off when the test says so."""
    await exchange.body()
    await exchange.send(SSE_HEAD)
    await exchange.event(b'{"choices":[{"index":0,"delta":{"content":"word"}}]}')
    await exchange.go_on()
    await exchange.event(b"[DONE]")
    await exchange.send(b"0\r\n\r\n")


async def test_tls_in(gates: Gates, authority: trustme.CA, tmp_path: Path) -> None:
    """Callers reach a TLS listener, streams included; plain HTTP on it gets nowhere."""
    issued = authority.issue_cert("localhost")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    listener = {"tls": {"certificate": certificate, "key": key}}
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with wired(gates, RawUpstream(streaming), listener=listener) as w:
        caller = await w.caller(tls=trusting)
        caller.write(ask(body=ASK_STREAM))
        assert (await caller.head()).status == 200
        assert await caller.chunk()
        w.upstream.going.set()
        assert await caller.chunk() == b"data: [DONE]\n\n"
        assert await caller.chunk() == b""
        assert (await caller.ask(ask(key=None))).status == 401
        plain = await w.caller()
        plain.write(ask())
        assert b"200" not in await plain.closed()
        assert len(w.upstream.book) == 1


async def test_h10_a_tls_handshake_must_end_in_time(
    gates: Gates, authority: trustme.CA, tmp_path: Path
) -> None:
    """A connection that never says hello is closed by the deadline of heads."""
    issued = authority.issue_cert("localhost")
    pem = tmp_path / "both.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(pem))
    listener = {"tls": {"certificate": pem, "key": pem}}
    async with wired(gates, listener=listener, deadlines={"headers_s": 0.2}) as w:
        for data in (b"", b"\x16\x03\x01"):
            silent = await w.caller()
            silent.write(data)
            assert await silent.closed() == b""


async def test_tls_out_with_our_own_authority(
    gates: Gates, authority: trustme.CA, tmp_path: Path
) -> None:
    """An upstream whose certificate `ca_file` vouches for is called, over one connection."""
    raw = await RawUpstream().start(server_side(authority, "localhost"))
    trusting = {"ca_file": bundle(authority, tmp_path)}
    async with wired(gates, raw, upstream_fields=trusting) as w:
        for _ in range(3):
            assert (await w.ask(ask())).status == 200
        assert w.upstream.connections == 1


@pytest.mark.parametrize("flaw", ["unknown authority", "system's authorities", "another name"])
async def test_tls_out_refuses_who_it_cannot_verify(
    gates: Gates, authority: trustme.CA, tmp_path: Path, flaw: str
) -> None:
    """A certificate that does not verify is an upstream that cannot be reached: not a byte goes."""
    name = "elsewhere.example" if flaw == "another name" else "localhost"
    raw = await RawUpstream().start(server_side(authority, name))
    trusted = trustme.CA() if flaw == "unknown authority" else authority
    fields = {} if flaw.startswith("system") else {"ca_file": bundle(trusted, tmp_path)}
    async with wired(gates, raw, upstream_fields=fields) as w:
        answer = await w.ask(ask())
        assert answer.status == 502
        assert b"upstream_unreachable" in answer.body
        assert w.upstream.book == []
        assert w.gate.app.gate._parts.delivery.routes.routes[0].endpoints[0].failures == 1


async def test_tls_out_is_not_spoken_to_a_plain_server(
    gates: Gates, authority: trustme.CA, tmp_path: Path
) -> None:
    """An https URL never falls back to plain HTTP."""
    raw = await RawUpstream().start()
    raw.scheme = "https"
    trusting = {"ca_file": bundle(authority, tmp_path)}
    async with wired(gates, raw, upstream_fields=trusting, deadlines={"connect_s": 0.3}) as w:
        assert (await w.ask(ask())).status == 502
        assert b"Bearer" not in b"".join(map(bytes, raw.received))


async def test_h32_a_stream_cut_inside_tls(
    gates: Gates, authority: trustme.CA, tmp_path: Path
) -> None:
    """A TLS connection that ends without a goodbye is a broken answer."""

    async def cut(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(SSE_HEAD)
        await exchange.event(b"{}")
        await exchange.go_on()
        exchange.reset()

    raw = await RawUpstream(cut).start(server_side(authority, "localhost"))
    async with wired(gates, raw, upstream_fields={"ca_file": bundle(authority, tmp_path)}) as w:
        caller = await w.caller()
        caller.write(ask(body=ASK_STREAM))
        head = await caller.head()
        assert await caller.chunk()
        raw.going.set()
        with pytest.raises(IncompleteError):
            await read_chunked(caller.reader)
        assert (await w.outcome(head))["ending"] == "upstream_broke"
