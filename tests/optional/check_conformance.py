"""Run an SDK's own test suite bare and through a gate: what passes bare must pass through it.

Not part of ``make test``, which has no checkout: ``make conformance SUITE=...`` runs it. The suite
speaks to the mock server that it names itself (npm ``@stdy/cli``) over the specification of its
API. All that is made lies in ``build/conformance``; the checkout stays as it is. What is changed in
the copy that runs, bare as well, is told in ``tests/support/sdk_suite.py``.

Exit codes: 0, nothing is lost; 1, a test passes bare and not through the gate; 2, it could not run.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import click
from support.gates import rules_text
from support.sdk_suite import CouldNotError, Suite, mock_server
from support.served import served

from gatekeeper.settings import Geoip

ROOT = Path(__file__).parents[2]
SPEC = "api_reference/openapi.transformed.yml"
MOST_TOLD = 10
GENEROUS = """
limits:
  - {id: calls, description: C., unit: requests, per: [account], rate: 1000000/minute}
  - {id: input, description: I., unit: input_tokens, per: [account], rate: 100000000/minute}
  - {id: output, description: O., unit: output_tokens, per: [account], rate: 100000000/minute}
"""
"""Limits that nobody reaches, so that every call is reserved for and settled."""


def say(line: str = "") -> None:
    """Print one line at once."""
    click.echo(line)
    sys.stdout.flush()


async def tested(suite: Suite, name: str, url: str) -> dict[str, str]:
    """Run the suite against ``url``; return each test's result: passed, failed or skipped."""
    report, log = suite.work / f"{name}.xml", suite.work / f"{name}.log"
    report.unlink(missing_ok=True)
    say(f"Running the suite, {name}")
    environ = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("OPENAI_", "ANTHROPIC_", "PYTHON", "PYTEST_"))
    }
    environ |= {"TEST_API_BASE_URL": url + suite.prefix, "DEFER_PYDANTIC_BUILD": "false"}
    process = await asyncio.create_subprocess_exec(
        *(suite.python, "-m", "pytest", "-q", "-n", str(suite.workers), "-p", "no:cacheprovider"),
        *(f"--junitxml={report}", *(suite.arguments or ("tests",))),
        cwd=suite.work / "suite",
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    told, last = 0, b""
    with log.open("wb") as written:
        async for line in process.stdout:
            written.write(line)
            last = line.strip() or last
            percent = re.search(rb"\[ *(\d+)%\]", line)
            if percent is not None and int(percent[1]) >= told + 10:
                told = int(percent[1])
                say(f"  {told} %")
    if await process.wait() not in {0, 1} or not report.exists():
        raise CouldNotError(f"The suite did not run: {log}")
    say(f"  {last.decode(errors='replace')}")
    return results(report)


def results(report: Path) -> dict[str, str]:
    """Read a JUnit report."""
    found: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - written by the run above
        kinds = {child.tag for child in case}
        result = "failed" if kinds & {"failure", "error"} else "passed"
        result = "skipped" if "skipped" in kinds else result
        found[f"{case.get('classname')}::{case.get('name')}"] = result
    return found


async def both(suite: Suite) -> tuple[dict[str, str], dict[str, str], Counter[tuple[str, str]]]:
    """Run the suite twice; return both results, and the gate's decisions by dialect and verdict."""
    rules, nothing = rules_text(GENEROUS), Geoip(databases=(), networks=())
    with tempfile.TemporaryDirectory() as folder:
        async with (
            mock_server(suite) as url,
            served(
                *(Path(folder) / "gate", nothing, url), rules=rules, control_routes="meter"
            ) as gate,
        ):
            bare = await tested(suite, "bare", url)
            through = await tested(suite, "gate", f"http://127.0.0.1:{gate.port}")
            gate.terminate()  # so that every record is on the disk
            await gate.ended()
            records = gate.records()
    decisions = [each for each in records if each["kind"] == "decision"]
    calls = Counter(
        (each["facts"]["call"].get("dialect", "plain"), each["verdict"]) for each in decisions
    )
    return bare, through, calls


# --- what came of it ---


def part_of(test: str) -> str:
    """Return the API resource that a test is about; what calls no API is one part."""
    names = test.partition("::")[0].split(".")
    return names[2].removeprefix("test_") if names[1] == "api_resources" else "(the SDK itself)"


def compared(bare: dict[str, str], through: dict[str, str]) -> list[str]:
    """Print both results side by side; return the tests that pass bare and not through the gate."""
    lost = sorted(test for test, how in bare.items() if how == "passed" != through.get(test))
    rows = Counter((part_of(test), "tests") for test in bare)
    rows += Counter((part_of(test), "bare") for test, how in bare.items() if how == "passed")
    rows += Counter((part_of(test), "gate") for test, how in through.items() if how == "passed")
    rows += Counter((part_of(test), "lost") for test in lost)
    columns = ("tests", "bare", "gate", "lost")
    say(f"\n{'part':<28}" + "".join(f"{name:>8}" for name in columns))
    for part in sorted({part for part, _ in rows}):
        say(f"{part:<28}" + "".join(f"{rows[part, name]:>8}" for name in columns))
    totals = [sum(count for (_, kind), count in rows.items() if kind == name) for name in columns]
    say(f"{'all':<28}" + "".join(f"{total:>8}" for total in totals))
    failed = sorted(test for test, how in bare.items() if how == "failed")
    for test in failed[:MOST_TOLD]:
        say(f"fails bare too: {test}")
    if len(failed) > MOST_TOLD:
        say(f"and {len(failed) - MOST_TOLD} more")
    return lost


def replayed(checkout: Path) -> bool:
    """Replay the streams recorded in a checkout of the Anthropic SDK; tell whether all is well."""
    say(f"\nReplaying the streams of {checkout}")
    tests = ROOT / "tests" / "e2e" / "test_anthropic_streams.py"
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests))
    environ = {**os.environ, "ANTHROPIC_SUITE": str(checkout)}
    return subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode == 0


FOLDER = click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path)


@click.command()
@click.option("--suite", type=FOLDER, help="Checkout of an SDK whose tests use @stdy/cli.")
@click.option(
    "--spec",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
    help=f"OpenAPI document for the mock server; default: {SPEC} in the suite.",
)
@click.option("--anthropic-suite", type=FOLDER, help="Checkout whose recorded streams to replay.")
@click.option("--workers", default=2, show_default=True, help="Processes that run tests.")
@click.argument("arguments", nargs=-1)
def main(
    suite: Path | None,
    spec: Path | None,
    anthropic_suite: Path | None,
    workers: int,
    arguments: tuple[str, ...],
) -> None:
    """Compare what an SDK's suite says with and without the gate.

    ARGUMENTS go to the suite's pytest, behind `--`: paths from the checkout, `-k`, and so on.
    """
    if suite is None and anthropic_suite is None:
        raise click.UsageError("Name a checkout: make conformance SUITE=... or ANTHROPIC_SUITE=...")
    well = anthropic_suite is None or replayed(anthropic_suite)
    if suite is not None:
        try:
            ready = Suite.of(suite, spec or suite / SPEC, workers, arguments)
            bare, through, calls = asyncio.run(both(ready))
        except (CouldNotError, OSError, TimeoutError, AssertionError) as error:
            say(str(error) or "The mock server or the gate does not start.")
            raise SystemExit(2) from error
        lost = compared(bare, through)
        say("\ncalls through the gate, by dialect and verdict")
        for (dialect, verdict), count in sorted(calls.items()):
            say(f"{dialect:<30}{verdict:<16}{count:>8}")
        for test in lost:
            say(f"LOST: {test}")
        say(f"\n{len(lost)} tests are lost: they pass bare, and not through the gate.")
        well = well and not lost and bool(calls)  # without a call, nothing is shown
    raise SystemExit(0 if well else 1)


if __name__ == "__main__":
    main()
