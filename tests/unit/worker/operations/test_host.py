"""The host has the name that its cloud sells it by, else that of its processor."""

import json
import os
from pathlib import Path

import pytest

from worker.operations import host_type


def test_the_users_name_overrides_every_file(tmp_path: Path) -> None:
    (tmp_path / "sys/class/dmi/id").mkdir(parents=True)
    (tmp_path / "sys/class/dmi/id/sys_vendor").write_text("Amazon EC2\n")
    (tmp_path / "sys/class/dmi/id/product_name").write_text("c5.large\n")
    assert host_type("mine", tmp_path) == "mine"
    assert host_type(None, tmp_path) == "c5.large"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"ds": {"meta_data": {"instance-type": "g5.xlarge"}}}, "g5.xlarge"),
        ({"ds": {"meta_data": {"imds": {"compute": {"vmSize": "Standard_NC4as_T4_v3"}}}}}, "Standard_NC4as_T4_v3"),
    ],
)
def test_cloud_init_has_the_instance_type(tmp_path: Path, document: object, expected: str) -> None:
    (tmp_path / "run/cloud-init").mkdir(parents=True)
    (tmp_path / "run/cloud-init/instance-data.json").write_text(json.dumps(document))
    assert host_type(None, tmp_path) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("AMD EPYC 7R13 48-Core Processor", "AMD EPYC 7R13"),
        ("Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz", "Intel Xeon Platinum 8275CL"),
    ],
)
def test_elsewhere_a_host_is_its_processor_and_core_count(tmp_path: Path, model: str, expected: str) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor\t: 0\nmodel name\t: {model}\n")
    assert host_type(None, tmp_path) == f"{expected} {os.cpu_count()}-core"
