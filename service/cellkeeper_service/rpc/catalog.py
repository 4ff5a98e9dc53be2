"""The models that requests may name, and the limits on a request's fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field

from cellkeeper_service.core.limits import Limits
from cellkeeper_service.core.models import Models, Version
from cellkeeper_service.domain.record import SessionKey
from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.errors import Reason, Rejection, invalid

from .fields import STATE_OUTPUT, session_id

DEFAULT_OUTPUTS = ("prediction",)

MESSAGE_FIELDS, FIELDS_PER_ITEM = 65_536, 64
"""The most fields of a message, and how many more each item may add. An item has at most 8, and 5 for each tensor."""

MESSAGE_BYTES_PER_ITEM = 512
"""A message has room for this many bytes for each item of a request, half of it for outputs. An item's result, or its
error without the text, takes up to 200: a position has 45, the name of a field `status.MAX_FIELD_BYTES`."""

REST_BYTES = 4096
"""The room in a message for everything in the reply to a chunk besides its tensors."""

MAX_PAGE_SIZE, LISTED_BYTES = 1000, 1024
"""The most sessions on a page of a listing, and the room in a message for each."""


@dataclass(frozen=True, slots=True)
class WireLimits:
    """Limits on messages and their fields.

    max_chunk_steps: T of one chunk.
    max_frame_items: sessions in one frame, or items of one request.
    session: the bounds of a session's record.
    max_message_bytes: of one message, in either direction. message_setting: what an operator raises for more.
    default_timeout_ms: for requests without a deadline.
    max_stream_frames: unanswered frames of one stream; further ones are not read until there is room.
    max_ttl_ms: the longest idle time that a session may ask for; 0: unlimited.
    max_page_size: sessions on one page of a listing.
    """

    max_chunk_steps: int = 1024
    max_frame_items: int = 1024
    session: Limits = field(default_factory=Limits)
    max_message_bytes: int = 16 * 1024 * 1024
    message_setting: str = "--max-message-bytes"
    default_timeout_ms: int = 30_000
    max_stream_frames: int = 64
    max_ttl_ms: int = 0
    max_page_size: int = MAX_PAGE_SIZE

    @property
    def max_message_fields(self) -> int:
        """The most fields of a message, with those of the messages in it."""
        return MESSAGE_FIELDS + FIELDS_PER_ITEM * self.max_frame_items

    def chunk_steps(self, step_bytes: int) -> int:
        """Returns the most time steps in one chunk, if each takes `step_bytes`.

        A chunk must fit into a message, and into the session's log. It stores inputs in the model's dtype, where they
        may take more bytes than in the message.
        """
        in_message = max(1, (self.max_message_bytes - REST_BYTES) // step_bytes)
        return min(self.max_chunk_steps, in_message, self.session.max_log_bytes // step_bytes)


class Catalog:
    """Looks up models and sessions as one tenant sees them. The tenant is "" without a token file."""

    tenant = ""
    shows_state = True

    def __init__(self, models: Mapping[str, Models], limits: WireLimits) -> None:
        self.models = models
        self.limits = limits
        self._only = next(iter(models)) if len(models) == 1 else None

    def of(self, tenant: str, *, shows_state: bool) -> Catalog:
        """Returns a copy for another tenant. shows_state: the caller may read states."""
        other = copy(self)
        other.tenant, other.shows_state = tenant, shows_state
        return other

    def find(self, name: str) -> tuple[str, Models]:
        """Returns the model's name and versions. An empty `name` means the only model. Raises a Rejection."""
        if not name:
            if self._only is None:
                raise invalid("model", "nothing", f"one of {', '.join(sorted(self.models))}: several models are served")
            name = self._only
        models = self.models.get(name)
        if models is None:
            raise invalid("model", repr(name), f"one of {', '.join(sorted(self.models))}")
        return name, models

    def spec(self, name: str) -> ModelSpec:
        """Returns the spec that requests are checked against; all versions of a model share inputs and outputs.

        name: as in `find`. Raises a Rejection.
        """
        return self.find(name)[1].default.spec

    def key(self, name: str, session: str, field: str = "session") -> SessionKey:
        """Returns the session's key. name: of its model, as in `find`. Raises a Rejection."""
        return SessionKey(self.tenant, self.find(name)[0], session_id(session, field))

    def wanted(self, names: Sequence[str], spec: ModelSpec) -> tuple[frozenset[str], bool]:
        """Returns the requested per-step outputs, and whether the state is requested. Raises a Rejection."""
        asked, known = names or DEFAULT_OUTPUTS, spec.output_names
        for name in asked:
            if name not in known and name != STATE_OUTPUT:
                raise invalid("outputs", repr(name), f"some of {', '.join(sorted(known | {STATE_OUTPUT}))}")
        with_state = STATE_OUTPUT in asked
        if with_state and not self.shows_state:
            text = f"outputs: got {STATE_OUTPUT!r}, but the caller lacks the right `read`, which states need"
            raise Rejection(Reason.PERMISSION_DENIED, text, field="outputs")
        return known.intersection(asked), with_state

    def version(self, name: str, fingerprint: bytes) -> Version:
        """Returns the version with this fingerprint or, if empty, the one for new sessions. Raises a Rejection."""
        name, models = self.find(name)
        if not fingerprint:
            return models.default
        served = models.find(fingerprint)
        if served is None:
            known = ", ".join(version.spec.fingerprint.hex()[:12] for version in models)
            raise invalid("fingerprint", fingerprint.hex()[:12], f"one of {known}")
        return served

    def check_steps(self, steps: int, spec: ModelSpec, field: str) -> None:
        """Raises a Rejection if a chunk has too few or too many time steps."""
        most = self.limits.chunk_steps(spec.step_bytes)
        if not 1 <= steps <= most:
            raise invalid(field, f"T = {steps}", f"1 to {most} time steps in one chunk")

    def check_reply_size(
        self, steps: int, outputs: frozenset[str], with_state: bool, spec: ModelSpec, *, text_bytes: int = 0
    ) -> int:
        """Returns the bytes of the chunk's outputs. Raises REPLY_TOO_LARGE if they do not fit into a message.

        text_bytes: of the rest of the reply.
        """
        step_bytes = sum([output.nbytes for output in spec.outputs if output.name in outputs])
        size = step_bytes * steps + text_bytes + (spec.state_bytes if with_state else 0)
        room = self.limits.max_message_bytes - REST_BYTES
        if size > room:
            advice = "send shorter chunks"
            if size - step_bytes * (steps - 1) > room:  # that of a single step, too
                fewer = f"leave out {STATE_OUTPUT!r}" if with_state else "ask for fewer outputs"
                advice = f"{fewer}, or raise the server's {self.limits.message_setting}"
            text = f"outputs: the reply would have {size} bytes, expected at most {room}; {advice}"
            raise Rejection(Reason.REPLY_TOO_LARGE, text, field="outputs")
        return size

    def check_state_reply(self, size: int) -> None:
        """Raises REPLY_TOO_LARGE if no message can carry a reply of this size with a session's state."""
        most = self.limits.max_message_bytes
        if size > most:
            text = (
                f"state: the reply would have {size} bytes, expected at most {most}; raise the server's "
                f"{self.limits.message_setting} (to copy a session, fork it)"
            )
            raise Rejection(Reason.REPLY_TOO_LARGE, text, field="state")
