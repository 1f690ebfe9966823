"""Runs what would hold the loop too long on a thread, and never leaves it half done."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def apart(work: Callable[[], T]) -> T:
    """Return what ``work`` returns; a caller that is cancelled waits until the thread is done.

    What is read of an answer is charged, so that nobody may look at it while it is being read.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        running.exception()  # is nobody's any more
        raise
