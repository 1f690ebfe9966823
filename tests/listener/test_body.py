"""Bodies are bounded as they come and as they inflate (H7, H10)."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from typing import TYPE_CHECKING

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.web import RequestPayloadError
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.listener.body import BodyRefusedError, inflate, read_body, stream_body
from gatekeeper.policy.words import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

PLAIN = b'{"model": "gpt-4o", "messages": []}'


def reader(*chunks: bytes, ended: bool = True) -> StreamReader:
    """Return a body of which ``chunks`` have arrived."""
    loop = asyncio.get_running_loop()
    connection = BaseProtocol(loop)
    connection.connection_made(asyncio.Transport())
    content = StreamReader(connection, 2**16, loop=loop)
    for chunk in chunks:
        content.feed_data(chunk)
    if ended:
        content.feed_eof()
    return content


@pytest.mark.parametrize(
    ("chunks", "most_bytes", "read"),
    [
        ((), 0, b""),
        ((b"abc",), 3, b"abc"),
        ((b"ab", b"c"), 3, b"abc"),
        ((b"abcd",), 3, Reason.BODY_TOO_LARGE),
        ((b"ab", b"cd"), 3, Reason.BODY_TOO_LARGE),
    ],
)
async def test_whole_body(chunks: tuple[bytes, ...], most_bytes: int, read: object) -> None:
    """A body that has arrived is read at once; one byte too many is too many."""
    assert await read_body(reader(*chunks), most_bytes=most_bytes, within_s=60) == read


async def test_body_that_is_still_arriving() -> None:
    """What comes later is waited for."""
    content = reader(b"ab", ended=False)

    async def later() -> None:
        content.feed_data(b"cd")
        await asyncio.sleep(0)
        content.feed_eof()

    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read_body(content, most_bytes=4, within_s=60))
        tasks.create_task(later())
    assert reading.result() == b"abcd"


async def test_h7_endless_body_stops_at_the_bound() -> None:
    """The bound is met while reading, not when it is all in memory."""
    content = reader(b"a" * 10, ended=False)
    assert await read_body(content, most_bytes=9, within_s=60) is Reason.BODY_TOO_LARGE


@pytest.mark.parametrize("begun", [(), (b"half",)])
async def test_h10_slow_body_meets_the_deadline(begun: tuple[bytes, ...]) -> None:
    """Silence ends with the deadline of the whole body."""
    content = reader(*begun, ended=False)
    assert await read_body(content, most_bytes=9, within_s=0) is Reason.REQUEST_TIMEOUT


@pytest.mark.parametrize("ended", [True, False])
async def test_h4_damaged_framing_is_an_answer(*, ended: bool) -> None:
    """A chunk that is none ends the body with a reason, however much came before it."""
    content = reader(b"half", ended=ended)
    content.set_exception(RequestPayloadError("bad chunk"))
    assert await read_body(content, most_bytes=9, within_s=60) is Reason.INVALID_BODY


async def test_streamed_body_passes_chunk_by_chunk() -> None:
    """What fits has gone on before the bound breaks; then the reason is raised."""
    content = reader(b"ab", ended=False)
    stream = stream_body(content, most_bytes=3, within_s=60)
    assert await anext(stream) == b"ab"
    content.feed_data(b"cd")
    with pytest.raises(BodyRefusedError) as refused:
        await anext(stream)
    assert refused.value.reason is Reason.BODY_TOO_LARGE


def raw_deflate(data: bytes) -> bytes:
    """Compress without the zlib wrapper that RFC 9110 asks for."""
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return engine.compress(data) + engine.flush()


@pytest.mark.parametrize(
    ("coding", "body", "plain"),
    [
        ("", PLAIN, PLAIN),
        ("identity", PLAIN, PLAIN),
        ("gzip", gzip.compress(PLAIN, mtime=0), PLAIN),
        ("deflate", zlib.compress(PLAIN), PLAIN),
        ("gzip", gzip.compress(b"", mtime=0), b""),
        ("deflate", zlib.compress(b""), b""),
    ],
)
def test_h7_inflates(coding: str, body: bytes, plain: bytes) -> None:
    """What was compressed comes back, up to the very last byte allowed."""
    assert inflate(body, coding, most_bytes=100) == plain
    if coding in {"gzip", "deflate"}:
        assert inflate(body, coding, most_bytes=len(plain)) == plain


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        pytest.param("zstd", PLAIN, id="coding not taken"),
        pytest.param("br", PLAIN, id="another"),
        pytest.param("gzip, gzip", gzip.compress(gzip.compress(PLAIN, mtime=0)), id="twice"),
        pytest.param("gzip", b"", id="empty"),
        pytest.param("gzip", PLAIN, id="not compressed"),
        pytest.param("gzip", zlib.compress(PLAIN), id="mislabelled"),
        pytest.param("deflate", gzip.compress(PLAIN, mtime=0), id="mislabelled too"),
        pytest.param("deflate", raw_deflate(PLAIN), id="raw deflate"),
        pytest.param("gzip", gzip.compress(PLAIN, mtime=0)[:-1], id="cut off"),
        pytest.param("gzip", gzip.compress(PLAIN, mtime=0)[:-8] + bytes(8), id="wrong checksum"),
        pytest.param("gzip", gzip.compress(PLAIN, mtime=0) + b"x", id="trailing data"),
        pytest.param("gzip", gzip.compress(PLAIN, mtime=0) * 2, id="two members"),
        pytest.param("deflate", zlib.compress(PLAIN) + b"x", id="trailing data, deflate"),
    ],
)
def test_h7_damage_is_refused(coding: str, body: bytes) -> None:
    """What could be read in two ways is not read at all."""
    assert inflate(body, coding, most_bytes=1_000) is Reason.INVALID_BODY


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
@pytest.mark.parametrize("size", [1_001, 1_258, 100_000, 10_000_000])
def test_h7_bomb_stops_at_the_bound(compress: Callable[[bytes], bytes], size: int) -> None:
    """However little is over, and however well it was compressed."""
    coding = "gzip" if compress is gzip.compress else "deflate"
    bomb = compress(bytes(size))
    assert inflate(bomb, coding, most_bytes=1_000) is Reason.BODY_TOO_LARGE


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300), most_bytes=st.integers(1, 300))
def test_h7_bound_is_exact(data: bytes, most_bytes: int) -> None:
    """For any content, as many bytes as allowed pass and one more does not."""
    wanted = data if len(data) <= most_bytes else Reason.BODY_TOO_LARGE
    assert inflate(gzip.compress(data, mtime=0), "gzip", most_bytes=most_bytes) == wanted


@settings(max_examples=200, deadline=None)
@given(garbage=st.binary(max_size=100), coding=st.sampled_from(["gzip", "deflate", "x", "GZIP"]))
def test_h7_garbage_is_an_answer(garbage: bytes, coding: str) -> None:
    """Any bytes under any label give bytes or a reason."""
    assert isinstance(inflate(garbage, coding, most_bytes=50), (bytes, Reason))
