"""What callers may send by HTTP to be read one way here and another way behind."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING

import pytest
from support.wire import ASK, CHAT, OK, Exchange, ask, request, until, wired

from gatekeeper.settings import Sizes

if TYPE_CHECKING:
    from support.gates import Gates
    from support.wire import Wired

LIMITED = """
limits:
  - {id: slots, description: S., unit: concurrency, per: [account], slots: 1, lease: 1 hour}
"""
"""One call at a time: a hold that leaks refuses the next call."""


def problem(answer_body: bytes) -> dict[str, object]:
    """Return problem details, which hold what RFC 9457 wants."""
    found: dict[str, object] = json.loads(answer_body)
    assert {"type", "title", "status", "detail"} <= found.keys()
    return found


async def refused(w: Wired, data: bytes, code: str, status: int = 400) -> None:
    """Show that a request is refused in problem details and that nothing of it went upstream."""
    caller = await w.caller()
    before = [len(each) for each in w.upstream.received]
    answer = await caller.ask(data)
    assert answer.status == status, (data, answer)
    assert answer.head.one("content-type") == "application/problem+json"
    found = problem(answer.body)
    assert (found["status"], found["code"]) == (status, code), (data, found)
    assert [len(each) for each in w.upstream.received] == before, data
    assert b"evil" not in answer.head.raw + answer.body
    await caller.close()


BAD_PATHS = (
    "/v1/../admin",
    "/v1/%2e%2e/admin",
    "/v1/.%2E/admin",
    "/v1/./models",
    "//admin",
    "/v1//models",
    "/v1%2fmodels",
    "/v1/models%00",
    "/v1/models%0d%0aX-Evil:%201",
    "/v1\\models",
    "/v1%5cmodels",
    "/v1/models;evil=1",
    "/v1/models%3bevil",
    "/v1/%252e%252e/admin",
    "/v1/models%",
    "/v1/models%zz",
    "/v1/%c0%ae%c0%ae/admin",
    "/v1/models#evil",
    "/v1/models?a=#evil",
    "*",
    "evil",
    "http://evil.example/v1/models",
)


async def test_h1_ambiguous_paths_are_refused(gates: Gates) -> None:
    """A target that two servers could read differently gets 400 and never leaves the gate."""
    async with wired(gates) as w:
        for target in BAD_PATHS:
            caller = await w.caller()
            answer = await caller.ask(request("GET", target))
            assert answer.status == 400, (target, answer)
            assert answer.head.one("content-type") == "application/problem+json"
            assert problem(answer.body)["code"] in {"invalid_path", "invalid_request"}
            assert b"vil" not in answer.head.raw + answer.body
            assert await caller.closed() == b""
        assert w.upstream.connections == 0


@pytest.mark.parametrize(
    ("sent", "forwarded"),
    [
        ("/v1/models", "/v1/models"),
        ("/v1/models/", "/v1/models/"),
        ("/v1/%6dodels", "/v1/models"),
        ("/files/a%20b", "/files/a%20b"),
        ("/files/%e2%82%ac", "/files/%E2%82%AC"),
        ("/files/a:b@c!$&'()*+,=d~e", "/files/a:b@c!$&'()*+,=d~e"),
        ("/files?x=%2e%2e%2f&y=a+b&z=%C3%A9&&w=[1]", "/files?x=%2e%2e%2f&y=a+b&z=%C3%A9&&w=[1]"),
        ("/files?next=http://other.example/../x;y", "/files?next=http://other.example/../x;y"),
        ("/files?", "/files"),
        ("/...", "/..."),
    ],
)
async def test_h1_what_was_matched_is_what_is_sent(gates: Gates, sent: str, forwarded: str) -> None:
    """The upstream gets the very bytes that the rules saw, queries untouched."""
    async with wired(gates) as w:
        answer = await w.ask(request("GET", sent))
        assert answer.status == 200
        assert w.upstream.book[0].head.target == forwarded
        decision = await w.decision(answer.head)
        assert decision["facts"]["call"]["path"] == forwarded.partition("?")[0]


async def test_h1_base_path_of_the_upstream_is_put_before(gates: Gates) -> None:
    """A base URL with a path keeps it, and nothing in a target can climb out of it."""
    async with wired(gates) as w:
        w.gate.app.gate._parts.delivery.routes.routes[0].endpoints[0].base += "/base"
        await w.ask(request("GET", "/files/x%20y"))
        assert w.upstream.book[0].head.target == "/base/files/x%20y"


BAD_HOSTS = (
    "Host: evil/#@example",
    "Host: evil@example",
    "Host: evil example",
    "Host: evil\\example",
    "Host: evil:99999999",
    "Host: [::1",
    "Host:",
)


async def test_h2_bad_hosts_are_refused(gates: Gates) -> None:
    """A Host that is missing, double or malformed gets 400."""
    async with wired(gates) as w:
        plain = request().replace(b"Host: gate.example\r\n", b"")
        for line in BAD_HOSTS:
            await refused(
                w, plain.replace(b"\r\n", b"\r\n%b\r\n" % line.encode(), 1), "invalid_headers"
            )
        await refused(w, plain, "invalid_request")
        twice = plain.replace(b"\r\n", b"\r\nHost: a.example\r\nHost: b.example\r\n", 1)
        await refused(w, twice, "invalid_request")


async def test_h2_nothing_derives_from_host(gates: Gates) -> None:
    """Any well-formed Host goes to the same upstream, under the upstream's own name."""
    async with wired(gates) as w:
        accounts = set()
        for host in (b"other.example", b"127.0.0.1:1", b"[::1]:8080", b"localhost"):
            answer = await w.ask(ask().replace(b"gate.example", host))
            assert answer.status == 200
            accounts.add((await w.decision(answer.head))["facts"]["account"]["id"])
        names = {seen.head.one("host") for seen in w.upstream.book}
        assert names == {f"127.0.0.1:{w.upstream.port}"}
        assert len(accounts) == 1


async def test_h3_other_versions_are_refused(gates: Gates) -> None:
    """HTTP/0.9, HTTP/5.6, HTTP/2 prior knowledge and HTTP/1.0 without Host never get through."""
    async with wired(gates) as w:
        for line in (b"GET /v1/models\r\n\r\n", b"GET /v1/models HTTP/0.9\r\nHost: a\r\n\r\n"):
            await refused(w, line, "invalid_request")
        await refused(w, request(version="HTTP/5.6"), "invalid_request")
        await refused(w, request(version="HTTP/2.0"), "invalid_request")
        await refused(w, request(version="http/1.1"), "invalid_request")
        await refused(w, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "invalid_request")
        await refused(w, b"GET /v1/models HTTP/1.0\r\n\r\n", "invalid_headers")
        answer = await w.ask(request(version="HTTP/1.0"))
        assert answer.status == 200


EVIL = b"GET /evil HTTP/1.1\r\nHost: evil\r\n\r\n"
SMUGGLED = (
    "Content-Length: 6\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 6",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding:\x0bchunked",
    "Transfer-Encoding : chunked",
    " Transfer-Encoding: chunked",
    "Content-Length: +1",
    "Content-Length: 1_0",
    "Content-Length: -1",
    "Content-Length: 0x5",
    "Content-Length: 5 5",
    "Content-Length: 5, 5",
    "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: 5\r\nContent-Length: 5",
    "Content-Length: 99999999999999999999999",
    "Content-Length: 5\nX: y",
    "Content-Length: 5\rX: y",
    "X: y\r\n z",
    "X\x00: y",
    "X: a\x00b",
    ": y",
    "no colon",
)


async def test_h4_malformed_framing_never_reaches_the_upstream(gates: Gates) -> None:
    """Every trick on the length of a body ends in one 400 and a closed connection."""
    async with wired(gates) as w:
        for target in (CHAT, "/plain"):
            for line in SMUGGLED:
                caller = await w.caller()
                caller.write(request("POST", target, line) + b"0\r\n\r\n" + EVIL)
                answer = await caller.answer()
                assert answer.status == 400, (line, answer)
                assert problem(answer.body)["code"] in {"invalid_request", "invalid_headers"}, line
                assert await caller.closed() == b"", line
        assert w.upstream.connections == 0


async def test_h4_leading_zeros_are_one_number_on_both_sides(gates: Gates) -> None:
    """`Content-Length: 010` is ten for everybody: it is sent on as it was counted here."""
    async with wired(gates) as w:
        answer = await w.ask(request("POST", "/plain", "Content-Length: 010") + b"0123456789")
        assert answer.status == 200
        assert w.upstream.book[0].body == b"0123456789"
        assert w.upstream.book[0].head.one("content-length") == "10"


async def test_h4_underscored_transfer_encoding_is_dropped(gates: Gates) -> None:
    """A name that some servers take for Transfer-Encoding does not get to them."""
    async with wired(gates) as w:
        await w.ask(request("POST", "/plain", "Transfer_Encoding: chunked", body=b"abc"))
        assert "ransfer" not in w.upstream.book[0].head.raw.decode()
        assert w.upstream.book[0].body == b"abc"


async def test_h4_broken_chunks_end_the_call(gates: Gates) -> None:
    """A chunked body that goes wrong midway is refused at once, and its holds come back."""
    async with wired(gates, rules=LIMITED) as w:
        for target in (CHAT, "/plain"):
            for rest in (b"zz\r\n", b"+5\r\nhello\r\n", b"5\nhello\n", b"5\r\nhello!!"):
                caller = await w.caller()
                caller.write(request("POST", target, "Transfer-Encoding: chunked"))
                caller.write(b"3\r\nabc\r\n")
                await until(lambda: w.gate.app.gate.active == 1)
                caller.write(rest + EVIL)
                answer = await caller.answer()
                assert answer.status == 400
                assert b"invalid_body" in answer.body
                assert answer.head.one("connection") == "close"
                assert await caller.closed() == b""
        assert w.upstream.book == []
        assert b"evil" not in b"".join(map(bytes, w.upstream.received))
        assert w.count("gatekeeper_upstream_failures", "demo", "upstream_unreachable") == 0
        assert (await w.ask(ask())).status == 200


async def test_h5_underscore_twins_are_dropped(gates: Gates) -> None:
    """CGI-like servers read `x_api_key` as `x-api-key`: such twins are not sent on."""
    async with wired(gates) as w:
        twins = ("X_Api_Key: evil", "x_forwarded_for: 8.8.8.8", "Content_Length: 0", "X-Kept: yes")
        answer = await w.ask(ask(*twins))
        assert answer.status == 200
        head = w.upstream.book[0].head
        assert not [name for name, _ in head.fields if "_" in name]
        assert head.one("x-kept") == "yes"


@pytest.mark.parametrize(
    "lines",
    [
        ("Authorization: Bearer sk-one",),
        ("Authorization: Bearer sk-two",),
        ("x-api-key: a", "x-api-key: b"),
        ("api-key: a", "API-KEY: a"),
        ("Content-Type: a/b",),
        ("User-Agent: a", "User-Agent: b"),
        ("Origin: http://a", "Origin: http://b"),
    ],
)
async def test_h5_identity_headers_stand_once(gates: Gates, lines: tuple[str, ...]) -> None:
    """A header that decides who calls or what, sent twice, is refused."""
    async with wired(gates) as w:
        answer = await w.ask(ask(*lines))
        assert answer.status == 400
        assert w.upstream.connections == 0


async def test_h5_two_credentials_that_differ_are_refused(gates: Gates) -> None:
    """The upstream might read the other one."""
    async with wired(gates) as w:
        answer = await w.ask(ask("x-api-key: sk-two"))
        assert answer.status == 401
        assert w.upstream.connections == 0


async def test_h5_bytes_that_vanish_are_refused(gates: Gates) -> None:
    """Odd bytes, which a serialiser might drop, cannot make two accounts of one upstream key."""
    async with wired(gates) as w:
        answer = await w.ask(ask(key="sk-\udcffone"))
        assert answer.status == 400
        answer = await w.ask(ask(key="sk-öne"))
        assert answer.status == 401
        assert w.upstream.connections == 0


async def test_h6_nominated_headers_change_nothing_of_identity(gates: Gates) -> None:
    """`Connection: authorization` strips for the upstream, after the caller was identified."""
    async with wired(gates) as w:
        plain = await w.ask(ask("X-Forwarded-For: 152.206.0.1", key="sk-one"))
        assert plain.status == 451
        nominating = "Connection: authorization, x-forwarded-for, X-Extra, close"
        tricked = await w.ask(ask(nominating, "X-Forwarded-For: 152.206.0.1", "X-Extra: 1"))
        assert tricked.status == 451
        first = await w.ask(ask())
        second = await w.ask(ask(nominating, "X-Extra: 1"))
        decisions = [await w.decision(answer.head) for answer in (first, second)]
        accounts = {each["facts"]["account"]["id"] for each in decisions}
        assert len(accounts) == 1
        head = w.upstream.book[1].head
        assert head.one("x-extra") is None
        assert head.one("authorization") is None


HOP_BY_HOP = (
    "Connection: keep-alive",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: keep-alive",
    "Proxy-Authorization: Basic evil",
    "TE: trailers",
    "Trailer: X-Sum",
)


async def test_h6_hop_by_hop_headers_stop_here(gates: Gates) -> None:
    """Headers of one connection are passed on in neither direction."""

    async def answering(exchange: Exchange) -> None:
        await exchange.body()
        lines = "\r\n".join(
            [
                *HOP_BY_HOP[1:3],
                "Proxy-Authenticate: x",
                "Connection: x-secret",
                "X-Secret: 1",
                "X-Kept: 1",
            ]
        )
        await exchange.send(OK.replace(b"\r\n", b"\r\n" + lines.encode() + b"\r\n", 1))

    async with wired(gates) as w:
        w.upstream.script = answering
        answer = await w.ask(ask(*HOP_BY_HOP))
        assert answer.status == 200
        for head in (w.upstream.book[0].head, answer.head):
            text = head.raw.decode().lower()
            for name in ("keep-alive", "proxy-", "\r\nte:", "trailer", "x-secret"):
                assert name not in text, text
        assert answer.head.one("x-kept") == "1"


async def test_h6_forwarding_headers_of_callers_stop_here(gates: Gates) -> None:
    """An upstream that believes forwarded headers is told nothing that a caller wrote."""
    names = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "True-Client-IP")
    lines = [f"{name}: {'for=8.8.8.8' if name == 'Forwarded' else '8.8.8.8'}" for name in names]
    async with wired(gates) as w:
        assert (await w.ask(ask(*lines))).status == 200
        head = w.upstream.book[0].head
        assert not [name for name in names if head.one(name)]


async def test_h7_gzip_bodies_are_read_and_sent_on_as_they_came(gates: Gates) -> None:
    """The policy sees what is inside; label and bytes still belong together upstream."""
    async with wired(gates) as w:
        for coding, packed in (("gzip", gzip.compress(ASK)), ("deflate", zlib.compress(ASK))):
            answer = await w.ask(ask(f"Content-Encoding: {coding}", body=packed))
            assert answer.status == 200
            seen = w.upstream.book[-1]
            assert (seen.body, seen.head.one("content-encoding")) == (packed, coding)
            decision = await w.decision(answer.head)
            assert decision["facts"]["call"]["model"] == "demo-small"


async def test_h7_bombs_and_mislabelled_bodies(gates: Gates) -> None:
    """A bomb stops at the bound, before inflating and after; what is not what it says is 400."""
    sizes = Sizes(max_body_bytes=100_000, max_inflated_bytes=200_000)
    async with wired(gates, sizes=sizes) as w:
        bomb = gzip.compress(b" " * 50_000_000)
        assert len(bomb) < sizes.max_body_bytes
        cases = (
            (("Content-Encoding: gzip",), bomb, 413),
            (("Content-Encoding: gzip",), gzip.compress(bomb), 400),
            (("Content-Encoding: gzip, gzip",), gzip.compress(gzip.compress(ASK)), 400),
            (("Content-Encoding: gzip",), ASK, 400),
            (("Content-Encoding: gzip",), gzip.compress(ASK)[:-3], 400),
            (("Content-Encoding: gzip",), gzip.compress(ASK) + b"x", 400),
            (("Content-Encoding: br",), ASK, 400),
            (("Content-Encoding: gzip", "Content-Encoding: identity"), gzip.compress(ASK), 400),
            ((), b" " * 100_001, 413),
        )
        for lines, body, status in cases:
            assert (await w.ask(ask(*lines, body=body))).status == status, (lines, body[:40])
        chunked = b"186a1\r\n" + b" " * 100_001
        caller = await w.caller()
        caller.write(request("POST", CHAT, "Transfer-Encoding: chunked") + chunked)
        assert (await caller.answer()).status == 413
        assert w.upstream.connections == 0


UPGRADES = (
    (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: x",
        "Sec-WebSocket-Version: 13",
    ),
    ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    ("Connection: keep-alive, upgrade", "Upgrade: TLS/1.2"),
    ("Upgrade: websocket",),
)


@pytest.mark.parametrize("lines", UPGRADES)
@pytest.mark.parametrize("body", [None, b"hello"])
async def test_h8_upgrades_are_refused(
    gates: Gates, lines: tuple[str, ...], body: bytes | None
) -> None:
    """No upgrade is taken, the connection ends, and bytes behind the request go nowhere."""
    async with wired(gates) as w:
        caller = await w.caller()
        caller.write(request("GET", "/v1/realtime", *lines, body=body) + EVIL * 2)
        answer = await caller.answer()
        assert (answer.status, problem(answer.body)["code"]) == (400, "upgrade_not_supported")
        assert answer.head.one("upgrade") is None
        assert await caller.closed() == b""
        assert w.upstream.connections == 0
        assert len(w.gate.book()) <= 1


async def test_h8_connect_is_refused(gates: Gates) -> None:
    """The gate is no tunnel."""
    async with wired(gates) as w:
        caller = await w.caller()
        caller.write(b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n" + EVIL)
        assert (await caller.answer()).status == 400
        assert await caller.closed() == b""
        assert w.upstream.connections == 0


async def test_h11_a_gate_in_front_of_itself_detects_the_loop(gates: Gates) -> None:
    """The call comes back once, is refused with 508, and the refusal reaches the caller."""
    async with wired(gates) as w:
        w.gate.app.gate._parts.delivery.routes.routes[0].endpoints[0].base = w.gate.url
        answer = await w.ask(ask("Via: 1.1 elsewhere"))
        assert answer.status == 508
        assert b"loop_detected" in answer.body
        assert len([each for each in w.gate.book() if each["kind"] == "decision"]) <= 2


async def test_h11_gates_of_two_names_can_be_chained(gates: Gates) -> None:
    """Via is kept and added to; another gate behind this one is no loop."""
    async with wired(gates) as behind:
        front = await gates(
            credentials=("opaque",),
            rules=(behind.gate.settings.rules_dir),
            upstream={"urls": (behind.gate.url,)},
            name="outer",
        )
        async with front.http.post(
            CHAT, data=ASK, headers={"Authorization": "Bearer sk-one", "Via": "1.1 elsewhere"}
        ) as answer:
            assert answer.status == 200
        assert behind.upstream.book[0].head.one("via") == "1.1 elsewhere, 1.1 outer, 1.1 gatekeeper"


async def test_h26_every_method_is_metered(gates: Gates) -> None:
    """HEAD, OPTIONS and the rest pay like any call, and unknown methods are refused."""
    rules = """
limits:
  - {id: five, description: F., unit: requests, per: [account], rate: 5/hour, burst: 5}
"""
    async with wired(gates, rules=rules) as w:
        for method in ("HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"):
            caller = await w.caller()
            caller.write(request(method, "/anything"))
            assert (await caller.answer(to_head=method == "HEAD")).status == 200, method
        for method in ("HEAD", "OPTIONS", "GET"):
            caller = await w.caller()
            caller.write(request(method, "/anything"))
            assert (await caller.answer(to_head=method == "HEAD")).status == 429, method
        assert [seen.head.line.split()[0] for seen in w.upstream.book] == [
            "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH",
        ]  # fmt: skip
        for method in ("TRACE", "PROPFIND", "get", "G@T"):
            assert (await w.ask(request(method, "/anything"))).status == 400


async def test_h26_preflight_is_answered_by_setting_only(gates: Gates) -> None:
    """A preflight from an allowed origin is answered here; any other is a call like all."""
    lines = ("Origin: https://app.example", "Access-Control-Request-Method: POST")
    cors = {"allow_origins": ("https://app.example",)}
    async with wired(gates, cors=cors) as w:
        answer = await w.ask(request("OPTIONS", CHAT, *lines, key=None))
        assert answer.status == 204
        assert answer.head.one("access-control-allow-origin") == "https://app.example"
        other = ("Origin: https://evil.example", lines[1])
        assert (await w.ask(request("OPTIONS", CHAT, *other, key=None))).status == 401
        assert w.upstream.connections == 0
        w.upstream.script = _varying
        seen = await w.ask(ask("Origin: https://app.example"))
        assert seen.head.all("vary") == ["Accept-Encoding, Origin"]


async def _varying(exchange: Exchange) -> None:
    await exchange.body()
    await exchange.send(OK.replace(b"\r\n", b"\r\nVary: Accept-Encoding\r\n", 1))
