"""Capability classes: told by the call, read by every other rule."""

from __future__ import annotations

from support.builders import account, call, facts, rules

from gatekeeper.policy.capabilities import classified
from gatekeeper.policy.decide import judge
from gatekeeper.policy.limit_plan import LimitPlanner
from gatekeeper.policy.model import Standing
from gatekeeper.policy.view import view_of
from gatekeeper.policy.words import Verdict

CLASSES = """
capabilities:
  - {id: reasoning, description: R., when: '"reasoning" in call.asks'}
  - {id: long, description: L., when: call.input_tokens > 1000}
  - {id: named, description: N., when: call.model.startsWith("gpt")}
"""


def test_a_call_is_of_each_class_whose_condition_holds() -> None:
    """In the order of the rules; what is unknown puts it into none."""
    some = rules(CLASSES)
    asked = facts(what=call(asks=("code", "reasoning"), input_tokens=2_000, model=None))
    assert classified(asked, some).call.capabilities == ("reasoning", "long")


def test_without_a_class_nothing_changes() -> None:
    """Nor does it where the classes are known already, as in a record."""
    plain = facts(what=call(model=None, input_tokens=5))
    assert classified(plain, rules(CLASSES)) is plain
    assert classified(plain, rules()) is plain
    recorded = facts(what=call(asks=("reasoning",), capabilities=("of-old",)))
    assert classified(recorded, rules(CLASSES)) is recorded


def test_classes_can_be_limited_and_scored_like_anything_else() -> None:
    """A limit, a signal and a threshold go by them."""
    some = rules(
        CLASSES
        + """
signals:
  - {id: thinks, description: T., when: '"reasoning" in call.capabilities', points: 100}
thresholds:
  - {id: refuse, description: R., at_least: 100, verdict: deny}
limits:
  - {id: a-day, description: D., unit: requests, per: [account], rate: 5/day,
     when: '"reasoning" in call.capabilities'}
"""
    )
    thinking = facts(what=call(asks=("reasoning",)), who=account(id="a"))
    assert judge(thinking, some).verdict is Verdict.DENY
    assert judge(facts(), some).verdict is Verdict.ALLOW
    planner = LimitPlanner(some)
    for known, count in ((classified(thinking, some), 1), (facts(), 0)):
        assert len(planner.claims(known, Standing(), view_of(known))) == count
