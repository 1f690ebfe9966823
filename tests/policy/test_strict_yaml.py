"""Strict YAML: what is read, what is refused, and that no text breaks it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatekeeper.policy.strict_yaml import (
    MAX_CHARACTERS,
    MAX_DEPTH,
    Document,
    Plain,
    place,
    read_yaml,
    walk,
)

if TYPE_CHECKING:
    from gatekeeper.policy.mistake import Mistake


def value_of(text: str) -> Plain:
    """Read ``text``, which must be right."""
    document = read_yaml(text, "f.yaml", require_end=False)
    assert isinstance(document, Document), document
    return document.value


def mistakes_of(text: str, *, require_end: bool = False) -> list[Mistake]:
    """Read ``text``, which must be wrong."""
    mistakes = read_yaml(text, "f.yaml", require_end=require_end)
    assert isinstance(mistakes, list), mistakes
    assert mistakes
    assert all(mistake.file == "f.yaml" and mistake.message for mistake in mistakes)
    return mistakes


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("NO", "NO"),
        ("no", "no"),
        ("ON", "ON"),
        ("Off", "Off"),
        ("yes", "yes"),
        ("y", "y"),
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("tRUE", "tRUE"),
        ("", None),
        ("~", None),
        ("NULL", None),
        ("nULL", "nULL"),
        ("'~'", "~"),
        ('"true"', "true"),
        ("'12'", "12"),
        ("12", 12),
        ("+12", 12),
        ("-0", 0),
        ("010", "010"),
        ("0o17", "0o17"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("-1.5E-1", -0.15),
        ("00.5", "00.5"),
        ("2024-01-01", "2024-01-01"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("=", "="),
        ("9223372036854775807", 2**63 - 1),
        ("١٢", "١٢"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(scalar: str, value: Plain) -> None:
    """Norway stays text, and so do octals, sexagesimals and dates; only plain words have types."""
    read = value_of(f"a: {scalar}\n")
    assert read == {"a": value}
    assert isinstance(read, dict)
    assert type(read["a"]) is type(value)


@pytest.mark.parametrize(
    "scalar", [".inf", "-.INF", ".nan", "1e999", "9223372036854775808", "-" + "9" * 5000]
)
def test_numbers_are_finite_and_of_64_bits(scalar: str) -> None:
    """Infinity, NaN and numbers that no other program reads alike are refused."""
    (mistake,) = mistakes_of(f"a:\n  - 1\n  - {scalar}\n")
    assert (mistake.line, mistake.path) == (3, "a[1]")
    assert "finite" in mistake.message


def test_structure_and_lines() -> None:
    """Collections nest, block text keeps its lines, and every part knows its line."""
    document = read_yaml(
        "# top\na:\n  - x\n  - b: [1,\n      2]\n"
        "    text: |\n      one\n      two\nempty: {}\n...\n",
        "f.yaml",
    )
    assert isinstance(document, Document)
    assert document.value == {"a": ["x", {"b": [1, 2], "text": "one\ntwo\n"}], "empty": {}}
    assert document.line(()) == 2
    assert document.line(("a", 1, "b", 1)) == 5
    assert document.line(("a", 1, "text")) == 6
    assert document.line(("empty",)) == 9


def test_line_of_what_is_missing_is_that_of_its_container() -> None:
    """A mistake about a missing key points to the mapping that lacks it."""
    document = read_yaml("a:\n  - b: 1\n", "f.yaml", require_end=False)
    assert isinstance(document, Document)
    assert document.line(("a", 0, "missing", 3)) == 2
    assert document.line(("other",)) == 1


def test_nothing_at_all_is_nothing() -> None:
    """Blank text has no value and no lines; with the end marker required it is incomplete."""
    document = read_yaml("# only a comment\n", "f.yaml", require_end=False)
    assert isinstance(document, Document)
    assert document.value is None
    assert document.line(("a",)) is None
    assert "cut off" in mistakes_of("", require_end=True)[0].message


@pytest.mark.parametrize(
    ("text", "line", "path", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "", "`a` stands twice"),
        ("x:\n  - {a: 1, a: 2}\n", 2, "x[0]", "stands twice"),
        ("a: &x 1\n", 1, "a", "Anchors"),
        ("a: &x [1]\n", 1, "a", "Anchors"),
        ("a: !!str 1\n", 1, "a", "Tags"),
        ("a: !!python/object/apply:os.system [x]\n", 1, "a", "Tags"),
        ("a: ! b\n", 1, "a", "Tags"),
        ("a: 1\n---\nb: 2\n", 2, "", "one document"),
        ("%YAML 1.1\n---\na: 1\n", 1, "", "Directives"),
        ("1: a\n", 1, "", "key must be text"),
        ("~: a\n", 1, "", "key must be text"),
        ("'': a\n", 1, "", "key must be text"),
        ("true: a\n", 1, "", "key must be text"),
        ("? [a]\n: b\n", 1, "", "not a list"),
        ("? {a: 1}\n: b\n", 1, "", "not a list"),
        ("a: 'b\n", 2, "a", "not valid YAML"),
        ("a: b: c\n", 1, "", "not valid YAML"),
        ("a:\n\t- b\n", 2, "", "tab"),
        ("a: b\x00c\n", 1, "", "U+0000"),
        ("a: \ud800\n", 1, "", "U+D800"),
        ("\ufeffa: 1\n", 1, "", "byte order mark"),
        ("a: 1\n# \u202e\n", 2, "", "U+202E"),
        ("a: x\x85b: 1\n", 1, "", "U+0085"),
        ("a: 1\rb: 2\n", 1, "", "U+000D"),
        ('a: "x\\e[31m"\n', 1, "a", "control characters"),
        ('"a\\nb\\0": 1\n', 1, "", "control characters"),
    ],
)
def test_refusals(text: str, line: int, path: str, words: str) -> None:
    """Whatever could be read in two ways is refused, with its place."""
    mistake = mistakes_of(text)[0]
    assert (mistake.line, mistake.path) == (line, path)
    assert words in mistake.message


def test_windows_line_ends_are_line_ends() -> None:
    """CR LF reads like LF."""
    assert value_of("a: 1\r\nb:\r\n  - 2\r\n...\r\n") == {"a": 1, "b": [2]}


def test_all_mistakes_are_told_at_once() -> None:
    """Reading goes on after a mistake as long as what follows can be understood."""
    mistakes = mistakes_of("a: &x 1\nb: *x\n1: c\nd: {e: 1, e: 2}\n? *x\n: y\n")
    assert [mistake.line for mistake in mistakes] == [1, 2, 3, 4, 5, 5]


def test_h35_alias_bomb_is_refused_before_it_grows() -> None:
    """300 bytes with 43 million leaves cost nothing: anchors and aliases are not followed."""
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
    bomb += "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 8))
    assert any("Aliases" in mistake.message for mistake in mistakes_of(bomb))


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_h35_deep_nesting_is_refused(opening: str) -> None:
    """3,000 levels are refused at the twenty-first."""
    assert len(mistakes_of(opening * 3000)) == 1


def test_nesting_has_a_bound() -> None:
    """Twenty levels are fine, twenty-one are not."""
    assert value_of("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    assert "nesting" in mistakes_of("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))[0].message


def test_size_has_a_bound() -> None:
    """A file beyond the bound is not even looked at."""
    padding = "# " + "x" * (MAX_CHARACTERS - 3) + "\n"
    assert value_of(padding) is None
    assert "longer" in mistakes_of(padding + "\n")[0].message


@pytest.mark.parametrize("end", ["...", "...\n", "...\n# a last word\n\n", "...   \n"])
def test_h35_end_marker(end: str) -> None:
    """A file ends with ``...``; whether a line end follows does not matter."""
    assert isinstance(read_yaml(f"a: 1\n{end}", "f.yaml"), Document)


@pytest.mark.parametrize(
    "text", ["a: 1\n", "a: 1\n..", "a: |\n  ...\n", "a: 1 ...\n", "# ...\n", "b\n...\xa0\n"]
)
def test_h35_missing_end_marker(text: str) -> None:
    """What only looks like the marker is none."""
    assert mistakes_of(text, require_end=True)


def test_h35_no_prefix_reads() -> None:
    """No shorter text with the marker required reads as something else."""
    text = "version: 1\nlist:\n  - a: 1\n  - b: '...'\n  # ...\n...\n"
    whole = read_yaml(text, "f.yaml")
    assert isinstance(whole, Document)
    for length in range(len(text)):
        read = read_yaml(text[:length], "f.yaml")
        assert isinstance(read, list) or read.value == whole.value


def test_place_is_written_the_way_people_do() -> None:
    """Paths read like ``signals[3].points``."""
    assert place(("signals", 3, "points")) == "signals[3].points"
    assert place((0, "name")) == "[0].name"
    assert place(()) == ""


def test_walk_visits_everything() -> None:
    """Containers come before what they contain."""
    assert list(walk({"a": [None, {"b": 1}]})) == [
        ((), {"a": [None, {"b": 1}]}),
        (("a",), [None, {"b": 1}]),
        (("a", 0), None),
        (("a", 1), {"b": 1}),
        (("a", 1, "b"), 1),
    ]


@given(st.text() | st.text("ab:-[]{},&*!?|>'\"%#. \n\t0~\\", max_size=60))
@example("a: [*x")
@example("%TAG ! tag:x,2000:\n--- !a\n")
def test_any_text_reads_or_is_a_list_of_mistakes(text: str) -> None:
    """No text raises, with or without the end marker required."""
    for require_end in (False, True):
        read = read_yaml(text, "f.yaml", require_end=require_end)
        assert isinstance(read, Document) or read


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63) + 1, 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15)
        | st.text(st.characters(codec="ascii", exclude_categories=["C"])),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1),
                inner,
                max_size=3,
            )
        ),
        max_leaves=10,
    )
)
def test_json_reads_as_itself(value: Plain) -> None:
    """JSON of ordinary values is YAML with the same meaning."""
    assert value_of(json.dumps(value)) == value
