"""Limits, for those who do not know the new core yet."""

from cellkeeper_service.core.limits import (
    MAX_CALL_ITEMS,
    Clock,
    Limits,
)

__all__ = [
    "MAX_CALL_ITEMS",
    "Clock",
    "Limits",
]
