"""Valid messages for every RPC of the KServe protocol, for the fuzzer."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
from cellkeeper_proto.kserve import inference_pb2 as pb
from cellkeeper_service.rpc.kserve.descriptor import PATH, SERVICE
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.integration.kserve.calls import Value, set_parameter

STREAM = "ModelStreamInfer"
UNARY = {method.name: GetMessageClass(method.output_type) for method in SERVICE.methods if method.name != STREAM}
PARAMETERS = (
    *("sequence_id", "sequence_start", "sequence_end", "step", "acked", "priority", "timeout"),
    *("triton_enable_empty_final_response", "triton_x", "own", "classification", "shared_memory_region"),
)
OUTPUTS = ("prediction", "hidden", "state.h", "state.c", "state")
TYPES = ("BOOL", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES", "UINT8")
TEXTS = (*PARAMETERS, *OUTPUTS, *TYPES, "input", "audio", "ids", "1", "int64:1")


def message(draw: random.Random, method: str, model: str, session: str, inputs: Mapping[str, Any]) -> Message:
    """Returns a message that the server might well accept. inputs: by name, [T, ...] in the model's dtype."""
    if method in ("ModelInfer", STREAM):
        return _infer(draw, model, session, inputs)
    made: Message = GetMessageClass(SERVICE.methods_by_name[method].input_type)()
    if "name" in made.DESCRIPTOR.fields_by_name and draw.random() < 0.8:
        made.name = model  # type: ignore[attr-defined]
    return made


def path(method: str) -> str:
    return f"/{PATH}/{method}"


def _infer(draw: random.Random, model: str, session: str, inputs: Mapping[str, Any]) -> pb.ModelInferRequest:
    number = int(session.lstrip("s")) + 1
    given: dict[str, Value] = {"sequence_id": draw.choice((session, number, f"int64:{number}"))}
    if draw.random() < 0.3:
        given["sequence_start"] = draw.random() < 0.9
    if draw.random() < 0.1:
        given["sequence_end"] = draw.random() < 0.9
    if draw.random() < 0.4:
        given["step"] = 0 if given.get("sequence_start") else draw.choice((0, 1, 2, 3, 10))
        if draw.random() < 0.5:
            given["acked"] = 0
    if draw.random() < 0.1:
        given["timeout"] = draw.choice((0, 1, 1000, 10_000_000))
    made = pb.ModelInferRequest(model_name=model, id=draw.choice(("", "a", f"r{draw.randrange(10)}")))
    for name, value in given.items():
        set_parameter(made.parameters[name], value)
    raw = draw.random() < 0.7
    for name, values in inputs.items():
        datatype = {"float32": "FP32", "int32": "INT32", "int64": "INT64"}[values.dtype.name]
        tensor = made.inputs.add(name=name, datatype=datatype, shape=(1, *values.shape))
        if raw:
            made.raw_input_contents.append(values.tobytes())
        else:
            field = {"FP32": "fp32_contents", "INT32": "int_contents", "INT64": "int64_contents"}[datatype]
            getattr(tensor.contents, field).extend(np.ravel(values).tolist())
    for name in draw.sample(OUTPUTS[:4], draw.randrange(3)):
        output = made.outputs.add(name=name)
        if draw.random() < 0.2:
            set_parameter(output.parameters["classification"], draw.choice((1, 2, 1000, 2**40, 0, "1")))
    return made
