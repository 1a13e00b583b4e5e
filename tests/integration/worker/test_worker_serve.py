"""One worker process, spoken to as its clients do: answers, refusals, deadlines, secrets, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from hdrh.histogram import HdrHistogram

from worker.wire import accelerator_pb2 as ours
from worker.wire import accelerator_pb2_grpc as ours_grpc
from worker.wire import open_inference_pb2 as oip
from worker.wire import open_inference_pb2_grpc as oip_grpc

ROOT = Path(__file__).parents[3]
INPUT = ("--input", "x:FP32:-1,4")
INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A foreign file: (N, 4) -> (N, 3)."""
    torch.manual_seed(2)
    path = tmp_path_factory.mktemp("model") / "linear.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(4, 3).eval(), torch.rand(2, 4)), str(path))
    return path


class Client:
    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None, options: Any = ()) -> None:
        self.channel = (
            grpc.insecure_channel(address)
            if credentials is None
            else grpc.secure_channel(address, credentials, options=options)
        )
        self.inference = oip_grpc.GRPCInferenceServiceStub(self.channel)
        self.accelerator = ours_grpc.AcceleratorServiceStub(self.channel)

    def snapshot(self) -> ours.SnapshotResponse:
        return self.accelerator.Snapshot(ours.SnapshotRequest(), timeout=10)

    def describe(self) -> ours.DescribeResponse:
        return self.accelerator.Describe(ours.DescribeRequest(), timeout=10)

    def infer(self, request: oip.ModelInferRequest, timeout: float = 20, **more: Any) -> oip.ModelInferResponse:
        return self.inference.ModelInfer(request, timeout=timeout, **more)


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def open_client(*arguments: Any, **more: Any) -> Client:
        clients.append(Client(*arguments, **more))
        return clients[-1]

    yield open_client
    for client in clients:
        client.channel.close()


def request_of(values: np.ndarray[Any, Any], model: str = "linear", name: str = "x", **more: Any) -> Any:
    tensor = {"name": name, "datatype": "FP32", "shape": values.shape}
    return oip.ModelInferRequest(
        model_name=model, inputs=[tensor], raw_input_contents=[values.astype("<f4").tobytes()], **more
    )


def sim_request(rows: int = 1, **more: Any) -> oip.ModelInferRequest:
    return request_of(np.zeros((rows, 16)), "sim", "INPUT", **more)


def code(raised: pytest.ExceptionInfo[grpc.RpcError]) -> grpc.StatusCode:
    return raised.value.code()  # type: ignore[attr-defined,no-any-return]


def refused(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return code(raised)


def test_a_worker_describes_itself_and_answers_bit_for_bit(serve: Any, connect: Any, linear: Path) -> None:
    worker = serve(str(linear), *INPUT, "--host-type", "c5.large")
    client = connect(worker.address)
    assert client.inference.ServerLive(oip.ServerLiveRequest()).live
    assert client.inference.ServerReady(oip.ServerReadyRequest()).ready
    assert client.inference.ModelReady(oip.ModelReadyRequest(name="linear")).ready
    assert not client.inference.ModelReady(oip.ModelReadyRequest(name="other")).ready
    assert not client.inference.ModelReady(oip.ModelReadyRequest(name="linear", version="2")).ready
    metadata = client.inference.ModelMetadata(oip.ModelMetadataRequest(name="linear"))
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [("x", "FP32", [-1, 4])]
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.outputs] == [("output_0", "FP32", [-1, 3])]
    assert "statistics" in client.inference.ServerMetadata(oip.ServerMetadataRequest()).extensions

    answer = client.describe()
    assert (answer.host_type, answer.kind, answer.ordinal, answer.accelerator_type) == (
        "c5.large",
        "cpu",
        0,
        "cpu-1c",
    )
    assert (answer.threads, len(answer.cores), answer.simulated) == (1, 1, False)
    assert answer.model.file_bytes == linear.stat().st_size
    assert answer.model.parameter_bytes == (4 * 3 + 3) * 4
    assert answer.first_inference_ns > 0
    assert len(answer.warmup_ns) >= 3
    assert answer.versions["torch"] == torch.__version__
    assert answer.pid == worker.process.pid

    model = torch.jit.load(str(linear))
    rng = np.random.default_rng(3)

    def one(number: int) -> bool:
        values = rng.standard_normal((1 + number % 5, 4)).astype(np.float32)
        response = client.infer(request_of(values, id=str(number)))
        with torch.no_grad():
            expected = model(torch.from_numpy(values.copy())).numpy()
        assert response.id == str(number)
        return bool(response.raw_output_contents[0] == expected.tobytes())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(300)))
    snapshot = client.snapshot()
    assert (snapshot.requests, snapshot.answered, dict(snapshot.errors)) == (300, 300, {})
    for measure in ("queue", "compute"):
        histogram = snapshot.histograms[measure]
        assert histogram.count == HdrHistogram.decode(histogram.payload).get_total_count() == 300
        assert 0 < histogram.min_ns <= histogram.sum_ns / 300 <= histogram.max_ns
    assert client.snapshot().sequence == snapshot.sequence + 1
    assert worker.end() == 0


def test_every_wrong_request_is_refused_with_a_clear_code(serve: Any, connect: Any, linear: Path) -> None:
    client = connect(serve(str(linear), *INPUT).address)
    good = request_of(np.ones((1, 4)))
    wrong = {
        "name": request_of(np.ones((1, 4)), name="y"),
        "shape": request_of(np.ones((1, 5))),
        "no batch": request_of(np.ones(4)),
        "empty": oip.ModelInferRequest(model_name="linear"),
    }
    for reason, request in wrong.items():
        assert refused(lambda r=request: client.infer(r)) is grpc.StatusCode.INVALID_ARGUMENT, reason
    assert refused(lambda: client.infer(request_of(np.ones((1, 4)), "other"))) is grpc.StatusCode.NOT_FOUND
    assert (
        refused(lambda: client.inference.ModelMetadata(oip.ModelMetadataRequest(name="other")))
        is grpc.StatusCode.NOT_FOUND
    )
    assert refused(lambda: client.channel.unary_unary(INFER)(b"\xff\xff")) is grpc.StatusCode.INVALID_ARGUMENT
    assert (
        refused(lambda: client.inference.CudaSharedMemoryRegister(oip.CudaSharedMemoryRegisterRequest(name="c")))
        is grpc.StatusCode.UNIMPLEMENTED
    )
    assert client.infer(good).outputs[0].shape == [1, 3]
    snapshot = client.snapshot()
    assert snapshot.requests == snapshot.answered + sum(snapshot.errors.values()) == 7
    assert dict(snapshot.errors) == {"INVALID_ARGUMENT": 5, "NOT_FOUND": 1}


def fails(*arguments: str, cwd: Path) -> str:
    """Runs the worker's command line, which must end with exit code 2 and one line; the line."""
    done = subprocess.run(
        [sys.executable, "-m", "worker", *arguments], capture_output=True, text=True, cwd=cwd, timeout=120, check=False
    )
    assert done.returncode == 2, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_wrong_input_is_one_line(linear: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no model")
    assert "is not a TorchScript file" in fails("serve", "text.pt", cwd=tmp_path)
    assert "this host has no cpu:99 (choose one of cpu:0" in fails(
        "serve", str(linear), *INPUT, "--accelerator", "cpu:99", cwd=tmp_path
    )
    assert "needs a model file" in fails("serve", cwd=tmp_path)
    assert "--sim-stall" in fails("serve", "--accelerator", "sim:0", "--sim-stall", "x:1s", cwd=tmp_path)
    assert "--tls-cert needs --tls-key" in fails("serve", "--accelerator", "sim:0", "--tls-key", "k.pem", cwd=tmp_path)
    assert "cannot be read" in fails("serve", "--accelerator", "sim:0", "--token-file", "none", cwd=tmp_path)


def test_a_port_in_use_is_one_line_and_not_shared(serve: Any, tmp_path: Path) -> None:
    port = serve("--accelerator", "sim:0").address.rpartition(":")[2]
    assert f"127.0.0.1:{port} is in use" in fails("serve", "--accelerator", "sim:1", "--port", port, cwd=tmp_path)


def test_a_simulated_worker_is_labelled_and_never_imports_torch(serve: Any, connect: Any) -> None:
    worker = serve(
        "--accelerator", "sim:3", "--sim", "fixed:5ms", "--sim-host", "c5.large", "--sim-type", "eia2.medium"
    )
    client = connect(worker.address)
    answer = client.describe()
    assert (answer.simulated, answer.simulation, answer.kind, answer.ordinal) == (
        True,
        "fixed:5ms",
        "sim",
        3,
    )
    assert (answer.host_type, answer.accelerator_type) == ("c5.large", "eia2.medium")
    assert "torch" not in Path(f"/proc/{worker.process.pid}/maps").read_text()
    response = client.infer(sim_request(2))
    assert list(response.outputs[0].shape) == [2, 16]
    assert client.snapshot().histograms["compute"].min_ns >= 5_000_000


def test_a_stream_answers_each_message_under_its_id_and_goes_on_after_a_refusal(serve: Any, connect: Any) -> None:
    client = connect(serve("--accelerator", "sim:0", "--sim", "fixed:1ms").address)
    messages = [sim_request(id=str(number)) for number in range(20)]
    messages[7].inputs[0].name = "wrong"
    answers = list(client.inference.ModelStreamInfer(iter(messages), timeout=20))
    by_id = {answer.infer_response.id: answer for answer in answers}
    assert sorted(by_id, key=int) == [str(number) for number in range(20)]
    assert "'wrong' is not an input" in by_id.pop("7").error_message
    assert all(not answer.error_message and answer.infer_response.outputs for answer in by_id.values())
    snapshot = client.snapshot()
    assert (snapshot.requests, snapshot.answered, dict(snapshot.errors)) == (20, 19, {"INVALID_ARGUMENT": 1})


def test_what_is_cancelled_or_late_in_the_queue_is_never_run(serve: Any, connect: Any) -> None:
    client = connect(serve("--accelerator", "sim:0", "--sim", "fixed:400ms").address)
    running = client.inference.ModelInfer.future(sim_request())
    while client.snapshot().requests == 0:
        pass
    waiting = client.inference.ModelInfer.future(sim_request())
    assert refused(lambda: client.infer(sim_request(), timeout=0.05)) is grpc.StatusCode.DEADLINE_EXCEEDED
    timed = sim_request()
    timed.parameters["timeout"].int64_param = 20_000
    assert refused(lambda: client.infer(timed)) is grpc.StatusCode.UNAVAILABLE
    waiting.cancel()
    running.result(20)
    last = client.infer(sim_request())
    assert last.outputs
    snapshot = client.snapshot()
    assert snapshot.executions == 2
    assert dict(snapshot.errors) == {"CANCELLED": 2, "UNAVAILABLE": 1}


def test_requests_are_joined_and_counted(serve: Any, connect: Any) -> None:
    worker = serve("--accelerator", "sim:0", "--sim", "fixed:50ms", "--max-batch-size", "8")
    client = connect(worker.address)
    with ThreadPoolExecutor(17) as pool:
        list(pool.map(lambda _: client.infer(sim_request()), range(17)))
    assert client.snapshot().executions < 17
    (statistics,) = client.inference.ModelStatistics(oip.ModelStatisticsRequest(name="sim")).model_stats
    assert statistics.inference_count == 17
    assert sum(size.batch_size * size.compute_infer.count for size in statistics.batch_stats) == 17
    assert max(size.batch_size for size in statistics.batch_stats) > 1
    stats = statistics.inference_stats
    counts = {d.count for d in (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output)}
    assert counts == {stats.success.count} == {17}
    assert (
        stats.queue.ns + stats.compute_input.ns + stats.compute_infer.ns + stats.compute_output.ns <= stats.success.ns
    )
    assert refused(lambda: client.infer(sim_request(9))) is grpc.StatusCode.INVALID_ARGUMENT


def test_more_than_the_bounds_is_refused_at_once(serve: Any, connect: Any) -> None:
    slow = ("--accelerator", "sim:0", "--sim", "fixed:300ms")
    for bound in (("--max-queue-size", "1"), ("--max-in-flight", "2")):
        client = connect(serve(*slow, *bound).address)
        futures = [client.inference.ModelInfer.future(sim_request())]
        while client.snapshot().requests < 1:
            pass
        futures.append(client.inference.ModelInfer.future(sim_request()))
        while client.snapshot().requests < 2:
            pass
        assert refused(lambda c=client: c.infer(sim_request())) is grpc.StatusCode.UNAVAILABLE
        assert all(future.result(20).outputs for future in futures)


def test_a_failing_pass_is_internal_and_the_next_is_answered(serve: Any, connect: Any) -> None:
    client = connect(serve("--accelerator", "sim:0", "--sim", "fixed:0ms", "--sim-failure-rate", "0.5").address)
    codes = []
    for _ in range(60):
        try:
            client.infer(sim_request())
            codes.append("OK")
        except grpc.RpcError as error:
            codes.append(error.code().name)
    assert set(codes) == {"OK", "INTERNAL"}
    snapshot = client.snapshot()
    assert snapshot.answered == codes.count("OK")
    assert dict(snapshot.errors) == {"INTERNAL": codes.count("INTERNAL")}


def test_shared_memory_carries_inputs_and_outputs(serve: Any, connect: Any, linear: Path) -> None:
    from multiprocessing.shared_memory import SharedMemory

    client = connect(serve(str(linear), *INPUT).address)
    stub = client.inference
    values = np.arange(8, dtype=np.float32).reshape(2, 4)
    memory = SharedMemory(create=True, size=4096)
    try:
        memory.buf[64:96] = values.tobytes()
        stub.SystemSharedMemoryRegister(
            oip.SystemSharedMemoryRegisterRequest(name="r", key=f"/{memory.name}", offset=64, byte_size=1024)
        )
        assert stub.SystemSharedMemoryStatus(oip.SystemSharedMemoryStatusRequest()).regions["r"].offset == 64
        request = oip.ModelInferRequest(
            model_name="linear",
            inputs=[{"name": "x", "datatype": "FP32", "shape": [2, 4]}],
            outputs=[{"name": "output_0"}],
        )
        for tensor, size, offset in ((request.inputs[0], 32, 0), (request.outputs[0], 24, 512)):
            tensor.parameters["shared_memory_region"].string_param = "r"
            tensor.parameters["shared_memory_byte_size"].int64_param = size
            tensor.parameters["shared_memory_offset"].int64_param = offset
        response = client.infer(request)
        expected = client.infer(request_of(values)).raw_output_contents[0]
        assert list(response.raw_output_contents) == [b""]  # an entry for each output, as Triton's clients need it
        assert response.outputs[0].parameters["shared_memory_byte_size"].int64_param == 24
        assert bytes(memory.buf[64 + 512 : 64 + 536]) == expected
        stub.SystemSharedMemoryUnregister(oip.SystemSharedMemoryUnregisterRequest())
        assert refused(lambda: client.infer(request)) is grpc.StatusCode.INVALID_ARGUMENT
    finally:
        memory.close()
        memory.unlink()


def test_health_and_reflection_are_served(serve: Any, connect: Any) -> None:
    client = connect(serve("--accelerator", "sim:0").address)
    health = health_pb2_grpc.HealthStub(client.channel)
    for name in ("", "inference.GRPCInferenceService"):
        status = health.Check(health_pb2.HealthCheckRequest(service=name)).status
        assert status == health_pb2.HealthCheckResponse.SERVING
    services = ProtoReflectionDescriptorDatabase(client.channel).get_services()
    assert {"inference.GRPCInferenceService", "inferload.AcceleratorService"} <= set(services)


def test_bytes_that_are_no_request_are_an_invalid_argument(serve: Any, connect: Any) -> None:
    channel = connect(serve("--accelerator", "sim:0").address).channel
    for method in ("inferload.AcceleratorService/Describe", "inferload.AcceleratorService/Snapshot"):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/{method}")(b"\xff", timeout=10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert method in caught.value.details()


def test_sigterm_drains(serve: Any, connect: Any) -> None:
    worker = serve("--accelerator", "sim:0", "--sim", "fixed:400ms")
    client = connect(worker.address)
    flying = [client.inference.ModelInfer.future(sim_request()) for _ in range(2)]
    while client.snapshot().requests < 2:
        pass
    worker.process.send_signal(signal.SIGTERM)
    assert all(future.result(20).outputs for future in flying)
    assert worker.process.wait(20) == 0
    assert refused(lambda: client.infer(sim_request(), timeout=5)) is grpc.StatusCode.UNAVAILABLE


def test_requests_beyond_the_drain_time_get_unavailable(serve: Any, connect: Any) -> None:
    worker = serve("--accelerator", "sim:0", "--sim", "fixed:60s", "--drain", "100ms", "--sim-stall", "0:0s")
    client = connect(worker.address)
    flying = [client.inference.ModelInfer.future(sim_request()) for _ in range(3)]
    while client.snapshot().requests < 3:
        pass
    worker.process.send_signal(signal.SIGTERM)
    codes = {refused(lambda f=future: f.result(20)) for future in flying}
    assert codes == {grpc.StatusCode.UNAVAILABLE}
    assert worker.process.wait(20) == 0


def test_an_open_stream_does_not_hold_up_the_end(serve: Any, connect: Any) -> None:
    worker = serve("--accelerator", "sim:0", "--sim", "fixed:1ms")
    client = connect(worker.address)
    done = threading.Event()

    def messages() -> Iterator[oip.ModelInferRequest]:
        yield sim_request(id="1")
        done.wait(30)

    answers = client.inference.ModelStreamInfer(messages())
    assert next(answers).infer_response.id == "1"
    worker.process.send_signal(signal.SIGTERM)
    assert list(answers) == []
    assert worker.process.wait(20) == 0
    done.set()


def test_a_bearer_token_is_required(serve: Any, connect: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    worker = serve("--accelerator", "sim:0", "--sim", "fixed:0ms", "--token-file", "token")
    client = connect(worker.address)
    for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", "s3cret"),)):
        call = lambda m=metadata: client.infer(sim_request(), metadata=m)  # noqa: E731
        assert refused(call) is grpc.StatusCode.UNAUTHENTICATED
    stream = client.inference.ModelStreamInfer(iter([sim_request()]), timeout=10)
    assert refused(lambda: list(stream)) is grpc.StatusCode.UNAUTHENTICATED
    assert client.infer(sim_request(), metadata=(("authorization", "Bearer s3cret"),)).outputs
    health_pb2_grpc.HealthStub(client.channel).Check(health_pb2.HealthCheckRequest())
    statistics = [sys.executable, "-m", "worker", "statistics", "--json", "--targets", worker.address]
    outputs = [
        subprocess.run([*statistics, *more], capture_output=True, cwd=tmp_path, check=True).stdout
        for more in ((), ("--token-file", "token"))
    ]
    assert json.loads(outputs[0])["workers"][0]["error"] == "UNAUTHENTICATED"
    assert json.loads(outputs[1])["workers"][0]["answered"] == 1


def certificate(directory: Path, name: str, issuer: str | None = None) -> None:
    """Writes NAME.pem and NAME.key, signed by `issuer` or by itself."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    command += ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-addext", "subjectAltName=DNS:localhost"]
    if issuer:
        command += ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key", "-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)


def test_tls_can_be_mutual(serve: Any, connect: Any, tmp_path: Path) -> None:
    certificate(tmp_path, "authority")
    certificate(tmp_path, "server", "authority")
    certificate(tmp_path, "client", "authority")
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".pem", ".key")}
    tls = ("--tls-cert", "server.pem", "--tls-key", "server.key", "--tls-client-ca", "authority.pem")
    worker = serve("--accelerator", "sim:0", "--sim", "fixed:0ms", *tls)
    localhost = (("grpc.ssl_target_name_override", "localhost"),)
    with_key = grpc.ssl_channel_credentials(files["authority.pem"], files["client.key"], files["client.pem"])
    without_key = grpc.ssl_channel_credentials(files["authority.pem"])
    assert connect(worker.address, with_key, localhost).infer(sim_request()).outputs
    for client in (connect(worker.address, without_key, localhost), connect(worker.address)):
        assert refused(lambda c=client: c.infer(sim_request(), timeout=5)) is grpc.StatusCode.UNAVAILABLE


def test_metrics_and_logs_show_what_was_served(serve: Any, connect: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    worker = serve("--accelerator", "sim:0", "--sim", "fixed:0ms", "--metrics-port", str(port), "--log-level", "info")
    client = connect(worker.address)
    for _ in range(5):
        client.infer(sim_request())
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        page = response.read().decode()
    assert 'inferload_requests_total{code="OK"} 5' in page
    assert "inferload_compute_seconds_count 5" in page
    assert worker.end() == 0
    events = [json.loads(line) for line in worker.process.stderr.read().splitlines()]
    assert [event["event"] for event in events] == ["metrics", "ready", "draining", "stopped"]
    assert events[-1]["answered"] == 5


def test_accelerators_are_listed_as_the_ei_tool_lists_them(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "worker", "accelerators", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
        check=True,
    )
    document = json.loads(done.stdout)
    assert document["attached_accelerators"] == len(document["devices"]) >= len(os.sched_getaffinity(0))
    assert {"ordinal", "type", "id", "status", "kind"} <= set(document["devices"][0])
    assert {"client_version", "time"} <= set(document)
