"""compose.yaml and the Kubernetes manifests are what their schemas say, and fit one another and the commands here."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy/compose.yaml"
MANIFESTS = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
TOOLS = Path(sys.executable).parent


def check_compose(path: Path) -> subprocess.CompletedProcess[str]:
    command = [TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", path]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def check_kubernetes(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = [TOOLS / "kubernetes-validate", "--strict", *paths]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def resources() -> list[dict[str, Any]]:
    return [one for path in MANIFESTS for one in yaml.safe_load_all(path.read_text())]


def of_kind(kind: str, name: str) -> dict[str, Any]:
    (found,) = [one for one in resources() if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def pod(resource: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = resource["spec"]["template"]["spec"]
    return spec


def test_compose_is_valid_by_its_specification(tmp_path: Path) -> None:
    spoiled = tmp_path / "compose.yaml"
    spoiled.write_text(COMPOSE.read_text().replace("stop_grace_period", "stop_grace_perio"))

    assert check_compose(COMPOSE).returncode == 0, check_compose(COMPOSE).stdout
    assert check_compose(spoiled).returncode != 0


def test_manifests_are_valid_by_kubernetes_schemas(tmp_path: Path) -> None:
    spoiled = tmp_path / "master.yaml"
    spoiled.write_text(
        (ROOT / "deploy/kubernetes" / "master.yaml").read_text().replace("containerPort", "containersPort")
    )
    done = check_kubernetes(*MANIFESTS)

    assert done.returncode == 0, done.stdout + done.stderr
    assert check_kubernetes(spoiled).returncode != 0


def commands() -> list[list[str]]:
    """Every command line in either, as words."""
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    found = [" ".join(service["command"]).split() for service in services.values()]
    for one in resources():
        if "template" in one["spec"]:
            containers = [*pod(one).get("initContainers", []), *pod(one)["containers"]]
            found += [container["args"] for container in containers]
    return found


@pytest.mark.parametrize(
    ("first", "helps"),
    [
        ("locust", (("loadgen", "--help"), ("locust", "--help"))),
        ("worker", (("worker", "serve", "--help"), ("worker", "export", "--help"))),
    ],
)
def test_every_option_is_one_that_there_is(first: str, helps: tuple[tuple[str, ...], ...]) -> None:
    mine = [words for words in commands() if first in words]
    used = {match[0] for words in mine for word in words if (match := re.match(r"--[a-z-]+", word))}
    texts = [
        subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=True, cwd=ROOT).stdout
        for words in helps
    ]
    known = set(re.findall(r"--[a-z-]+", " ".join(texts)))

    assert used
    assert used <= known


def test_the_master_drives_every_pod_of_a_gpu_by_its_ordinal() -> None:
    workers = of_kind("StatefulSet", "inferload-worker")
    (master,) = pod(of_kind("Deployment", "inferload-master"))["containers"]
    (targets,) = [word.removeprefix("--targets=") for word in master["args"] if word.startswith("--targets=")]
    service = workers["spec"]["serviceName"]

    assert of_kind("Service", service)["spec"]["clusterIP"] == "None"
    assert targets.split(",") == [
        f"inferload-worker-{ordinal}.{service}:9000" for ordinal in range(workers["spec"]["replicas"])
    ]
    (container,) = pod(workers)["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_what_selects_pods_finds_pods_that_there_are() -> None:
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in resources() if "template" in one["spec"]]
    for service in (one for one in resources() if one["kind"] == "Service"):
        assert any(service["spec"]["selector"].items() <= there.items() for there in labels), service["metadata"]
    for policy in (one for one in resources() if one["kind"] == "NetworkPolicy"):
        wanted = policy["spec"]["podSelector"]["matchLabels"]
        assert any(wanted.items() <= there.items() for there in labels), policy["metadata"]


def test_the_port_of_the_master_is_open_to_generators_alone_and_all_have_the_token() -> None:
    services = yaml.safe_load(COMPOSE.read_text())
    (rule,) = of_kind("NetworkPolicy", "inferload-master")["spec"]["ingress"]

    assert services["networks"]["default"]["internal"]
    assert services["services"]["master"]["ports"] == ["127.0.0.1:8089:8089"]
    assert [peer["podSelector"]["matchLabels"]["role"] for peer in rule["from"]] == ["generator"]
    for words in commands():
        assert ("locust" in words) == any(word.startswith("--run-token-file=") for word in words)
