"""A user's module, called as it is, and the numbers that it compares with."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..refusal import ImportRefused, refusing
from ..stack import Array
from .modules import TRACED, flatten, is_ignored
from .private import TorchDispatchMode

INSTEAD = f"{TRACED}; or pass its modules as a list, in the order in which they compute"
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge", "clamp", "clamp_", "clamp_min", "clamp_max", "maximum", "minimum")
_CHOICES = (
    *("where", "masked_fill", "masked_fill_", "masked_select", "index", "index_put", "index_put_", "nonzero", "isin"),
    *("isnan", "isinf", "nan_to_num", "bucketize", "searchsorted", "gather", "scatter", "_local_scalar_dense"),
)
MOST_NUMBERS = 64  # of a tensor that is compared with


class OwnForward:
    """A user's module, called as it is: a proof.Source for whole sequences only.

    It is called with one sequence in a batch of 1, and returns y, or a tuple that begins with y. y: [T, 1, units] ([1,
    T, units] if the module's recurrent layers are batch_first), or the last time step alone.
    """

    def __init__(self, model: nn.Module, batch_first: bool) -> None:
        self.name = f"{type(model).__name__}.forward"
        self._model = model
        self._batch_first = batch_first
        first = (module for _, module in flatten(model) if not is_ignored(module))
        self._first: Any = next(first, None)
        self.seen = Compared()
        self.needed = [
            parameter.name
            for parameter in inspect.signature(model.forward).parameters.values()
            if parameter.default is parameter.empty and parameter.kind in _POSITIONAL
        ]
        self.fed: Array | None = None  # its first layer's input in the last call, [values]; None: not called

    def beside(self, inputs: Array, other: Array) -> tuple[Array, Array] | None:
        """Returns what it returns for a sequence alone, and in a batch with another one of its length; None if it takes
        no such batch, or returns no tensor."""
        try:
            alone, both = self._returned([inputs]), self._returned([inputs, other])
        except Exception:  # noqa: BLE001 - the user's code may raise anything
            return None
        tensors = isinstance(alone, torch.Tensor) and isinstance(both, torch.Tensor)
        return (alone.float().numpy(), both.float().numpy()) if tensors else None

    def last(self, inputs: Array) -> Array:
        """Returns the outputs for [T, ...]: [T, units], or [1, units] if it returns only the last time step."""
        fed: list[Any] = []
        watch: Any = None
        if self._first is not None:
            watch = self._first.register_forward_pre_hook(lambda _, given: fed.append(given[0] if given else None))
        try:
            with self.seen, refusing(self.name, "fails on a sequence of batch 1", INSTEAD, 200):
                y = self._returned([inputs])
        finally:
            if watch is not None:
                watch.remove()
        try:
            tensors = [value.detach().reshape(-1) for value in fed if isinstance(value, torch.Tensor)]
        except RuntimeError as error:
            raise ImportRefused(
                self.name, f"calls its first layer within a function transform such as torch.vmap; {INSTEAD}"
            ) from error
        self.fed = torch.cat(tensors).float().numpy() if tensors else None
        if not isinstance(y, torch.Tensor):
            raise ImportRefused(
                self.name, f"returns {type(y).__name__}, expected a tensor or a tuple that begins with one"
            )
        result: Array = y.float().numpy()
        steps = len(inputs)
        if result.ndim == 3:
            return result[0] if self._batch_first else result[:, 0]
        return result if result.ndim == 2 else result.reshape(steps if result.size % steps == 0 else 1, -1)

    def _returned(self, sequences: Sequence[Array]) -> Any:
        """Calls it with sequences of one length. Returns the first of what it returns."""
        x = torch.from_numpy(np.stack(sequences, axis=0 if self._batch_first else 1))
        with torch.no_grad():
            y: Any = self._model(x.long() if x.dtype == torch.int32 else x)
        while isinstance(y, tuple | list) and y:
            y = y[0]
        return y


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
