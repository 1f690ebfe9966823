"""Conditions: what they mean, what is refused and how, and that no text breaks them."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.reference_cel import evaluate_reference

from gatekeeper.policy.cel import functions
from gatekeeper.policy.cel.syntax import MAX_CHARACTERS, MAX_HEIGHT
from gatekeeper.policy.conditions import CLOSED, ConditionError, compile_condition
from gatekeeper.policy.view import FIELDS, FieldType

if TYPE_CHECKING:
    from gatekeeper.policy.model import View

INT_MIN = "-9223372036854775808"
INT_MAX = "9223372036854775807"

VIEW: View = {
    "network.country": "DE",
    "network.kind": "vpn",
    "network.asn": 64500,
    "network.listed_by": ("tor-exits", "x4b-vpn"),
    "account.known": True,
    "account.tier": "standard",
    "account.age_days": 12.5,
    "account.owners": (),
    "call.model": "größe-\U0001f600",
    "call.path": "/v1/chat/completions",
    "call.stream": False,
    "call.input_tokens": 2**63 - 1,
    "call.cost_cents": math.nan,
    "call.choices": 0,
    "call.body_bytes": 2**53 + 1,
}
"""Absent: registered_country, organization (string), owner_countries (list), max_output_tokens."""

UNKNOWN = "network.registered_country == 'US'"
UNKNOWN_INT = "call.max_output_tokens"

MEANINGS: list[tuple[str, bool | None]] = [
    # fields, equality, membership
    ("true", True),
    ("network.kind == 'vpn'", True),
    ("network.kind != 'vpn'", False),
    ("network.kind in ['vpn', 'tor']", True),
    ("network.asn in [64500, 64501,]", True),
    ("network.asn in [1, call.choices + 64500]", True),
    (f"network.asn in [64500, {UNKNOWN_INT}]", None),
    (f"{UNKNOWN_INT} in [1, 2]", None),
    ("network.asn in []", False),
    (f"{UNKNOWN_INT} in []", None),
    ("'x4b-vpn' in network.listed_by", True),
    ("'x4b-vpn' in account.owners", False),
    ("'x4b-vpn' in account.owner_countries", None),
    ("account.known", True),
    ("account.known == !call.stream", True),
    ("call.stream < account.known", True),
    ("'a' < 'b' && 'Z' < 'a' && '\U0001f600' > '\uffff'", True),
    ("network . country // of use\n == 'DE'", True),
    ("(network).country == 'DE' && (network.country).size() == 2", True),
    # unknown and its absorption
    (UNKNOWN, None),
    (f"!({UNKNOWN})", None),
    (f"{UNKNOWN} || true", True),
    (f"true || {UNKNOWN}", True),
    (f"{UNKNOWN} || false", None),
    (f"{UNKNOWN} && false", False),
    (f"false && {UNKNOWN}", False),
    (f"{UNKNOWN} && true", None),
    (f"!({UNKNOWN} && false) && !(false || {UNKNOWN}) || account.known", True),
    (f"{UNKNOWN} || {UNKNOWN} || account.known", True),
    (f"account.known && {UNKNOWN} && call.stream", False),
    (f"({UNKNOWN}) == ({UNKNOWN})", None),
    (f"account.known ? true : {UNKNOWN}", True),
    (f"account.known ? {UNKNOWN} : true", None),
    (f"call.stream ? {UNKNOWN} : false", False),
    (f"{UNKNOWN} ? true : true", None),
    (f"({UNKNOWN} ? 1 : 1) == 1", None),
    (f"(account.known ? 1 : {UNKNOWN_INT}) == 1", True),
    (f"(account.known ? {UNKNOWN_INT} : 1) == 1", None),
    ("call.stream ? true : account.known ? false : true", False),
    ("has(network.registered_country)", False),
    ("has(network.country) && !has(account.organization)", True),
    (f"has(network.registered_country) && {UNKNOWN}", False),
    # int
    ("-7 / 2 == -3 && 7 / -2 == -3 && -7 / -2 == 3", True),
    ("-7 % 2 == -1 && 7 % -2 == 1 && 7 % 2 == 1", True),
    ("1 / 0 == 1", None),
    ("1 % 0 == 1", None),
    ("1 / 0 == 1 || true", True),
    (f"{INT_MAX} + 1 > 0", None),
    (f"call.input_tokens == {INT_MAX}", True),
    ("call.input_tokens + 1 > 0", None),
    ("call.input_tokens * 2 > 0", None),
    ("-call.input_tokens - 1 < 0", True),
    ("-call.input_tokens - 2 < 0", None),
    (f"{INT_MIN} < 0", True),
    (f"-({INT_MIN}) > 0", None),
    (f"--({INT_MIN}) < 0", True),
    (f"{INT_MIN} / -1 > 0", None),
    (f"{INT_MIN} % -1 == 0", None),
    ("0xfF == 255 && -0x10 == -16 && 007 == 7", True),
    ("1 - -1 == 2 && 1--1 == 2 && - 1 == -1 && -(1) == -1", True),
    ("2 + 3 * 4 - 10 / 5 == 12 && (2 + 3) * 4 == 20", True),
    ("10 - 3 - 2 == 5 && 100 / 10 / 5 == 2", True),
    ("!!account.known && !(!!!account.known)", True),
    # double
    ("account.age_days < 30.0 && account.age_days >= 12.5", True),
    ("account.age_days + 0.5 == 13.0 && account.age_days * 2.0 - 5.0 == 20.0", True),
    ("-account.age_days == -12.5 && --account.age_days == 12.5", True),
    (".5 == 0.5 && 1e3 == 1000.0 && 1.5E-1 == 0.15 && -.5 < 0.0", True),
    ("1.0 / 0.0 > 1e308 && -1.0 / 0.0 < -1e308 && 1.0 / -0.0 < 0.0", True),
    ("0.0 / 0.0 == 0.0 / 0.0", False),
    ("1e308 * 10.0 == 1.0 / 0.0", True),
    ("0.0 == -0.0 && -0.0 in [0.0]", True),
    ("call.cost_cents < 1.0", False),
    ("!(call.cost_cents < 1.0) && call.cost_cents != call.cost_cents", True),
    ("call.cost_cents in [1.0, 2.0]", False),
    ("call.cost_cents in [call.cost_cents]", False),
    # int beside double
    ("account.age_days < 30 && 12 < account.age_days && 12.5 >= 12", True),
    ("network.asn < 64500.5 && 64500.5 > network.asn", True),
    ("call.input_tokens < 9223372036854775808.0", False),
    ("call.body_bytes > 9007199254740992.0", False),
    ("call.choices < call.cost_cents || call.choices >= call.cost_cents", False),
    ("double(network.asn) == 64500.0 && double(1.5) == 1.5", True),
    ("int(account.age_days) == 12 && int(-12.9) == -12 && int(3) == 3", True),
    ("int(call.cost_cents) == 0", None),
    ("int(9223372036854774784.0) > 0 && int(-9223372036854774784.0) < 0", True),
    ("int(9223372036854775808.0) > 0", None),
    ("int(-9223372036854775808.0) < 0", None),
    ("int(1.0 / 0.0) > 0", None),
    # string
    ("call.path.startsWith('/v1/') && call.path.endsWith('completions')", True),
    ("call.path.contains('chat') && !call.path.contains('embed')", True),
    ("call.path.contains('') && ''.startsWith('')", True),
    ("account.organization.startsWith('a')", None),
    ("call.path.startsWith(account.organization)", None),
    ("network.country + '-BE' == 'DE-BE'", True),
    ("network.country + account.organization == 'DE'", None),
    ("size(call.model) == 7 && call.model.size() == 7", True),
    ("size('\\U0001F600') == 1 && size('e\\u0301') == 2", True),
    ("size(network.listed_by) == 2 && account.owners.size() == 0", True),
    ("size(account.owner_countries) == 0", None),
    ("'\\a\\b\\f\\n\\r\\t\\v' == '\\x07\\x08\\x0c\\x0A\\X0d\\t\\013'", True),
    ("'\\\\\\?\\\"\\'\\`' == '\\134?\"\\047`'", True),
    ('"it\'s" == \'it\\\'s\' && \'say "x"\' == "say \\"x\\""', True),
    ("r'\\d' == '\\\\d' && R\"\\\\\" == '\\\\\\\\'", True),
    ("'''a\n'b''' == 'a\\n\\'b' && \"\"\"a\"b\"\"\" == 'a\"b'", True),
    ("r'''\\'a''' == '\\\\\\'a'", True),
    ("'\\303\\251' == '\\u00c3\\u00a9' && '\\377' == 'ÿ'", True),
    # patterns
    ("call.path.matches('^/v[0-9]+/')", True),
    ("call.path.matches('^chat')", False),
    (
        "call.path.matches('chat') && !call.path.matches('CHAT') && call.path.matches('(?i)CHAT')",
        True,
    ),
    ("call.model.matches('^.{7}$')", True),
    ("account.organization.matches('a')", None),
    ("account.organization.matches('a') || account.known", True),
    ("'abc'.matches('b')", True),
    ("call.path.matches('chat') == account.known", True),
    ("(account.known ? call.path.matches('^/v1') : false) && network.asn == 1", False),
    ("(call.stream ? call.path.matches('^/v1') : call.path.matches('s$'))", True),
    # macros
    ("network.listed_by.exists(x, x == 'tor-exits')", True),
    ("network.listed_by.exists(x, x.startsWith('y'))", False),
    ("network.listed_by.all(x, x.contains('-'))", True),
    ("network.listed_by.all(x, x == 'x4b-vpn')", False),
    ("account.owners.exists(x, true)", False),
    ("account.owners.all(x, false)", True),
    ("account.owner_countries.exists(x, true)", None),
    ("account.owner_countries.all(x, false)", None),
    (f"network.listed_by.exists(x, {UNKNOWN} || x == 'x4b-vpn')", True),
    (f"network.listed_by.exists(x, {UNKNOWN} || x == 'none')", None),
    (f"network.listed_by.all(x, {UNKNOWN} && x == 'x4b-vpn')", False),
    (f"network.listed_by.all(x, {UNKNOWN} || x == 'x4b-vpn')", None),
    ("network.listed_by.exists(x, network.listed_by.exists(y, x < y && y.matches('^x')))", True),
    ("network.listed_by.exists(x, x == 'a') || network.listed_by.all(x, size(x) > 3)", True),
    ("(call.stream ? account.owners : network.listed_by).exists(x, x in ['x4b-vpn'])", True),
]


@pytest.mark.parametrize(("source", "meaning"), MEANINGS)
def test_meaning(source: str, meaning: bool | None) -> None:
    """A condition means what the table says."""
    assert compile_condition(source)(VIEW) is meaning


@pytest.mark.parametrize(("source", "meaning"), MEANINGS)
def test_reference_agrees_with_the_table(source: str, meaning: bool | None) -> None:
    """The table holds for Google's CEL too, so it tests CEL and not our reading of it."""
    assert evaluate_reference(source, VIEW) is meaning


REFUSALS: list[tuple[str, int, str]] = [
    # names
    ("network.contry == 'DE'", 0, "unknown field network.contry; did you mean network.country?"),
    ("true && network.age_days < 1.0", 8, "did you mean account.age_days?"),
    ("zone == 'DE'", 0, "unknown field zone; known are account.age_days,"),
    ("network == 'DE'", 0, "network is a group; choose one of network.country,"),
    (
        "network.country.size == 2",
        0,
        "unknown field network.country.size; did you mean network.country?",
    ),
    ("True", 0, "unknown field True; write true"),
    ("'a'.b == 'c'", 0, "only groups such as network have fields"),
    ("network.listed_by.exists(x, x.y == 'a')", 28, "a variable is a string and has no fields"),
    # types
    ("network.country", 0, "a bool belongs here, this is string; compare it"),
    ("network.listed_by", 0, "a bool belongs here, this is list(string); ask size(...) > 0"),
    ("1", 0, "a bool belongs here, this is int"),
    ("true && 1.5", 8, "a bool belongs here, this is double"),
    ("!network.asn", 1, "a bool belongs here, this is int"),
    ("1 ? true : false", 0, "a bool belongs here, this is int"),
    ("account.known ? 1 : 'a'", 20, "both branches of ?: need the same type, not int and string"),
    ("network.asn == '64500'", 12, "not (int, string)"),
    ("account.age_days == 30", 17, "write 30.0 rather than 30, or double(...)"),
    ("account.age_days + 1 > 2.0", 17, "write 30.0 rather than 30"),
    ("5.0 % 2.0 == 1.0", 4, "% takes (int, int), not (double, double)"),
    ("network.listed_by == 'a'", 18, "write value in list"),
    ("1 < 2 < 3", 6, "< takes (int, int) or"),
    ("-account.known", 0, "- takes (int) or (double), not (bool)"),
    ("--'a' == 'a'", 0, "- takes (int) or (double), not (string)"),
    ("'a' in 'abc'", 4, "in takes (string, list(string)), not (string, string)"),
    ("network.asn in ['64500']", 16, "this is string, but int is looked for"),
    ("account.age_days in [1]", 21, "this is int, but double is looked for"),
    ("network.listed_by in ['a']", 18, "a list is never in a list"),
    ("['a'] == ['a']", 0, "a list in brackets may only stand to the right of in"),
    ("size(1) == 1", 0, "size takes (string) or (list(string)), not (int)"),
    ("size() == 1", 0, "size takes (string) or (list(string)), not ()"),
    ("network.listed_by.contains('a')", 18, "write value in list"),
    # values that a closed field never has
    (
        "network.kind == 'resdential'",
        16,
        "network.kind is never 'resdential'; did you mean residential?",
    ),
    ("'ELEVATED' != account.tier", 0, "account.tier is never 'ELEVATED'; known are elevated,"),
    ("account.assurance in ['ial1', 'ial3']", 30, "did you mean ial"),
    ("credential.kind == 'api-key'", 19, "did you mean api_key?"),
    # functions
    ("foo(1)", 0, "unknown function foo; known are double, has, int, size"),
    ("timestamp('a') == 1", 0, "timestamp is not part of the subset"),
    ("network.listed_by.map(x, x)", 18, "map is not part of the subset; known are all,"),
    ("call.path.startswith('/')", 10, "unknown function startswith; did you mean startsWith?"),
    ("contains('a', 'b')", 0, "write field.contains(...)"),
    ("matches('a', 'b')", 0, "write field.matches(...)"),
    ("'a'.int() == 1", 4, "write int(...)"),
    ("'a'.has()", 4, "write has(...)"),
    ("has(1)", 0, "has takes one field"),
    ("has(network)", 0, "has takes one field"),
    ("has(network.asn, network.asn)", 0, "has takes one field"),
    ("has('a'.b)", 4, "only groups such as network have fields"),
    ("network.listed_by.exists(x, has(x.y))", 32, "a variable is a string"),
    ("call.path.matches()", 10, "takes one literal pattern"),
    ("call.path.matches(call.model)", 10, "takes one literal pattern"),
    ("call.path.matches(1)", 10, "takes one literal pattern"),
    ("network.asn.matches('1')", 12, "called on a string"),
    ("call.path.matches('(?=a)')", 18, "not a pattern of RE2: invalid perl operator"),
    ("call.path.matches(r'(a)\\1')", 18, "not a pattern of RE2: invalid escape sequence"),
    ("call.path.matches('((a{1000}){1000}){1000}')", 18, "not a pattern of RE2"),
    ("'a'.exists(x, true)", 4, "exists is called on a list(string), not on string"),
    ("network.listed_by.all(true)", 18, "all takes a variable and a test"),
    ("network.listed_by.exists('x', true)", 25, "a plain name such as x belongs here"),
    ("network.listed_by.exists(__x, true)", 25, "a plain name such as x belongs here"),
    ("network.listed_by.exists(network, true)", 25, "network already means something"),
    (
        "network.listed_by.exists(x, account.owners.exists(x, true))",
        50,
        "x already means something",
    ),
    (
        "account.owners.all(x, account.owners.all(y, account.owners.all(z, z == x)))",
        59,
        "exists and all nest at most 2 deep",
    ),
    # grammar
    ("", 0, "unexpected the end; a field, a literal or a bracket belongs here"),
    ("true true", 5, "unexpected true; the condition should end here"),
    ("true 'a'", 5, "unexpected 'a';"),
    ("(true", 5, "unexpected the end; ) belongs here"),
    ("true ? false", 12, "unexpected the end; : belongs here"),
    ("account.known and true", 14, "unexpected and; write &&"),
    ("not true", 0, "unexpected not; write !"),
    ("true or false", 5, "unexpected or; write ||"),
    ("network.asn = 1", 12, "unexpected '='; write == to compare"),
    ("true & false", 5, "write && for and"),
    ("true | false", 5, "write || for or"),
    ("{'a': 1} == {}", 0, "maps are not part of the subset"),
    ("true ; false", 5, "unexpected ';'"),
    ("\xa0true", 0, "unexpected '\\xa0'"),
    ("while == 1", 0, "unexpected while; this word is reserved"),
    ("in in in", 0, "unexpected in; this word is reserved"),
    ("null == null", 0, "unexpected null; nothing is null here"),
    ("network.in == 1", 8, "unexpected in after the dot"),
    ("network.1 == 1", 7, "unexpected .1"),
    ("network.", 8, "unexpected the end after the dot"),
    ("network.listed_by[0] == 'a'", 17, "picking an element is not part of the subset"),
    ("-!true", 1, "unexpected !"),
    ("size('a',) == 1", 9, "unexpected )"),
    ("size('a' 'b') == 1", 9, "unexpected 'b'; , belongs here"),
    ("1 in [,]", 6, "unexpected ,"),
    ("1u == 1", 1, "unsigned numbers are not part of the subset"),
    ("30days == 1", 2, "unexpected days; put a space or an operator behind the number"),
    ("1e400 > 1.0", 0, "too large for a double"),
    ("-1e400 < 1.0", 0, "too large for a double"),
    ("9223372036854775808 > 0", 0, "an int lies between -2^63 and 2^63-1"),
    ("- -9223372036854775808 > 0", 3, "an int lies between"),
    ("-9223372036854775809 > 0", 0, "an int lies between"),
    (f"1 == {'9' * 1900}", 5, "an int lies between"),
    # strings
    ("'abc", 0, "this string is not closed; end it with '"),
    ("'abc\\", 0, "this string is not closed"),
    ("'a\nb' == 'a'", 0, "this string is not closed"),
    ("'''a'' == 'a'", 0, "this string is not closed; end it with '''"),
    ("r'a\\' == 'a'", 0, "a raw string ends in an even number of backslashes"),
    ("'''a\rb''' == 'a'", 4, "a carriage return inside a string is written \\r"),
    ("'ab\\q' == 'a'", 3, "unknown escape \\q; write \\\\ for a backslash, or a raw string"),
    ("'\\x4' == 'a'", 1, "unknown escape \\x"),
    ("'\\400' == 'a'", 1, "unknown escape \\4"),
    ("'\\ud800' == 'a'", 1, "\\ud800 is no Unicode character"),
    ("'\\U00110000' == 'a'", 1, "\\U00110000 is no Unicode character"),
    ("b'a' == b'a'", 0, "bytes are not part of the subset"),
    ("true || '\ud800' == 'a'", 9, "half of a surrogate pair is no character"),
    # size
    (
        " " * 1999 + "true",
        MAX_CHARACTERS,
        "a condition has at most 2000 characters, this one has 2003",
    ),
    ("(" * 1000, MAX_HEIGHT, "nested deeper than 32 levels"),
    ("1 > " + "1 + " * 400 + "1", 130, "nested deeper than 32 levels"),
    ("true ? true : " * 100, 14 * MAX_HEIGHT, "nested deeper than 32 levels"),
    ("'a'" + ".size()" * 200, 221, "nested deeper than 32 levels"),
]


@pytest.mark.parametrize(("source", "position", "message"), REFUSALS)
def test_refusal(source: str, position: int, message: str) -> None:
    """A mistake is told with its place and with what would be right."""
    with pytest.raises(ConditionError, match=re.escape(message)) as raised:
        compile_condition(source)
    assert raised.value.position == position
    assert str(raised.value) == f"{raised.value.message} (at character {position + 1})"


def test_reads_names_every_field() -> None:
    """``reads`` lists the fields of all parts, those inside ``has`` and macros included."""
    condition = compile_condition(
        "has(call.model) || account.owners.exists(x, x == account.organization)"
        " || false && network.asn in [call.choices]"
    )
    assert condition.reads == {
        *("call.model", "account.owners", "account.organization", "network.asn", "call.choices"),
    }


def test_equal_sources_are_equal_conditions() -> None:
    """Conditions compare by source, so two loads of the same rules are equal."""
    assert compile_condition("account.known") == compile_condition("account.known")
    assert compile_condition("account.known") != compile_condition("!account.known")
    assert repr(compile_condition("true")) == "Condition(source='true', reads=frozenset())"


def test_fields_and_closed_values_can_be_given() -> None:
    """A condition over other fields than a call's, of any depth, compiles the same way."""
    condition = compile_condition(
        "a.b.c == 'x'", {"a.b.c": FieldType.STRING}, {"a.b.c": frozenset({"x"})}
    )
    assert condition({"a.b.c": "x"}) is True
    with pytest.raises(ConditionError, match=re.escape("a.b is a group; choose one of a.b.c")):
        compile_condition("a.b == 'x'", {"a.b.c": FieldType.STRING})


def test_every_closed_field_is_a_string_field() -> None:
    """The closed fields are fields of the view, and their values are what enums say."""
    assert {FIELDS[name] for name in CLOSED} == {FieldType.STRING}
    assert "residential_proxy" in CLOSED["network.kind"]


def test_text_that_is_no_unicode_is_unknown_to_a_pattern() -> None:
    """A lone surrogate, as undecodable header bytes leave it, makes ``matches`` unknown."""
    assert compile_condition("call.client.matches('a')")({"call.client": "\udcff"}) is None


def test_pattern_is_searched_at_most_once_and_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A costly pattern waits for the cheap tests, and its answer is kept."""
    searched: list[bytes] = []

    class Pattern:
        def search(self, text: bytes) -> None:
            searched.append(text)

    monkeypatch.setattr("gatekeeper.policy.cel.check.re2.compile", lambda *_: Pattern())
    condition = compile_condition(
        "call.path.matches('x') && network.asn == 1 || call.path.matches('y') && account.known"
    )
    view: View = {"call.path": "p", "account.known": False, "network.asn": 2}
    assert condition(view) is False
    assert searched == []
    assert condition({**view, "network.asn": 1, "account.known": True}) is False
    assert searched == [b"p", b"p"]
    assert condition({**view, "network.asn": 1, "account.known": True}) is False
    assert searched == [b"p", b"p"]


def test_pattern_remembers_a_bounded_number_of_texts() -> None:
    """What callers choose cannot fill the memory: old answers go, and come back right."""
    condition = compile_condition("call.path.matches('7$')")
    for number in (*range(1_000), *range(1_000)):
        assert condition({"call.path": f"/{number}"}) is (number % 10 == 7)


def test_pattern_takes_linear_time() -> None:
    """A pattern that makes backtracking engines explode is harmless."""
    condition = compile_condition("call.path.matches('^(a+)+$')")
    assert condition({"call.path": "a" * 5_000 + "b"}) is False


def test_chains_are_long_but_nesting_is_not() -> None:
    """``||`` chains as far as the length cap lets it, brackets only to the stated depth."""
    assert compile_condition(" || ".join(["call.stream"] * 130))({"call.stream": False}) is False
    nested = "(" * (MAX_HEIGHT - 1) + "true" + ")" * (MAX_HEIGHT - 1)
    assert compile_condition(nested)({}) is True


def test_deepest_tree_still_compiles() -> None:
    """Code for the deepest tree the parser admits stays within Python's own nesting limits."""
    source = "account.known"
    for level in range(MAX_HEIGHT - 2):
        source = f"({source} {'&&' if level % 2 else '||'} call.stream)"
    assert compile_condition(source[1:-1])({"account.known": True, "call.stream": True}) is True
    choice = "true"
    for _ in range(MAX_HEIGHT - 4):
        choice = f"({choice}) ? !({UNKNOWN}) : call.stream"
    assert compile_condition(choice)({}) is None


INJECTIONS = [
    "'\\'); import os; (\\''",
    '\'"""\'',
    "'\\n    return True\\n'",
    "'{0} {1} {x}'",
    "'%s'",
    "r'\\\\'",
]


@pytest.mark.parametrize("literal", INJECTIONS)
def test_no_literal_becomes_code(literal: str) -> None:
    """A string that is Python in disguise, or a format field, stays a string."""
    source = (
        f"{literal} == call.model || call.model.startsWith({literal}) || call.model in [{literal}]"
    )
    condition = compile_condition(source)
    assert (
        condition({"call.model": "m"}) is False is evaluate_reference(source, {"call.model": "m"})
    )
    assert condition({}) is None


def test_python_names_are_out_of_reach() -> None:
    """The names that the generated code uses mean nothing to a source."""
    for name in ("view", "f0", "t1", "condition", "__builtins__", "__import__", "int64"):
        with pytest.raises(ConditionError, match="unknown field"):
            compile_condition(f"{name} == 1")
    with pytest.raises(ConditionError, match="unknown function"):
        compile_condition("__import__('os')")


WORDS = st.sampled_from(
    [
        *("network.asn", "network.kind", "network.listed_by", "account.known", "account.age_days"),
        *("network", "x", "true", "false", "null", "1", "0", "1.5", "'vpn'", '"', "'", "\\", "r'"),
        *("==", "!=", "<", "<=", ">", ">=", "&&", "||", "!", "?", ":", "-", "+", "*", "/", "%"),
        *("(", ")", "[", "]", ",", ".", "in", "has(", "size(", ".exists(x,", ".all(x,", "//"),
        *(".matches('a')", ".startsWith(", "\n", "\r", "\0", "\ud800", "9223372036854775807"),
    ]
)


def _survives(source: str) -> None:
    """Compile ``source`` and, if it is a condition, evaluate it, with the reference beside it."""
    try:
        condition = compile_condition(source)
    except ConditionError as error:
        assert 0 <= error.position <= len(source)  # noqa: PT017 - the error is an outcome here
        return
    for view in (VIEW, {}):
        assert condition(view) is evaluate_reference(source, view)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_condition_or_a_mistake(source: str) -> None:
    """No text raises anything but ConditionError."""
    _survives(source)


@settings(deadline=None)
@given(st.lists(WORDS, max_size=14).map(" ".join) | st.lists(WORDS, max_size=14).map("".join))
def test_any_words_are_a_condition_or_a_mistake(source: str) -> None:
    """Neither does any heap of CEL's own words, and what compiles means what CEL says."""
    _survives(source)


@settings(deadline=None)
@given(
    st.sampled_from([source for source, _ in MEANINGS]),
    st.integers(0, 80),
    st.integers(0, 3),
    WORDS | st.just(""),
)
def test_damaged_conditions_are_a_condition_or_a_mistake(
    source: str, at: int, cut: int, word: str
) -> None:
    """Neither does a good condition with a few characters replaced."""
    _survives(source[:at] + word + source[at + cut :])


def _signatures() -> list[str]:
    """Spell every operator and function as the tables of the documentation do."""

    def row(form: str, overloads: tuple[functions.Overload, ...]) -> str:
        takes = "; ".join(", ".join(overload.takes) for overload in overloads)
        gives = "; ".join(dict.fromkeys(str(overload.gives) for overload in overloads))
        return f"| `{form}` | {takes} | {gives} |"

    return [
        *(row(f"{name}a", overloads) for name, overloads in functions.UNARY.items()),
        *(row(f"a {name} b", overloads) for name, overloads in functions.BINARY.items()),
        *(
            row(f"a.{name}({'b' if len(overloads[0].takes) > 1 else ''})", overloads)
            for name, overloads in functions.METHODS.items()
        ),
        *(row(f"{name}(a)", overloads) for name, overloads in functions.FUNCTIONS.items()),
    ]


DOCUMENT = Path(__file__).parents[2] / "docs" / "conditions.md"


def test_document_lists_every_operator_and_function() -> None:
    """The tables of docs/conditions.md are those of the code, row by row."""
    rows = re.findall(r"^\| `[^`]*a[^`]*` \| .*$", DOCUMENT.read_text(), re.MULTILINE)
    assert [row for row in rows if row in _signatures()] == _signatures()
    for macro in functions.MACROS:
        assert f"`list.{macro}(x, test)`" in DOCUMENT.read_text()


def test_document_lists_every_field() -> None:
    """So are its fields, their types and the values of closed ones."""
    rows = re.findall(r"^\| `(\w+\.\w+)` \| (\S+) \| (.*) \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert {name: kind for name, kind, _ in rows} == FIELDS
    for name, _, note in rows:
        assert set(re.findall(r"`(\w+)`", note)) == set(CLOSED.get(name, ()))


def test_document_examples_hold() -> None:
    """Each example of the document compiles; those with an outcome for no facts have it."""
    text = DOCUMENT.read_text()
    examples = re.findall(r"```cel\n(.*?)```", text, re.DOTALL)
    assert len(examples) >= 5
    for example in examples:
        compile_condition(example)
    for source, outcome in re.findall(
        r"^\| `([^`]+)` \| (true|false|unknown) \|$", text, re.MULTILINE
    ):
        expected = {"true": True, "false": False, "unknown": None}[outcome]
        assert compile_condition(source)({}) is expected
