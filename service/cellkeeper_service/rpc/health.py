"""gRPC's health service, which answers everybody, with a bound on what that can cost."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health

MAX_WATCHES = 256
"""Open Watch calls. They need no token and last for ever; load balancers have one each."""


class Health(health.aio.HealthServicer):  # type: ignore[name-defined,misc]
    def __init__(self) -> None:
        super().__init__()
        self._watches = 0

    async def Watch(self, request: Any, context: Any) -> None:
        if self._watches >= MAX_WATCHES:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_WATCHES} watches are open, the most there are"
            )
        self._watches += 1
        try:
            await super().Watch(request, context)
        finally:
            self._watches -= 1
