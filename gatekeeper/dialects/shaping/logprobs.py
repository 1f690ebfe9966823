"""The arithmetic of log probabilities: rounding, and noise that is differentially private.

Noise in floating point betrays the value under it by its low-order bits (Mironov, "On significance
of the least significant bits for differential privacy", 2012). Here a value is first put on a grid
of whole steps, and the noise is a whole number of steps itself: the difference of two geometric
variables, which is the discrete Laplace distribution. What comes out is a point of the grid.
"""

from __future__ import annotations

import math
import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

from gatekeeper.dialects.base import AnswerError
from gatekeeper.dialects.json_spans import (
    Edit,
    applied,
    items_within,
    members_within,
    unquoted,
)
from gatekeeper.policy.words import LogprobsChange

if TYPE_CHECKING:
    from gatekeeper.dialects.json_spans import Member
    from gatekeeper.policy.model import Shaping

CLIP_NATS: Final = 10
"""Noised log probabilities are kept within this many natural units below 0."""
NO_CHANCE: Final = -9999.0
"""What servers write for minus infinity, which JSON has not; nothing below it is written."""
MOST_PLACES: Final = 4_096
"""Most lists of tokens of one answer (choices times parts) that are told apart."""

_NULL: Final = b"null"
_OBJECT: Final = ord("{")
_ARRAY: Final = ord("[")
_STRING: Final = ord('"')
_LITERALS: Final = frozenset({b"null", b"true", b"false"})
_TOKENS: Final = frozenset({b"token", b"decoded_token", b"tok_str", b"content"})
"""Names of the member that says which token an entry is about."""
_KEPT_LISTS: Final = frozenset({b"bytes", b"text_offset", b"tokens", b"token_ids"})
_KEPT: Final = _TOKENS | {b"id", b"token_id"}
"""Members that say nothing about chances. What is not named here is changed, or becomes null."""
_ALTERNATIVES: Final = frozenset({b"top_logprobs", b"top_probs", b"probs"})
_COLUMNS: Final = frozenset({b"token_logprobs", b"top_logprobs"})
_CHANCES: Final = frozenset({b"prob", b"probability", b"p"})
"""Members that hold a probability rather than its logarithm."""


_PLAIN_ENTRY: Final = re.compile(
    rb'\{\s*+"token"\s*+:\s*+("(?:[^"\\]++|\\.)*+")\s*+,'
    rb'\s*+"logprob"\s*+:\s*+(-?[0-9][-+.0-9Ee]*+)\s*+'
    rb'(?:,\s*+"bytes"\s*+:\s*+(?:null|\[[0-9,\s]*+\])\s*+)?\}',
    re.DOTALL,
)
"""An alternative as most servers write it: nothing else has to be looked for in it."""


class _Entry(NamedTuple):
    """What is changed in one alternative, and what it is sorted by."""

    edits: list[Edit]
    value: float
    name: bytes


class Blur:
    """Rounds or noises the log probabilities of one answer.

    The same value of the same token in the same place always becomes the same: a token and its
    entry among the alternatives agree, and so do events that say a thing twice.
    """

    def __init__(self, shaping: Shaping, seed: bytes) -> None:
        self._noisy = shaping.logprobs is LogprobsChange.NOISE
        self._decimals: int = shaping.decimals or 0
        self._epsilon = shaping.epsilon or 0.0
        self._seed = seed
        self._seen: dict[bytes, int] = {}

    # --- numbers ---

    def number(self, raw: bytes, place: bytes, name: bytes, *, chance: bool = False) -> bytes:
        """Return what is written for a number; ``name`` is its token, ``place`` its position."""
        try:
            value = float(raw)
        except ValueError:
            raise AnswerError from None
        if math.isnan(value):
            value = NO_CHANCE
        if self._noisy:
            return self._text(self._noised(value, b"\0".join((place, name, raw)), chance=chance))
        return self._text(round(min(max(value, NO_CHANCE), -NO_CHANCE), self._decimals))

    def _noised(self, value: float, key: bytes, *, chance: bool) -> float:
        steps_per_unit: int = 10**self._decimals
        low, units = (0, 1) if chance else (-CLIP_NATS, CLIP_NATS)
        steps = units * steps_per_unit
        step = round((min(max(value, low), low + units) - low) * steps_per_unit)
        drawn = blake2b(key, key=self._seed, digest_size=16).digest()
        decay = self._epsilon / steps
        step += _geometric(drawn[:8], decay) - _geometric(drawn[8:], decay)
        return (min(max(step, 0), steps) + low * steps_per_unit) / steps_per_unit

    def _text(self, value: float) -> bytes:
        """Write a number in full, with a point; minus zero is zero."""
        return f"{value + 0.0:.{max(1, self._decimals)}f}".encode()

    # --- where numbers stand ---

    def logprobs(
        self,
        text: bytes,
        start: int,
        end: int,
        place: bytes,
        *,
        skipped: frozenset[bytes] = frozenset(),
    ) -> list[Edit]:
        """Return the edits in a value of ``logprobs``, whichever of its shapes it has.

        Chat: lists of positions by name, those in ``skipped`` left alone. Completions: columns.
        llama.cpp: one list of positions.
        """
        if text[start] == _ARRAY:
            return self.positions(text, start, end, place)
        if text[start] != _OBJECT:
            return []
        found = list(members_within(text, start, end))
        if any(each.name in {b"token_logprobs", b"tokens"} for each in found):
            return self._columns(text, found, place)
        edits = []
        for each in found:
            if each.name in skipped:
                continue
            if text[each.value] == _ARRAY:
                edits += self.positions(text, each.value, each.end, b"%b/%b" % (place, each.name))
            elif _says_something(text, each):
                edits.append(Edit(each.value, each.end, _NULL))
        return edits

    def positions(
        self, text: bytes, start: int, end: int, place: bytes, *, again: bool = False
    ) -> list[Edit]:
        """Return the edits in a list with one entry for each token, alternatives inside.

        ``again`` tells that the tokens begin anew: earlier events have said them already.
        """
        found = items_within(text, start, end)
        first = 0 if again else self._count(place, len(found))
        edits = []
        for number, (begins, ends) in enumerate(found, first):
            if text[begins] == _OBJECT:
                edits += self._entry(text, begins, ends, b"%b/%d" % (place, number)).edits
            elif text[begins] == _ARRAY:
                raise AnswerError
        return edits

    def prompt(self, text: bytes, start: int, end: int, place: bytes) -> list[Edit]:
        """Return the edits in ``prompt_logprobs`` of vLLM: alternatives by id for each token."""
        if text[start] != _ARRAY:
            return []
        edits = []
        for number, (begins, ends) in enumerate(items_within(text, start, end)):
            if text[begins] == _OBJECT:
                edits += self._named(text, begins, ends, b"%b/%d" % (place, number))
        return edits

    def _columns(self, text: bytes, found: list[Member], place: bytes) -> list[Edit]:
        """Return the edits in ``logprobs`` of completions: columns, with a row for each token."""
        lists = [each for each in found if text[each.value] == _ARRAY]
        tokens: list[bytes] = []
        for each in lists:
            if each.name == b"tokens":
                tokens = [
                    _name(text[begins:ends])
                    for begins, ends in items_within(text, each.value, each.end)
                ]
        first = self._count(place, len(tokens))
        edits: list[Edit] = []
        for each in found:
            if each.name in _COLUMNS and each in lists:
                for row, (begins, ends) in enumerate(items_within(text, each.value, each.end)):
                    name = tokens[row] if row < len(tokens) else b""
                    here = b"%b/%d" % (place, first + row)
                    edits += self._cell(text, begins, ends, here, name)
            elif each.name not in _KEPT_LISTS and _says_something(text, each):
                edits.append(Edit(each.value, each.end, _NULL))
        return edits

    def _cell(self, text: bytes, start: int, end: int, place: bytes, name: bytes) -> list[Edit]:
        """Return the edits in what a column says of one token: its chance, or its alternatives."""
        if text[start] == _OBJECT:
            return self._named(text, start, end, place)
        if text[start] == _ARRAY:
            return self._listed(text, start, end, place)
        raw = text[start:end]
        return [] if raw in _LITERALS else [Edit(start, end, self.number(raw, place, name))]

    def _count(self, place: bytes, more: int) -> int:
        """Return how many tokens of a list came before these."""
        seen = self._seen
        before = seen.get(place, 0)
        if not before and len(seen) >= MOST_PLACES:
            raise AnswerError
        seen[place] = before + more
        return before

    def _entry(self, text: bytes, start: int, end: int, place: bytes, name: bytes = b"") -> _Entry:
        """Return the edits in an object about one token: its chance, and its alternatives."""
        plain = _PLAIN_ENTRY.fullmatch(text, start, end)
        if plain is not None and not name:
            name = _name(plain[1])
            new = self.number(plain[2], place, name)
            return _Entry([Edit(*plain.span(2), new)], float(new), name)
        found = list(members_within(text, start, end))
        for each in found:
            if each.name in _TOKENS and not name:
                name = _name(text[each.value : each.end])
        edits: list[Edit] = []
        value = NO_CHANCE
        for each in found:
            kind, raw = text[each.value], text[each.value : each.end]
            kept = _KEPT_LISTS if kind in {_OBJECT, _ARRAY} else _KEPT
            if each.name in kept or kind == _STRING or raw in _LITERALS:
                continue
            if each.name == b"rank":  # counts the exact order, whatever the values are made to be
                edits += [Edit(each.value, each.end, _NULL)] if self._noisy else []
            elif each.name in _ALTERNATIVES and kind == _ARRAY:
                edits += self._listed(text, each.value, each.end, place)
            elif kind in {_OBJECT, _ARRAY}:
                edits.append(Edit(each.value, each.end, _NULL))
            else:
                new = self.number(raw, place, name, chance=each.name in _CHANCES)
                value = float(new)
                edits.append(Edit(each.value, each.end, new))
        return _Entry(edits, value, name)

    def _listed(self, text: bytes, start: int, end: int, place: bytes) -> list[Edit]:
        """Return the edits in a list of alternatives."""
        spans = items_within(text, start, end)
        if any(text[begins] != _OBJECT for begins, _ in spans):
            raise AnswerError
        return self._ordered(text, spans, [self._entry(text, *each, place) for each in spans])

    def _named(self, text: bytes, start: int, end: int, place: bytes) -> list[Edit]:
        """Return the edits in an object of alternatives: token to number, or to an entry."""
        spans: list[tuple[int, int]] = []
        entries: list[_Entry] = []
        for each in members_within(text, start, end):
            raw = text[each.value : each.end]
            if text[each.value] == _OBJECT:
                entry = self._entry(text, each.value, each.end, place, each.name)
            elif raw in _LITERALS:
                entry = _Entry([], NO_CHANCE, each.name)
            else:
                new = self.number(raw, place, each.name)
                entry = _Entry([Edit(each.value, each.end, new)], float(new), each.name)
            spans.append((each.start, each.end))
            entries.append(entry)
        return self._ordered(text, spans, entries)

    def _ordered(
        self, text: bytes, spans: list[tuple[int, int]], entries: list[_Entry]
    ) -> list[Edit]:
        """Return the edits of all alternatives; noised ones stand in their new order.

        The old order would tell the exact ranking; ties stand by their tokens, not as they came.
        """
        came = list(range(len(entries)))
        order = came
        if self._noisy:
            order = sorted(came, key=lambda n: (-entries[n].value, entries[n].name))
        if order == came:
            return [edit for entry in entries for edit in entry.edits]
        pieces: list[bytes] = []
        for slot, chosen in enumerate(order):
            if slot:
                pieces.append(text[spans[slot - 1][1] : spans[slot][0]])
            begins, ends = spans[chosen]
            moved = (Edit(e.start - begins, e.end - begins, e.text) for e in entries[chosen].edits)
            pieces.append(applied(text[begins:ends], moved))
        return [Edit(spans[0][0], spans[-1][1], b"".join(pieces))]


def _geometric(drawn: bytes, decay: float) -> int:
    """Return a whole number n >= 0 with a chance that falls by exp(-decay) from one to the next.

    64 bits reach 44 / decay, beyond the grid for every epsilon that rules may name, so that every
    point of the grid can come out for every value.
    """
    chance = (int.from_bytes(drawn, "big") + 1) * 2.0**-64
    return int(-math.log(chance) / decay)


def _name(raw: bytes) -> bytes:
    return unquoted(raw) if raw[0] == _STRING else raw


def _says_something(text: bytes, member: Member) -> bool:
    return text[member.value : member.end] not in _LITERALS
