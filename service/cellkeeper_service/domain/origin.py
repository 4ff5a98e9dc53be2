"""Which request made a generation. A retry recognizes its own work by it; another request that comes with the same
request_id is found out.

A record's origin has 16 bytes: a hash of the request_id, and one of the request_id with what was asked. If both agree,
the request is a retry. If the first agrees alone, the id was used for another kind of request, or for other content:
that request would be answered with success though nothing of it was done, so it is refused. If neither agrees, the
record knows nothing of the request and it is decided like any other: every such request names the generation that it
ends (Open and Fork: that none is there), so an id that was used before a later generation began does no harm.

Records from before the release 0.1.0 keep the request_id itself. They stay as they are, and a retry finds its work
there, whatever was asked.
"""

from __future__ import annotations

from enum import Enum
from hashlib import blake2b

HALF_BYTES = 8


class Work(Enum):
    """Whose work a record's generation is, for one request."""

    OWN = "own"
    REUSED = "reused"  # another request's with the same request_id
    OTHERS = "others"


def content_of(kind: str, *parts: bytes) -> bytes:
    """16 bytes that stand for what a request asks. kind: the RPC. parts: everything that makes a difference."""
    text = b"".join(len(part).to_bytes(8, "little") + part for part in (kind.encode(), *parts))
    return blake2b(text, digest_size=16).digest()


def origin_of(request_id: bytes, content: bytes) -> bytes:
    """What the record of a generation keeps that this request makes. content: see content_of."""
    return _hash(request_id) + _hash(request_id + content)


def whose(origin: bytes, request_id: bytes, content: bytes) -> Work:
    """origin: of the record."""
    if origin in (origin_of(request_id, content), request_id):
        return Work.OWN
    return Work.REUSED if origin[:HALF_BYTES] == _hash(request_id) else Work.OTHERS


def _hash(data: bytes) -> bytes:
    return blake2b(data, digest_size=HALF_BYTES).digest()
