"""A target is one worker's address: who it is, what it serves, what it measured of itself. Not the load path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
import grpc

from capacity.measures import TARGET_MEASURES, HardwareCombination, Series, pass_measure
from capacity.pricing import Catalogue
from capacity.rundir import TargetInfo, parse_series_tag, series_tag
from capacity.statistics import Histogram
from loadgen._errors import InputError
from loadgen._options import Options
from loadgen.targets._payloads import TensorSpec
from loadgen.transport._access import Access
from loadgen.transport._grpcio import open_channel
from worker.wire import (
    TARGETS_FILE,
    FormatError,
    accelerator_pb2_grpc,
    open_inference_pb2_grpc,
    parse_targets,
    read_targets_file,
)
from worker.wire import accelerator_pb2 as accelerator
from worker.wire import open_inference_pb2 as pb

#: A target that does not say who it is within this time is treated as down; the run goes on without its description.
DESCRIBE_TIMEOUT_S = 5.0

INFER_METHOD = "/inference.GRPCInferenceService/ModelInfer"

#: What gRPC answers where a server does not have Describe: Triton, MLServer, KServe.
_NOT_OURS = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND)


@dataclass(frozen=True)
class Target:
    """One address with its description. `series` is the row that its requests are counted in."""

    address: str
    series: Series
    inputs: tuple[TensorSpec, ...] = ()
    version: str = ""
    info: TargetInfo | None = None
    down: str = ""

    def to_wire(self) -> dict[str, Any]:
        """What another generator needs to drive it: plain msgpack types, without the description."""
        inputs = [[s.name, s.datatype, list(s.shape), list(s.example), s.below] for s in self.inputs]
        tag = series_tag(self.series, "latency")
        return {"address": self.address, "tag": tag, "inputs": inputs, "version": self.version}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Target:
        """The target that `to_wire` sent."""
        inputs = tuple(
            TensorSpec(name, datatype, tuple(shape), tuple(example), below)
            for name, datatype, shape, example, below in wire["inputs"]
        )
        return cls(wire["address"], parse_series_tag(wire["tag"])[0], inputs, wire["version"])


@dataclass(frozen=True)
class _Answer:
    """What one address said for itself, before it is known how many others are like it."""

    address: str
    model: str = ""
    version: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    described: Any = None
    down: str = ""
    notes: tuple[str, ...] = field(default=())


def addresses(text: str, folder: Path) -> tuple[str, ...]:
    """Returns the addresses of `A,B` or `@FILE`, else of the targets.json of `folder`; empty where there is none.

    Raises InputError.
    """
    default = folder / TARGETS_FILE
    try:
        entries = read_targets_file(default) if not text and default.is_file() else parse_targets(text)
    except FormatError as error:
        raise InputError(str(error)) from None
    return tuple(entry.address for entry in entries)


def discover(found: Sequence[str], options: Options, catalogue: Catalogue) -> tuple[Target, ...]:
    """Asks every address at once who it is. One that is down stays in the list, described as down.

    Raises InputError where no target answers at all, or where a server needs --model or --hardware and has none.
    """
    jobs = [gevent.spawn(_ask, address, options) for address in found]
    gevent.joinall(jobs)
    answers = [job.get() for job in jobs]
    if all(answer.down for answer in answers):
        raise InputError(f"no target answers: {'; '.join(f'{a.address}: {a.down}' for a in answers)}")
    return _assemble(answers, options, catalogue)


def _ask(address: str, options: Options) -> _Answer:
    model, metadata = options.model, options.access.metadata
    with open_channel(address, options.access) as channel:
        described = None
        try:
            described = accelerator_pb2_grpc.AcceleratorServiceStub(channel).Describe(
                accelerator.DescribeRequest(), timeout=DESCRIBE_TIMEOUT_S, metadata=metadata
            )
        except grpc.RpcError as error:
            if error.code() not in _NOT_OURS:
                return _Answer(address, model=model, down=f"{error.code().name} ({_first_line(error)})")
        name = described.model.name if described else model
        if not name:
            raise InputError(f"target {address} does not say which model it serves: give --model NAME")
        try:
            answer = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelMetadata(
                pb.ModelMetadataRequest(name=name), timeout=DESCRIBE_TIMEOUT_S, metadata=metadata
            )
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise InputError(f"target {address} has no model {name}: {_first_line(error)}") from None
            return _Answer(address, model=name, down=f"{error.code().name} ({_first_line(error)})")
        parameters = _parameters(channel, name, metadata)
        inputs = tuple(_spec(tensor, parameters) for tensor in answer.inputs)
        # The version is asked for by name only where there is one to ask for: an empty one means any.
        return _Answer(address, answer.name, "", inputs, described)


def _parameters(channel: Any, model: str, metadata: Any) -> dict[str, str]:
    """The model configuration's free parameters: our workers put a typical input there. Other servers have none."""
    try:
        answer = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelConfig(
            pb.ModelConfigRequest(name=model), timeout=DESCRIBE_TIMEOUT_S, metadata=metadata
        )
    except grpc.RpcError:
        return {}
    return {name: parameter.string_value for name, parameter in answer.config.parameters.items()}


def _spec(tensor: Any, parameters: Mapping[str, str]) -> TensorSpec:
    shape = tuple(tensor.shape)
    example = _integers(parameters.get(f"example_shape.{tensor.name}", ""))
    fits = len(example) == len(shape) and all(have in (-1, want) for have, want in zip(shape, example, strict=True))
    below = _integers(parameters.get(f"example_high.{tensor.name}", ""))
    return TensorSpec(tensor.name, tensor.datatype, shape, example if fits else (), below[0] if below else None)


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part.isdigit() and int(part) > 0)


def _first_line(error: Any) -> str:
    return (error.details() or "no details").splitlines()[0]


def _assemble(answers: Iterable[_Answer], options: Options, catalogue: Catalogue) -> tuple[Target, ...]:
    answers = list(answers)
    pools: Counter[tuple[str, str, str]] = Counter()
    hosts: dict[tuple[str, str, str], set[str]] = {}
    for answer in answers:
        if answer.described:
            key = _pool(answer)
            pools[key] += 1
            hosts.setdefault(key, set()).add(answer.described.host_name)
    fallback = next(answer for answer in answers if not answer.down)
    targets = []
    for answer in answers:
        simulated, label = False, answer.address
        if answer.described:
            key = _pool(answer)
            hardware = HardwareCombination(key[0], key[1], pools[key], len(hosts[key]))
            label = f"{answer.described.kind}:{answer.described.ordinal} @ {answer.address}"
            simulated = answer.described.simulated
        else:
            hardware = _told(answer, options, catalogue)
        series = Series(hardware, answer.model or fallback.model, label, simulated)
        info = worker_info(label, answer.address, answer.described) if answer.described else None
        # A target that is down is sent what its siblings are sent, in case it comes back.
        inputs = fallback.inputs if answer.down else answer.inputs
        targets.append(Target(answer.address, series, inputs, answer.version, info, answer.down))
    return tuple(targets)


def _pool(answer: _Answer) -> tuple[str, str, str]:
    return answer.described.host_type, answer.described.accelerator_type, answer.model


def _told(answer: _Answer, options: Options, catalogue: Catalogue) -> HardwareCombination:
    if options.hardware:
        return options.hardware
    if name := catalogue.targets.get(answer.address):
        try:
            return HardwareCombination.parse(name)
        except ValueError as error:
            raise InputError(f"catalogue, targets, {answer.address}: {error}") from None
    return HardwareCombination("unknown hardware" if not answer.down else "not described", "")


def worker_info(label: str, address: str, described: Any) -> TargetInfo:
    """Describe's answer as run.json keeps it."""
    return TargetInfo(
        label=label,
        address=address,
        instance_id=described.instance_id,
        host_type=described.host_type,
        host_name=described.host_name,
        host_memory_bytes=described.host_memory_bytes,
        kind=described.kind,
        ordinal=described.ordinal,
        accelerator_type=described.accelerator_type,
        accelerator_id=described.accelerator_id,
        accelerator_memory_bytes=described.accelerator_memory_bytes,
        status=described.status,
        pid=described.pid,
        simulated=described.simulated,
        simulation=described.simulation,
        versions=dict(described.versions),
        threads=described.threads,
        cores=list(described.cores),
        model=described.model.name,
        model_mode=described.model.mode,
        model_precision=described.model.precision,
        model_sha256=described.model.sha256,
        model_parameter_bytes=described.model.parameter_bytes,
        max_batch_size=described.model.max_batch_size,
        first_inference_us=described.first_inference_ns / 1000,
        process_peak_bytes=described.process_peak_bytes,
        accelerator_peak_bytes=described.accelerator_peak_bytes,
    )


def snapshot(address: str, access: Access) -> Any | None:
    """The worker's own counters and histograms so far; None where it has none or does not answer."""
    with open_channel(address, access) as channel:
        try:
            return accelerator_pb2_grpc.AcceleratorServiceStub(channel).Snapshot(
                accelerator.SnapshotRequest(), timeout=DESCRIBE_TIMEOUT_S, metadata=access.metadata
            )
        except grpc.RpcError:
            return None


def own_histograms(before: Any | None, after: Any | None) -> dict[str, Histogram]:
    """`queue`, `compute` and `pass-1`, `pass-2`, … (rows) between two snapshots of one process; empty where the worker
    was restarted or has none."""
    if before is None or after is None or before.instance_id != after.instance_id:
        return {}
    earlier = _measures(before)
    return {
        measure: histogram.subtract(earlier[measure]) if measure in earlier else histogram
        for measure, histogram in _measures(after).items()
    }


def _measures(taken: Any) -> dict[str, Histogram]:
    found = {
        measure: _histogram(taken.histograms[measure]) for measure in TARGET_MEASURES if measure in taken.histograms
    }
    return found | {pass_measure(rows): _histogram(histogram) for rows, histogram in taken.passes.items()}


def _histogram(wire: Any) -> Histogram:
    return Histogram.decode(
        wire.payload,
        count=wire.count,
        sum_ns=wire.sum_ns,
        min_ns=wire.min_ns,
        max_ns=wire.max_ns,
        above=wire.above,
    )
