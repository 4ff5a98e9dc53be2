"""A request's input tensors: their bytes become the time steps of a chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
from cellkeeper_proto.kserve import inference_pb2 as pb

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.domain.spec import ModelSpec, TensorSpec
from cellkeeper_service.errors import invalid
from cellkeeper_service.rpc import tensors
from cellkeeper_service.rpc.catalog import Catalog
from cellkeeper_service.rpc.steps import check_steps

from .datatypes import CONTENT_TYPES, CONTENTS, DTYPES, NAMES, WIRE_DTYPES
from .refusals import refuse, request_id

InferInput = pb.ModelInferRequest.InferInputTensor


def read_inputs(
    request: pb.ModelInferRequest, names: Mapping[str, TensorSpec], spec: ModelSpec, catalog: Catalog, model: str
) -> tuple[bytes, int, bool]:
    """The chunk's time steps in the model's dtypes, raw; how many they are; and whether the tensors had a time
    dimension, which the outputs have then. names: the model's inputs by what clients call them. Raises a Rejection."""
    said = request_id(request.id)
    given = _each_once(request, names, model, said)
    steps, has_time = _steps_of(given, names, model, said)
    for name, (tensor, _) in given.items():
        if not _takes(tensor.datatype, names[name]):
            known = tensor.datatype in CONTENT_TYPES.values() or tensor.datatype in DTYPES
            came = tensor.datatype if known else "<invalid>"
            text = (
                f"{said}inference input '{name}' data-type is '{came}', but model '{model}' expects "
                f"'{NAMES[names[name].dtype]}'"
            )
            raise refuse(text, "inputs.datatype")
    check_steps(steps, spec, catalog, "inputs.shape")
    values = {}
    for name, (tensor, at) in given.items():
        data = _raw(request, tensor, at, name, model)
        wanted = prod(tensor.shape) * DTYPES[tensor.datatype].itemsize
        if len(data) != wanted:
            text = (
                f"{said}input byte size mismatch for input '{name}' for model '{model}'. Expected {wanted}, got "
                f"{len(data)}"
            )
            raise refuse(text, "inputs")
        values[names[name].name] = _values(data, tensor.datatype, steps, names[name])
    if spec.inputs:
        taken = tensors.packed(values, steps)
    else:
        (taken,) = values.values()
    tensors.check_values(taken, spec)
    return tensors.input_bytes(taken, spec), steps, has_time


def _values(data: bytes, datatype: str, steps: int, part: TensorSpec) -> Array:
    if datatype == "BOOL":
        data = (np.frombuffer(data, np.uint8) != 0).astype(part.numpy_dtype).tobytes()
        datatype = NAMES[part.dtype]
    return tensors.read_tensor(data, WIRE_DTYPES[datatype], part.shape, steps, part, "", "inputs")


def _each_once(
    request: pb.ModelInferRequest, names: Mapping[str, TensorSpec], model: str, said: str
) -> dict[str, tuple[InferInput, int]]:
    """The model's inputs by name, in its order, each with its place in the request."""
    inputs = request.inputs
    for tensor in inputs if len(inputs) == len(names) else ():
        if tensor.name not in names:
            raise refuse(f"unexpected inference input '{tensor.name}' for model '{model}'", "inputs.name")
    came = [tensor.name for tensor in inputs]
    if sorted(came) != sorted(names):
        missing = ",".join(repr(name) for name in names if name not in came)
        text = (
            f"{said}expected {len(names)} inputs but got {len(inputs)} inputs for model '{model}'. Got input(s) "
            f"[{','.join(map(repr, came))}], but missing required input(s) [{missing}]. Please provide "
            "all required input(s)."
        )
        raise refuse(text, "inputs")
    for tensor in inputs:
        if "shared_memory_region" in tensor.parameters:
            raise invalid("inputs.parameters", "shared_memory_region", "the tensor's bytes in the request")
    places = {tensor.name: (tensor, at) for at, tensor in enumerate(inputs)}
    return {name: places[name] for name in names}


def _steps_of(
    given: Mapping[str, tuple[InferInput, int]], names: Mapping[str, TensorSpec], model: str, said: str
) -> tuple[int, bool]:
    """How many time steps the tensors have, all the same, and whether they have a dimension for them."""
    found = {name: _tensor_steps(tensor, name, names[name].shape, model, said) for name, (tensor, _) in given.items()}
    first = next(iter(found))
    for name, steps in found.items():
        if steps != found[first]:
            came, expected = (_text(given[each][0].shape) for each in (name, first))
            raise invalid("inputs.shape", f"{name} {came}", f"the time steps of {first} {expected}")
    return found[first]


def _tensor_steps(
    tensor: InferInput, name: str, step_shape: tuple[int, ...], model: str, said: str
) -> tuple[int, bool]:
    shape: tuple[int, ...] = tuple(tensor.shape)
    if shape and min(shape) < 0:
        text = (
            f"{said}All input dimensions should be specified for input '{name}' for model '{model}', got {_text(shape)}"
        )
        raise refuse(text, "inputs.shape")
    has_time = len(shape) == 2 + len(step_shape)
    if not (has_time or len(shape) == 1 + len(step_shape)) or shape[len(shape) - len(step_shape) :] != step_shape:
        text = (
            f"{said}unexpected shape for input '{name}' for model '{model}'. "
            f"Expected {_text((-1, -1, *step_shape))} or {_text((-1, *step_shape))}, got {_text(shape)}"
        )
        raise refuse(text, "inputs.shape")
    if shape[0] != 1:
        text = f"inference request to model '{model}' must specify batch-size 1 due to requirements of sequence batcher"
        raise refuse(text, "inputs.shape")
    return (shape[1], True) if has_time else (1, False)


def _text(shape: Sequence[int]) -> str:
    """As Triton writes shapes."""
    return f"[{','.join(map(str, shape))}]"


def _takes(datatype: str, part: TensorSpec) -> bool:
    """Floats and integers of any width are taken, one not for the other; BOOL is taken for both."""
    dtype = DTYPES.get(datatype)
    return dtype is not None and dtype.kind in ("b", part.numpy_dtype.kind)


def _raw(request: pb.ModelInferRequest, tensor: InferInput, at: int, name: str, model: str) -> bytes:
    """The values of the tensor at this place as bytes, however they came."""
    given = [field.name for field, _ in tensor.contents.ListFields()] if tensor.HasField("contents") else []
    raw = request.raw_input_contents
    if raw:
        if given:
            text = (
                f"contents field must not be specified when using raw_input_contents for '{name}' for model '{model}'"
            )
            raise refuse(text, "inputs.contents")
        if len(raw) != len(request.inputs):
            raise invalid("raw_input_contents", f"{len(raw)} of them", f"one for each input: {len(request.inputs)}")
        return raw[at]
    if not given:
        text = f"unable to find data for input tensor '{name}' for model '{model}' in request."
        raise refuse(text, "inputs")
    expected = CONTENTS.get(tensor.datatype)
    wrong = [field for field in given if field != expected]
    if wrong or expected is None:
        came = CONTENT_TYPES[wrong[0]]
        text = (
            f"unexpected explicit tensor data for input tensor '{name}' for model '{model}' of type '{came}', expected "
            f"datatype '{tensor.datatype}'"
        )
        raise refuse(text, "inputs.contents")
    return np.array(getattr(tensor.contents, expected), DTYPES[tensor.datatype]).tobytes()
