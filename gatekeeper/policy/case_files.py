"""The format of case files: a list of requests, each with the verdict wanted for it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from gatekeeper.policy.rule_parts import Id, Text
from gatekeeper.policy.words import Reason

VerdictWord = Literal[
    "allow", "rate_limited", "step_up", "deny", "embargoed", "unauthenticated", "unavailable"
]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class WantFile(_Part):
    """What the rules should say of a request; what is left out is not compared."""

    verdict: VerdictWord
    """The verdict of the rules, limits aside."""
    reason: Reason | None = None
    """The reason code a caller would see."""
    score: int | None = None
    """The risk score, signals in shadow not counted."""
    shadow_verdict: VerdictWord | None = None
    """The verdict with every rule in shadow enforced."""
    rules: list[Id] = Field(default_factory=list, min_length=1)
    """Ids of rules that must have matched, enforced or in shadow."""


class CaseFile(_Part):
    """One request and what is wanted for it."""

    name: Text
    """What the case shows; unique over all case files."""
    request: dict[str, Any] = Field(default_factory=dict)
    """Facts that differ from an ordinary caller's, by dotted name."""
    want: WantFile
    """What the rules should say."""


class CaseList(RootModel[list[CaseFile]]):
    """Cases of one file."""
