"""Runs torch modules one after another: the reference for a bundle made from their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..stack import Array

if TYPE_CHECKING:
    from torch import nn


class ModuleChain:
    """Runs the modules one after another, unchanged, in float32: a proof.Source. initial: "h", "c" [layers, width]."""

    windowed = False

    def __init__(self, modules: Sequence[nn.Module], initial: Mapping[str, Array]) -> None:
        import torch

        self.name = f"torch {torch.__version__.partition('+')[0]}"
        self._modules = modules
        self._initial = initial

    def whole(self, inputs: Array) -> Mapping[str, Array]:
        return {"prediction": self._advance(inputs, self._start())}

    def stepped(self, inputs: Array) -> Mapping[str, Array]:
        states = self._start()
        parts = [self._advance(inputs[i : i + 1], states) for i in range(len(inputs))]
        return {"prediction": np.concatenate(parts)}

    def _advance(self, inputs: Array, states: list[Any]) -> Array:
        """Runs [T, ...] -> [T, units], and updates `states`, which has one entry for each module."""
        import torch

        value: Any = torch.from_numpy(np.array(inputs))[:, None]
        value = value.long() if value.dtype == torch.int32 else value
        with torch.no_grad():
            for number, module in enumerate(self._modules):
                kind: Any = module
                if isinstance(module, torch.nn.LSTM | torch.nn.GRU | torch.nn.RNN):
                    turned = value.transpose(0, 1) if module.batch_first else value
                    value, states[number] = kind(turned, states[number])
                    value = value.transpose(0, 1) if module.batch_first else value
                elif isinstance(module, torch.nn.LSTMCell | torch.nn.GRUCell | torch.nn.RNNCell):
                    rows = []
                    for x in value:
                        states[number] = kind(x, states[number])
                        rows.append(states[number][0] if isinstance(module, torch.nn.LSTMCell) else states[number])
                    value = torch.stack(rows)
                else:
                    value = kind(value)
        result: Array = value[:, 0].numpy()
        return result

    def _start(self) -> list[Any]:
        import torch

        taken = 0
        states: list[Any] = []
        for module in self._modules:
            layers = getattr(module, "num_layers", 1 if isinstance(module, torch.nn.RNNCellBase) else 0)
            if not layers or not self._initial:
                states.append(None)
                continue
            mine = [
                torch.from_numpy(np.array(self._initial[name][taken : taken + layers], np.float32))[:, None]
                for name in ("h", "c")
                if name in self._initial
            ]
            if isinstance(module, torch.nn.RNNCellBase):
                mine = [part[0] for part in mine]
            states.append(tuple(mine) if isinstance(module, torch.nn.LSTM | torch.nn.LSTMCell) else mine[0])
            taken += layers
        return states
