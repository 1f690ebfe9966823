"""Makes an SDK's own test suite ready to run: a copy, a Python for it, and its mock server.

Three things are changed in the copy, whatever it then runs against. The specification's paths get
the prefix ``/v1`` that the real service has, by which the gate knows its dialects. Files that the
mock server makes up hold a call, as the gate reads the file of a batch before it lets it through.
And the suite's made-up keys lose their spaces, as no bearer token can have any (RFC 6750, 2.1).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import shutil
import socket
import subprocess
import tomllib
import venv
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import click

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "conformance"
_PREFIX = "/v1"
_START_S = 60.0
_FILE = re.compile(
    r"(?m)(^  /files/\{file_id\}/content:\n(?: {4}.*\n)*? {12})application/json"
    r"(:\n {14}schema:\n {16}type: string\n)"
)
_CALL = '{"method":"POST","url":"/v1/responses","body":{"model":"m","input":"hi"}}'
_MOCK_FLAGS = tuple(
    f"--validator-{kind}-format=brackets"
    for kind in ("query-array", "form-array", "query-object", "form-object")
)
"""As ``scripts/mock`` of the suites has them."""


class CouldNotError(Exception):
    """Why a suite cannot be run."""


def _run(*command: str | Path, cwd: Path | None = None) -> None:
    """Run a command that must succeed, quietly unless it fails."""
    done = subprocess.run(
        [str(each) for each in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CouldNotError(f"{command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def _copied(checkout: Path, suite: Path) -> None:
    """Copy the suite, with keys that a bearer token can hold."""
    shutil.rmtree(suite, ignore_errors=True)
    shutil.copytree(checkout, suite, ignore=shutil.ignore_patterns(".git", ".venv", "node_modules"))
    for path in (suite / "tests").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        changed = re.sub(r"\bMy (?:\w+ )?API Key\b", lambda found: found[0].replace(" ", "-"), text)
        if changed != text:
            path.write_text(changed, encoding="utf-8")


def _prefixed(spec: Path, made: Path) -> str:
    """Copy a specification with :data:`_PREFIX` before its paths; return what base URLs end in.

    That is nothing where the paths, and so the SDK, have the prefix themselves.
    """
    if spec.suffix == ".json":
        document = json.loads(spec.read_bytes())
        paths = document["paths"]
        document["paths"] = {_PREFIX + path: item for path, item in paths.items()}
        text = json.dumps(document)
    else:  # as text, so that the rest stays as the mock server reads it
        text = _FILE.sub(rf"\1text/plain\2{' ' * 16}example: '{_CALL}'\n", spec.read_text("utf-8"))
        before, head, rest = re.split(r"(?m)(^paths:\s*\n)", text, maxsplit=1)
        end = re.search(r"(?m)^\w", rest)
        until = len(rest) if end is None else end.start()
        paths = re.findall(r"""(?m)^  ["']?(/.*)""", rest[:until])
        changed = re.sub(r"""(?m)^  (["']?)/""", rf"  \1{_PREFIX}/", rest[:until])
        text = before + head + changed + rest[until:]
    if all(path.startswith(f"{_PREFIX}/") for path in paths):
        shutil.copyfile(spec, made)
        return ""
    made.write_text(text, encoding="utf-8")
    return _PREFIX


def _python_for(suite: Path, folder: Path) -> Path:
    """Return a Python with the SDK and its own development packages; made once for each state."""
    declared = (suite / "pyproject.toml").read_bytes()
    project: dict[str, Any] = tomllib.loads(declared.decode())
    groups = [each for each in ("dev", "pydantic-v2") if each in project["dependency-groups"]]
    extras = ",".join(project["project"].get("optional-dependencies", ()))
    python, stamp = folder / "bin" / "python", folder / hashlib.sha256(declared).hexdigest()
    if not stamp.exists():
        click.echo("Installing the SDK with its development packages")
        venv.create(folder, clear=True, with_pip=True)
        pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
        _run(*pip, "pip>=25.1")  # knows dependency groups
        chosen = [word for group in groups for word in ("--group", group)]
        _run(*pip, *chosen, "--editable", f".[{extras}]" if extras else ".", cwd=suite)
        stamp.touch()
    return python


def _mock_for(suite: Path) -> Path:
    """Return the mock server that the suite names, in the version that it names."""
    names = [suite / "package.json", suite / "scripts" / "mock"]
    text = "".join(path.read_text(encoding="utf-8") for path in names if path.exists())
    found = re.search(r'@stdy/cli(?:"\s*:\s*"|@)([0-9][0-9A-Za-z.-]*)', text)
    if found is None:
        raise CouldNotError("The suite names no version of the mock server @stdy/cli.")
    folder = WORK / f"mock-{found[1]}"
    command = folder / "node_modules" / ".bin" / "steady"
    if not command.exists():
        click.echo(f"Installing the mock server @stdy/cli {found[1]}")
        folder.mkdir(parents=True, exist_ok=True)
        package = f"@stdy/cli@{found[1]}"
        _run("npm", "install", "--no-audit", "--no-fund", "--prefix", folder, package)
    return command


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite that is ready to run."""

    work: Path
    """Where its reports and logs go."""
    python: Path
    mock: Path
    spec: Path
    prefix: str
    """What its base URL ends in."""
    workers: int
    arguments: tuple[str, ...]

    @classmethod
    def of(cls, checkout: Path, spec: Path, workers: int, arguments: tuple[str, ...]) -> Suite:
        """Make all that it takes to run the suite of a checkout."""
        project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
        work = WORK / project["project"]["name"]
        work.mkdir(parents=True, exist_ok=True)
        made = work / f"spec{spec.suffix}"
        prefix = _prefixed(spec, made)
        _copied(checkout, work / "suite")
        python, mock = _python_for(work / "suite", work / "venv"), _mock_for(work / "suite")
        return cls(work, python, mock, made, prefix, workers, arguments)


@asynccontextmanager
async def mock_server(suite: Suite) -> AsyncIterator[str]:
    """Run the mock server of a suite; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with (suite.work / "mock.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(suite.mock, "--quiet", "--host", "127.0.0.1", "--port", str(port)),
            *(*_MOCK_FLAGS, suite.spec),
            stdout=log,
            stderr=log,
        )
        try:
            async with aiohttp.ClientSession() as session, asyncio.timeout(_START_S):
                while not await _healthy(session, url):
                    if process.returncode is not None:
                        raise CouldNotError(f"The mock server does not start: {log.name}")
                    await asyncio.sleep(0.1)
            yield url
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()  # it ends the process that it has started
            await process.wait()


async def _healthy(session: aiohttp.ClientSession, url: str) -> bool:
    """Tell whether the mock server answers."""
    try:
        async with session.get(f"{url}/_x-steady/health") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False
