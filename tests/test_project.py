"""Habits of the project: contracts between files that no single file can hold."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import gatekeeper

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SKIPPED_FOLDERS = {"__pycache__", "build", "dist", "node_modules", "var"}


def texts() -> list[tuple[str, str]]:
    """Return every text file of the project with its path, the package included."""
    files: list[tuple[str, str]] = []
    package = Path(gatekeeper.__file__).parent
    for top in {ROOT, package.parent if package.parent == ROOT else package}:
        for file in sorted(top.rglob("*")):
            parts = file.relative_to(top).parts
            hidden = any(p.startswith(".") for p in parts[:-1] if p != ".ci")
            if hidden or SKIPPED_FOLDERS & set(parts) or not file.is_file():
                continue
            try:
                files.append(("/".join(parts), file.read_text(encoding="utf-8")))
            except UnicodeDecodeError:
                continue  # databases
    assert len(files) > 50
    return files


def pins(name: str) -> dict[str, str]:
    """Return the pinned version of each package in a requirement file."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9.-]+)(?:\[[a-z0-9,-]+\])?==(\S+)", text, re.MULTILINE))


EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]


def declared(*extras: str) -> list[Requirement]:
    """Return the requirements that pyproject.toml names, those of some extras too."""
    more = [line for extra in extras for line in EXTRAS[extra]]
    return [Requirement(line) for line in (*PROJECT["project"]["dependencies"], *more)]


# --- requirements ---


@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("run.txt", ()),
        ("watcher.txt", ("watcher",)),
        ("tracing.txt", ("tracing",)),
        ("exact-tokens.txt", ("tracing", "exact-tokens")),
        ("stix.txt", ("stix",)),
        ("dev.txt", tuple(EXTRAS)),
    ],
)
def test_requirement_files_match_the_project(name: str, extras: tuple[str, ...]) -> None:
    """Each declared package is pinned to a release that its declaration allows."""
    pinned = pins(name)
    for requirement in declared(*extras):
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


def test_requirement_files_agree_with_each_other() -> None:
    """What is tested is what runs: the same releases in all files."""
    run, dev, build = pins("run.txt"), pins("dev.txt"), pins("build.txt")
    tracing, exact = pins("tracing.txt"), pins("exact-tokens.txt")
    assert run.items() <= tracing.items() <= exact.items() <= dev.items()
    for extra in ("watcher.txt", "stix.txt"):
        assert run.items() <= pins(extra).items() <= dev.items()
    assert {**dev, **build} == {**build, **dev}
    assert "hatchling" in build


@pytest.mark.parametrize(
    "name",
    [
        *("run.txt", "watcher.txt", "tracing.txt", "exact-tokens.txt", "stix.txt", "dev.txt"),
        "build.txt",
    ],
)
def test_every_requirement_is_pinned_by_hash(name: str) -> None:
    """No line names an index, a file or an option; every pin has a SHA-256."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    entries = [e for e in text.replace("\\\n", " ").splitlines() if e and not e.startswith("#")]
    for entry in entries:
        assert re.fullmatch(
            r"[a-z0-9.-]+(\[[a-z0-9,-]+\])?==\S+(\s+;[^-]*)?(\s+--hash=sha256:[0-9a-f]{64})+", entry
        )


def test_decisions_give_a_reason_for_each_dependency() -> None:
    """The tables in docs/decisions.md list what pyproject.toml declares, no more and no less."""
    text = (ROOT / "docs/decisions.md").read_text(encoding="utf-8")
    section = text.split("## Dependencies")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| ([\w.-]+) \| (.+) \|$", section, re.MULTILINE))
    rows.pop("package")
    assert set(rows) == {requirement.name for requirement in declared(*EXTRAS)}
    run, _, extras = section.partition("### Extras")
    for requirement in declared():
        assert f"| {requirement.name} |" in run
        assert f"| {requirement.name} |" not in extras


# --- files ---


def test_no_file_names_a_registry_or_a_machine() -> None:
    """The project installs from whatever index pip is set up for, and runs wherever it lies."""
    hosts = ("pypi" + ".org", "pythonhosted" + ".org", "npmjs" + ".org", "npmjs" + ".com")
    lines = ("--index" + "-url", "--extra-index" + "-url", "--find" + "-links", "# syn" + "tax=")
    homes = re.compile(r"(?<![\w.])/(work|root|home/\w+|Users/\w+)/[\w.]")
    for path, text in texts():
        assert not [host for host in hosts if host in text], path
        if path != "docs/decisions.md":
            assert not [line for line in lines if f"\n{line}" in f"\n{text}"], path
        assert not homes.search(text), path


def test_the_licence_is_the_one_declared() -> None:
    """The whole Apache licence lies beside the code."""
    assert PROJECT["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_version_is_said_once_and_the_same() -> None:
    """Package and project agree; the changelog has a place for the next one."""
    assert gatekeeper.__version__ == PROJECT["project"]["version"]
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_package_tells_its_types() -> None:
    """PEP 561: users of the package get its types."""
    assert (Path(gatekeeper.__file__).parent / "py.typed").is_file()


# --- commands ---


def test_the_five_commands_are_there() -> None:
    """CONTRIBUTING names them and the Makefile has them."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for command in ("run", "test", "check", "fix", "bench"):
        assert command in targets
        assert f"| `make {command}` |" in guide
    for named in re.findall(r"`make ([a-z-]+)", guide):
        assert named in targets


def test_ci_calls_make_test() -> None:
    """What passes here passes there."""
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    assert script.read_text(encoding="utf-8").splitlines()[-1] == "exec make test"


# --- contracts ---


def test_the_tools_are_set_to_strict() -> None:
    """Ruff runs all rules, each ignore with a reason; mypy is strict; warnings are errors."""
    tool = PROJECT["tool"]
    assert tool["ruff"]["lint"]["select"] == ["ALL"]
    assert tool["mypy"]["strict"] is True
    assert tool["pytest"]["ini_options"]["filterwarnings"] == ["error"]
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    ignores = text.split("\nignore = [")[1].split("\n]")[0].strip().splitlines()
    assert len(ignores) == len(tool["ruff"]["lint"]["ignore"])
    assert all(re.search(r'",\s+# \S+', line) for line in ignores)


def test_the_contract_names_every_module() -> None:
    """A new module must be given its place among the layers, and none is listed twice."""
    (layers,) = (
        contract
        for contract in PROJECT["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    assert layers["exhaustive"] is True
    named = [name for layer in layers["layers"] for name in re.findall(r"\w+", layer)]
    package = Path(gatekeeper.__file__).parent
    modules = {file.stem for file in package.glob("*.py")} - {"__init__", "__main__"}
    rooms = {folder.name for folder in package.iterdir() if (folder / "__init__.py").is_file()}
    assert sorted(named) == sorted(modules | rooms)
