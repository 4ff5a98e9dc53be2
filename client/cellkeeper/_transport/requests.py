"""Builds the contract's request messages from callers' arguments and raw inputs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .._session.arguments import invalid, whole_number
from .._session.frame_format import Layout
from .._session.named_inputs import known_of, packed_dtype
from ..types import Model
from .wire import dtype_number


def request_id() -> bytes:
    """Returns 16 random bytes for a request, which its resends keep: the server applies it once."""
    return os.urandom(16)


def peek_request(session: str, model: Model, raw: bytes, outputs: Sequence[str]) -> Any:
    """Returns a StepRequest that keeps nothing, without its position. raw: inputs, as converted by Inputs."""
    fields = chunk_fields(model, raw)
    return pb.StepRequest(model=model.name, session=session, peek=True, outputs=outputs, **fields)


def check_rollout(model: Model, steps: object, given: int) -> int:
    """Returns the number of predictions after a peek of `given` time steps.

    Raises InvalidArgument if the model makes no forecasts, or none that are so long.
    """
    steps = whole_number(steps, "steps", 1)
    if model.feedback is None and model.input_feedback is None:
        raise invalid("steps", str(steps), f'a model whose config.json has "feedback" ({model.name!r} has none)')
    limit = model.max_chunk_steps
    if limit and given + steps > limit:
        raise invalid("steps", f"{steps} after inputs of {given} time steps", f"at most {limit} in all")
    return steps


def rollout_request(peek: Any, model: Model, steps: int, known: bytes) -> Any:
    """Continues the peek with `steps` predictions and returns it. known: raw, what the caller supplies."""
    peek.rollout_steps = steps
    if not model.inputs:
        peek.rollout_inputs = known
    elif known:
        peek.rollout_named_inputs.extend(chunk_fields(known_of(model), known)["named_inputs"])
    return peek


# ---------------------------------------------------------------------------------------------- inputs


def layout_of(model: Model) -> Layout:
    states, step_bytes = tuple(spec.name for spec in model.states), model.input.nbytes
    if not model.inputs:
        return Layout(model.name, dtype_number(model.input.dtype), model.input.shape, step_bytes, states)
    packed = packed_dtype(model.inputs)
    return Layout(model.name, pb.DATA_TYPE_UNSPECIFIED, (), step_bytes, states, model.inputs, packed)


def frame_fields(layout: Layout, raw: bytes) -> dict[str, Any]:
    """Returns the fields of a StepFrame that carry inputs."""
    if not layout.inputs:
        return {"dtype": layout.dtype, "step_shape": layout.shape, "inputs": raw}
    table = np.frombuffer(raw, layout.packed)
    return {
        "named_inputs": [
            pb.InputColumn(
                name=one.name, dtype=dtype_number(one.dtype), shape=one.shape, data=table[one.name].tobytes()
            )
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
            pb.Tensor(
                name=one.name, dtype=dtype_number(one.dtype), shape=(steps, *one.shape), data=table[one.name].tobytes()
            )
            for one in layout.inputs
        ]
    }
