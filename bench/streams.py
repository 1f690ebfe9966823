"""Streams: what the gate adds to first tokens and gaps, its CPU per chunk, its memory per stream.

Example: python bench/streams.py --rounds 3

All run in the same session, the proxies on one pinned core, callers and endpoint on the other, in
interleaved rounds. Times are what a proxy adds to the median of the same streams without any. CPU
is user + system time of the proxy's process tree; "steady" is that of a chunk while all streams are
open, beyond what the proxy takes "idle", in milliseconds a second, just before; "whole" is all of
it, the calls around the chunks included. A stream has 100 chunks; the more streams, the
wider the gaps, so that no proxy is out of breath. Memory is PSS, so without the kernel's buffers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from _streams import Seen, Wave, asks, start_streams
from proxy import HERE, LOAD_CORE, PROXY_CORE, Peer, family, free_port, gate, peers, start, wait_for

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

CHUNKS = 100
MOST_PER_SECOND = 4_000
"""Chunks a second of all streams together: about a third of what the bare pass-through can do."""
LEAST_GAP_US = 10_000
FIELD = ("aiohttp pass-through", "nginx", "gatekeeper")
FOR_EVER = 10**9
SPARE_FILES = 100
FIRST = 200
"""Streams that memory is counted from: they take what a start left free."""


@dataclass
class Case:
    """A number of streams at the same time, and what was seen through each peer."""

    streams: int
    seen: dict[str, list[Seen]] = field(default_factory=dict)

    @property
    def gap_us(self) -> int:
        """Time between two chunks of a stream."""
        return max(LEAST_GAP_US, self.streams * 1_000_000 // MOST_PER_SECOND)

    @property
    def waves(self) -> int:
        """How often in a round, so that few streams say as much as many."""
        return max(1, 4_000_000 // (self.gap_us * CHUNKS))


def cpu_ns(pids: list[int]) -> int:
    """Return the nanoseconds that all threads of these processes have run."""
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((thread / "schedstat").read_text().split()[0])
    return total


def pss_kib(pid: int) -> int:
    """Return the proportional memory of a process and all its descendants."""
    total = 0
    for each in family(pid):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


async def run(peer: Peer, case: Case, keys: list[str]) -> Seen:
    """Send the waves of one round through one peer."""
    seen = Seen()
    pids = family(peer.pid) if peer.pid else []
    ready = asks(peer.port, keys, chunks=CHUNKS, gap_us=case.gap_us, prompt_bytes=288)
    before = cpu_ns(pids)
    await asyncio.sleep(1)
    seen.idle_cpu_ns = cpu_ns(pids) - before
    for _ in range(case.waves):
        wave = Wave(case.streams, seen, lambda: cpu_ns(pids))
        before = cpu_ns(pids)
        await start_streams(peer.port, ready, wave, min(1.0, case.streams * 0.002))
        await wave.done
        seen.cpu_ns += cpu_ns(pids) - before
    seen.chunks = len(seen.late)
    return seen


def part(values: Iterator[int], share: float) -> float:
    """Return a percentile in milliseconds."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e6


def table(case: Case, field_of: list[str]) -> None:
    """Print one case; times above those of the direct way, CPU beside the first proxy."""

    def times(name: str) -> list[float]:
        rounds = case.seen[name]
        return [
            statistics.median(part(iter(getattr(seen, what)), share) for seen in rounds)
            for what in ("first", "late", "strayed")
            for share in (0.5, 0.99)
        ]

    direct, *proxies = field_of
    own = times(direct)
    print(f"\n{case.streams} streams, a chunk each {case.gap_us / 1000:g} ms")
    print(f"{'':28}   first token +ms      chunk +ms      gap strays ms   CPU us a chunk")
    print(f"{'':28}      p50      p99     p50     p99     p50     p99   steady         whole  idle")
    base = 0.0
    for name in proxies:
        first50, first99, late50, late99, gap50, gap99 = (
            value - without if at < 4 else value
            for at, (value, without) in enumerate(zip(times(name), own, strict=True))
        )
        rounds = case.seen[name]
        steady = statistics.median(
            (s.steady_cpu_ns - s.idle_cpu_ns * s.steady_ns / 1e9) / s.steady_chunks / 1e3
            for s in rounds
        )
        idle = statistics.median(s.idle_cpu_ns / 1e6 for s in rounds)
        whole = statistics.median(s.cpu_ns / s.chunks / 1e3 for s in rounds)
        base = base or steady
        print(
            f"  {name:26} {first50:8.2f} {first99:8.2f} {late50:7.2f} {late99:7.2f}"
            f" {gap50:7.2f} {gap99:7.2f} {steady:8.1f} {steady / base:5.2f} x"
            f" {whole:7.1f} {idle:5.1f}"
        )
    print(
        f"  {direct + ', itself':26} "
        + "{:8.2f} {:8.2f} {:7.2f} {:7.2f} {:7.2f} {:7.2f}".format(*own)
    )


def say(text: str) -> None:
    """Tell how far it is, where somebody watches."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def running(work: Path, only: str | None) -> Iterator[tuple[list[Peer], list[str]]]:
    """Start an endpoint and the peers before it; the first of them is the direct way."""
    work.mkdir()
    upstream = free_port()
    started: list[subprocess.Popen[bytes]] = []
    try:
        command = [sys.executable, str(HERE / "_streams.py"), "--endpoint", str(upstream)]
        started.append(start(command, LOAD_CORE))
        wait_for(upstream, started[0])
        ours, keys = gate(work, upstream)
        found = [Peer("no proxy", [], upstream)]
        for peer in (*peers(work, upstream), ours):
            wanted = peer.name.startswith(FIELD) and (not only or only in peer.name)
            if not wanted and "pass-through" not in peer.name:
                continue
            started.append(process := start(peer.command, PROXY_CORE))
            wait_for(peer.port, process)
            peer.pid = process.pid
            found.append(peer)
        yield found, keys.read_text().split()
    finally:
        for process in started:
            process.kill()
            process.wait()


async def pace(peers_: list[Peer], keys: list[str], cases: list[Case], rounds: int) -> None:
    """Run all rounds of all cases, each after a warm-up."""
    for case in cases:
        warm = Case(min(case.streams, 50))
        for peer in peers_:
            say(f"{case.streams} streams: warming {peer.name}")
            await run(peer, warm, keys)
        for number in range(1, rounds + 1):
            for peer in peers_:
                say(f"{case.streams} streams, round {number} of {rounds}: {peer.name}")
                case.seen.setdefault(peer.name, []).append(await run(peer, case, keys))
        say("")
        table(case, [peer.name for peer in peers_])


async def memory(peer: Peer, keys: list[str], counts: list[int]) -> list[float]:
    """Open streams of one peer, which stay open, and return its KiB per stream at each count."""
    ready = asks(peer.port, keys, chunks=FOR_EVER, gap_us=4_000_000, prompt_bytes=4_000)
    await run(peer, Case(50), keys)
    before, opened, found = 0, 0, []
    for count in (FIRST, *counts):
        say(f"memory at {count} streams: {peer.name}")
        wave = Wave(count - opened, Seen(), lambda: 0)
        await start_streams(peer.port, ready, wave, (count - opened) * 0.001)
        await wave.open
        opened = count
        await asyncio.sleep(6)  # every stream has had a second chunk
        wave.done.cancel()
        holds = pss_kib(peer.pid)
        if count == FIRST:
            before = holds
        else:
            found.append((holds - before) / (count - FIRST))
    say("")
    os.kill(peer.pid, signal.SIGKILL)  # before its callers go, or it would tell of each
    return found


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, nargs="*", default=[1, 50, 500])
    parser.add_argument(
        "--memory", type=int, nargs="*", default=[2_000, 10_000], help="streams open at once"
    )
    parser.add_argument("--only", help="only peers whose name contains this, and the baseline")
    arguments = parser.parse_args()
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    room = (most_files - SPARE_FILES) // 2  # each stream takes two files of a proxy
    counts = sorted({min(count, room) for count in arguments.memory if count > FIRST})
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        cases = [Case(streams) for streams in arguments.streams]
        if cases:
            with running(work / "pace", arguments.only) as (found, keys):
                uvloop.run(pace(found, keys, cases, arguments.rounds))
        if counts:
            print("\nKiB per open stream " + "".join(f"{count:>16,}" for count in counts))
        names = [name for name in FIELD if not arguments.only or arguments.only in name]
        for number, wanted in enumerate(names if counts else ()):
            with running(work / str(number), wanted) as (found, keys):
                peer = next((each for each in found if each.name.startswith(wanted)), None)
                if peer is None:
                    print(f"  {wanted:26} not installed")
                    continue
                figures = uvloop.run(memory(peer, keys, counts))
            print(f"  {peer.name:26}" + "".join(f"{figure:12.1f}" for figure in figures))


if __name__ == "__main__":
    main()
