"""Rights: what each RPC requires, in one table, and what a caller is granted. An RPC that is not in it is refused."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Right(Enum):
    """What a token may do, always within its tenant.

    STEP    what an application does with its own sessions: open, step, reset, fork, delete
    READ    read states and positions, list sessions
    ADMIN   set a state that a session's inputs did not lead to, and carry sessions over
    """

    STEP = "step"
    READ = "read"
    ADMIN = "admin"


EVERY = frozenset(Right)

NEEDS: dict[str, frozenset[Right]] = {
    "Open": frozenset({Right.STEP}),
    "OpenMany": frozenset({Right.STEP}),
    "Step": frozenset({Right.STEP}),
    "StepBatch": frozenset({Right.STEP}),
    "StepStream": frozenset({Right.STEP}),
    "Reset": frozenset({Right.STEP}),
    "Fork": frozenset({Right.STEP}),  # the copy stays within the tenant and reveals nothing
    "Delete": frozenset({Right.STEP}),  # a caller that may reset a session can end its generation anyway
    "SetState": frozenset({Right.ADMIN}),
    "CarryOver": frozenset({Right.ADMIN}),  # another model's state, or one that another model computed
    "GetState": frozenset({Right.READ}),
    "GetSession": frozenset({Right.READ}),
    "ListSessions": frozenset({Right.READ}),
    "GetLog": frozenset({Right.READ}),  # over HTTP: the last inputs and their outputs
    "Watch": frozenset({Right.READ}),
    "GetServer": EVERY,
    "GetNow": EVERY,  # sums over all tenants, like the metrics
    "ListModels": EVERY,  # shapes, which every client needs; nothing of any tenant
    "GetModel": EVERY,
    "ModelInfer": frozenset({Right.STEP}),
    "ModelStreamInfer": frozenset({Right.STEP}),
    "ServerLive": EVERY,
    "ServerReady": EVERY,
    "ServerMetadata": EVERY,
    "ModelReady": EVERY,
    "ModelMetadata": EVERY,
    "ModelConfig": EVERY,
    "ModelStatistics": EVERY,  # counts over all tenants
    "RepositoryIndex": EVERY,
}
"""The rights for each RPC, any one of which is enough.

In addition, the output "state" of a step requires READ (rpc/catalog.py), since it is what GetState returns.
`initial_state` of Open and OpenMany requires only STEP: it is the start of a session that did not exist.
"""


def allowed(rpc: str, rights: frozenset[Right]) -> bool:
    return not rights.isdisjoint(NEEDS.get(rpc, frozenset()))


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
