"""Who makes a call, and what the caller may see and use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cellkeeper_service.access.quotas import Allowance
from cellkeeper_service.access.rights import Grant
from cellkeeper_service.errors import Rejection

from .catalog import Catalog
from .charges import NOTHING, Charge, charge_of


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a call. catalog: with the sessions of its tenant only. allowance: its tenant's."""

    grant: Grant
    catalog: Catalog
    allowance: Allowance

    def charge(self, request: Any, *, entered: int = 0) -> Charge:
        """Takes what the request needs from the quota; `release` must follow. Raises a Rejection.

        If the items can be refused one by one, only those beyond the session quota are refused: see `Charge.refused`.

        Charges nothing if the tenant has no quota. entered: how many of its items have been counted already.
        """
        if not self.allowance.quota:
            return NOTHING
        charge = charge_of(request, self.catalog)
        charge.items = max(charge.items - entered, 0)
        self.allowance.take(charge.items, charge.steps, more=entered > 0)
        refused = self._use(charge)
        if refused and not charge.itemized:
            self.allowance.give_back(charge.items)
            raise next(iter(refused.values()))
        charge.refused = refused
        return charge

    def _use(self, charge: Charge) -> dict[int, Rejection]:
        """Counts the charge's sessions. Returns the rejections of items beyond the quota."""
        allowance = self.allowance
        if not charge.sources:
            return allowance.use(charge.model, charge.sessions)
        refused: dict[int, Rejection] = {}
        for item in {**charge.sources, **charge.sessions}:
            for sessions in (charge.sources, charge.sessions):
                if item in sessions and item not in refused:
                    refused |= allowance.use(charge.model, {item: sessions[item]})
        return refused

    def release(self, charge: Charge) -> None:
        """Returns the charge's requests to the quota, once the request is answered."""
        self.allowance.give_back(charge.items)
