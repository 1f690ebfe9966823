"""OpenAI batches: held and charged at the worst case of all calls in their input file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from gatekeeper.dialects.base import Ask, Incoming
from gatekeeper.dialects.batch import summed
from gatekeeper.dialects.body import read_fields
from gatekeeper.dialects.openai import OpenAIErrors, names_deployment
from gatekeeper.dialects.unread import Unread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gatekeeper.dialects.base import Dialect

_BATCHES: Final = "/v1/batches"
_FILE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)


class _Line(msgspec.Struct):
    url: Annotated[str, msgspec.Meta(max_length=256)]
    body: msgspec.Raw
    method: str = "POST"


_TEXT: Final = msgspec.json.Decoder(str)
_LINE: Final = msgspec.json.Decoder(_Line)
_READ: Final = frozenset({"url", "body", "method"})
_NO_CALL: Final = "The line must be an object with `url` and `body`."
_NO_ROUTE: Final = "The `url` is no route whose calls can be batched here."


class OpenAIBatchCreate(Unread, OpenAIErrors):
    """``POST .../v1/batches``: names a file at the upstream that holds the calls."""

    __slots__ = ()
    name: Final = "openai_batches"
    reads_body = True

    def matches(self, method: str, path: str) -> bool:
        """Match by the end of the path, whatever prefix an upstream has."""
        return method == "POST" and path.lower().rstrip("/").endswith(_BATCHES)

    def read(self, incoming: Incoming) -> Ask | str:
        """Read which file holds the calls; :func:`read_batch` reads them."""
        fields = read_fields(incoming.body)
        if isinstance(fields, str):
            return fields
        try:
            file = _TEXT.decode(fields.get("input_file_id", b""))
        except (msgspec.DecodeError, UnicodeError):
            file = ""
        if _FILE_ID.fullmatch(file) is None:
            return "The field `input_file_id` must be the id of a file."
        return Ask(file=file, unreported=True)


class OpenAIBatches(Unread, OpenAIErrors):
    """Everything else of batches: what is listed, awaited or cancelled costs no tokens."""

    __slots__ = ()
    name: Final = "openai_batches"

    def matches(self, method: str, path: str) -> bool:  # noqa: ARG002 - the protocol's signature
        """Match the batches and all that is under them."""
        return f"{_BATCHES}/" in f"{path.lower()}/"


def read_batch(
    content: bytes,
    dialect_for: Callable[[str, str], Dialect],
    count: Callable[[bytes], int],
    endpoint: str | None = None,
) -> Ask | str:
    """Add up the worst cases of the calls in a batch's file, one JSON object a line.

    All of them go to ``endpoint``, where the batch names one: some upstreams look at nothing else.
    """
    return summed(_asks(content, dialect_for, count, endpoint))


def endpoint_of(body: bytes) -> str | None:
    """Return the route that a batch names for all of its calls; ``None`` for none."""
    fields = read_fields(body)
    named = b"null" if isinstance(fields, str) else fields.get("endpoint", b"null")
    try:
        return None if named == b"null" else _TEXT.decode(named)
    except (msgspec.DecodeError, UnicodeError):
        return ""  # which no line names


def _asks(
    content: bytes,
    dialect_for: Callable[[str, str], Dialect],
    count: Callable[[bytes], int],
    endpoint: str | None,
) -> Iterator[Ask | str]:
    for line in content.split(b"\n"):
        if not line.strip():
            continue
        call = _line_of(line)
        if isinstance(call, str):
            yield call
            return
        if endpoint is not None and call.url != endpoint:
            yield "The `url` must be the `endpoint` of the batch."
            return
        dialect = dialect_for(call.method, call.url)
        # A model in a path would be another than the body names.
        if not dialect.reads_body or call.method != "POST" or names_deployment(call.url):
            yield _NO_ROUTE
            return
        ask = dialect.read(Incoming(bytes(call.body), call.url, count=count))
        yield "A batch cannot hold a batch." if isinstance(ask, Ask) and ask.file else ask


def _line_of(line: bytes) -> _Line | str:
    """Read a line as every server would, or say what is wrong with it."""
    if b"\r" in line.strip():  # to some servers a line ends there
        return _NO_CALL
    fields = read_fields(line)
    if isinstance(fields, str):
        return fields.replace("body", "line")
    if any(name not in _READ and name.casefold() in _READ for name in fields):
        return "The fields `url`, `body` and `method` must be written in lower case."
    try:
        return _LINE.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _NO_CALL
