"""Converts JSON requests to the messages that gRPC clients send: one function for each route.

Whoever calls it ends the body, which refuses the fields that the function has not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.domain.position import GENERATION_BYTES
from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.errors import invalid
from cellkeeper_service.rpc.catalog import Catalog
from cellkeeper_service.rpc.chunk_inputs import charged_steps
from cellkeeper_service.rpc.tensors import WIRE_DTYPES

from . import fields
from .arrays import read_array
from .asked import Asked
from .chunk import EXPECTED, put_chunk, put_known
from .fields import Fields
from .json_text import shown

MAX_UINT32 = 2**32
MAX_NAMES = 64


def open_session(asked: Asked) -> pb.OpenRequest:
    body = asked.body
    request = pb.OpenRequest(model=asked.model, session=asked.session, request_id=body.request_id())
    if body.has("expect"):
        request.expect.CopyFrom(body.position("expect"))
    if body.has("ttl_ms"):
        request.ttl_ms = body.integer("ttl_ms")
    if body.has("initial_state"):
        request.initial_state.extend(_states(body, "initial_state", asked.spec))
    return request


def step(asked: Asked) -> pb.StepRequest:
    request = _step(asked)
    if asked.body.has("acked"):
        request.acked = asked.body.integer("acked")
    return request


def peek(asked: Asked) -> pb.StepRequest:
    request = _step(asked)
    request.peek = True
    return request


def forecast(asked: Asked) -> pb.StepRequest:
    request, body = _step(asked), asked.body
    request.peek = True
    request.rollout_steps = body.integer("steps", MAX_UINT32)
    check_reply(charged_steps(request) + request.rollout_steps, request.outputs, asked.spec, asked.catalog)
    if body.has("known"):
        put_known(request, body.value("known", "numbers"), asked.spec, body.name("known"))
    return request


def get_session(asked: Asked) -> pb.GetSessionRequest:
    return pb.GetSessionRequest(model=asked.model, session=asked.session)


def get_state(asked: Asked) -> pb.GetStateRequest:
    return pb.GetStateRequest(model=asked.model, session=asked.session)


def set_state(asked: Asked) -> pb.SetStateRequest:
    body = asked.body
    item = pb.SetStateRequest.Item(
        session=asked.session,
        generation=body.generation(),
        request_id=body.request_id(),
        step=body.integer("step"),
        state=_states(body, "states", asked.spec),
    )
    return pb.SetStateRequest(model=asked.model, items=[item])


def reset(asked: Asked) -> pb.ResetRequest:
    body = asked.body
    item = pb.ResetRequest.Item(session=asked.session, generation=body.generation(), request_id=body.request_id())
    return pb.ResetRequest(model=asked.model, items=[item])


def fork(asked: Asked) -> pb.ForkRequest:
    body = asked.body
    item = pb.ForkRequest.Item(source=asked.session, target=body.text("target"), request_id=body.request_id())
    if body.has("position"):
        item.position.CopyFrom(body.position("position"))
    if body.has("ttl_ms"):
        item.ttl_ms = body.integer("ttl_ms")
    return pb.ForkRequest(model=asked.model, items=[item])


def delete(asked: Asked) -> pb.DeleteRequest:
    if "generation" not in asked.query:
        raise invalid("generation", "nothing", f"{fields.GENERATION}; empty for a session whose record is damaged")
    given = asked.query["generation"]
    generation = fields.raw(given, "generation", GENERATION_BYTES) if given else b""
    return pb.DeleteRequest(
        model=asked.model, items=[pb.DeleteRequest.Item(session=asked.session, generation=generation)]
    )


def carry_over(asked: Asked) -> pb.CarryOverRequest:
    body = asked.body
    request = pb.CarryOverRequest(model=asked.model)
    if body.has("fingerprint"):
        request.fingerprint = body.raw("fingerprint", fields.FINGERPRINT_BYTES)
    items = body.value("items", "a list of objects")
    if type(items) is not list:
        raise invalid("items", shown(items), "a list of objects")
    spec = asked.spec
    for at, value in enumerate(items[: asked.catalog.limits.max_frame_items + 1]):  # one too many gets refused for it
        request.items.append(_carried(Fields(value, f"items[{at}]."), spec))
    return request


def list_sessions(asked: Asked) -> pb.ListSessionsRequest:
    query = asked.query
    return pb.ListSessionsRequest(
        model=asked.model,
        prefix=query.get("prefix", ""),
        page_size=fields.query(query, "page_size"),
        page_token=query.get("page_token", ""),
    )


def list_models(asked: Asked) -> pb.ListModelsRequest:
    return pb.ListModelsRequest()


def get_model(asked: Asked) -> pb.GetModelRequest:
    given = asked.query.get("fingerprint", "")
    fingerprint = fields.raw(given, "fingerprint", fields.FINGERPRINT_BYTES) if given else b""
    return pb.GetModelRequest(model=asked.model, fingerprint=fingerprint)


def check_reply(steps: int, outputs: Sequence[str], spec: ModelSpec, catalog: Catalog) -> None:
    """Raises REPLY_TOO_LARGE before anything is computed. catalog: with the limits for JSON replies."""
    wanted, with_state = catalog.wanted(outputs, spec)
    catalog.check_reply_size(steps, wanted, with_state, spec)


def names(body: Fields, field: str) -> Sequence[str]:
    """Returns a list of strings; empty if the field is missing."""
    if not body.has(field):
        return []
    value = body.value(field, "a list of names")
    if type(value) is not list or len(value) > MAX_NAMES:
        raise invalid(body.name(field), shown(value), f"a list of names, at most {MAX_NAMES}")
    return [fields.text(name, f"{body.name(field)}[{at}]") for at, name in enumerate(value)]


def _step(asked: Asked) -> pb.StepRequest:
    body, spec = asked.body, asked.spec
    request = pb.StepRequest(model=asked.model, session=asked.session)
    put_chunk(request, body.value("inputs", EXPECTED), spec)
    request.outputs.extend(names(body, "outputs"))
    if body.has("position"):
        request.position.CopyFrom(body.position("position"))
    check_reply(charged_steps(request), request.outputs, spec, asked.catalog)
    return request


def _carried(body: Fields, spec: ModelSpec) -> pb.CarryOverRequest.Item:
    policy = body.text("policy", '"keep", "rerun" or "reset"')
    if policy not in ("keep", "rerun", "reset"):
        raise invalid(body.name("policy"), shown(policy), '"keep", "rerun" or "reset"')
    item = pb.CarryOverRequest.Item(
        session=body.text("session"),
        generation=body.generation(),
        request_id=body.request_id(),
        policy=policy.upper(),
    )
    if body.has("inputs"):
        put_chunk(item, body.value("inputs", EXPECTED), spec, body.name("inputs"))
    if body.has("position"):
        item.position.CopyFrom(body.position("position"))
    body.end()
    return item


def _states(body: Fields, field: str, spec: ModelSpec) -> list[pb.Tensor]:
    """Reads named tensors. The service checks later whether they are the model's."""
    known = {state.name: state.dtype for state in spec.states}
    value = body.value(field, "an object of tensors by name")
    if type(value) is not dict:
        raise invalid(body.name(field), shown(value), "an object of tensors by name")
    if len(value) != len(known):  # checked first, because reading each tensor takes time
        raise invalid(body.name(field), f"{len(value)} tensors", f"each of {sorted(known)} once")
    tensors = []
    for name, given in value.items():
        one = Fields(given, f"{body.name(field)}[{shown(name)}].")
        dtype = one.text("dtype") if one.has("dtype") else known.get(name, "float32")
        if dtype not in WIRE_DTYPES:
            raise invalid(one.name("dtype"), shown(dtype), f"one of {', '.join(WIRE_DTYPES)}")
        values = read_array(one.value("data", "numbers"), np.dtype(dtype).kind, one.name("data"), dtype)
        if one.has("shape"):
            _check_shape(one.value("shape", "a list"), values, one.name("shape"))
        one.end()
        tensors.append(_tensor(fields.text(name, body.name(field)), dtype, values, one.name("data")))
    return tensors


def _check_shape(sizes: Any, values: Array, field: str) -> None:
    """Raises a Rejection if the sizes are not those of the values."""
    expected = f"{list(values.shape)}, the shape of the data"
    if type(sizes) is not list or len(sizes) != values.ndim:
        raise invalid(field, shown(sizes), expected)
    if [fields.integer(size, field) for size in sizes] != list(values.shape):
        raise invalid(field, sizes, expected)


def _tensor(name: str, dtype: str, values: Array, field: str) -> pb.Tensor:
    wanted = np.dtype(dtype).newbyteorder("<")
    data = values.astype(wanted)
    if wanted.kind == "i" and not np.array_equal(data, values):
        raise invalid(field, f"a number beyond {dtype}", f"numbers that {dtype} can hold")
    return pb.Tensor(name=name, dtype=WIRE_DTYPES[dtype], shape=data.shape, data=data.tobytes())
