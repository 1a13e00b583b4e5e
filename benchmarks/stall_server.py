"""A server that answers every inference after 1 ms, all at once if need be, and once freezes: nothing is read or sent.

What a load generator must then report is known in closed form, see `computed`. The HTTP/2 here is the least that gRPC
clients need, made by hand so that a thousand waiting requests cost it milliseconds.

    python benchmarks/stall_server.py --after 10 --freeze 1

prints `ready 127.0.0.1:PORT`, and once it has frozen `froze SECONDS`, as long as it really was. The time until the
freeze counts from the first inference. It serves until SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import signal
import time
from struct import Struct
from typing import Any

from hpack import Decoder

from worker.wire import open_inference_pb2 as pb

ANSWER_S = 0.001
MODEL = "stall"
DATA, HEADERS, SETTINGS, PING, CONTINUATION = 0, 1, 4, 6, 9
END_STREAM = ACK = 1
END_HEADERS, PADDED, PRIORITY = 4, 8, 32
PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
head_of = Struct(">BHBBI")
#: SETTINGS: no dynamic header table towards us, 10,000 streams, windows as wide as they go.
OUR_SETTINGS = Struct(">HIHIHI").pack(1, 0, 3, 10_000, 4, 2**31 - 1)


def _literal(name: bytes, value: bytes) -> bytes:
    """A header field without indexing and without Huffman coding (RFC 7541, 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


OPENING = b"\x88" + _literal(b"content-type", b"application/grpc")
UNIMPLEMENTED = OPENING + _literal(b"grpc-status", b"12")
TRAILER = _literal(b"grpc-status", b"0")


def computed(percentile: float, *, rate: float, requests: int, freeze_s: float, service_s: float) -> float:
    """The latency in seconds that is the percentile of `requests` due every 1/rate seconds, one freeze among them.

    The requests due in the freeze wait for its end: the first of them for all of it, each next one 1/rate less. The
    freeze begins at an unknown moment between two due times: the middle is used, with an error of at most half of
    1/rate.
    """
    rank = max(math.ceil(requests * percentile / 100), 1)
    greater = requests - rank
    return service_s + max(0.0, freeze_s - (greater + 0.5) / rate)


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return head_of.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def _replies() -> dict[str, bytes]:
    tensor: dict[str, Any] = {"datatype": "FP32", "shape": [1, 4]}
    metadata = pb.ModelMetadataResponse(name=MODEL, versions=["1"], platform="none")
    metadata.inputs.add(name="INPUT", **tensor)
    metadata.outputs.add(name="OUTPUT", **tensor)
    infer = pb.ModelInferResponse(model_name=MODEL, model_version="1", raw_output_contents=[bytes(16)])
    infer.outputs.add(name="OUTPUT", **tensor)
    named = {"ModelMetadata": metadata, "ModelInfer": infer}
    return {
        f"/inference.GRPCInferenceService/{name}": b"\0"
        + reply.ByteSize().to_bytes(4, "big")
        + reply.SerializeToString()
        for name, reply in named.items()
    }


class Freezer:
    """Blocks the whole event loop once, `after_s` after the first inference."""

    def __init__(self, after_s: float, freeze_s: float) -> None:
        self._after_s, self._freeze_s = after_s, freeze_s
        self._begun = False

    def inference(self) -> None:
        if not self._begun:
            self._begun = True
            asyncio.get_running_loop().call_later(self._after_s, self._freeze)

    def _freeze(self) -> None:
        start = time.monotonic()
        time.sleep(self._freeze_s)
        print(f"froze {time.monotonic() - start:.6f}", flush=True)


class Connection(asyncio.Protocol):
    """One client. Header blocks are decoded once each, as soon as the client uses no dynamic table."""

    def __init__(self, replies: dict[str, bytes], freezer: Freezer) -> None:
        self._replies = replies
        self._freezer = freezer
        self._buffer = b""
        self._greeted = False
        self._stateless = False
        self._decoder = Decoder()
        self._paths: dict[bytes, str] = {}
        self._block = b""
        self._open: dict[int, str] = {}
        self._window = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(_frame(SETTINGS, 0, 0, OUR_SETTINGS))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._greeted:
            if len(self._buffer) < PREFACE:
                return
            self._greeted, self._buffer = True, self._buffer[PREFACE:]
        at, out = 0, []
        while len(self._buffer) - at >= 9:
            high, low, kind, flags, stream = head_of.unpack_from(self._buffer, at)
            end = at + 9 + (high << 16 | low)
            if end > len(self._buffer):
                break
            self._on_frame(kind, flags, stream, self._buffer[at + 9 : end], out)
            at = end
        self._buffer = self._buffer[at:]
        if out:
            self._transport.write(b"".join(out))

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes, out: list[bytes]) -> None:
        if kind == SETTINGS and flags & ACK:
            self._stateless = True
        elif kind == SETTINGS:
            out.append(_frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            out.append(_frame(PING, ACK, 0, payload))
        elif kind in (HEADERS, CONTINUATION):
            if kind == HEADERS and flags & PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            if kind == HEADERS and flags & PRIORITY:
                payload = payload[5:]
            self._block += payload
            if flags & END_HEADERS:
                self._open[stream] = self._path(self._block)
                self._block = b""
        elif kind == DATA:
            self._window += len(payload)
            if self._window > 32768:
                out.append(_frame(8, 0, 0, self._window.to_bytes(4, "big")))
                self._window = 0
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self._answer(stream, self._open.pop(stream), out)

    def _path(self, block: bytes) -> str:
        path = self._paths.get(block)
        if path is None:
            path = dict(self._decoder.decode(block))[":path"]
            if self._stateless:
                self._paths[block] = path
        return path

    def _answer(self, stream: int, path: str, out: list[bytes]) -> None:
        message = self._replies.get(path)
        if message is None:
            out.append(_frame(HEADERS, END_HEADERS | END_STREAM, stream, UNIMPLEMENTED))
            return
        reply = (
            _frame(HEADERS, END_HEADERS, stream, OPENING)
            + _frame(DATA, 0, stream, message)
            + _frame(HEADERS, END_HEADERS | END_STREAM, stream, TRAILER)
        )
        if path.endswith("/ModelInfer"):
            self._freezer.inference()
            asyncio.get_running_loop().call_later(ANSWER_S, self._send, reply)
        else:
            out.append(reply)

    def _send(self, reply: bytes) -> None:
        # Who ends in the middle of the freeze has gone without its answers.
        if not self._transport.is_closing():
            self._transport.write(reply)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--after", type=float, default=10.0, help="seconds from the first inference to the freeze")
    parser.add_argument("--freeze", type=float, default=1.0, help="seconds that nothing moves")
    options = parser.parse_args()
    loop = asyncio.get_running_loop()
    replies, freezer = _replies(), Freezer(options.after, options.freeze)
    server = await loop.create_server(lambda: Connection(replies, freezer), "127.0.0.1", 0)
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    print(f"ready 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
