"""What the keys of rule files may hold, and what every part of one has in common."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from gatekeeper.policy.conditions import ConditionError, compile_condition
from gatekeeper.policy.countries import COUNTRIES, country_problem, subdivision_problem
from gatekeeper.policy.limits import MAX_UNITS
from gatekeeper.policy.notation import RATE, duration_s, instant_s, rate_of
from gatekeeper.policy.view import CALL_FIELDS, FIELDS, FieldType
from gatekeeper.policy.words import Mode

_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}", re.ASCII)

T = TypeVar("T")


def _reads_with(read: Callable[[str], object]) -> Callable[[str], str]:
    def check(text: str) -> str:
        read(text)
        return text

    return check


def _condition(text: str, fields: Mapping[str, FieldType] = FIELDS) -> None:
    try:
        compile_condition(text, fields)
    except ConditionError as error:
        message = f"The condition is wrong at character {error.position + 1}: {error}."
        raise ValueError(message) from None


def _without(problem_of: Callable[[str], str | None]) -> Callable[[str], str]:
    def check(text: str) -> str:
        problem = problem_of(text)
        if problem is not None:
            raise ValueError(problem)
        return text

    return check


def _id_problem(text: str) -> str | None:
    if _ID.fullmatch(text):
        return None
    return f"`{text[:40]}` is not an id: small letters, digits and `-`, at most 64 of them."


def once(items: list[T]) -> list[T]:
    """Return a list in which nothing stands twice; raises :class:`ValueError`."""
    for index, item in enumerate(items):
        if item in items[:index]:
            raise ValueError(f"`{item}` stands twice in this list.")
    return items


def _not_blank(text: str) -> str | None:
    return None if text.strip() else "This must not be blank."


_ID_SCHEMA: Final = {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,63}$"}
Id = Annotated[str, AfterValidator(_without(_id_problem)), WithJsonSchema(_ID_SCHEMA)]
Text = Annotated[
    str,
    AfterValidator(_without(_not_blank)),
    WithJsonSchema({"type": "string", "pattern": r"\S", "maxLength": 1000}),
    Field(max_length=1000),
]
When = Annotated[
    str,
    AfterValidator(_reads_with(_condition)),
    WithJsonSchema({"type": "string", "minLength": 1, "examples": ['network.kind == "tor"']}),
]
WhenCalled = Annotated[
    str,
    AfterValidator(_reads_with(partial(_condition, fields=CALL_FIELDS))),
    WithJsonSchema(
        {"type": "string", "minLength": 1, "examples": ['"reasoning" in call.asks']},
    ),
]
"""A condition on the call alone."""
Country = Annotated[
    str,
    AfterValidator(_without(country_problem)),
    WithJsonSchema({"type": "string", "enum": sorted(COUNTRIES)}),
]
Subdivision = Annotated[
    str,
    AfterValidator(_without(subdivision_problem)),
    WithJsonSchema({"type": "string", "pattern": "^[A-Z]{2}-[A-Z0-9]{1,3}$"}),
]
Rate = Annotated[
    str,
    AfterValidator(_reads_with(rate_of)),
    WithJsonSchema({"type": "string", "examples": ["600/minute"], "pattern": f"^{RATE.pattern}$"}),
]
Duration = Annotated[
    str,
    AfterValidator(_reads_with(duration_s)),
    WithJsonSchema({"type": "string", "examples": ["10 minutes"]}),
]
Instant = Annotated[
    str,
    AfterValidator(_reads_with(instant_s)),
    WithJsonSchema({"type": "string", "examples": ["2026-01-31"], "pattern": "^[0-9]{4}-"}),
]
Asn = Annotated[int, Field(ge=1, le=4_294_967_295)]
Units = Annotated[int, Field(ge=1, le=MAX_UNITS)]
Tokens = Annotated[int, Field(ge=1, le=100_000_000)]
CentsPerMillion = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Required = Literal["ial1", "ial2"]
Partition = Literal[
    "everyone",
    "organization",
    "account",
    "key",
    "model",
    "campaign",
    "address",
    "prefix",
    "asn",
    "country",
]


class Part(BaseModel):
    """A mapping in a rule file: strict, and without keys that nobody knows."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class Rule(Part):
    """What every rule has."""

    id: Id
    """Name of the rule in records, metrics and exemptions; unique over all sections and files."""
    description: Text
    """What the rule is for, for people."""
    mode: Mode = Mode.ENFORCE
    """`shadow` only records what the rule would have done."""
