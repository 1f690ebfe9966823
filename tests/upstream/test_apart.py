"""Work on a thread: its outcome comes back, and whoever is cancelled waits until it is done."""

from __future__ import annotations

import asyncio
import threading

import pytest

from gatekeeper.upstream.apart import apart


async def test_the_outcome_comes_back() -> None:
    """Value or exception, from another thread."""
    assert await apart(threading.get_ident) != threading.get_ident()

    def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await apart(fail)


async def test_a_cancelled_caller_waits_for_the_thread() -> None:
    """Nobody looks at what is being read while it is being read."""
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(10)
        done.set()

    task = asyncio.ensure_future(apart(work))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()
