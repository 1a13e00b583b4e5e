"""The master accepts messages of its generators, once and in their own names; all others are counted and dropped."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
import pytest

from loadgen._errors import MessageRefused
from loadgen.distributed._signing import TOKEN_VARIABLE, RunToken, sign, verify
from loadgen.distributed._validator import (
    FALSE_NAME,
    MALFORMED,
    NAME_LENGTH,
    REPLAYED,
    SIZE_LIMIT,
    STRANGER,
    TOO_LARGE,
    MessageValidator,
)

KEY, OTHER = b"of this run", b"of another"
ME = b"host_1"
READY = ["client_ready", "2.47.0", "host_1"]
SNAPSHOT = ["inferload_snapshot", b"...", "host_1"]


def validator_with(key: bytes = KEY) -> MessageValidator:
    validator = MessageValidator(RunToken(environment={TOKEN_VARIABLE: key.decode()}))
    validator.custom_types = {"inferload_snapshot"}
    return validator


def packet(message: Any, number: int, key: bytes = KEY, name: bytes = ME) -> list[bytes]:
    body = msgpack.packb(message)
    return [name, body, sign(key, name, number, body)]


def reason(validator: MessageValidator, parts: Sequence[bytes]) -> str:
    with pytest.raises(MessageRefused) as refusal:
        validator.validate(parts)
    return str(refusal.value)


def test_a_generator_of_this_run_is_accepted() -> None:
    validator = validator_with()

    assert validator.validate(packet(READY, 1))[0] == "host_1"
    assert validator.validate(packet(SNAPSHOT, 2)) == ("host_1", "inferload_snapshot", b"...")


def test_a_message_counts_once() -> None:
    validator = validator_with()
    validator.validate(packet(READY, 1))
    parts = packet(SNAPSHOT, 5)
    validator.validate(parts)

    assert reason(validator, parts) == REPLAYED
    assert reason(validator, packet(SNAPSHOT, 4)) == REPLAYED


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        (packet(SNAPSHOT, 9, OTHER), STRANGER),
        (packet(SNAPSHOT, 9)[:2], STRANGER),
        ([b"host_2", *packet(SNAPSHOT, 9)[1:]], STRANGER),
        ([*packet(SNAPSHOT, 9)[:1], msgpack.packb(READY), packet(SNAPSHOT, 9)[2]], STRANGER),
        ([*packet(SNAPSHOT, 9)[:2], b"short"], STRANGER),
        (packet(["inferload_snapshot", b"", "host_2"], 9), FALSE_NAME),
        (packet(["inferload_snapshot", b"", "host_2"], 9, name=b"host_3"), FALSE_NAME),
        (packet(["inferload_snapshot", b"", "host_2"], 9, name=b"host_2"), STRANGER),
        (packet(["something", b"", "host_1"], 9), MALFORMED),
        (packet(["heartbeat", {"state": "running"}, "host_1"], 9), MALFORMED),
        (packet(["heartbeat", None, "host_1"], 9), MALFORMED),
        (packet(["stats", {}, "host_1"], 9), MALFORMED),
        (packet(["exception", {"msg": 1}, "host_1"], 9), MALFORMED),
        (packet([1, 2, 3], 9), MALFORMED),
        (packet({"a": 1}, 9), MALFORMED),
        (packet("word", 9), MALFORMED),
        (packet(None, 9), MALFORMED),
        ([ME, b"\xc1", sign(KEY, ME, 9, b"\xc1")], MALFORMED),
        ([ME, b"\x91" * 4000, sign(KEY, ME, 9, b"\x91" * 4000)], MALFORMED),
        ([ME], MALFORMED),
        ([ME, b"", b"", b""], MALFORMED),
        ([b"", b"a"], MALFORMED),
        ([b"n" * (NAME_LENGTH + 1), b"a"], MALFORMED),
        ([b"\xff", *packet(SNAPSHOT, 9, name=b"\xff")[1:]], MALFORMED),
        ([ME, bytes(SIZE_LIMIT + 1)], TOO_LARGE),
    ],
)
def test_everything_else_is_refused_with_its_reason(parts: Sequence[bytes], why: str) -> None:
    validator = validator_with()
    validator.validate(packet(READY, 1))

    assert reason(validator, parts) == why
    assert validator.validate(packet(SNAPSHOT, 10))


def test_without_a_token_anybody_takes_part_in_the_name_that_the_connection_has() -> None:
    validator = validator_with(b"")
    validator.validate([ME, msgpack.packb(READY)])
    validator.validate(packet(SNAPSHOT, 3, b""))

    assert reason(validator, [b"host_2", msgpack.packb(SNAPSHOT)]) == FALSE_NAME
    assert reason(validator, packet(SNAPSHOT, 3, b"")) == REPLAYED
    assert reason(validator, packet(SNAPSHOT, 4, OTHER)) == STRANGER


def test_a_signature_covers_client_message_and_number() -> None:
    signature = sign(KEY, ME, 7, b"body")

    assert verify(KEY, ME, b"body", signature) == 7
    assert verify(KEY, b"host_", b"1body", signature) is None
    assert verify(KEY, ME, b"bodY", signature) is None
    assert verify(OTHER, ME, b"body", signature) is None
    assert verify(KEY, ME, b"body", bytes([signature[0] ^ 1]) + signature[1:]) is None


def test_a_token_in_a_file_is_used_and_not_shown(tmp_path: Path) -> None:
    token = RunToken()
    file = tmp_path / "token"
    file.write_text("very secret\n")

    assert token.read_file(str(file)) == ""
    assert token.key == b"very secret"


def test_a_token_of_the_command_line_replaces_that_of_the_environment() -> None:
    parser = argparse.ArgumentParser()
    token = RunToken(environment={TOKEN_VARIABLE: "of the environment"})
    token.add_options(parser)

    options = parser.parse_args(["--run-token", "of the command line"])

    assert token.key == b"of the command line"
    assert not any(vars(options).values())


@pytest.mark.parametrize("content", [None, "", "\n", b"\xff\xfe"])
def test_a_file_without_a_token_is_an_error_in_one_line(tmp_path: Path, content: str | bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(argparse.ArgumentTypeError, match=str(file)):
        RunToken().read_file(str(file))


@pytest.mark.parametrize(
    ("line", "forks_only"),
    [
        ("--processes 4", True),
        ("--processes=4 --headless", True),
        ("--worker --processes 4", False),
        ("--master", False),
    ],
)
def test_only_forks_of_one_command_share_a_random_key(line: str, forks_only: bool) -> None:
    token = RunToken(line.split())

    assert token.forks_only == forks_only
    assert bool(token.key) == forks_only
    assert not RunToken(line.split(), {TOKEN_VARIABLE: "a token"}).forks_only


#: What a worker of Locust 2.47 reports, as `StatsEntry.serialize` and `StatsError.serialize` make it.
ENTRY = {
    "name": "/",
    "method": "GET",
    "last_request_timestamp": 1.5,
    "start_time": 1.0,
    "num_requests": 1,
    "num_none_requests": 0,
    "num_failures": 0,
    "total_response_time": 3.2,
    "max_response_time": 3.2,
    "min_response_time": None,
    "total_content_length": 0,
    "response_times": {3: 1},
    "num_reqs_per_sec": {1: 1},
    "num_fail_per_sec": {},
}
ERROR = {"name": "/", "method": "GET", "error": "no", "occurrences": 1, "first_seen": None, "last_seen": 1.5}
REPORT = {"stats": [ENTRY], "stats_total": ENTRY, "errors": {"key": ERROR}, "user_classes_count": {"A": 1}}


def test_a_report_of_locusts_statistics_is_accepted() -> None:
    validator = validator_with()
    validator.validate(packet(READY, 1))

    assert validator.validate(packet(["stats", REPORT, "host_1"], 2)).data == REPORT


@pytest.mark.parametrize(
    "report",
    [
        {**REPORT, "stats": [{**ENTRY, "num_requests": "many"}]},
        {**REPORT, "stats": [{**ENTRY, "last_request_timestamp": float("inf")}]},
        {**REPORT, "stats": [{**ENTRY, "response_times": {"three": 1}}]},
        {**REPORT, "stats": [{**ENTRY, "response_times": {3: None}}]},
        {**REPORT, "stats": [None]},
        {**REPORT, "stats_total": {}},
        {**REPORT, "errors": {"key": {}}},
        {**REPORT, "errors": {"key": {**ERROR, "last_seen": "now"}}},
        {**REPORT, "user_classes_count": {"A": -1}},
    ],
)
def test_a_report_that_locusts_master_cannot_add_up_is_refused(report: dict[str, Any]) -> None:
    validator = validator_with()
    validator.validate(packet(READY, 1))

    assert reason(validator, packet(["stats", report, "host_1"], 2)) == MALFORMED
