"""torch modules as parts: taken apart, copied, and read one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..refusal import BACKWARD, LONGEST, QUANTIZED, ImportRefused, NotRead, refusing
from ..stack import Array
from .weights import UNNORMED, Part

if TYPE_CHECKING:
    from torch import nn

ACTIVATIONS = {
    "ReLU": "relu",
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Softmax": "softmax",
    "Softsign": "softsign",
    "Hardsigmoid": "hard_sigmoid",
    "ELU": "elu",
    "LeakyReLU": "leaky_relu",
    "SiLU": "silu",
    "Mish": "mish",
    "SELU": "selu",
    "ReLU6": "relu6",
    "LogSoftmax": "log_softmax",
    "LogSigmoid": "log_sigmoid",
    "Hardswish": "hard_silu",
    "Tanhshrink": "tanh_shrink",
}
_KINDS = {"Embedding": "embedding", "Linear": "dense", "LayerNorm": "layer_norm", "PReLU": "prelu", "GELU": "gelu"}
_IGNORED = ("Dropout", "AlphaDropout", "FeatureAlphaDropout", "Identity")
_WRAPPERS = {  # the attribute that holds the module
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
}
_WHOLE = ("MultiheadAttention", "Transformer", "TransformerEncoder", "TransformerEncoderLayer", "TransformerDecoder")
TRACED = "pass example=x, an input as its forward takes it, and the forward is traced"
SCRIPTED = "a TorchScript module, which holds code; pass its state_dict() with layers"
NOT_FINITE = "holds NaN or infinity, expected finite float32 numbers (did its training diverge?)"
ALLOWED = "LSTM, GRU, RNN, their cells, Embedding, Linear, LayerNorm, activations, Dropout"


def unwrapped(model: Any) -> Any:
    """Returns the module within torch.compile, DataParallel and their like, which compute the same under other names.

    Its states then have the names that they have without the wrapper, so that sessions can be carried over.
    """
    while type(model).__module__.startswith("torch.") and type(model).__name__ in _WRAPPERS:
        model = getattr(model, _WRAPPERS[type(model).__name__])
    return model


def copied(name: str, module: nn.Module) -> nn.Module:
    """Returns a copy on the CPU, in float32, in evaluation mode and without wrappers.

    The import runs only copies: running a module may change what it keeps. Raises ImportRefused.
    """
    place = f"{name or 'model'} ({type(module).__name__})"
    with refusing(place, "cannot be copied", "pass its state_dict() with layers", LONGEST):
        copy: nn.Module = unwrapped(deepcopy(module, _computed(module)))
        for parent in copy.modules():
            for key, child in parent.named_children():
                setattr(parent, key, unwrapped(child))
        return copy.cpu().float().eval()


def _computed(module: nn.Module) -> dict[int, Any]:
    """Returns copies, by id, of tensors that modules keep from a call: deepcopy refuses those that have a gradient."""
    from torch import Tensor

    from .private import tree

    kept = [value for one in module.modules() for value in tree.tree_leaves(vars(one))]
    return {id(value): value.detach().clone() for value in kept if isinstance(value, Tensor) and not value.is_leaf}


def flatten(model: Any, compared: bool | None = None) -> list[tuple[str, nn.Module]]:
    """Returns the modules that compute, by name and in order: a list's, a Sequential's, or any other module's children.

    A module may occur in a list or a Sequential several times, and computes as often. Modules inside with a forward of
    their own are refused, because only the forward of `model` itself is compared with what its children compute.
    compared: with the forward of an enclosing module; None: with that of `model`, if it has its own.
    """
    from torch import nn

    if compared is None:
        compared = not _is_standard(model)
    model = unwrapped(model)
    if isinstance(model, nn.Module):
        refuse_quantized(model)
        _refuse_normed(model)
        if type(model).__module__.startswith("torch.jit"):
            raise ImportRefused("model", SCRIPTED)
    if isinstance(model, Sequence) and not isinstance(model, str):
        items = ((f"{i}", item) for i, item in enumerate(model))
        return [(f"{i}.{name}".strip("."), inner) for i, item in items for name, inner in flatten(item, compared=False)]
    if not isinstance(model, nn.Module):
        raise ImportRefused("model", f"got {type(model).__name__}, expected a torch module or a list of them")
    container = isinstance(model, nn.Sequential | nn.ModuleList | nn.ModuleDict)
    if _is_standard(model) and not container:
        return [("", model)]
    # each of a module's own children counts once; a Sequential calls one as often as it contains it
    children = list(model._modules.items() if container else model.named_children())
    if not children or list(model.named_parameters(recurse=False)):
        raise NotRead(type(model).__name__, f"cannot be taken apart, expected {ALLOWED}, or a list of these")
    if not compared and _has_own_forward(model):
        raise ImportRefused(
            type(model).__name__,
            "has a forward or hooks of its own within a list, expected layers; pass what it computes as layers in "
            "the list, or make one module of the list and pass it with example=x: its forward is traced",
        )
    return [
        (f"{name}.{inner}".strip("."), module)
        for name, child in children
        if child is not None
        for inner, module in flatten(child, compared)
    ]


def changed_layer(model: Any) -> str | None:
    """Returns the place of the first of the model's layers that has a hook or a forward of its own; None if no layer
    has. A state_dict and a file of one have weights only."""
    if isinstance(model, str | Path | Mapping):
        return None
    for name, module in flatten(model):
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            return f"{name or 'model'} ({type(module).__name__})"
    return None


def _is_standard(model: Any) -> bool:
    """Returns True for torch's own layers and containers, and lists of modules."""
    listed = isinstance(model, Sequence) and not hasattr(model, "named_modules")
    return listed or type(model).__module__.startswith("torch.nn.modules")


def _has_own_forward(container: Any) -> bool:
    """Returns True unless the container just calls its children one after another."""
    from torch import nn

    kinds = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    plain = any(isinstance(container, kind) and type(container).forward is kind.forward for kind in kinds)
    hooked = container._forward_hooks or container._forward_pre_hooks or "forward" in vars(container)
    return not plain or bool(hooked)


def refuse_quantized(model: nn.Module) -> None:
    """Refuses modules with integer weights, which hold no floats to serve."""
    for name, module in model.named_modules():
        if type(module).__module__.startswith(("torch.ao.nn.", "torch.nn.quantized")):
            raise ImportRefused(f"{name or 'model'} ({type(module).__name__})", QUANTIZED.format("module"))


def refuse_scripted(model: nn.Module) -> None:
    """Refuses modules within the model that are TorchScript: their recurrent layers cannot be watched."""
    for name, module in model.named_modules():
        if type(module).__module__.startswith("torch.jit"):
            raise ImportRefused(name or "model", SCRIPTED)


def refuse_nan(model: nn.Module) -> None:
    """Refuses weights of NaN. Infinity may be meant, such as that of a mask."""
    for name, value in model.named_parameters():
        if not value.is_meta and value.is_floating_point() and bool(value.isnan().any()):
            raise ImportRefused(f"model: tensor {name}", NOT_FINITE)


def _refuse_normed(module: nn.Module) -> None:
    """Refuses weight_norm, pruning, spectral_norm and the like, which compute a weight anew at each call."""
    from torch.nn.utils.parametrize import is_parametrized

    hooks = [type(hook).__name__ for hook in module._forward_pre_hooks.values()]
    pruned = [name.removesuffix("_mask") for name, _ in module.named_buffers(recurse=False) if name.endswith("_mask")]
    for name in pruned:
        if hasattr(module, f"{name}_orig"):
            raise NotRead(
                type(module).__name__,
                f"{name} is pruned, and computed from {name}_orig at each call; make it permanent first, with "
                f"torch.nn.utils.prune.remove(module, {name!r})",
            )
    found = next((kind for kind in hooks if kind in ("WeightNorm", "SpectralNorm")), "")
    if found or is_parametrized(module):
        raise NotRead(
            type(module).__name__, f"{found or 'a parametrization'} computes its weight at each call; {UNNORMED}"
        )


def module_parts(modules: Sequence[tuple[str, nn.Module]]) -> tuple[list[Part], dict[str, Array]]:
    """Returns the parts, and the tensors that they name. Raises ImportRefused, naming the module."""
    parts: list[Part] = []
    tensors: dict[str, Array] = {}
    for number, (name, module) in enumerate(modules):
        part = _part(name, module)
        if part is None:
            continue
        prefix = name or str(number)
        parts.append(replace(part, prefix=prefix if "=" in part.place else ""))
        if part.kind == "layer_norm" and not module.elementwise_affine:
            shape: Any = module.normalized_shape
            tensors[f"{prefix}.weight"] = np.ones(shape, np.float32)
        for key, value in module.state_dict().items():
            if value.is_meta or not value.is_floating_point():
                came = "no values (device meta)" if value.is_meta else str(value.dtype)
                raise ImportRefused(f"{name or 'model'}: tensor {key}", f"got {came}, expected floats with values")
            tensors[f"{prefix}.{key}"] = value.detach().cpu().float().numpy()
            if not np.isfinite(tensors[f"{prefix}.{key}"]).all():
                raise ImportRefused(f"{name or 'model'}: tensor {key}", NOT_FINITE)
    return parts, tensors


def _part(name: str, module: Any) -> Part | None:
    kind = type(module).__name__
    place = f"{name or 'model'} ({kind})"
    if kind.removesuffix("Cell") in ("LSTM", "GRU", "RNN"):
        if getattr(module, "bidirectional", False):
            raise ImportRefused(place, f"bidirectional; {BACKWARD}")
        cell = kind.removesuffix("Cell")
        word = f"rnn_{module.nonlinearity}" if cell == "RNN" else cell.lower()
        return Part(word if cell == kind else f"{word}_cell")
    if is_ignored(module):
        return None
    if kind in _WHOLE:
        raise ImportRefused(place, "attends to the whole sequence, of which a stream has only seen the past")
    if kind == "Embedding" and module.max_norm is not None:
        raise ImportRefused(place, f"max_norm: got {module.max_norm}, expected None: it changes weights when used")
    word = _KINDS.get(kind, ACTIVATIONS.get(kind, ""))
    wrong = "" if word else f"not a layer that a bundle can hold, expected {ALLOWED}"
    if kind == "LayerNorm" and len(module.normalized_shape) != 1:
        wrong = f"normalized_shape: got {list(module.normalized_shape)}, expected the features only: [F]"
    elif kind == "PReLU" and module.num_parameters != 1:
        wrong = f"num_parameters: got {module.num_parameters}, expected 1: axis 1 is the time or the batch"
    elif kind == "Softplus" and (module.beta, module.threshold) != (1, 20):
        wrong = f"beta, threshold: got {module.beta}, {module.threshold}, expected 1, 20"
    elif kind in ("Softmax", "LogSoftmax") and module.dim not in (-1, 2):
        wrong = f"dim: got {module.dim}, expected -1: over the features"
    if wrong:
        raise NotRead(place, wrong)
    if kind == "GELU" and module.approximate == "tanh":
        word = "gelu_tanh"
    slope = getattr(module, "negative_slope", getattr(module, "alpha", 1.0))
    return Part(word, slope=float(slope), epsilon=float(getattr(module, "eps", 1e-5)))


def is_ignored(module: nn.Module) -> bool:
    """Returns True if the module computes nothing in evaluation mode."""
    return type(module).__name__ in _IGNORED
