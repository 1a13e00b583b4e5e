"""The master lets in what its generators say, once and in their own names; everything else is counted and dropped."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
import pytest

from loadgen.distributed import _signing as _seal
from loadgen.distributed._signing import opened, seal
from loadgen.distributed._validator import (
    CAP,
    FALSE_NAME,
    MALFORMED,
    NAME_LENGTH,
    REPLAYED,
    STRANGER,
    TOO_LARGE,
    Door,
    Refused,
)

KEY, OTHER = b"of this run", b"of another"
ME = b"host_1"
READY = ["client_ready", "2.47.0", "host_1"]
SNAPSHOT = ["inferload_snapshot", b"...", "host_1"]


def door(key: bytes = KEY) -> Door:
    made = Door(lambda: key)
    made.custom = {"inferload_snapshot"}
    return made


def parcel(message: Any, number: int, key: bytes = KEY, name: bytes = ME) -> list[bytes]:
    body = msgpack.packb(message)
    return [name, body, seal(key, name, number, body)]


def reason(door: Door, parts: Sequence[bytes]) -> str:
    with pytest.raises(Refused) as refused:
        door.admit(parts)
    return str(refused.value)


def test_a_generator_of_this_run_is_let_in() -> None:
    one = door()

    assert one.admit(parcel(READY, 1))[0] == "host_1"
    assert one.admit(parcel(SNAPSHOT, 2)) == ("host_1", "inferload_snapshot", b"...")


def test_a_message_counts_once() -> None:
    one = door()
    one.admit(parcel(READY, 1))
    sent = parcel(SNAPSHOT, 5)
    one.admit(sent)

    assert reason(one, sent) == REPLAYED
    assert reason(one, parcel(SNAPSHOT, 4)) == REPLAYED


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        (parcel(SNAPSHOT, 9, OTHER), STRANGER),
        (parcel(SNAPSHOT, 9)[:2], STRANGER),
        ([b"host_2", *parcel(SNAPSHOT, 9)[1:]], STRANGER),
        ([*parcel(SNAPSHOT, 9)[:1], msgpack.packb(READY), parcel(SNAPSHOT, 9)[2]], STRANGER),
        ([*parcel(SNAPSHOT, 9)[:2], b"short"], STRANGER),
        (parcel(["inferload_snapshot", b"", "host_2"], 9), FALSE_NAME),
        (parcel(["inferload_snapshot", b"", "host_2"], 9, name=b"host_3"), FALSE_NAME),
        (parcel(["inferload_snapshot", b"", "host_2"], 9, name=b"host_2"), STRANGER),
        (parcel(["something", b"", "host_1"], 9), MALFORMED),
        (parcel(["heartbeat", {"state": "running"}, "host_1"], 9), MALFORMED),
        (parcel(["heartbeat", None, "host_1"], 9), MALFORMED),
        (parcel(["stats", {}, "host_1"], 9), MALFORMED),
        (parcel(["exception", {"msg": 1}, "host_1"], 9), MALFORMED),
        (parcel([1, 2, 3], 9), MALFORMED),
        (parcel({"a": 1}, 9), MALFORMED),
        (parcel("word", 9), MALFORMED),
        (parcel(None, 9), MALFORMED),
        ([ME, b"\xc1", seal(KEY, ME, 9, b"\xc1")], MALFORMED),
        ([ME, b"\x91" * 4000, seal(KEY, ME, 9, b"\x91" * 4000)], MALFORMED),
        ([ME], MALFORMED),
        ([ME, b"", b"", b""], MALFORMED),
        ([b"", b"a"], MALFORMED),
        ([b"n" * (NAME_LENGTH + 1), b"a"], MALFORMED),
        ([b"\xff", *parcel(SNAPSHOT, 9, name=b"\xff")[1:]], MALFORMED),
        ([ME, bytes(CAP + 1)], TOO_LARGE),
    ],
)
def test_everything_else_is_refused_and_says_why(parts: Sequence[bytes], why: str) -> None:
    one = door()
    one.admit(parcel(READY, 1))

    assert reason(one, parts) == why
    assert one.admit(parcel(SNAPSHOT, 10))


def test_without_a_token_anybody_takes_part_in_the_name_that_the_connection_has() -> None:
    one = door(b"")
    one.admit([ME, msgpack.packb(READY)])
    one.admit(parcel(SNAPSHOT, 3, b""))

    assert reason(one, [b"host_2", msgpack.packb(SNAPSHOT)]) == FALSE_NAME
    assert reason(one, parcel(SNAPSHOT, 3, b"")) == REPLAYED
    assert reason(one, parcel(SNAPSHOT, 4, OTHER)) == STRANGER


def test_a_seal_is_of_who_sent_what_and_when() -> None:
    sealed = seal(KEY, ME, 7, b"body")

    assert opened(KEY, ME, b"body", sealed) == 7
    assert opened(KEY, b"host_", b"1body", sealed) is None
    assert opened(KEY, ME, b"bodY", sealed) is None
    assert opened(OTHER, ME, b"body", sealed) is None
    assert opened(KEY, ME, b"body", bytes([sealed[0] ^ 1]) + sealed[1:]) is None


def test_the_token_of_a_file_is_kept_and_shown_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_seal, "_token", b"")
    monkeypatch.delenv(_seal.TOKEN_VARIABLE, raising=False)
    file = tmp_path / "token"
    file.write_text("very secret\n")

    assert _seal.take_token_file(str(file)) == ""
    assert _seal.secret() == b"very secret"


@pytest.mark.parametrize("content", [None, "", "\n", b"\xff\xfe"])
def test_a_file_without_a_token_is_an_error_in_one_line(tmp_path: Path, content: str | bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(argparse.ArgumentTypeError, match=str(file)):
        _seal.take_token_file(str(file))


@pytest.mark.parametrize(
    ("line", "alone"),
    [
        ("--processes 4", True),
        ("--processes=4 --headless", True),
        ("--worker --processes 4", False),
        ("--master", False),
    ],
)
def test_only_forks_share_a_secret_of_their_own(line: str, alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_seal, "_token", b"")
    monkeypatch.setattr("sys.argv", ["locust", *line.split()])

    assert _seal.only_forks() == alone
    assert bool(_seal.secret()) == alone
