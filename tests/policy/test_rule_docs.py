"""``docs/rules.md`` is in step with the code: every key, every example, every field of a case."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

from gatekeeper.policy.case_facts import REQUEST_FIELDS
from gatekeeper.policy.case_files import CaseFile, WantFile
from gatekeeper.policy.cases import parse_cases, run_case
from gatekeeper.policy.rule_files import EffectiveFile, PrivateFile, RuleFile
from gatekeeper.policy.rules import SECTIONS, parse_rules
from gatekeeper.policy.ruleset import RuleSet
from gatekeeper.policy.view import FIELDS

if TYPE_CHECKING:
    from pydantic import BaseModel

TEXT = (Path(__file__).parents[2] / "docs" / "rules.md").read_text()
PARTS = dict(re.findall(r"^## (\S.*?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMON = {"id", "description", "mode"}


def keys_of(model: type[BaseModel]) -> set[str]:
    """Name the keys of ``model`` as they are written in YAML."""
    return {field.alias or name for name, field in model.model_fields.items()}


def tables_of(part: str) -> list[list[str]]:
    """Return the first column of each table of a part of the document."""
    tables = re.findall(r"(?:^\|.*\n)+", PARTS[part], re.MULTILINE)
    return [re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE) for table in tables]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_of_every_section_is_explained(section: str) -> None:
    """The table of a section has its keys, in the order of the code, and no others."""
    (model,) = get_args(RuleFile.model_fields[section].annotation)
    keys = [field.alias or name for name, field in model.model_fields.items()]
    assert tables_of(section)[0] == [key for key in keys if key not in COMMON or "id" not in keys]


def test_every_other_key_is_explained() -> None:
    """So do the parts that are no lists of rules."""
    assert set(tables_of("Every rule")[0]) == COMMON
    assert set(tables_of("private")[0]) == keys_of(PrivateFile)
    assert set(tables_of("embargo")[1]) == keys_of(EffectiveFile)
    assert set(tables_of("Cases")[0]) == keys_of(CaseFile)
    assert set(tables_of("Cases")[1]) == keys_of(WantFile)
    assert set(tables_of("Cases")[2]) == REQUEST_FIELDS.keys() - FIELDS.keys()
    assert keys_of(RuleFile) <= {*PARTS, "version"}


def test_every_example_holds() -> None:
    """The examples together are a rule set, and the cases among them pass."""
    *files, cases = EXAMPLES
    rules = parse_rules({f"{number:02}.yaml": text for number, text in enumerate(files)})
    assert isinstance(rules, RuleSet), [str(mistake) for mistake in rules]
    read = parse_cases({"cases.yaml": cases})
    assert isinstance(read, tuple), read
    assert {case.name: run_case(case, rules).differences for case in read} == {
        case.name: () for case in read
    }
