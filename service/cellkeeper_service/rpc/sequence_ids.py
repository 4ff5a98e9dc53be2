"""The sessions that KServe's sequence ids name; an id is a number or a string."""

from __future__ import annotations

from cellkeeper_proto.kserve import inference_pb2 as pb

KINDS_OF_ID = ("int64_param", "string_param")
NUMBERED = "int64:"


def session_of(sequence_id: int | str) -> str | None:
    """Returns the session of a sequence: a string is its name, the number 7 is "int64:7". None: no sequence."""
    if not sequence_id:
        return None
    return sequence_id if isinstance(sequence_id, str) else f"{NUMBERED}{sequence_id}"


def session_named(request: pb.ModelInferRequest) -> list[str]:
    """Returns the session that a request names, in a list; empty if there is none."""
    found = request.parameters
    if "sequence_id" not in found:
        return []
    kind = found["sequence_id"].WhichOneof("parameter_choice")
    session = session_of(getattr(found["sequence_id"], kind)) if kind in KINDS_OF_ID else None
    return [] if session is None else [session]
