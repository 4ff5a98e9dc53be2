"""Records the numbers that a forward compares tensors with, while it runs. Imported only if torch is installed."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from .private import TorchDispatchMode

_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge", "clamp", "clamp_", "clamp_min", "clamp_max", "maximum", "minimum")
_CHOICES = (
    *("where", "masked_fill", "masked_fill_", "masked_select", "index", "index_put", "index_put_", "nonzero", "isin"),
    *("isnan", "isinf", "nan_to_num", "bucketize", "searchsorted", "gather", "scatter", "_local_scalar_dense"),
)
MOST_NUMBERS = 64  # of a tensor that is compared with


class Compared(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """values: the finite numbers, in the order of their first comparison. choices: operators whose result depends on
    what a tensor's values are compared with, so that they may do nothing for most inputs.

    They are the scalars, and the elements of small tensors that are not made from the forward's input: such a tensor
    is compared with a larger one.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found: dict[float, None] = {}
        self.choices: dict[str, None] = {}

    @property
    def values(self) -> list[float]:
        return list(self._found)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in _COMPARISONS or name in _CHOICES:
            self.choices[name] = None
        if name in _COMPARISONS:
            tensors = [value for value in args if isinstance(value, Tensor)]
            largest = max((value.numel() for value in tensors), default=0)
            small = [value for value in tensors if value.numel() < min(largest, MOST_NUMBERS + 1)]
            self._add([value for value in (*args[1:], *(kwargs or {}).values()) if isinstance(value, int | float)])
            for value in small:
                self._add(value.detach().reshape(-1).tolist())
        return func(*args, **(kwargs or {}))

    def _add(self, numbers: list[Any]) -> None:
        self._found |= dict.fromkeys(float(number) for number in numbers if math.isfinite(number))
