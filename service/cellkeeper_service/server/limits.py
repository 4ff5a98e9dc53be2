"""The limits of requests and messages, as the settings say."""

from __future__ import annotations

from cellkeeper_service.core.limits import Limits
from cellkeeper_service.rpc.catalog import LISTED_BYTES, MAX_PAGE_SIZE, MESSAGE_BYTES_PER_ITEM, WireLimits
from cellkeeper_service.server.config import Settings


def session_limits(settings: Settings) -> Limits:
    """Returns the limits of the core."""
    return Limits(
        max_requests=settings.max_requests,
        max_request_bytes=settings.max_request_bytes,
        max_session_requests=settings.max_session_requests,
        max_log_steps=settings.max_log_steps,
        max_log_bytes=settings.max_log_bytes,
        default_ttl_ms=settings.default_ttl_ms or settings.max_ttl_ms,
        retry_delay_ms=settings.retry_delay_ms,
        max_slice_steps=settings.max_slice_steps,
        max_long_steps=settings.max_long_steps,
    )


def wire_limits(settings: Settings) -> WireLimits:
    """Returns the limits on messages. A message has room for the replies to as many items as a request may have."""
    return WireLimits(
        max_chunk_steps=settings.max_chunk_steps,
        max_frame_items=min(settings.max_frame_items, settings.max_message_bytes // MESSAGE_BYTES_PER_ITEM),
        max_page_size=min(MAX_PAGE_SIZE, settings.max_message_bytes // LISTED_BYTES),
        session=session_limits(settings),
        max_message_bytes=settings.max_message_bytes,
        default_timeout_ms=settings.default_timeout_ms,
        max_stream_frames=settings.max_stream_frames,
        max_ttl_ms=settings.max_ttl_ms,
    )
