"""Who makes a call, and what he may see and use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cellkeeper_service.access.grant import Grant
from cellkeeper_service.access.quotas import Allowance

from .catalog import Catalog
from .charges import Charge, charge_of


@dataclass(frozen=True, slots=True)
class Caller:
    """catalog: the models, and the sessions of his tenant alone. allowance: None where nothing is limited."""

    grant: Grant
    catalog: Catalog
    allowance: Allowance | None = None

    def enter(self) -> None:
        """A unary call begins; `leave` must be called when it has ended. It counts as one request from here on, for
        its message may be long in coming. Raises a Rejection."""
        if self.allowance is not None:
            self.allowance.take(1, 0)

    def leave(self) -> None:
        if self.allowance is not None:
            self.allowance.give_back(1)

    def charge(self, request: Any, *, entered: int = 0) -> Charge | None:
        """Takes what the request needs of the quota; `release` must be called for it. Raises a Rejection: of a frame
        with too many sessions only the items beyond the quota are refused, see `Charge.refused`.

        entered: how many of its items `enter` has counted.
        """
        if self.allowance is None:
            return None
        charge = charge_of(request, self.catalog)
        charge.items = max(charge.items - entered, 0)
        self.allowance.take(charge.items, charge.steps, more=entered > 0)
        refused = self.allowance.use(charge.model, charge.sessions)
        if refused and not charge.itemized:
            self.allowance.give_back(charge.items)
            raise next(iter(refused.values()))
        charge.refused = refused
        return charge

    def release(self, charge: Charge | None) -> None:
        """The request has its answer."""
        if self.allowance is not None and charge is not None:
            self.allowance.give_back(charge.items)

    def deleted(self, model: str, session: str) -> None:
        """A session of his is no more."""
        if self.allowance is not None:
            self.allowance.forget(model, session)
