"""A gate as a process: what signals ask of it, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.app import App

_YOUNG_OBJECTS: Final = 20_000
"""Collected at 700 by default, that is every few calls; calls leave next to no cycles behind."""
_SWITCH_S: Final = 0.001
"""How long a thread that reads a large body may keep the event loop waiting: 5 ms by default."""


class Signals:
    """What a running process is asked to do, noted from the moment that this is made.

    Made before the gate starts: whoever sees it listen may stop it, and must not cut it short.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self._again = False
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.stop.set)
        self._loop.add_signal_handler(signal.SIGHUP, self._note)

    def on_reload(self, reload: Callable[[], None]) -> None:
        """Call ``reload`` at each SIGHUP from now on, and once for those that came before."""
        self._loop.add_signal_handler(signal.SIGHUP, reload)
        if self._again:
            reload()

    def _note(self) -> None:
        self._again = True


async def run_until_asked(app: App, signals: Signals) -> None:
    """Run until SIGTERM or SIGINT; then readiness turns red, calls end, listeners close."""
    signals.on_reload(app.live.reload)
    gc.set_threshold(_YOUNG_OBJECTS, 20, 50)
    gc.collect()
    gc.freeze()  # what is there now stays: no collection need walk it again, for 100 ms or more
    sys.setswitchinterval(_SWITCH_S)
    await signals.stop.wait()
    app.leave()
    await asyncio.sleep(app.settings.deadlines.readiness_s)
    await app.stop(drain_s=app.settings.deadlines.drain_s)
