"""Reads along answers that are one document, or cannot be read."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import msgspec

from gatekeeper.dialects.answer_stream import HEAVY_BYTES
from gatekeeper.dialects.base import AnswerError
from gatekeeper.dialects.json_spans import NotJsonError, members
from gatekeeper.dialects.reports import ANSWER, REPORT, USAGE, is_json

if TYPE_CHECKING:
    from gatekeeper.dialects.family import Family, Shaper
    from gatekeeper.dialects.usage import Counts

MOST_JSON_BYTES: Final = 2_097_152
MOST_SHAPED_BYTES: Final = 33_554_432
"""Largest document that is held back to be changed; a larger one is refused."""
_TAIL_BYTES: Final = 65_536
_MOST_TRIED: Final = 4
"""Places in a tail at which usage may be told."""


class Document:
    """One JSON body; kept whole up to a bound, beyond it only its tail."""

    changes = whole = shapes = heavy = mid_event = stopped = False

    def __init__(self, family: Family, counts: Counts) -> None:
        self._family = family
        self._counts = counts
        self._kept = bytearray()
        self._whole = True
        self._read = False
        self._valid = False

    @property
    def unread(self) -> bool:
        """Whether it was too long to be read as a whole."""
        return not self._whole

    @property
    def complete(self) -> bool:
        """Whether it is JSON to its end."""
        self.close()
        return self._valid

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes; see :class:`~gatekeeper.dialects.base.AnswerReader`."""
        kept = self._kept
        kept += chunk
        self._read = False
        if len(kept) > MOST_JSON_BYTES:
            self._whole = False
            del kept[:-_TAIL_BYTES]
        return chunk

    def end(self) -> bytes:
        """Return nothing: all was passed on."""
        return b""

    def close(self) -> None:
        """Read what there is, once; again only when more has come."""
        if self._read:
            return
        self._read = True
        body = bytes(self._kept)
        if not self._whole:
            self._valid = body.rstrip().endswith(b"}")
            self._read_tail(body)
            return
        self._valid = self.read(body)

    def read(self, body: bytes) -> bool:
        """Take the usage of a whole document; tell whether it is JSON."""
        try:
            found = ANSWER.decode(body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            valid = is_json(body)
            if not valid:  # cut short, perhaps behind its report
                self._read_cut(body)
        else:
            valid = True
            if found.usage is not None:
                self._counts.report(found.usage, final=True)
        if self._family.own is not None:
            self._family.own(body, self._counts)
        self._counts.forget_text()
        if not self._counts.final:
            pattern = self._family.document_text or self._family.text
            texts = pattern.findall(body) if valid else None
            for text in texts or [body]:  # cut anywhere: no less than all that came
                self._counts.deliver(text)
        return valid

    def _read_cut(self, body: bytes) -> None:
        """Take the usage of a document that was cut short behind it: only from its top level."""
        wrong = (NotJsonError, msgspec.DecodeError, UnicodeError, RecursionError)
        with contextlib.suppress(*wrong):
            for member in members(body):
                if member.name == b"usage":
                    usage = USAGE.decode(body[member.value : member.end])
                    self._counts.report(usage, final=True)

    def _read_tail(self, body: bytes) -> None:
        """Take the usage from the end of a document, only if it stands at the top level there.

        That shows in what follows: with it, it makes one whole object. A model that fills in an
        object of the same name writes it deeper.
        """
        for found in [*REPORT.finditer(body)][: -_MOST_TRIED - 1 : -1]:
            with contextlib.suppress(msgspec.DecodeError, UnicodeError, RecursionError):
                usage = ANSWER.decode(b"{" + body[found.start() :]).usage
                if usage is not None:
                    self._counts.report(usage, final=True)
                    return


class ChangedDocument(Document):
    """One JSON body that is held back to its end and then changed."""

    changes = whole = True

    def __init__(self, family: Family, counts: Counts, shaper: Shaper) -> None:
        super().__init__(family, counts)
        self._shaper = shaper

    @property
    def heavy(self) -> bool:  # type: ignore[override]
        """Whether it may take long to change."""
        return len(self._kept) > HEAVY_BYTES

    def feed(self, chunk: bytes) -> bytes:
        """Keep the next bytes; raises :class:`AnswerError` beyond the bound."""
        self._kept += chunk
        self._read = False
        if len(self._kept) > MOST_SHAPED_BYTES:
            raise AnswerError
        return b""

    def end(self) -> bytes:
        """Return it changed; raises :class:`AnswerError` when it cannot be."""
        if not self.complete:
            raise AnswerError
        return self._shaper.document(bytes(self._kept))


class Opaque:
    """A body that cannot be read: only its framing tells whether it is whole."""

    changes = whole = shapes = heavy = mid_event = stopped = False
    complete = unread = True

    def feed(self, chunk: bytes) -> bytes:
        """Look at nothing."""
        return chunk

    def end(self) -> bytes:
        """Nothing was held back."""
        return b""

    def close(self) -> None:
        """Nothing was kept."""


class Withheld(Opaque):
    """A body that would have to be changed and cannot be read: nothing of it is passed on."""

    changes = whole = True

    def feed(self, chunk: bytes) -> bytes:  # noqa: ARG002 - as the others
        """Refuse it."""
        raise AnswerError

    def end(self) -> bytes:
        """Refuse an empty one too."""
        raise AnswerError
