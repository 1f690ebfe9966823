"""Rule files: what they compile to, every mistake with its place, and nothing ever in between."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatekeeper.policy.campaigns import Stage
from gatekeeper.policy.model import Shaping
from gatekeeper.policy.rule_files import RuleFile, without_null
from gatekeeper.policy.rules import SECTIONS, parse_rules, rule_schema
from gatekeeper.policy.ruleset import EmbargoView, OnUnknown, RuleSet
from gatekeeper.policy.strict_yaml import walk
from gatekeeper.policy.words import (
    Assurance,
    LogprobsChange,
    Mode,
    OnFailure,
    Parameter,
    Tier,
    Unit,
    Verdict,
)

if TYPE_CHECKING:
    from gatekeeper.policy.mistake import Mistake
    from gatekeeper.policy.strict_yaml import Path, Plain

FULL: dict[str, Any] = {
    "version": 1,
    "private": {"allow": True},
    "embargo": [
        {
            "id": "cuba",
            "description": "Cuba",
            "on": ["use", "registration", "asn", "organization"],
            "countries": ["CU", "NO"],
            "subdivisions": ["UA-43"],
            "asns": [64500],
            "owners": ["example"],
            "unknown": "step_up",
            "source": "31 CFR 515",
            "mode": "shadow",
            "effective": {"from": "2024-01-01", "until": "2025-01-01T12:00Z"},
        },
        {"id": "iran", "description": "Iran", "countries": ["IR"], "source": "31 CFR 560"},
    ],
    "capabilities": [
        {"id": "reasoning", "description": "Thinking", "when": '"reasoning" in call.asks'},
    ],
    "signals": [
        {"id": "tor", "description": "Tor", "when": 'network.kind == "tor"', "points": 40},
        {
            "id": "known",
            "description": "Known",
            "when": "account.known",
            "points": -10,
            "mode": "shadow",
        },
    ],
    "thresholds": [
        {
            "id": "ask",
            "description": "Ask",
            "at_least": 60,
            "verdict": "step_up",
            "assurance": "ial2",
            "tighten": 0.5,
        },
        {"id": "refuse", "description": "Refuse", "at_least": 100, "verdict": "deny"},
    ],
    "tiers": [
        {"id": "tier-trusted", "description": "T", "tier": "trusted", "models": ["*"]},
        {
            "id": "tier-standard",
            "description": "S",
            "tier": "standard",
            "models": ["gpt-*", "o?"],
            "assurance": "ial1",
            "max_output_tokens": 1000,
            "max_input_tokens": 2000,
        },
        {"id": "tier-elevated", "description": "E", "tier": "elevated", "models": ["*"]},
        {"id": "tier-restricted", "description": "R", "tier": "restricted", "models": ["*"]},
    ],
    "limits": [
        {
            "id": "requests",
            "description": "Requests",
            "unit": "requests",
            "per": ["account", "model"],
            "rate": "600/minute",
            "burst": 100,
            "tiers": ["standard"],
            "when": "account.age_days < 7.0",
            "on_store_failure": "closed",
        },
        {
            "id": "slots",
            "description": "Slots",
            "unit": "concurrency",
            "per": ["everyone"],
            "slots": 20,
            "lease": "10 minutes",
        },
        {
            "id": "budget",
            "description": "Budget",
            "unit": "requests",
            "per": ["campaign"],
            "rate": "50/day",
            "used_up": "step_up",
            "assurance": "ial2",
        },
    ],
    "containment": [
        {
            "id": "stage-probe",
            "description": "Probe",
            "stage": "probe",
            "raise_at": 60,
            "lower_below": 50.5,
            "hold": "7 days",
            "members": 20,
            "layers": 3,
            "percent": 5,
            "newcomers": "10 days",
            "mode": "shadow",
        },
        {
            "id": "stage-ban",
            "description": "Ban",
            "stage": "ban",
            "raise_at": 90,
            "lower_below": 90,
            "hold": "1 month",
            "confirmed": True,
        },
    ],
    "shaping": [
        {
            "id": "blur",
            "description": "Blur",
            "tiers": ["elevated"],
            "at_least": 30,
            "when": "call.logprobs",
            "logprobs": "noise",
            "decimals": 2,
            "epsilon": 8,
        },
        {
            "id": "plain",
            "description": "Plain",
            "logprobs": "round",
            "drop_reasoning": True,
            "max_output_tokens": 100,
            "max_choices": 2,
            "max_context_tokens": 1000,
            "refuse": ["prefill", "logit_bias"],
        },
    ],
    "step_up": [
        {"id": "prove", "description": "Prove", "when": "true", "assurance": "ial2"},
    ],
    "exemptions": [
        {
            "id": "partner",
            "description": "Partner",
            "when": 'account.id == "a"',
            "rules": ["tor", "requests"],
            "reason": "agreed",
            "expires": "2025-06-30",
        }
    ],
    "models": [
        {
            "model": "gpt-*",
            "input_cents_per_million": 125,
            "output_cents_per_million": 1000.5,
            "max_output_tokens": 128000,
        },
        {
            "model": "*",
            "input_cents_per_million": 1,
            "output_cents_per_million": 2,
            "max_output_tokens": 0,
        },
    ],
}
"""A rule file that uses every field."""


def write(value: Plain) -> str:
    """Write ``value`` as a rule file: JSON is YAML."""
    return json.dumps(value, indent=1) + "\n...\n"


def rules_of(value: Plain) -> RuleSet:
    """Parse ``value``, which must be right."""
    rules = parse_rules({"f.yaml": write(value)})
    assert isinstance(rules, RuleSet), rules
    return rules


def mistakes_of(value: Plain) -> list[Mistake]:
    """Parse ``value``, which must be wrong."""
    mistakes = parse_rules({"f.yaml": write(value)})
    assert isinstance(mistakes, list)
    assert mistakes
    return mistakes


def changed(path: Path, value: Any) -> dict[str, Any]:
    """Return ``FULL`` with one part replaced."""
    copy: dict[str, Any] = json.loads(json.dumps(FULL))
    part: Any = copy
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return copy


def without(path: Path) -> dict[str, Any]:
    """Return ``FULL`` without one part."""
    copy = changed(path, None)
    part: Any = copy
    for key in path[:-1]:
        part = part[key]
    del part[path[-1]]
    return copy


def test_everything_is_compiled() -> None:
    """Every field of every section arrives in the rule set, in its own unit."""
    rules = rules_of(FULL)
    assert rules.private.allow
    cuba, iran = rules.embargo
    assert (cuba.id, cuba.mode, cuba.unknown) == ("cuba", Mode.SHADOW, OnUnknown.STEP_UP)
    assert cuba.on == frozenset(EmbargoView)
    assert cuba.countries == {"CU", "NO"}
    assert (cuba.subdivisions, cuba.asns, cuba.owners) == ({"UA-43"}, {64500}, {"example"})
    assert cuba.source == "31 CFR 515"
    assert cuba.effective_from == 1704067200.0
    assert cuba.effective_until == 1735732800.0
    assert (iran.mode, iran.unknown) == (Mode.ENFORCE, OnUnknown.REFUSE)
    assert iran.on == {EmbargoView.USE, EmbargoView.ASN}
    assert (iran.effective_from, iran.effective_until) == (None, None)
    tor, known = rules.signals
    assert (tor.when.source, tor.points, known.points) == ('network.kind == "tor"', 40, -10)
    ask, refuse = rules.thresholds
    assert (ask.verdict, ask.assurance, ask.tighten) == (Verdict.STEP_UP, Assurance.IAL2, 0.5)
    assert (refuse.verdict, refuse.assurance, refuse.tighten) == (Verdict.DENY, Assurance.IAL1, 1)
    assert set(rules.tiers) == set(Tier)
    standard = rules.tiers[Tier.STANDARD]
    assert (standard.models, standard.assurance) == (("gpt-*", "o?"), Assurance.IAL1)
    assert (standard.max_output_tokens, standard.max_input_tokens) == (1000, 2000)
    assert rules.tiers[Tier.TRUSTED].max_output_tokens is None
    requests, slots, budget = rules.limits
    assert (requests.unit, requests.per) == (Unit.REQUESTS, ("account", "model"))
    assert (requests.amount, requests.period_s, requests.burst) == (600, 60, 100)
    assert requests.tiers == {Tier.STANDARD}
    assert requests.when is not None
    assert requests.on_store_failure is OnFailure.CLOSED
    assert (slots.per, slots.amount, slots.period_s, slots.burst) == ((), 20, 600, 20)
    assert (slots.tiers, slots.when) == (frozenset(Tier), None)
    assert slots.on_store_failure is None
    assert (requests.used_up, budget.used_up) == (None, Assurance.IAL2)
    blur, plain = rules.shaping
    assert (blur.tiers, blur.at_least) == ({Tier.ELEVATED}, 30)
    assert blur.when is not None
    assert blur.shaping == Shaping(logprobs=LogprobsChange.NOISE, decimals=2, epsilon=8.0)
    assert (blur.refuse, plain.refuse) == (set(), {Parameter.PREFILL, Parameter.LOGIT_BIAS})
    assert (plain.tiers, plain.at_least, plain.when) == (frozenset(Tier), None, None)
    assert plain.shaping == Shaping(
        logprobs=LogprobsChange.ROUND,
        decimals=1,
        max_output_tokens=100,
        max_choices=2,
        max_context_tokens=1000,
        drop_reasoning=True,
    )
    assert rules.step_up[0].assurance is Assurance.IAL2
    exemption = rules.exemptions[0]
    assert (exemption.rules, exemption.reason) == ({"tor", "requests"}, "agreed")
    assert exemption.expires_at == 1751241600.0
    assert [model.model for model in rules.models] == ["gpt-*", "*"]
    assert rules.models[0].output_cents_per_million == 1000.5


def test_stages_are_compiled() -> None:
    """So do the stages of containment."""
    rules = rules_of(FULL)
    probe, ban = rules.containment
    assert (probe.stage, probe.raise_at, probe.lower_below) == (Stage.PROBE, 60, 50.5)
    assert (probe.members, probe.layers, probe.percent, probe.confirmed) == (20, 3, 5, False)
    assert (probe.hold_s, probe.newcomers_s, probe.mode) == (7 * 86_400, 864_000, Mode.SHADOW)
    assert (ban.members, ban.layers, ban.percent, ban.confirmed) == (2, 2, None, True)
    assert (ban.newcomers_s, ban.mode) == (0, Mode.ENFORCE)


def test_sections_may_be_spread_over_files() -> None:
    """Files join in the order of their names, and neither layout nor comments are content."""
    whole = rules_of(FULL)
    files = {
        f"{number}.yaml": "# a comment\n" + write({section: FULL[section], "version": 1})
        for number, section in enumerate([*SECTIONS, "private"])
    }
    assert parse_rules(dict(reversed(files.items()))) == whole


def test_a_section_may_be_spread_over_files() -> None:
    """Items of one section in two files are one list."""
    first = changed(("signals",), FULL["signals"][:1])
    second = {"version": 1, "signals": FULL["signals"][1:]}
    joined = parse_rules({"a.yaml": write(first), "b.yaml": write(second)})
    assert joined == rules_of(FULL)


def test_revision_follows_content_and_order() -> None:
    """Another value or another order is another revision; a default written out is not."""
    revision = rules_of(FULL).revision
    assert re.fullmatch("[0-9a-f]{12}", revision)
    assert rules_of(changed(("signals", 0, "points"), 41)).revision != revision
    assert rules_of(changed(("private",), {"allow": False})).revision != revision
    assert rules_of(changed(("signals",), FULL["signals"][::-1])).revision != revision
    assert rules_of(changed(("signals", 0, "mode"), "enforce")).revision == revision


def test_private_addresses_are_refused_unless_allowed() -> None:
    """Without the section nobody is served from a private address."""
    assert not rules_of(without(("private",))).private.allow


def test_expired_exemption_parses() -> None:
    """An exemption that is over is no mistake: a gate must not fail to start on a given day."""
    rules = rules_of(changed(("exemptions", 0, "expires"), "1999-12-31"))
    assert rules.exemptions[0].expires_at < 1e9


@pytest.mark.parametrize(
    ("rate", "amount", "period_s"),
    [
        ("1/second", 1, 1),
        ("10 per minute", 10, 60),
        ("5/2 hours", 5, 7200),
        ("100/day", 100, 86_400),
        ("7/month", 7, 2_592_000),
    ],
)
def test_rates_are_those_of_the_limits_library(rate: str, amount: int, period_s: int) -> None:
    """Second to month, with ``/`` or ``per``, with multiples; burst defaults to the amount."""
    value = changed(("limits", 0), {**FULL["limits"][0], "rate": rate})
    del value["limits"][0]["burst"]
    limit = rules_of(value).limits[0]
    assert (limit.amount, limit.period_s, limit.burst) == (amount, period_s, amount)


WRONG: list[tuple[Path, Any, str, str]] = [
    (("version",), 2, "version", "must be `1`"),
    (("versoin",), 1, "versoin", "did you mean `version`?"),
    (("zzzzzz",), 1, "zzzzzz", "Keys: version, private, embargo"),
    (("embargo",), {}, "embargo", "must be a list, not a mapping"),
    (("embargo",), [], "embargo", "must not be empty"),
    (("embargo", 0), "x", "embargo[0]", "must be a mapping, not `x`"),
    (("embargo", 0, "id"), "Cuba", "embargo[0].id", "not an id"),
    (("embargo", 0, "id"), "credential", "embargo[0].id", "Gatekeeper calls its own"),
    (("embargo", 0, "id"), 7, "embargo[0].id", "must be text, not `7`; put it in quotes"),
    (("embargo", 0, "description"), " ", "embargo[0].description", "must not be blank"),
    (("embargo", 0, "description"), ["x"], "embargo[0].description", "must be text, not a list."),
    (("embargo", 0, "description"), "x" * 1001, "embargo[0].description", "at most 1000"),
    (("embargo", 0, "mode"), "shadwo", "embargo[0].mode", "did you mean `shadow`?"),
    (("embargo", 0, "countries"), ["cu"], "embargo[0].countries[0]", "did you mean `CU`?"),
    (("embargo", 0, "countries"), ["UK"], "embargo[0].countries[0]", "did you mean `GB`?"),
    (("embargo", 0, "countries"), ["ZZ"], "embargo[0].countries[0]", "such as `CU`"),
    (("embargo", 0, "countries"), ["CU", "CU"], "embargo[0].countries", "stands twice"),
    (("embargo", 0, "subdivisions"), ["UA43"], "embargo[0].subdivisions[0]", "such as `UA-43`"),
    (("embargo", 0, "subdivisions"), ["UK-1"], "embargo[0].subdivisions[0]", "`GB`"),
    (("embargo", 0, "asns"), [0], "embargo[0].asns[0]", "greater than or equal to 1"),
    (("embargo", 0, "asns"), ["AS1"], "embargo[0].asns[0]", "a whole number, not `AS1`"),
    (("embargo", 0, "asns"), [1.5], "embargo[0].asns[0]", "a whole number, not `1.5`"),
    (("embargo", 0, "on"), [], "embargo[0].on", "must not be empty"),
    (("embargo", 0, "on"), ["asn"], "embargo[0]", "`subdivisions` is tested on `use`"),
    (("embargo", 0, "on"), ["use"], "embargo[0]", "`owners` is tested on `asn` or `organization`"),
    (("embargo", 0, "effective"), {}, "embargo[0].effective", "Give `from`"),
    (
        ("embargo", 0, "effective"),
        {"from": "2025-01-01", "until": "2025-01-01"},
        "embargo[0].effective",
        "earlier",
    ),
    (("embargo", 0, "effective", "untill"), "x", "embargo[0].effective.untill", "`until`"),
    (("embargo", 0, "effective", "from"), "1/2/25", "embargo[0].effective.from", "not a date"),
    (("embargo", 0, "effective", "from"), "2025-02-30", "embargo[0].effective.from", "calendar"),
    (
        ("embargo", 1),
        {"id": "iran", "description": "Iran", "source": "x"},
        "embargo[1]",
        "at least one of",
    ),
    (
        ("embargo", 1),
        {"id": "x", "description": "x", "source": "x", "owners": ["a"]},
        "embargo[1]",
        "`on` names `use`",
    ),
    (("signals", 0, "id"), "cuba", "signals[0].id", "The first is embargo[0].id in f.yaml."),
    (("signals", 0, "points"), 0, "signals[0]", "must not be 0"),
    (("signals", 0, "points"), 1001, "signals[0].points", "less than or equal to 1000"),
    (("signals", 0, "points"), True, "signals[0].points", "a whole number, not `true`"),
    (("signals", 0, "when"), "network.knid", "signals[0].when", "wrong at character 1"),
    (("signals", 0, "when"), "", "signals[0].when", "The condition is wrong"),
    (("thresholds", 0, "at_least"), 0, "thresholds[0].at_least", "greater"),
    (("thresholds", 0, "tighten"), 0, "thresholds[0].tighten", "greater than 0"),
    (("thresholds", 0, "tighten"), "x", "thresholds[0].tighten", "must be a number"),
    (("thresholds", 1, "assurance"), "ial1", "thresholds[1]", "belongs to `verdict: step_up`"),
    (("thresholds", 0, "assurance"), "none", "thresholds[0].assurance", "one of `ial1`, `ial2`"),
    (
        ("thresholds", 1),
        {"id": "x", "description": "x", "at_least": 1},
        "thresholds[1]",
        "does nothing",
    ),
    (("tiers", 0, "tier"), "standard", "tiers[1].tier", "every tier has exactly one rule"),
    (("tiers", 0, "tier"), "standard", "tiers", "No rule for the tier `trusted`"),
    (("tiers",), FULL["tiers"][:2], "tiers", "`elevated`, `restricted`"),
    (("tiers", 0, "models"), [], "tiers[0].models", "must not be empty"),
    (("limits", 0, "rate"), "600/fortnight", "limits[0].rate", "not a rate"),
    (("limits", 0, "rate"), "600/year", "limits[0].rate", "use second"),
    (("limits", 0, "rate"), "0/day", "limits[0].rate", "from 1 to"),
    (("limits", 0, "rate"), "1/2 months", "limits[0].rate", "longer than a month"),
    (("limits", 0, "rate"), "1/day; 2/day", "limits[0].rate", "not a rate"),
    (("limits", 0, "slots"), 3, "limits[0]", "`slots` does not belong to `unit: requests`"),
    (("limits", 0, "at_end"), "stop", "limits[0]", "belongs to `unit: output_tokens` only"),
    (("limits", 0, "used_up"), "step_up", "limits[0]", "`per` `campaign` only"),
    (("limits", 2, "used_up"), "deny", "limits[2].used_up", "must be `step_up`"),
    (("limits", 0, "assurance"), "ial1", "limits[0]", "`assurance` belongs to `used_up"),
    (("containment", 0, "stage"), "probes", "containment[0].stage", "did you mean `probe`?"),
    (("containment", 0, "stage"), "ban", "containment[1].stage", "at most one rule"),
    (("containment", 0, "stage"), "ban", "containment[0]", "people ban, scores do not"),
    (("containment", 0, "stage"), "step_up", "containment[0]", "`percent` belongs to"),
    (("containment", 1, "stage"), "probe", "containment[1]", "which needs it"),
    (("containment", 0, "lower_below"), 60.1, "containment[0]", "not be above `raise_at`"),
    (("containment", 0, "raise_at"), 101, "containment[0].raise_at", "less than or equal to 100"),
    (("containment", 0, "layers"), 1, "containment[0]", "needs `layers: 2` or more"),
    (("containment", 0, "members"), 1, "containment[0].members", "greater than or equal to 2"),
    (("containment", 0, "percent"), 0, "containment[0].percent", "greater than 0"),
    (("containment", 0, "hold"), "2 months", "containment[0].hold", "longer than a month"),
    (("exemptions", 0, "rules"), ["stage-ban"], "exemptions[0].rules", "does nothing"),
    (("exemptions", 0, "rules"), ["reasoning"], "exemptions[0].rules", "does nothing"),
    (("capabilities", 0, "when"), "account.known", "capabilities[0].when", "account.known"),
    (("capabilities", 0, "mode"), "shadow", "capabilities[0].mode", "mode"),
    (
        ("capabilities", 0, "when"),
        '"x" in call.capabilities',
        "capabilities[0].when",
        "call.capabilities",
    ),
    (("limits", 0, "unit"), "concurrency", "limits[0]", "needs `lease`"),
    (("limits", 0, "per"), ["everyone", "account"], "limits[0]", "stands alone"),
    (("limits", 0, "per"), ["acount"], "limits[0].per[0]", "did you mean `account`?"),
    (("limits", 0, "per"), [], "limits[0].per", "must not be empty"),
    (("limits", 0, "tiers"), [], "limits[0].tiers", "must not be empty"),
    (("limits", 1, "lease"), "soon", "limits[1].lease", "not a duration"),
    (("limits", 1, "lease"), "0 minutes", "limits[1].lease", "not a duration"),
    (("shaping", 0, "logprobs"), "rond", "shaping[0].logprobs", "did you mean `round`?"),
    (("shaping", 0, "logprobs"), "round", "shaping[0]", "`epsilon` belongs to `logprobs: noise`"),
    (("shaping", 0, "logprobs"), "remove", "shaping[0]", "`decimals` belongs to"),
    (("shaping", 0, "epsilon"), 21, "shaping[0].epsilon", "less than or equal to 20"),
    (("shaping", 0, "epsilon"), 0, "shaping[0].epsilon", "greater than 0"),
    (("shaping", 1, "logprobs"), "noise", "shaping[1]", "which needs it"),
    (("shaping", 1, "refuse"), ["prefil"], "shaping[1].refuse[0]", "did you mean `prefill`?"),
    (("shaping", 1), {"id": "x", "description": "x"}, "shaping[1]", "does nothing"),
    (("exemptions", 0, "rules"), ["cuba"], "exemptions[0].rules", "cannot be exempted from"),
    (("exemptions", 0, "rules"), ["request"], "exemptions[0].rules", "did you mean `requests`?"),
    (("exemptions", 0, "rules"), ["zzzzzz"], "exemptions[0].rules", "There is no rule `zzzzzz`."),
    (("models",), FULL["models"][:1], "models", "The last model must be `*`"),
    (("models",), FULL["models"][::-1], "models[1].model", "Never reached: `*`"),
    (("models", 1, "model"), "gpt-4*", "models[1].model", "Never reached: `gpt-*`"),
    (("models", 0, "model"), "*", "models[1].model", "Never reached"),
    (("private",), {"allow": "yes"}, "private.allow", "must be `true` or `false`, not `yes`"),
]


@pytest.mark.parametrize(("path", "value", "place", "words"), WRONG)
def test_mistakes(path: Path, value: Any, place: str, words: str) -> None:
    """Each mistake is told with its file, line and place, and what would be right."""
    found = [mistake for mistake in mistakes_of(changed(path, value)) if mistake.path == place]
    assert any(words in mistake.message for mistake in found), found
    assert all(m.file == "f.yaml" and m.line and m.message.endswith((".", "?")) for m in found)


@pytest.mark.parametrize(
    "path",
    [
        ("version",),
        ("tiers",),
        ("models",),
        ("private", "allow"),
        *((section, 0, "id") for section in SECTIONS[:-1]),
        *((section, 0, "description") for section in SECTIONS[:-1]),
        ("embargo", 0, "source"),
        ("signals", 0, "when"),
        ("signals", 0, "points"),
        ("thresholds", 0, "at_least"),
        ("tiers", 0, "models"),
        ("limits", 0, "rate"),
        ("limits", 0, "per"),
        ("limits", 1, "slots"),
        ("limits", 1, "lease"),
        ("step_up", 0, "when"),
        ("exemptions", 0, "reason"),
        ("exemptions", 0, "expires"),
    ],
)
def test_what_is_required(path: Path) -> None:
    """Leaving out what has no default is a mistake that names it."""
    assert any(f"`{path[-1]}`" in str(m) or path[-1] in m.path for m in mistakes_of(without(path)))


def test_all_mistakes_at_once() -> None:
    """Every file is read to its end, and what only the whole can tell is told as well."""
    bad = changed(("signals", 0, "points"), 0)
    bad["embargo"][1]["countries"] = ["XX"]
    bad["exemptions"][0]["rules"] = ["tro"]
    mistakes = parse_rules({"a.yaml": write(bad), "b.yaml": write({"version": 1, "limits": None})})
    assert isinstance(mistakes, list)
    assert [(mistake.file, mistake.path) for mistake in mistakes] == [
        ("a.yaml", "embargo[1].countries[0]"),
        ("a.yaml", "signals[0]"),
        ("a.yaml", "exemptions[0].rules"),
        ("b.yaml", "limits"),
    ]


def test_what_may_stand_in_an_unreadable_file_is_not_missed() -> None:
    """A file that cannot be read is the only mistake told: its tiers are not called missing."""
    rest = {key: FULL[key] for key in ("version", "exemptions")}
    mistakes = parse_rules({"a.yaml": write(rest), "b.yaml": "tiers: ["})
    assert isinstance(mistakes, list)
    assert {mistake.file for mistake in mistakes} == {"b.yaml"}


def test_no_rules_at_all_is_a_mistake() -> None:
    """An empty directory, or files with nothing in them, is never an empty rule set."""
    nothing = parse_rules({})
    assert isinstance(nothing, list)
    assert [mistake.path for mistake in nothing] == ["models", "tiers"]
    assert isinstance(parse_rules({"a.yaml": "[]\n...\n"}), list)


def test_private_stands_once() -> None:
    """Two files cannot both say what private addresses may do."""
    mistakes = parse_rules(
        {"a.yaml": write(FULL), "b.yaml": write({"version": 1, "private": {"allow": False}})}
    )
    assert isinstance(mistakes, list)
    assert str(mistakes[0]) == "b.yaml:3: private: `private` already stands in a.yaml."


def test_ids_are_unique_over_files() -> None:
    """The second of two equal ids names where the first is."""
    mistakes = parse_rules(
        {"a.yaml": write(FULL), "b.yaml": write({"version": 1, "signals": FULL["signals"][:1]})}
    )
    assert isinstance(mistakes, list)
    assert [m.file for m in mistakes] == ["b.yaml"]
    assert "The first is signals[0].id in a.yaml." in mistakes[0].message


FIELDS_OF_FULL = [path for path, _ in walk(FULL) if path]


def test_h35_null_in_every_field_is_a_mistake() -> None:
    """A value that was lost is never read as the default."""
    for path in FIELDS_OF_FULL:
        messages = [mistake.message for mistake in mistakes_of(changed(path, None))]
        assert "There is no value; write one." in messages, path


@pytest.mark.parametrize("blank", ["", [], {}, " "], ids=repr)
def test_h35_blank_in_every_field_is_a_mistake(blank: Any) -> None:
    """Nor is one that was emptied; only the list of exemptions may be empty."""
    for path in FIELDS_OF_FULL:
        if path == ("exemptions",) and blank == []:
            assert rules_of(changed(path, blank)).exemptions == ()
        else:
            assert mistakes_of(changed(path, blank)), path


def test_h35_every_prefix_is_old_or_new() -> None:
    """No cut-off file reads as a third rule set, wherever it is cut."""
    text = "version: 1\n" + "".join(
        f"{section}:\n" + "".join(f"  - {json.dumps(item)}\n" for item in FULL[section])
        for section in SECTIONS
    )
    text += "...\n"
    whole = parse_rules({"f.yaml": text})
    assert isinstance(whole, RuleSet)
    for length in range(0, len(text) - 5, 7):
        assert isinstance(parse_rules({"f.yaml": text[:length]}), list)
    for length in range(len(text) - 5, len(text)):
        read = parse_rules({"f.yaml": text[:length]})
        assert isinstance(read, list) or read == whole


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*SECTIONS, "id", "when", "on"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.text(max_size=200))
def test_any_text_is_rules_or_mistakes(text: str) -> None:
    """No text raises anything."""
    assert isinstance(parse_rules({"f.yaml": text}), list)


@given(st.dictionaries(st.sampled_from(["version", "private", *SECTIONS]), JSON_VALUES))
def test_any_sections_are_rules_or_mistakes(value: dict[str, Any]) -> None:
    """No sections raise anything."""
    read = parse_rules({"f.yaml": write(value)})
    assert isinstance(read, RuleSet) or read


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(FIELDS_OF_FULL), JSON_VALUES)
def test_any_value_anywhere_is_rules_or_mistakes(path: Path, value: Any) -> None:
    """A valid file with anything in place of one of its parts is one or the other."""
    read = parse_rules({"f.yaml": write(changed(path, value))})
    assert isinstance(read, RuleSet) or read


def test_schema_is_for_editors() -> None:
    """It is JSON Schema 2020-12, forbids unknown keys, offers no null and explains every key."""
    schema = rule_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["properties"]) == set(RuleFile.model_fields)
    for path, part in walk(schema):
        if isinstance(part, dict) and "properties" in part:
            assert part["additionalProperties"] is False, path
            for key, value in part["properties"].items():
                assert isinstance(value, dict)
                assert "description" in value or "$ref" in value, key
        assert part != {"type": "null"}
        assert part is not None


def test_null_leaves_a_schema() -> None:
    """A key that may be left out may still not be null."""
    assert without_null({"anyOf": [{"type": "null"}, {"$ref": "x"}], "default": None}) == {
        "$ref": "x"
    }
    assert without_null({"a": [{"default": 1}]}) == {"a": [{"default": 1}]}
