"""How long one step takes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def microseconds(step: Callable[[], object], number: int) -> float:
    """Return the best of five means, in CPU microseconds."""
    best = float("inf")
    for _ in range(5):
        started = time.process_time()
        for _ in range(number):
            step()
        best = min(best, (time.process_time() - started) / number * 1e6)
    return best
