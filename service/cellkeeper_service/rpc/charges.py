"""What a request counts for in its tenant's quota."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cellkeeper_proto.kserve import inference_pb2
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.errors import Rejection

from . import fields
from .catalog import Catalog
from .chunk_inputs import charged_steps
from .sequence_ids import session_named


@dataclass(slots=True)
class Charge:
    """What one request takes from the quota.

    items: requests. steps: time steps asked for, applied or not.
    sessions: by item, those that it creates or keeps alive. sources: by item, those that it copies to `sessions`.
    itemized: its items can be refused one by one. refused: the items that are, with the reason.
    """

    items: int = 1
    steps: int = 0
    model: str = ""
    sessions: Mapping[int, str] = field(default_factory=dict)
    itemized: bool = False
    sources: Mapping[int, str] = field(default_factory=dict)
    refused: dict[int, Rejection] = field(default_factory=dict)


NOTHING = Charge(items=0)
"""The charge of every request of a tenant without a quota. Shared, so it is never changed."""


def charge_of(request: Any, catalog: Catalog) -> Charge:
    """Returns the request's charge. Raises a Rejection for an unknown model.

    Invalid parts, which are refused when they are read, must not be counted: ids that no session can have are left out,
    and a chunk never costs more time steps than the limit.
    """
    match request:
        case pb.StepFrame():
            count = len(request.sessions)
            steps = sum(_steps(steps, catalog) for steps in request.steps[:count]) if request.steps else count
            return Charge(count, steps, catalog.find(request.model)[0], _sessions(request.sessions), itemized=True)
        case pb.StepRequest():
            steps = _steps(charged_steps(request), catalog) + _steps(request.rollout_steps, catalog)
            return Charge(1, steps, catalog.find(request.model)[0], _sessions([request.session]))
        case pb.OpenRequest() | pb.GetStateRequest():
            return Charge(1, 0, catalog.find(request.model)[0], _sessions([request.session]))
        case pb.OpenManyRequest() | pb.ResetRequest() | pb.SetStateRequest():
            sessions = [item.session for item in request.items]
            return Charge(len(sessions), 0, catalog.find(request.model)[0], _sessions(sessions), itemized=True)
        case pb.CarryOverRequest():
            sessions = [item.session for item in request.items]
            steps = sum(_steps(charged_steps(item), catalog) for item in request.items)
            return Charge(len(sessions), steps, catalog.find(request.model)[0], _sessions(sessions), itemized=True)
        case pb.ForkRequest():
            sources = [item.source for item in request.items]  # to copy a session keeps it alive
            sessions = [item.target for item in request.items]
            model, _ = catalog.find(request.model)
            return Charge(len(sessions), 0, model, _sessions(sessions), itemized=True, sources=_sessions(sources))
        case inference_pb2.ModelInferRequest() if request.model_name in catalog.models:
            steps = _steps(_steps_inferred(request, catalog.spec(request.model_name)), catalog)
            return Charge(1, steps, request.model_name, _sessions(session_named(request)))
        case pb.DeleteRequest():
            return Charge(len(request.items))
        case _:
            return Charge()


def _sessions(ids: Sequence[str]) -> dict[int, str]:
    """Returns the valid session ids, by item."""
    return {item: session for item, session in enumerate(ids) if fields.is_session_id(session)}


def _steps_inferred(request: inference_pb2.ModelInferRequest, spec: ModelSpec) -> int:
    """Returns how many time steps the request claims to have; 0 if it will be refused anyway."""
    parts = {part.name: part for part in spec.inputs}
    found = [0]
    for tensor in request.inputs if spec.inputs else request.inputs[:1]:
        leading = len(tensor.shape) - len(parts.get(tensor.name, spec.input).shape)
        if leading in (1, 2):  # in every layout, the last of them counts time steps, or is the batch's 1
            found.append(tensor.shape[leading - 1])
        found.append(int(leading == 0))
    return max(found)


def _steps(count: int, catalog: Catalog) -> int:
    return min(count, catalog.limits.max_chunk_steps)
