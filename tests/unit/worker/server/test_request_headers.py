"""The meaning of a request's header block, stored by its bytes."""

from __future__ import annotations

import pytest

from worker.server.request_headers import Method, RequestHead, RequestHeadParser, RequestHeadReader, parse_timeout
from worker.wire import StatusCode
from worker.wire.http2 import literal_block
from worker.wire.http2.headers import EMPTY_TABLE

UNARY, STREAMING = "/test.Test/Unary", "/test.Test/Streaming"
METHODS = {UNARY: Method(lambda stream, data: None), STREAMING: Method(lambda stream, data: None, True)}


def fields(path: str = UNARY, **more: str) -> list[tuple[str, str]]:
    pseudo = [(":method", "POST"), (":scheme", "http"), (":path", path)]
    rest = {"content_type": "application/grpc"} | more
    return [*pseudo, *((name.replace("_", "-"), value) for name, value in rest.items())]


def parser(*, authorized: bool = True) -> RequestHeadParser:
    return RequestHeadParser(lambda path, _: METHODS.get(path), lambda path, _: authorized, 16384)


def parse(path: str = UNARY, **more: str) -> RequestHead:
    return parser().parse([(name.encode(), value.encode()) for name, value in fields(path, **more)])


def test_metadata_is_text_but_for_binary_fields() -> None:
    head = parse(text="plain", raw_bin="AAE", padded_bin="AAE=", wrong_bin="?")
    assert dict(head.metadata) == {
        "content-type": "application/grpc",
        "text": "plain",
        "raw-bin": b"\0\1",
        "padded-bin": b"\0\1",
        "wrong-bin": b"?",
    }


@pytest.mark.parametrize(
    ("path", "more", "simple"),
    [
        (UNARY, {}, True),
        (UNARY, {"grpc_timeout": "1S"}, True),
        (UNARY, {"content_length": "5"}, False),
        (STREAMING, {}, False),
        ("/test.Test/None", {}, False),
    ],
)
def test_the_fast_path_takes_one_message_without_more_to_check(path: str, more: dict[str, str], simple: bool) -> None:
    assert parse(path, **more).simple == simple


def test_who_is_not_authorized_does_not_learn_which_methods_there_are() -> None:
    for path in (UNARY, "/test.Test/None"):
        head = parser(authorized=False).parse([(name.encode(), value.encode()) for name, value in fields(path)])
        assert head.rejection is not None
        assert head.rejection.code == StatusCode.UNAUTHENTICATED


def test_a_block_is_stored_once_its_decoder_has_no_state() -> None:
    shared = parser()
    reader = RequestHeadReader(shared)
    block = literal_block(fields())
    first = reader.read(EMPTY_TABLE + block)
    assert shared.cache.values == {}
    second = reader.read(block)
    assert shared.cache.values == {block: second}
    assert reader.read(block) is second
    assert first == second


def test_a_connection_with_a_table_does_not_use_what_others_stored() -> None:
    shared = parser()
    block = literal_block(fields())
    shared.cache.store(block, RequestHead("/other", None))
    assert RequestHeadReader(shared).read(block).path == UNARY


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1H", 3600), ("2M", 120), ("3S", 3), ("4m", 0.004), ("5u", 5e-6), ("6n", 6e-9), ("99999999S", 99999999)],
)
def test_timeouts_are_read(text: str, seconds: float) -> None:
    assert parse_timeout(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "S", "1", "1x", "-1S", "1.5S", "123456789S", "¹S", " 1S"])
def test_a_malformed_timeout_is_none(text: str) -> None:
    assert parse_timeout(text) is None
