"""What an entry of the token file grants: a tenant, rights within it, and for how long."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .rights import EVERY, Right

TENANT = re.compile(r"[A-Za-z0-9._-]{0,64}")


@dataclass(frozen=True, slots=True)
class Grant:
    """entry: the token's hash, or the name in the certificate. expires: unix seconds; infinite where it never does."""

    tenant: str
    rights: frozenset[Right]
    entry: bytes | str = b""
    expires: float = float("inf")


ANYBODY = Grant("", EVERY)
"""Every caller of a server that asks for no tokens. Its sessions belong to the tenant ""."""
