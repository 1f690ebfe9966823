"""The decision log: JSON lines, written by a thread so that the event loop never waits.

``append`` puts a line into bounded memory; one daemon thread writes what has gathered. A line
counts as written when the operating system has all of it. It is on the disk a second later
(``fdatasync``), so a loss of power may take the last second, and a killed process the last few
milliseconds; either leaves at most one torn line, which readers skip.

When the disk refuses (full, read-only, gone), what was taken is kept and tried again until it is
written. What happens to calls meanwhile is a setting, ``on_failure``: with ``refuse`` the log stops
:attr:`~DecisionLog.accepting`, so that the gate answers 503; with ``spool`` calls go on, and the
oldest records are dropped, and counted, once more than ``spool_records`` wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gatekeeper.storage.decision_files import RotatingFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gatekeeper import settings

_LINGER_S: Final = 0.01
"""How long lines gather before they are written: fewer wake-ups, for a little more at risk."""
_SYNC_EVERY_S: Final = 1.0
_FIRST_RETRY_S: Final = 0.05
_LONGEST_RETRY_S: Final = 1.0
_BATCH_BYTES: Final = 1_000_000


class DecisionLog:
    """Keeps decisions in files. ``append`` and ``accepting`` belong to one thread, the loop's."""

    def __init__(
        self,
        options: settings.DecisionLog,
        clock: Callable[[], float] = time.time,
        *,
        tee: Callable[[bytes], None] | None = None,
    ) -> None:
        """Start the writing thread; ``clock`` (Unix seconds) names the files.

        ``tee`` is handed every line that the log takes; it must not wait.
        """
        self._tee = tee
        self._refuses = options.on_failure == "refuse"
        self._capacity = options.spool_records
        self._file = RotatingFile(
            options.directory, options.max_file_bytes, options.keep_files, clock
        )
        self._queue: deque[bytes] = deque()
        self._wake = threading.Event()
        self._abandoned = threading.Event()
        self._asleep = self._failing = self._closing = False
        self._synced_at = 0.0
        self.written = 0
        """Records that the operating system has taken."""
        self.dropped = 0
        """Records that were given up, because memory was full or the log was closed."""
        self.failed = 0
        """Attempts to write that the disk refused."""
        self._thread = threading.Thread(target=self._run, name="decision-log", daemon=True)
        self._thread.start()

    @property
    def accepting(self) -> bool:
        """Whether a call may go on: its record will be kept, or losing it is what was chosen."""
        if self._closing:
            return False
        return not self._refuses or (not self._failing and len(self._queue) < self._capacity)

    @property
    def waiting(self) -> int:
        """How many records wait in memory."""
        return len(self._queue)

    def append(self, line: bytes) -> bool:
        """Take one line, such as :func:`encode_record` makes; ``False`` if it is dropped instead.

        Never waits. Raises ``ValueError`` for what is not exactly one line.
        """
        if line.find(b"\n") != len(line) - 1 or not line:
            raise ValueError("a record is one line that ends in a newline")
        full = len(self._queue) >= self._capacity
        if self._closing or (full and self._refuses):
            self.dropped += 1
            return False
        if full:
            with contextlib.suppress(IndexError):  # the thread may have emptied it just now
                self._queue.popleft()
                self.dropped += 1
        self._queue.append(line)
        if self._asleep:
            self._wake.set()
        if self._tee is not None:
            self._tee(line)
        return True

    async def close(self, timeout_s: float) -> bool:
        """Write what waits, for at most ``timeout_s``; tell whether nothing is left over."""
        self._closing = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join, timeout_s)
        self._abandoned.set()
        return not self._thread.is_alive()

    def _run(self) -> None:
        batch: list[bytes] = []
        try:
            self._work(batch)
        finally:
            self._failing = True  # whatever ended the thread: nothing is written from here on
            self.dropped += len(batch) + len(self._queue)
            self._file.close()

    def _work(self, batch: list[bytes]) -> None:
        """Write and sleep in turn until the log is closed; ``batch`` is what is being written."""
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                self._file.open()
                self._write_waiting(batch)
                self._sync()
            except OSError:
                self.failed += 1
                self._failing = True
                if self._abandoned.wait(retry_s):
                    return
                retry_s = min(2 * retry_s, _LONGEST_RETRY_S)
                continue
            self._failing = False
            retry_s = _FIRST_RETRY_S
            if self._closing and not self._queue:
                return
            self._sleep()

    def _write_waiting(self, batch: list[bytes]) -> None:
        """Write until nothing waits; what the disk did not take whole stays in ``batch``."""
        while batch or self._queue:
            size = sum(map(len, batch))
            while self._queue and size < _BATCH_BYTES:
                with contextlib.suppress(IndexError):  # ``append`` may have dropped it just now
                    batch.append(self._queue.popleft())
                    size += len(batch[-1])
            before = len(batch)
            try:
                self._file.write(batch)
            finally:
                self.written += before - len(batch)
            self._failing = False

    def _sync(self) -> None:
        now = time.monotonic()
        if self._closing or now - self._synced_at >= _SYNC_EVERY_S:
            self._synced_at = now
            self._file.sync()

    def _sleep(self) -> None:
        """Wait for a line and then for a few more, or until what was written must be synced."""
        self._wake.clear()
        self._asleep = True  # before the look at the queue: ``append`` looks after it has put
        if not self._queue and not self._closing:
            self._wake.wait(_SYNC_EVERY_S if self._file.unsynced else None)
        self._asleep = False
        if not self._closing:
            time.sleep(_LINGER_S)


_UNSAFE: Final = re.compile(r"[^\x20-\x7e]")


def encode_record(record: Mapping[str, Any]) -> bytes:
    r"""Return ``record`` as one line of ASCII JSON that ends in ``\n``, whatever it holds (H38).

    All that could break a line or steer a terminal is escaped, C1 controls, DEL, U+2028 and
    bidirectional marks included. ``inf`` and ``nan`` become ``null``.
    """
    try:
        line = msgspec.json.encode(record)
    except UnicodeEncodeError:  # lone surrogates: bytes of a header that are not UTF-8
        return _encode_surrogates(record)
    if not line.isascii() or b"\x7f" in line:
        line = _UNSAFE.sub(_escape, line.decode()).encode()
    return line + b"\n"


def _escape(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1] if match[0] != "\x7f" else "\\u007f"


def _encode_surrogates(record: Mapping[str, Any]) -> bytes:
    """Escape with the standard library, which can write what no encoding allows."""
    plain = json.dumps(msgspec.to_builtins(record))
    finite = json.loads(plain, parse_constant=lambda _: None)
    return json.dumps(finite, separators=(",", ":")).replace("\x7f", "\\u007f").encode() + b"\n"
