"""Refusals with the texts that Triton's clients know."""

from __future__ import annotations

from cellkeeper_proto.kserve import inference_pb2 as pb

from cellkeeper_service.errors import Reason, Rejection

POSITION_STEP = "position.step"


def refuse(message: str, field: str) -> Rejection:
    return Rejection(Reason.INVALID_FIELD, message, field=field)


def unknown_model(name: str, version: str = "") -> Rejection:
    which = f" version {version}" if version else ""
    return Rejection(
        Reason.MODEL_NOT_FOUND, f"Request for unknown model: '{name}'{which} is not found", field="model_name"
    )


def in_tritons_words(refused: Rejection, sequence: str, model: str) -> Rejection:
    """Rewrites what the core decided about a step of the sequence."""
    if refused.reason is Reason.SESSION_NOT_FOUND:
        text = (
            f"inference request for sequence {sequence} to model '{model}' must specify the START flag on the first "
            "request of the sequence"
        )
        return refuse(text, "sequence_start")
    if refused.field == POSITION_STEP:  # here a parameter names it
        text = refused.message.removeprefix("position.")
        return Rejection(refused.reason, text, field="step", position=refused.position)
    return refused


def request_id(request: pb.ModelInferRequest) -> str:
    """Returns the prefix with which Triton begins errors about a request's tensors."""
    return f"[request id: {request.id or '<id_unknown>'}] "
