"""Raw calls of the service, with the messages that this repository generates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from cellkeeper_proto.kserve import inference_pb2 as pb
from google.protobuf.message_factory import GetMessageClass
from numpy.typing import NDArray

Array = NDArray[Any]
PATH = "/inference.GRPCInferenceService/"
METHODS = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
TIMEOUT_S = 30.0
NUMPY = {"BYTES": "u1", "BOOL": "?", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
DATATYPES = {np.dtype(numpy): name for name, numpy in NUMPY.items()}
Value = bool | int | float | str
START: dict[str, Value] = {"sequence_start": True}
END: dict[str, Value] = {"sequence_end": True}


@dataclass(frozen=True)
class Refused(Exception):
    code: str
    message: str


@dataclass(frozen=True)
class Reply:
    """outputs: by name. parameters: those of the response."""

    outputs: dict[str, Array]
    parameters: dict[str, Value]
    identifier: str

    @property
    def sums(self) -> list[float]:
        """The counting model's predictions."""
        values: list[float] = self.outputs["prediction"].reshape(-1).tolist()
        return values


def numbers(*values: float) -> Array:
    """Returns a chunk of the counting model: [1, T, 1]."""
    return np.array(values, np.float32).reshape(1, -1, 1)


def request(
    model: str,
    values: Array,
    sequence: int | str | None,
    parameters: Mapping[str, Value] | None = None,
    outputs: Sequence[str] = (),
    identifier: str = "",
) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=model, id=identifier)
    given: dict[str, Value] = {} if sequence is None else {"sequence_id": sequence}
    for name, value in (given | dict(parameters or {})).items():
        set_parameter(message.parameters[name], value)
    message.inputs.add(name="input", datatype=DATATYPES[values.dtype], shape=values.shape)
    message.raw_input_contents.append(values.tobytes())
    for name in outputs:
        message.outputs.add(name=name)
    return message


def set_parameter(parameter: pb.InferParameter, value: Value) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    else:
        parameter.string_param = value


def _array(raw: bytes, output: pb.ModelInferResponse.InferOutputTensor) -> Array:
    values = np.frombuffer(raw, NUMPY[output.datatype])
    return values if output.datatype == "BYTES" else values.reshape(output.shape)


def classes(raw: bytes) -> list[str]:
    """Returns the texts of a BYTES tensor."""
    texts = []
    while raw:
        length = int.from_bytes(raw[:4], "little")
        texts.append(raw[4 : 4 + length].decode())
        raw = raw[4 + length :]
    return texts


def read_reply(response: pb.ModelInferResponse) -> Reply:
    outputs = {
        output.name: _array(raw, output)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    parameters = {name: getattr(one, one.WhichOneof("parameter_choice")) for name, one in response.parameters.items()}
    return Reply(outputs, parameters, response.id)


class Api:
    """One model of one server. metadata: sent with every call."""

    def __init__(self, channel: grpc.Channel, model: str = "count", metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self.channel = channel
        self.model = model
        self._metadata = metadata

    def call(self, method: str, message: Any, timeout_s: float = TIMEOUT_S) -> Any:
        """Makes a unary call. Raises Refused."""
        reply = GetMessageClass(METHODS[method].output_type)
        call = self.channel.unary_unary(PATH + method, type(message).SerializeToString, reply.FromString)
        try:
            return call(message, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise refused(error) from None

    def infer(
        self, values: Array, sequence: int | str | None, parameters: Mapping[str, Value] | None = None, **more: Any
    ) -> Reply:
        return self.read(request(self.model, values, sequence, parameters, **more))

    def read(self, message: pb.ModelInferRequest) -> Reply:
        """Makes a ModelInfer call. Raises Refused."""
        return read_reply(self.call("ModelInfer", message))

    def stream(self, messages: Iterator[pb.ModelInferRequest]) -> Iterator[Reply | Refused]:
        """Yields the answers as they arrive. Raises Refused if the stream itself is ended."""
        call = self.channel.stream_stream(
            PATH + "ModelStreamInfer",
            pb.ModelInferRequest.SerializeToString,
            pb.ModelStreamInferResponse.FromString,
        )
        try:
            for answer in call(messages, timeout=TIMEOUT_S, metadata=self._metadata):
                if answer.error_message:
                    yield Refused(answer.infer_response.id, answer.error_message)
                else:
                    yield read_reply(answer.infer_response)
        except grpc.RpcError as error:
            raise refused(error) from None


def refused(error: Any) -> Refused:
    return Refused(error.code().name, error.details() or "")
