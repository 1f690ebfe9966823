"""Pieces of JSON are found and cut in place; every other byte stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.dialects.json_spans import (
    Edit,
    NotJsonError,
    applied,
    cuts,
    end_of_value,
    items,
    items_within,
    members,
    members_within,
    unquoted,
    without,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=20,
)
objects = st.dictionaries(st.text(max_size=4), values, max_size=6)
styles = st.sampled_from(
    [{}, {"indent": 2}, {"separators": (",", ":")}, {"separators": (" , ", " :  ")}]
)


def written(value: Any, style: dict[str, Any]) -> bytes:
    """Return JSON text in one of several styles, with escapes."""
    return json.dumps(value, **style).encode()


@given(value=objects, style=styles)
def test_members_are_what_a_parser_finds(value: dict[str, Any], style: dict[str, Any]) -> None:
    """Names and values, in their order, wherever spaces stand."""
    text = written(value, style)
    found = [
        (each.name.decode(), json.loads(text[each.value : each.end])) for each in members(text)
    ]
    assert found == list(value.items())


@given(value=st.lists(values, max_size=6), style=styles)
def test_items_are_what_a_parser_finds(value: list[Any], style: dict[str, Any]) -> None:
    """Each item from its first byte to its last."""
    text = b" " + written(value, style)
    assert [json.loads(text[start:end]) for start, end in items(text)] == value
    assert end_of_value(text, 1) == len(text)


@given(value=objects, style=styles, data=st.data())
def test_cutting_members_leaves_the_others_byte_for_byte(
    value: dict[str, Any], style: dict[str, Any], data: st.DataObject
) -> None:
    """Commas go with what is cut; what stays is the text that was there."""
    text = written(value, style)
    gone = data.draw(st.sets(st.sampled_from(sorted(value)))) if value else set()
    found = list(members(text))
    cut = applied(text, without(found, frozenset(name.encode() for name in gone)))
    assert json.loads(cut) == {name: each for name, each in value.items() if name not in gone}
    if not gone:
        assert cut == text
    for each in found:
        if each.name.decode() not in gone:
            assert text[each.start : each.end] in cut


def test_edits_are_made_in_place() -> None:
    """In any order; what is not touched is copied as it is."""
    assert (
        applied(b"0123456789", [Edit(8, 9, b"x"), Edit(2, 4), Edit(5, 5, b"--")]) == b"014--567x9"
    )


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[1]",
        b"{",
        b'{"a"',
        b'{"a":',
        b'{"a":1',
        b'{"a":1,',
        b'{"a":1;}',
        b'{"a" 1}',
        b"{a:1}",
        b'{"a":[1}',
        b'{"a":"x}',
        b'{"\\ud800\\u":1}',
    ],
)
def test_what_is_no_object_is_said(text: bytes) -> None:
    """Never an endless loop, never a span outside of the text."""
    with pytest.raises(NotJsonError):
        list(members(text))


@pytest.mark.parametrize("text", [b"", b"{}", b"[", b"[1", b"[1,", b"[1;2]", b"[,]"])
def test_what_is_no_array_is_said(text: bytes) -> None:
    """As for objects."""
    with pytest.raises(NotJsonError):
        list(items(text))


def test_deep_nesting_is_no_recursion() -> None:
    """A million brackets are skipped in one pass."""
    deep = b"[" * 1_000_000 + b"]" * 1_000_000
    assert end_of_value(deep, 0) == len(deep)


@given(value=objects, style=styles)
def test_the_fast_way_finds_the_same_members(value: dict[str, Any], style: dict[str, Any]) -> None:
    """Within known ends a parser finds them, as one by one."""
    text = b" x" + written(value, style) + b"y"
    assert members_within(text, 2, len(text) - 1) == list(members(text, 2))


@given(value=st.lists(values, max_size=6), style=styles)
def test_the_fast_way_finds_the_same_items(value: list[Any], style: dict[str, Any]) -> None:
    """As the members."""
    text = b" x" + written(value, style) + b"y"
    assert items_within(text, 2, len(text) - 1) == list(items(text, 2))


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":2}',
        b'{"a":1,"a":[1,2,3],"b":4}',
        b'{"a":"\\ud83d","b":NaN}',
        b'{"a":[[[[[[[[[[[[1]]]]]]]]]]]],"a":{}}',
    ],
)
def test_what_the_parser_does_not_take_is_gone_through(text: bytes) -> None:
    """A name that stands twice is found twice, and what Python's parser takes is no error."""
    assert members_within(text, 0, len(text)) == list(members(text))
    inside = b"[" + text + b"]"
    assert items_within(inside, 0, len(inside)) == [(1, len(inside) - 1)]


@pytest.mark.parametrize("text", [b'{"a":1}x', b'{"a":1', b'{"a":1}{"b":2}', b"{} {}", b"{,}"])
def test_ends_that_are_none_are_said(text: bytes) -> None:
    """What stands from one place to the other is one value, or it is not JSON."""
    with pytest.raises(NotJsonError):
        members_within(text, 0, len(text))
    with pytest.raises(NotJsonError):
        items_within(text.replace(b"{", b"[").replace(b"}", b"]"), 0, len(text))


@given(value=st.lists(values, max_size=6), style=styles, data=st.data())
def test_cutting_items_leaves_the_others(
    value: list[Any], style: dict[str, Any], data: st.DataObject
) -> None:
    """Commas included, whichever are cut."""
    gone = data.draw(st.lists(st.booleans(), min_size=len(value), max_size=len(value)))
    text = written(value, style)
    spans = [(*span, cut) for span, cut in zip(items(text), gone, strict=True)]
    left = applied(text, cuts(spans))
    assert json.loads(left) == [each for each, cut in zip(value, gone, strict=True) if not cut]


def test_half_a_pair_is_read_as_half_a_pair() -> None:
    """Tokens may be half a character, and two halves are not the same."""
    assert unquoted(rb'"\ud83d"') != unquoted(rb'"\ude80"')
    assert unquoted(rb'"\u00e9\n"') == "é\n".encode()
    with pytest.raises(NotJsonError):
        unquoted(rb'"\u00"')
