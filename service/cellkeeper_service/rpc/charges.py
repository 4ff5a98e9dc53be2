"""What a request counts for in its tenant's quota."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.errors import Rejection

from .catalog import Catalog


@dataclass(slots=True)
class Charge:
    """items: requests. steps: time steps asked for, whether they are applied or not. sessions: those that it keeps
    alive or makes. itemized: its items can be refused one by one; `refused` says which are."""

    items: int = 1
    steps: int = 0
    model: str = ""
    sessions: Sequence[str] = ()
    itemized: bool = False
    refused: dict[int, Rejection] = field(default_factory=dict)


def charge_of(request: Any, catalog: Catalog) -> Charge:
    """Raises a Rejection for a model that is not there."""
    match request:
        case pb.StepFrame():
            count = len(request.sessions)
            steps = sum(request.steps) if request.steps else count
            return Charge(count, steps, catalog.find(request.model)[0], request.sessions, itemized=True)
        case pb.StepRequest():
            steps = request.shape[0] if request.shape else 0
            steps += request.rollout_steps
            return Charge(1, steps, catalog.find(request.model)[0], (request.session,))
        case pb.OpenRequest() | pb.GetStateRequest():
            return Charge(1, 0, catalog.find(request.model)[0], (request.session,))
        case pb.ResetRequest() | pb.SetStateRequest():
            sessions = [item.session for item in request.items]
            return Charge(len(sessions), 0, catalog.find(request.model)[0], sessions)
        case pb.CarryOverRequest():
            sessions = [item.session for item in request.items]
            steps = sum(item.shape[0] for item in request.items if item.shape)
            return Charge(len(sessions), steps, catalog.find(request.model)[0], sessions)
        case pb.ForkRequest():
            sessions = [item.target for item in request.items]
            return Charge(len(sessions), 0, catalog.find(request.model)[0], sessions)
        case pb.DeleteRequest():
            return Charge(len(request.items))
        case _:
            return Charge()
