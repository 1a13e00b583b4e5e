"""Addresses: from an option, a file or a folder; wrong ones refused in one line."""

import json
from pathlib import Path

import pytest

from capacity.measures import HardwareCombination, Series
from loadgen._errors import InputError
from loadgen.targets._discovery import read_addresses
from loadgen.targets._payloads import TensorSpec
from loadgen.targets._target import Target


def targets_file(path: Path, *addresses: str) -> Path:
    path.write_text(json.dumps({"schema": 1, "targets": [{"address": address} for address in addresses]}))
    return path


def test_addresses_are_read_from_text_with_or_without_a_scheme(tmp_path: Path) -> None:
    assert read_addresses("127.0.0.1:9001, grpc://host:2/", tmp_path) == ("127.0.0.1:9001", "host:2")


def test_addresses_are_read_from_a_fleets_file(tmp_path: Path) -> None:
    file = targets_file(tmp_path / "T.json", "a:1", "b:2")

    assert read_addresses(f"@{file}", tmp_path) == ("a:1", "b:2")


def test_a_targets_file_in_the_folder_is_found_by_itself(tmp_path: Path) -> None:
    assert read_addresses("", tmp_path) == ()

    targets_file(tmp_path / "targets.json", "a:1")

    assert read_addresses("", tmp_path) == ("a:1",)
    assert read_addresses("b:2", tmp_path) == ("b:2",)


@pytest.mark.parametrize(
    "text", ["host", "host:", ":1", "host:http", "host:70000", "host:0", "a:1,a:1", "@/nowhere.json"]
)
def test_wrong_addresses_are_refused_in_one_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_addresses(text, tmp_path)

    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"targets": [{}]}', '{"targets": []}'])
def test_a_file_that_no_fleet_wrote_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "T.json").write_text(content)

    with pytest.raises(InputError, match="targets file"):
        read_addresses(f"@{tmp_path / 'T.json'}", tmp_path)


def test_a_target_travels_to_another_generator_whole() -> None:
    series = Series(HardwareCombination("c5.large", "eia2.medium", 2, 1), "gpt", "eia:0 @ a:1", True)
    target = Target("a:1", series, (TensorSpec("x", "INT64", (-1, 7), (1, 7), 128), TensorSpec("y", "FP32", (1,))), "1")

    assert Target.from_wire(target.to_wire()) == target
