"""Discovery finds what is there and no more. The output of a vendor's tool stands in for devices that are not here."""

import json
import os
import sys
from pathlib import Path

import pytest

from worker.accelerators import (
    KINDS,
    Accelerator,
    AcceleratorKind,
    KindOptions,
    available_cores,
    make_kind,
    parse_accelerator,
    parse_accelerators,
    probe,
)
from worker.accelerators.cpu import Cpu, core_slices
from worker.accelerators.cuda import Cuda
from worker.accelerators.elastic_inference import ElasticInference
from worker.accelerators.mps import Mps
from worker.accelerators.neuron import Neuron
from worker.accelerators.sim import Sim
from worker.accelerators.xpu import Xpu
from worker.errors import InputError


def tool(path: Path, output: object) -> Path:
    """An executable that prints `output` as JSON whatever its arguments."""
    path.write_text(f"#!{sys.executable}\nprint({json.dumps(output)!r})\n")
    path.chmod(0o755)
    return path


def elastic_inference(path: Path) -> ElasticInference:
    return ElasticInference(KindOptions(ei_tool=path))


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
    assert parse_accelerator("cuda:12") == ("cuda", 12)
    assert Accelerator("cuda", 12, "a10g", "", 0).name == "cuda:12"


@pytest.mark.parametrize("text", ["", "cpu", "cpu:", "cpu:-1", "cpu:x", "gpu:0", "cpu:0:0", "cpu:²"])
def test_an_unknown_accelerator_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match="unknown accelerator") as raised:
        parse_accelerator(text)
    assert "\n" not in str(raised.value)


def test_a_cpu_ordinal_is_a_slice_of_the_cores_that_this_process_may_use() -> None:
    cores = available_cores()
    accelerators = Cpu(KindOptions(1)).discover()
    assert [a.ordinal for a in accelerators] == list(range(len(cores)))
    assert {a.type for a in accelerators} == {"cpu-1c"}
    assert accelerators[0].memory_bytes > 0


def test_an_ordinal_that_is_not_there_is_an_error_that_lists_those_that_are() -> None:
    with pytest.raises(InputError, match=r"this host has no cpu:999 \(choose one of cpu:0"):
        Cpu(KindOptions(1)).find(999)


def numa(root: Path, *nodes: str) -> Path:
    for number, cores in enumerate(nodes):
        directory = root / f"sys/devices/system/node/node{number}"
        directory.mkdir(parents=True)
        (directory / "cpulist").write_text(cores + "\n")
    return root


def test_slices_stay_inside_a_numa_node(tmp_path: Path) -> None:
    root = numa(tmp_path, "0-2,6", "3-5")
    accelerators = core_slices(2, range(7), root)
    assert [piece.cores for piece in accelerators] == [(0, 1), (2, 6), (3, 4)]
    assert [piece.name for piece in accelerators] == ["node0-cores0,1", "node0-cores2,6", "node1-cores3,4"]


def test_a_slice_wider_than_any_node_crosses_them(tmp_path: Path) -> None:
    assert [piece.cores for piece in core_slices(4, range(4), numa(tmp_path, "0-1", "2-3"))] == [(0, 1, 2, 3)]


def test_no_slice_is_wider_than_the_machine(tmp_path: Path) -> None:
    assert core_slices(3, range(2), tmp_path) == []


def test_the_ei_tool_is_read_tolerantly(tmp_path: Path) -> None:
    accelerators = elastic_inference(tool(tmp_path / "ei", EI_DEVICES)).discover()
    assert accelerators == [
        Accelerator("eia", 0, "eia2.xlarge", "eia-56e1", 0, "healthy"),
        Accelerator("eia", 1, "eia", "", 0, "unknown"),
    ]


def test_ei_visible_devices_masks_and_renumbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = {"devices": [{"ordinal": n, "type": f"t{n}"} for n in range(3)]}
    monkeypatch.setenv("EI_VISIBLE_DEVICES", "2,0")
    accelerators = elastic_inference(tool(tmp_path / "ei", devices)).discover()
    assert [(a.ordinal, a.type) for a in accelerators] == [(0, "t2"), (1, "t0")]


@pytest.mark.parametrize("output", ["", [], {}, {"devices": 3}, {"devices": ["x"]}])
def test_a_tool_with_other_output_finds_nothing(tmp_path: Path, output: object) -> None:
    assert elastic_inference(tool(tmp_path / "ei", output)).discover() == []


def test_a_tool_that_is_not_installed_finds_nothing(tmp_path: Path) -> None:
    assert elastic_inference(tmp_path / "none").discover() == []
    assert Neuron(tool=str(tmp_path / "none")).discover() == []


def test_neuron_cores_are_counted_across_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = [{"neuron_device": n, "nc_count": 2, "memory_size": 34359738368} for n in range(2)]
    neuron = Neuron(tool=str(tool(tmp_path / "neuron-ls", devices)))
    assert [a.name for a in neuron.discover()] == ["neuron:0", "neuron:1", "neuron:2", "neuron:3"]
    monkeypatch.setenv("NEURON_RT_VISIBLE_CORES", "")
    assert neuron.bind(3).memory_bytes == 17179869184
    assert os.environ["NEURON_RT_VISIBLE_CORES"] == "3"


def test_each_kind_of_gpu_hides_the_others_before_torch_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = {
        "cuda": [("NVIDIA A10G", 24, "u0"), ("Tesla T4", 16, "u1")],
        "xpu": [("Intel(R) Data Center GPU Max 1100", 48, "")],
        "mps": [("apple", 8, "")],
    }
    monkeypatch.setattr(probe, "torch_devices", lambda: devices)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert Cuda().bind(1).type == "t4"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    monkeypatch.setenv("ZE_AFFINITY_MASK", "")
    assert Xpu().bind(0).type == "data-center-gpu-max-1100"
    assert os.environ["ZE_AFFINITY_MASK"] == "0"
    assert Mps().bind(0).name == "mps:0"
    with pytest.raises(InputError, match=r"this host has no cuda:2 \(choose one of cuda:0, cuda:1\)"):
        Cuda().bind(2)


@pytest.mark.parametrize(
    ("device", "name"), [("NVIDIA A10G", "a10g"), ("Tesla V100-SXM2-16GB", "v100-sxm2-16gb"), ("NVIDIA L4", "l4")]
)
def test_devices_are_named_as_price_lists_name_them(device: str, name: str) -> None:
    assert probe.type_name(device) == name


def test_an_earlier_mask_is_restricted_further() -> None:
    assert probe.restrict_visible(None, 1) == "1"
    assert probe.restrict_visible("4,GPU-abc", 1) == "GPU-abc"


def test_a_forward_pass_on_a_slice_has_a_thread_for_each_of_its_cores() -> None:
    assert Cpu(KindOptions(cores_per_ordinal=3)).threads == 3
    assert Cuda().threads == 0


def test_a_simulated_ordinal_exists_without_discovery() -> None:
    assert Sim().discover() == []
    assert Sim().bind(7) == Accelerator("sim", 7, "sim", "sim-7", 0)


@pytest.mark.parametrize(
    ("text", "names"),
    [("sim:1, sim:0", ["sim:1", "sim:0"]), ("cpu", [f"cpu:{ordinal}" for ordinal in range(len(available_cores()))])],
)
def test_a_kind_alone_stands_for_all_its_ordinals(text: str, names: list[str]) -> None:
    assert parse_accelerators(text, KindOptions()) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("sim:0,sim:0", "names sim:0 twice"),
        ("sim", "needs ordinals"),
        ("tpu", "unknown kind of accelerator 'tpu'"),
        ("tpu:0", "unknown accelerator 'tpu:0'"),
    ],
)
def test_a_wrong_list_of_accelerators_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        parse_accelerators(text, KindOptions())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", KINDS.values())
def test_every_kind_is_documented_and_named(kind: type[AcceleratorKind]) -> None:
    assert kind.__doc__
    assert isinstance(make_kind(kind.name), kind)
