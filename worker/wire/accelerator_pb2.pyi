from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("host_type", "host_name", "host_memory_bytes", "kind", "ordinal", "accelerator_type", "accelerator_id", "accelerator_memory_bytes", "status", "simulated", "simulation", "versions", "threads", "cores", "model", "first_inference_ns", "warmup_ns", "process_peak_bytes", "accelerator_peak_bytes", "instance_id", "pid")
    class Model(_message.Message):
        __slots__ = ("name", "version", "mode", "precision", "sha256", "file_bytes", "parameter_bytes", "max_batch_size")
        NAME_FIELD_NUMBER: _ClassVar[int]
        VERSION_FIELD_NUMBER: _ClassVar[int]
        MODE_FIELD_NUMBER: _ClassVar[int]
        PRECISION_FIELD_NUMBER: _ClassVar[int]
        SHA256_FIELD_NUMBER: _ClassVar[int]
        FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
        PARAMETER_BYTES_FIELD_NUMBER: _ClassVar[int]
        MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
        name: str
        version: str
        mode: str
        precision: str
        sha256: str
        file_bytes: int
        parameter_bytes: int
        max_batch_size: int
        def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., mode: _Optional[str] = ..., precision: _Optional[str] = ..., sha256: _Optional[str] = ..., file_bytes: _Optional[int] = ..., parameter_bytes: _Optional[int] = ..., max_batch_size: _Optional[int] = ...) -> None: ...
    class VersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    HOST_TYPE_FIELD_NUMBER: _ClassVar[int]
    HOST_NAME_FIELD_NUMBER: _ClassVar[int]
    HOST_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_TYPE_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_ID_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SIMULATED_FIELD_NUMBER: _ClassVar[int]
    SIMULATION_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    CORES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FIRST_INFERENCE_NS_FIELD_NUMBER: _ClassVar[int]
    WARMUP_NS_FIELD_NUMBER: _ClassVar[int]
    PROCESS_PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    host_type: str
    host_name: str
    host_memory_bytes: int
    kind: str
    ordinal: int
    accelerator_type: str
    accelerator_id: str
    accelerator_memory_bytes: int
    status: str
    simulated: bool
    simulation: str
    versions: _containers.ScalarMap[str, str]
    threads: int
    cores: _containers.RepeatedScalarFieldContainer[int]
    model: DescribeResponse.Model
    first_inference_ns: int
    warmup_ns: _containers.RepeatedScalarFieldContainer[int]
    process_peak_bytes: int
    accelerator_peak_bytes: int
    instance_id: str
    pid: int
    def __init__(self, host_type: _Optional[str] = ..., host_name: _Optional[str] = ..., host_memory_bytes: _Optional[int] = ..., kind: _Optional[str] = ..., ordinal: _Optional[int] = ..., accelerator_type: _Optional[str] = ..., accelerator_id: _Optional[str] = ..., accelerator_memory_bytes: _Optional[int] = ..., status: _Optional[str] = ..., simulated: bool = ..., simulation: _Optional[str] = ..., versions: _Optional[_Mapping[str, str]] = ..., threads: _Optional[int] = ..., cores: _Optional[_Iterable[int]] = ..., model: _Optional[_Union[DescribeResponse.Model, _Mapping]] = ..., first_inference_ns: _Optional[int] = ..., warmup_ns: _Optional[_Iterable[int]] = ..., process_peak_bytes: _Optional[int] = ..., accelerator_peak_bytes: _Optional[int] = ..., instance_id: _Optional[str] = ..., pid: _Optional[int] = ...) -> None: ...

class SnapshotRequest(_message.Message):
    __slots__ = ("readings_only",)
    READINGS_ONLY_FIELD_NUMBER: _ClassVar[int]
    readings_only: bool
    def __init__(self, readings_only: bool = ...) -> None: ...

class Reading(_message.Message):
    __slots__ = ("device", "id", "measure", "value")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    MEASURE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    device: str
    id: str
    measure: str
    value: float
    def __init__(self, device: _Optional[str] = ..., id: _Optional[str] = ..., measure: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class Histogram(_message.Message):
    __slots__ = ("payload", "count", "sum_ns", "min_ns", "max_ns", "lowest_us", "highest_us", "digits", "above")
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SUM_NS_FIELD_NUMBER: _ClassVar[int]
    MIN_NS_FIELD_NUMBER: _ClassVar[int]
    MAX_NS_FIELD_NUMBER: _ClassVar[int]
    LOWEST_US_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_US_FIELD_NUMBER: _ClassVar[int]
    DIGITS_FIELD_NUMBER: _ClassVar[int]
    ABOVE_FIELD_NUMBER: _ClassVar[int]
    payload: bytes
    count: int
    sum_ns: int
    min_ns: int
    max_ns: int
    lowest_us: int
    highest_us: int
    digits: int
    above: int
    def __init__(self, payload: _Optional[bytes] = ..., count: _Optional[int] = ..., sum_ns: _Optional[int] = ..., min_ns: _Optional[int] = ..., max_ns: _Optional[int] = ..., lowest_us: _Optional[int] = ..., highest_us: _Optional[int] = ..., digits: _Optional[int] = ..., above: _Optional[int] = ...) -> None: ...

class SnapshotResponse(_message.Message):
    __slots__ = ("instance_id", "sequence", "uptime_ns", "requests", "answered", "errors", "executions", "histograms", "process_peak_bytes", "accelerator_peak_bytes", "passes", "readings")
    class ErrorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class HistogramsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Histogram
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Histogram, _Mapping]] = ...) -> None: ...
    class PassesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: Histogram
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[Histogram, _Mapping]] = ...) -> None: ...
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    UPTIME_NS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    EXECUTIONS_FIELD_NUMBER: _ClassVar[int]
    HISTOGRAMS_FIELD_NUMBER: _ClassVar[int]
    PROCESS_PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    PASSES_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    sequence: int
    uptime_ns: int
    requests: int
    answered: int
    errors: _containers.ScalarMap[str, int]
    executions: int
    histograms: _containers.MessageMap[str, Histogram]
    process_peak_bytes: int
    accelerator_peak_bytes: int
    passes: _containers.MessageMap[int, Histogram]
    readings: _containers.RepeatedCompositeFieldContainer[Reading]
    def __init__(self, instance_id: _Optional[str] = ..., sequence: _Optional[int] = ..., uptime_ns: _Optional[int] = ..., requests: _Optional[int] = ..., answered: _Optional[int] = ..., errors: _Optional[_Mapping[str, int]] = ..., executions: _Optional[int] = ..., histograms: _Optional[_Mapping[str, Histogram]] = ..., process_peak_bytes: _Optional[int] = ..., accelerator_peak_bytes: _Optional[int] = ..., passes: _Optional[_Mapping[int, Histogram]] = ..., readings: _Optional[_Iterable[_Union[Reading, _Mapping]]] = ...) -> None: ...
