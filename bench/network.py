"""Micro-benchmark of network facts: one address never seen, one seen before, and its parsing.

Run from the project's root: ``python bench/network.py``. CPU time, best of five rounds.
"""

import random
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from gatekeeper.facts.address import (
    TrustedProxies,
    client_address,
    parse_address,
)
from gatekeeper.facts.network import NetworkData
from gatekeeper.settings import ForwardedHeader, Geoip

ROUNDS = 5
ADDRESSES = 10_000


def best_us(run: Callable[[], object]) -> float:
    """Return the CPU time of the fastest round, in microseconds an address."""
    times = []
    for _ in range(ROUNDS):
        started = time.process_time()
        run()
        times.append((time.process_time() - started) / ADDRESSES * 1e6)
    return min(times)


def main() -> None:
    """Measure and print."""
    started = time.perf_counter()
    data = NetworkData.load(Geoip(), secret=b"benchmark", now_unix_s=time.time())
    print(f"load            {(time.perf_counter() - started) * 1e3:9.1f} ms")
    chance = random.Random(1)
    v4 = [IPv4Address(chance.randrange(0x01000000, 0xDF000000)) for _ in range(ADDRESSES)]
    v6 = [IPv6Address((0x2A << 120) | chance.getrandbits(118)) for _ in range(ADDRESSES)]
    again = [IPv4Address(int(address)) for address in v4]
    text = [str(address) for address in v4]
    trusted = TrustedProxies(["10.0.0.0/8"])
    chains = [[f"{address}, 10.0.0.2"] for address in text]

    def cold(addresses: list[IPv4Address] | list[IPv6Address]) -> None:
        data.remembered.cache_clear()
        for address in addresses:
            data.observe(address)

    def hot() -> None:
        for address in again:
            data.observe(address)

    def parse() -> None:
        for each in text:
            parse_address(each)

    def walk() -> None:
        for chain in chains:
            client_address("10.0.0.1", chain, ForwardedHeader.X_FORWARDED_FOR, trusted)

    print(f"observe, new v4 {best_us(lambda: cold(v4)):9.2f} us")
    print(f"observe, new v6 {best_us(lambda: cold(v6)):9.2f} us")
    cold(v4)
    print(f"observe, known  {best_us(hot):9.2f} us")
    print(f"parse_address   {best_us(parse):9.2f} us")
    print(f"client_address  {best_us(walk):9.2f} us")


if __name__ == "__main__":
    main()
