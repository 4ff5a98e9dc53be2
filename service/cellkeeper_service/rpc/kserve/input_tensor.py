"""A request's one input tensor: its bytes become the time steps of a chunk."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from cellkeeper_proto.kserve import inference_pb2 as pb

from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.errors import invalid
from cellkeeper_service.rpc import tensors
from cellkeeper_service.rpc.catalog import Catalog
from cellkeeper_service.rpc.steps import check_steps

from .datatypes import CONTENT_TYPES, CONTENTS, DTYPES, NAMES, WIRE_DTYPES
from .refusals import refuse, request_id


def read_input(
    request: pb.ModelInferRequest, name: str, spec: ModelSpec, catalog: Catalog, model: str
) -> tuple[bytes, int, bool]:
    """The chunk's time steps in the model's dtype, raw; how many they are; and whether the tensor had a time dimension,
    which the outputs have then. name: what the model's input is called. Raises a Rejection."""
    said = request_id(request.id)
    tensor = _the_one(request, name, model, said)
    steps, has_time = _steps_of(tensor, name, spec, model, said)
    datatype, expected = tensor.datatype, NAMES[spec.input.dtype]
    if not _takes(datatype, spec):
        came = datatype if datatype in CONTENT_TYPES.values() or datatype in DTYPES else "<invalid>"
        text = f"{said}inference input '{name}' data-type is '{came}', but model '{model}' expects '{expected}'"
        raise refuse(text, "inputs.datatype")
    check_steps(steps, spec, catalog, "inputs.shape")
    data = _raw(request, tensor, name, model)
    wanted = steps * prod(spec.input.shape) * DTYPES[datatype].itemsize
    if len(data) != wanted:
        text = (
            f"{said}input byte size mismatch for input '{name}' for model '{model}'. Expected {wanted}, got {len(data)}"
        )
        raise refuse(text, "inputs")
    if datatype == "BOOL":
        data = (np.frombuffer(data, np.uint8) != 0).astype(spec.input.numpy_dtype).tobytes()
        datatype = expected
    came_as = WIRE_DTYPES[datatype]
    values = tensors.read_inputs(data, came_as, spec.input.shape, steps, spec)
    tensors.check_values(values, spec)
    return data if datatype == expected else tensors.input_bytes(values, spec), steps, has_time


def _the_one(request: pb.ModelInferRequest, name: str, model: str, said: str) -> pb.ModelInferRequest.InferInputTensor:
    inputs = request.inputs
    if len(inputs) == 1 and inputs[0].name != name:
        raise refuse(f"unexpected inference input '{inputs[0].name}' for model '{model}'", "inputs.name")
    if len(inputs) != 1:
        came = ",".join(f"'{tensor.name}'" for tensor in inputs)
        missing = "" if any(tensor.name == name for tensor in inputs) else f"'{name}'"
        text = (
            f"{said}expected 1 inputs but got {len(inputs)} inputs for model '{model}'. Got input(s) [{came}], but "
            f"missing required input(s) [{missing}]. Please provide all required input(s)."
        )
        raise refuse(text, "inputs")
    if "shared_memory_region" in inputs[0].parameters:
        raise invalid("inputs.parameters", "shared_memory_region", "the tensor's bytes in the request")
    return inputs[0]


def _steps_of(
    tensor: pb.ModelInferRequest.InferInputTensor, name: str, spec: ModelSpec, model: str, said: str
) -> tuple[int, bool]:
    shape: tuple[int, ...] = tuple(tensor.shape)
    step_shape = spec.input.shape
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


def _takes(datatype: str, spec: ModelSpec) -> bool:
    """Floats and integers of any width are taken, one not for the other; BOOL is taken for both."""
    dtype = DTYPES.get(datatype)
    return dtype is not None and dtype.kind in ("b", spec.input.numpy_dtype.kind)


def _raw(request: pb.ModelInferRequest, tensor: pb.ModelInferRequest.InferInputTensor, name: str, model: str) -> bytes:
    """The tensor's values as bytes, however they came."""
    given = [field.name for field, _ in tensor.contents.ListFields()] if tensor.HasField("contents") else []
    raw = request.raw_input_contents
    if raw:
        if given:
            text = (
                f"contents field must not be specified when using raw_input_contents for '{name}' for model '{model}'"
            )
            raise refuse(text, "inputs.contents")
        if len(raw) != 1:
            raise invalid("raw_input_contents", f"{len(raw)} of them", "one for each input: 1")
        return raw[0]
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
