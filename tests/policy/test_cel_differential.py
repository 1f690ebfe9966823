"""Random well-typed conditions over random facts mean what Google's CEL says they mean."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.reference_cel import evaluate_reference

from gatekeeper.policy.cel.check import MAX_LOOPS
from gatekeeper.policy.cel.functions import MACROS, METHODS, ORDERINGS
from gatekeeper.policy.conditions import compile_condition
from gatekeeper.policy.view import FIELDS, FieldType

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

BOOL, INT, DOUBLE = FieldType.BOOL, FieldType.INT, FieldType.DOUBLE
STRING, STRINGS = FieldType.STRING, FieldType.STRINGS

INTS = st.sampled_from([0, 1, -1, 2, 3, -7, 10, 2**31, 2**53 + 1, 2**62, 2**63 - 1, -(2**63)])
DOUBLES = st.sampled_from(
    [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 3.75, -7.5, 2.0**53, 2.0**63, -(2.0**63), 1e300, 5e-324]
)
STRINGS_OF = st.sampled_from(
    ["", "a", "ab", "b", "Z", "vpn", "é", "e\u0301", "\U0001f600", "\uffff", "'", '"', "\\", "a\nb"]
)
VALUES: dict[FieldType, SearchStrategy[bool | float | str | tuple[str, ...]]] = {
    BOOL: st.booleans(),
    INT: INTS,
    DOUBLE: DOUBLES | st.sampled_from([math.inf, -math.inf, math.nan]),
    STRING: STRINGS_OF,
    STRINGS: st.lists(STRINGS_OF, max_size=3).map(tuple),
}
READ = {
    BOOL: ["account.known", "call.stream"],
    INT: ["network.asn", "call.choices", "call.body_bytes"],
    DOUBLE: ["account.age_days", "call.cost_cents"],
    STRING: ["network.country", "network.kind", "call.model"],
    STRINGS: ["network.listed_by", "account.owners"],
}
"""A few fields of each type, so that one condition reads the same field several times."""

VIEWS = st.fixed_dictionaries(
    {}, optional={name: VALUES[FIELDS[name]] for names in READ.values() for name in names}
)
PATTERNS = ["^a", "b$", "(?i)VPN|z", ".", "^.$", "[^a-z]", "^(a+)+$", "\\\\pL", "(?s)^a.b$"]


SCALARS = (BOOL, INT, DOUBLE, STRING)

FORMS: dict[FieldType, list[str]] = {
    BOOL: [
        *("<leaf>", "has(<field>)", "<bool> ? <bool> : <bool>", "!<bool>", "!!<bool>", "!!!<bool>"),
        *("<bool> && <bool>", "<bool> && <bool> && <bool>", "<bool> && <bool> || <bool>"),
        *("<bool> || <bool>", "<bool> || <bool> || <bool>", "<bool> || <bool> && <bool>"),
        *(f"<{kind}> {operator} <{kind}>" for kind in SCALARS for operator in ("==", "!=")),
        *(f"<{kind}> {operator} <{kind}>" for kind in SCALARS for operator in ORDERINGS),
        *(f"<int> {operator} <double>" for operator in ORDERINGS),
        *(f"<double> {operator} <int>" for operator in ORDERINGS),
        *(f"<{kind}> in [<{kind} literal>, <{kind} literal>]" for kind in SCALARS),
        *(f"<{kind}> in [<{kind} literal>, <{kind}>]" for kind in SCALARS),
        *("<string> in []", "<string> in <list(string)>", "<string>.matches('<pattern>')"),
        *(f"<string>.{name}(<string>)" for name in METHODS if name != "size"),
        *(f"<list(string)>.{name}(VARIABLE, <bool>)" for name in MACROS),
    ],
    INT: [
        *("<leaf>", "<bool> ? <int> : <int>", "-<int>", "--<int>", "int(<double>)", "int(<int>)"),
        *(f"<int> {operator} <int>" for operator in "+-*/%"),
        *("size(<string>)", "<string>.size()", "size(<list(string)>)", "<list(string)>.size()"),
    ],
    DOUBLE: [
        *("<leaf>", "<bool> ? <double> : <double>", "-<double>", "--<double>"),
        *(f"<double> {operator} <double>" for operator in "+-*/"),
        *("double(<int>)", "double(<double>)"),
    ],
    STRING: ["<leaf>", "<bool> ? <string> : <string>", "<string> + <string>"],
    STRINGS: ["<leaf>", "<bool> ? <list(string)> : <list(string)>"],
}


def _literal(draw: DrawFn, kind: str) -> str:
    if kind == BOOL:
        return draw(st.sampled_from(["true", "false"]))
    if kind == INT:
        return str(draw(INTS))
    if kind == DOUBLE:
        return repr(draw(DOUBLES))
    text = draw(STRINGS_OF).replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{text}'"


def _leaf(draw: DrawFn, kind: FieldType, variables: tuple[str, ...]) -> str:
    if kind is STRING and variables and draw(st.booleans()):
        return draw(st.sampled_from(variables))
    if kind is STRINGS or draw(st.booleans()):
        return draw(st.sampled_from(READ[kind]))
    return _literal(draw, kind)


@st.composite
def expressions(draw: DrawFn, kind: FieldType, depth: int, variables: tuple[str, ...] = ()) -> str:
    """Draw the source of an expression of type ``kind``, every part of it in brackets."""
    form = "<leaf>" if depth == 0 else draw(st.sampled_from(FORMS[kind]))
    if "VARIABLE" in form:
        if len(variables) == MAX_LOOPS:
            return "true"
        variables = (*variables, f"v{len(variables)}")
        form = form.replace("VARIABLE", variables[-1])

    def fill(place: re.Match[str]) -> str:
        match place[1]:
            case "leaf":
                return _leaf(draw, kind, variables)
            case "field":
                return draw(st.sampled_from([name for names in READ.values() for name in names]))
            case "pattern":
                return draw(st.sampled_from(PATTERNS))
            case wanted if wanted.endswith(" literal"):
                return _literal(draw, wanted.removesuffix(" literal"))
            case wanted:
                # a list cannot see the variable of the macro that is called on it
                inside = variables if wanted != STRINGS else ()
                return f"({draw(expressions(FieldType(wanted), depth - 1, inside))})"

    return re.sub(r"<([a-z][^<>]*)>", fill, form)


UNHURRIED = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@UNHURRIED
@given(expressions(BOOL, 3), st.lists(VIEWS, min_size=4, max_size=4))
def test_conditions_agree_with_the_reference(source: str, views: list[dict[str, object]]) -> None:
    """True, false and unknown alike are those of Google's CEL, whatever facts are absent."""
    condition = compile_condition(source, closed={})
    for view in (*views, {}):
        assert condition(view) is evaluate_reference(source, view), source


@UNHURRIED
@given(expressions(BOOL, 2), VIEWS, st.sampled_from(list(FIELDS)))
def test_learning_a_fact_never_turns_an_answer_around(
    source: str, view: dict[str, object], forgotten: str
) -> None:
    """Without ``has``, an absent fact may make a condition unknown but never flips it."""
    condition = compile_condition(re.sub(r"has\([a-z_.]+\)", "true", source), closed={})
    full = condition(view)
    partial = condition({name: value for name, value in view.items() if name != forgotten})
    assert partial is None or partial is full
