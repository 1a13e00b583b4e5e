"""The data types of the Open Inference Protocol: one table that worker and load generator share."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataType:
    """One data type of the protocol.

    `element_bytes` is the size of one element, or None for BYTES, whose elements differ in size. `numpy` is the numpy
    type code of one little-endian element, or None where numpy has no such type. `contents_field` is the field of
    InferTensorContents that carries the elements, or None where they travel only as raw bytes.

    numpy's type is given as text, so that this table imports nothing: a worker must not import numpy before it has
    set the number of its threads.
    """

    name: str
    element_bytes: int | None
    numpy: str | None
    contents_field: str | None


DATA_TYPES = {
    data_type.name: data_type
    for data_type in (
        DataType("BOOL", 1, "?", "bool_contents"),
        DataType("UINT8", 1, "u1", "uint_contents"),
        DataType("UINT16", 2, "<u2", "uint_contents"),
        DataType("UINT32", 4, "<u4", "uint_contents"),
        DataType("UINT64", 8, "<u8", "uint64_contents"),
        DataType("INT8", 1, "i1", "int_contents"),
        DataType("INT16", 2, "<i2", "int_contents"),
        DataType("INT32", 4, "<i4", "int_contents"),
        DataType("INT64", 8, "<i8", "int64_contents"),
        DataType("FP16", 2, "<f2", None),
        DataType("BF16", 2, None, None),
        DataType("FP32", 4, "<f4", "fp32_contents"),
        DataType("FP64", 8, "<f8", "fp64_contents"),
        DataType("BYTES", None, None, "bytes_contents"),
    )
}
"""Every data type by its protocol name."""
