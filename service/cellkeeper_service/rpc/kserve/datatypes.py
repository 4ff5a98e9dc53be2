"""The protocol's names of data types."""

from __future__ import annotations

from typing import Any

import numpy as np
from cellkeeper_proto.kserve import inference_pb2 as pb

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Data types that are accepted. A model with float inputs accepts every float type, one with token ids every integer
type; both accept BOOL, as 0 and 1."""

NAMES = {dtype.name: name for name, dtype in DTYPES.items() if name != "BOOL"}
"""By the dtype of a model's tensor."""

TEXTS = "BYTES"
"""Returned for classes only, and never accepted."""

CONFIG_TYPES = {dtype: pb.DataType.Value(f"TYPE_{name}") for dtype, name in NAMES.items()}

CONTENT_TYPES = {
    "bool_contents": "BOOL",
    "int_contents": "INT32",
    "int64_contents": "INT64",
    "uint_contents": "UINT32",
    "uint64_contents": "UINT64",
    "fp32_contents": "FP32",
    "fp64_contents": "FP64",
    "bytes_contents": "BYTES",
}
"""The data type of each field with typed contents."""

CONTENTS = {name: field for field, name in CONTENT_TYPES.items() if name in DTYPES}
"""The field with the typed contents; FP16 has none, and is always raw."""

KNOWN = {*DTYPES, *CONTENT_TYPES.values(), "INT8", "INT16", "UINT8", "UINT16", "BF16"}
"""The protocol's data types. Triton's errors call all others "<invalid>"."""
