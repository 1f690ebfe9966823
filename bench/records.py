"""The records of a fleet: import, the replica in memory, and what following them costs a node.

Example: python bench/records.py --url postgresql://gate@host/records
         python bench/records.py --accounts 10000    (SQLite, and PostgreSQL if its wheel is there)

The URL must lead to an empty database of its own: a hundred thousand accounts stay in it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import tempfile
import time
import tracemalloc
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from gatekeeper.facts.address import AddressSource, ClientAddress
from gatekeeper.facts.directory import Directory
from gatekeeper.policy.model import Account, NetworkFacts
from gatekeeper.policy.words import Tier
from gatekeeper.storage.account_search import AccountQuery
from gatekeeper.storage.organizations import OrganizationPatch, Organizations
from gatekeeper.storage.records import Records
from gatekeeper.storage.records_schema import AccountPatch, KeyRow

if TYPE_CHECKING:
    from collections.abc import Iterator

AT = 1_790_000_000.0
_BEATS_S = 0.001
_POLLS = 400


class Pulse:
    """Notices for how long the event loop was at work without a pause.

    In CPU time of the loop's thread, which neighbours on the machine do not add to.
    """

    def __init__(self) -> None:
        self._worst_s = 0.0
        self._began = time.perf_counter(), time.process_time()
        self._task = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(_BEATS_S)
            self._worst_s = max(self._worst_s, time.thread_time() - before)

    def stop(self) -> str:
        """Stop and say it."""
        self._task.cancel()
        wall_s, cpu_s = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        return (
            f"{wall_s:8.1f} s, {cpu_s:.1f} s CPU, loop at work {self._worst_s * 1e3:.0f} ms at most"
        )


def accounts(count: int) -> Iterator[AccountPatch]:
    """Yield accounts as an operator's system pushes them."""
    for number in range(count):
        yield AccountPatch(
            f"acct_{number:08d}",
            {
                "organization": f"org-{number % 500}",
                "tier": Tier.STANDARD,
                "created_at": AT - number,
                "email_domain": f"example-{number % 900}.com",
                "email_pattern": "aaaa.9999",
                "email_digest": f"{number:032x}",
                "payment_fingerprint": f"pm_{number % 70_000:012d}",
                "signup_address": f"8.8.{number >> 8 & 255}.{number & 255}",
            },
        )


def no_lists(_: str | None) -> tuple[str, ...]:
    """Know of no list of mail domains."""
    return ()


async def measure(url: str, count: int) -> None:
    """Print everything about one database."""
    print(f"-- {url.split(':', 1)[0]}, {count:,} accounts")
    began = time.perf_counter()
    records = await Records.open(url)
    print(f"open, tables made               {(time.perf_counter() - began) * 1e3:8.0f} ms")
    again = time.perf_counter()
    await (await Records.open(url)).close()
    print(f"open, tables there              {(time.perf_counter() - again) * 1e3:8.0f} ms")

    patches = list(accounts(count))
    pulse = Pulse()
    await records.import_accounts(patches, at=AT)
    print(f"import                          {pulse.stop()}")

    for number in range(count // 100):
        row = KeyRow(f"gk_{number}", number.to_bytes(32, "big"), f"acct_{number:08d}")
        await records.create_key(row)
    await in_memory(records, count)
    await following(records, url, count)
    await searching(records)
    await records.close()


async def in_memory(records: Records, count: int) -> None:
    """Load the replica: time, hold-ups, and the memory of an account."""
    pulse = Pulse()
    await Directory.load(records, mail_listed_by=no_lists, at=AT)
    print(f"replica loaded                  {pulse.stop()}")
    gc.collect()
    tracemalloc.start()
    directory = await Directory.load(records, mail_listed_by=no_lists, at=AT)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"memory of an account            {held / count:8.0f} bytes")

    await Organizations(records.database).put(
        OrganizationPatch("org-1", {"egress": ("8.8.0.0/16", "9.9.9.0/24", "2001:4860::/32")}),
        at=AT,
    )
    await directory.refresh(AT)
    network = NetworkFacts("8.8.8.0/24", "a" * 32, "b" * 32)
    client = ClientAddress(ip_address("8.8.8.8"), AddressSource.PEER)
    for name, organization in (("none", None), ("without", "org-2"), ("with ranges", "org-1")):
        account = Account("a", known=True, organization=organization)
        began = time.process_time()
        for _ in range(100_000):
            directory.placed(network, client, account)
        each_us = (time.process_time() - began) * 10
        print(f"placing a call, organization {name:12}{each_us:8.2f} us CPU")


async def following(records: Records, url: str, count: int) -> None:
    """Follow: CPU of a look that finds nothing, and a large import seen by a running node."""
    directory = await Directory.load(records, mail_listed_by=no_lists, at=AT)
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(_POLLS):
        await directory.refresh(AT)
    cpu_us = (time.process_time() - cpu) / _POLLS * 1e6
    wall_us = (time.perf_counter() - began) / _POLLS * 1e6
    print(f"a look that finds nothing new   {cpu_us:8.0f} us CPU, {wall_us:.0f} us in all")

    other = await Records.open(url)
    waits = []
    for number in range(50):
        await other.upsert_account(AccountPatch(f"acct_{number:08d}", {}), at=AT)
        began = time.perf_counter()
        await directory.refresh(AT)
        waits.append(time.perf_counter() - began)
    print(f"a look that finds one change    {sorted(waits)[25] * 1e3:8.1f} ms (median)")
    await other.import_accounts(list(accounts(count)), at=AT)
    await other.close()
    pulse = Pulse()
    await directory.refresh(AT)
    print(f"all accounts changed            {pulse.stop()}")


async def searching(records: Records) -> None:
    """Search: by an index, and through all accounts for what hardly any has."""
    for name, query in (
        ("by organization", AccountQuery(organization="org-7")),
        ("by prefix of the id", AccountQuery(id_prefix="acct_000999")),
        ("for a ban nobody has", AccountQuery(banned=True)),
    ):
        began = time.perf_counter()
        await records.search(query, at=AT)
        print(f"search {name:24} {(time.perf_counter() - began) * 1e3:8.1f} ms")


def main() -> None:
    """Measure the URL that is given, or what is on this machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url")
    parser.add_argument("--accounts", type=int, default=100_000)
    chosen = parser.parse_args()
    if chosen.url:
        asyncio.run(measure(chosen.url, chosen.accounts))
        return
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(f"sqlite:///{Path(folder) / 'records.db'}", chosen.accounts))
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support.postgres import running_postgres  # noqa: PLC0415 - for who has the tests' packages

    for postgres in running_postgres():
        asyncio.run(measure(postgres.new_url(), chosen.accounts))


if __name__ == "__main__":
    main()
