"""Builds torch's own modules with weights from a file: the reference for a bundle made from that file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cellkeeper_service.model.config import GATES

from ..stack import Array
from .modules import ACTIVATIONS
from .weights import KINDS, Part

if TYPE_CHECKING:
    from torch import nn

_MODULES = {word: kind for kind, word in ACTIVATIONS.items()}
_MODULES |= {"gelu": "GELU", "hard_tanh": "Hardtanh", "linear": "Identity"}


def build_modules(parts: Sequence[Part], tensors: Mapping[str, Array]) -> list[nn.Module]:
    """Returns the modules. read_parts must have checked that the tensors fit the parts."""
    from torch import nn

    modules: list[nn.Module] = []
    embedding: Array | None = None
    for part in parts:
        mine = part.tensors(tensors)
        if part.kind == "embedding":
            embedding = mine["weight"]
            modules.append(_filled(nn.Embedding(*embedding.shape), {"weight": embedding}))
        elif part.kind in ("dense", "tied"):
            weight = mine.get("weight") if part.kind == "dense" else embedding
            if weight is None:
                raise ValueError(f"{part.place}: no weight")
            values = {"weight": weight} | ({"bias": mine["bias"]} if "bias" in mine else {})
            units, inputs = weight.shape
            modules.append(_filled(nn.Linear(inputs, units, bias="bias" in mine), values))
        elif part.kind == "layer_norm":
            modules.append(_layer_norm(mine, part.epsilon))
        elif part.kind == "prelu":
            modules.append(_filled(nn.PReLU(), mine))
        elif part.kind in KINDS:
            modules.append(_recurrent(part.kind, mine))
        elif part.kind in ("softmax", "log_softmax"):
            modules.append(getattr(nn, _MODULES[part.kind])(dim=-1))
        elif part.kind == "gelu_tanh":
            modules.append(nn.GELU(approximate="tanh"))
        elif part.kind == "leaky_relu":
            modules.append(nn.LeakyReLU(part.slope))
        elif part.kind == "exponential":
            modules.append(_Exponential())
        else:
            modules.append(getattr(nn, _MODULES[part.kind])())
    return [module.eval() for module in modules]


def _layer_norm(mine: Mapping[str, Array], epsilon: float) -> nn.Module:
    from torch import nn

    width = len(next(iter(mine.values())))
    return _filled(nn.LayerNorm(width, eps=epsilon, bias="bias" in mine), mine)


def _recurrent(kind: str, mine: Mapping[str, Array]) -> nn.Module:
    from torch import nn

    single = kind.endswith("_cell")
    cell = kind.removesuffix("_cell")
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    values = {name: value for name, value in mine.items() if name.partition("_l")[0] in names}
    suffix = "" if single else "_l0"
    width = values[f"weight_ih{suffix}"].shape[1]
    hidden = len(values[f"weight_ih{suffix}"]) // GATES[cell]
    options: dict[str, Any] = {"bias": f"bias_ih{suffix}" in values}
    if cell not in ("lstm", "gru"):
        options["nonlinearity"] = cell.removeprefix("rnn_")
    name = {"lstm": "LSTM", "gru": "GRU"}.get(cell, "RNN")
    if single:
        return _filled(getattr(nn, f"{name}Cell")(width, hidden, **options), values)
    options["num_layers"] = sum(name.startswith("weight_ih_l") for name in values)
    if "weight_hr_l0" in values:
        options["proj_size"] = len(values["weight_hr_l0"])
    return _filled(getattr(nn, name)(width, hidden, **options), values)


def _filled(module: nn.Module, values: Mapping[str, Array]) -> nn.Module:
    import torch

    module.load_state_dict({name: torch.from_numpy(np.array(value, np.float32)) for name, value in values.items()})
    return module


def _Exponential() -> nn.Module:
    from torch import exp, nn

    class Exponential(nn.Module):
        def forward(self, x: Any) -> Any:
            return exp(x)

    return Exponential()
