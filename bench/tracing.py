"""CPU time per call of a gate without traces, with traces sampled out, and with every call traced.

Example: python bench/tracing.py --rounds 5

Gates of the default rules on one pinned core, load, endpoint and collector on the other, rounds
interleaved. The time is that of the whole process, the thread that exports included.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from proxy import HERE, LOAD_CORE, PROXY_CORE, Peer, free_port, gate, load, start, wait_for

if TYPE_CHECKING:
    import subprocess

RATIOS = (None, 0.0, 0.01, 1.0)


class Collector(BaseHTTPRequestHandler):
    """Takes every export and forgets it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read and answer 200."""
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def traced(folder: Path, upstream: int, collector: int, ratio: float | None) -> tuple[Peer, Path]:
    """Return a gate that samples this part of its calls; with ``None`` it knows no traces."""
    folder.mkdir()
    peer, keys = gate(folder, upstream)
    if ratio is None:
        return Peer("no traces", peer.command, peer.port), keys
    with (folder / "gatekeeper.yaml").open("a", encoding="utf-8") as file:
        url = f"http://127.0.0.1:{collector}/v1/traces"
        file.write(f"tracing: {{endpoint: '{url}', sample_ratio: {ratio}}}\n")
    return Peer(f"sampled {ratio:.0%}", peer.command, peer.port), keys


def main() -> None:
    """Run all rounds and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--total", type=int, default=4_000, help="requests a round")
    arguments = parser.parse_args()
    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    Thread(target=collector.serve_forever, daemon=True).start()
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as name:
        try:
            upstream = free_port()
            endpoint = [sys.executable, str(HERE / "_load.py"), "--endpoint", str(upstream)]
            started.append(start(endpoint, LOAD_CORE))
            wait_for(upstream, started[0])
            field = [
                traced(Path(name) / str(number), upstream, collector.server_port, ratio)
                for number, ratio in enumerate(RATIOS)
            ]
            for peer, keys in field:
                process = start(peer.command, PROXY_CORE)
                started.append(process)
                wait_for(peer.port, process)
                peer.pid = process.pid
                load(peer, keys, max(200, arguments.total // 10), stream=False)
            figures: dict[str, list[float]] = {peer.name: [] for peer, _ in field}
            for _ in range(arguments.rounds):
                for peer, keys in field:
                    figures[peer.name].append(load(peer, keys, arguments.total, stream=False))
        finally:
            for process in started:
                process.kill()
                process.wait()
    print("CPU us a call")
    base = statistics.median(figures["no traces"])
    for peer_name, found in figures.items():
        middle = statistics.median(found)
        span = f"(min {min(found):.0f}, max {max(found):.0f})"
        print(f"  {peer_name:14} {middle:8.0f}  {span}  {middle - base:+5.0f}")


if __name__ == "__main__":
    main()
