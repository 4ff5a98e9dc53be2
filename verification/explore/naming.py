"""Names what replicas, clients and the store pass to each other, the same in equivalent states of the world."""

from __future__ import annotations

from typing import Any

from cellkeeper_service.core import generation_requests
from cellkeeper_service.core import requests as wire
from cellkeeper_service.core.requests import Request
from cellkeeper_service.domain.record import Header, Record
from cellkeeper_service.domain.store import Commit, Delete
from cellkeeper_service.errors import Rejection

from .reads import Before
from .sequential_model import origin_of
from .universe import Universe


class Naming:
    """Generations are named in the order in which they are met, heads by the inputs that they stand for, requests by
    who waits for them."""

    def __init__(self, universe: Universe) -> None:
        self.universe = universe
        self.generations: dict[bytes, int] = {}
        self.positions: dict[Any, Any] = {}  # the same few are met again and again
        self.headers: dict[bytes, Any] = {}

    def generation(self, generation: bytes) -> int:
        return self.generations.setdefault(generation, len(self.generations))

    def head(self, head: bytes) -> Any:
        origin = origin_of(head)
        return head if origin is None else (self.generation(origin.generation), origin.inputs)

    def position(self, position: Any) -> Any:
        if position is None:
            return None
        named = self.positions.get(position)
        if named is None:
            named = self.generation(position.generation), position.step, self.head(position.head)
            self.positions[position] = named
        return named

    def header(self, header: Header) -> Any:
        named = self.headers.get(header.packed)
        if named is None:
            named = (
                self.position(header.position),
                header.checkpoint_step,
                self.head(header.checkpoint_head),
                header.origin,
                header.fingerprint,
            )
            self.headers[header.packed] = named
        return named

    def record(self, record: Record | None) -> Any:
        return None if record is None else (self.header(record.header), record.checkpoint, record.log)

    def request(self, request: Request) -> Any:
        channel: Any = request.done
        listens = channel.ticket in self.universe.clients[channel.client].waiting
        late = request.deadline <= 0.0, request.gone, channel.recent, channel.served
        common = (type(request), request.key.session, channel.client, channel.name, listens, channel.ended, late)
        more: Any
        if isinstance(request, wire.Step):
            more = (
                self.position(request.position),
                request.data,
                request.acked,
                request.distrusts_hot,
                request.sequence,
                tuple(one and self.generation(one) for one in request.in_doubt),
                channel.before and self.before(channel.before),
            )
        elif isinstance(request, wire.GetState):
            more = channel.before and self.before(channel.before)
        elif isinstance(request, generation_requests.Open):
            more = (request.request_id, self.position(request.expect))
        elif isinstance(request, generation_requests.Reset):
            more = (self.generation(request.generation), request.request_id)
        elif isinstance(request, generation_requests.SetState):
            more = self.generation(request.generation), request.request_id, request.step, request.state
        elif isinstance(request, generation_requests.CarryOver):
            how = request.request_id, request.target, request.policy, request.data
            more = self.generation(request.generation), how, request.end_state, self.position(request.position)
        elif isinstance(request, generation_requests.Delete):
            more = self.generation(request.generation)
        elif isinstance(request, generation_requests.Fork):
            source = request.source
            copied = self.record(source) if isinstance(source, Record) else self.result(source)
            more = (request.target.session, self.position(request.position), request.request_id, copied)
        else:
            raise TypeError(f"no fingerprint for {type(request).__name__}")
        return (*common, request.conflicts, request.unknowns, more)

    def before(self, before: Before) -> Any:
        standing = before.standing and (self.generation(before.standing[0]), before.standing[1])
        ended = tuple(sorted(self.generation(one) for one in sorted(before.ended)))
        return standing, ended, before.losses

    def result(self, result: Any) -> Any:
        if isinstance(result, list):
            return tuple(self.result(one) for one in result)
        if isinstance(result, Rejection):
            return result.reason, self.position(result.position)
        if isinstance(result, wire.StepReply):
            return self.position(result.position), result.outputs["prediction"].tobytes()
        if isinstance(result, wire.StateReply):
            return self.position(result.position), result.state
        if isinstance(result, generation_requests.OpenReply):
            return self.header(result.header), result.created
        if isinstance(result, generation_requests.Moved):
            return self.position(result.position)
        return repr(result)

    def call(self, call: Commit | Delete) -> Any:
        if isinstance(call, Delete):
            return call.key.session, self.generation(call.generation)
        position = None if call.expected is None else self.header(call.expected)
        return call.key.session, position, self.header(call.header), call.log, call.checkpoint
