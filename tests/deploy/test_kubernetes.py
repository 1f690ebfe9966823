"""deploy/kubernetes: valid for the API, and fit for the `restricted` pod security standard."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatekeeper.settings import Settings
from gatekeeper.settings.load import FILE_VARIABLE, load_settings
from gatekeeper.settings.shape import place_of, type_at

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text("utf-8"))
OF_OTHERS = {"kustomization.yaml", "gatekeeper.yaml", "service-monitor.yaml"}
"""No API objects of Kubernetes itself: for kustomize, for the gate, for the Prometheus operator."""


def objects() -> list[dict[str, Any]]:
    """Return every object of the manifests."""
    files = [FOLDER / name for name in KUSTOMIZATION["resources"]]
    return [each for file in files for each in yaml.safe_load_all(file.read_text("utf-8"))]


def the(kind: str) -> dict[str, Any]:
    """Return the one object of a kind."""
    (found,) = [each for each in objects() if each["kind"] == kind]
    return found


POD: dict[str, Any] = the("Deployment")["spec"]["template"]["spec"]
CONTAINERS: list[dict[str, Any]] = [*POD["initContainers"], *POD["containers"]]


def validated(file: Path) -> str:
    """Return what the validator says of a file, nothing when it is right."""
    tool = shutil.which("kubernetes-validate", path=str(Path(sys.executable).parent))
    if tool is None:
        pytest.skip("kubernetes-validate is not installed")
    done = subprocess.run(
        [tool, "--strict", "--quiet", file], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_every_file_is_used() -> None:
    """What lies here is listed, and what is listed lies here."""
    lying = {file.name for file in FOLDER.iterdir()}
    assert lying - OF_OTHERS == set(KUSTOMIZATION["resources"])
    assert KUSTOMIZATION["configMapGenerator"][0]["files"] == ["gatekeeper.yaml"]


@pytest.mark.parametrize("name", KUSTOMIZATION["resources"])
def test_manifests_are_valid(name: str) -> None:
    """No unknown field, no wrong type, against the schemas of the newest release known."""
    assert validated(FOLDER / name) == ""


def test_the_validator_can_tell(tmp_path: Path) -> None:
    """The test above would see a misspelt field."""
    text = (FOLDER / "deployment.yaml").read_text(encoding="utf-8")
    wrong = tmp_path / "deployment.yaml"
    wrong.write_text(text.replace("readinessProbe", "readynessProbe"), encoding="utf-8")
    assert "readynessProbe" in validated(wrong)


def test_kustomize_puts_them_together(tmp_path: Path) -> None:
    """The whole, as it is applied, is valid: images named, settings in a ConfigMap."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        [kubectl, "kustomize", FOLDER], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    whole = tmp_path / "whole.yaml"
    whole.write_text(done.stdout, encoding="utf-8")
    assert validated(whole) == ""
    images = [line.split()[-1] for line in done.stdout.splitlines() if " image: " in line]
    assert len(images) == len(CONTAINERS)
    assert all(image.startswith("registry.example.com/") for image in images)
    assert "name: gatekeeper-settings-" in done.stdout


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda each: each["name"])
def test_containers_are_restricted(container: dict[str, Any]) -> None:
    """What the `restricted` standard asks of a container, and a read-only root beyond it."""
    security = container["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == 10001
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


def test_the_pod_is_restricted() -> None:
    """No token of the cluster, no host namespace, no host path; the namespace insists on it."""
    assert POD["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(POD)
    assert not [volume for volume in POD["volumes"] if "hostPath" in volume]
    labels = the("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_secrets_come_from_the_operator() -> None:
    """Secrets are referred to; no object here holds one."""
    assert "Secret" not in {each["kind"] for each in objects()}
    (volume,) = [each for each in POD["volumes"] if "secret" in each]
    assert volume["secret"]["secretName"] == "gatekeeper"


def test_variables_are_settings() -> None:
    """Each variable of ours names the settings file or sets something that exists."""
    for container in CONTAINERS:
        named = {each["name"] for each in container.get("env", ())} - {FILE_VARIABLE}
        assert all(type_at(place_of(variable)) is not None for variable in named)


def test_the_gate_is_the_one_way_in() -> None:
    """The model listens on loopback; Service and policy lead to the gate's ports only."""
    gate, model = POD["containers"]
    assert model["args"][model["args"].index("--host") + 1] == "127.0.0.1"
    assert "ports" not in model
    assert {port["name"] for port in gate["ports"]} == {"callers", "ops"}
    policy = the("NetworkPolicy")["spec"]
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == {
        "callers",
        "ops",
    }
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}


def test_the_model_outlives_the_drain() -> None:
    """Calls under way end before the model does, and both before the kubelet loses patience."""
    settings = load_settings(FOLDER / "gatekeeper.yaml", {}, {})
    assert isinstance(settings, Settings), settings
    drained_s = settings.deadlines.readiness_s + settings.deadlines.drain_s
    gate, model = POD["containers"]
    assert "lifecycle" not in gate  # readiness_s does what a preStop hook would
    slept_s = model["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert drained_s < slept_s < POD["terminationGracePeriodSeconds"]
    (upstream,) = settings.upstreams
    assert upstream.urls == (f"http://127.0.0.1:{model['args'][-1]}",)


def test_everything_selects_the_pod() -> None:
    """Service, budget and policy mean the pods of the Deployment."""
    labels = the("Deployment")["spec"]["template"]["metadata"]["labels"]
    services = [each for each in objects() if each["kind"] == "Service"]
    assert [each["spec"]["selector"] for each in services] == [labels, labels]
    assert the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert the("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    monitor = yaml.safe_load((FOLDER / "service-monitor.yaml").read_text("utf-8"))
    assert monitor["spec"]["selector"]["matchLabels"] == services[1]["metadata"]["labels"]
