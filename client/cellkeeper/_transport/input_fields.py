"""Raw inputs as fields of the contract's messages."""

from __future__ import annotations

from typing import Any

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .._session.frame_format import InputLayout, Layout
from .._session.named_inputs import packed_dtype
from ..types import Model
from .wire import dtype_number


def layout_of(model: Model) -> Layout:
    states, step_bytes = tuple(spec.name for spec in model.states), model.input.nbytes
    if not model.inputs:
        return Layout(model.name, dtype_number(model.input.dtype), model.input.shape, step_bytes, states)
    inputs = tuple(InputLayout(spec.name, dtype_number(spec.dtype), spec.shape) for spec in model.inputs)
    return Layout(model.name, pb.DATA_TYPE_UNSPECIFIED, (), step_bytes, states, inputs, packed_dtype(model.inputs))


def frame_fields(layout: Layout, raw: bytes) -> dict[str, Any]:
    """Returns the fields of a StepFrame that carry inputs."""
    if not layout.inputs:
        return {"dtype": layout.dtype, "step_shape": layout.shape, "inputs": raw}
    table = np.frombuffer(raw, layout.packed)
    return {
        "named_inputs": [
            pb.InputColumn(name=one.name, dtype=one.dtype, shape=one.shape, data=table[one.name].tobytes())
            for one in layout.inputs
        ]
    }


def chunk_fields(model: Model, raw: bytes) -> dict[str, Any]:
    """Returns the fields of a StepRequest, or of a CarryOverRequest item, that carry inputs."""
    layout, steps = layout_of(model), len(raw) // model.input.nbytes
    if not layout.inputs:
        return {"dtype": layout.dtype, "shape": (steps, *layout.shape), "inputs": raw}
    table = np.frombuffer(raw, layout.packed)
    return {
        "named_inputs": [
            pb.Tensor(name=one.name, dtype=one.dtype, shape=(steps, *one.shape), data=table[one.name].tobytes())
            for one in layout.inputs
        ]
    }
