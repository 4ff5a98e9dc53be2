"""A request's parameters: which sequence it belongs to, and where in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cellkeeper_proto.kserve import inference_pb2 as pb

from cellkeeper_service.errors import invalid
from cellkeeper_service.rpc import fields
from cellkeeper_service.rpc.sequence_ids import KINDS_OF_ID, session_named, session_of

from .refusals import refuse

KINDS = {
    "sequence_id": KINDS_OF_ID,
    "sequence_start": ("bool_param",),
    "sequence_end": ("bool_param",),
    "priority": ("int64_param", "uint64_param"),
    "timeout": ("int64_param",),
    "triton_enable_empty_final_response": ("bool_param",),
    "step": ("int64_param",),
    "acked": ("int64_param",),
}
"""The parameters that are read, with their permitted types. Others, which Triton passes to the model, are ignored."""

RESERVED = "triton_"


@dataclass(slots=True)  # not frozen: that would take four times as long to create, for every request
class Parameters:
    """The parameters of one request.

    session: the sequence's session, see sequence_ids. sequence: its id as shown in refusals.
    step: the position of the chunk; None: wherever the session is.
    acked: the client holds every reply up to this step; None: up to `step`.
    timeout_us: 0: none.
    """

    session: str
    sequence: str
    start: bool
    end: bool
    step: int | None
    acked: int | None
    timeout_us: int


def read_parameters(found: Mapping[str, pb.InferParameter], model: str) -> Parameters:
    """Reads the parameters. Raises a Rejection."""
    values: dict[str, Any] = {}
    for name in found:  # not items(): for this map it is written in Python, and looks up every pair
        parameter = found[name]
        kinds = KINDS.get(name)
        if kinds is None:
            if name.startswith(RESERVED):
                raise refuse(
                    f"parameter keys starting with '{RESERVED}' are reserved for Triton usage. Only the following keys "
                    f"starting with '{RESERVED}' are allowed: triton_enable_empty_final_response",
                    name,
                )
            continue
        kind = parameter.WhichOneof("parameter_choice")
        if kind not in kinds:
            raise refuse(f"invalid value type for '{name}' parameter, expected {' or '.join(kinds)}.", name)
        values[name] = getattr(parameter, kind)
    session = session_of(values.get("sequence_id", 0))
    if session is None:
        text = f"inference request to model '{model}' must specify a non-zero or non-empty correlation ID"
        raise refuse(text, "sequence_id")
    start, step, timeout_us = values.get("sequence_start", False), values.get("step"), values.get("timeout", 0)
    if step is not None and step < 0:
        raise invalid("step", step, "the number of time steps before this chunk, 0 or more")
    if start and step:
        raise invalid("step", f"{step} with sequence_start", "0, where a sequence starts")
    if timeout_us < 0:
        raise invalid("timeout", timeout_us, "microseconds, or 0 for none")
    return Parameters(
        fields.session_id(session, "sequence_id"),
        str(values["sequence_id"]),
        start,
        values.get("sequence_end", False),
        step,
        _acked(values.get("acked"), step),
        timeout_us,
    )


def _acked(acked: int | None, step: int | None) -> int | None:
    if acked is None:
        return None
    if step is None:
        raise invalid("acked", f"{acked} without step", "both or neither")
    if not 0 <= acked <= step:
        raise invalid("acked", acked, f"0 to the chunk's step, {step}: the client cannot have a later reply")
    return acked


def session_asked(request: pb.ModelInferRequest) -> list[str]:
    """Returns the session that a request continues, in a list; empty if there is none.

    A request that starts its sequence does not depend on an existing record.
    """
    found = request.parameters
    starts = "sequence_start" in found and found["sequence_start"].bool_param
    return [] if starts else session_named(request)
