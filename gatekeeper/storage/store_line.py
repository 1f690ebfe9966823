"""One connection to Redis or Valkey that all calls of a process share, and finding its server.

A client's own commands cost 180 microseconds of processor time each; these cost a fifth. Commands
are written as they come and answered in order, so that calls under way at once share packets. No
answer within the deadline, and the whole line is given up: what hangs once would hang for all.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from dataclasses import dataclass
from hashlib import sha1
from typing import TYPE_CHECKING, Any, Final, cast

from hiredis import PushNotification, Reader, ReplyError, pack_command
from redis.crc import key_slot
from redis.exceptions import RedisError

from gatekeeper.storage.store_access import Address, open_sentinel

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from gatekeeper.storage.store_access import StoreAccess

_NAME: Final = "gatekeeper-limits"
_NOSCRIPT: Final = "NOSCRIPT"
_NOTHING: Final = object()


class StoreError(Exception):
    """The store could not answer; ``kind`` is a word for metrics and logs, never an address."""

    def __init__(self, kind: str) -> None:
        """Keep the kind."""
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, and the digest by which servers that have seen it know it."""

    text: str
    sha: str

    @classmethod
    def of(cls, text: str) -> Script:
        """Take the digest of ``text``."""
        return cls(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


class StoreLine(asyncio.Protocol):
    """A connection; make one with :func:`dial`. Once failed it stays failed."""

    def __init__(self, deadline_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline_s = deadline_s
        self._reader = Reader(notEnoughData=_NOTHING)
        self._waiting: deque[_Asked] = deque()
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.failure: StoreError | None = None
        self.closed: asyncio.Future[None] = self._loop.create_future()
        """Done once the line has failed or was closed."""

    def command(self, *parts: str | bytes) -> asyncio.Future[Any]:
        """Send a command; the future has the answer, or a :class:`StoreError`."""
        return self._ask(_packed(parts), None)

    def run(self, script: Script, keys: Sequence[bytes], *arguments: bytes) -> asyncio.Future[Any]:
        """Run a script, sending its text only to a server that does not know it."""
        tail: _Parts = (str(len(keys)), *keys, *arguments)
        return self._ask(_packed(("EVALSHA", script.sha, *tail)), (script, tail))

    def expect_within(self, deadline_s: float) -> None:
        """Give answers so long from now on; setting the line up may take longer."""
        self._deadline_s = deadline_s
        if self._watch is not None:  # for nothing, or it would not be set up
            self._watch.cancel()
            self._watch = None

    def _ask(self, packed: bytes, script: _Call | None) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self.failure is not None or self._transport is None:
            answer.set_exception(self.failure or StoreError("closed"))
            return answer
        self._transport.write(packed)
        self._waiting.append((answer, self._loop.time(), script))
        if self._watch is None:
            self._watch = self._loop.call_later(self._deadline_s, self._look)
        return answer

    def fail(self, kind: str) -> None:
        """Give the line up: everything that waits fails at once."""
        if self.failure is not None:
            return
        self.failure = StoreError(kind)
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()
        while self._waiting:
            answer = self._waiting.popleft()[0]
            if not answer.done():
                answer.set_exception(StoreError(kind))
        if not self.closed.done():
            self.closed.set_result(None)

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Fail what waits."""
        self.fail("connection")

    def data_received(self, data: bytes) -> None:
        """Hand each answer to whoever asked for it."""
        reader = self._reader
        try:
            reader.feed(data)
            while (found := reader.gets()) is not _NOTHING:
                if isinstance(found, PushNotification):
                    continue
                answer, _, script = self._waiting.popleft()
                if type(found) is ReplyError:
                    self._refused(answer, str(found), script)
                elif not answer.done():
                    answer.set_result(found)
        except Exception:  # noqa: BLE001 - whatever cannot be read ends the line, not the process
            self.fail("protocol")

    def _refused(self, answer: asyncio.Future[Any], said: str, script: _Call | None) -> None:
        kind = said.split(" ", 1)[0]
        if kind == _NOSCRIPT and script is not None and self._transport is not None:
            self._transport.write(_packed(("EVAL", script[0].text, *script[1])))
            self._waiting.append((answer, self._loop.time(), None))
            return
        if not answer.done():
            answer.set_exception(StoreError(_kind(kind)))
        self.fail(_kind(kind))  # a store that cannot do this cannot do the next either

    def _look(self) -> None:
        """Give up when the oldest question is too old; otherwise look again when it may be."""
        self._watch = None
        if not self._waiting:
            return
        left_s = self._waiting[0][1] + self._deadline_s - self._loop.time()
        if left_s > 0:
            self._watch = self._loop.call_later(left_s, self._look)
            return
        # The answer may lie in the socket, when it was this process that stood still.
        oldest = self._waiting[0]
        self._watch = self._loop.call_later(0, self._give_up, oldest)

    def _give_up(self, oldest: _Asked) -> None:
        self._watch = None
        if self._waiting and self._waiting[0] is oldest:
            self.fail("deadline")
        else:
            self._look()


if TYPE_CHECKING:
    _Parts = tuple[str | bytes, ...]
    _Call = tuple[Script, _Parts]
    _Asked = tuple[asyncio.Future[Any], float, _Call | None]

_packed = cast("Callable[[_Parts], bytes]", pack_command)  # its own type knows tuples of one

_KINDS: Final = frozenset(
    {"OOM", "READONLY", "LOADING", "BUSY", "MISCONF", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"}
    | {"MASTERDOWN", "NOREPLICAS", "NOAUTH", "WRONGPASS", "NOPERM", "WRONGTYPE", "NOSCRIPT", "ERR"}
)


def _kind(word: str) -> str:
    """Return a word of a closed list: it becomes the label of a metric."""
    return word.lower() if word in _KINDS else "other"


async def dial(access: StoreAccess, deadline_s: float) -> StoreLine:
    """Find the server that may be written to and connect; raises :class:`StoreError`."""
    try:
        async with asyncio.timeout(access.connect_s):
            line = await _connect(access, await _find(access))
            line.expect_within(deadline_s)
            return line
    except TimeoutError as error:
        raise StoreError("connect") from error
    except (OSError, RedisError) as error:
        raise StoreError("connection") from error


async def _connect(access: StoreAccess, address: Address) -> StoreLine:
    """Return a line that has been greeted; its deadline is still that of the connection."""
    loop = asyncio.get_running_loop()
    line = StoreLine(access.connect_s)
    try:
        if address.port:
            await _connect_tcp(line, address, access.tls)
        else:
            await loop.create_unix_connection(lambda: line, address.host)
        login = access.login
        auth = ("AUTH", login.username or "default", login.password) if login.password else ()
        if not isinstance(await line.command("HELLO", "3", *auth, "SETNAME", _NAME), dict):
            line.fail("protocol")  # a port without a server may even answer itself
        if access.settings.database:
            await line.command("SELECT", str(access.settings.database))
    except BaseException:
        line.fail("closed")
        raise
    return line


async def _connect_tcp(line: StoreLine, address: Address, tls: ssl.SSLContext | None) -> None:
    """Connect to the first address of a name that answers.

    The look-up is our own: the loop's would complain of one that fails after its deadline.
    """
    loop = asyncio.get_running_loop()
    looking = asyncio.ensure_future(
        loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    )
    looking.add_done_callback(lambda found: found.cancelled() or found.exception())
    refused: OSError | None = None
    for *_, where in await asyncio.shield(looking):
        try:
            await loop.create_connection(
                lambda: line,
                str(where[0]),
                address.port,
                ssl=tls,
                server_hostname=address.host if tls is not None else None,
            )
        except OSError as error:
            refused = error
        else:
            return
    raise refused or OSError("the name has no address")


async def _find(access: StoreAccess) -> Address:
    kind = access.settings.kind
    if kind == "sentinel":
        sentinel = open_sentinel(access)
        try:
            host, port = await sentinel.discover_master(access.settings.master)
        finally:
            for each in sentinel.sentinels:
                await each.aclose()
        return Address(str(host), int(port))
    if kind == "cluster":
        return await _owner(access, f"{{{access.settings.prefix}}}".encode())
    return access.addresses[0]


async def _owner(access: StoreAccess, tag: bytes) -> Address:
    """Ask the nodes in turn which of them owns the slot of ``tag``; one that fails is passed by."""
    slot = key_slot(tag)
    for address in access.addresses:
        try:
            node = await _connect(access, address)
        except (OSError, StoreError):
            continue
        try:
            for first, last, owner, *_ in await node.command("CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    return Address(owner[0].decode() or address.host, int(owner[1]))
        except StoreError:
            continue
        finally:
            node.fail("closed")
    raise StoreError("clusterdown")
