"""Every route: what it accepts, which handler answers, and what it returns.

The OpenAPI document is generated from this table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from . import replies, requests, servicer
from .asked import Asked
from .field_names import CARRY_OVER, COMMON, ONE_ITEM, OPEN, RESTART, FieldNames

SESSIONS = "/v1/models/{model}/sessions"
SESSION = SESSIONS + "/{session}"


@dataclass(frozen=True, slots=True)
class Route:
    """A request with one reply.

    rpc: the handler, which access/rights.py maps to rights. read: builds the handler's message. write: converts its
    reply to JSON; a top-level "error" sets the response's status. query: the meaning of each name. body, reply: names
    of schemas. names: of the fields in refusals.
    """

    method: str
    path: str
    rpc: str
    summary: str
    read: Callable[[Asked], Any]
    write: Callable[[Any], dict[str, Any]]
    reply: str
    body: str = ""
    query: dict[str, str] = field(default_factory=dict)
    names: FieldNames = COMMON


@dataclass(frozen=True, slots=True)
class Socket:
    """A WebSocket.

    sends, receives: the schemas of the server's and the client's messages; for protobuf messages, their full names.
    """

    path: str
    rpc: str
    summary: str
    sends: str
    receives: str = ""
    query: dict[str, str] = field(default_factory=dict)


def _as_it_is(reply: dict[str, Any]) -> dict[str, Any]:
    return reply


def _of_one(
    method: str,
    path: str,
    rpc: str,
    summary: str,
    read: Callable[[Asked], Any],
    reply: str,
    *,
    names: FieldNames = ONE_ITEM,
    **more: Any,
) -> Route:
    """Returns the route of a request that is the only item of its message."""

    def write(results: pb.SessionResults) -> dict[str, Any]:
        return replies.result(results.results[0], names)

    return Route(method, path, rpc, summary, read, write, reply, names=names, **more)


LISTED = {
    "prefix": "of the session ids",
    "page_size": "about how many sessions a page has; 0: 100",
    "page_token": "next_page_token of the previous page",
}
FINGERPRINT = {"fingerprint": "64 hexadecimal digits: a version other than the one that takes new sessions"}
LOGGED = {
    "steps": "how many of the last time steps, at most; default: 64",
    "outputs": "comma-separated names, as in a step's `outputs`; default: prediction",
}
ENDED = {"generation": "32 hexadecimal digits: the session's generation; empty for a damaged record"}
WATCHED = {
    "hz": "reads of the record per second, at most: 1 to 10; default: 5",
    "outputs": "comma-separated names; empty: outputs are not recomputed; default: prediction",
    "states": "true or false: whether to send the states; default: true",
}

ROUTES = (
    Route("GET", "/v1/server", "GetServer", "What this server is, and what the caller may do.", servicer.nothing,
          _as_it_is, "Server"),
    Route("GET", "/v1/now", "GetNow", "Figures of this server process over the last minutes.", servicer.nothing,
          _as_it_is, "Now"),
    Route("GET", "/v1/models", "ListModels", "Every served version; the first of a name takes new sessions.",
          requests.list_models, replies.models, "Models"),
    Route("GET", "/v1/models/{model}", "GetModel", "One version of a model.", requests.get_model, replies.model,
          "Model", query=FINGERPRINT),
    Route("POST", "/v1/models/{model}/carry-over", "CarryOver", "Carries sessions over to another version.",
          requests.carry_over, partial(replies.results, names=CARRY_OVER), "Results", body="CarryOver",
          names=CARRY_OVER),
    Route("GET", SESSIONS, "ListSessions", "Sessions by a prefix of their ids, in no particular order.",
          requests.list_sessions, _as_it_is, "Listing", query=LISTED),
    Route("GET", SESSION, "GetSession", "A session's record.", requests.get_session, _as_it_is, "Session"),
    _of_one("DELETE", SESSION, "Delete", "Ends the generation.", requests.delete, "Deleted", query=ENDED),
    Route("POST", SESSION + "/open", "Open", "Creates the session, or continues it where it is.",
          requests.open_session, replies.opened, "Opened", body="Open", names=OPEN),
    Route("POST", SESSION + "/step", "Step", "Applies one chunk; exactly once if it has a position.",
          requests.step, replies.step, "Stepped", body="Step"),
    Route("POST", SESSION + "/peek", "Step", "What the chunk would return; nothing is applied.", requests.peek,
          replies.step, "Stepped", body="Peek"),
    Route("POST", SESSION + "/forecast", "Step", "A peek that continues with the model's own predictions.",
          requests.forecast, replies.step, "Stepped", body="Forecast"),
    Route("GET", SESSION + "/state", "GetState", "The committed state.", requests.get_state, replies.state, "State"),
    _of_one("PUT", SESSION + "/state", "SetState", "Begins a new generation with this state.", requests.set_state,
            "Moved", body="SetState", names=RESTART),
    Route("GET", SESSION + "/log", "GetLog", "The last inputs that the record has, and their outputs.",
          servicer.log_asked, _as_it_is, "Log", query=LOGGED),
    _of_one("POST", SESSION + "/reset", "Reset", "Begins a new generation with the initial state.", requests.reset,
            "Moved", body="Reset", names=RESTART),
    _of_one("POST", SESSION + "/fork", "Fork", "Copies the session.", requests.fork, "Moved", body="Fork"),
)  # fmt: skip

STREAM = Socket(
    SESSION + "/stream", "StepStream", "Steps with positions; replies come in their order.", "StreamReply", "StreamStep"
)
WATCH = Socket(SESSION + "/watch", "Watch", "A session's updates, as they happen.", "WatchUpdate", query=WATCHED)
FRAMES = Socket(
    "/v1/frames",
    "StepStream",
    "The same as StepStream over gRPC, for programs: binary protobuf messages.",
    "cellkeeper.v1.StepFrameReply",
    "cellkeeper.v1.StepFrame",
)
SOCKETS = (STREAM, WATCH, FRAMES)
DOCUMENT = "/v1/openapi.json"
"""Public, as the console's files are: neither contains anything private."""
