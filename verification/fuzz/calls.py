"""One hostile case: a call of one RPC with a wrong message, wrong headers, a short deadline or an abrupt end."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from cellkeeper_proto.kserve import inference_pb2
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from google.protobuf.message import DecodeError, Message

from .values import garbage, mutate
from .verdict import wrong_reply, wrong_status
from .world import METHODS, STREAMS, UNARY, World, path

TIMEOUT_S = 10.0
MARGIN_S = 10.0  # beyond a call's deadline, on a busy machine
DEADLINES_S = (0.0, 1e-6, 0.0005, 0.002, 0.02)
HEADERS: tuple[tuple[str, str | bytes], ...] = (
    ("x-empty", ""),
    ("x-long", "v" * 4000),
    ("x-odd-bin", bytes(range(256))),
    ("authorization", "Bearer \x7e"),
    ("traceparent", "00-zz"),
    ("content-language", " , "),
    ("grpc-previous-rpc-attempts-x", "99999999999999999999"),
    ("cookie", "; ".join("a=b" for _ in range(100))),
)


@dataclass
class Score:
    codes: Counter[str] = field(default_factory=Counter)
    methods: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


class Attacker:
    """Sends cases over one connection. A case's seed determines its bytes."""

    def __init__(self, channel: grpc.aio.Channel, world: World, score: Score) -> None:
        self._world = world
        self._score = score
        self._unary = {name: channel.unary_unary(path(name), bytes, bytes) for name in UNARY}  # bytes in, bytes out
        self._streams = {name: channel.stream_stream(path(name), bytes, bytes) for name in STREAMS}
        self._unknown = channel.unary_unary(path("Nothing"), bytes, bytes)

    async def case(self, seed: str) -> None:
        draw = random.Random(seed)
        method = draw.choice(METHODS)
        self._score.methods[method] += 1
        timeout = draw.choice(DEADLINES_S) if draw.random() < 0.1 else TIMEOUT_S
        wrong, began = "", time.monotonic()
        try:
            make = self._flow if method in STREAMS else self._call
            attack = make(draw, method, timeout)
            wrong = await asyncio.wait_for(attack, timeout + MARGIN_S)
            self._score.codes["ended"] += 1
        except asyncio.TimeoutError:
            wrong = f"no end within {timeout} + {MARGIN_S} s"
        except grpc.aio.AioRpcError as error:
            self._score.codes[error.code().name] += 1
            wrong = wrong_status(error)
            own = method == "ModelInfer" and time.monotonic() - began < TIMEOUT_S  # the request's own `timeout`
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and timeout == TIMEOUT_S and not own:
                wrong = wrong or f"no answer within {TIMEOUT_S} s"
        if wrong:
            self._score.violations.append(f"case {seed} {method}: {wrong}")

    def _bytes(self, draw: random.Random, method: str) -> tuple[bytes, Message | None]:
        """Returns the bytes to send, and the message that they encode, if any."""
        message = self._world.message(draw, method)
        dice = draw.random()
        if dice < 0.2:
            self._score.kinds["valid"] += 1
            return message.SerializeToString(), message
        if dice < 0.7:
            self._score.kinds["fields"] += 1
            mutate(draw, message, self._world.texts(), self._world.blobs())
            return message.SerializeToString(), message
        self._score.kinds["bytes"] += 1
        data = garbage(draw, message.SerializeToString())
        try:
            return data, type(message).FromString(data)
        except DecodeError:
            return data, None

    async def _call(self, draw: random.Random, method: str, timeout: float) -> str:
        data, request = self._bytes(draw, method)
        call = self._unary[method](data, timeout=timeout, metadata=_headers(draw))
        if draw.random() < 0.08:
            self._score.kinds["cancelled"] += 1
            await asyncio.sleep(draw.choice((0.0, 0.0005, 0.005)))
            call.cancel()
        try:
            answer = await call
        except asyncio.CancelledError:
            if call.cancelled():
                return ""
            raise
        if request is None:
            return "bytes that are not a message were answered"
        reply_class: Any = UNARY[method]
        reply = reply_class.FromString(answer)
        self._world.learn(method, request, reply)
        return wrong_reply(reply)

    async def _flow(self, draw: random.Random, method: str, timeout: float) -> str:
        """Sends a stream of some frames, which it reads to the end, half-closes late, cancels, or does not read."""
        end = draw.choice(("read", "read", "late", "cancel", "unread"))
        self._score.kinds[f"stream {end}"] += 1
        sent: set[int | str] = set()
        left = asyncio.Event()

        async def frames() -> AsyncIterator[bytes]:
            for _ in range(draw.choice((0, 1, 1, 2, 6, 80))):
                data, frame = self._bytes(draw, method)
                if isinstance(frame, pb.StepFrame):
                    sent.add(frame.frame_id)
                elif isinstance(frame, inference_pb2.ModelInferRequest):
                    sent.add(frame.id)
                yield data
            if end == "late":
                await asyncio.sleep(0.005)
            elif end != "read":
                await left.wait()

        call = self._streams[method](frames(), timeout=timeout, metadata=_headers(draw))
        try:
            if end == "unread":
                await asyncio.sleep(0.01)
                return ""
            if end == "cancel":
                await asyncio.sleep(draw.choice((0.0, 0.001, 0.01)))
                return ""
            return await self._read(call, method, sent)
        except asyncio.CancelledError:
            if call.cancelled():  # a passed deadline may show as this instead of a status
                return "" if timeout < TIMEOUT_S else "the stream was cancelled by the server"
            raise
        finally:
            left.set()
            call.cancel()

    async def _read(self, call: Any, method: str, sent: set[int | str]) -> str:
        wrong = ""
        async for answer in call:
            reply: Any
            if method == "StepStream":
                reply = pb.StepFrameReply.FromString(answer)
                to = reply.frame_id
            else:
                reply = inference_pb2.ModelStreamInferResponse.FromString(answer)
                to = reply.infer_response.id
            wrong = wrong or wrong_reply(reply)
            if to not in sent:
                wrong = wrong or f"an answer to {to!r}, which was not sent"
        return wrong

    async def unknown_method(self) -> str:
        """Returns the code that an unknown method gets."""
        try:
            await self._unknown(b"", timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"


def _headers(draw: random.Random) -> Sequence[tuple[str, str | bytes]] | None:
    return draw.sample(HEADERS, draw.randrange(1, 4)) if draw.random() < 0.1 else None
