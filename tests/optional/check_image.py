"""Build the container image with a real engine, and hold it to what docs/sidecar.md promises.

Not part of ``make test``, which has no engine and no network: ``make image`` runs it, with the
variables BASE (base image), TAG, ENGINE (docker, podman or buildah) and BUILD_FLAGS.

No container here has a network. The gate, a model endpoint and the caller share one network
namespace, as a sidecar does. Buildah builds and runs commands, but starts no confined container:
with it alone, the tests of the running gate are skipped.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
TAG = os.environ.get("TAG") or "gatekeeper:test"
BASE = os.environ.get("BASE") or "python:3.11-slim"
UID = "10001"
CONFINED = (
    *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--tmpfs", "/tmp:rw,noexec,nosuid,nodev,size=16m", "--pids-limit", "128"),  # noqa: S108
)
"""How docs/sidecar.md and the files of deploy/ run the image."""
SOON_S = 60.0

CALL = """
import json, sys, urllib.request
call = {"model": "demo-small", "messages": [{"role": "user", "content": "Hello"}]}
request = urllib.request.Request(
    "http://127.0.0.1:8080/v1/chat/completions",
    json.dumps(call).encode(),
    {"content-type": "application/json", "x-api-key": sys.argv[1]},
)
print(urllib.request.urlopen(request, timeout=10).read().decode())
"""
WRITABLE = """
import os
for folder, folders, files in os.walk("/"):
    folders[:] = [f for f in folders if os.path.join(folder, f) not in {"/proc", "/sys", "/dev"}]
    for name in ("", *files):
        path = os.path.join(folder, name) if name else folder
        if not os.path.islink(path) and os.access(path, os.W_OK):
            print(path)
"""
INSTALLED = """
import importlib.metadata, json
found = importlib.metadata.distributions()
print(json.dumps({each.metadata["Name"]: each.version for each in found}))
"""
INSIDE = """
import json, os
found = [os.path.join(folder, name) for top in ("/opt", "/gatekeeper", "/src", "/dist", "/root")
         for folder, folders, files in os.walk(top) for name in (*folders, *files)]
print(json.dumps(found))
"""


def told(*command: str, stdin: str | None = None) -> str:
    """Run a command and return what it prints; fails with everything it said."""
    done = subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, text=True)  # noqa: PLW1510
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def say(line: str) -> None:
    """Print a finding for whoever ran ``make image``."""
    sys.stdout.write(f"\n  {line}\n")


@dataclass(frozen=True)
class Engine:
    """A program that builds images and runs commands in them."""

    name: str

    @property
    def starts_containers(self) -> bool:
        """Whether it runs confined containers in the background."""
        return self.name != "buildah"

    @property
    def confined(self) -> tuple[str, ...]:
        """What confines a container here; podman would make more places writable by itself."""
        return (*CONFINED, *(("--read-only-tmpfs=false",) if self.name == "podman" else ()))

    def build(self) -> None:
        """Build :data:`TAG` on :data:`BASE`."""
        flags = shlex.split(os.environ.get("BUILD_FLAGS") or "")
        if self.name != "docker":  # the format that has room for a health check
            flags += ["--format", "docker"]
        build = [self.name, "build", "--build-arg", f"BASE={BASE}", "--tag", TAG, *flags, "."]
        subprocess.run(build, cwd=ROOT, check=True)

    def run(self, *command: str) -> str:
        """Run a command in a fresh container of the image, as its user, without network."""
        if self.starts_containers:
            once = ("run", "--rm", "--network", "none", *self.confined, "--entrypoint", command[0])
            return told(self.name, *once, TAG, *command[1:])
        container = told(self.name, "from", TAG)
        try:
            return told(self.name, "run", "--isolation", "chroot", container, "--", *command)
        finally:
            told(self.name, "rm", container)

    def inspect(self, name: str) -> dict[str, Any]:
        """Return what the engine knows about an image or container."""
        if not self.starts_containers:
            found: dict[str, Any] = json.loads(told(self.name, "inspect", "--type", "image", name))
            return {"Config": found["Docker"]["config"], "Size": None}
        first: dict[str, Any] = json.loads(told(self.name, "inspect", name))[0]
        if "Healthcheck" in first:  # podman keeps an image's beside its configuration
            first["Config"]["Healthcheck"] = first["Healthcheck"]
        return first

    def is_healthy(self, name: str) -> bool:
        """Tell what the health check of a container says."""
        if self.name == "podman":  # runs it by systemd's timers, where there is systemd
            command = [self.name, "healthcheck", "run", name]
            return not subprocess.run(command, capture_output=True).returncode  # noqa: PLW1510
        return bool(self.inspect(name)["State"]["Health"]["Status"] == "healthy")


def found_engine() -> Engine | None:
    """Return the engine that was asked for, or the first that answers."""
    asked_for = os.environ.get("ENGINE")
    for name in (asked_for,) if asked_for else ("docker", "podman", "buildah"):
        asked = [name, "info" if name != "buildah" else "version"]
        if shutil.which(name) and not subprocess.run(asked, capture_output=True).returncode:  # noqa: PLW1510
            return Engine(name)
    return None


@pytest.fixture(scope="module")
def engine() -> Engine:
    """Build the image once; without an engine nothing here can be shown."""
    found = found_engine()
    if found is None:
        pytest.fail("no docker, podman or buildah answers here; start one, or name it: ENGINE=...")
    say(f"building with {found.name} on {BASE}")
    found.build()
    return found


# --- what is inside -----------------------------------------------------------------------------


def test_the_image_holds_what_is_pinned_and_nothing_else(engine: Engine) -> None:
    """Every package is the release whose hash is in requirements/tracing.txt; there is no pip."""
    text = (ROOT / "requirements" / "tracing.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([a-z0-9.-]+)(?:\[[a-z0-9,-]+\])?==(\S+)", text, re.MULTILINE))
    installed = {
        re.sub(r"[-_.]+", "-", name).lower(): version
        for name, version in json.loads(engine.run("python", "-c", INSTALLED)).items()
    }
    del installed["gatekeeper"]
    assert installed.items() <= pinned.items()
    assert set(pinned) - set(installed) <= {"async-timeout"}
    assert "pip" not in installed


def test_nothing_of_the_build_is_left(engine: Engine) -> None:
    """No cache, no source tree, no tests, no build tools; rules and address data are there."""
    found = json.loads(engine.run("python", "-c", INSIDE))
    assert not [path for path in found if path.startswith(("/src", "/dist", "/opt/build"))]
    names = {Path(path).name for path in found}
    assert not names & {"tests", ".cache", "hatchling", "pip", "setuptools", "requirements"}
    assert {"/gatekeeper/rules/embargo.yaml", "/gatekeeper/geoip/asn.mmdb"} <= set(found)


def test_rules_and_settings_of_the_image_hold(engine: Engine) -> None:
    """`gatekeeper check` passes inside, under the confinement that the image is meant for."""
    engine.run("gatekeeper", "check")


def test_the_image_says_how_it_runs(engine: Engine) -> None:
    """User, volume, ports and health check are part of the image."""
    config = engine.inspect(TAG)["Config"]
    assert config["User"] == f"{UID}:{UID}"
    assert set(config["Volumes"]) == {"/var/lib/gatekeeper"}
    assert set(config["ExposedPorts"]) == {"8080/tcp", "9090/tcp"}
    assert "/healthz" in " ".join(config["Healthcheck"]["Test"])
    assert not [line for line in config["Env"] if re.search(r"(?i)secret|password|token", line)]


def test_the_size_is_told(engine: Engine) -> None:
    """What the gate adds to its base stays below 220 MB, of which a fifth is address data."""
    whole = engine.inspect(TAG)["Size"]
    if whole is None:
        pytest.skip(f"{engine.name} tells no sizes")
    base = engine.inspect(BASE)["Size"]
    say(f"{whole / 1e6:.0f} MB unpacked, of which {base / 1e6:.0f} MB are the base")
    assert whole - base < 220e6


# --- running ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sidecar:
    """A gate and a model endpoint that share a network namespace."""

    engine: Engine
    gate: str

    def inside(self, *command: str, stdin: str | None = None) -> str:
        """Run a command in the gate's container."""
        return told(self.engine.name, "exec", "-i", self.gate, *command, stdin=stdin)

    def state(self) -> dict[str, Any]:
        """Return how the gate's container is."""
        found: dict[str, Any] = self.engine.inspect(self.gate)["State"]
        return found


@pytest.fixture
def sidecar(engine: Engine) -> Iterator[Sidecar]:
    """Start both, confined; both are removed with their volumes."""
    if not engine.starts_containers:
        pytest.skip(f"{engine.name} starts no confined containers: run this with docker or podman")
    gate = f"gatekeeper-test-{uuid.uuid4().hex[:8]}"
    start = (engine.name, "run", "--detach", *engine.confined)
    try:
        told(
            *(*start, "--name", gate, "--network", "none"),
            *(TAG, "serve", "--upstream", "http://127.0.0.1:8081"),
        )
        beside = ("--name", f"{gate}-model", "--network", f"container:{gate}", "--no-healthcheck")
        told(*start, *beside, TAG, "demo", "--token-s", "0")
        yield Sidecar(engine, gate)
    finally:
        for name in (f"{gate}-model", gate):
            subprocess.run([engine.name, "rm", "--force", "--volumes", name], capture_output=True)  # noqa: PLW1510


def test_the_gate_serves_confined(sidecar: Sidecar) -> None:
    """Read-only root, no capability, not root: healthy, a key can be made, a call goes through.

    Nothing is writable but the data and /tmp, and SIGTERM ends it with 0 (H40).
    """
    until = time.monotonic() + SOON_S
    while not sidecar.engine.is_healthy(sidecar.gate):
        logs = told(sidecar.engine.name, "logs", sidecar.gate)
        assert time.monotonic() < until, (sidecar.state(), logs)
        time.sleep(0.5)

    key = sidecar.inside("gatekeeper", "keys", "create", "acme").splitlines()[-1]
    assert "This is the demo model" in sidecar.inside("python", "-", key, stdin=CALL)

    status = sidecar.inside("cat", "/proc/1/status")
    assert re.search(rf"^Uid:\s+{UID}\s+{UID}\s+{UID}\s+{UID}$", status, re.MULTILINE)
    assert re.search(r"^Cap(Eff|Prm|Bnd):\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)

    writable = sidecar.inside("python", "-", stdin=WRITABLE).splitlines()
    places = ("/var/lib/gatekeeper", "/tmp")  # noqa: S108
    assert [path for path in writable if not path.startswith(places)] == []
    assert {"/var/lib/gatekeeper/secret", "/var/lib/gatekeeper/records.db"} <= set(writable)
    # What the engine itself mounts is no writing of the gate's.
    changed = told(sidecar.engine.name, "diff", sidecar.gate).splitlines()
    assert [
        line for line in changed if not re.search(r" /(dev|etc|run|proc|sys|tmp|var)\b", line)
    ] == []

    told(sidecar.engine.name, "stop", "--time", "40", sidecar.gate)
    assert sidecar.state()["ExitCode"] == 0
