"""One inference request: from its message to a step of the core, and from the step's reply to a message."""

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
from cellkeeper_service.rpc import tensors
from cellkeeper_service.rpc.catalog import Catalog
from cellkeeper_service.rpc.fields import STATE_PREFIX

from .classification import write_classes
from .input_tensors import read_values
from .parameters import Parameters, read_parameters
from .refusals import refuse, unknown_model
from .signature import VERSION, Signature, Signatures
from .tensor_names import TensorNames

CONTINUES = Sequenced()
MAX_ID_BYTES = 1024
"""The reply repeats a request's id, so it must leave room for the outputs. Triton has no limit."""


class Service:
    """The settings with which requests are read."""

    def __init__(self, names: Mapping[str, TensorNames], end_ttl_ms: int) -> None:
        """names: by model. end_ttl_ms: how long a sequence is kept after its END."""
        self.names = names
        self.end_ttl_ms = end_ttl_ms
        self.signatures = Signatures(names)


@dataclass(slots=True)  # not frozen: that would take four times as long to create, for every request
class Inference:
    """A request whose fields have been checked. data: the chunk's inputs in the model's dtypes, raw."""

    key: SessionKey
    identifier: str
    parameters: Parameters
    signature: Signature
    data: bytes
    sequence: Sequenced

    def step(self, deadline: float, done: Done) -> Step:
        asked, acked = self.signature, self.parameters.acked
        wanted = asked.wanted, asked.with_state
        return Step(
            self.key, deadline, done, self.data, asked.steps, None, acked, False, *wanted, sequence=self.sequence
        )

    def until(self, now: float, latest: float) -> float:
        """Returns the deadline in seconds of the monotonic clock: the earlier of the call's and the request's."""
        timeout_us = self.parameters.timeout_us
        return min(latest, now + timeout_us / 1e6) if timeout_us else latest


def check_model(name: str, version: str, catalog: Catalog) -> ModelSpec:
    """Returns the spec of the model that a request names. Raises a Rejection."""
    is_served = is_version(version)
    if name not in catalog.models:
        raise unknown_model(name)
    if not is_served:
        raise unknown_model(name, version)
    return catalog.spec(name)


def is_version(version: str) -> bool:
    """Returns True for the version that every model has, or none. Raises a Rejection for what is not a number."""
    digits = version.removeprefix("-")
    if version and not (digits.isascii() and digits.isdecimal()):
        text = (
            f"failed to get model version from specified version string '{version}' (details: stol), version should "
            "be an integral value > 0"
        )
        raise refuse(text, "model_version")
    if digits != version:
        text = f"invalid model version specified '{version}' , version should be an integral value > 0"
        raise refuse(text, "model_version")
    return not version or version.lstrip("0") == VERSION


def is_request_id(identifier: str) -> bool:
    """Returns True if a reply can repeat the request's id."""
    return len(identifier) <= MAX_ID_BYTES // 4 or len(identifier.encode()) <= MAX_ID_BYTES


def read_infer(request: pb.ModelInferRequest, catalog: Catalog, service: Service) -> Inference:
    """Checks a request and returns it as an Inference. Raises a Rejection."""
    name = request.model_name
    spec = check_model(name, request.model_version, catalog)
    if not is_request_id(request.id):
        raise invalid("id", f"{len(request.id.encode())} bytes", f"at most {MAX_ID_BYTES}")
    parameters = read_parameters(request.parameters, name)
    signature = service.signatures.of(request, spec, catalog)
    data = read_values(request, signature.inputs, signature.steps, spec)
    sequence = CONTINUES
    if parameters.start or parameters.end or parameters.step is not None:
        end_ttl_ms = service.end_ttl_ms if parameters.end else None
        sequence = Sequenced(_origin(request.id, parameters, data), parameters.step, end_ttl_ms)
    key = SessionKey(catalog.tenant, name, parameters.session)
    return Inference(key, request.id, parameters, signature, data, sequence)


def write_infer(asked: Inference, reply: StepReply) -> pb.ModelInferResponse:
    """Returns the reply, with outputs in the order of the request.

    A request with `step` also gets the step at which the sequence continues, and whether the chunk had been applied
    before.
    """
    response = pb.ModelInferResponse()
    response.CopyFrom(asked.signature.reply)
    _fill(response, asked, reply)
    return response


def write_streamed(asked: Inference, reply: StepReply) -> pb.ModelStreamInferResponse:
    """Returns the same as a stream's message, the last one for its request."""
    response = pb.ModelStreamInferResponse()
    response.CopyFrom(asked.signature.streamed)
    _fill(response.infer_response, asked, reply)
    return response


def _fill(response: pb.ModelInferResponse, asked: Inference, reply: StepReply) -> None:
    """Fills in everything that the signature does not determine."""
    states: dict[str, bytes] = {}
    if reply.state is not None:
        states = {state.name: raw for state, raw in tensors.split_state(reply.state, reply.served.spec)}
    response.id = asked.identifier
    raw, outputs = response.raw_output_contents, reply.outputs
    for output in asked.signature.outputs:
        if output.own.startswith(STATE_PREFIX):
            raw.append(states[output.own.removeprefix(STATE_PREFIX)])
            continue
        values = outputs[output.own].astype(output.dtype, copy=False)
        raw.append(values.tobytes() if output.classes is None else write_classes(values, output.classes))
    if asked.parameters.step is not None:
        response.parameters["next_step"].int64_param = reply.position.step
        response.parameters["replayed"].bool_param = reply.replayed


def _origin(identifier: str, parameters: Parameters, data: bytes) -> bytes:
    """Returns the origin for the record of a started sequence.

    A start with `step` and a request id is recognised again by that id and its inputs; any other start is a new one
    each time.
    """
    if not parameters.start:
        return b""
    if parameters.step is None or not identifier:
        return os.urandom(16)
    return content_of("ModelInfer", identifier.encode(), data)
