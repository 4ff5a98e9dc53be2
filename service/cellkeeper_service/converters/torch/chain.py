"""Runs torch modules one after another: the reference for a bundle made from their weights.

For weights from a file, these modules are torch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from cellkeeper_service.model.config import GATES

from ..stack import Array
from .modules import ACTIVATIONS
from .weights import KINDS, WEIGHTS, Part

_MODULES = {word: kind for kind, word in ACTIVATIONS.items()}
_MODULES |= {"gelu": "GELU", "gelu_tanh": "GELU", "hard_tanh": "Hardtanh", "linear": "Identity"}


class ModuleChain:
    """Runs the modules one after another, unchanged, in float32: a proof.Source. initial: "h", "c" [layers, width]."""

    windowed = False

    def __init__(self, modules: Sequence[Callable[..., Any]], initial: Mapping[str, Array]) -> None:
        self.name = f"torch {torch.__version__.partition('+')[0]}"
        self._modules = modules
        self._initial = [torch.from_numpy(np.array(values, np.float32))[:, None] for values in initial.values()]

    def whole(self, inputs: Array) -> Mapping[str, Array]:
        return {"prediction": self._advance(inputs, self._start())}

    def stepped(self, inputs: Array) -> Mapping[str, Array]:
        states = self._start()
        parts = [self._advance(inputs[i : i + 1], states) for i in range(len(inputs))]
        return {"prediction": np.concatenate(parts)}

    def _advance(self, inputs: Array, states: list[Any]) -> Array:
        """Runs [T, ...] -> [T, units], and updates `states`, which has one entry for each module."""
        value: Any = torch.from_numpy(np.array(inputs))[:, None]
        value = value.long() if value.dtype == torch.int32 else value
        with torch.no_grad():
            for number, module in enumerate(self._modules):
                if isinstance(module, nn.RNNBase):
                    turned = value.transpose(0, 1) if module.batch_first else value
                    value, states[number] = module(turned, states[number])
                    value = value.transpose(0, 1) if module.batch_first else value
                elif isinstance(module, nn.RNNCellBase):
                    rows = []
                    for x in value:
                        states[number] = module(x, states[number])
                        rows.append(states[number][0] if isinstance(module, nn.LSTMCell) else states[number])
                    value = torch.stack(rows)
                else:
                    value = module(value)
        result: Array = value[:, 0].numpy()
        return result

    def _start(self) -> list[Any]:
        taken = 0
        states: list[Any] = []
        for module in self._modules:
            if not self._initial or not isinstance(module, nn.RNNBase | nn.RNNCellBase):
                states.append(None)
                continue
            layers = module.num_layers if isinstance(module, nn.RNNBase) else 1
            mine = [value[taken : taken + layers] for value in self._initial]
            mine = mine if isinstance(module, nn.RNNBase) else [value[0] for value in mine]
            states.append(tuple(mine) if isinstance(module, nn.LSTM | nn.LSTMCell) else mine[0])
            taken += layers
        return states


def build_modules(parts: Sequence[Part], tensors: Mapping[str, Array]) -> list[Callable[..., Any]]:
    """Returns torch's own modules. read_parts must have checked that the tensors fit the parts."""
    modules: list[Callable[..., Any]] = []
    embedding = np.zeros((0, 0), np.float32)
    for part in parts:
        every = part.tensors(tensors)
        mine: dict[str, Array] = {name: every[name] for name in ("weight", "bias") if name in every}
        if part.kind == "embedding":
            embedding = mine["weight"]
            modules.append(_filled(nn.Embedding(*embedding.shape), mine))
        elif part.kind in ("dense", "tied"):
            mine = mine if part.kind == "dense" else {**mine, "weight": embedding}
            units, inputs = mine["weight"].shape
            modules.append(_filled(nn.Linear(inputs, units, bias="bias" in mine), mine))
        elif part.kind == "layer_norm":
            norm = nn.LayerNorm(len(mine["weight"]), eps=part.epsilon, bias="bias" in mine)
            modules.append(_filled(norm, mine))
        elif part.kind == "prelu":
            modules.append(_filled(nn.PReLU(), mine))
        elif part.kind in KINDS:
            modules.append(_recurrent(part.kind, every))
        elif part.kind == "exponential":
            modules.append(torch.exp)
        else:
            options: dict[str, dict[str, Any]] = {
                "softmax": {"dim": -1},
                "log_softmax": {"dim": -1},
                "gelu_tanh": {"approximate": "tanh"},
                "leaky_relu": {"negative_slope": part.slope},
                "elu": {"alpha": part.slope},
            }
            modules.append(getattr(nn, _MODULES[part.kind])(**options.get(part.kind, {})))
    return modules


def _recurrent(kind: str, every: Mapping[str, Array]) -> Callable[..., Any]:
    cell = kind.removesuffix("_cell")
    single = kind != cell
    values = {name: value for name, value in every.items() if name.partition("_l")[0] in WEIGHTS}
    suffix = "" if single else "_l0"
    weight = values[f"weight_ih{suffix}"]
    options: dict[str, Any] = {"bias": f"bias_ih{suffix}" in values}
    if cell not in ("lstm", "gru"):
        options["nonlinearity"] = cell.removeprefix("rnn_")
    if not single:
        options["num_layers"] = sum(name.startswith("weight_ih_l") for name in values)
    if "weight_hr_l0" in values:
        options["proj_size"] = len(values["weight_hr_l0"])
    name = {"lstm": "LSTM", "gru": "GRU"}.get(cell, "RNN") + ("Cell" if single else "")
    return _filled(getattr(nn, name)(weight.shape[1], len(weight) // GATES[cell], **options), values)


def _filled(module: Any, values: Mapping[str, Array]) -> Callable[..., Any]:
    module.load_state_dict({name: torch.from_numpy(np.array(value, np.float32)) for name, value in values.items()})
    built: Callable[..., Any] = module
    return built
