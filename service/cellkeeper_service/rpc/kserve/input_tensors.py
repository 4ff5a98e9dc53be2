"""A request's input tensors: their bytes become the time steps of a chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from cellkeeper_proto.kserve import inference_pb2 as pb

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.domain.spec import ModelSpec, TensorSpec
from cellkeeper_service.errors import Rejection, invalid
from cellkeeper_service.rpc import tensors
from cellkeeper_service.rpc.catalog import Catalog

from .datatypes import CONTENT_TYPES, CONTENTS, DTYPES, KNOWN, NAMES
from .refusals import refuse, request_id
from .tensor_names import TensorNames

InferInput = pb.ModelInferRequest.InferInputTensor


@dataclass(frozen=True, slots=True)
class InputTensor:
    """One of a request's tensors.

    name: the client's. at: its index in the request. part: the model's input. nbytes: of its values as sent.
    """

    name: str
    at: int
    part: TensorSpec
    datatype: str
    dtype: np.dtype[Any]
    nbytes: int


def read_tensors(
    request: pb.ModelInferRequest, names: TensorNames, spec: ModelSpec, catalog: Catalog
) -> tuple[tuple[InputTensor, ...], int, bool]:
    """Returns the request's tensors in the order of the model's inputs, without reading their values.

    Also returns how many time steps they have, and whether they have a time dimension, which the outputs then have too.
    names: of the model. Raises a Rejection.
    """
    inputs, model = names.inputs, request.model_name
    given = _each_once(request, inputs)
    steps, has_time = _steps_of(request, given, names)
    for name, (tensor, _) in given.items():
        if not _takes(tensor.datatype, inputs[name]):
            came = tensor.datatype if tensor.datatype in KNOWN else "<invalid>"
            text = (
                f"{request_id(request)}inference input '{name}' data-type is '{came}', but model '{model}' expects "
                f"'{NAMES[inputs[name].dtype]}'"
            )
            raise refuse(text, "inputs.datatype")
    catalog.check_steps(steps, spec, "inputs.shape")
    found = []
    for name, (tensor, at) in given.items():
        if request.raw_input_contents and _contents_given(tensor):
            text = (
                f"contents field must not be specified when using raw_input_contents for '{name}' for model '{model}'"
            )
            raise refuse(text, "inputs.contents")
        dtype = DTYPES[tensor.datatype]
        nbytes = prod(tensor.shape) * dtype.itemsize
        found.append(InputTensor(name, at, inputs[name], tensor.datatype, dtype, nbytes))
    return tuple(found), steps, has_time


def read_values(request: pb.ModelInferRequest, inputs: Sequence[InputTensor], steps: int, spec: ModelSpec) -> bytes:
    """Returns the chunk's time steps as raw bytes in the model's dtypes. Raises a Rejection.

    inputs, steps: from `read_tensors`, for a request with the same signature.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(inputs):
        raise invalid("raw_input_contents", f"{len(raw)} entries", f"one for each input: {len(inputs)}")
    values = {}
    for tensor in inputs:
        if raw:
            data = raw[tensor.at]
            _check_size(len(data), tensor, request)
        else:
            contents = _contents(request, tensor)
            _check_size(len(contents) * tensor.dtype.itemsize, tensor, request)
            data = np.array(contents, tensor.dtype).tobytes()
        values[tensor.part.name] = _values(data, tensor, steps)
    if spec.inputs:
        taken = tensors.packed(values, steps)
    else:
        (taken,) = values.values()
    tensors.check_values(taken, spec)
    return tensors.input_bytes(taken, spec)


def _check_size(nbytes: int, tensor: InputTensor, request: pb.ModelInferRequest) -> None:
    """Raises a Rejection if the tensor came with more or fewer bytes than its shape says."""
    if nbytes != tensor.nbytes:
        text = (
            f"{request_id(request)}input byte size mismatch for input '{tensor.name}' for model "
            f"'{request.model_name}'. Expected {tensor.nbytes}, got {nbytes}"
        )
        raise refuse(text, "inputs")


def _values(data: bytes, tensor: InputTensor, steps: int) -> Array:
    """Returns [steps, *shape]. Floats are converted to the model's dtype; integers keep theirs."""
    values: Array = np.frombuffer(data, tensor.dtype)
    want = tensor.part.numpy_dtype
    if tensor.dtype.kind == "b":
        values = (np.frombuffer(data, np.uint8) != 0).astype(want)
    elif tensor.dtype != want and want.kind == "f":
        with np.errstate(over="ignore"):
            values = values.astype(want)
    return values.reshape(steps, *tensor.part.shape)


def _each_once(request: pb.ModelInferRequest, names: Mapping[str, TensorSpec]) -> dict[str, tuple[InferInput, int]]:
    """Returns the model's inputs by name, in the model's order, each with its index in the request."""
    inputs, model = request.inputs, request.model_name
    for tensor in inputs if len(inputs) == len(names) else ():
        if tensor.name not in names:
            raise refuse(f"unexpected inference input '{tensor.name}' for model '{model}'", "inputs.name")
    came = [tensor.name for tensor in inputs]
    if sorted(came) != sorted(names):
        missing = ",".join(repr(name) for name in names if name not in came)
        text = (
            f"{request_id(request)}expected {len(names)} inputs but got {len(inputs)} inputs for model '{model}'. Got "
            f"input(s) [{','.join(map(repr, came))}], but missing required input(s) [{missing}]. Please provide "
            "all required input(s)."
        )
        raise refuse(text, "inputs")
    for tensor in inputs:
        if "shared_memory_region" in tensor.parameters:
            raise invalid("inputs.parameters", "shared_memory_region", "the tensor's bytes in the request")
    places = {tensor.name: (tensor, at) for at, tensor in enumerate(inputs)}
    return {name: places[name] for name in names}


def _steps_of(
    request: pb.ModelInferRequest, given: Mapping[str, tuple[InferInput, int]], names: TensorNames
) -> tuple[int, bool]:
    """Returns how many time steps the tensors have, which must agree, and whether they have a time dimension."""
    found = {name: _tensor_steps(request, tensor, names) for name, (tensor, _) in given.items()}
    first = next(iter(found))
    for name, steps in found.items():
        if steps != found[first]:
            came, expected = (_text(given[each][0].shape) for each in (name, first))
            raise invalid("inputs.shape", f"{name} {came}", f"the time steps of {first} {expected}")
    return found[first]


def _tensor_steps(request: pb.ModelInferRequest, tensor: InferInput, names: TensorNames) -> tuple[int, bool]:
    name, model, layout, step_shape = tensor.name, request.model_name, names.layout, names.inputs[tensor.name].shape
    shape = tuple(tensors.sizes(tensor.shape))
    if shape and min(shape) < 0:
        text = (
            f"{request_id(request)}All input dimensions should be specified for input '{name}' for model '{model}', "
            f"got {_text(shape)}"
        )
        raise refuse(text, "inputs.shape")
    expected = layout.expected(step_shape)
    has_time = len(shape) == len(expected[0])
    lead = len(shape) - len(step_shape)

    def unexpected() -> Rejection:
        text = f"{request_id(request)}unexpected shape for input '{name}' for model '{model}'. "
        return refuse(f"{text}Expected {' or '.join(map(_text, expected))}, got {_text(shape)}", "inputs.shape")

    if len(shape) not in map(len, expected) or shape[lead:] != step_shape:
        raise unexpected()
    if layout.batch and shape[0] != 1:
        text = f"inference request to model '{model}' must specify batch-size 1 due to requirements of sequence batcher"
        raise refuse(text, "inputs.shape")
    if has_time and not layout.timed and shape[lead - 1] != 1:
        raise unexpected()
    return (shape[lead - 1], True) if has_time else (1, False)


def _text(shape: Sequence[int]) -> str:
    """Formats a shape as Triton does."""
    return f"[{','.join(map(str, shape))}]"


def _takes(datatype: str, part: TensorSpec) -> bool:
    """Returns True for floats of any width if the input has floats, integers if it has integers, and BOOL for both."""
    dtype = DTYPES.get(datatype)
    return dtype is not None and dtype.kind in ("b", part.numpy_dtype.kind)


def _contents(request: pb.ModelInferRequest, tensor: InputTensor) -> Sequence[float]:
    """Returns the tensor's typed contents."""
    came, model = request.inputs[tensor.at], request.model_name
    given = _contents_given(came)
    if not given:
        text = f"unable to find data for input tensor '{tensor.name}' for model '{model}' in request."
        raise refuse(text, "inputs")
    expected = CONTENTS.get(tensor.datatype)
    wrong = [field for field in given if field != expected]
    if wrong or expected is None:
        text = (
            f"unexpected explicit tensor data for input tensor '{tensor.name}' for model '{model}' of type "
            f"'{CONTENT_TYPES[wrong[0]]}', expected datatype '{tensor.datatype}'"
        )
        raise refuse(text, "inputs.contents")
    contents: Sequence[float] = getattr(came.contents, expected)
    return contents


def _contents_given(tensor: InferInput) -> list[str]:
    """Returns the names of the typed contents that are not empty."""
    return [field.name for field, _ in tensor.contents.ListFields()] if tensor.HasField("contents") else []
