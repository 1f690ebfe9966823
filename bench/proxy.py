"""CPU time per proxied request, process tree, against a bare pass-through and other proxies.

Example: python bench/proxy.py --rounds 5

All run in the same session on one pinned core, the load and the endpoint on the other, rounds
interleaved so that a busy machine hurts all alike. Printed are the median over the rounds, in
microseconds of user + system time per request, and the ratio to the bare aiohttp pass-through.
HAProxy, nginx and Envoy take part where they are installed; they only forward.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from gatekeeper.facts.api_keys import issue_key
from gatekeeper.policy.words import Tier
from gatekeeper.storage.records import Records
from gatekeeper.storage.records_schema import AccountPatch
from gatekeeper.storage.secrets import derive

HERE = Path(__file__).parent
ROOT = HERE.parent
ACCOUNTS = 400
PROXY_CORE, LOAD_CORE = 0, 1


@dataclass
class Peer:
    """One proxy: how it starts, and on which port."""

    name: str
    command: list[str]
    port: int
    pid: int = 0


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def start(command: list[str], core: int) -> subprocess.Popen[bytes]:
    """Start a process and pin it to one core, if the machine has more than one."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(process.pid, {cores[min(core, len(cores) - 1)]})
    return process


def cpu_s(pid: int) -> float:
    """Return user + system seconds of a process and all its descendants."""
    tick = os.sysconf("SC_CLK_TCK")
    total = 0.0
    for each in family(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / tick
    return total


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    running = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [each for each in running if each == pid or _descends(each, pid)]


def _descends(pid: int, ancestor: int) -> bool:
    while pid > 1:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return False
        pid = int(fields[1])
        if pid == ancestor:
            return True
    return False


async def make_keys(data: Path, secret: bytes) -> list[str]:
    """Create trusted accounts, each with a key."""
    records = await Records.open(f"sqlite:///{data / 'records.db'}")
    keys = []
    now = time.time()
    try:
        names = [f"bench-{number}" for number in range(ACCOUNTS)]
        await records.import_accounts(
            [AccountPatch(n, {"tier": Tier.TRUSTED, "created_at": now - 4e7}) for n in names],
            at=now,
        )
        for name in names:
            minted = await issue_key(
                records,
                subkey=derive(secret, "credentials"),
                account_id=name,
                label="",
                at=now,
                expires_at=None,
                random_bytes=os.urandom,
            )
            keys.append(minted.text)
    finally:
        await records.close()
    return keys


def gate(
    work: Path, upstream: int, name: str = "gatekeeper, default rules", more: str = ""
) -> tuple[Peer, Path]:
    """Return the gate with the default rules and ``more`` settings, and the file of its keys."""
    work.mkdir(exist_ok=True)
    data = work / "data"
    data.mkdir()
    secret = os.urandom(32).hex().encode()
    (data / "secret").write_bytes(secret + b"\n")
    (data / "secret").chmod(0o600)
    keys = work / "keys"
    keys.write_text("\n".join(asyncio.run(make_keys(data, secret))))
    port = free_port()
    settings = work / "gatekeeper.yaml"
    geo = ROOT / "geoip"
    databases = ", ".join(str(geo / f"{name}.mmdb") for name in ("country", "registration", "asn"))
    settings.write_text(
        f"data_dir: {data}\nrules_dir: {ROOT / 'rules'}\n"
        f"listeners:\n  - {{port: {port}, credentials: [api_key], trusted_proxies: [127.0.0.1]}}\n"
        f"ops: {{port: {free_port()}}}\nadmin: {{enabled: false}}\n"
        f"upstreams:\n  - {{name: bench, urls: ['http://127.0.0.1:{upstream}']}}\n"
        f"geoip: {{databases: [{databases}], networks: [{geo / 'networks.yaml'}]}}\n"
        f"decision_log: {{directory: {data / 'decisions'}}}\n{more}"
    )
    command = [sys.executable, "-m", "gatekeeper", "serve", "--settings", str(settings)]
    return Peer(name, command, port), keys


def peers(work: Path, upstream: int) -> list[Peer]:
    """Return the baseline and every other proxy that is installed."""
    port = free_port()
    found = [
        Peer(
            "aiohttp pass-through",
            [
                *(sys.executable, str(HERE / "_pass_through.py")),
                *("--port", str(port), "--upstream", f"http://127.0.0.1:{upstream}"),
            ],
            port,
        )
    ]
    if path := shutil.which("haproxy"):
        port, config = free_port(), work / "haproxy.cfg"
        config.write_text(
            "global\n  nbthread 1\ndefaults\n  mode http\n  timeout client 60s\n"
            "  timeout server 60s\n  timeout connect 5s\n"
            f"frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\n"
            f"backend b\n  server s 127.0.0.1:{upstream}\n"
        )
        found.append(Peer("HAProxy", [path, "-db", "-f", str(config)], port))
    if path := shutil.which("nginx"):
        port, config = free_port(), work / "nginx.conf"
        config.write_text(
            f"daemon off; master_process off; worker_processes 1; pid {work}/nginx.pid;\n"
            f"error_log {work}/nginx.log;\nevents {{ worker_connections 40000; }}\n"
            "http { access_log off;\n"
            f"client_body_temp_path {work}; proxy_temp_path {work}; fastcgi_temp_path {work};\n"
            f"uwsgi_temp_path {work}; scgi_temp_path {work};\n"
            f"upstream u {{ server 127.0.0.1:{upstream}; keepalive 64; }}\n"
            f"server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000000; location / {{\n"
            'proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection "";\n'
            "proxy_buffering off; } } }\n"
        )
        found.append(Peer("nginx", [path, "-c", str(config), "-p", str(work)], port))
    if path := shutil.which("envoy") or _envoy_wheel():
        port, config = free_port(), work / "envoy.yaml"
        config.write_text(_ENVOY.format(port=port, upstream=upstream))
        command = [path, "-c", str(config), "--concurrency", "1", "--log-level", "error"]
        found.append(Peer("Envoy", [*command, "--use-dynamic-base-id"], port))
    return found


def _envoy_wheel() -> str | None:
    beside = Path(sys.executable).parent / "envoy"
    return str(beside) if beside.exists() else None


_MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
_ENVOY = f"""
static_resources:
  listeners:
  - address: {{{{socket_address: {{{{address: 127.0.0.1, port_value: {{port}}}}}}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {_MANAGER}.HttpConnectionManager
          stat_prefix: bench
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{{{match: {{{{prefix: "/"}}}}, route: {{{{cluster: u}}}}}}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{{{"@type": {_ROUTER}}}}}
  clusters:
  - name: u
    load_assignment:
      cluster_name: u
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: {{{{socket_address: {{{{address: 127.0.0.1, port_value: {{upstream}}}}}}}}}}
"""


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a port answers; raises when its process ends first."""
    for _ in range(400):
        if process.poll() is not None:
            raise SystemExit(f"{process.args} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"{process.args} does not listen")


def load(peer: Peer, keys: Path, total: int, *, stream: bool) -> float:
    """Send a load through one peer; return its CPU microseconds per request."""
    before = cpu_s(peer.pid)
    sending = start(
        [
            *(sys.executable, str(HERE / "_load.py"), "--port", str(peer.port)),
            *("--keys", str(keys), "--total", str(total)),
            *(("--stream",) if stream else ()),
        ],
        LOAD_CORE,
    )
    if sending.wait() != 0:
        raise SystemExit(f"{peer.name} did not answer every request with 200")
    return (cpu_s(peer.pid) - before) / total * 1e6


def main() -> None:
    """Run all rounds and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--total", type=int, default=6_000, help="requests a round")
    parser.add_argument("--only", help="only peers whose name contains this, and the baseline")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        upstream = free_port()
        started: list[subprocess.Popen[bytes]] = []
        try:
            server = start(
                [sys.executable, str(HERE / "_load.py"), "--endpoint", str(upstream)], LOAD_CORE
            )
            started.append(server)
            wait_for(upstream, server)
            ours, keys = gate(work, upstream)
            field = [
                peer
                for peer in (*peers(work, upstream), ours)
                if not arguments.only or arguments.only in peer.name or "pass-through" in peer.name
            ]
            for peer in field:
                process = start(peer.command, PROXY_CORE)
                started.append(process)
                wait_for(peer.port, process)
                peer.pid = process.pid
            for stream in (False, True):
                measure(
                    field,
                    dict.fromkeys((peer.name for peer in field), keys),
                    arguments.rounds,
                    arguments.total,
                    stream=stream,
                )
        finally:
            for process in started:
                process.kill()
                process.wait()


def measure(
    field: list[Peer], keys: dict[str, Path], rounds: int, total: int, *, stream: bool
) -> None:
    """Run interleaved rounds of one kind of call and print them, against the first of ``field``."""
    total = total // 6 if stream else total
    for peer in field:
        load(peer, keys[peer.name], max(200, total // 10), stream=stream)  # warm up
    figures: dict[str, list[float]] = {peer.name: [] for peer in field}
    for _ in range(rounds):
        for peer in field:
            figures[peer.name].append(load(peer, keys[peer.name], total, stream=stream))
    print(f"\n{'streamed, 22 chunks' if stream else 'not streamed'}: CPU us a request")
    base = statistics.median(figures[field[0].name])
    for name, found in figures.items():
        middle = statistics.median(found)
        print(
            f"  {name:28} {middle:8.0f}  (min {min(found):.0f}, max {max(found):.0f})"
            f"  {middle / base:5.2f} x"
        )


if __name__ == "__main__":
    main()
