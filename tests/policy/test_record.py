"""Records: any decision replays from its line, and a damaged line is told, never raised."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from support.builders import (
    AT,
    account,
    call,
    default_pack,
    facts,
    limit_status,
    rules,
)
from support.strategies import some_facts, some_limits, some_rules

from gatekeeper.facts.address import parse_address
from gatekeeper.facts.credentials import Authenticator
from gatekeeper.facts.directory import Directory
from gatekeeper.facts.network import NetworkData
from gatekeeper.policy.decide import conclude, judge, outright, stops
from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.model import FOREVER, Decision, Facts, LimitStatus, Standing
from gatekeeper.policy.record import Recorded, from_record, to_record
from gatekeeper.policy.rules import parse_rules
from gatekeeper.policy.words import CredentialKind, GateMode, Reason, Verdict
from gatekeeper.storage.decision_log import encode_record

if TYPE_CHECKING:
    from gatekeeper.policy.ruleset import RuleSet

INF = float("inf")
PACK = default_pack()
ASKING = rules("step_up: [{id: s, description: d, when: 'true'}]")


def decided(
    known: Facts,
    some: RuleSet,
    limits: tuple[LimitStatus, ...] = (),
    *,
    mode: GateMode = GateMode.ENFORCE,
    standing: Standing | None = None,
) -> Decision:
    """Decide as the gate does: limits are asked only of what goes on."""
    stood = judge(known, some, mode=mode) if standing is None else standing
    asked = () if stops(stood, mode=mode) else limits
    return conclude(stood, asked, some, decision_id="dec_1", at=known.at, mode=mode)


def written(
    decision: Decision, known: Facts, *, mode: GateMode = GateMode.ENFORCE
) -> dict[str, Any]:
    """Return the record as a reader of the log gets it."""
    line: dict[str, Any] = json.loads(encode_record(to_record(decision, known, mode=mode)))
    return line


def read_back(record: dict[str, Any]) -> Recorded:
    """Read a record that is whole."""
    recorded = from_record(record)
    assert isinstance(recorded, Recorded), recorded
    return recorded


@settings(max_examples=100, deadline=None)
@given(known=some_facts(), some=some_rules(), limits=some_limits(), mode=st.sampled_from(GateMode))
def test_replay_gives_the_same_decision(
    known: Facts, some: RuleSet, limits: tuple[LimitStatus, ...], *, mode: GateMode
) -> None:
    """Of any facts, rules and answers of limits, everything in the decision comes back."""
    decision = decided(known, some, limits, mode=mode)
    recorded = read_back(written(decision, known, mode=mode))
    assert recorded.replay(some) == decision
    assert (recorded.verdict, recorded.rules_revision) == (decision.verdict, some.revision)


@settings(max_examples=40, deadline=None)
@given(known=some_facts(), reason=st.sampled_from(Reason), mode=st.sampled_from(GateMode))
def test_replay_of_calls_that_could_not_be_judged(
    known: Facts, reason: Reason, *, mode: GateMode
) -> None:
    """A malformed call stays malformed, whatever the rules say of its facts."""
    standing = outright(reason, "A sentence.")
    decision = decided(known, ASKING, mode=mode, standing=standing)
    assert read_back(written(decision, known, mode=mode)).replay(ASKING) == decision


@pytest.mark.parametrize("until", [FOREVER, INF, AT + 1])
def test_ban_without_end_survives(until: float) -> None:
    """JSON has no infinity; the ban must not be lifted by being written down."""
    known = facts(who=account(banned_until=until))
    decision = decided(known, rules())
    again = read_back(written(decision, known)).replay(rules())
    assert again.verdict is Verdict.DENY
    assert again == decision


def test_claim_that_never_fits_survives() -> None:
    """An infinite wait is ``null`` on disk and infinite again when read."""
    decision = decided(facts(), rules(), (limit_status(retry_after_s=INF),))
    record = written(decision, facts())
    assert record["limits"][0]["retry_after_s"] is None
    again = read_back(record).replay(rules())
    assert again.reason is Reason.REQUEST_EXCEEDS_LIMIT
    assert again.limits == decision.limits


def test_h38_names_that_no_encoding_allows_survive() -> None:
    """Callers choose the model's name: control characters and lone surrogates among them."""
    known = facts(what=call(model='a\n"\x1b[31m\u2028\ud800'))
    decision = decided(known, rules())
    line = encode_record(to_record(decision, known, mode=GateMode.ENFORCE))
    assert line.count(b"\n") == 1
    assert b"\x1b" not in line
    assert read_back(json.loads(line)).facts == known


def test_other_rules_may_say_otherwise() -> None:
    """Replaying by rules of another day answers "what would happen now"."""
    record = written(decided(facts(), rules()), facts())
    assert read_back(record).replay(rules()).verdict is Verdict.ALLOW
    assert read_back(record).replay(ASKING).verdict is Verdict.STEP_UP


@pytest.mark.parametrize("name", ["request", "private", "credential", "ban"])
def test_no_rule_can_pass_for_the_gates_own(name: str) -> None:
    """A rule named ``request`` would make its records read as malformed calls."""
    text = f"version: 1\nstep_up: [{{id: {name}, description: d, when: 'true'}}]\n...\n"
    mistakes = parse_rules({"rules.yaml": text})
    assert isinstance(mistakes, list)
    assert any(isinstance(m, Mistake) and "Gatekeeper calls" in m.message for m in mistakes)


def test_record_holds_no_address_and_no_secret() -> None:
    """What identifies a caller is cut or digested before it becomes a fact."""
    network = NetworkData([], [], secret=b"network-secret")
    nobody = Directory(cast("Any", None), mail_listed_by=lambda _: ())
    address = parse_address("203.0.113.77")
    assert address is not None
    key, who = Authenticator(nobody, subkey=b"key-secret").identify(
        CIMultiDict({"authorization": "Bearer sk-live-of-the-caller"}), {CredentialKind.OPAQUE}, AT
    )
    known = facts(where=network.observe(address), key=key, who=who)
    line = encode_record(to_record(decided(known, PACK), known, mode=GateMode.ENFORCE))
    assert b"203.0.113.0/24" in line
    for hidden in (b"203.0.113.77", b"cb00714d", b"-secret", b"sk-live", b"of-the-caller"):
        assert hidden not in line


# --- damaged records ----------------------------------------------------------------------------

WHOLE = written(
    decided(
        facts(), ASKING, (limit_status(), limit_status(retry_after_s=INF)), mode=GateMode.OBSERVE
    ),
    facts(),
    mode=GateMode.OBSERVE,
)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"kind": "usage"},
        {"kind": "decision"},
        {**WHOLE, "verdict": "maybe"},
        {**WHOLE, "verdict": 3},
        {**WHOLE, "limits": None},
        {**WHOLE, "limits": [1]},
        {**WHOLE, "findings": [{"rule": "request", "reason": None}]},
        {**WHOLE, "facts": {}},
        {**WHOLE, "observe": "no"},
        {**WHOLE, "rules_revision": None},
        {**WHOLE, "verdict": "x" * 10_000},
        ["decision"],
        None,
    ],
)
def test_damage_is_a_short_sentence(record: Any) -> None:
    """Whoever reads the log is told what is wrong."""
    said = from_record(record)
    assert isinstance(said, str)
    assert len(said) < 300


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.just(10**400)
    | st.sampled_from(("", "request", "decision", "tor", "\ud800")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the way to everything in a record."""
    below: list[tuple[Any, ...]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        below.append((*path, key))
        if isinstance(item, (dict, list)):
            below += paths(item, (*path, key))
    return below


PATHS = paths(WHOLE)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(path=st.sampled_from(PATHS), value=JSON | st.just(msgspec.UNSET))
@example(path=("facts", "at"), value=float("nan"))
@example(path=("facts", "account", "created_at"), value=-1e308)
@example(path=("facts", "call", "input_tokens"), value=10**30)
@example(path=("limits", 0, "retry_after_s"), value="soon")
def test_any_damage_is_a_sentence(path: tuple[Any, ...], value: Any) -> None:
    """One value lost or replaced: a sentence or a record that replays, never an exception."""
    record = copy.deepcopy(WHOLE)
    holder: Any = record
    for key in path[:-1]:
        holder = holder[key]
    if value is msgspec.UNSET:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    recorded = from_record(record)
    if isinstance(recorded, str):
        assert recorded.startswith("The record is ")
    else:
        assert isinstance(recorded.replay(ASKING), Decision)
        assert isinstance(recorded.replay(PACK), Decision)
