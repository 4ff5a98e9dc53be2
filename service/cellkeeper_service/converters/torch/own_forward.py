"""A user's module, called as it is."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from cellkeeper_service.model.fields import one_line

from ..refusal import ImportRefused
from ..stack import Array
from .modules import flatten, is_ignored

if TYPE_CHECKING:
    from torch import Tensor, nn

TRACED = "pass example=x, an input as its forward takes it, and the forward is traced"
INSTEAD = f"{TRACED}; or pass its modules as a list, in the order in which they compute"
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class OwnForward:
    """A user's module, called as it is: a proof.Source for whole sequences only.

    It is called with one sequence in a batch of 1, and returns y, or a tuple that begins with y. y: [T, 1, units] ([1,
    T, units] if the module's recurrent layers are batch_first), or the last time step alone.
    """

    def __init__(self, model: nn.Module, batch_first: bool) -> None:
        import torch

        from .compared import Compared

        self.name = f"{type(model).__name__}.forward"
        self._model = model
        self._batch_first = batch_first
        self._torch = torch
        first = (module for _, module in flatten(model) if not is_ignored(module))
        self._first: Any = next(first, None)
        self.seen = Compared()
        self.needed = [
            parameter.name
            for parameter in inspect.signature(model.forward).parameters.values()
            if parameter.default is parameter.empty and parameter.kind in _POSITIONAL
        ]
        self.fed: Array | None = None  # its first layer's input in the last call, [values]; None: not called

    def shape(self, inputs: Array, batch: int) -> tuple[int, ...]:
        """Returns the shape of what it returns for a batch of this sequence; () if it takes no such batch."""
        x = self._tensor(inputs).unsqueeze(0 if self._batch_first else 1)
        try:
            with self._torch.no_grad():
                y: Any = self._model(x.repeat_interleave(batch, 0 if self._batch_first else 1))
        except Exception:  # noqa: BLE001 - the user's code may raise anything
            return ()
        while isinstance(y, tuple | list) and y:
            y = y[0]
        return tuple(y.shape) if isinstance(y, self._torch.Tensor) else ()

    def beside(self, inputs: Array, other: Array) -> tuple[Array, Array] | None:
        """Returns the outputs for a sequence, alone and in a batch with another one of its length; None if it takes no
        such batch, or its outputs do not show which of them belong to a sequence."""
        torch, axis = self._torch, 0 if self._batch_first else 1
        results = []
        for batch in ([inputs], [inputs, other]):
            try:
                with torch.no_grad():
                    y: Any = self._model(torch.stack([self._tensor(one) for one in batch], axis))
            except Exception:  # noqa: BLE001 - the user's code may raise anything
                return None
            while isinstance(y, tuple | list) and y:
                y = y[0]
            if not isinstance(y, torch.Tensor):
                return None
            results.append(y.float())
        alone, both = results
        grown = [at for at, sizes in enumerate(zip(alone.shape, both.shape, strict=False)) if sizes == (1, 2)]
        if alone.ndim != both.ndim or len(grown) != 1 or alone.numel() * 2 != both.numel():
            return None
        return alone.select(grown[0], 0).numpy(), both.select(grown[0], 0).numpy()

    def _tensor(self, inputs: Array) -> Tensor:
        x = self._torch.from_numpy(np.array(inputs))
        return x.long() if x.dtype == self._torch.int32 else x

    def last(self, inputs: Array) -> Array:
        """Returns the outputs for [T, ...]: [T, units], or [1, units] if it returns only the last time step."""
        torch = self._torch
        x = self._tensor(inputs)
        fed: list[Any] = []
        watch: Any = None
        if self._first is not None:
            watch = self._first.register_forward_pre_hook(lambda _, given: fed.append(given[0] if given else None))
        try:
            with torch.no_grad(), self.seen:
                y: Any = self._model(x.unsqueeze(0 if self._batch_first else 1))
        except Exception as error:  # the user's code may raise anything
            raise ImportRefused(
                self.name, f"fails on a sequence of batch 1 ({one_line(str(error))[:200]}); {INSTEAD}"
            ) from error
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
        while isinstance(y, tuple | list) and y:
            y = y[0]
        if not isinstance(y, torch.Tensor):
            raise ImportRefused(
                self.name, f"returns {type(y).__name__}, expected a tensor or a tuple that begins with one"
            )
        result: Array = y.float().numpy()
        steps = len(inputs)
        if result.ndim == 3:
            return result[0] if self._batch_first else result[:, 0]
        return result if result.ndim == 2 else result.reshape(steps if result.size % steps == 0 else 1, -1)
