"""The names that users rely on, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys

import cellkeeper

NAMES = [
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


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_the_exported_names() -> None:
    assert sorted(cellkeeper.__all__) == sorted(NAMES)
    assert all(hasattr(cellkeeper, name) for name in NAMES)


def test_the_methods() -> None:
    session = {
        "step",
        "step_reply",
        "stream",
        "stream_replies",
        "peek",
        "peek_reply",
        "reset",
        "set_state",
        "fork",
        "delete",
    }
    session |= {
        "state",
        "info",
        "position",
        "generation",
        "close",
        "forecast",
        "forecast_reply",
        "carry_over",
        "state_reply",
        "unsettled",
        "settle",
    }
    group = {"step", "step_reply", "peek", "forecast", "reset", "state", "delete", "add", "remove", "settle"}
    group |= {"peek_reply", "forecast_reply"}
    group |= {"ids", "positions", "unsettled", "close"}
    client = {
        "group",
        "sessions",
        "session_info",
        "session_state",
        "delete",
        "delete_many",
        "reset",
        "carry_over",
        "models",
        "model",
        "close",
        "wait_ready",
    }
    assert session <= public(cellkeeper.AsyncSession)
    assert group <= public(cellkeeper.AsyncGroup)
    assert group | {"model", "last_reply"} <= public(cellkeeper.Group)
    assert session | {"id", "model", "created", "last_reply"} <= public(cellkeeper.Session)
    assert client | {"session", "open"} <= public(cellkeeper.AsyncClient)
    assert client | {"session", "open", "counters"} <= public(cellkeeper.Client)


def test_every_error_is_in_the_tree_and_in_its_text() -> None:
    from cellkeeper import errors

    for name in NAMES:
        kind = getattr(cellkeeper, name)
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert issubclass(kind, cellkeeper.CellkeeperError)
            assert name in (errors.__doc__ or "")


def test_importing_it_brings_in_no_engine_and_no_store() -> None:
    code = "import sys, cellkeeper; print([m for m in ('torch', 'onnxruntime', 'redis', 'onnx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
