"""What an entry of the token file grants: rights within a tenant, and until when."""

from __future__ import annotations

from dataclasses import dataclass

from .rights import EVERY, Right


@dataclass(frozen=True, slots=True)
class Grant:
    """What a caller may do. entry: the token's hash, or the name in the certificate. expires: unix seconds; infinity:
    never."""

    tenant: str
    rights: frozenset[Right]
    entry: bytes | str = b""
    expires: float = float("inf")


ANYBODY = Grant("", EVERY)
"""The grant of every caller if authentication is disabled. Their sessions belong to the tenant ""."""
