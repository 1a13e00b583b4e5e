"""A server that costs nothing: nginx answering every inference with one fixed gRPC reply, as fast as C can.

It says enough of itself (server and model metadata, a model configuration) that load generators which ask before they
send are content. Any other method is UNIMPLEMENTED. `python benchmarks/null_server.py` serves until it
is interrupted.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

from worker.wire import open_inference_pb2 as pb
from worker.wire import open_inference_pb2_grpc

MODEL, INPUT, OUTPUT, WIDTH = "null", "INPUT", "OUTPUT", 4
SERVICE = "/inference.GRPCInferenceService/"
START_TIMEOUT_S = 10

CONFIGURATION = b"""
daemon off; worker_processes 1; pid %(folder)s/pid; error_log %(folder)s/error.log warn;
events { worker_connections 512; }
http {
  access_log off; server_tokens off; types { } default_type application/grpc;
  keepalive_requests 1000000000; keepalive_timeout 1h; http2_max_concurrent_streams 1024;
  client_body_temp_path %(folder)s/b; proxy_temp_path %(folder)s/p; fastcgi_temp_path %(folder)s/f;
  uwsgi_temp_path %(folder)s/u; scgi_temp_path %(folder)s/s;
  server {
    listen 127.0.0.1:%(port)d http2;
%(locations)s
    location / { add_header grpc-status 12 always; return 200; }
  }
}
"""
LOCATION = b"""    location = %s { add_trailer grpc-status 0 always; return 200 "%s"; }"""


def infer_request() -> bytes:
    """The serialized request that every generator sends: one FP32 tensor of four elements, raw."""
    request = pb.ModelInferRequest(model_name=MODEL, raw_input_contents=[bytes(4 * WIDTH)])
    request.inputs.add(name=INPUT, datatype="FP32", shape=[1, WIDTH])
    return request.SerializeToString()


def _replies() -> dict[str, bytes]:
    infer = pb.ModelInferResponse(model_name=MODEL, model_version="1", raw_output_contents=[bytes(4 * WIDTH)])
    infer.outputs.add(name=OUTPUT, datatype="FP32", shape=[1, WIDTH])
    model = pb.ModelMetadataResponse(name=MODEL, versions=["1"], platform="none")
    model.inputs.add(name=INPUT, datatype="FP32", shape=[1, WIDTH])
    model.outputs.add(name=OUTPUT, datatype="FP32", shape=[1, WIDTH])
    config = pb.ModelConfig(name=MODEL, platform="none")
    config.input.add(name=INPUT, data_type=pb.TYPE_FP32, dims=[1, WIDTH])
    config.output.add(name=OUTPUT, data_type=pb.TYPE_FP32, dims=[1, WIDTH])
    replies = {
        "ModelInfer": infer,
        "ModelMetadata": model,
        "ModelConfig": pb.ModelConfigResponse(config=config),
        # Without the extension "statistics" perf_analyzer does not ask for counts, which nothing here could give.
        "ServerMetadata": pb.ServerMetadataResponse(name="null server", version="1"),
        "ServerLive": pb.ServerLiveResponse(live=True),
        "ServerReady": pb.ServerReadyResponse(ready=True),
        "ModelReady": pb.ModelReadyResponse(ready=True),
        "SystemSharedMemoryUnregister": pb.SystemSharedMemoryUnregisterResponse(),
        "CudaSharedMemoryUnregister": pb.CudaSharedMemoryUnregisterResponse(),
    }
    return {SERVICE + name: reply.SerializeToString() for name, reply in replies.items()}


def _quoted(message: bytes) -> bytes:
    """A gRPC message inside a quoted string of nginx's configuration, which takes every byte but the variables' $."""
    framed = b"\0" + len(message).to_bytes(4, "big") + message
    if b"$" in framed:
        raise ValueError("a reply with the byte 0x24 cannot be written into nginx's configuration")
    return framed.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


@contextlib.contextmanager
def null_server(core: int | None = None) -> Iterator[str]:
    """Runs nginx on a free port of 127.0.0.1, on one core where it is named; gives its address once it answers.

    Raises RuntimeError with nginx's own words where it does not start, FileNotFoundError where there is none.
    """
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        raise FileNotFoundError("nginx is not installed (Debian: apt-get install nginx-light)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="null-server-") as folder:
        locations = b"\n".join(LOCATION % (path.encode(), _quoted(reply)) for path, reply in _replies().items())
        values = {b"folder": folder.encode(), b"port": port, b"locations": locations}
        file = Path(folder) / "nginx.conf"
        file.write_bytes(CONFIGURATION % values)
        pinned = [] if core is None else ["taskset", "-c", str(core)]
        process = subprocess.Popen(
            [*pinned, nginx, "-c", file, "-e", f"{folder}/error.log"], stderr=subprocess.PIPE, text=True
        )
        try:
            _wait_until_it_answers(f"127.0.0.1:{port}", process)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.communicate(timeout=START_TIMEOUT_S)


def _wait_until_it_answers(address: str, process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < limit and process.poll() is None:
        with grpc.insecure_channel(address, options=[("grpc.initial_reconnect_backoff_ms", 50)]) as channel:
            stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
            with contextlib.suppress(grpc.RpcError):
                reply = stub.ModelInfer(pb.ModelInferRequest.FromString(infer_request()), timeout=1)
                if reply.model_name == MODEL:
                    return
    if process.poll() is None:
        process.terminate()
    raise RuntimeError(f"nginx does not answer: {process.communicate()[1].strip()}")


if __name__ == "__main__":
    with null_server() as serving, contextlib.suppress(KeyboardInterrupt):
        print(f"ready {serving}", flush=True)
        signal.pause()
