"""Reads the inputs of a chunk or a frame, for models with one input or with several named ones.

Several inputs become one array of a structured dtype (domain.spec.PackedInputs), which the rest of the service treats
as any other input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.domain.feedback import Feedback, NamedFeedback
from cellkeeper_service.domain.spec import InputSpec, ModelSpec
from cellkeeper_service.errors import invalid

from . import tensors
from .catalog import Catalog

FIELD, KNOWN_FIELD = "named_inputs", "rollout_named_inputs"
Chunk = pb.StepRequest | pb.CarryOverRequest.Item
Named = TypeVar("Named", pb.Tensor, pb.InputColumn)


def time_steps(message: Chunk, spec: ModelSpec, catalog: Catalog, prefix: str = "") -> int:
    """Returns T of the chunk according to its fields. prefix: for field names in errors. Raises a Rejection."""
    if spec.inputs:
        steps, field = _steps_by_name(message, spec, prefix), FIELD
    elif message.shape:
        steps, field = message.shape[0], "shape"
    else:
        raise invalid(f"{prefix}shape", "[]", tensors.shape_text(spec.input.shape))
    catalog.check_steps(steps, spec, f"{prefix}{field}")
    return steps


def _steps_by_name(message: Chunk, spec: ModelSpec, prefix: str) -> int:
    """Returns T of several inputs, which must agree."""
    given = _by_name(message.named_inputs, spec.inputs, f"{prefix}{FIELD}")
    for part in spec.inputs:
        shape = given[part.name].shape
        if not shape:
            raise invalid(f"{prefix}{FIELD}[{part.name}].shape", "[]", tensors.shape_text(part.shape))
    first = spec.inputs[0]
    steps = given[first.name].shape[0]
    for part in spec.inputs:
        if given[part.name].shape[0] != steps:
            came = f"T = {given[part.name].shape[0]}"
            expected = f"T = {steps}, as in {first.name}: all inputs have the same time steps"
            raise invalid(f"{prefix}{FIELD}[{part.name}].shape", came, expected)
    return steps


def read_chunk(message: Chunk, steps: int, spec: ModelSpec, prefix: str = "") -> bytes:
    """Returns the chunk's inputs as raw bytes in the model's dtypes. steps: from `time_steps`. Raises a Rejection."""
    if spec.inputs:
        _refuse_unnamed(bool(message.dtype or message.shape or message.inputs), spec, prefix)
        found = _by_name(message.named_inputs, spec.inputs, f"{prefix}{FIELD}")
        given = {name: (tensor, tensors.sizes(tensor.shape)[1:]) for name, tensor in found.items()}
        values = _packed(given, steps, spec, prefix)
    else:
        _refuse_named(message.named_inputs, prefix)
        step_shape = tensors.sizes(message.shape)[1:]
        values = tensors.read_tensor(message.inputs, message.dtype, step_shape, steps, spec.input, prefix, "inputs")
    tensors.check_values(values, spec, f"{prefix}{FIELD if spec.inputs else 'inputs'}")
    return tensors.input_bytes(values, spec)


def read_columns(message: pb.StepFrame, steps: int, spec: ModelSpec) -> Array:
    """Returns the inputs of all items of a frame: [steps, *spec.input.shape]; integers keep the dtype that was sent.
    Raises a Rejection."""
    if not spec.inputs:
        if message.named_inputs:
            _refuse_named(message.named_inputs, "")
        step_shape = tensors.sizes(message.step_shape)
        return tensors.read_tensor(message.inputs, message.dtype, step_shape, steps, spec.input, "", "inputs")
    _refuse_unnamed(bool(message.dtype or message.step_shape or message.inputs), spec, "")
    columns = _by_name(message.named_inputs, spec.inputs, FIELD)
    given = {name: (column, tensors.sizes(column.shape)) for name, column in columns.items()}
    return _packed(given, steps, spec, "")


def read_known(request: pb.StepRequest, steps: int, feedback: Feedback | NamedFeedback, spec: ModelSpec) -> Array:
    """Returns the inputs that the caller supplies for `steps` rolled time steps. Raises a Rejection.

    Their shape is [steps, features], or [steps] of a structured dtype if the model has several inputs.
    """
    if isinstance(feedback, Feedback):
        if request.rollout_named_inputs:
            raise invalid(KNOWN_FIELD, f"{len(request.rollout_named_inputs)} tensors", "none: the model has one input")
        return tensors.read_known(request.rollout_inputs, request.dtype, steps, feedback.known_features, spec)
    if request.rollout_inputs:
        raise invalid("rollout_inputs", f"{len(request.rollout_inputs)} bytes", f"`{KNOWN_FIELD}` only")
    fed = {name for name, _ in feedback.inputs}
    supplied = [part for part in spec.inputs if part.name not in fed]
    given = _by_name(request.rollout_named_inputs, supplied, KNOWN_FIELD)
    known: Array = np.zeros(steps, spec.input.numpy_dtype)
    for part in supplied:
        tensor, field = given[part.name], f"{KNOWN_FIELD}[{part.name}]"
        shape = tensors.sizes(tensor.shape)
        if shape[:1] != [steps]:
            raise invalid(f"{field}.shape", list(shape), f"{steps} time steps, as many as are forecast")
        values = tensors.read_tensor(tensor.data, tensor.dtype, shape[1:], steps, part, f"{field}.", "data")
        tensors.check_input(values, part, field)
        known[part.name] = values
    return known


def charged_steps(message: Chunk) -> int:
    """Returns the most time steps that the chunk may have, from its unchecked fields. Used for quotas."""
    return max([*message.shape[:1], *(tensor.shape[0] for tensor in message.named_inputs if tensor.shape)], default=0)


def _packed(
    given: Mapping[str, tuple[pb.Tensor | pb.InputColumn, Sequence[int]]], steps: int, spec: ModelSpec, prefix: str
) -> Array:
    """Returns [steps] of a structured dtype; integers keep the dtype that was sent.

    given: each input by name, with the shape of one time step.
    """
    values: dict[str, Array] = {}
    for part in spec.inputs:
        tensor, step_shape = given[part.name]
        where = f"{prefix}{FIELD}[{part.name}]."
        values[part.name] = tensors.read_tensor(tensor.data, tensor.dtype, step_shape, steps, part, where, "data")
    return tensors.packed(values, steps)


def _by_name(given: Sequence[Named], parts: Sequence[InputSpec], field: str) -> dict[str, Named]:
    """Returns the inputs by name. Raises a Rejection if one is missing, unknown or given twice."""
    found = {tensor.name: tensor for tensor in given}
    names = [part.name for part in parts]
    if sorted(tensor.name for tensor in given) != sorted(names):
        came = ", ".join(repr(tensor.name) for tensor in given) or "none"
        missing = "".join(f"; {name} is missing" for name in names if name not in found)
        unknown = "".join(f"; {name!r} is unknown" for name in found if name not in names)
        raise invalid(field, f"{came}{missing}{unknown}", f"each of {', '.join(names)} once" if names else "none")
    return found


def _refuse_named(given: Sequence[pb.Tensor] | Sequence[pb.InputColumn], prefix: str) -> None:
    if given:
        came = ", ".join(repr(tensor.name) for tensor in given)
        raise invalid(f"{prefix}{FIELD}", came, "`inputs`: the model has one input")


def _refuse_unnamed(came: bool, spec: ModelSpec, prefix: str) -> None:
    if came:
        names = ", ".join(part.name for part in spec.inputs)
        expected = f"`{FIELD}` only: the model has the inputs {names}"
        raise invalid(f"{prefix}inputs", "dtype, shape or inputs", expected)
