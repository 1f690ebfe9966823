"""Keeps a line to the store: the breaker, and the only one who ever waits to find the store back.

A line that failed is given up, and from then on whoever asks fails at once. Behind their backs a
new one is dialled until it answers *and* takes a write within the deadline, which a replica, a full
or a loading store does not. Waits are short and jittered: a fleet does not come back all at once.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

from gatekeeper.storage.store_line import StoreError, dial

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gatekeeper.storage.store_access import StoreAccess
    from gatekeeper.storage.store_line import Script, StoreLine

BEAT_S: Final = 1.0
"""How often a gate says that it lives."""
COUNTS_S: Final = 10.0
"""How long it is counted after it said so last."""
_FIRST_WAIT_S: Final = 0.02
_LONGEST_WAIT_S: Final = 0.4
_STEADY_S: Final = 5.0
"""A line that held for so long is dialled anew without a longer wait."""


class StoreState(StrEnum):
    """Whether the store answers."""

    ANSWERING = "answering"
    FAILING = "failing"


class Observer(Protocol):
    """Hears how the store does."""

    def changed(self, state: StoreState, kind: str) -> None:
        """Take note that the store began to answer, or to fail of ``kind``."""
        ...

    def failed(self, kind: str) -> None:
        """Take note of one more failure, of a closed list of kinds."""
        ...


class StoreLink:
    """Runs scripts on whichever server is the store now."""

    def __init__(
        self,
        access: StoreAccess,
        beat: Callable[[StoreLine], Awaitable[int]],
        *,
        chance: Callable[[], float],
        observer: Observer,
    ) -> None:
        """``beat`` writes to the store and returns how many gates live; ``chance`` is in [0, 1)."""
        self._access = access
        self._deadline_s = access.settings.deadline_ms / 1_000
        self._beat = beat
        self._chance = chance
        self._observer = observer
        self._line: StoreLine | None = None
        self._tried = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self.state = StoreState.FAILING
        self.gates = 1
        """How many gates share the limits, as far as was last known."""

    @property
    def answering(self) -> bool:
        """Whether there is a line that has not failed."""
        return self._line is not None and self._line.failure is None

    async def start(self) -> None:
        """Begin to keep the line; return once the first attempt is over, either way."""
        self._keeper = asyncio.create_task(self._keep())
        await self._tried.wait()

    async def close(self) -> None:
        """Let go of the line."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    def run(self, script: Script, keys: Sequence[bytes], *arguments: bytes) -> asyncio.Future[Any]:
        """Run a script; the future fails at once while the store does."""
        line = self._line
        if line is None:
            answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            answer.set_exception(StoreError("breaker"))
            return answer
        return line.run(script, keys, *arguments)

    async def _keep(self) -> None:
        loop, wait_s = asyncio.get_running_loop(), _FIRST_WAIT_S
        while True:
            line: StoreLine | None = None
            answered_at = loop.time()
            try:
                line = await dial(self._access, self._deadline_s)
                self.gates = await self._beat(line)
                answered_at = loop.time()
                self._change(StoreState.ANSWERING, line)
                await self._hold(line)
            except (StoreError, TypeError, ValueError) as error:  # the latter two: of the answer
                kind = error.kind if isinstance(error, StoreError) else "protocol"
                self._observer.failed(kind)
                self._change(StoreState.FAILING, None, kind)
            finally:
                self._line = None
                if line is not None:
                    line.fail("closed")
            if loop.time() - answered_at > _STEADY_S:
                wait_s = _FIRST_WAIT_S
            await asyncio.sleep(wait_s * (0.5 + self._chance() / 2))
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)

    async def _hold(self, line: StoreLine) -> None:
        """Say that this gate lives, until the line fails: then raise of what."""
        while line.failure is None:
            await asyncio.wait((line.closed,), timeout=BEAT_S)
            self.gates = await self._beat(line)
        raise line.failure

    def _change(self, state: StoreState, line: StoreLine | None, kind: str = "") -> None:
        self._line = line
        if state is not self.state or not self._tried.is_set():
            self.state = state
            self._observer.changed(state, kind)
        self._tried.set()
