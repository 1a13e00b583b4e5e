"""Targets are read as they are written; wrong ones are refused in one line."""

from pathlib import Path

import pytest

from worker.wire import FormatError, TargetEntry, parse_targets, read_targets_file, write_targets_file


def test_a_targets_file_is_read_back_as_written(tmp_path: Path) -> None:
    entries = [TargetEntry("127.0.0.1:9001", "cpu:0", "gpt", 123), TargetEntry("[::1]:9002", "cpu:1", "gpt", 124)]
    path = tmp_path / "targets.json"

    write_targets_file(path, entries)

    assert read_targets_file(path) == entries
    assert parse_targets(f"@{path}") == entries
    assert [entry.name for entry in tmp_path.iterdir()] == ["targets.json"]


def test_a_list_of_addresses_is_read_with_or_without_a_scheme() -> None:
    assert parse_targets("a:1, grpc://b:2/,") == [TargetEntry("a:1"), TargetEntry("b:2")]
    assert parse_targets("") == []


def test_a_file_with_addresses_alone_is_enough(tmp_path: Path) -> None:
    (tmp_path / "T.json").write_text('{"targets": [{"address": "a:1"}]}')

    assert read_targets_file(tmp_path / "T.json") == [TargetEntry("a:1")]


@pytest.mark.parametrize(
    "text", ["host", "host:", ":1", "host:http", "host:70000", "host:0", "host:²", "a:1,a:1", "@/nowhere.json"]
)
def test_wrong_addresses_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(FormatError) as refused:
        parse_targets(text)

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "\x00", '{"targets": [{}]}', '{"targets": []}', '{"targets": ["a:1"]}', '{"targets": [1]}'],
)
def test_a_file_of_another_format_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "T.json").write_text(content)

    with pytest.raises(FormatError, match=r"targets file .*T\.json"):
        read_targets_file(tmp_path / "T.json")
