"""The decision table, for those who do not know the new core yet."""

from cellkeeper_service.core.decision_table import (
    model_changed,
)

__all__ = [
    "model_changed",
]
