"""The stream of decisions: what the log takes, line for line, and never anybody's wait."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs
from support.gates import eventually
from support.limits import access_to
from support.valkey import Server, serving

from gatekeeper import settings
from gatekeeper.storage.decision_log import DecisionLog, encode_record
from gatekeeper.storage.decision_stream import QUEUE_BYTES, DecisionStream, stream_key
from gatekeeper.telemetry import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KEY = stream_key("test", "decisions")
SENT, DROPPED = ("gatekeeper_stream_records", "sent"), ("gatekeeper_stream_records", "dropped")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Server]:
    """Return a Valkey that a test may break."""
    async with serving(tmp_path / "valkey") as server:
        yield server
        if server.process is not None:
            server.thaw()


def streaming(
    server: Server,
    metrics: Metrics,
    *,
    records: int = 100_000,
    queue_bytes: int = QUEUE_BYTES,
    **store: object,
) -> DecisionStream:
    """Return a stream that has begun to send."""
    return DecisionStream(
        access_to(server.address, **store),
        KEY,
        records,
        chance=lambda: 0.0,
        metrics=metrics,
        queue_bytes=queue_bytes,
    )


async def entries(server: Server) -> list[bytes]:
    """Return the lines in the stream."""
    async with server.client() as client:
        return [fields[b"line"] for _, fields in await client.xrange(KEY)]


def lines(count: int, first: int = 0) -> list[bytes]:
    """Return records that are hard to send unharmed."""
    said = "\r\n\x00\x7f\u2028\udc80 \\n é"
    return [encode_record({"id": f"d{first + number}", "said": said}) for number in range(count)]


async def sent(metrics: Metrics, count: int) -> None:
    """Return once so many records are in the stream."""

    async def all_there() -> bool:
        return metrics.value(*SENT) >= count

    await eventually(all_there)


async def test_the_stream_is_the_log_line_for_line(store: Server, tmp_path: Path) -> None:
    """In order and to the byte, across batches."""
    metrics = Metrics()
    stream = streaming(store, metrics)
    log = DecisionLog(settings.DecisionLog(directory=tmp_path / "log"), tee=stream.append)
    for line in lines(1_000):
        assert log.append(line)
        if line.startswith(b'{"id":"d500"'):
            await sent(metrics, 1)
    assert await log.close(5.0)
    await stream.close(5.0)
    [path] = (tmp_path / "log").iterdir()
    assert await entries(store) == path.read_bytes().splitlines(keepends=True) == lines(1_000)
    assert metrics.value(*SENT) == 1_000
    assert metrics.value(*DROPPED) == 0


async def test_what_the_log_refuses_is_not_sent(store: Server, tmp_path: Path) -> None:
    """A reader of the stream sees no call that the log does not know."""
    stream = streaming(store, Metrics())
    log = DecisionLog(settings.DecisionLog(directory=tmp_path / "log"), tee=stream.append)
    with pytest.raises(ValueError, match="one line"):
        log.append(b"two\nlines\n")
    assert await log.close(5.0)
    assert not log.append(lines(1)[0])
    await stream.close(5.0)
    assert await entries(store) == []


async def test_the_stream_is_bounded(store: Server) -> None:
    """To about so many records, the newest."""
    stream = streaming(store, Metrics(), records=1_000)
    for line in lines(5_000):
        stream.append(line)
    await stream.close(10.0)
    kept = await entries(store)
    assert 1_000 <= len(kept) <= 1_200
    assert kept == lines(5_000)[-len(kept) :]


async def test_a_store_that_died_is_found_back(store: Server) -> None:
    """Meanwhile nobody waits, failures are counted, and what had room comes later."""
    metrics = Metrics()
    with capture_logs() as logged:
        stream = streaming(store, metrics)
        stream.append(lines(1)[0])
        await sent(metrics, 1)
        store.kill()
        began = time.monotonic()
        for line in lines(1_000, first=1):
            stream.append(line)
        assert time.monotonic() - began < 0.5

        async def failed() -> bool:
            return metrics.value("gatekeeper_stream_failures", "connection") > 1

        await eventually(failed)
        assert stream.waiting == 1_000
        await store.started()
        await sent(metrics, 1_001)
    assert await entries(store) == lines(1_000, first=1)
    assert metrics.value(*DROPPED) == 0
    await stream.close(5.0)
    said = [each["failing"] for each in logged if each["event"] == "decision_stream"]
    assert said == [True, False]


async def test_the_oldest_make_room_while_the_store_is_away(store: Server) -> None:
    """Memory is bounded, and every record is counted, one way or the other."""
    metrics = Metrics()
    size = len(lines(1, first=100)[0])
    stream = streaming(store, metrics, queue_bytes=100 * size)
    store.kill()
    for line in lines(900, first=100):
        stream.append(line)
    assert stream.waiting == 100
    assert metrics.value(*DROPPED) == 800
    await store.started()
    await sent(metrics, 100)
    await stream.close(5.0)
    assert await entries(store) == lines(100, first=900)


async def test_room_is_made_by_what_was_sent(store: Server) -> None:
    """Many times what memory holds goes through it, and nothing is dropped."""
    metrics = Metrics()
    stream = streaming(store, metrics, queue_bytes=100 * len(lines(1)[0]) + 100)
    for first in range(0, 500, 50):
        for line in lines(50, first):
            stream.append(line)
        await sent(metrics, first + 50)
    await stream.close(5.0)
    assert await entries(store) == lines(500)
    assert metrics.value(*DROPPED) == 0


async def test_a_store_that_hangs_is_given_up_and_the_batch_sent_again(store: Server) -> None:
    """Whoever reads drops what arrived both times; none is missing."""
    metrics = Metrics()
    stream = streaming(store, metrics, connect_ms=200)
    stream.append(lines(1)[0])
    await sent(metrics, 1)
    store.freeze()
    for line in lines(300, first=1):
        stream.append(line)

    async def given_up() -> bool:
        return metrics.value("gatekeeper_stream_failures", "deadline") > 0

    await eventually(given_up)
    store.thaw()
    await sent(metrics, 301)
    await stream.close(5.0)
    there = await entries(store)
    assert set(there) == {*lines(301)}
    assert len(there) <= 301 + 128


async def test_a_store_that_hangs_holds_no_end_up(store: Server) -> None:
    """What is left over counts as dropped."""
    metrics = Metrics()
    stream = streaming(store, metrics)
    stream.append(lines(1)[0])
    await sent(metrics, 1)
    store.freeze()
    for line in lines(10, first=1):
        stream.append(line)
    began = time.monotonic()
    await stream.close(0.3)
    assert time.monotonic() - began < 1.5
    assert metrics.value(*DROPPED) == 10


async def test_another_kind_of_key_is_told(store: Server) -> None:
    """By its word in the metric; nothing of it is overwritten."""
    async with store.client() as client:
        await client.set(KEY, "mine")
        metrics = Metrics()
        stream = streaming(store, metrics)
        stream.append(lines(1)[0])

        async def failed() -> bool:
            return metrics.total("gatekeeper_stream_failures", "wrongtype") > 0

        await eventually(failed)
        with contextlib.suppress(asyncio.CancelledError):
            await stream.close(0.1)
        assert await client.get(KEY) == b"mine"
