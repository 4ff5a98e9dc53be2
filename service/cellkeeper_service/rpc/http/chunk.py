"""Converts a chunk's inputs between JSON and messages: one array, or arrays by name for several inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.domain.feedback import KNOWN, Feedback, NamedFeedback
from cellkeeper_service.domain.spec import InputSpec, ModelSpec, TensorSpec
from cellkeeper_service.errors import invalid

from .arrays import read_array, write_array
from .feature_names import in_order
from .json_text import shown

EXPECTED = "numbers of one time step, or a list of time steps; by name if inputs or features have names"
Chunk = pb.StepRequest | pb.CarryOverRequest.Item


def put_chunk(chunk: Chunk, value: Any, spec: ModelSpec, field: str = "inputs") -> None:
    """Fills in the chunk's inputs. Raises a Rejection.

    A single time step may lack the time axis. The service checks later whether dtypes and shapes are the model's.
    """
    if spec.inputs:
        for part, values in _by_name(value, spec.inputs, field):
            chunk.named_inputs.append(_tensor(part, values))
        return
    values = _one_input(value, spec, field)
    chunk.dtype, chunk.inputs = _dtype_of(values), values.tobytes()
    chunk.shape.extend(values.shape)


def put_frame(frame: pb.StepFrame, value: Any, spec: ModelSpec) -> None:
    """Fills in a frame of one item, including its steps. Raises a Rejection."""
    if not spec.inputs:
        values = _one_input(value, spec, "inputs")
        frame.steps.append(values.shape[0] if values.ndim else 0)
        frame.dtype, frame.inputs = _dtype_of(values), values.tobytes()
        frame.step_shape.extend(values.shape[1:])
        return
    given = _by_name(value, spec.inputs, "inputs")
    counts = {part.name: values.shape[0] if values.ndim else 0 for part, values in given}
    if len(set(counts.values())) > 1:
        raise invalid("inputs", f"time steps {counts}", "the same number for each input")
    frame.steps.append(next(iter(counts.values())))
    for part, values in given:
        data, shape = values.tobytes(), values.shape[1:]
        frame.named_inputs.append(pb.InputColumn(name=part.name, dtype=_dtype_of(values), shape=shape, data=data))


def put_known(request: pb.StepRequest, value: Any, spec: ModelSpec, field: str) -> None:
    """Fills in what the caller supplies for the rolled time steps of a forecast. Raises a Rejection.

    request: with its `rollout_steps`.
    """
    if not spec.inputs:
        sources = spec.feedback.sources if isinstance(spec.feedback, Feedback) else ()
        known = [name for name, source in zip(spec.feature_names, sources, strict=False) if source == KNOWN]
        values = read_array(in_order(value, known, field) if known else value, "f", field, missing=spec.missing_values)
        if isinstance(spec.feedback, Feedback):
            shape = (request.rollout_steps, spec.feedback.known_features)
            if values.shape != shape:
                expected = f"{list(shape)}: the features that the prediction does not provide, for each of `steps`"
                raise invalid(field, f"numbers of shape {list(values.shape)}", expected)
        request.rollout_inputs = values.astype("<f8").tobytes()
        return
    fed = {name for name, _ in spec.feedback.inputs} if isinstance(spec.feedback, NamedFeedback) else set()
    supplied = [part for part in spec.inputs if part.name not in fed]
    for part in supplied if type(value) is dict else ():
        if part.name in value:
            values = _steps(value[part.name], part, f"{field}[{part.name}]")
            request.rollout_named_inputs.append(_tensor(part, values))
    if type(value) is not dict or set(value) != {part.name for part in supplied}:
        names = ", ".join(part.name for part in supplied) or "nothing"
        raise invalid(field, shown(value), f"an object with {names}: the inputs that the prediction does not provide")


def write_inputs(data: bytes, steps: int, spec: ModelSpec) -> Any:
    """Returns a chunk's logged bytes as JSON: [steps, ...], by name if the model has several inputs."""
    values = np.frombuffer(data, spec.input.numpy_dtype).reshape(steps, *spec.input.shape)
    if spec.inputs:
        return {part.name: write_array(values[part.name]) for part in spec.inputs}
    return write_array(values)


def _by_name(value: Any, parts: Sequence[InputSpec], field: str) -> list[tuple[InputSpec, Array]]:
    """Returns each of the model's inputs, in the model's order."""
    names = [part.name for part in parts]
    if type(value) is not dict or set(value) != set(names):
        raise invalid(field, shown(value), f"an object with each of {', '.join(names)}: the model has several inputs")
    return [(part, _steps(value[part.name], part, f"{field}[{part.name}]")) for part in parts]


def _one_input(value: Any, spec: ModelSpec, field: str) -> Array:
    """Returns [T, ...] of a model with one input, whose features may be given by name and may be missing."""
    if spec.feature_names:
        value = in_order(value, spec.feature_names, field)
    return _steps(value, spec.input, field, missing=spec.missing_values)


def _steps(value: Any, part: TensorSpec, field: str, *, missing: bool = False) -> Array:
    """Returns [T, ...]; adds the time axis to a single time step. part: the model's input. missing: values may be."""
    kind = part.numpy_dtype.kind
    values = read_array(value, kind, field, part.dtype, missing=missing).astype(f"<{kind}8")
    return values[np.newaxis] if values.ndim == len(part.shape) else values


def _tensor(part: InputSpec, values: Array) -> pb.Tensor:
    return pb.Tensor(name=part.name, dtype=_dtype_of(values), shape=values.shape, data=values.tobytes())


def _dtype_of(values: Array) -> pb.DataType:
    return pb.FLOAT64 if values.dtype.kind == "f" else pb.INT64
