"""Converts tensors between the wire and numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from numpy.typing import NDArray

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.domain.spec import InputSpec, ModelSpec, TensorSpec
from cellkeeper_service.errors import Reason, Rejection, invalid

DTYPES: dict[pb.DataType, np.dtype[Any]] = {
    pb.FLOAT32: np.dtype("<f4"),
    pb.FLOAT64: np.dtype("<f8"),
    pb.FLOAT16: np.dtype("<f2"),
    pb.INT32: np.dtype("<i4"),
    pb.INT64: np.dtype("<i8"),
}
WIRE_DTYPES = {dtype.name: wire for wire, dtype in DTYPES.items()}
FEW = 64
"""Up to this number of values, checking a list is faster than numpy."""
MAX_AXES = 64
"""No model's tensor has more."""


def sizes(shape: Sequence[int]) -> Sequence[int]:
    """Returns the sizes of a shape as sent: of the first axes only, if there are more than any tensor has.

    More are as wrong as one too many, and a message has room for millions, which would take seconds to copy.
    """
    return shape[: MAX_AXES + 1]


def shape_text(step_shape: Sequence[int]) -> str:
    """Returns a chunk's shape as refusals show it. step_shape: of one time step."""
    return f"[T{''.join(f', {size}' for size in step_shape)}]"


def read_tensor(
    data: bytes,
    dtype: pb.DataType,
    step_shape: Sequence[int],
    steps: int,
    wanted: TensorSpec,
    prefix: str,
    data_field: str,
) -> Array:
    """Returns [steps, *wanted.shape]. Raises a Rejection if dtype, shape or byte count are not those of `wanted`.

    Accepts floats or integers of any width, as the model has them. Floats are converted to the model's dtype; integers
    keep theirs, and `check_values` decides later, chunk by chunk, whether they fit.

    wanted: one of the model's inputs. prefix, data_field: for field names in errors.
    """
    if tuple(step_shape[:]) != wanted.shape:
        raise invalid(f"{prefix}shape", shape_text(step_shape), shape_text(wanted.shape))
    came_as = DTYPES.get(dtype)
    want = wanted.numpy_dtype
    if came_as is None or came_as.kind != want.kind:
        raise invalid(f"{prefix}dtype", _dtype_text(dtype), _expected(wanted))
    count = steps * (wanted.nbytes // want.itemsize) * came_as.itemsize
    if len(data) != count:
        raise invalid(f"{prefix}{data_field}", f"{len(data)} bytes", f"{count} bytes for {steps} steps")
    values: Array = np.frombuffer(data, came_as)
    if came_as != want and want.kind == "f":
        with np.errstate(over="ignore"):
            values = values.astype(want)
    return values.reshape(steps, *wanted.shape)


def packed(values: Mapping[str, Array], steps: int) -> Array:
    """Packs several inputs [steps, ...] into one [steps] of a structured dtype; each keeps the dtype that was sent."""
    together: Array = np.zeros(steps, [(name, value.dtype, value.shape[1:]) for name, value in values.items()])
    for name, value in values.items():
        together[name] = value
    return together


def read_known(data: bytes, dtype: pb.DataType, steps: int, features: int, spec: ModelSpec) -> Array:
    """Returns [steps, features] in the model's dtype: the features that the caller supplies for rolled time steps.
    `dtype` is one that `read_tensor` has accepted. Raises a Rejection."""
    count = steps * features * DTYPES[dtype].itemsize
    if len(data) != count:
        expected = f"{count} bytes: {features} features that the caller supplies, for {steps} time steps"
        raise invalid("rollout_inputs", f"{len(data)} bytes", expected)
    with np.errstate(over="ignore"):
        values = np.frombuffer(data, DTYPES[dtype]).astype(spec.input.numpy_dtype).reshape(steps, features)
    bad = _not_finite(values, spec)
    if bad.any():
        raise _refused_value(values, np.argwhere(bad)[0], "rolled time step", spec, "rollout_inputs")
    return values


def check_values(values: Array, spec: ModelSpec, field: str = "inputs") -> None:
    """Raises a Rejection for values that the model cannot take. values: [T, *spec.input.shape]."""
    if all_valid(values, spec):
        return
    for part in spec.inputs:
        check_input(values[part.name], part, f"{field}[{part.name}]")
    if spec.vocabulary:
        outside = (values < 0) | (values >= spec.vocabulary)
        step = int(np.argwhere(outside)[0][0])
        raise invalid(field, f"token id {values[step]} at time step {step}", f"ids below {spec.vocabulary}")
    raise _refused_value(values, np.argwhere(_not_finite(values, spec))[0], "time step", spec, field)


def _not_finite(values: Array, spec: ModelSpec) -> NDArray[np.bool_]:
    """Returns True for each value that the model does not accept; NaN may be a missing value."""
    return np.isinf(values) if spec.missing_values else ~np.isfinite(values)


def _refused_value(values: Array, index: NDArray[np.intp], axis: str, spec: ModelSpec, field: str) -> Rejection:
    """Returns the refusal of the value at `index`. axis: what the first axis is called."""
    step, *feature = index.tolist()
    place = f"at {axis} {step}" + (f", feature {feature[0]}" if feature else "")
    expected = "finite values" + (" or NaN for missing values" if spec.missing_values else "")
    text = f"{field}: got {values[tuple(index)]} {place}, expected {expected}"
    return Rejection(Reason.NON_FINITE_INPUT, text, field=field)


def check_input(values: Array, part: InputSpec, field: str) -> None:
    """Raises a Rejection for values that one of several inputs cannot take. values: [T, *part.shape]."""
    good = _valid(values, part)
    if good.all():
        return
    step, *element = (int(index) for index in np.argwhere(~good)[0])
    came = f"{values[(step, *element)]} at time step {step}" + (f", element {element}" if element else "")
    if part.vocabulary:
        raise invalid(field, came, f"integers of 0 to {part.vocabulary - 1}")
    raise Rejection(Reason.NON_FINITE_INPUT, f"{field}: got {came}, expected finite values", field=field)


def _valid(values: Array, part: InputSpec) -> NDArray[np.bool_]:
    return (values >= 0) & (values < part.vocabulary) if part.vocabulary else np.isfinite(values)


def input_bytes(values: Array, spec: ModelSpec) -> bytes:
    """Returns checked values as raw bytes in the model's dtype; heads are computed on these."""
    return values.astype(spec.input.numpy_dtype, copy=False).tobytes()


def all_valid(values: Array, spec: ModelSpec) -> bool:
    """Returns True if `check_values` would pass, with one look at all the values of a frame."""
    if spec.inputs:
        return all(bool(_valid(values[part.name], part).all()) for part in spec.inputs)
    if spec.vocabulary:
        return bool(((values >= 0) & (values < spec.vocabulary)).all())
    if spec.missing_values:
        return not np.count_nonzero(np.isinf(values))
    if values.size <= FEW and isfinite(sum(values.ravel().tolist())):  # a sum with NaN or infinity is not finite
        return True
    return bool(np.count_nonzero(np.isfinite(values)) == values.size)


def to_tensor(spec: TensorSpec, values: Array) -> pb.Tensor:
    return pb.Tensor(name=spec.name, dtype=WIRE_DTYPES[spec.dtype], shape=values.shape, data=values.tobytes())


def split_state(state: bytes, spec: ModelSpec) -> list[tuple[TensorSpec, bytes]]:
    """Splits a state into its tensors, in the model's order."""
    parts, start = [], 0
    for tensor in spec.states:
        parts.append((tensor, state[start : start + tensor.nbytes]))
        start += tensor.nbytes
    return parts


def state_tensors(state: bytes, spec: ModelSpec, prefix: str = "") -> list[pb.Tensor]:
    return [
        pb.Tensor(name=prefix + tensor.name, dtype=WIRE_DTYPES[tensor.dtype], shape=tensor.shape, data=data)
        for tensor, data in split_state(state, spec)
    ]


def read_state(tensors: Sequence[pb.Tensor], spec: ModelSpec, field: str) -> bytes:
    """Reads a whole state: each of the model's tensors once, in its dtype and shape, with finite values."""
    given = {tensor.name: tensor for tensor in tensors}
    names = [state.name for state in spec.states]
    if sorted(tensor.name for tensor in tensors) != sorted(names):
        raise invalid(field, f"tensors {sorted(t.name for t in tensors)}", f"each of {sorted(names)} once")
    parts = []
    for state in spec.states:
        tensor = given[state.name]
        where = f"{field}[{state.name}]"
        dtype, shape = WIRE_DTYPES[state.dtype], sizes(tensor.shape)
        if tensor.dtype != dtype or tuple(shape) != state.shape:
            came = f"{_dtype_text(tensor.dtype)} {list(shape)}"
            raise invalid(where, came, f"{_dtype_text(dtype)} {list(state.shape)}")
        if len(tensor.data) != state.nbytes:
            raise invalid(where, f"{len(tensor.data)} bytes", f"{state.nbytes} bytes")
        values = np.frombuffer(tensor.data, state.numpy_dtype)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise Rejection(
                Reason.NON_FINITE_INPUT, f"{where}: got NaN or infinity, expected finite values", field=where
            )
        parts.append(tensor.data)
    return b"".join(parts)


def to_spec(spec: TensorSpec) -> pb.TensorSpec:
    vocabulary = spec.vocabulary if isinstance(spec, InputSpec) else 0
    return pb.TensorSpec(name=spec.name, dtype=WIRE_DTYPES[spec.dtype], shape=spec.shape, vocabulary=vocabulary)


def _dtype_text(dtype: int) -> str:
    return pb.DataType.Name(dtype) if dtype in pb.DataType.values() else str(dtype)


def _expected(wanted: TensorSpec) -> str:
    kind = wanted.numpy_dtype.kind
    return " or ".join(pb.DataType.Name(dtype) for dtype, numpy in DTYPES.items() if numpy.kind == kind)
