"""Quotas: how much of this server process one tenant may use, so that there is room for the others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic

from cellkeeper_service.errors import Reason, Rejection

BURST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Quota:
    """What each server process grants a tenant; 0: no limit.

    sessions: distinct sessions used within the longest idle time that a session may have (--max-ttl-ms).
    steps_per_second: time steps requested, on average, and those computed again to answer a retry; bursts of up to a
    second's worth are allowed.
    inflight: unanswered requests and frame items, and as many open streams.
    """

    sessions: int = 0
    steps_per_second: int = 0
    inflight: int = 0

    def __bool__(self) -> bool:
        return bool(self.sessions or self.steps_per_second or self.inflight)


NO_QUOTA = Quota()


class Allowance:
    """What one tenant has left of its quota. For use on the event loop's thread."""

    def __init__(self, quota: Quota, window_s: float, now: Callable[[], float], retry_delay_ms: int) -> None:
        """window_s: how long a session counts after its last use. now: a monotonic clock, in seconds. retry_delay_ms:
        the advice to callers if no better one can be computed."""
        self.quota = quota
        self._window_s = window_s
        self._now = now
        self._retry_delay_ms = retry_delay_ms
        self._steps_left = quota.steps_per_second * BURST_SECONDS
        self._counted_at = now()
        self._used: OrderedDict[Hashable, float] = OrderedDict()  # time of last use, least recently used first
        self.inflight = 0
        self.streams = 0

    def take(self, items: int, steps: int, *, more: bool = False) -> None:
        """Charges for `items` requests of `steps` time steps; `give_back` must follow. Raises QUOTA_EXCEEDED, with when
        to retry. more: they belong to a call that was already admitted.

        A caller that finds anything left gets everything it asks for, and the excess is owed: otherwise a long chunk
        or a large frame would never be admitted.
        """
        quota = self.quota
        if quota.inflight and self.inflight >= quota.inflight and not more:
            raise self._exceeded("inflight", f"{quota.inflight} unanswered requests", self._retry_delay_ms)
        if quota.steps_per_second and steps:
            now, rate = self._now(), quota.steps_per_second
            earned = (now - self._counted_at) * rate
            self._steps_left = min(self._steps_left + earned, rate * BURST_SECONDS)
            self._counted_at = now
            if self._steps_left <= 0:
                delay_ms = int(-self._steps_left / rate * 1000) + 1
                raise self._exceeded("steps_per_second", f"{rate} time steps per second", delay_ms)
            self._steps_left -= steps
        self.inflight += items

    def owe(self, steps: int) -> None:
        """Charges for time steps that were computed for the tenant beyond those charged by `take`."""
        if self.quota.steps_per_second:
            self._steps_left -= steps

    def give_back(self, items: int) -> None:
        """Notes that so many requests have been answered."""
        self.inflight -= items

    def open_stream(self) -> None:
        """Charges for a stream; `close_stream` must follow. Raises QUOTA_EXCEEDED."""
        if self.quota.inflight and self.streams >= self.quota.inflight:
            raise self._exceeded("inflight", f"{self.quota.inflight} open streams", self._retry_delay_ms)
        self.streams += 1

    def close_stream(self) -> None:
        self.streams -= 1

    def use(self, model: str, sessions: Mapping[int, str]) -> dict[int, Rejection]:
        """Counts the sessions as used now. sessions: by item. Returns the rejections of items beyond the quota."""
        if not self.quota.sessions:
            return {}
        used, now = self._used, self._now()
        while used and next(iter(used.values())) <= now - self._window_s:
            used.popitem(last=False)
        refused: dict[int, Rejection] = {}
        for item, session in sessions.items():
            key = (model, session)
            if key in used:
                used.move_to_end(key)
            elif len(used) >= self.quota.sessions:
                # without a retry delay, because waiting alone does not help
                refused[item] = self._exceeded("sessions", f"{self.quota.sessions} sessions in use", 0)
                continue
            used[key] = now
        return refused

    def forget(self, model: str, session: str) -> None:
        """Stops counting a session that was deleted."""
        self._used.pop((model, session), None)

    def _exceeded(self, which: str, limit: str, retry_delay_ms: int) -> Rejection:
        text = f"quota {which}: the tenant has reached its limit on this server: {limit}"
        return Rejection(Reason.QUOTA_EXCEEDED, text, retry_delay_ms=retry_delay_ms)


class Allowances:
    """Every tenant's allowance, made at its first request."""

    def __init__(
        self,
        default: Quota = NO_QUOTA,
        window_s: float = 0.0,
        now: Callable[[], float] = monotonic,
        retry_delay_ms: int = 0,
    ) -> None:
        """default: of tenants without one of their own. The others: see Allowance."""
        self._default = default
        self._make = partial(Allowance, window_s=window_s, now=now, retry_delay_ms=retry_delay_ms)
        self._quotas: Mapping[str, Quota] = {}  # of tenants that have their own
        self._by_tenant: dict[str, Allowance] = {}

    def of(self, tenant: str) -> Allowance:
        """Returns a tenant's allowance."""
        found = self._by_tenant.get(tenant)
        if found is None:
            found = self._by_tenant[tenant] = self._make(self._quotas.get(tenant, self._default))
        return found

    def owe(self, tenant: str, steps: int) -> None:
        """Charges a tenant's allowance; see Allowance.owe."""
        if (found := self._by_tenant.get(tenant)) is not None:
            found.owe(steps)

    def renew(self, quotas: Mapping[str, Quota]) -> None:
        """Applies the quotas of tenants that have their own.

        What was used so far stays counted, except for items of requests in flight of a tenant that had no quota.
        """
        self._quotas = quotas
        for tenant, allowance in self._by_tenant.items():
            allowance.quota = quotas.get(tenant, self._default)
