"""`gatekeeper explain` for described requests; recorded ones are in tests/e2e."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., Any]


def test_an_ordinary_caller_passes(run: Run) -> None:
    """Without flags an ordinary caller is explained, limits included."""
    told = run("explain").stdout
    assert "Verdict: allow" in told
    assert "requests-standard" in told
    assert "│ 199 " in told


def test_a_described_request(run: Run) -> None:
    """`--set` changes facts; score, findings and what is needed are shown."""
    told = run("explain", "--set", "network.kind=tor", "--set", "account.age_days=0.5").stdout
    assert "Score 85 (with shadow rules 85)" in told
    assert "identity_verification_required" in told  # in one piece, however long
    assert "Verdict: step_up" in told
    assert "Needs: ial1 (by score-step-up)" in told


def test_what_is_shaped_is_told(run: Run) -> None:
    """In one line, with the rules that ask for it; nothing is said of who is not shaped."""
    told = run("explain", "--set", "network.kind=tor", "--set", "call.logprobs=true").stdout
    assert "Shaping: logprobs round decimals 2 (by score-rounds-logprobs)" in told
    assert "Shaping" not in run("explain").stdout


def test_types_of_fields(run: Run) -> None:
    """Numbers, booleans, lists and absence are read as the field wants."""
    told = run(
        "explain", "--json",
        "--set", "account.known=false",
        "--set", "network.listed_by=a,b,c",
        "--set", "call.choices=8",
        "--set", "call.client=null",
        "--set", "call.cost_cents=12.5",
    )  # fmt: skip
    record = json.loads(told.stdout)
    facts = record["facts"]
    assert not facts["account"].get("known", False)
    assert facts["network"]["listed_by"] == ["a", "b", "c"]
    assert (facts["call"]["choices"], facts["call"].get("client")) == (8, None)
    assert {each["signal"] for each in record["score"]["contributions"]} >= {
        "account-unknown", "network-on-many-lists", "call-many-choices", "call-without-client",
    }  # fmt: skip


def test_an_address_is_looked_up(run: Run) -> None:
    """`--address` takes the network's facts from the data in use."""
    record = json.loads(run("explain", "--address", "47.74.0.1", "--json").stdout)
    assert record["verdict"] == "embargoed"
    assert record["facts"]["network"]["owner"] == "alibaba"
    assert "47.74.0.1" not in json.dumps(record)


def test_what_never_fits_is_said(run: Run) -> None:
    """A call beyond a whole burst is told apart from one that has to wait."""
    told = run("explain", "--set", "call.input_tokens=900000", "--set", "account.tier=elevated")
    assert "request_exceeds_limit" in told.stdout


def test_mistakes_are_told_together(run: Run) -> None:
    """Unknown fields and wrong values come in one run, with the nearest name."""
    told = run("explain", "--set", "network.knd=tor", "--set", "account.age_days=x", code=2).stderr
    assert "did you mean `network.kind`?" in told
    assert "`account.age_days` must be a number" in told
    assert "not FIELD=VALUE" in run("explain", "--set", "network.kind", code=2).stderr
    assert "not an IPv4 or IPv6" in run("explain", "--address", "1.2.3", code=2).stderr
    assert "leave --set" in run("explain", "dec_1", "--set", "call.choices=2", code=2).stderr


def test_a_decision_that_is_not_there(run: Run) -> None:
    """An id that no record has ends with 1."""
    assert "no decision dec_0" in run("explain", "dec_0", code=1).stderr
