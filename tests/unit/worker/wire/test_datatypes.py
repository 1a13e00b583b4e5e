"""The table of data types agrees with the protocol's own definitions and with numpy."""

import numpy as np
import pytest

from worker.wire import DATA_TYPES, DataType
from worker.wire import open_inference_pb2 as oip


def test_every_data_type_of_the_protocol_is_in_the_table() -> None:
    protocol = {name.removeprefix("TYPE_") for name in oip.DESCRIPTOR.enum_types_by_name["DataType"].values_by_name}

    # The protocol's configuration calls BYTES a string.
    assert {("STRING" if name == "BYTES" else name) for name in DATA_TYPES} == protocol - {"INVALID"}


@pytest.mark.parametrize("data_type", DATA_TYPES.values(), ids=list(DATA_TYPES))
def test_sizes_and_fields_are_those_of_numpy_and_of_the_message(data_type: DataType) -> None:
    if data_type.numpy is not None:
        assert np.dtype(data_type.numpy).itemsize == data_type.element_bytes
    if data_type.contents_field is not None:
        assert data_type.contents_field in oip.InferTensorContents.DESCRIPTOR.fields_by_name
