"""What the documents say can be done, can be done: links, commands, examples, words."""

from __future__ import annotations

import enum
import importlib
import json
import re
import shlex
import xml.etree.ElementTree as ET
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner

from gatekeeper.cli import main
from gatekeeper.listener.own_limits import OWN_LIMITS
from gatekeeper.policy import lifecycles, ruleset, words
from gatekeeper.policy.cases import parse_cases, run_case
from gatekeeper.policy.ratelimit_headers import OwnLimit
from gatekeeper.policy.rules import parse_rules
from gatekeeper.policy.ruleset import RuleSet
from gatekeeper.policy.strict_yaml import Document, read_yaml
from gatekeeper.settings import Settings
from gatekeeper.settings.load import FILE_VARIABLE, load_settings
from gatekeeper.settings.shape import PREFIX, place_of, type_at
from gatekeeper.storage.records_schema import PATCH_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "geoip" / "README.md"])
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
OURS = [
    "README.md",
    "docs/monitoring.md",
    "docs/operations.md",
    "docs/records.md",
    "docs/sidecar.md",
]
"""Pages whose examples of YAML and variables are checked here; others have tests of their own."""

FENCE = re.compile(r"^ {0,3}```(\w*)\n(.*?)^ {0,3}```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
COMMAND = re.compile(r"(?<![\w./-])gatekeeper(?: gatekeeper)? ((?:[a-z-]|\\\n)[^`|;&>)\n#]*)")
SHELLS = {"sh", "shell", "bash"}


def fences(page: str, *languages: str) -> list[str]:
    """Return the fenced blocks of a page in these languages."""
    return [text for language, text in FENCE.findall(TEXTS[page]) if language in languages]


def spans(page: str) -> list[str]:
    """Return the inline code of a page, without what is fenced."""
    return [" ".join(span.split()) for span in SPAN.findall(FENCE.sub("", TEXTS[page]))]


def anchors(text: str) -> set[str]:
    """Return the anchors that headings make, as GitHub spells them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- links ---


def links() -> Iterator[tuple[str, str]]:
    """Yield every link to something of this project, with its page."""
    for page, text in TEXTS.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
            if not re.match(r"https?:|mailto:", target):
                yield page, target


@pytest.mark.parametrize(("page", "target"), sorted(set(links())))
def test_links_lead_somewhere(page: str, target: str) -> None:
    """A relative link names a file that exists, and a heading in it."""
    path, _, anchor = target.partition("#")
    file = (ROOT / page).parent / path if path else ROOT / page
    assert file.is_file()
    if anchor:
        assert anchor in anchors(file.read_text(encoding="utf-8"))


def test_readme_leads_to_every_page() -> None:
    """No document is left that a newcomer cannot find."""
    linked = {target.partition("#")[0] for page, target in links() if page == "README.md"}
    assert {page for page in TEXTS if page.startswith("docs/")} <= linked


def test_the_picture_can_be_read_by_everybody() -> None:
    """It is well-formed, says in words what it shows, and has colours for dark pages."""
    text = (ROOT / "docs" / "request-path.svg").read_text(encoding="utf-8")
    picture = ET.fromstring(text)  # noqa: S314 - our own file
    name = "{http://www.w3.org/2000/svg}"
    named = {child.get("id"): child.text or "" for child in picture}
    assert picture.get("role") == "img"
    assert all(named[part] for part in (picture.get("aria-labelledby") or "").split())
    assert "prefers-color-scheme: dark" in (picture.findtext(f"{name}style") or "")
    shown = " ".join("".join(each.itertext()) for each in picture.iter(f"{name}text"))
    for step in ("Observe", "Screen", "Assess", "Reserve", "Conclude", "Forward"):
        assert step in shown
        assert step.lower() in named["desc"]


# --- files and commands ---


@pytest.mark.parametrize("page", TEXTS)
def test_files_that_are_named_exist(page: str) -> None:
    """A path of the project in inline code leads to a file or folder."""
    of_the_reader = {"rules/ours.yaml", "rules/ours-limits.yaml", "rules/cases/ours.yaml"}
    folders = "bench|deploy|docs|geoip|gatekeeper|requirements|rules|tests"
    for span in spans(page):
        path = span.split("::")[0]
        if re.fullmatch(rf"({folders})/[\w./-]*", path) and path not in of_the_reader:
            package = Path(importlib.import_module("gatekeeper").__file__ or "").parents[1]
            assert (ROOT / path).exists() or (package / path).exists(), path


@pytest.mark.parametrize("page", TEXTS)
def test_make_targets_exist(page: str) -> None:
    """Every ``make x`` in code is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    code = "\n".join([*fences(page, *SHELLS), *spans(page)])
    assert set(re.findall(r"(?:^|[\s;&])make ([a-z][a-z-]*)", code)) <= targets


def commands(page: str) -> Iterator[tuple[str, bool]]:
    """Yield what follows ``gatekeeper`` in code, and whether it is meant to be typed as it is."""
    for text in fences(page, *SHELLS):
        for found in COMMAND.findall(text.replace("\\\n", " ")):
            yield found, True
    for span in spans(page):
        if span.startswith("gatekeeper ") and not span.startswith("gatekeeper COMMAND"):
            yield span.removeprefix("gatekeeper "), False


def wrong_with(arguments: list[str], *, whole: bool) -> str | None:
    """Parse a command line as click would, without running it or looking at files."""
    command: click.Command = main
    context = click.Context(main, info_name="gatekeeper")
    while isinstance(command, click.Group) and arguments:
        name, *arguments = arguments
        if name.startswith("-"):
            return f"no option of a group: {name}"
        found = command.get_command(context, name)
        if found is None:
            return f"no such command: {name}"
        command, context = found, click.Context(found, parent=context, info_name=name)
    if isinstance(command, click.Group):
        return "a command is missing" if whole else None
    try:
        values, rest, _ = command.make_parser(context).parse_args(list(arguments))
    except click.UsageError as error:
        return error.format_message()
    if rest:
        return f"too much: {rest}"
    for parameter in command.params if whole else ():
        if isinstance(parameter, click.Argument) and parameter.required:
            value = values.get(parameter.name or "")
            if not isinstance(value, (str, tuple)) or not value:
                return f"{parameter.name} is missing"
    return None


@pytest.mark.parametrize("page", TEXTS)
def test_command_lines_parse(page: str) -> None:
    """Every command line that is shown names a command, its options, and no more."""
    for line, whole in commands(page):
        assert wrong_with(shlex.split(line), whole=whole) is None, line


def test_the_parser_of_commands_can_tell() -> None:
    """The test above would see a wrong command, option or argument."""
    assert wrong_with(["chek"], whole=True) == "no such command: chek"
    assert "No such option" in (wrong_with(["check", "--ruels", "x"], whole=True) or "")
    assert wrong_with(["check", "more"], whole=True) == "too much: ['more']"
    assert wrong_with(["keys", "create"], whole=True) == "account is missing"
    assert wrong_with(["keys", "create"], whole=False) is None
    assert len([line for page in OURS for line, _ in commands(page)]) >= 15  # and it sees them


def test_flags_of_the_tour_are_what_help_prints() -> None:
    """The flags that documents name beside ``serve`` are in its help."""
    told = CliRunner().invoke(main, ["serve", "--help"]).stdout
    for page in OURS:
        for flag in re.findall(r"`(--(?:mode|demo|upstream|port)\b[\w-]*)", TEXTS[page]):
            assert flag in told


# --- examples ---


def yaml_blocks() -> Iterator[Any]:
    """Yield every example of YAML, named by its page and place."""
    for page in OURS:
        for number, text in enumerate(fences(page, "yaml", "yml")):
            yield pytest.param(text, id=f"{page}-{number}")


def rules_with(text: str) -> RuleSet | list[Any]:
    """Read an example together with the default rules; a section ``private`` replaces theirs."""
    files = {
        path.name: path.read_text(encoding="utf-8")
        for path in (ROOT / "rules").glob("*.yaml")
        if not (path.name == "private.yaml" and "\nprivate:" in text)
    }
    return parse_rules({**files, "ours.yaml": text})


def examples_of_rules() -> dict[str, str]:
    """Return the rule files of the README by the ids in them."""
    files = [text for text in fences("README.md", "yaml") if text.startswith("version: 1\n")]
    return {found: text for text in files for found in re.findall(r"- id: (\S+)", text)}


@pytest.mark.parametrize("text", list(yaml_blocks()))
def test_examples_of_yaml_hold(text: str, tmp_path: Path) -> None:
    """An example is what it looks like: rules, cases, settings, or YAML for somebody else."""
    document = read_yaml(text, "example.yaml", require_end=False)
    assert isinstance(document, Document), document
    value = document.value
    if isinstance(value, list):
        cases = parse_cases({"cases.yaml": text})
        assert isinstance(cases, tuple), cases
        named = {rule for case in cases for rule in case.want.rules or ()}
        rules = rules_with(next(examples_of_rules()[rule] for rule in named))
        assert isinstance(rules, RuleSet), rules
        assert [run_case(case, rules).differences for case in cases] == [()] * len(cases)
    elif "version" in value:
        rules = rules_with(text)
        assert isinstance(rules, RuleSet), rules
    elif set(value) & {"services", "containers"}:
        settings = set(re.findall(rf"\b{PREFIX}[A-Z0-9_]+", text)) - {FILE_VARIABLE}
        assert all(type_at(place_of(variable)) for variable in settings)
    else:
        file = tmp_path / "gatekeeper.yaml"
        file.write_text(text, encoding="utf-8")
        settings = load_settings(file, {}, {})
        assert isinstance(settings, Settings), settings


@pytest.mark.parametrize("page", OURS)
def test_variables_that_are_named_exist(page: str) -> None:
    """A variable with our prefix is a setting, or names the settings file."""
    for variable in set(re.findall(rf"\b{PREFIX}[A-Z0-9_]+", TEXTS[page])) - {FILE_VARIABLE}:
        assert type_at(place_of(variable)) is not None, variable


def test_every_figure_names_the_command_that_made_it() -> None:
    """The section of figures names scripts of bench/ that exist, and the day they were run."""
    section = TEXTS["README.md"].split("### Measured")[1].split("\n## ")[0]
    scripts = set(re.findall(r"bench/[a-z_]+\.py", section))
    assert scripts >= {"bench/proxy.py", "bench/decision.py", "bench/conditions.py"}
    assert all((ROOT / script).is_file() for script in scripts)
    assert re.search(r"\b20\d\d\b", section)


# --- records ---


def test_every_field_of_an_account_and_an_organization_is_explained() -> None:
    """Their tables list what may be set, no more and no less."""
    parts = TEXTS["docs/records.md"].split("\n## ")[1:3]
    found = [re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE) for part in parts]
    assert sorted(found[0]) == sorted(PATCH_FIELDS)
    assert found[1] == ["name", "verified", "egress"]


# --- callers ---


def test_every_field_that_a_caller_reads_of_a_limit_is_explained() -> None:
    """The table and the example have the fields of the answer, in its order."""
    page = TEXTS["docs/callers.md"].split("## Your limits")[1]
    (example,) = fences("docs/callers.md", "json")
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(OwnLimit.__struct_fields__)
    assert list(json.loads(example)["limits"][0]) == list(OwnLimit.__struct_fields__)
    assert {unit.value for unit in words.Unit} <= set(SPAN.findall(page))
    assert f"GET {OWN_LIMITS}" in page


# --- words ---

ENTRIES = dict(
    re.findall(
        r"^## (\w+)\n\n(.*?)(?=^## |\Z)", TEXTS["docs/glossary.md"], re.MULTILINE | re.DOTALL
    )
)


def code_of(entry: str) -> Any:
    """Return the class or module that an entry says it stands for."""
    found = re.match(r"In code: `(gatekeeper[\w.]+)`\n", entry)
    assert found is not None, entry
    try:
        return importlib.import_module(found[1])
    except ModuleNotFoundError:
        module, _, name = found[1].rpartition(".")
        thing = getattr(importlib.import_module(module), name)
        assert thing.__module__ == module, "it is only imported there"
        return thing


@pytest.mark.parametrize("word", ENTRIES)
def test_each_word_stands_for_something_in_the_code(word: str) -> None:
    """A heading is the name of a class, or a word that the module named there is about."""
    thing = code_of(ENTRIES[word])
    if isinstance(thing, type):
        assert thing.__name__ in {word, f"{word}Rule"}
    else:
        assert word.lower() in (thing.__doc__ or "").lower()


def enumerations() -> list[type[Enum]]:
    """Return the enumerations of policy whose values people meet."""
    everything = [*vars(words).values(), *vars(ruleset).values(), lifecycles.CaseState]
    found = {each for each in everything if isinstance(each, type) and issubclass(each, Enum)}
    return sorted(found - {enum.StrEnum, enum.IntEnum}, key=lambda each: each.__name__)


@pytest.mark.parametrize("kind", enumerations())
def test_every_value_of_an_enumeration_is_in_its_entry(kind: type[Enum]) -> None:
    """Reasons have a page of their own; all other values stand under their word."""
    entry = ENTRIES[kind.__name__]
    assert code_of(entry) is kind
    if kind is words.Reason:
        assert "(reasons.md)" in entry
        return
    values = {each.word if isinstance(each, words.Verdict) else each.value for each in kind}
    assert values <= set(SPAN.findall(entry))


def test_words_of_the_request_path_are_there() -> None:
    """The words that records and rules use each have an entry."""
    assert set(ENTRIES) >= {
        *("Call", "NetworkFacts", "Account", "Signal", "Contribution", "RiskScore", "Rule"),
        *("RuleSet", "Mode", "Verdict", "Reason", "Decision", "Obligation", "Quota", "Bucket"),
        *("Reservation", "LimitStatus", "CaseState", "Snapshot", "OnFailure", "Tier", "Unit"),
        *("NetworkKind", "Assurance", "CredentialKind", "LookupStatus"),
    }
