"""The one table of what each RPC needs. An RPC that is not in it is refused to everybody."""

from __future__ import annotations

from enum import Enum


class Right(Enum):
    """What a token may do, all of it within its tenant.

    STEP    what an application does with its own sessions: open, step, reset, fork, delete
    READ    look: at states, at where sessions stand, at which sessions there are
    ADMIN   put a state into a session that its inputs did not lead to; look after the replica itself
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
    "Fork": frozenset({Right.STEP}),  # the copy stays within the tenant, and nothing of it is shown
    "Delete": frozenset({Right.STEP}),  # who may reset a session can end its generation anyway
    "SetState": frozenset({Right.ADMIN}),
    "CarryOver": frozenset({Right.ADMIN}),  # another model's state, or one that another model computed
    "GetState": frozenset({Right.READ}),
    "GetSession": frozenset({Right.READ}),
    "ListSessions": frozenset({Right.READ}),
    "GetLog": frozenset({Right.READ}),  # over HTTP: the last inputs and their outputs
    "Watch": frozenset({Right.READ}),
    "GetServer": EVERY,
    "GetNow": EVERY,  # sums over all tenants, as the metrics have them
    "ListModels": EVERY,  # the shapes, which every client needs; nothing of any tenant's
    "GetModel": EVERY,
    "ModelInfer": frozenset({Right.STEP}),
    "ModelStreamInfer": frozenset({Right.STEP}),
    "ServerLive": EVERY,
    "ServerReady": EVERY,
    "ServerMetadata": EVERY,
    "ModelReady": EVERY,
    "ModelMetadata": EVERY,
    "ModelConfig": EVERY,
    "ModelStatistics": EVERY,  # counts of all tenants together
    "RepositoryIndex": EVERY,
}
"""By RPC: the rights of which one is enough.

Beside it: the output "state" of a step needs READ too (rpc/catalog.py), as it is what GetState shows. `initial_state`
of Open and OpenMany needs no more than STEP: it is the start of a session that did not exist.
"""


def allowed(rpc: str, rights: frozenset[Right]) -> bool:
    return not rights.isdisjoint(NEEDS.get(rpc, frozenset()))
