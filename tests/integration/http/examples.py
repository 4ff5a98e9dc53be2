"""One request for each route, about one session of the model "lstm" at its position."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
from cellkeeper_service.domain.position import Position

from tests.integration.rpc.calls import Chunk, frame_message

MODEL = "lstm"
SESSION = "/v1/models/{model}/sessions/{session}"
CHUNK = [[0.5, 1, 2], [1, 2, 3]]
STATES = {name: {"dtype": "float32", "shape": [2, 8], "data": [[0.25] * 8] * 2} for name in ("h", "c")}

Asks = Callable[[str, dict[str, Any]], Any]


def _carried(session: str, at: dict[str, Any]) -> Any:
    return {"items": [{"session": session, "generation": at["generation"], "policy": "reset"}]}


def _frame(session: str, at: dict[str, Any]) -> bytes:
    position = Position(bytes.fromhex(at["generation"]), int(at["step"]), bytes.fromhex(at["head"]))
    chunk = Chunk(session, np.array(CHUNK, np.float32), position)
    return frame_message(MODEL, [chunk]).SerializeToString()


BODIES: dict[tuple[str, str], Asks] = {
    ("GET", "/v1/server"): lambda session, at: None,
    ("GET", "/v1/now"): lambda session, at: None,
    ("GET", "/v1/models"): lambda session, at: None,
    ("GET", "/v1/models/{model}"): lambda session, at: None,
    ("GET", "/v1/models/{model}/sessions"): lambda session, at: None,
    ("POST", "/v1/models/{model}/carry-over"): _carried,
    ("GET", SESSION): lambda session, at: None,
    ("DELETE", SESSION): lambda session, at: None,
    ("POST", SESSION + "/open"): lambda session, at: {"expect": at},
    ("POST", SESSION + "/step"): lambda session, at: {"inputs": CHUNK, "position": at, "acked": 0},
    ("POST", SESSION + "/peek"): lambda session, at: {"inputs": CHUNK, "position": at},
    ("POST", SESSION + "/forecast"): lambda session, at: {"inputs": CHUNK, "steps": 2, "known": [[1], [2]]},
    ("GET", SESSION + "/state"): lambda session, at: None,
    ("PUT", SESSION + "/state"): lambda session, at: {"generation": at["generation"], "step": 7, "states": STATES},
    ("GET", SESSION + "/log"): lambda session, at: None,
    ("POST", SESSION + "/reset"): lambda session, at: {"generation": at["generation"]},
    ("POST", SESSION + "/fork"): lambda session, at: {"target": os.urandom(8).hex(), "position": at},
}
"""By method and template: the body, or None. A new route needs a line here, or below."""

MESSAGES: dict[str, Asks] = {
    SESSION + "/stream": lambda session, at: {"inputs": CHUNK, "position": at},
    SESSION + "/watch": lambda session, at: None,
    "/v1/frames": _frame,
}
"""By the template of a WebSocket: the client's first message; bytes are a binary message."""

PUBLIC = {("GET", "/v1/openapi.json")}
"""Answered without authentication."""


def path_of(template: str, session: str, at: dict[str, Any]) -> str:
    """Returns the path, with a query if the route needs one."""
    path = template.replace("{model}", MODEL).replace("{session}", quote(session, safe=""))
    if template == "/v1/models/{model}/sessions":
        return f"{path}?{urlencode({'prefix': session})}"
    return path


def query_of(method: str, at: dict[str, Any]) -> str:
    return f"?generation={at['generation']}" if method == "DELETE" else ""
