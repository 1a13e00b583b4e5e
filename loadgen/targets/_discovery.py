"""Finds out what each target is: its addresses, its description (Describe), and the inputs of its model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
import grpc

from capacity.errors import InputError as CapacityInputError
from capacity.measures import HardwareCombination, Series
from capacity.pricing import Catalogue
from capacity.rundir import TargetInfo
from loadgen._errors import InputError
from loadgen._options import Options
from loadgen.targets._payloads import TensorSpec
from loadgen.targets._target import Target
from loadgen.transport import open_grpcio_channel
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

#: A target that does not answer within this time is treated as down; the run goes on without its description.
DESCRIBE_TIMEOUT_S = 5.0

#: What gRPC answers where a server does not have Describe: Triton, MLServer, KServe.
_NO_DESCRIBE = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND)


@dataclass(frozen=True)
class _Answer:
    """What one address says of itself, before combinations are counted. `down`: why it did not answer."""

    address: str
    model: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    description: Any = None
    down: str = ""

    @property
    def pool(self) -> tuple[str, str, str]:
        """What makes targets one combination: host type, accelerator type and model."""
        return self.description.host_type, self.description.accelerator_type, self.model


def read_addresses(text: str, folder: Path) -> tuple[str, ...]:
    """The addresses of `A,B` or `@FILE`; for empty text those of targets.json in `folder`, or none without that file.

    Raises InputError.
    """
    default = folder / TARGETS_FILE
    try:
        entries = read_targets_file(default) if not text and default.is_file() else parse_targets(text)
    except FormatError as error:
        raise InputError(str(error)) from None
    return tuple(entry.address for entry in entries)


def discover_targets(addresses: Sequence[str], options: Options, catalogue: Catalogue) -> tuple[Target, ...]:
    """Queries all addresses at once. One that does not answer stays in the list, described as down.

    Raises InputError where no target answers, or where a server needs --model or --hardware and has none.
    """
    queries = [gevent.spawn(_query_or_error, address, options) for address in addresses]
    gevent.joinall(queries)
    answers = []
    for query in queries:
        answer = query.get()
        if isinstance(answer, InputError):
            raise answer
        answers.append(answer)
    if all(answer.down for answer in answers):
        raise InputError(f"no target answers: {'; '.join(f'{answer.address}: {answer.down}' for answer in answers)}")
    return _describe_all(answers, options, catalogue)


def _query_or_error(address: str, options: Options) -> _Answer | InputError:
    """`_query`, with wrong input returned: gevent prints the traceback of what a greenlet raises."""
    try:
        return _query(address, options)
    except InputError as error:
        return error


def _query(address: str, options: Options) -> _Answer:
    model, metadata = options.model, options.access.metadata
    with open_grpcio_channel(address, options.access) as channel:
        description = None
        try:
            description = accelerator_pb2_grpc.AcceleratorServiceStub(channel).Describe(
                accelerator.DescribeRequest(), timeout=DESCRIBE_TIMEOUT_S, metadata=metadata
            )
        except grpc.RpcError as error:
            if error.code() not in _NO_DESCRIBE:
                return _Answer(address, model=model, down=_summary(error))
        name = description.model.name if description else model
        if not name:
            raise InputError(f"target {address} does not say which model it serves: give --model NAME")
        try:
            metadata_reply = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelMetadata(
                pb.ModelMetadataRequest(name=name), timeout=DESCRIBE_TIMEOUT_S, metadata=metadata
            )
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise InputError(f"target {address} has no model {name}: {_first_line(error)}") from None
            return _Answer(address, model=name, down=_summary(error))
        parameters = _parameters(channel, name, metadata)
        inputs = tuple(_tensor_spec(tensor, parameters) for tensor in metadata_reply.inputs)
        return _Answer(address, metadata_reply.name, inputs, description)


def _parameters(channel: Any, model: str, metadata: Any) -> dict[str, str]:
    """The free parameters of the model's configuration: our workers put a typical input there. Others have none."""
    try:
        configuration = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelConfig(
            pb.ModelConfigRequest(name=model), timeout=DESCRIBE_TIMEOUT_S, metadata=metadata
        )
    except grpc.RpcError:
        return {}
    return {name: parameter.string_value for name, parameter in configuration.config.parameters.items()}


def _tensor_spec(tensor: Any, parameters: Mapping[str, str]) -> TensorSpec:
    shape = tuple(tensor.shape)
    example = _integers(parameters.get(f"example_shape.{tensor.name}", ""))
    fits = len(example) == len(shape) and all(
        length in (-1, typical) for length, typical in zip(shape, example, strict=True)
    )
    below = _integers(parameters.get(f"example_high.{tensor.name}", ""))
    return TensorSpec(tensor.name, tensor.datatype, shape, example if fits else (), below[0] if below else None)


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part.isdigit() and int(part) > 0)


def _summary(error: Any) -> str:
    return f"{error.code().name} ({_first_line(error)})"


def _first_line(error: Any) -> str:
    return (error.details() or "no details").splitlines()[0]


def _describe_all(answers: Sequence[_Answer], options: Options, catalogue: Catalogue) -> tuple[Target, ...]:
    """Targets of the answers, at least one of which is not down: combinations are counted over all of them."""
    counts: Counter[tuple[str, str, str]] = Counter()
    hosts: dict[tuple[str, str, str], set[str]] = {}
    for answer in answers:
        if answer.description:
            counts[answer.pool] += 1
            hosts.setdefault(answer.pool, set()).add(answer.description.host_name)
    fallback = next(answer for answer in answers if not answer.down)
    targets = []
    for answer in answers:
        simulated, label = False, answer.address
        if answer.description:
            host_type, accelerator_type, _ = pool = answer.pool
            hardware = HardwareCombination(host_type, accelerator_type, counts[pool], len(hosts[pool]))
            label = f"{answer.description.kind}:{answer.description.ordinal} @ {answer.address}"
            simulated = answer.description.simulated
        else:
            hardware = _hardware_of(answer, options, catalogue)
        series = Series(hardware, answer.model or fallback.model, label, simulated)
        info = target_info(label, answer.address, answer.description) if answer.description else None
        # A target that is down is sent what its siblings are sent, in case it comes back.
        inputs = fallback.inputs if answer.down else answer.inputs
        # Requests name no version: that means any.
        targets.append(Target(answer.address, series, inputs, "", info, answer.down))
    return tuple(targets)


def _hardware_of(answer: _Answer, options: Options, catalogue: Catalogue) -> HardwareCombination:
    """The hardware of a target without a description, by --hardware or by its address in the catalogue."""
    if options.hardware:
        return options.hardware
    if name := catalogue.targets.get(answer.address):
        try:
            return HardwareCombination.parse(name)
        except CapacityInputError as error:
            raise InputError(f"catalogue, targets, {answer.address}: {error}") from None
    return HardwareCombination("unknown hardware" if not answer.down else "not described", "")


def target_info(label: str, address: str, description: Any) -> TargetInfo:
    """The answer of Describe as it stands in run.json."""
    return TargetInfo(
        label=label,
        address=address,
        instance_id=description.instance_id,
        host_type=description.host_type,
        host_name=description.host_name,
        host_memory_bytes=description.host_memory_bytes,
        kind=description.kind,
        ordinal=description.ordinal,
        accelerator_type=description.accelerator_type,
        accelerator_id=description.accelerator_id,
        accelerator_memory_bytes=description.accelerator_memory_bytes,
        status=description.status,
        pid=description.pid,
        simulated=description.simulated,
        simulation=description.simulation,
        versions=dict(description.versions),
        threads=description.threads,
        cores=list(description.cores),
        model=description.model.name,
        model_mode=description.model.mode,
        model_precision=description.model.precision,
        model_sha256=description.model.sha256,
        model_parameter_bytes=description.model.parameter_bytes,
        max_batch_size=description.model.max_batch_size,
        first_inference_us=description.first_inference_ns / 1000,
        process_peak_bytes=description.process_peak_bytes,
        accelerator_peak_bytes=description.accelerator_peak_bytes,
    )
