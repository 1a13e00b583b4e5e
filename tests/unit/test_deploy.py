"""The compose file, the Kubernetes manifests and the CI workflow are valid by their schemas and fit the commands."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy/compose.yaml"
MANIFESTS = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
WORKFLOW = ROOT / ".github/workflows/ci.yml"
TOOLS = Path(sys.executable).parent


def check_schema(schema: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = [TOOLS / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", path]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def check_kubernetes(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = [TOOLS / "kubernetes-validate", "--strict", *paths]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def resources() -> list[dict[str, Any]]:
    return [resource for path in MANIFESTS for resource in yaml.safe_load_all(path.read_text())]


def of_kind(kind: str, name: str) -> dict[str, Any]:
    (match,) = [item for item in resources() if item["kind"] == kind and item["metadata"]["name"] == name]
    return match


def pod(resource: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = resource["spec"]["template"]["spec"]
    return spec


def test_compose_is_valid_by_its_specification(tmp_path: Path) -> None:
    spoiled = tmp_path / "compose.yaml"
    spoiled.write_text(COMPOSE.read_text().replace("stop_grace_period", "stop_grace_perio"))

    assert check_schema("compose-spec", COMPOSE).returncode == 0, check_schema("compose-spec", COMPOSE).stdout
    assert check_schema("compose-spec", spoiled).returncode != 0


def test_workflow_is_valid_by_its_schema(tmp_path: Path) -> None:
    spoiled = tmp_path / "ci.yml"
    spoiled.write_text(WORKFLOW.read_text().replace("runs-on", "run-on"))

    assert check_schema("github-workflows", WORKFLOW).returncode == 0, check_schema("github-workflows", WORKFLOW).stdout
    assert check_schema("github-workflows", spoiled).returncode != 0


def test_workflow_runs_what_ci_run_runs() -> None:
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["test"]["steps"]
    workflow_commands = [step["run"] for step in steps if "run" in step]
    script = (ROOT / ".ci/run").read_text().splitlines()

    assert workflow_commands == [".ci/chromium", "make test", "make check"]
    assert [line for line in script if line.startswith((".ci/", "make "))] == workflow_commands


def run_chromium_script(tmp_path: Path, **programs: str) -> str:
    """Output of .ci/chromium, exit status 0, where PATH has a few tools and `programs` (name: shell text)."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in {"bash", "id", "timeout"} - set(programs):
        (folder / tool).symlink_to(shutil.which(tool) or tool)
    for name, text in programs.items():
        (folder / name.replace("_", "-")).write_text(f"#!{shutil.which('bash')}\n{text}\n")
        (folder / name.replace("_", "-")).chmod(0o755)
    command = [shutil.which("bash") or "bash", ROOT / ".ci/chromium"]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PATH": str(folder)}, timeout=60
    ).stdout


def test_chromium_is_not_installed_where_a_browser_exists(tmp_path: Path) -> None:
    output = run_chromium_script(tmp_path, chromium="exit 0", apt_get="echo APT")

    assert output.startswith("chromium: /")
    assert "APT" not in output


def test_a_failed_installation_of_chromium_is_no_failure(tmp_path: Path) -> None:
    output = run_chromium_script(tmp_path, id="echo 0", apt_get="exit 1")

    assert "the browser tests will be skipped" in output


def test_chromium_is_installed_only_by_root_or_sudo_without_a_password(tmp_path: Path) -> None:
    output = run_chromium_script(tmp_path, id="echo 1000", apt_get="echo APT", sudo="exit 1")

    assert "needs root or sudo" in output
    assert "APT" not in output


def test_manifests_are_valid_by_kubernetes_schemas(tmp_path: Path) -> None:
    spoiled = tmp_path / "master.yaml"
    spoiled.write_text(
        (ROOT / "deploy/kubernetes" / "master.yaml").read_text().replace("containerPort", "containersPort")
    )
    result = check_kubernetes(*MANIFESTS)

    assert result.returncode == 0, result.stdout + result.stderr
    assert check_kubernetes(spoiled).returncode != 0


def commands() -> list[list[str]]:
    """Every command line in the compose file and the manifests, as words."""
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    command_lines = [" ".join(service["command"]).split() for service in services.values()]
    for resource in resources():
        if "template" in resource["spec"]:
            containers = [*pod(resource).get("initContainers", []), *pod(resource)["containers"]]
            command_lines += [container["args"] for container in containers]
    return command_lines


def test_image_contains_every_package_and_module_that_the_project_installs() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    names = [pattern.rstrip("*") for pattern in setuptools["packages"]["find"]["include"]]
    names += [f"{module}.py" for module in setuptools["py-modules"]]
    lines = (ROOT / "deploy/Dockerfile").read_text().splitlines()
    copies = {word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]}
    context = (ROOT / ".dockerignore").read_text().splitlines()

    assert set(names) <= copies
    assert all(f"!{name}" in context for name in copies)


@pytest.mark.parametrize(
    ("first", "helps"),
    [
        ("load", (("inferload", "load", "--help"), ("locust", "--help"))),
        ("serve", (("inferload", "serve", "--help"), ("inferload", "export", "--help"))),
        ("export", (("inferload", "serve", "--help"), ("inferload", "export", "--help"))),
    ],
)
def test_every_option_exists(first: str, helps: tuple[tuple[str, ...], ...]) -> None:
    lines = [words for words in commands() if first in words]
    used = {match[0] for words in lines for word in words if (match := re.match(r"--[a-z-]+", word))}
    texts = [
        subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=True, cwd=ROOT).stdout
        for words in helps
    ]
    existing = set(re.findall(r"--[a-z-]+", " ".join(texts)))

    assert used
    assert used <= existing


def test_master_loads_every_gpu_pod_by_its_ordinal() -> None:
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


def test_every_selector_matches_pods() -> None:
    labels = [item["spec"]["template"]["metadata"]["labels"] for item in resources() if "template" in item["spec"]]
    for service in (item for item in resources() if item["kind"] == "Service"):
        assert any(service["spec"]["selector"].items() <= pod_labels.items() for pod_labels in labels), service[
            "metadata"
        ]
    for policy in (item for item in resources() if item["kind"] == "NetworkPolicy"):
        selector = policy["spec"]["podSelector"]["matchLabels"]
        assert any(selector.items() <= pod_labels.items() for pod_labels in labels), policy["metadata"]


def test_only_generators_reach_the_port_of_the_master_and_all_have_the_token() -> None:
    services = yaml.safe_load(COMPOSE.read_text())
    (rule,) = of_kind("NetworkPolicy", "inferload-master")["spec"]["ingress"]

    assert services["networks"]["default"]["internal"]
    assert services["services"]["master"]["ports"] == ["127.0.0.1:8089:8089"]
    assert [peer["podSelector"]["matchLabels"]["role"] for peer in rule["from"]] == ["generator"]
    for words in commands():
        assert ("load" in words) == any(word.startswith("--run-token-file=") for word in words)
