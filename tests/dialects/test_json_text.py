"""Text out of JSON, slice by slice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.dialects.json_text import (
    MOST_PARTS,
    SLICE_BYTES,
    has_too_many_parts,
    pieces_of,
    slices_of,
    unescaped,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = st.text(st.characters(codec="utf-8"))
AWKWARD = st.text(st.sampled_from('\\"nu/é中🙂\n\t{}[]:,0041dD89 x'), max_size=40)
VALUES = st.recursive(
    TEXT | AWKWARD | st.integers() | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | AWKWARD, inner, max_size=4),
)


def strings_in(value: Any) -> Iterator[str]:
    """Yield all strings of a value, names of fields among them, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings_in(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from strings_in(item)


@given(value=VALUES, ascii_only=st.booleans(), indent=st.sampled_from([None, 2]))
def test_every_string_is_taken_out(value: Any, ascii_only: bool, indent: int | None) -> None:
    """However JSON is written, its text is its strings, a line each."""
    sent = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    (found,) = slices_of(sent)
    assert found.text.decode() == "\n".join(strings_in(value))


@given(
    unit=AWKWARD.filter(bool) | TEXT.filter(bool),
    shift=st.integers(0, 20),
    ascii_only=st.booleans(),
    view=st.booleans(),
)
def test_h12_a_long_string_is_parted_between_characters(
    unit: str, shift: int, ascii_only: bool, view: bool
) -> None:
    """Slices of a string of any characters add up to it, and none is longer than it should be."""
    text = "x" * shift + unit * (40_000 // len(unit))
    sent = json.dumps({"a": [text], "b": 7}, ensure_ascii=ascii_only).encode()
    found = list(slices_of(memoryview(sent) if view else sent))
    assert "".join(each.text.decode() for each in found) == f"a\n{text}\nb"
    assert b"".join(each.rest for each in found) == b",7"
    assert sum(each.objects for each in found) == 1
    assert sum(each.parts for each in found) == 8
    pieces = list(pieces_of(sent))
    assert b"".join(pieces) == sent
    assert max(map(len, pieces)) <= SLICE_BYTES


def test_h12_runs_of_one_byte_are_parted() -> None:
    """Backslashes, lone surrogates and stray bytes neither stop nor stretch the slices."""
    for unit in (b"\\\\", b"\\ud800", b"\\u", b"\x80", b"\\"):
        data = b'"' + unit * 30_000 + b'"'
        pieces = list(pieces_of(data))
        assert b"".join(pieces) == data
        assert max(map(len, pieces)) <= SLICE_BYTES
        assert sum(len(each.text) for each in slices_of(data)) > 0


def test_numbers_and_words_are_kept() -> None:
    """What stands between strings is kept without its brackets."""
    (found,) = slices_of(b'{"a": [1, 2.5e3, true], "b": {}}')
    assert (found.text, found.rest, found.objects) == (b"a\nb", b"1,2.5e3,true,", 2)


def test_what_cannot_be_decoded_stays_as_it_is() -> None:
    """Lone surrogates and broken escapes come back escaped, which only weighs more."""
    assert unescaped(rb"a\nb\u00e9\"\\") == 'a\nbé"\\'.encode()
    for broken in (rb"\ud800", rb"\x", rb"\u12", b"\\"):
        assert unescaped(broken) == broken


@pytest.mark.parametrize(
    ("item", "refused"),
    [(b"{}", True), (b"[]", True), (b'""', True), (b"1", False), (b'"\\"\\"[[{{"', False)],
)
def test_h12_bodies_of_dust_are_told(item: bytes, refused: bool) -> None:
    """A million empty parts are too many; numbers and what is inside of strings do not count."""
    text = b"[" + b",".join([item] * (MOST_PARTS if refused else MOST_PARTS // 3)) + b"]"
    assert has_too_many_parts(text) is refused
