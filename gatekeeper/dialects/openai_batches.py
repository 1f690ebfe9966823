"""OpenAI batches: held and charged at the worst case of all calls in their input file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from gatekeeper.dialects.answer import AnswerReader
from gatekeeper.dialects.base import UNCHANGED, Ask, Incoming
from gatekeeper.dialects.batch import summed
from gatekeeper.dialects.body import read_fields
from gatekeeper.dialects.family import Family
from gatekeeper.dialects.openai import OpenAIErrors
from gatekeeper.dialects.usage import text_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gatekeeper.dialects.base import AnswerPlan, Changes, Dialect

_NOTHING: Final = Family(text_pattern("text"), frozenset())
_BATCHES: Final = "/v1/batches"
_FILE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)


class _Line(msgspec.Struct):
    url: Annotated[str, msgspec.Meta(max_length=256)]
    body: msgspec.Raw
    method: str = "POST"


_TEXT: Final = msgspec.json.Decoder(str)
_LINE: Final = msgspec.json.Decoder(_Line)


class _OpenAIBatches(OpenAIErrors):
    __slots__ = ()
    name: Final = "openai_batches"

    def rewrite(self, incoming: Incoming, ask: Ask, changes: Changes) -> bytes:  # noqa: ARG002 - the protocol's signature
        """Return the body as it came: no single bound holds for a batch."""
        return incoming.body

    def reader(
        self, ask: Ask, headers: Mapping[str, str], plan: AnswerPlan = UNCHANGED
    ) -> AnswerReader:
        """Return a reader that finds nothing to charge: usage comes a day later."""
        return AnswerReader(_NOTHING, ask, headers, plan)


class OpenAIBatchCreate(_OpenAIBatches):
    """``POST .../v1/batches``: names a file at the upstream that holds the calls."""

    __slots__ = ()
    reads_body: Final = True

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


class OpenAIBatches(_OpenAIBatches):
    """Everything else of batches: what is listed, awaited or cancelled costs no tokens."""

    __slots__ = ()
    reads_body: Final = False

    def matches(self, method: str, path: str) -> bool:  # noqa: ARG002 - the protocol's signature
        """Match the batches and all that is under them."""
        return f"{_BATCHES}/" in f"{path.lower()}/"

    def read(self, incoming: Incoming) -> Ask | str:  # noqa: ARG002 - the protocol's signature
        """Ask for nothing."""
        return Ask()


def read_batch(
    content: bytes, dialect_for: Callable[[str, str], Dialect], count: Callable[[bytes], int]
) -> Ask | str:
    """Add up the worst cases of the calls in a batch's file, one JSON object a line."""
    return summed(_asks(content, dialect_for, count))


def _asks(
    content: bytes, dialect_for: Callable[[str, str], Dialect], count: Callable[[bytes], int]
) -> Iterator[Ask | str]:
    for line in content.split(b"\n"):
        if not line.strip():
            continue
        try:
            call = _LINE.decode(line)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            yield "The line must be an object with `url` and `body`."
            return
        dialect = dialect_for(call.method, call.url)
        if not dialect.reads_body or call.method != "POST":
            yield "The `url` is no route whose calls can be batched here."
            return
        ask = dialect.read(Incoming(bytes(call.body), call.url, count=count))
        yield "A batch cannot hold a batch." if isinstance(ask, Ask) and ask.file else ask
