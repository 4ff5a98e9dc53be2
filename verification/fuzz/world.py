"""What the fuzzer knows of the server: its models, its sessions' positions, and a valid message for every RPC."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.position import Position
from google.protobuf.message import Message
from numpy.typing import NDArray

from testing.bundles import counting_bundle, make_bundle
from testing.two_inputs import AUDIO, VOCABULARY, two_inputs_bundle

from . import kserve

Array = NDArray[Any]
FEATURES = 16
CANARY_MODEL = "count"
UNARY: dict[str, Any] = {
    "Open": pb.OpenResponse,
    "OpenMany": pb.OpenManyResponse,
    "Step": pb.StepResponse,
    "StepBatch": pb.StepFrameReply,
    "Reset": pb.SessionResults,
    "SetState": pb.SessionResults,
    "Fork": pb.SessionResults,
    "Delete": pb.SessionResults,
    "CarryOver": pb.SessionResults,
    "GetState": pb.GetStateResponse,
    "GetSession": pb.SessionInfo,
    "ListSessions": pb.ListSessionsResponse,
    "ListModels": pb.ListModelsResponse,
    "GetModel": pb.ModelInfo,
    **kserve.UNARY,
}
STREAMS = ("StepStream", kserve.STREAM)
METHODS = (*UNARY, *STREAMS)


def path(method: str) -> str:
    """Returns the name of the method for gRPC."""
    if method in kserve.UNARY or method == kserve.STREAM:
        return kserve.path(method)
    return f"/cellkeeper.v1.Cellkeeper/{method}"


@dataclass(frozen=True)
class Shape:
    """What one model takes: dtype on the wire, shape of a time step, and its state tensors.

    named: it has several named inputs.
    """

    dtype: pb.DataType
    step: tuple[int, ...]
    states: tuple[tuple[str, tuple[int, ...]], ...]
    named: bool = False


MODELS = {
    "count": Shape(pb.FLOAT32, (FEATURES,), (("h", (1, FEATURES)),)),
    "hold": Shape(pb.FLOAT32, (FEATURES,), (("h", (1, FEATURES)), ("last_input", (FEATURES,)))),
    "tokens": Shape(pb.INT32, (), (("h", (1, 16)), ("c", (1, 16)))),
    "two": Shape(pb.FLOAT32, (AUDIO,), (("h", (AUDIO,)), ("n", (1,))), named=True),
}
WIRE = {"float32": pb.FLOAT32, "int64": pb.INT64}
STATE_DTYPES = {"n": pb.INT64}  # of states that are not float32


def bundles(folder: Path) -> list[Path]:
    missing = {"kind": "features", "missing": {"policy": "hold", "value": 0.0}}
    tokens = {"kind": "tokens", "vocabulary": 10, "embedding_size": 4}
    return [
        counting_bundle(folder / "count", name="count", features=FEATURES, feedback=list(range(FEATURES))),
        counting_bundle(
            folder / "hold", name="hold", features=FEATURES, input=missing, feedback=[*range(1, FEATURES), "known"]
        ),
        # two versions: sessions are carried over in both directions
        make_bundle(folder / "tokens", name="tokens", input_size=4, hidden_size=16, head=(10,), input=tokens),
        two_inputs_bundle(folder / "two", feedback={"audio": [0, 1, 2], "ids": "known"}),
        make_bundle(folder / "tokens2", name="tokens", seed=1, input_size=4, hidden_size=16, head=(10,), input=tokens),
    ]


@dataclass
class World:
    """The fuzzer's knowledge of the server.

    positions: by (model, session), from the latest replies; outdated as soon as another case steps the session.
    """

    positions: dict[tuple[str, str], Position] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=lambda: [""])
    fingerprints: list[bytes] = field(default_factory=lambda: [b""])
    versions: dict[str, set[bytes]] = field(default_factory=dict)  # by model

    def names(self) -> list[str]:
        return [f"s{n}" for n in range(40)]

    def texts(self) -> list[str]:
        outputs = ("prediction", "hidden", "state", "h", "c", "n", "audio", "ids")
        return [*MODELS, *self.names(), *outputs, *self.tokens, *kserve.TEXTS]

    def blobs(self) -> list[bytes]:
        known = [bytes(position) for position in list(self.positions.values())[-20:]]
        return [bytes(16), bytes(4 * FEATURES), *self.fingerprints, *known, *(packed[:16] for packed in known)]

    def position(self, draw: random.Random, model: str, session: str) -> Position:
        known = self.positions.get((model, session))
        return known or Position(draw.randbytes(16), draw.randrange(3), draw.randbytes(8))

    def message(self, draw: random.Random, method: str) -> Message:
        """Returns a message that the server might well accept."""
        model, session = draw.choice(list(MODELS)), draw.choice(self.names())
        shape, at = MODELS[model], self.position(draw, model, session)
        match method:
            case "Open":
                return pb.OpenRequest(model=model, **self._open_fields(draw, model, session))
            case "OpenMany":
                names = draw.sample(self.names(), draw.choice((1, 2, 5, 20)))
                opens = [pb.OpenManyRequest.Item(**self._open_fields(draw, model, name)) for name in names]
                return pb.OpenManyRequest(model=model, items=opens)
            case "Step":
                chunk = _chunk(draw, shape, draw.choice((1, 1, 2, 7, 100)))
                request = pb.StepRequest(model=model, session=session, **chunk)
                if draw.random() < 0.8:
                    request.position.CopyFrom(_wire(at))
                if draw.random() < 0.3:
                    request.acked = max(at.step - draw.randrange(5), 0)
                request.peek = draw.random() < 0.1
                if draw.random() < 0.1:
                    request.peek, request.rollout_steps = True, draw.choice((1, 3, 100))
                    request.rollout_inputs = bytes(4 * request.rollout_steps if model == "hold" else 0)
                    if shape.named:
                        request.rollout_named_inputs.append(_tensors(_named(draw, request.rollout_steps))[1])
                request.outputs.extend(draw.sample(("prediction", "hidden", "state"), draw.randrange(3)))
                return request
            case "StepBatch" | "StepStream":
                return self._frame(draw, model, shape)
            case "Reset":
                reset = pb.ResetRequest.Item(session=session, generation=at.generation, request_id=_id(draw))
                return pb.ResetRequest(model=model, items=[reset])
            case "SetState":
                put = pb.SetStateRequest.Item(
                    session=session,
                    generation=at.generation,
                    request_id=_id(draw),
                    step=draw.choice((0, 5, 2**40, 2**62 - 1)),
                    state=_state(draw, shape),
                )
                return pb.SetStateRequest(model=model, items=[put])
            case "Fork":
                target = draw.choice(self.names())
                fork = pb.ForkRequest.Item(source=session, target=target, request_id=_id(draw))
                if draw.random() < 0.5:
                    fork.position.CopyFrom(_wire(at))
                return pb.ForkRequest(model=model, items=[fork])
            case "CarryOver":
                carried = pb.CarryOverRequest.Item(
                    session=session,
                    generation=at.generation,
                    request_id=_id(draw),
                    policy=draw.choice(pb.CarryOverRequest.Policy.keys()),
                )
                if carried.policy == pb.CarryOverRequest.RERUN:
                    window = _chunk(draw, shape, draw.choice((1, 2, 100)))
                    carried.MergeFrom(pb.CarryOverRequest.Item(**window))
                versions = [b"", b"", *self.versions.get(model, ())]
                return pb.CarryOverRequest(model=model, items=[carried], fingerprint=draw.choice(versions))
            case "Delete":
                item = pb.DeleteRequest.Item(session=session, generation=at.generation)
                return pb.DeleteRequest(model=model, items=[item])
            case "GetState":
                return pb.GetStateRequest(model=model, session=session)
            case "GetSession":
                return pb.GetSessionRequest(model=model, session=session)
            case "ListSessions":
                token = draw.choice(self.tokens)
                return pb.ListSessionsRequest(
                    model=model, prefix=draw.choice(("", "s", "s1")), page_size=draw.choice((0, 1, 3)), page_token=token
                )
            case "GetModel":
                return pb.GetModelRequest(model=model, fingerprint=draw.choice(self.fingerprints))
            case "ListModels":
                return pb.ListModelsRequest()
            case _:
                steps = draw.choice((1, 1, 2, 7))
                inputs = _named(draw, steps) if shape.named else {"input": _inputs(draw, shape, steps)}
                return kserve.message(draw, method, model, session, inputs)

    def _open_fields(self, draw: random.Random, model: str, session: str) -> dict[str, Any]:
        return {
            "session": session if draw.random() < 0.9 else f"t{draw.randrange(10**9)}",
            "request_id": _id(draw),
            "expect": _wire(self.position(draw, model, session)) if draw.random() < 0.2 else None,
            "ttl_ms": draw.choice((None, None, 0, 1, 50, 10_000)),
            "initial_state": _state(draw, MODELS[model]) if draw.random() < 0.2 else [],
        }

    def _frame(self, draw: random.Random, model: str, shape: Shape) -> pb.StepFrame:
        count = draw.choice((1, 2, 5, 20))
        sessions = draw.sample(self.names(), count)
        steps = [draw.choice((1, 1, 2, 20)) for _ in sessions] if draw.random() < 0.4 else []
        places = [self.position(draw, model, session) for session in sessions]
        frame = pb.StepFrame(
            frame_id=draw.choice((0, 1, 2**64 - 1)),
            model=model,
            sessions=sessions,
            steps=steps,
            positions=b"".join(places),
            peek=draw.random() < 0.1,
            outputs=draw.sample(("prediction", "hidden", "state"), draw.randrange(3)),
            timeout_ms=draw.choice((0, 0, 1, 2000, 2**32 - 1)),
        )
        total = sum(steps) or count
        if shape.named:
            for name, values in _named(draw, total).items():
                frame.named_inputs.add(
                    name=name, dtype=WIRE[values.dtype.name], shape=values.shape[1:], data=values.tobytes()
                )
        else:
            frame.dtype, frame.inputs = shape.dtype, _inputs(draw, shape, total).tobytes()
            frame.step_shape.extend(shape.step)
        if draw.random() < 0.3:
            frame.acked = b"".join(place.step.to_bytes(8, "little") for place in places)
        return frame

    def learn(self, method: str, request: Message | None, reply: Any) -> None:
        """Records the positions of sessions in a reply."""
        match method, request:
            case ("Open" | "Step", pb.OpenRequest() | pb.StepRequest()) if not getattr(request, "peek", False):
                self._stands(request.model, request.session, reply.position)
            case "OpenMany", pb.OpenManyRequest():
                for opened, result in zip(request.items, reply.results, strict=False):
                    if not result.HasField("error"):
                        self._stands(request.model, opened.session, result.opened.position)
            case (
                "Reset" | "SetState" | "CarryOver",
                pb.ResetRequest() | pb.SetStateRequest() | pb.CarryOverRequest(),
            ):
                items: list[Any] = list(request.items)
                for item, result in zip(items, reply.results, strict=False):
                    if not result.HasField("error"):
                        self._stands(request.model, item.session, result.position)
            case "StepBatch" | "StepStream", pb.StepFrame() if not request.peek:
                for at, item in enumerate(np.frombuffer(reply.items, "<u4").tolist()):
                    position = Position.unpack(reply.positions, 32 * at)
                    self._stands(request.model, request.sessions[item], _wire(position))
            case "ListSessions", _ if reply.next_page_token:
                self.tokens = [*self.tokens[-5:], reply.next_page_token]
            case "GetModel", _:
                self.fingerprints = [*self.fingerprints[-5:], reply.fingerprint]
            case "ListModels", _:
                for info in reply.models:
                    self.versions.setdefault(info.name, set()).add(info.fingerprint)

    def _stands(self, model: str, session: str, position: pb.Position) -> None:
        if session in self.names():
            self.positions[model, session] = Position(position.generation, position.step, position.head)


def _wire(position: Position) -> pb.Position:
    return pb.Position(generation=position.generation, step=position.step, head=position.head)


def _id(draw: random.Random) -> bytes:
    return draw.randbytes(16)


def _inputs(draw: random.Random, shape: Shape, steps: int) -> Array:
    if shape.dtype == pb.INT32:
        return np.array([draw.randrange(10) for _ in range(steps)], np.int32)
    return np.full((steps, *shape.step), draw.randrange(4), np.float32)


def _named(draw: random.Random, steps: int) -> dict[str, Array]:
    """Returns inputs of the model that has several."""
    return {
        "audio": np.full((steps, AUDIO), draw.randrange(4), np.float32),
        "ids": np.array([draw.randrange(VOCABULARY) for _ in range(steps)], np.int64),
    }


def _tensors(inputs: dict[str, Array]) -> list[pb.Tensor]:
    return [
        pb.Tensor(name=name, dtype=WIRE[values.dtype.name], shape=values.shape, data=values.tobytes())
        for name, values in inputs.items()
    ]


def _chunk(draw: random.Random, shape: Shape, steps: int) -> dict[str, Any]:
    """Returns the fields of a chunk that carry inputs."""
    if shape.named:
        return {"named_inputs": _tensors(_named(draw, steps))}
    inputs = _inputs(draw, shape, steps)
    return {"dtype": shape.dtype, "shape": inputs.shape, "inputs": inputs.tobytes()}


def _state(draw: random.Random, shape: Shape) -> list[pb.Tensor]:
    tensors = []
    for name, size in shape.states:
        dtype = STATE_DTYPES.get(name, pb.FLOAT32)
        data = bytes((8 if dtype == pb.INT64 else 4) * int(np.prod(size)))
        tensors.append(pb.Tensor(name=name, dtype=dtype, shape=size, data=data))
    return tensors
