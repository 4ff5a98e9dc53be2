"""Outputs as classes: the largest values of an output as strings, in Triton's form."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from cellkeeper_proto.kserve import inference_pb2 as pb
from numpy.typing import NDArray

from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.errors import invalid
from cellkeeper_service.rpc.fields import STATE_PREFIX

from .refusals import refuse

PARAMETER = "classification"
MAX_CLASSES = 1024
"""Limit for one output, because the server's loop formats each class as a string. Triton has no limit."""
MAX_CLASS_BYTES = 352
"""A length, the largest float64 with six decimals, a colon and an index."""


def read_classes(parameter: pb.InferParameter) -> int:
    """Returns how many classes of an output are requested. Raises a Rejection."""
    if parameter.WhichOneof("parameter_choice") != "int64_param":
        raise refuse(f"invalid value type for '{PARAMETER}' parameter, expected int64_param", "outputs.parameters")
    if parameter.int64_param <= 0:  # Triton refuses 0 too, with this text
        raise refuse(f"invalid value for '{PARAMETER}' parameter, expected >= 0", "outputs.parameters")
    return parameter.int64_param


def limit_classes(asked: Mapping[str, int], own: Mapping[str, str], spec: ModelSpec, steps: int) -> dict[str, int]:
    """Returns how many classes each output has: at most the number of its values over all time steps.

    asked: by the client's name of an output. own: from that name to ours. Raises a Rejection.
    """
    sizes = {output.name: prod(output.shape) * steps for output in spec.outputs}
    found = {}
    for name, count in asked.items():
        if own[name].startswith(STATE_PREFIX):
            raise invalid(
                f"outputs.parameters.{PARAMETER}", f"{count} of the state {name!r}", "none: states have no classes"
            )
        found[name] = min(count, sizes[own[name]])
        if found[name] > MAX_CLASSES:
            expected = f"at most {MAX_CLASSES}; ask for the values themselves"
            raise invalid(f"outputs.parameters.{PARAMETER}", f"{found[name]} classes of {name!r}", expected)
    return found


def write_classes(values: NDArray[Any], count: int) -> bytes:
    """Returns a BYTES tensor of shape [count] with the largest values, in descending order.

    Each is "value:index": the value as C's printf writes it, and its index among all values. Equal values are in the
    order of their indices.
    """
    flat = values.reshape(-1)
    least = np.partition(flat, -count)[-count]
    above = np.flatnonzero(flat > least).tolist()
    equal = np.flatnonzero(flat == least)[: count - len(above)].tolist()
    texts = [_text(flat[index], index) for index in [*sorted(above, key=flat.__getitem__, reverse=True), *equal]]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def _text(value: Any, index: int) -> bytes:
    shown = str(value) if isinstance(value, np.integer) else f"{float(value):f}"
    return f"{shown}:{index}".encode()
