"""The handlers behind the routes: those that gRPC has too, and a few more for people."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.errors import Rejection, invalid
from cellkeeper_service.rpc import reading
from cellkeeper_service.rpc.answering import Answering, Call, answering
from cellkeeper_service.rpc.servicer import Servicer

from . import replies
from .asked import Asked
from .fields import query as number
from .json_text import integer
from .session_log import Wanted, last_steps, outputs_asked

DEFAULT_LOG_STEPS = 64


@dataclass(frozen=True, slots=True)
class LogAsked:
    """A request for a session's last steps."""

    model: str
    session: str
    wanted: Wanted


class Recent(Protocol):
    """The last minutes of this process."""

    sample_seconds: float

    def look(self) -> None:
        """Takes a sample; must be called every `sample_seconds`."""

    def shown(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class About:
    """What people are told about the server.

    store: its kind. recent: the last minutes. limits: on HTTP requests, by name.
    """

    version: str
    store: str
    asks_for_tokens: bool
    limits: dict[str, int]
    recent: Recent
    started: float


class HttpServicer(Servicer):
    """The handlers of HTTP requests."""

    def __init__(self, beside: Answering, about: About) -> None:
        """beside: a servicer of the same core."""
        super().__init__(*beside.parts)
        self.about = about

    @answering
    async def GetSession(self, request: pb.GetSessionRequest, call: Call) -> dict[str, Any]:  # type: ignore[override]
        name, models = call.catalog.find(request.model)
        key = call.catalog.key(name, request.session)
        reply = await reading.read_session(self.core, key, call.deadline)
        served = models.find(reply.header.fingerprint)
        info = reading.session_info(request.session, reply.header, reply.hot)
        return {
            **replies.session(info, name),
            "log": replies.log_size(reply.header),
            "numerics": None if served is None else served.engine.numerics,
            "served": served is not None,
        }

    @answering
    async def ListSessions(self, request: pb.ListSessionsRequest, call: Call) -> dict[str, Any]:  # type: ignore[override]
        return replies.listing(await self._page(request, call), request.model)

    @answering
    async def GetLog(self, request: LogAsked, call: Call) -> dict[str, Any]:
        key = call.catalog.key(request.model, request.session)
        found = await reading.read_session(self.core, key, call.deadline)
        found, steps = await last_steps(self.core, call.caller, key, found, request.wanted, call.deadline)
        if isinstance(steps, Rejection):
            raise steps
        step = integer(found.header.checkpoint_step)
        return {"position": replies.position(found.header.position), "checkpoint_step": step, **steps}

    @answering
    async def GetServer(self, request: None, call: Call) -> dict[str, Any]:
        about, grant = self.about, call.caller.grant
        engines = {
            served.engine.name: served.engine.device for models in call.catalog.models.values() for served in models
        }
        return {
            "version": about.version,
            "uptime_seconds": time.monotonic() - about.started,
            "tokens": about.asks_for_tokens,
            "tenant": grant.tenant,
            "rights": sorted(right.value for right in grant.rights),
            "store": about.store,
            "engines": [{"name": name, "device": device} for name, device in sorted(engines.items())],
            "limits": about.limits,
        }

    @answering
    async def GetNow(self, request: None, call: Call) -> dict[str, Any]:
        return self.about.recent.shown()


def log_asked(asked: Asked) -> LogAsked:
    outputs, most = outputs_asked(asked.query.get("outputs", ""), asked)
    steps = number(asked.query, "steps", min(DEFAULT_LOG_STEPS, most))
    if not 1 <= steps <= most:
        raise invalid("steps", steps, f"1 to {most}")
    return LogAsked(asked.model, asked.session, Wanted(outputs, False, steps))


def nothing(asked: Asked) -> None:
    """Reads a request whose path says everything."""
