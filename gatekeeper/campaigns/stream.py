"""Reads what gates have sent to the watcher by a stream, from where the last run came to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog
from msgspec import Struct

from gatekeeper.storage.store_line import Script, StoreError, dial

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.storage.store_access import StoreAccess
    from gatekeeper.storage.store_line import StoreLine

_ANSWER_S: Final = 10.0
_PIECE: Final = 500
"""Entries that are asked for at once: a store that serves limits must not be kept from it."""
_START: Final = "0-0"
_LOOK: Final = Script.of("""
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local about = {}
local told = redis.call('XINFO', 'STREAM', KEYS[1])
for at = 1, #told, 2 do about[told[at]] = told[at + 1] end
local entries = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])
return {about['entries-added'], about['length'], about['last-generated-id'], entries}
""")


class Place(Struct, frozen=True):
    """How far a stream has been taken."""

    id: str = _START
    """Id of the last entry that was taken."""
    entries: int = 0
    """How many entries had ever been added up to that one."""


class Stream(Struct, frozen=True):
    """What the store says of a stream, and the next entries of it, all at one moment."""

    added: int
    """How many entries were ever added."""
    removed: int
    """How many of them are gone."""
    newest: str
    entries: list[tuple[str, bytes]]


class StreamReader:
    """Reads one stream."""

    def __init__(self, access: StoreAccess, key: bytes, *, piece: int = _PIECE) -> None:
        """Read ``key``, so many entries at once."""
        self._access = access
        self._key = key
        self._piece = piece
        self._log = structlog.get_logger("gatekeeper")

    @property
    def name(self) -> str:
        """The key, by which its place is kept."""
        return self._key.decode()

    def read(self, place: Place, take: Callable[[bytes], None]) -> Place:
        """Hand all lines after ``place`` to ``take``; return how far they went.

        A store that fails is told to the log, and the next run goes on from there.
        """
        return asyncio.run(self._read(place, take))

    async def _read(self, place: Place, take: Callable[[bytes], None]) -> Place:
        line: StoreLine | None = None
        try:
            line = await dial(self._access, _ANSWER_S)
            found = await self._look(line, place)
            if found is not None and _is_another(found, place):
                self._log.warning("stream_began_anew", key=self.name)
                place = Place()
                found = await self._look(line, place)
            newest = _START if found is None else found.newest
            while found is not None:
                missing = found.removed - place.entries
                if missing > 0 and place.entries:
                    self._log.warning("stream_trimmed", key=self.name, missing=missing)
                for _, text in found.entries:
                    take(text)
                place = self._after(place, found)
                if _order(place.id) >= _order(newest):
                    break  # what came since is of the next run
                found = await self._look(line, place)
        except (StoreError, LookupError, TypeError, ValueError) as error:
            kind = error.kind if isinstance(error, StoreError) else "protocol"
            self._log.warning("stream_not_read", key=self.name, kind=kind)
        finally:
            if line is not None:
                line.fail("closed")
        return place

    def _after(self, place: Place, found: Stream) -> Place:
        if len(found.entries) < self._piece:
            return Place(found.newest, found.added)
        last, _ = found.entries[-1]
        return Place(last, max(place.entries, found.removed) + len(found.entries))

    async def _look(self, line: StoreLine, place: Place) -> Stream | None:
        """Ask what there is after ``place``; nothing where there is no stream."""
        answer = await line.run(
            _LOOK, (self._key,), f"({place.id}".encode(), str(self._piece).encode()
        )
        if answer is None:
            return None
        added, length, newest, entries = answer
        return Stream(
            int(added),
            int(added) - int(length),
            newest.decode(),
            [(each.decode(), _line(fields)) for each, fields in entries],
        )


def _line(fields: list[bytes]) -> bytes:
    """Return the line of an entry, whoever wrote it."""
    return fields[1].rstrip(b"\n") + b"\n"


def _is_another(found: Stream, place: Place) -> bool:
    """Tell whether this cannot be the stream of which ``place`` is."""
    return found.added < place.entries or _order(found.newest) < _order(place.id)


def _order(entry: str) -> tuple[int, int]:
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number)
