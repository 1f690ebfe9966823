"""Request heads: strict where servers disagree, and clean when they go on (H2-H6, H8, H11)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiohttp import HttpVersion
from aiohttp.test_utils import make_mocked_request
from aiohttp.web import Response, Server
from multidict import CIMultiDict

from gatekeeper.listener.head import BadRequest, Head, read_head
from gatekeeper.policy.words import Reason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from aiohttp.web import BaseRequest

NAME = "gate-1"
Lines = list[tuple[str, str]]
HOST = ("Host", "api.example")


def head_of(
    *lines: tuple[str, str],
    method: str = "GET",
    path: str = "/v1/models",
    version: tuple[int, int] = (1, 1),
) -> Head | BadRequest:
    """Read a head with these header lines."""
    headers: CIMultiDict[str] = CIMultiDict([HOST, *lines])
    return read_head(
        make_mocked_request(method, path, headers, version=HttpVersion(*version)), NAME
    )


def forwarded(*lines: tuple[str, str]) -> dict[str, str]:
    """Return what goes to the upstream."""
    head = head_of(*lines)
    assert isinstance(head, Head), head
    return dict(head.forwarded)


def refused(*lines: tuple[str, str]) -> Reason:
    """Return why a head is refused."""
    bad = head_of(*lines)
    assert isinstance(bad, BadRequest)
    return bad.reason


# --- what a head says ---------------------------------------------------------------------------


def test_ordinary_head() -> None:
    """The path is canonical, Host and Via are rebuilt, the rest goes on as it came."""
    head = head_of(("Authorization", "Bearer k"), ("X-Trace", "é"), path="/v1/%6dodels?a=%2f")
    assert isinstance(head, Head)
    assert (head.method, head.target.raw) == ("GET", "/v1/models?a=%2f")
    assert dict(head.forwarded) == {"Authorization": "Bearer k", "X-Trace": "é"}
    assert (head.via, head.client) == ("1.1 gate-1", None)


def test_repeated_headers_stay_repeated() -> None:
    """Lines that may stand twice are passed on in their order."""
    head = head_of(("Accept", "a"), ("X", "1"), ("Accept", "b"))
    assert isinstance(head, Head)
    assert list(head.forwarded.items()) == [("Accept", "a"), ("X", "1"), ("Accept", "b")]


@pytest.mark.parametrize(
    ("agent", "client"),
    [
        ("openai-python/1.2 (x)", "openai-python"),
        ("OpenAI/Python 1.2", "OpenAI"),
        ("curl", "curl"),
        ("", None),
        ("(no product)", None),
        ("\x1b[31m", None),
        ("é/1", None),
        ("a" * 100, "a" * 40),
    ],
)
def test_client_is_the_first_product(agent: str, client: str | None) -> None:
    """Nothing else of a User-Agent is kept: callers write what they like into it."""
    head = head_of(("User-Agent", agent))
    assert isinstance(head, Head)
    assert head.client == client


def test_refusals_echo_nothing() -> None:
    """The caller's own words never stand in the detail."""
    for bad in (
        head_of(path="/evil/../x"),
        head_of(("X-Api-Key", "evil"), ("X-Api-Key", "evil2")),
        head_of(("Upgrade", "evil")),
        head_of(("Content-Length", "evil")),
        head_of(method="EVIL"),
    ):
        assert isinstance(bad, BadRequest)
        assert bad.detail
        assert "evil" not in bad.detail.lower()


# --- hazards ------------------------------------------------------------------------------------


def test_h1_path_tricks() -> None:
    """The sentence of the target becomes the refusal."""
    bad = head_of(path="/v1/%2e%2e/admin")
    assert isinstance(bad, BadRequest)
    assert bad.reason is Reason.INVALID_PATH


@pytest.mark.parametrize(
    "host",
    ["a/#@evil", "a@b", "a b", "", "a,b", "a:b", "a:123456", "[::1", "[x]", "é.example", "a" * 256],
)
def test_h2_malformed_host(host: str) -> None:
    """A Host that two parsers could read differently is refused."""
    headers = CIMultiDict({"Host": host})
    bad = read_head(make_mocked_request("GET", "/v1", headers), NAME)
    assert isinstance(bad, BadRequest)
    assert bad.reason is Reason.INVALID_HEADERS


@pytest.mark.parametrize("host", ["a", "a.example:8080", "127.0.0.1", "[::1]:80", "under_score"])
def test_h2_good_host_goes_nowhere(host: str) -> None:
    """What it says is not forwarded and decides nothing."""
    headers = CIMultiDict({"Host": host})
    head = read_head(make_mocked_request("GET", "/v1", headers), NAME)
    assert isinstance(head, Head)
    assert dict(head.forwarded) == {}


def test_h2_missing_or_double_host() -> None:
    """Exactly one Host."""
    without = read_head(make_mocked_request("GET", "/v1", CIMultiDict()), NAME)
    assert isinstance(without, BadRequest)
    assert refused(HOST) is Reason.INVALID_HEADERS


@pytest.mark.parametrize("version", [(0, 9), (1, 2), (2, 0), (5, 6)])
def test_h3_versions(version: tuple[int, int]) -> None:
    """Only HTTP/1.0 and HTTP/1.1 are spoken."""
    bad = head_of(version=version)
    assert isinstance(bad, BadRequest)
    assert bad.reason is Reason.INVALID_REQUEST
    assert isinstance(head_of(version=(1, 0)), Head)


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "PURGE", "PROPFIND", ""])
def test_methods_that_are_not_served(method: str) -> None:
    """What no model endpoint has does not reach one."""
    bad = head_of(method=method)
    assert isinstance(bad, BadRequest)
    assert bad.reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize(
    "lines",
    [
        [("Content-Length", "+1")],
        [("Content-Length", "1_0")],
        [("Content-Length", "-1")],
        [("Content-Length", "")],
        [("Content-Length", "1, 1")],
        [("Content-Length", "\u0661")],
        [("Content-Length", "1"), ("Content-Length", "1")],
        [("Content-Length", "1"), ("Transfer-Encoding", "chunked")],
        [("Transfer-Encoding", "gzip, chunked")],
        [("Transfer-Encoding", "identity")],
        [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")],
    ],
)
def test_h4_framing(lines: Lines) -> None:
    """One length, or chunked, and nothing in between."""
    assert refused(*lines) is Reason.INVALID_HEADERS


def test_h4_chunked_needs_http_1_1() -> None:
    """RFC 9112, 6.1: from HTTP/1.0 it is a sign of smuggling."""
    assert isinstance(head_of(("Transfer-Encoding", "Chunked")), Head)
    assert isinstance(head_of(("Transfer-Encoding", "chunked"), version=(1, 0)), BadRequest)


@pytest.mark.parametrize(
    "twin", ["X_Api_Key", "x_forwarded_for", "Transfer_Encoding", "content_length", "API_KEY"]
)
def test_h5_underscore_twins_are_dropped(twin: str) -> None:
    """CGI-like servers read both spellings as one: only the dashed one exists here."""
    assert forwarded((twin, "evil"), ("X-Kept", "1")) == {"X-Kept": "1"}


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "X-Api-Key",
        "Api-Key",
        "Content-Type",
        "Content-Encoding",
        "User-Agent",
        "Origin",
    ],
)
def test_h5_duplicates_are_refused(name: str) -> None:
    """Two lines where readers take the first or the last."""
    assert refused((name, "a"), (name.lower(), "b")) is Reason.INVALID_HEADERS


@pytest.mark.parametrize(
    "name",
    [
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "Forwarded",
        "X-Real-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
    ],
)
def test_h5_claims_about_the_client_stop_here(name: str) -> None:
    """Only the gate speaks of addresses to the upstream; several lines are no mistake."""
    assert forwarded((name, "1.2.3.4"), (name, "5.6.7.8")) == {}


@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "Keep-Alive",
        "Proxy-Authorization",
        "Proxy-Authenticate",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Expect",
    ],
)
def test_h6_hop_by_hop_is_stripped(name: str) -> None:
    """Headers of one connection end with it."""
    assert forwarded((name, "x"), ("X-Kept", "1")) == {"X-Kept": "1"}


@pytest.mark.parametrize(
    "nominating",
    [
        [("Connection", "x-secret")],
        [("Connection", "close, X-Secret")],
        [("Connection", "keep-alive"), ("Connection", "X-SECRET , foo")],
        [("Connection", ", ,x-secret,")],
    ],
)
def test_h6_nominated_headers_are_stripped(nominating: Lines) -> None:
    """Whatever Connection names goes no further, on whichever of its lines it stands."""
    assert forwarded(("X-Secret", "1"), ("X-Kept", "1"), *nominating) == {"X-Kept": "1"}


def test_h6_nominating_a_credential_changes_no_identity() -> None:
    """The caller loses its own header upstream; the gate has read it before."""
    request = make_mocked_request(
        "GET",
        "/v1",
        CIMultiDict(
            [HOST, ("X-Api-Key", "gk_1"), ("Connection", "x-api-key, host, content-length")]
        ),
    )
    head = read_head(request, NAME)
    assert isinstance(head, Head)
    assert "x-api-key" not in head.forwarded
    assert request.headers["X-Api-Key"] == "gk_1"


@pytest.mark.parametrize("protocol", ["websocket", "h2c", "HTTP/2.0", "", "TLS/1.2, h2c"])
def test_h8_upgrades_are_refused(protocol: str) -> None:
    """A connection that leaves HTTP could not be metered."""
    lines = [("Connection", "upgrade, http2-settings"), ("Upgrade", protocol)]
    assert refused(*lines) is Reason.UPGRADE_NOT_SUPPORTED


@pytest.mark.parametrize(
    ("via", "loop"),
    [
        ([], False),
        (["1.1 other"], False),
        (["1.1 gate-10", "1.1 x-gate-1"], False),
        (["gate-1"], False),
        ([""], False),
        ([",,"], False),
        (["1.1 gate-1"], True),
        (["1.0 other, 1.1   gate-1 (comment)"], True),
        (["1.1 other", "HTTP/1.1 gate-1"], True),
    ],
)
def test_h11_loop(via: list[str], *, loop: bool) -> None:
    """A call that carries our name in Via has been here; any other gets it appended."""
    head = head_of(*(("Via", line) for line in via))
    if loop:
        assert isinstance(head, BadRequest)
        assert head.reason is Reason.LOOP_DETECTED
    else:
        assert isinstance(head, Head)
        assert head.via == ", ".join([*(line for line in via if ", ".join(via)), "1.1 gate-1"])
        assert "via" not in head.forwarded


def test_h11_two_passes_are_a_loop() -> None:
    """What the gate sends is what it recognises."""
    first = head_of(("Via", "1.1 cdn"))
    assert isinstance(first, Head)
    assert refused(("Via", first.via)) is Reason.LOOP_DETECTED


# --- on the wire --------------------------------------------------------------------------------


@pytest.fixture
async def send() -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
    """Serve on loopback; return a function that sends bytes and returns the answer's body."""

    async def handler(request: BaseRequest) -> Response:
        head = read_head(request, NAME)
        text = head.reason.value if isinstance(head, BadRequest) else "head:" + head.target.raw
        response = Response(text=text)
        response.force_close()
        return response

    async def exchange(data: bytes) -> bytes:
        receive, transmit = await asyncio.open_connection("127.0.0.1", port)
        transmit.write(data)
        answer = await receive.read()
        transmit.close()
        await transmit.wait_closed()
        return answer.partition(b"\r\n\r\n")[2]

    server = Server(handler, access_log=None, lingering_time=0)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    yield exchange
    listening.close()
    await server.shutdown()


@pytest.mark.parametrize(
    ("line", "headers", "says"),
    [
        pytest.param("GET /v1 HTTP/1.1", "Host: a", "head:/v1", id="ordinary"),
        pytest.param("GET /v1?a=%2F HTTP/1.1", "Host: a", "head:/v1?a=%2F", id="query as it came"),
        pytest.param("GET /a/../b HTTP/1.1", "Host: a", "invalid_path", id="H1 dot segments"),
        pytest.param("GET /a/%2e%2e/b HTTP/1.1", "Host: a", "invalid_path", id="H1 encoded dots"),
        pytest.param("GET //a HTTP/1.1", "Host: a", "invalid_path", id="H1 empty segment"),
        pytest.param("GET /a#b HTTP/1.1", "Host: a", "invalid_path", id="H1 fragment"),
        pytest.param("GET http://evil/v1 HTTP/1.1", "Host: a", "invalid_path", id="H2 absolute"),
        pytest.param("OPTIONS * HTTP/1.1", "Host: a", "invalid_path", id="asterisk"),
        pytest.param("GET /v1 HTTP/1.1", "Host: a/#@evil", "invalid_headers", id="H2 odd Host"),
        pytest.param("GET /v1 HTTP/1.0", "X: y", "invalid_headers", id="H3 1.0 without Host"),
        pytest.param("GET /v1 HTTP/1.1", "Host: a\r\nX: \xff", "invalid_headers", id="odd bytes"),
        pytest.param(
            "POST /v1 HTTP/1.0",
            "Host: a\r\nTransfer-Encoding: chunked\r\n\r\n0",
            "invalid_request",
            id="H4 chunked 1.0",
        ),
        pytest.param(
            "GET /v1 HTTP/1.1",
            "Host: a\r\nAuthorization: a\r\nAuthorization: b",
            "invalid_headers",
            id="H5 duplicate",
        ),
        pytest.param(
            "GET /v1 HTTP/1.1",
            "Host: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA",
            "upgrade_not_supported",
            id="H8 h2c",
        ),
        pytest.param(
            "GET /v1 HTTP/1.1",
            "Host: a\r\nConnection: upgrade\r\nUpgrade: websocket",
            "upgrade_not_supported",
            id="H8 websocket",
        ),
    ],
)
async def test_heads_on_the_wire(
    send: Callable[[bytes], Awaitable[bytes]], line: str, headers: str, says: str
) -> None:
    """The HTTP parser under the gate hands these over as they were sent; the gate judges them."""
    assert await send(f"{line}\r\n{headers}\r\n\r\n".encode("latin-1")) == says.encode()


async def test_h3_http_0_9_on_the_wire(send: Callable[[bytes], Awaitable[bytes]]) -> None:
    """The parser accepts a request line without version; the gate does not."""
    assert b"invalid_request" in await send(b"GET /v1\r\n\r\n")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /v1 HTTP/5.6\r\nHost: a\r\n\r\n",
        b"GET /v1 HTTP/1.1\r\nX: y\r\n\r\n",
        b"GET /v1 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /v1\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"get /v1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=["H3 5.6", "H2 no Host", "H2 two Hosts", "odd path", "small method", "H3 2.0"],
)
async def test_what_the_parser_refuses(
    send: Callable[[bytes], Awaitable[bytes]], sent: bytes
) -> None:
    """Whether the parser refuses these or the gate does, none becomes a call."""
    answer = await send(sent)
    assert answer
    assert b"head:" not in answer
