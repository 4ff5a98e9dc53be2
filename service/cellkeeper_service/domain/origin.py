"""The origin of a generation: which request created it. A retry recognizes its own work by it, and a request that
reuses another's request_id is detected.

The origin is 16 bytes: a hash of the request_id, and a hash of the request_id and the request's content. If both match,
the request is a retry. If only the first matches, the id belongs to another kind of request or to other content. The
request is then refused: otherwise it would be answered with success although nothing of it was done. If neither
matches, the record knows nothing of the request, which is decided like any other. Every such request names the
generation that it ends (Open and Fork: that there is none), so an id used before a later generation began does no harm.

Records from before release 0.1.0 hold the request_id itself. They stay as they are, and a retry finds its work there
whatever its content.
"""

from __future__ import annotations

from hashlib import blake2b

HALF_BYTES = 8


def content_of(kind: str, *parts: bytes) -> bytes:
    """Returns a 16-byte hash of a request's content. kind: the RPC. parts: everything that distinguishes requests."""
    text = b"".join(len(part).to_bytes(8, "little") + part for part in (kind.encode(), *parts))
    return blake2b(text, digest_size=16).digest()


def origin_of(request_id: bytes, content: bytes) -> bytes:
    """Returns the origin, 16 bytes, of a generation that this request creates. content: see content_of."""
    return _hash(request_id) + _hash(request_id + content)


def _hash(data: bytes) -> bytes:
    return blake2b(data, digest_size=HALF_BYTES).digest()
