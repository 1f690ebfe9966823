"""From rule files to a rule set: all of it, or every mistake in it."""

from __future__ import annotations

import hashlib
import json
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter

from gatekeeper.policy.conditions import compile_condition
from gatekeeper.policy.decide import (
    BAN_RULE,
    CREDENTIAL_RULE,
    MODE_RULE,
    PRIVATE_RULE,
    REQUEST_RULE,
)
from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.model import Shaping
from gatekeeper.policy.notation import duration_s, instant_s, rate_of
from gatekeeper.policy.rule_files import RuleFile, without_null
from gatekeeper.policy.ruleset import (
    CapabilityRule,
    ContainmentRule,
    EmbargoRule,
    Exemption,
    LimitRule,
    ModelRule,
    PrivateAddresses,
    RuleSet,
    ShapingRule,
    SignalRule,
    StepUpRule,
    ThresholdRule,
    TierRule,
)
from gatekeeper.policy.strict_yaml import place, read_yaml
from gatekeeper.policy.validation import did_you_mean, validate
from gatekeeper.policy.words import Assurance, LogprobsChange, Tier, Unit, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gatekeeper.policy.rule_containment import ContainmentFile
    from gatekeeper.policy.rule_files import (
        CapabilityFile,
        EmbargoFile,
        ExemptionFile,
        ShapingFile,
        SignalFile,
        StepUpFile,
        ThresholdFile,
        TierFile,
    )
    from gatekeeper.policy.rule_limits import LimitFile
    from gatekeeper.policy.strict_yaml import Document

SECTIONS: Final = (
    "embargo",
    "capabilities",
    "signals",
    "thresholds",
    "tiers",
    "limits",
    "containment",
    "shaping",
    "step_up",
    "exemptions",
    "models",
)
"""Sections that are lists, in the order in which they are read."""

_NOT_IDS: Final = frozenset({PRIVATE_RULE, CREDENTIAL_RULE, BAN_RULE, REQUEST_RULE, MODE_RULE})


def parse_rules(files: Mapping[str, str]) -> RuleSet | list[Mistake]:
    """Read rule files (name to text) as one rule set, or return every mistake in them.

    Files count in the order of their names; sections that stand in several are joined. How rules
    are spread over files, comments and the order of keys do not change ``RuleSet.revision``; the
    order of rules does, because it matters for ``models``.
    """
    schema = TypeAdapter(RuleFile)
    documents: dict[str, Document] = {}
    parsed: list[RuleFile] = []
    mistakes: list[Mistake] = []
    for name, text in sorted(files.items()):
        document = read_yaml(text, name)
        if isinstance(document, list):
            mistakes.extend(document)
            continue
        documents[name] = document
        valid = validate(schema, document, name)
        if isinstance(valid, list):
            mistakes.extend(valid)
        else:
            parsed.append(valid)
    mistakes.extend(_Whole(documents, complete=len(documents) == len(files)).mistakes())
    return sorted(mistakes) or _build(parsed)


def rule_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one rule file, for editors."""
    schema: dict[str, Any] = without_null(TypeAdapter(RuleFile).json_schema())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Gatekeeper rules",
    }


class _Whole:
    """What can only be said of all files together; looks at raw values, valid or not.

    ``complete`` tells whether every file could be read: what is missing is not called a mistake
    when it may stand in a file that could not.
    """

    def __init__(self, documents: Mapping[str, Document], *, complete: bool) -> None:
        self._documents = documents
        self._complete = complete

    def mistakes(self) -> list[Mistake]:
        found = chain(
            self._ids(),
            self._private(),
            self._tiers(),
            self._twice(("containment",), "stage", "every stage has at most one rule."),
            self._models(),
            self._exemptions(),
        )
        return list(found)

    def _texts(self, section: str, key: str) -> Iterator[tuple[str, str, tuple[str | int, ...]]]:
        """Yield every text that stands under ``key`` in an item of ``section``, with its place."""
        for file, document in self._documents.items():
            root = document.value
            items = root.get(section) if isinstance(root, dict) else None
            for index, item in enumerate(items if isinstance(items, list) else ()):
                value = item.get(key) if isinstance(item, dict) else None
                for text in value if isinstance(value, list) else (value,):
                    if isinstance(text, str):
                        yield text, file, (section, index, key)

    def _at(self, file: str, path: tuple[str | int, ...], message: str) -> Mistake:
        return Mistake(file, self._documents[file].line(path), place(path), message)

    def _twice(self, sections: tuple[str, ...], key: str, why: str) -> Iterator[Mistake]:
        first: dict[str, Mistake] = {}
        for section in sections:
            for text, file, path in self._texts(section, key):
                here = self._at(file, path, f"`{text[:64]}` stands twice; {why}")
                if text in first:
                    before = first[text]
                    where = f" The first is {before.path} in {before.file}."
                    yield self._at(file, path, here.message + where)
                first.setdefault(text, here)

    def _ids(self) -> Iterator[Mistake]:
        yield from self._twice(SECTIONS, "id", "ids are unique over all sections and files.")
        for section in SECTIONS:
            for text, file, path in self._texts(section, "id"):
                if text in _NOT_IDS:
                    yield self._at(file, path, f"`{text}` is what Gatekeeper calls its own rule.")

    def _private(self) -> Iterator[Mistake]:
        having = [
            name
            for name, document in self._documents.items()
            if isinstance(document.value, dict) and "private" in document.value
        ]
        for name in having[1:]:
            yield self._at(name, ("private",), f"`private` already stands in {having[0]}.")

    def _tiers(self) -> Iterator[Mistake]:
        yield from self._twice(("tiers",), "tier", "every tier has exactly one rule.")
        present = {text for text, _, _ in self._texts("tiers", "tier")}
        missing = [tier.value for tier in Tier if tier.value not in present]
        if missing and self._complete:
            names = ", ".join(f"`{name}`" for name in missing)
            yield self._nowhere("tiers", f"No rule for the tier {names}; every tier needs one.")

    def _models(self) -> Iterator[Mistake]:
        earlier: list[str] = []
        for text, file, path in self._texts("models", "model"):
            for pattern in earlier:
                stem = pattern.removesuffix("*")
                covers = pattern.endswith("*") and not set("*?[") & set(stem)
                if text == pattern or (covers and text.startswith(stem)):
                    message = f"Never reached: `{pattern[:64]}` before it matches first."
                    yield self._at(file, path, message)
                    break
            earlier.append(text)
        if self._complete and "*" not in earlier:
            yield self._nowhere("models", "The last model must be `*`, for models without a price.")

    def _exemptions(self) -> Iterator[Mistake]:
        known = {text for section in SECTIONS for text, _, _ in self._texts(section, "id")}
        never = {text for text, _, _ in self._texts("embargo", "id")}
        never |= {text for text, _, _ in self._texts("exemptions", "id")}
        named = ("containment", "capabilities")
        never_act = {text for section in named for text, _, _ in self._texts(section, "id")}
        for text, file, path in self._texts("exemptions", "rules"):
            if text in never:
                message = f"`{text[:64]}` cannot be exempted from: embargo has no exceptions."
                yield self._at(file, path, message)
            elif text in never_act:
                message = f"`{text[:64]}` does nothing itself: exempt from the rules that go by it."
                yield self._at(file, path, message)
            elif text not in known and self._complete:
                hint = did_you_mean(text, known - never - never_act)
                yield self._at(file, path, f"There is no rule `{text[:64]}`{hint}")

    def _nowhere(self, section: str, message: str) -> Mistake:
        """Blame the file that holds ``section``, or the rules as a whole."""
        for file, document in self._documents.items():
            if isinstance(document.value, dict) and section in document.value:
                return self._at(file, (section,), message)
        return Mistake("rules", None, section, message)


def _build(files: list[RuleFile]) -> RuleSet:
    private = next((file.private for file in files if file.private is not None), None)
    models = [model for file in files for model in file.models]
    return RuleSet(
        revision=_revision(files),
        private=PrivateAddresses(allow=private is not None and private.allow),
        embargo=tuple(_embargo(rule) for file in files for rule in file.embargo),
        capabilities=tuple(_capability(rule) for file in files for rule in file.capabilities),
        signals=tuple(_signal(rule) for file in files for rule in file.signals),
        thresholds=tuple(_threshold(rule) for file in files for rule in file.thresholds),
        tiers={rule.tier: _tier(rule) for file in files for rule in file.tiers},
        limits=tuple(_limit(rule) for file in files for rule in file.limits),
        containment=tuple(_containment(rule) for file in files for rule in file.containment),
        shaping=tuple(_shaping(rule) for file in files for rule in file.shaping),
        step_up=tuple(_step_up(rule) for file in files for rule in file.step_up),
        exemptions=tuple(_exemption(rule) for file in files for rule in file.exemptions),
        models=tuple(ModelRule(**model.model_dump()) for model in models),
    )


def _revision(files: list[RuleFile]) -> str:
    content: dict[str, Any] = {section: [] for section in SECTIONS}
    for file in files:
        dumped = file.model_dump(mode="json", by_alias=True)
        for section in SECTIONS:
            content[section] += dumped[section]
        content["private"] = dumped["private"] or content.get("private")
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _embargo(rule: EmbargoFile) -> EmbargoRule:
    since = rule.effective and rule.effective.from_
    until = rule.effective and rule.effective.until
    return EmbargoRule(
        id=rule.id,
        description=rule.description,
        mode=rule.mode,
        on=frozenset(rule.on),
        countries=frozenset(rule.countries),
        subdivisions=frozenset(rule.subdivisions),
        asns=frozenset(rule.asns),
        owners=frozenset(rule.owners),
        unknown=rule.unknown,
        source=rule.source,
        effective_from=instant_s(since) if since else None,
        effective_until=instant_s(until) if until else None,
    )


def _capability(rule: CapabilityFile) -> CapabilityRule:
    return CapabilityRule(rule.id, rule.description, compile_condition(rule.when))


def _signal(rule: SignalFile) -> SignalRule:
    when = compile_condition(rule.when)
    return SignalRule(rule.id, rule.description, rule.mode, when, rule.points)


def _threshold(rule: ThresholdFile) -> ThresholdRule:
    return ThresholdRule(
        id=rule.id,
        description=rule.description,
        mode=rule.mode,
        at_least=rule.at_least,
        verdict=Verdict[rule.verdict.upper()] if rule.verdict else Verdict.ALLOW,
        assurance=Assurance(rule.assurance or Assurance.IAL1),
        tighten=rule.tighten,
    )


def _tier(rule: TierFile) -> TierRule:
    return TierRule(
        id=rule.id,
        description=rule.description,
        mode=rule.mode,
        tier=rule.tier,
        models=tuple(rule.models),
        assurance=rule.assurance,
        max_output_tokens=rule.max_output_tokens,
        max_input_tokens=rule.max_input_tokens,
    )


def _limit(rule: LimitFile) -> LimitRule:
    if rule.unit is Unit.CONCURRENCY:
        amount, period_s = rule.slots or 0, duration_s(rule.lease or "")
    else:
        amount, period_s = rate_of(rule.rate or "")
    return LimitRule(
        id=rule.id,
        description=rule.description,
        mode=rule.mode,
        unit=rule.unit,
        per=() if rule.per == ["everyone"] else tuple(rule.per),
        amount=amount,
        period_s=period_s,
        burst=rule.burst or amount,
        tiers=frozenset(rule.tiers or Tier),
        when=compile_condition(rule.when) if rule.when else None,
        on_store_failure=rule.on_store_failure,
        at_end=rule.at_end,
        used_up=Assurance(rule.assurance or Assurance.IAL1) if rule.used_up else None,
    )


def _containment(rule: ContainmentFile) -> ContainmentRule:
    return ContainmentRule(
        id=rule.id,
        description=rule.description,
        mode=rule.mode,
        stage=rule.stage,
        raise_at=rule.raise_at,
        lower_below=rule.lower_below,
        hold_s=duration_s(rule.hold),
        members=rule.members,
        layers=rule.layers,
        percent=rule.percent,
        confirmed=rule.confirmed,
        newcomers_s=duration_s(rule.newcomers) if rule.newcomers else 0,
    )


def _shaping(rule: ShapingFile) -> ShapingRule:
    blurs = rule.logprobs in {LogprobsChange.ROUND, LogprobsChange.NOISE}
    return ShapingRule(
        id=rule.id,
        description=rule.description,
        mode=rule.mode,
        tiers=frozenset(rule.tiers or Tier),
        at_least=rule.at_least,
        when=compile_condition(rule.when) if rule.when else None,
        shaping=Shaping(
            logprobs=rule.logprobs,
            decimals=(1 if rule.decimals is None else rule.decimals) if blurs else None,
            epsilon=rule.epsilon,
            max_output_tokens=rule.max_output_tokens,
            max_choices=rule.max_choices,
            max_context_tokens=rule.max_context_tokens,
            drop_reasoning=rule.drop_reasoning,
        ),
        refuse=frozenset(rule.refuse),
    )


def _step_up(rule: StepUpFile) -> StepUpRule:
    when = compile_condition(rule.when)
    return StepUpRule(rule.id, rule.description, rule.mode, when, Assurance(rule.assurance))


def _exemption(rule: ExemptionFile) -> Exemption:
    return Exemption(
        id=rule.id,
        description=rule.description,
        mode=rule.mode,
        when=compile_condition(rule.when),
        rules=frozenset(rule.rules),
        reason=rule.reason,
        expires_at=instant_s(rule.expires),
    )
