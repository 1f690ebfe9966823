"""Sends what the decision log takes to the watcher as well, by a stream in Redis or Valkey.

``append`` puts a line into bounded memory; one task sends what has gathered, on a connection of its
own, so that neither calls nor limits ever wait for it. The log is the record of truth: while the
store does not answer, the oldest lines are dropped and counted once the memory is full. A batch of
which no answer came is sent again; whoever reads drops what came twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final

import structlog

from gatekeeper.storage.store_line import Script, StoreError, dial

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gatekeeper.settings import Settings
    from gatekeeper.storage.store_access import StoreAccess
    from gatekeeper.storage.store_line import StoreLine
    from gatekeeper.telemetry import Metrics

QUEUE_BYTES: Final = 32_000_000
_BATCH_LINES: Final = 128
_BATCH_BYTES: Final = 1_000_000
_LINGER_S: Final = 0.05
"""How long lines gather before they are sent: fewer commands, for a little delay."""
_ANSWER_S: Final = 2.0
_FIRST_RETRY_S: Final = 0.05
_LONGEST_RETRY_S: Final = 2.0
_CLOSE_S: Final = 2.0
_ADD: Final = Script.of("""
for number = 2, #ARGV do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'line', ARGV[number])
end
return #ARGV - 1
""")


def stream_key(prefix: str, name: str) -> bytes:
    """Return the key of a stream; in a Cluster it lies on the node of the limits."""
    return f"{{{prefix}}}:stream:{name}".encode()


@contextlib.asynccontextmanager
async def sending_decisions(
    settings: Settings,
    access: StoreAccess | None,
    *,
    chance: Callable[[], float],
    metrics: Metrics,
) -> AsyncIterator[Callable[[bytes], None] | None]:
    """Yield what takes lines for the stream, ``None`` where there is none to send to."""
    if access is None or not settings.watch.stream:
        yield None
        return
    stream = DecisionStream(
        access,
        stream_key(settings.store.prefix, settings.watch.stream),
        settings.watch.stream_records,
        chance=chance,
        metrics=metrics,
    )
    metrics.gauge(
        "gatekeeper_stream_waiting",
        "Records not yet sent to the watcher's stream.",
        lambda: stream.waiting,
    )
    try:
        yield stream.append
    finally:
        await stream.close(_CLOSE_S)


class DecisionStream:
    """Keeps lines until they are in a stream; belongs to one event loop."""

    def __init__(
        self,
        access: StoreAccess,
        key: bytes,
        records: int,
        *,
        chance: Callable[[], float],
        metrics: Metrics,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        """Start sending to ``key``, which keeps about so many ``records``."""
        self._access = access
        self._key = key
        self._records = str(records).encode()
        self._chance = chance
        self._metrics = metrics
        self._room = queue_bytes
        self._queue: deque[bytes] = deque()
        self._batch: list[bytes] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._failing = False
        self._log = structlog.get_logger("gatekeeper")
        self._task = asyncio.create_task(self._run())

    @property
    def waiting(self) -> int:
        """How many records are not known to be in the stream."""
        return len(self._queue) + len(self._batch)

    def append(self, line: bytes) -> None:
        """Take one line of the log. Never waits; the oldest make room when there is none."""
        self._queue.append(line)
        self._room -= len(line)
        while self._room < 0 and self._queue:
            self._room += len(self._queue.popleft())
            self._count("dropped", 1)
        self._wake.set()

    async def close(self, timeout_s: float) -> None:
        """Send what waits, for at most ``timeout_s``; what is left over counts as dropped."""
        self._closing = True
        self._wake.set()
        await asyncio.wait((self._task,), timeout=timeout_s)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._count("dropped", self.waiting)

    async def _run(self) -> None:
        retry_s = _FIRST_RETRY_S
        while not self._closing or self.waiting:
            line: StoreLine | None = None
            try:
                line = await dial(self._access, _ANSWER_S)
                while not self._closing or self.waiting:
                    await self._send_waiting(line)
                    retry_s = _FIRST_RETRY_S
                    await self._sleep(line)
            except (StoreError, TypeError, ValueError) as error:  # the latter two: of the answer
                self._failed(error.kind if isinstance(error, StoreError) else "protocol")
            finally:
                if line is not None:
                    line.fail("closed")
            if not self._closing or self.waiting:
                await asyncio.sleep(retry_s * (0.5 + self._chance() / 2))
                retry_s = min(2 * retry_s, _LONGEST_RETRY_S)

    async def _send_waiting(self, line: StoreLine) -> None:
        """Send batch after batch; one of which no answer comes is kept."""
        while self.waiting:
            size = sum(map(len, self._batch))
            while self._queue and len(self._batch) < _BATCH_LINES and size < _BATCH_BYTES:
                self._batch.append(self._queue.popleft())
                size += len(self._batch[-1])
            await line.run(_ADD, (self._key,), self._records, *self._batch)
            self._room += size
            self._count("sent", len(self._batch))
            self._batch.clear()
            if self._failing:
                self._failing = False
                self._log.info("decision_stream", failing=False)

    async def _sleep(self, line: StoreLine) -> None:
        """Wait for lines and then for a few more; raises of what the line failed meanwhile."""
        if not self._queue and not self._closing:
            self._wake.clear()
            woken = asyncio.ensure_future(self._wake.wait())
            try:
                await asyncio.wait((woken, line.closed), return_when=asyncio.FIRST_COMPLETED)
            finally:
                woken.cancel()
        if line.failure is not None:
            raise line.failure
        if not self._closing:
            await asyncio.sleep(_LINGER_S)

    def _failed(self, kind: str) -> None:
        self._metrics.count("gatekeeper_stream_failures", kind)
        if not self._failing:
            self._failing = True
            self._log.warning("decision_stream", failing=True, kind=kind)

    def _count(self, outcome: str, records: int) -> None:
        if records:
            self._metrics.count("gatekeeper_stream_records", outcome, by=records)
