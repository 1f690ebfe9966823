"""Cases: requests with the verdict that the rules are wanted to give; operators write them too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from gatekeeper.policy.case_facts import facts_of
from gatekeeper.policy.case_files import CaseList
from gatekeeper.policy.decide import judge
from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.strict_yaml import place, read_yaml
from gatekeeper.policy.validation import did_you_mean, validate
from gatekeeper.policy.view import view_of
from gatekeeper.policy.words import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gatekeeper.policy.case_files import CaseFile
    from gatekeeper.policy.model import Facts, Standing
    from gatekeeper.policy.ruleset import RuleSet
    from gatekeeper.policy.strict_yaml import Path
    from gatekeeper.policy.words import Reason


@dataclass(frozen=True, slots=True)
class Want:
    """What a case asks for; ``None`` asks nothing."""

    verdict: Verdict
    reason: Reason | None
    score: int | None
    shadow_verdict: Verdict | None
    rules: tuple[str, ...]
    """Ids of rules that must have matched, enforced or in shadow."""


@dataclass(frozen=True, slots=True)
class Case:
    """One request, its wanted verdict, and where both are written."""

    name: str
    file: str
    line: int | None
    facts: Facts
    want: Want


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How a case went."""

    case: Case
    differences: tuple[str, ...]
    """What is not as wanted, a sentence each."""
    matched: frozenset[str]
    """Ids of the rules that matched, enforced or in shadow."""
    standing: Standing

    @property
    def passed(self) -> bool:
        """Whether everything is as wanted."""
        return not self.differences


def parse_cases(files: Mapping[str, str]) -> tuple[Case, ...] | list[Mistake]:
    """Read case files (name to text), or return every mistake in them."""
    cases: list[Case] = []
    mistakes: list[Mistake] = []
    names: dict[str, str] = {}
    schema = TypeAdapter(CaseList)
    for file, text in sorted(files.items()):
        document = read_yaml(text, file)
        if isinstance(document, list):
            mistakes.extend(document)
            continue
        valid = validate(schema, document, file, null_allowed=_in_request)
        if isinstance(valid, list):
            mistakes.extend(valid)
            continue
        for index, item in enumerate(valid.root):
            line = document.line((index,))
            first = names.setdefault(item.name, f"{file}:{line}")
            if first != f"{file}:{line}":
                message = f"The name `{item.name[:60]}` stands twice; the first is in {first}."
                mistakes.append(Mistake(file, line, place((index, "name")), message))
            facts = facts_of(item.request)
            if isinstance(facts, list):
                for found in facts:
                    path = (index, "request", found.path)
                    at = document.line(path)
                    mistakes.append(replace(found, file=file, line=at, path=place(path)))
                continue
            cases.append(Case(item.name, file, line, facts, _want(item)))
    return sorted(mistakes) or tuple(cases)


def run_case(case: Case, rules: RuleSet) -> CaseResult:
    """Judge the request of ``case`` and compare; limits are not part of cases."""
    standing = judge(case.facts, rules)
    matched = frozenset(_matched(case.facts, standing, rules))
    differences = tuple(_differences(case.want, standing, matched, rules))
    return CaseResult(case, differences, matched, standing)


def coverage(results: Iterable[CaseResult], rules: RuleSet) -> list[str]:
    """Return the ids of the rules that no case ever matched, in the order of the files.

    Limits are left out: what they do depends on the calls before.
    """
    matched: frozenset[str] = frozenset().union(*(result.matched for result in results))
    return [rule for rule in _testable(rules) if rule not in matched]


def _in_request(path: Path) -> bool:
    return path[1:2] == ("request",) and path[2:] != ()


def _want(item: CaseFile) -> Want:
    want = item.want
    return Want(
        verdict=Verdict[want.verdict.upper()],
        reason=want.reason,
        score=want.score,
        shadow_verdict=Verdict[want.shadow_verdict.upper()] if want.shadow_verdict else None,
        rules=tuple(want.rules),
    )


def _testable(rules: RuleSet) -> Iterator[str]:
    sections = (
        rules.embargo,
        rules.signals,
        rules.thresholds,
        rules.tiers.values(),
        rules.shaping,
        rules.step_up,
        rules.exemptions,
    )
    section: Any
    for section in sections:
        yield from (rule.id for rule in section)


def _matched(facts: Facts, standing: Standing, rules: RuleSet) -> Iterator[str]:
    yield from (finding.rule for finding in standing.findings)
    if standing.score is None:
        return
    yield from (contribution.signal for contribution in standing.score.contributions)
    yield rules.tiers[facts.account.tier].id
    view = view_of(facts)
    for exemption in rules.exemptions:
        if facts.at < exemption.expires_at and exemption.when(view) is True:
            yield exemption.id


def _differences(
    want: Want, standing: Standing, matched: frozenset[str], rules: RuleSet
) -> Iterator[str]:
    if standing.verdict is not want.verdict:
        yield f"The verdict is `{standing.verdict.word}`, wanted was `{want.verdict.word}`."
    if want.reason not in {None, standing.reason}:
        reason = standing.reason.value if standing.reason else "none"
        yield f"The reason is `{reason}`, wanted was `{want.reason}`."
    total = standing.score.total if standing.score else None
    if want.score not in {None, total}:
        shown = "not computed" if total is None else str(total)
        yield f"The score is {shown}, wanted was {want.score}."
    if want.shadow_verdict not in {None, standing.shadow_verdict}:
        shadow = standing.shadow_verdict.word
        yield f"The shadow verdict is `{shadow}`, wanted was `{want.shadow_verdict.word}`."
    known = {*_testable(rules), *(rule.id for rule in rules.limits), *matched}
    for rule in want.rules:
        if rule not in known:
            yield f"There is no rule `{rule}`{did_you_mean(rule, known)}"
        elif rule not in matched:
            yield f"The rule `{rule}` did not match."
