"""Cellkeeper's client: recurrent networks served one time step at a time, with durable state and exactly-once steps.

    with Client("localhost:50051") as client:
        session = client.session("pump-17")  # continues after its last step
        y = session.step(x)                  # x: [F] or [T, F]
        for y in session.stream(samples):    # any iterable, pipelined
            ...
        fleet = client.group(["pump-1", "pump-2"])  # many sessions, stepped as one
        Y = fleet.step(X)                    # [N, F] -> [N, ...]

AsyncClient is the same for asyncio. The module `cellkeeper.errors` lists all errors as a tree.
"""

from __future__ import annotations

from ._transport import grpc_setting  # noqa: F401  # isort: skip  # before anything that imports gRPC
from ._transport.credentials import Tls
from .aio import AsyncClient, AsyncGroup, AsyncSession
from .client import Client, Group, Session
from .errors import (
    AccessDenied,
    AckBehind,
    CellkeeperError,
    Closed,
    CommitConflict,
    DeadlineExceeded,
    ForkedProcess,
    GenerationChanged,
    GroupError,
    HistoryChanged,
    HistoryError,
    HistoryLost,
    InvalidArgument,
    ModelChanged,
    ModelError,
    NumericsChanged,
    OutcomeUnknown,
    QueueFull,
    QuotaExceeded,
    RecordDamaged,
    ReplyTooLarge,
    ResourceExhausted,
    ServerError,
    SessionExists,
    SessionNotFound,
    StepCompacted,
    StepConflict,
    StepGap,
    Unavailable,
    WrongEventLoop,
    WrongThread,
)
from .late_step import LateStep
from .position import Position, first_position
from .types import Backoff, CarriedOver, Counters, Deleted, GroupReply, Model, SessionInfo, StepReply, TensorSpec

__all__ = [
    "AccessDenied",
    "AckBehind",
    "AsyncClient",
    "AsyncGroup",
    "AsyncSession",
    "Backoff",
    "CarriedOver",
    "CellkeeperError",
    "Client",
    "Closed",
    "CommitConflict",
    "Counters",
    "DeadlineExceeded",
    "Deleted",
    "ForkedProcess",
    "GenerationChanged",
    "Group",
    "GroupError",
    "GroupReply",
    "HistoryChanged",
    "HistoryError",
    "HistoryLost",
    "InvalidArgument",
    "LateStep",
    "Model",
    "ModelChanged",
    "ModelError",
    "NumericsChanged",
    "OutcomeUnknown",
    "Position",
    "QueueFull",
    "QuotaExceeded",
    "RecordDamaged",
    "ReplyTooLarge",
    "ResourceExhausted",
    "ServerError",
    "Session",
    "SessionExists",
    "SessionInfo",
    "SessionNotFound",
    "StepCompacted",
    "StepConflict",
    "StepGap",
    "StepReply",
    "TensorSpec",
    "Tls",
    "Unavailable",
    "WrongEventLoop",
    "WrongThread",
    "first_position",
]
