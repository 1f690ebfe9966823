"""Whose address a call has, over real sockets (H13, H14), and the data that locates it (H16)."""

from __future__ import annotations

import os
import shutil
import socket
import struct
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.wire import Message, ask, request, wired

if TYPE_CHECKING:
    from support.gates import Gates
    from support.wire import Wired

    from gatekeeper.settings import Geoip

CUBA = "152.206.0.1"
HOME = "8.8.8.8"


async def network(w: Wired, answer: Message) -> dict[str, Any]:
    """Return what the record says of the address."""
    found: dict[str, Any] = (await w.decision(answer.head))["facts"]["network"]
    return found


async def test_h13_without_trusted_proxies_headers_count_for_nothing(gates: Gates) -> None:
    """A caller that is no proxy is where its connection comes from, whatever it claims."""
    async with wired(gates, listener={"trusted_proxies": ()}) as w:
        for line in (f"X-Forwarded-For: {CUBA}", f"Forwarded: for={CUBA}", f"X-Real-IP: {CUBA}"):
            answer = await w.ask(ask(line))
            assert answer.status == 200
            assert (await network(w, answer))["kind"] == "private"


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ((f"X-Forwarded-For: {CUBA}",), 451),
        ((f"X-Forwarded-For: {HOME}",), 200),
        ((f"X-Forwarded-For: {CUBA}, {HOME}",), 200),
        ((f"X-Forwarded-For: {HOME}, {CUBA}",), 451),
        ((f"X-Forwarded-For: {HOME}", f"X-Forwarded-For: {CUBA}"), 451),
        ((f"X-Forwarded-For: {CUBA}", f"X-Forwarded-For: {HOME}"), 200),
        ((f"X-Forwarded-For: {HOME}, {CUBA}, 127.0.0.1",), 451),
        ((f"X-Forwarded-For: {CUBA}:4711",), 451),
        ((f"X-Forwarded-For: [::ffff:{CUBA}]:4711",), 451),
        ((f"x-forwarded-for:\t{CUBA} ",), 451),
        ((f"X_Forwarded_For: {CUBA}", f"X-Forwarded-For: {HOME}"), 200),
        ((f"Forwarded: for={CUBA}",), 200),
    ],
)
async def test_h13_x_forwarded_for(gates: Gates, lines: tuple[str, ...], status: int) -> None:
    """All lines are one list, read from the right, past the trusted proxies."""
    async with wired(gates) as w:
        assert (await w.ask(ask(*lines))).status == status


@pytest.mark.parametrize("hop", ["unknown", "_hidden", "evil", "8.8.8", "8.8.8.8.8", ""])
async def test_h13_junk_hops_locate_nobody(gates: Gates, hop: str) -> None:
    """A hop that names no address ends the walk; what a caller wrote behind it is not believed."""
    async with wired(gates) as w:
        answer = await w.ask(ask(f"X-Forwarded-For: {HOME}, {hop}"))
        found = await network(w, answer)
        assert (found.get("country"), found.get("kind", "unknown")) == (None, "unknown")


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (f"for={CUBA}", 451),
        (f'for="[::ffff:{CUBA}]:4711"', 451),
        (f"for={HOME}, for={CUBA};proto=https", 451),
        (f'for="{HOME}, for={CUBA}', 451),
        (f"for={CUBA}, for={HOME}", 200),
    ],
)
async def test_h13_forwarded(gates: Gates, value: str, status: int) -> None:
    """RFC 7239, quotes and ports included; an open quote hides nothing."""
    async with wired(gates, listener={"forwarded_header": "forwarded"}) as w:
        assert (await w.ask(ask(f"Forwarded: {value}"))).status == status
        assert (await w.ask(ask(f"X-Forwarded-For: {CUBA}"))).status == 200


SPELLINGS = (
    CUBA,
    f"::ffff:{CUBA}",
    "::ffff:98ce:1",
    "0:0:0:0:0:FFFF:98CE:0001",
    f"64:ff9b::{CUBA}",
    "64:ff9b::98ce:1",
    "[64:FF9B:0:0::98ce:1]",
)


async def test_h14_every_spelling_is_one_address(gates: Gates) -> None:
    """Mapped and NAT64 forms of one address are one key, refused alike; transitions are none."""
    async with wired(gates) as w:
        seen = [await w.ask(ask(f"X-Forwarded-For: {spelling}")) for spelling in SPELLINGS]
        assert {answer.status for answer in seen} == {451}
        assert len({(await network(w, answer))["address_key"] for answer in seen}) == 1
        for hidden in ("2002:98ce:1::1", "2001:0:4136:e378:8000:63bf:6731:fffe"):
            found = await network(w, await w.ask(ask(f"X-Forwarded-For: {hidden}")))
            assert found.get("country") is None
        zoned = await network(w, await w.ask(ask("X-Forwarded-For: fe80::1%eth0")))
        assert zoned.get("kind", "unknown") == "unknown"


async def test_h14_an_ipv6_prefix_is_one_caller(gates: Gates) -> None:
    """All addresses of a /64 share one bucket; the next /64 has its own."""
    rules = """
limits:
  - {id: few, description: F., unit: requests, per: [address], rate: 3/hour, burst: 3}
"""
    async with wired(gates, rules=rules) as w:
        statuses = [
            (await w.ask(ask(f"X-Forwarded-For: 2600:1:2:3::{number:x}"))).status
            for number in range(5)
        ]
        assert statuses == [200, 200, 200, 429, 429]
        assert (await w.ask(ask("X-Forwarded-For: 2600:1:2:4::1"))).status == 200


async def test_h14_peers_over_ipv6(gates: Gates) -> None:
    """A peer that comes by IPv6 is trusted, or not, as configured."""
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    for trusted, status in ((("::1",), 451), (("127.0.0.1",), 200)):
        async with wired(gates, listener={"host": "::1", "trusted_proxies": trusted}) as w:
            caller = await w.caller(host="::1")
            assert (await caller.ask(ask(f"X-Forwarded-For: {CUBA}"))).status == status


PROXIED = {"proxy_protocol": True, "forwarded_header": "none"}
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def v1(address: str) -> bytes:
    """Return a PROXY header of version 1."""
    family = 6 if ":" in address else 4
    target = "::1" if family == 6 else "127.0.0.1"
    return f"PROXY TCP{family} {address} {target} 1 2\r\n".encode()


def v2(address: str, extra: bytes = b"") -> bytes:
    """Return a PROXY header of version 2."""
    packed = ip_address(address).packed
    body = packed + packed + struct.pack("!HH", 1, 2) + extra
    family = 0x11 if len(packed) == 4 else 0x21
    return SIGNATURE + struct.pack("!BBH", 0x21, family, len(body)) + body


LOCAL = SIGNATURE + b"\x20\x00\x00\x00"


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (v1(CUBA), 451),
        (v1(HOME), 200),
        (v1(f"::ffff:{CUBA}"), 451),
        (v2(CUBA), 451),
        (v2(HOME, extra=b"\x04\x00\x01x"), 200),
        (v2(f"::ffff:{CUBA}"), 451),
        (b"PROXY UNKNOWN\r\n", 200),
        (LOCAL, 200),
    ],
)
@pytest.mark.parametrize("step", [10_000, 7])
async def test_h13_proxy_headers_of_trusted_peers(
    gates: Gates, header: bytes, status: int, step: int
) -> None:
    """Versions 1 and 2, in one piece or many, hold for every call of the connection."""
    async with wired(gates, listener=PROXIED) as w:
        caller = await w.caller()
        data = header + ask(f"X-Forwarded-For: {CUBA if status == 200 else HOME}")
        for at in range(0, len(data), step):
            await caller.write_out(data[at : at + step])
        answer = await caller.answer()
        assert answer.status == status
        assert (await caller.ask(ask())).status == status


async def test_h13_untrusted_peers_cannot_send_proxy_headers(gates: Gates) -> None:
    """A peer that is no proxy is cut off at once: this listener has no other callers."""
    listener = PROXIED | {"trusted_proxies": ("10.0.0.1",)}
    async with wired(gates, listener=listener) as w:
        for data in (v1(HOME) + ask(), ask()):
            caller = await w.caller()
            caller.write(data)
            assert await caller.closed() == b""
        assert w.count("gatekeeper_parser_refusals", "proxy_header_untrusted") == 2
        assert w.upstream.connections == 0


@pytest.mark.parametrize(
    "data",
    [
        ask(),
        b"PROXY TCP4 8.8.8.8 evil 1 2\r\n" + ask(),
        b"PROXY TCP4 8.8.8.8 1.1.1.1 1 99999\r\n" + ask(),
        b"PROXY TCP4 " + b"8" * 200 + ask(),
        SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12) + ask(),
        SIGNATURE + b"\x21\x11\x00\x01\x00" + ask(),
        SIGNATURE + b"\x21\x11\xff\xff" + ask(),
    ],
)
async def test_h13_malformed_proxy_headers_end_the_connection(gates: Gates, data: bytes) -> None:
    """Without a proper header nothing of a connection is believed."""
    async with wired(gates, listener=PROXIED) as w:
        caller = await w.caller()
        caller.write(data)
        assert await caller.closed() == b""
        assert w.count("gatekeeper_parser_refusals", "proxy_header_malformed") == 1
        assert w.upstream.connections == 0


async def test_h13_half_a_proxy_header_is_cut_in_time(gates: Gates) -> None:
    """A header that never ends is a slow head like any other."""
    async with wired(gates, listener=PROXIED, deadlines={"headers_s": 0.2}) as w:
        for data in (b"", v1(HOME)[:9], v2(HOME)[:14], v1(HOME), v1(HOME) + b"GET"):
            caller = await w.caller()
            caller.write(data)
            assert await caller.closed() == b""
        assert w.count("gatekeeper_parser_refusals", "head_too_slow") == 5


async def test_h13_the_line_of_a_second_proxy_header_is_no_request(gates: Gates) -> None:
    """A header inside the stream, as a caller behind the proxy could send, is a bad request."""
    async with wired(gates, listener=PROXIED) as w:
        caller = await w.caller()
        answer = await caller.ask(v1(CUBA) + v1(HOME) + ask())
        assert answer.status == 400
        assert w.upstream.connections == 0


async def test_h16_a_database_that_is_damaged_in_place_changes_nothing(
    gates: Gates, small_geoip: Geoip, tmp_path: Path
) -> None:
    """Truncated, overwritten, deleted while it serves: no crash, and the same answers."""
    copies = [Path(shutil.copy(path, tmp_path)) for path in small_geoip.databases]
    own = small_geoip.model_copy(update={"databases": tuple(copies)})
    gates._geoip = own
    async with wired(gates) as w:

        async def judged() -> list[object]:
            answers = [await w.ask(ask(f"X-Forwarded-For: {each}")) for each in (CUBA, HOME)]
            assert [answer.status for answer in answers] == [451, 200]
            found = [await network(w, answer) for answer in answers]
            return [(each["country"], each["asn"], each.get("lookups")) for each in found]

        before = await judged()
        for damage in (truncated, scrambled, os.remove):
            for path in copies:
                damage(path)
            assert await judged() == before


def truncated(path: Path) -> None:
    """Cut a file to its first hundred bytes."""
    os.truncate(path, 100)


def scrambled(path: Path) -> None:
    """Overwrite a file in place."""
    with path.open("r+b") as file:
        file.write(b"\xff" * 100_000)


async def test_h15_unknown_data_does_not_open_the_door(gates: Gates, small_geoip: Geoip) -> None:
    """With the country databases gone, the AS number is still looked up, and recorded."""
    gates._geoip = small_geoip.model_copy(update={"databases": small_geoip.databases[2:]})
    async with wired(gates) as w:
        answer = await w.ask(request("GET", "/v1/models", f"X-Forwarded-For: {CUBA}"))
        found = await network(w, answer)
        assert (found.get("country"), found["asn"]) == (None, 27725)
