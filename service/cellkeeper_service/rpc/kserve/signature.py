"""A request's signature: names, datatypes and shapes of its tensors, checked once for all requests that repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from cellkeeper_proto.kserve import inference_pb2 as pb

from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.errors import invalid
from cellkeeper_service.rpc.catalog import Catalog
from cellkeeper_service.rpc.fields import STATE_OUTPUT, STATE_PREFIX

from .classification import MAX_CLASS_BYTES, PARAMETER, limit_classes, read_classes
from .datatypes import NAMES, TEXTS
from .input_tensors import InputTensor, read_tensors
from .refusals import refuse
from .tensor_names import TensorNames

VERSION = "1"
"""Every model has one version for clients. A sequence's record says which of the served versions it belongs to."""

MOST_KEPT = 256
MAX_KEY_BYTES = 1024
"""Limits of the cache, for clients that send ever new shapes, or long parameters that are ignored."""

Key = tuple[str, bool, tuple[bytes, ...], tuple[bytes, ...]]


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One requested output.

    own: our name of it, or "state." and a state's name. classes: how many are requested; None: the values themselves.
    dtype: of the values in the reply.
    """

    own: str
    dtype: np.dtype[Any]
    classes: int | None


@dataclass(frozen=True, slots=True)
class Signature:
    """A checked signature.

    spec: of the model it was checked for. steps: T of the chunk. wanted, with_state: for the step.
    reply: all of a reply that the signature determines; id and raw contents are missing.
    streamed: the same as a message of a stream.
    """

    spec: ModelSpec
    inputs: tuple[InputTensor, ...]
    steps: int
    outputs: tuple[OutputTensor, ...]
    wanted: frozenset[str]
    with_state: bool
    reply: pb.ModelInferResponse
    streamed: pb.ModelStreamInferResponse


class Signatures:
    """Caches the signatures of the last valid requests with raw contents.

    Typed contents are part of a tensor's message, so signatures with them would rarely repeat.
    """

    def __init__(self, names: Mapping[str, TensorNames]) -> None:
        """names: by model."""
        self._names = names
        self._kept: dict[Key, Signature] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, request: pb.ModelInferRequest, spec: ModelSpec, catalog: Catalog) -> Signature:
        """Returns the request's signature. spec: of its model. Raises a Rejection."""
        names = self._names[request.model_name]
        if not request.raw_input_contents:
            return read_signature(request, names, spec, catalog)
        inputs = tuple([tensor.SerializeToString() for tensor in request.inputs])
        outputs = tuple([tensor.SerializeToString() for tensor in request.outputs])
        key = request.model_name, catalog.shows_state, inputs, outputs
        kept = self._kept.get(key)
        if kept is not None and kept.spec is spec:
            return kept
        read = read_signature(request, names, spec, catalog)
        if sum(map(len, inputs)) + sum(map(len, outputs)) <= MAX_KEY_BYTES:
            self._kept[key] = read
            if len(self._kept) > MOST_KEPT:
                del self._kept[next(iter(self._kept))]
        return read


def read_signature(request: pb.ModelInferRequest, names: TensorNames, spec: ModelSpec, catalog: Catalog) -> Signature:
    """Checks a request's signature. names: of its model. Raises a Rejection."""
    model = request.model_name
    asked, asked_classes = _outputs(request, names)
    inputs, steps, has_time = read_tensors(request, names, spec, catalog)
    own = [name for name in asked.values() if not name.startswith(STATE_PREFIX)]
    state = [STATE_OUTPUT] if len(own) < len(asked) else []
    wanted, with_state = catalog.wanted([*own, *state], spec)
    classes, text_bytes = asked_classes, 0
    if asked_classes:
        classes = limit_classes(asked_classes, asked, spec, steps)
        text_bytes = sum(classes.values()) * MAX_CLASS_BYTES
    catalog.check_reply_size(steps, wanted, with_state, spec, text_bytes=text_bytes)

    reply = pb.ModelInferResponse(model_name=model, model_version=VERSION)
    known = {output.name: output for output in spec.outputs}
    known |= {STATE_PREFIX + tensor.name: tensor for tensor in spec.states}
    outputs = []
    for name, own_name in asked.items():
        tensor, count = known[own_name], classes.get(name)
        if count is not None:
            reply.outputs.add(name=name, datatype=TEXTS, shape=(*names.layout.leading(None), count))
        else:
            timed = has_time and not own_name.startswith(STATE_PREFIX)
            leading = names.layout.leading(steps if timed else None)
            reply.outputs.add(name=name, datatype=NAMES[tensor.dtype], shape=(*leading, *tensor.shape))
        outputs.append(OutputTensor(own_name, tensor.numpy_dtype, count))
    streamed = pb.ModelStreamInferResponse(infer_response=reply)
    streamed.infer_response.parameters["triton_final_response"].bool_param = True
    return Signature(spec, inputs, steps, tuple(outputs), wanted, with_state, reply, streamed)


def _outputs(request: pb.ModelInferRequest, names: TensorNames) -> tuple[dict[str, str], dict[str, int]]:
    """Returns our name of each requested output, and how many classes are requested of those wanted as classes."""
    if not request.outputs:
        return {name: names.outputs[name] for name in names.listed}, {}
    found, classes = {}, {}
    for output in request.outputs:
        own = names.outputs.get(output.name)
        if own is None:
            raise refuse(f"unexpected inference output '{output.name}' for model '{request.model_name}'", "outputs")
        found[output.name] = own
        if not (parameters := output.parameters):
            continue
        if "shared_memory_region" in parameters:
            raise invalid("outputs.parameters", "shared_memory_region", "none: outputs come in the reply")
        if PARAMETER in parameters:
            classes[output.name] = read_classes(parameters[PARAMETER])
    return found, classes
