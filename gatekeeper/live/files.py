"""Tells when files have changed and come to rest, whatever way they were replaced (H35, H36).

The kernel's word wakes it at once, a look every few seconds finds what the kernel did not tell
(network filesystems, a folder that was itself replaced, no inotify watches left). Nothing is
reported before the files have kept still for a moment, so that an editor, a copy or a checkout that
is under way is not taken for its result.
"""

from __future__ import annotations

import asyncio
import contextlib
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, TypeAlias

import structlog
from watchfiles import awatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

_STEP_MS: Final = 50
_DEBOUNCE_MS: Final = 400
RESCAN_S: Final = 2.0
_SETTLE_S: Final = 0.25

Look: TypeAlias = "tuple[tuple[str, int, int, int, int, int], ...]"
"""Of each file: path, device, inode, size, times of content and inode. Missing ones are absent."""


class Cause(Enum):
    """Why files are to be read."""

    CHANGED = auto()
    """They are not what they were."""
    ASKED = auto()
    """Somebody asked for it, whether or not they changed."""


def look_at(paths: Iterable[Path]) -> Look:
    """Return what tells whether files are the same as before, links followed."""
    found = []
    for path in sorted(set(paths)):
        with contextlib.suppress(OSError):
            stat = path.stat()
            found.append(
                (
                    str(path),
                    stat.st_dev,
                    stat.st_ino,
                    stat.st_size,
                    stat.st_mtime_ns,
                    stat.st_ctime_ns,
                )
            )
    return tuple(found)


async def settle() -> None:
    """Wait for longer than any program does between two writes of one change."""
    await asyncio.sleep(_SETTLE_S)


class FileWatch:
    """Watches files by the folders they are in.

    ``folders`` and ``files`` name them anew at each look, in a thread.
    """

    def __init__(
        self,
        folders: Callable[[], Iterable[Path]],
        files: Callable[[], Iterable[Path]],
        *,
        pause: Callable[[], Awaitable[None]] = settle,
        rescan_s: float = RESCAN_S,
        listen: bool = True,
    ) -> None:
        """Take the files as they are now for known: make it before reading them.

        Files that do not change over one ``pause`` are at rest. ``listen`` tells whether to ask
        the kernel, or to look now and then only.
        """
        self._folders = folders
        self._files = files
        self._pause = pause
        self._rescan_s = rescan_s
        self._listen = listen
        self._wake = asyncio.Event()
        self._asked = False
        self._known = self._look()
        self._log = structlog.get_logger("gatekeeper")

    def also(self, files: Callable[[], Iterable[Path]]) -> None:
        """Watch what ``files`` names from now on, instead of what was named before."""
        self._files = files

    def ask(self) -> None:
        """Report at the next look, changed or not."""
        self._asked = True
        self._wake.set()

    async def run(self, read: Callable[[Cause], Awaitable[None]]) -> None:
        """Call ``read`` after each change, and when somebody asked, until cancelled."""
        ears: asyncio.Task[None] | None = None
        deaf = asyncio.Event()
        heard: Look = ()
        try:
            while True:
                there = await asyncio.to_thread(self._standing)
                if self._listen and (there != heard or ears is None or ears.done()):
                    await _stop(ears, deaf)
                    deaf, heard = asyncio.Event(), there
                    ears = asyncio.create_task(self._hear([row[0] for row in there], deaf))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._rescan_s):
                        await self._wake.wait()
                self._wake.clear()
                await self.look(read)
        finally:
            await _stop(ears, deaf)

    async def look(self, read: Callable[[Cause], Awaitable[None]]) -> None:
        """Look once; call ``read`` when the files have changed and come to rest."""
        now = await asyncio.to_thread(self._look)
        if now == self._known and not self._asked:
            return
        now = await self._at_rest(now)
        asked, self._asked = self._asked, False
        if now == self._known and not asked:
            return
        self._known = now
        await read(Cause.ASKED if asked else Cause.CHANGED)
        if await asyncio.to_thread(self._look) != now:  # written to while it was read
            self._wake.set()

    async def _at_rest(self, now: Look) -> Look:
        while True:
            await self._pause()
            before, now = now, await asyncio.to_thread(self._look)
            if now == before:
                return now

    async def _hear(self, folders: list[str], deaf: asyncio.Event) -> None:
        """Wake up at each event in ``folders``; without inotify, the looks must do."""
        if not folders:
            await deaf.wait()
            return
        try:
            async for _ in awatch(
                *folders,
                watch_filter=None,
                recursive=False,
                step=_STEP_MS,
                debounce=_DEBOUNCE_MS,
                stop_event=deaf,
            ):
                self._wake.set()
        except (OSError, RuntimeError) as error:
            self._log.warning("not_told_of_changes", error=str(error), rescan_s=self._rescan_s)
            await deaf.wait()

    def _look(self) -> Look:
        return look_at(self._files())

    def _standing(self) -> Look:
        """Return which folders are there: one that was replaced must be listened to anew."""
        return tuple((*row[:3], 0, 0, 0) for row in look_at(self._folders()))


async def _stop(task: asyncio.Task[None] | None, deaf: asyncio.Event) -> None:
    deaf.set()
    if task is not None:
        await asyncio.gather(task, return_exceptions=True)
