"""One inference request, from its message to a step of the core, and from the step's reply to a message."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from cellkeeper_proto.kserve import inference_pb2 as pb

from cellkeeper_service.core.requests import Done, Step, StepReply
from cellkeeper_service.core.sequence import Sequenced
from cellkeeper_service.domain.origin import content_of
from cellkeeper_service.domain.record import SessionKey
from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.errors import invalid
from cellkeeper_service.rpc import fields, tensors
from cellkeeper_service.rpc.catalog import Catalog

from .classification import MAX_CLASS_BYTES, PARAMETER, limit_classes, read_classes, write_classes
from .datatypes import NAMES, TEXTS
from .input_tensors import read_inputs
from .parameters import Parameters, read_parameters
from .refusals import refuse, unknown_model
from .tensor_names import STATE_PREFIX, TensorNames

VERSION = "1"
"""The one version of every model that clients see. Which of the served versions a sequence belongs to is written in its
record."""


@dataclass(frozen=True, slots=True)
class Service:
    """What requests are read with. names: by model. end_ttl_ms: how long a sequence is kept after its END."""

    names: Mapping[str, TensorNames]
    end_ttl_ms: int


@dataclass(slots=True)  # frozen, it would take four times as long to make, once for every request
class Inference:
    """A request whose fields were checked. outputs: the names asked for, in their order, with what each is here.
    classes: of those that are asked for as classes, how many. has_time: the input had a time dimension."""

    key: SessionKey
    identifier: str
    parameters: Parameters
    data: bytes
    steps: int
    has_time: bool
    outputs: Mapping[str, str]
    classes: Mapping[str, int]
    wanted: frozenset[str]
    with_state: bool
    sequence: Sequenced

    def step(self, deadline: float, done: Done) -> Step:
        acked = self.parameters.acked
        wanted = self.wanted, self.with_state
        return Step(
            self.key, deadline, done, self.data, self.steps, None, acked, False, *wanted, sequence=self.sequence
        )

    def until(self, now: float, latest: float) -> float:
        """The deadline, in seconds of the monotonic clock: the call's, or what the request's timeout makes of it."""
        timeout_us = self.parameters.timeout_us
        return min(latest, now + timeout_us / 1e6) if timeout_us else latest


def check_model(name: str, version: str, catalog: Catalog) -> ModelSpec:
    """The model that a request names. Raises a Rejection."""
    if version and not (version.isascii() and version.isdecimal()):
        text = (
            f"failed to get model version from specified version string '{version}' (details: stol), version should "
            "be an integral value > 0"
        )
        raise refuse(text, "model_version")
    if name not in catalog.models:
        raise unknown_model(name)
    if version not in ("", VERSION):
        raise unknown_model(name, version)
    return catalog.spec(name)


def read_infer(request: pb.ModelInferRequest, catalog: Catalog, service: Service) -> Inference:
    """Raises a Rejection."""
    name = request.model_name
    spec = check_model(name, request.model_version, catalog)
    parameters = read_parameters(request.parameters, name)
    names = service.names[name]
    outputs, asked_classes = _outputs(request, names, name)
    data, steps, has_time = read_inputs(request, names.inputs, spec, catalog, name)
    asked = [own for own in outputs.values() if not own.startswith(STATE_PREFIX)]
    with_state = [fields.STATE_OUTPUT] if len(asked) < len(outputs) else []
    wanted, needs_state = catalog.wanted([*asked, *with_state], spec)
    classes, text_bytes = asked_classes, 0
    if asked_classes:
        classes = limit_classes(asked_classes, outputs, spec, steps)
        text_bytes = sum(classes.values()) * MAX_CLASS_BYTES
    catalog.check_reply_size(steps, wanted, needs_state, spec, text_bytes=text_bytes)
    key = catalog.key(name, parameters.session, "sequence_id")
    end_ttl_ms = service.end_ttl_ms if parameters.end else None
    sequence = Sequenced(_origin(request.id, parameters, data), parameters.step, end_ttl_ms)
    return Inference(
        key, request.id, parameters, data, steps, has_time, outputs, classes, wanted, needs_state, sequence
    )


def write_infer(asked: Inference, reply: StepReply) -> pb.ModelInferResponse:
    """Outputs in the order of the request. With `step` also where the sequence goes on, and whether the chunk had been
    applied before."""
    spec = reply.served.spec
    response = pb.ModelInferResponse(model_name=asked.key.model, model_version=VERSION, id=asked.identifier)
    states = (
        {} if reply.state is None else {one.name: (one, raw) for one, raw in tensors.split_state(reply.state, spec)}
    )
    tensors_of = {output.name: output for output in spec.outputs}
    leading = (1, asked.steps) if asked.has_time else (1,)
    for name, own in asked.outputs.items():
        if own.startswith(STATE_PREFIX):
            state, raw = states[own.removeprefix(STATE_PREFIX)]
            shape, dtype = (1, *state.shape), state.dtype
        else:
            values = reply.outputs[own].astype(tensors_of[own].numpy_dtype, copy=False)
            if (count := asked.classes.get(name)) is not None:
                response.outputs.add(name=name, datatype=TEXTS, shape=(1, count))
                response.raw_output_contents.append(write_classes(values, count))
                continue
            shape, dtype, raw = (*leading, *values.shape[1:]), tensors_of[own].dtype, values.tobytes()
        response.outputs.add(name=name, datatype=NAMES[dtype], shape=shape)
        response.raw_output_contents.append(raw)
    if asked.parameters.step is not None:
        response.parameters["next_step"].int64_param = reply.position.step
        response.parameters["replayed"].bool_param = reply.replayed
    return response


def _outputs(request: pb.ModelInferRequest, names: TensorNames, model: str) -> tuple[dict[str, str], dict[str, int]]:
    """By name, what each is here; and how many classes are asked for of those that are wanted as classes."""
    if not request.outputs:
        return {name: names.outputs[name] for name in names.listed}, {}
    found, classes = {}, {}
    for output in request.outputs:
        own = names.outputs.get(output.name)
        if own is None:
            raise refuse(f"unexpected inference output '{output.name}' for model '{model}'", "outputs")
        found[output.name] = own
        if not (parameters := output.parameters):
            continue
        if "shared_memory_region" in parameters:
            raise invalid("outputs.parameters", "shared_memory_region", "none: outputs come in the reply")
        if PARAMETER in parameters:
            classes[output.name] = read_classes(parameters[PARAMETER])
    return found, classes


def _origin(identifier: str, parameters: Parameters, data: bytes) -> bytes:
    """What the record of a started sequence keeps. A start with `step` and a request id is known again by both, and by
    its inputs; any other start is one of its own each time."""
    if not parameters.start:
        return b""
    if parameters.step is None or not identifier:
        return os.urandom(16)
    return content_of("ModelInfer", identifier.encode(), data)
