"""The statements stay such as other engines can run."""

from __future__ import annotations

import re

import pytest

from gatekeeper.campaigns import queries

FORBIDDEN = (
    (r"::", "a cast of one engine"),
    (r"\[|\]|\bUNNEST\b|\bLIST\w*\(", "an array, counted from 0 here and from 1 there"),
    (r"\bQUALIFY\b|\bASOF\b|\bPIVOT\b|\bSAMPLE\b|\bEXCLUDE\b|\bCOLUMNS\(", "a clause of few"),
    (r"\bARG_M\w+|\bANY_VALUE\b|\bFIRST\(|\bHASH\(|\bXOR\(|\bQUANTILE\w*|\bMEDIAN\b", "a function"),
    (r"\bGROUP BY ALL\b|\bORDER BY ALL\b|\bFILTER\s*\(|\bIFNULL\b|\bILIKE\b", "a short form"),
    (r"\bread_parquet\b|\bCOPY\b|\bPRAGMA\b|\bSET\b", "the place of the data"),
    (r"\bHUGEINT\b|\bUBIGINT\b|\bSTRUCT\b|\bMAP\b", "a type"),
    (r"<<|>>|\^|&(?!&)|//", "an operator"),
)


def test_every_statement_is_listed() -> None:
    """STATEMENTS leaves none of the module's out."""
    named = {
        name for name, value in vars(queries).items() if name.isupper() and isinstance(value, str)
    }
    assert {getattr(queries, name) for name in named} == set(queries.STATEMENTS)


@pytest.mark.parametrize("statement", queries.STATEMENTS, ids=lambda each: each.split()[-3])
@pytest.mark.parametrize(("construct", "why"), FORBIDDEN, ids=[why for _, why in FORBIDDEN])
def test_no_statement_needs_one_engine(statement: str, construct: str, why: str) -> None:
    """Nothing of the list of what engines do not share."""
    assert not re.search(construct, statement, re.IGNORECASE), why
