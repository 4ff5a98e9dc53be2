"""Forecasts, for those who do not know the new core yet."""

from cellkeeper_service.core.decision_table import cannot_roll_out
from cellkeeper_service.core.requests import Rollout

__all__ = ["Rollout", "cannot_roll_out"]
