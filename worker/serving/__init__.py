"""From a request's bytes to its response: reading, batching, execution, and the gRPC services."""

from worker.serving.accelerator_service import AcceleratorService, WorkerIdentity
from worker.serving.batch_queue import BatchingPolicy
from worker.serving.executor import BatchExecutor
from worker.serving.inference import InferenceLimits
from worker.serving.model_metadata import ServedModel
from worker.serving.open_inference import INFER, OpenInferenceService

__all__ = [
    "INFER",
    "AcceleratorService",
    "BatchExecutor",
    "BatchingPolicy",
    "InferenceLimits",
    "OpenInferenceService",
    "ServedModel",
    "WorkerIdentity",
]
