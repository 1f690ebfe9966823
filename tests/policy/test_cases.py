"""Cases: how they are read, what facts they mean, and what a failed one says."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.lookups import status

from gatekeeper.policy.case_facts import DEFAULTS, REQUEST_FIELDS, facts_of
from gatekeeper.policy.cases import Case, coverage, parse_cases, run_case
from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.model import Facts
from gatekeeper.policy.rules import parse_rules
from gatekeeper.policy.ruleset import RuleSet
from gatekeeper.policy.view import FIELDS, view_of
from gatekeeper.policy.words import LookupStatus, NetworkKind, Reason, Verdict

RULES = """
version: 1
embargo:
  - {id: cuba, description: Cuba, countries: [CU], source: 31 CFR 515}
signals:
  - {id: tor, description: Tor, when: network.kind == "tor", points: 40}
  - {id: vpn, description: VPN, mode: shadow, when: network.kind == "vpn", points: 200}
thresholds:
  - {id: refuse, description: Refuse, at_least: 100, verdict: deny}
tiers:
  - {id: tier-trusted, description: T, tier: trusted, models: ["*"]}
  - {id: tier-standard, description: S, tier: standard, models: ["gpt-*"]}
  - {id: tier-elevated, description: E, tier: elevated, models: ["*"]}
  - {id: tier-restricted, description: R, tier: restricted, models: ["*"]}
limits:
  - {id: requests, description: L, unit: requests, per: [account], rate: 1/day}
step_up:
  - {id: ask, description: Ask, when: network.country == "FR"}
exemptions:
  - id: lab
    description: Lab
    when: account.organization == "lab"
    rules: [ask]
    reason: tests
    expires: 2027-01-01
models:
  - model: "*"
    input_cents_per_million: 1
    output_cents_per_million: 1
    max_output_tokens: 1
...
"""


@pytest.fixture
def rules() -> RuleSet:
    """Give a small rule set."""
    parsed = parse_rules({"f.yaml": RULES})
    assert isinstance(parsed, RuleSet), parsed
    return parsed


def cases_of(*items: Any) -> tuple[Case, ...]:
    """Parse cases that must be right."""
    cases = parse_cases({"c.yaml": json.dumps(items, indent=1) + "\n...\n"})
    assert isinstance(cases, tuple), cases
    return cases


def facts(**fields: Any) -> Facts:
    """Describe facts; ``__`` stands for the dot."""
    described = facts_of({name.replace("__", "."): value for name, value in fields.items()})
    assert isinstance(described, Facts), described
    return described


def problems(**fields: Any) -> list[tuple[str, str]]:
    """Describe facts that must be wrong."""
    found = facts_of({name.replace("__", "."): value for name, value in fields.items()})
    assert isinstance(found, list)
    return [(mistake.path, mistake.message) for mistake in found]


def test_passed_case(rules: RuleSet) -> None:
    """What a case wants and gets is told with the rules that matched."""
    (case,) = cases_of(
        {
            "name": "an old account over Tor",
            "request": {"network.kind": "tor"},
            "want": {
                "verdict": "allow",
                "score": 40,
                "shadow_verdict": "allow",
                "rules": ["tor", "tier-standard"],
            },
        }
    )
    result = run_case(case, rules)
    assert result.passed
    assert result.matched == {"tor", "tier-standard"}
    assert (case.file, case.line, case.name) == ("c.yaml", 2, "an old account over Tor")
    assert result.standing.verdict is Verdict.ALLOW


def test_differences_are_sentences(rules: RuleSet) -> None:
    """Everything that is not as wanted is told, not only the first."""
    (case,) = cases_of(
        {
            "name": "x",
            "request": {"network.kind": "vpn"},
            "want": {
                "verdict": "deny",
                "reason": "request_denied",
                "score": 3,
                "shadow_verdict": "step_up",
                "rules": ["tor", "requests", "toor"],
            },
        }
    )
    assert run_case(case, rules).differences == (
        "The verdict is `allow`, wanted was `deny`.",
        "The reason is `none`, wanted was `request_denied`.",
        "The score is 0, wanted was 3.",
        "The shadow verdict is `deny`, wanted was `step_up`.",
        "The rule `tor` did not match.",
        "The rule `requests` did not match.",
        "There is no rule `toor`; did you mean `tor`?",
    )


def test_score_is_not_computed_for_what_is_refused_before(rules: RuleSet) -> None:
    """An embargo ends the matter: no score, and no tier."""
    (case,) = cases_of(
        {
            "name": "x",
            "request": {"network.country": "CU"},
            "want": {"verdict": "embargoed", "reason": "invalid_path", "score": 1},
        }
    )
    result = run_case(case, rules)
    assert result.matched == {"cuba"}
    assert result.differences == (
        "The reason is `region_not_supported`, wanted was `invalid_path`.",
        "The score is not computed, wanted was 1.",
    )


def test_coverage_names_what_no_case_reaches(rules: RuleSet) -> None:
    """Rules in shadow and exemptions count as matched when their conditions hold."""
    cases = cases_of(
        {"name": "1", "request": {"network.country": "CU"}, "want": {"verdict": "embargoed"}},
        {"name": "2", "request": {"network.kind": "vpn"}, "want": {"verdict": "allow"}},
        {
            "name": "3",
            "request": {"network.country": "FR", "account.organization": "lab"},
            "want": {"verdict": "allow", "rules": ["lab"]},
        },
        {
            "name": "4",
            "request": {"account.organization": "lab", "at": "2028-01-01"},
            "want": {"verdict": "allow"},
        },
    )
    results = [run_case(case, rules) for case in cases]
    assert all(result.passed for result in results)
    assert "lab" not in results[3].matched
    assert coverage(results, rules) == [
        "tor",
        "tier-trusted",
        "tier-elevated",
        "tier-restricted",
        "ask",
    ]
    assert "cuba" in coverage([], rules)


@pytest.mark.parametrize(
    ("item", "path", "words"),
    [
        ({"name": "x"}, "[0].want", "`want` is missing"),
        ({"name": "x", "want": {"verdict": "embargod"}}, "[0].want.verdict", "mean `embargoed`"),
        ({"name": "x", "want": {"verdict": None}}, "[0].want.verdict", "no value"),
        ({"name": "x", "request": None, "want": {"verdict": "deny"}}, "[0].request", "no value"),
        ({"name": " ", "want": {"verdict": "deny"}}, "[0].name", "blank"),
        ({"name": "x", "wants": {}, "want": {"verdict": "deny"}}, "[0].wants", "mean `want`"),
        ({"want": {"verdict": "deny", "shadow": 1}}, "[0].want.shadow", "shadow_verdict"),
        (
            {"name": "x", "request": {"network.contry": "CU"}, "want": {"verdict": "deny"}},
            "[0].request.network.contry",
            "did you mean `network.country`?",
        ),
        ("x", "[0]", "must be a mapping"),
    ],
)
def test_mistakes(item: Any, path: str, words: str) -> None:
    """A mistake in a case is told with its file, line and place."""
    mistakes = parse_cases({"c.yaml": json.dumps([item], indent=1) + "\n...\n"})
    assert isinstance(mistakes, list)
    (found,) = [mistake for mistake in mistakes if mistake.path == path]
    assert words in found.message
    assert found.file == "c.yaml"
    assert found.line


def test_all_mistakes_of_all_files_at_once() -> None:
    """One file that cannot be read does not hide what is wrong in another."""
    mistakes = parse_cases({"a.yaml": "- [", "b.yaml": "[]", "c.yaml": "{}\n...\n"})
    assert isinstance(mistakes, list)
    assert [mistake.file for mistake in mistakes] == ["a.yaml", "b.yaml", "c.yaml"]


def test_names_are_unique() -> None:
    """A name stands once, over all files, so that a failure can be found."""
    text = '[{"name": "x", "want": {"verdict": "allow"}}]\n...\n'
    mistakes = parse_cases({"a.yaml": text, "b.yaml": text})
    assert mistakes == [
        Mistake("b.yaml", 1, "[0].name", "The name `x` stands twice; the first is in a.yaml:1.")
    ]


def test_no_cases_are_no_mistake() -> None:
    """A directory without cases has none."""
    assert parse_cases({}) == ()


def test_ordinary_caller() -> None:
    """Without fields it is an ordinary caller, of whom every common fact is known."""
    view = view_of(facts())
    assert view["network.country"] == view["network.registered_country"] == "US"
    assert view["account.age_days"] == 400
    absent = {"network.subdivision", "network.owner", "network.owner_country"}
    absent |= {"network.registered_egress", "account.organization", "campaign.id"}
    assert set(FIELDS) - set(view) == absent
    assert status(facts().network, "subdivision") is LookupStatus.UNKNOWN


def test_every_field_can_be_described() -> None:
    """A view made from a described view is the same view."""
    full: dict[str, Any] = {
        **DEFAULTS,
        "network.subdivision": "US-CA",
        "network.owner": "amazon",
        "network.owner_country": "US",
        "network.listed_by": ["a", "b"],
        "network.registered_egress": False,
        "account.organization": "org",
        "account.owners": ["owner"],
        "account.owner_countries": ["DE"],
        "call.capabilities": ["agentic"],
        "campaign.id": "cmp_0123456789ab",
        "campaign.stage": "probe",
        "campaign.score": 80.0,
        "campaign.layers": ["address", "scaffold"],
        "campaign.inherited": True,
        "campaign.probed": True,
    }
    described = facts_of(full)
    assert isinstance(described, Facts)
    view = view_of(described)
    assert set(view) == set(FIELDS)
    for name, value in view.items():
        assert (list(value) if isinstance(value, tuple) else value) == full[name]


def test_miss_and_unknown_are_two_things() -> None:
    """``null`` found nothing, ``unknown`` could not be asked; both leave the field absent."""
    miss = facts(network__country=None, network__asn=None).network
    assert (miss.country, status(miss, "country")) == (None, LookupStatus.MISS)
    assert (miss.asn, miss.as_organization, status(miss, "asn")) == (None, None, LookupStatus.MISS)
    unknown = facts(
        network__country="unknown",
        network__kind="unknown",
        network__listed_by="unknown",
        account__age_days="unknown",
    )
    assert unknown.network.country is None
    assert unknown.network.registered_country == "US"
    assert unknown.network.kind is NetworkKind.UNKNOWN
    assert unknown.network.listed_by == ()
    assert unknown.account.created_at is None
    for view in ("country", "kind", "lists"):
        assert status(unknown.network, view) is LookupStatus.UNKNOWN
    assert status(facts(network__subdivision=None).network, "subdivision") is LookupStatus.MISS


def test_defaults_follow_what_is_given() -> None:
    """A caller elsewhere is registered there, and an account nobody knows has no age."""
    assert facts(network__country="FR").network.registered_country == "FR"
    abroad = facts(network__country="FR", network__registered_country="DE").network
    assert abroad.registered_country == "DE"
    assert facts(network__asn=1).network.as_organization is None
    assert facts(account__known=False).account.created_at is None
    assert facts(account__known=False, account__age_days=1).account.created_at is not None


def test_time_and_bans() -> None:
    """Ages count back from the time of the call, and bans end at a date or never."""
    then = facts(at="2025-01-02T00:00:00+00:00", account__age_days=1)
    assert then.account.created_at == 1735689600.0
    assert facts(account__banned_until="forever").account.banned_until == math.inf
    assert facts(account__banned_until="2025-01-01").account.banned_until == 1735689600.0
    assert facts(account__status="unknown").account.status is LookupStatus.UNKNOWN


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("network.contry", "CU", "did you mean `network.country`?"),
        ("zzz", 1, "`zzz` is not a field."),
        ("network.country", "Cuba", "not an ISO 3166-1"),
        ("network.country", 7, "must be text"),
        ("network.subdivision", "UA", "not an ISO 3166-2"),
        ("network.kind", "darknet", "must be one of `residential`"),
        ("network.kind", None, "must be one of"),
        ("network.asn", -1, "a whole number from 0"),
        ("network.asn", True, "a whole number"),
        ("network.listed_by", "tor", "a list of texts"),
        ("network.listed_by", [1], "a list of texts"),
        ("account.age_days", "old", "a number"),
        ("account.age_days", False, "a number"),
        ("account.age_days", math.inf, "finite"),
        ("account.age_days", math.nan, "finite"),
        ("network.asn", 2**63, "below 2**63"),
        ("account.known", "unknown", "`true` or `false`"),
        ("account.banned_until", "soon", "not a date"),
        ("at", "now", "not a date"),
        ("call.method", None, "must be text"),
    ],
)
def test_problems_of_fields(field: str, value: Any, words: str) -> None:
    """A field that cannot be meant is told by name."""
    ((path, message),) = problems(**{field: value})
    assert path == field
    assert words in message


@given(
    st.dictionaries(
        st.sampled_from(sorted(REQUEST_FIELDS)),
        st.none()
        | st.booleans()
        | st.integers(-5, 2**63)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.sampled_from(
            ["unknown", "US", "tor", "hit", "forever", "2025-01-01", "", "0000-01-01"]
        )
        | st.lists(st.text(max_size=3), max_size=2),
    )
)
def test_any_fields_are_facts_or_problems(fields: dict[str, Any]) -> None:
    """No description raises anything, and all facts have a view."""
    described = facts_of(fields)
    if isinstance(described, Facts):
        assert view_of(described).keys() <= FIELDS.keys()
    else:
        assert described


@given(st.text(max_size=100))
def test_any_text_is_cases_or_mistakes(text: str) -> None:
    """No text raises anything."""
    assert isinstance(parse_cases({"c.yaml": text}), list)


def test_reasons_are_those_of_the_model(rules: RuleSet) -> None:
    """A wanted reason is a code of the closed list."""
    (case,) = cases_of(
        {
            "name": "x",
            "request": {"call.model": "claude-1"},
            "want": {"verdict": "deny", "reason": "model_not_permitted"},
        }
    )
    assert case.want.reason is Reason.MODEL_NOT_PERMITTED
    assert run_case(case, rules).passed
