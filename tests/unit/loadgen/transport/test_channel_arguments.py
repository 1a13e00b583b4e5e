"""What a channel takes and refuses; nothing here opens a connection."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from loadgen.transport import Channel, PreparedRequest, Security
from loadgen.transport.http2 import split_address

METHOD = "/a.B/C"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:9001", ("127.0.0.1", 9001)),
        ("[::1]:1", ("::1", 1)),
        ("worker.example:65535", ("worker.example", 65535)),
    ],
)
def test_addresses(address: str, expected: tuple[str, int]) -> None:
    assert split_address(address) == expected


@pytest.mark.parametrize(
    "address", ["", "host", ":1", "host:", "host:0", "host:65536", "host:-1", "host:one", "host:1²"]
)
def test_an_address_that_is_none_is_refused_in_one_sentence(address: str) -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        Channel(address, method=METHOD)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "Infer"}, "not a method's full path"),
        ({"method": "/Infer"}, "not a method's full path"),
        ({"connections": 0}, "at least 1 connection"),
        ({"max_receive_bytes": 0}, "max_receive_bytes"),
        ({"max_receive_bytes": 2**31}, "max_receive_bytes"),
        ({"token": ""}, "printable ASCII"),
        ({"token": "two\nlines"}, "printable ASCII"),
        ({"security": Security(client_cert=b"x")}, "both a client certificate and its key"),
        ({"security": Security(client_key=b"x")}, "both a client certificate and its key"),
        ({"security": Security(root_ca=b"not PEM")}, "root certificates are not PEM"),
        ({"security": Security(root_ca=b"\xff")}, "root certificates are not PEM"),
        ({"security": Security(client_cert=b"x", client_key=b"y")}, "certificate and key do not fit"),
    ],
)
def test_wrong_arguments_are_value_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        Channel("127.0.0.1:1", **{"method": METHOD, **options})
    assert "\n" not in str(raised.value)


def test_a_clients_key_is_neither_left_on_disk_nor_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    security = Security(client_cert=b"certificate", client_key=b"secret-key")
    with pytest.raises(ValueError, match="do not fit"):
        security.context()
    assert list(tmp_path.iterdir()) == []
    assert "secret-key" not in repr(security)


def test_preparing_needs_no_channel() -> None:
    prepared = Channel.prepare(b"abc")
    assert isinstance(prepared, PreparedRequest)
    assert (prepared.size, prepared.framed) == (8, b"\0\0\0\0\x03abc")


def test_a_channel_that_was_never_used_closes() -> None:
    channel = Channel("127.0.0.1:1", method=METHOD)
    assert channel.in_flight == 0
    assert channel.statistics.connects == 0
    channel.close()
    channel.close()
    assert channel.call(b"", 1.0).code == 1
    assert channel.call(b"", None).code == 1
