"""Requests, for those who do not know the new core yet."""

from cellkeeper_service.core.requests import (
    CarryOver,
    CopyInto,
    Delete,
    Deleted,
    Done,
    Fork,
    GetSession,
    GetState,
    Moved,
    Open,
    OpenReply,
    Policy,
    Request,
    Reset,
    SessionReply,
    SetState,
    StateReply,
    Step,
    StepReply,
)

Plant = CopyInto

__all__ = [
    "CarryOver",
    "CopyInto",
    "Delete",
    "Deleted",
    "Done",
    "Fork",
    "GetSession",
    "GetState",
    "Moved",
    "Open",
    "OpenReply",
    "Plant",
    "Policy",
    "Request",
    "Reset",
    "SessionReply",
    "SetState",
    "StateReply",
    "Step",
    "StepReply",
]
