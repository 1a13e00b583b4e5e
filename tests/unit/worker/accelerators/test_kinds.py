"""Discovery finds what is there and no more, and names the host as its cloud does. Devices that are not here are
stood in for by the words of their tools."""

import json
import os
import sys
from pathlib import Path

import pytest

from worker.accelerators import host
from worker.accelerators import kinds as accelerators
from worker.accelerators.kinds import Accelerator, Cpu, Cuda, Eia, Mps, Neuron, Xpu
from worker.errors import InputError


def tool(path: Path, said: object) -> Path:
    """An executable that prints `said` whatever it is asked."""
    path.write_text(f"#!{sys.executable}\nprint({json.dumps(said)!r})\n")
    path.chmod(0o755)
    return path


EI_DEVICES = {
    "ei_client_version": "1.6.2",
    "time": "Fri Mar 6 03:09:38 2019",
    "attached_accelerators": 2,
    "devices": [
        {"ordinal": 0, "type": "eia2.xlarge", "id": "eia-56e1", "status": "healthy"},
        {"ordinal": 1},
        {"type": "eia2.medium"},
    ],
}


def test_an_accelerator_is_named_by_kind_and_ordinal() -> None:
    assert accelerators.parse("cuda:12") == ("cuda", 12)
    assert Accelerator("cuda", 12, "a10g", "", 0).name == "cuda:12"


@pytest.mark.parametrize("text", ["", "cpu", "cpu:", "cpu:-1", "cpu:x", "gpu:0", "cpu:0:0", "cpu:²"])
def test_what_names_no_accelerator_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match="names no accelerator") as raised:
        accelerators.parse(text)
    assert "\n" not in str(raised.value)


def test_a_cpu_ordinal_is_a_slice_of_the_cores_that_this_process_may_use() -> None:
    cores = host.available_cores()
    found = Cpu(1).discover()
    assert [a.ordinal for a in found] == list(range(len(cores)))
    assert {a.type for a in found} == {"cpu-1c"}
    assert found[0].memory_bytes > 0


def test_an_ordinal_that_is_not_there_is_an_error_that_lists_those_that_are() -> None:
    with pytest.raises(InputError, match=r"cpu:999 is not there; this host has cpu:0"):
        Cpu(1).find(999)


def numa(root: Path, *nodes: str) -> Path:
    for number, cores in enumerate(nodes):
        directory = root / f"sys/devices/system/node/node{number}"
        directory.mkdir(parents=True)
        (directory / "cpulist").write_text(cores + "\n")
    return root


def test_slices_stay_inside_a_numa_node(tmp_path: Path) -> None:
    root = numa(tmp_path, "0-2,6", "3-5")
    found = host.slices(2, range(7), root)
    assert [piece.cores for piece in found] == [(0, 1), (2, 6), (3, 4)]
    assert [piece.name for piece in found] == ["node0-cores0,1", "node0-cores2,6", "node1-cores3,4"]


def test_a_slice_wider_than_any_node_crosses_them(tmp_path: Path) -> None:
    assert [piece.cores for piece in host.slices(4, range(4), numa(tmp_path, "0-1", "2-3"))] == [(0, 1, 2, 3)]


def test_no_slice_is_wider_than_the_machine(tmp_path: Path) -> None:
    assert host.slices(3, range(2), tmp_path) == []


def test_what_the_user_says_wins_over_every_file(tmp_path: Path) -> None:
    (tmp_path / "sys/class/dmi/id").mkdir(parents=True)
    (tmp_path / "sys/class/dmi/id/sys_vendor").write_text("Amazon EC2\n")
    (tmp_path / "sys/class/dmi/id/product_name").write_text("c5.large\n")
    assert host.host_type("mine", tmp_path) == "mine"
    assert host.host_type(None, tmp_path) == "c5.large"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"ds": {"meta_data": {"instance-type": "g5.xlarge"}}}, "g5.xlarge"),
        ({"ds": {"meta_data": {"imds": {"compute": {"vmSize": "Standard_NC4as_T4_v3"}}}}}, "Standard_NC4as_T4_v3"),
    ],
)
def test_cloud_init_knows_what_the_cloud_said_at_boot(tmp_path: Path, said: object, expected: str) -> None:
    (tmp_path / "run/cloud-init").mkdir(parents=True)
    (tmp_path / "run/cloud-init/instance-data.json").write_text(json.dumps(said))
    assert host.host_type(None, tmp_path) == expected


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
    assert host.host_type(None, tmp_path) == f"{expected} {os.cpu_count()}-core"


def test_the_ei_tool_is_read_tolerantly(tmp_path: Path) -> None:
    found = Eia(tool(tmp_path / "ei", EI_DEVICES)).discover()
    assert found == [
        Accelerator("eia", 0, "eia2.xlarge", "eia-56e1", 0, "healthy"),
        Accelerator("eia", 1, "eia", "", 0, "unknown"),
    ]


def test_ei_visible_devices_masks_and_renumbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = {"devices": [{"ordinal": n, "type": f"t{n}"} for n in range(3)]}
    monkeypatch.setenv("EI_VISIBLE_DEVICES", "2,0")
    found = Eia(tool(tmp_path / "ei", devices)).discover()
    assert [(a.ordinal, a.type) for a in found] == [(0, "t2"), (1, "t0")]


@pytest.mark.parametrize("said", ["", [], {}, {"devices": 3}, {"devices": ["x"]}])
def test_a_tool_that_says_something_else_finds_nothing(tmp_path: Path, said: object) -> None:
    assert Eia(tool(tmp_path / "ei", said)).discover() == []


def test_a_tool_that_is_not_installed_finds_nothing(tmp_path: Path) -> None:
    assert Eia(tmp_path / "none").discover() == []
    assert Neuron(str(tmp_path / "none")).discover() == []


def test_neuron_cores_are_counted_across_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [{"neuron_device": n, "nc_count": 2, "memory_size": 34359738368} for n in range(2)]
    neuron = Neuron(str(tool(tmp_path / "neuron-ls", said)))
    assert [a.name for a in neuron.discover()] == ["neuron:0", "neuron:1", "neuron:2", "neuron:3"]
    monkeypatch.setenv("NEURON_RT_VISIBLE_CORES", "")
    assert neuron.environment(3).memory_bytes == 17179869184
    assert os.environ["NEURON_RT_VISIBLE_CORES"] == "3"


def test_each_kind_of_gpu_hides_the_others_before_torch_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "cuda": [["NVIDIA A10G", 24, "u0"], ["Tesla T4", 16, "u1"]],
        "xpu": [["Intel(R) Data Center GPU Max 1100", 48, ""]],
        "mps": [["apple", 8, ""]],
    }
    monkeypatch.setattr(accelerators, "_probe_result", found)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert Cuda().environment(1).type == "t4"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    monkeypatch.setenv("ZE_AFFINITY_MASK", "")
    assert Xpu().environment(0).type == "data-center-gpu-max-1100"
    assert os.environ["ZE_AFFINITY_MASK"] == "0"
    assert Mps().environment(0).name == "mps:0"
    with pytest.raises(InputError, match=r"cuda:2 is not there; this host has cuda:0, cuda:1"):
        Cuda().environment(2)


@pytest.mark.parametrize(
    ("device", "name"), [("NVIDIA A10G", "a10g"), ("Tesla V100-SXM2-16GB", "v100-sxm2-16gb"), ("NVIDIA L4", "l4")]
)
def test_devices_are_named_as_price_lists_name_them(device: str, name: str) -> None:
    assert accelerators.type_name(device) == name


def test_a_mask_that_was_there_before_counts() -> None:
    assert accelerators.masked(None, 1) == "1"
    assert accelerators.masked("4,GPU-abc", 1) == "GPU-abc"
