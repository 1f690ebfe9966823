"""Time one run of the detector and take its peak memory, by number of accounts.

Run with ``python -m bench.watcher [ACCOUNTS ...]`` or ``python bench/watcher.py`` from the root of
the project; 10,000 and 100,000 accounts unless told otherwise. Each size is measured in a process
of its own, on one thread, over one window of a day.

Degrees: an account calls three times and more, six in the mean, with a heavy tail, up to eight
addresses, of a pool in which strangers meet now and then; by twos they share a card, a signup and a
pattern of mail, six of ten a scaffold, the others a public one or none: about five links each. One
in a hundred is of a campaign of 500: a scaffold, cards by threes, a mail pattern, 12 calls each.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import duckdb

from gatekeeper.campaigns.detector import Detector
from gatekeeper.campaigns.options import DAY_S, DetectionOptions

SIZES = (10_000, 100_000)
START = 1_776_816_000
CALLS = 24
MIB = 1 << 20

DIGEST = "(CAST(hash({}) >> 4 AS BIGINT) + 1)"
# The words put in are our own.
MAKE = f"""
COPY (
  WITH drawn AS (
    SELECT account AS n, call AS c, account % 100 = 0 AS bot, account // 50000 AS cell,
           hash(account * 32 + call) AS chance, hash(account + 77) AS luck
    FROM range({{accounts}}) AS a(account), range({CALLS}) AS b(call)
    WHERE call < CASE WHEN account % 100 = 0 THEN 12
      ELSE 3 / sqrt((hash(account + 5) % 1000 + 1) / 1000.0) END
  ), seen AS (
    SELECT *, CAST(hash(n * 8 + LEAST(c, 7) + 5) % ({{accounts}} * 60) AS BIGINT) AS place
    FROM drawn
  )
  SELECT {START} + CAST(chance % 86399 AS DOUBLE) AS "at", 'i' || n || '-' || c AS id,
    'account-' || n AS account, CAST(NULL AS VARCHAR) AS organization, 'none' AS assurance,
    'standard' AS tier,
    {START} - CAST(CASE WHEN bot THEN luck % 864000
      ELSE hash(n // 2 + 7) % 34560000 END AS DOUBLE) AS created_at,
    {DIGEST.format("CASE WHEN bot THEN -1 - n // 300 ELSE n // 2 END")} AS payment,
    {DIGEST.format("CASE WHEN bot THEN -7 - n ELSE n // 2 + 11 END")} AS signup,
    {DIGEST.format("CASE WHEN bot THEN -900 - cell ELSE n // 2 END")} AS mail,
    'allow' AS verdict, TRUE AS admitted, 'model-1' AS model,
    CAST(900 AS BIGINT) AS input_tokens, CAST(300 AS BIGINT) AS output_tokens,
    {DIGEST.format("place")} AS address, {DIGEST.format("place // 200 + 3")} AS prefix,
    CAST(64500 AS INTEGER) AS asn, 'residential' AS kind, 'US' AS country, FALSE AS egress,
    '00000000' AS epoch, {DIGEST.format("luck % 12 + 900")} AS client,
    CAST(1 AS BIGINT) AS headers, {{system}} AS system, CAST(0 AS BIGINT) AS tools,
    CAST(0 AS BIGINT) AS format, {{system}} AS scaffold,
    [{{system}} + 1, {DIGEST.format("chance")}] AS blocks,
    {DIGEST.format("chance % 60 + 40")} AS shape, CAST([] AS VARCHAR[]) AS asks,
    CASE WHEN bot THEN ['reasoning'] ELSE CAST([] AS VARCHAR[]) END AS capabilities,
    CAST(NULL AS VARCHAR) AS campaign, CAST(NULL AS VARCHAR) AS stage
  FROM seen
) TO '{{path}}' (FORMAT parquet)
"""  # noqa: S608
SYSTEM = (
    f"CASE WHEN bot THEN {DIGEST.format('-5000 - cell')} WHEN n % 10 < 6 "
    f"THEN {DIGEST.format('n // 2 + 123456789')} WHEN n % 10 < 8 THEN 42 ELSE 0 END"
)


def make(directory: Path, accounts: int) -> None:
    """Write the sightings of a day."""
    folder = directory / "sightings" / "day=2026-04-22"
    folder.mkdir(parents=True)
    duckdb.sql(MAKE.format(accounts=accounts, system=SYSTEM, path=folder / "a.parquet"))


def measure(directory: Path) -> None:
    """Run the detector once, and print what it took as JSON."""
    began = time.perf_counter()
    options = DetectionOptions(windows_s=(DAY_S,), memory_mib=2_048)
    findings = Detector(directory, options).run(START + DAY_S)
    took = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    flagged = [each for each in findings.groups if each.score >= 60]
    print(
        json.dumps(
            {
                "seconds": took,
                "cpu": used.ru_utime + used.ru_stime,
                "mib": used.ru_maxrss * 1024 / MIB,
                "links": findings.windows[0].links,
                "groups": len(flagged),
                "members": sum(len(each.members) for each in flagged),
            }
        )
    )


def main() -> None:
    """Measure each size in a process of its own."""
    if sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]))
        return
    if sys.argv[1:2] == ["--make"]:
        make(Path(sys.argv[2]), int(sys.argv[3]))
        return
    sizes = [int(each) for each in sys.argv[1:]] or list(SIZES)
    print("  accounts      links  seconds  of CPU  peak MiB  groups  members")
    for accounts in sizes:
        with tempfile.TemporaryDirectory() as directory:
            command = [sys.executable, __file__]
            subprocess.run([*command, "--make", directory, str(accounts)], check=True)
            told = subprocess.run(
                [*command, "--measure", directory], check=True, capture_output=True
            )
        found = json.loads(told.stdout)
        print(
            f"{accounts:>10,} {found['links']:>10,} {found['seconds']:>8.1f} "
            f"{found['cpu']:>7.1f} {found['mib']:>9.0f} {found['groups']:>7} {found['members']:>8,}"
        )


if __name__ == "__main__":
    main()
