"""The one model that a worker serves, as the protocol describes a model: its metadata and its configuration."""

from dataclasses import dataclass, field
from typing import Any

from worker.runtime import Specification, TensorSpec
from worker.serving.batch_queue import BatchingPolicy
from worker.wire import open_inference_pb2 as oip

VERSION = "1"
PLATFORM = "pytorch_libtorch"


@dataclass(frozen=True)
class ServedModel:
    """A specification, and how requests for it are joined."""

    specification: Specification
    policy: BatchingPolicy = field(default_factory=BatchingPolicy)

    @property
    def name(self) -> str:
        """The name that requests give."""
        return self.specification.name

    def matches(self, name: str, version: str) -> bool:
        """Returns True where a request means this model; an empty version means any."""
        return name == self.name and version in ("", VERSION)


def model_metadata(model: ServedModel) -> oip.ModelMetadataResponse:
    """Returns names, data types and shapes, the batch dimension included."""
    message = oip.ModelMetadataResponse(name=model.name, versions=[VERSION], platform=PLATFORM)
    for spec in model.specification.inputs:
        message.inputs.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
    for spec in model.specification.outputs:
        message.outputs.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
    return message


def model_configuration(model: ServedModel, kind: str, ordinal: int) -> oip.ModelConfig:
    """Returns Triton's model configuration; its `parameters` have each input's example shape and bound of integers."""
    policy = model.policy
    is_batched = policy.max_batch_size > 0
    message = oip.ModelConfig(
        name=model.name,
        platform=PLATFORM,
        backend="pytorch",
        default_model_filename="model.pt",
        max_batch_size=policy.max_batch_size,
        model_transaction_policy=oip.ModelTransactionPolicy(decoupled=False),
    )
    for spec in model.specification.inputs:
        message.input.add(name=spec.name, data_type=_config_type(spec), dims=spec.shape[1 if is_batched else 0 :])
        message.parameters[f"example_shape.{spec.name}"].string_value = ",".join(map(str, spec.example_shape()))
        if spec.high is not None:
            message.parameters[f"example_high.{spec.name}"].string_value = str(spec.high)
    for spec in model.specification.outputs:
        message.output.add(name=spec.name, data_type=_config_type(spec), dims=spec.shape[1 if is_batched else 0 :])
    group = message.instance_group.add(name=f"{kind}_{ordinal}", count=1)
    if kind == "cuda":
        group.kind = oip.ModelInstanceGroup.KIND_GPU
        group.gpus.append(ordinal)
    else:
        group.kind = oip.ModelInstanceGroup.KIND_CPU
    if is_batched:
        batching = message.dynamic_batching
        batching.preferred_batch_size.extend(policy.preferred)
        batching.max_queue_delay_microseconds = policy.max_queue_delay_us
        batching.priority_levels = policy.priority_levels
        batching.default_priority_level = policy.default_priority
        batching.default_queue_policy.allow_timeout_override = True
        batching.default_queue_policy.max_queue_size = policy.max_queue_size
    return message


def _config_type(spec: TensorSpec) -> Any:
    return oip.DataType.Value(f"TYPE_{spec.datatype}")
