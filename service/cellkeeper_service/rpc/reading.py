"""What clients can read: sessions, their states, and models."""

from __future__ import annotations

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.core.loop import CoreLoop
from cellkeeper_service.core.models import Version
from cellkeeper_service.core.requests import GetSession, SessionReply, StateReply
from cellkeeper_service.domain.clock import unix_ms
from cellkeeper_service.domain.feedback import NamedFeedback
from cellkeeper_service.domain.record import Header, SessionKey
from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.domain.store import DamagedRecord
from cellkeeper_service.errors import invalid

from . import tensors
from .answering import checked
from .catalog import MAX_PAGE_SIZE, WireLimits
from .fields import MAX_SESSION_BYTES
from .status import shortened, to_position
from .waiting import reply_to

DEFAULT_PAGE_SIZE = 100


async def read_session(core: CoreLoop, key: SessionKey, until: float) -> SessionReply:
    """Returns the session's current record. Raises a Rejection. until: monotonic seconds."""
    reply: SessionReply = checked(await reply_to(core, lambda done: GetSession(key, until, done)))
    return reply


def listed(session: str, found: Header | DamagedRecord, hot: bool) -> pb.SessionInfo:
    """Returns a session's entry in a listing, even if its record is damaged."""
    if isinstance(found, Header):
        return session_info(session, found, hot)
    position = None if found.header is None else to_position(found.header.position)
    return pb.SessionInfo(session=session, position=position, damage=shortened(str(found)))


def session_info(session: str, header: Header, hot: bool) -> pb.SessionInfo:
    now_ms = unix_ms()
    return pb.SessionInfo(
        session=session,
        position=to_position(header.position),
        fingerprint=header.fingerprint,
        checkpoint_step=header.checkpoint_step,
        age_ms=max(now_ms - header.created_ms, 0),
        idle_ms=max(now_ms - header.updated_ms, 0),
        ttl_ms=header.ttl_ms,
        hot=hot,
    )


def state_response(reply: StateReply) -> pb.GetStateResponse:
    return pb.GetStateResponse(
        position=to_position(reply.position), state=tensors.state_tensors(reply.state, reply.served.spec)
    )


def page_size(request: pb.ListSessionsRequest, limits: WireLimits) -> int:
    """Returns how many sessions the page has at most: what the request asks for, or fewer if they would not fit."""
    if len(request.prefix.encode()) > MAX_SESSION_BYTES:
        raise invalid("prefix", f"{len(request.prefix.encode())} bytes", f"at most {MAX_SESSION_BYTES} bytes")
    if request.page_size > MAX_PAGE_SIZE:
        raise invalid("page_size", request.page_size, f"at most {MAX_PAGE_SIZE}, or 0 for {DEFAULT_PAGE_SIZE}")
    return min(request.page_size or DEFAULT_PAGE_SIZE, limits.max_page_size)


def model_info(served: Version, limits: WireLimits) -> pb.ModelInfo:
    engine, spec = served.engine, served.spec
    return pb.ModelInfo(
        name=spec.name,
        fingerprint=spec.fingerprint,
        numerics=engine.numerics,
        exact=engine.exact,
        tolerance=engine.tolerance,
        engine=engine.name,
        device=engine.device,
        input=None if spec.inputs else tensors.to_spec(spec.input),
        inputs=[tensors.to_spec(part) for part in spec.inputs],
        vocabulary=spec.vocabulary,
        missing_values=spec.missing_values,
        outputs=[tensors.to_spec(output) for output in spec.outputs],
        states=[tensors.to_spec(state) for state in spec.states],
        max_chunk_steps=limits.chunk_steps(spec.step_bytes),
        max_frame_items=limits.max_frame_items,
        max_log_steps=limits.session.log_steps(spec.step_bytes),
        feedback=_feedback(spec),
        feature_names=spec.feature_names,
        max_message_bytes=limits.max_message_bytes,
    )


def _feedback(spec: ModelSpec) -> pb.Feedback | None:
    match spec.feedback:
        case None:
            return None
        case NamedFeedback():
            fed = [pb.InputFeedback(name=name, sources=sources) for name, sources in spec.feedback.inputs]
            return pb.Feedback(inputs=fed)
        case _:
            return pb.Feedback(sources=spec.feedback.sources)
