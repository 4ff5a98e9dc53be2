"""Reads a PyTorch model as layers: modules, or weights with words that say what they are."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import read_state_dict, tensors_of
from ..imported import Report
from ..lower import Lowered, lower
from ..processing import Float64Source, Processing
from ..proof import Source
from ..refusal import ImportRefused, NotRead
from ..stack import Array, Stack
from ..widths import features_of
from .modules import TRACED, copied, flatten, module_parts
from .weights import Part, guess_parts, parse_parts, read_parts, refuse_wrapped, with_initial

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ReadModel:
    """A model as layers. place: its name in errors. stack: with the processing around it. source: without."""

    place: str
    stack: Stack
    lowered: Lowered
    source: Source


@dataclass(frozen=True)
class _Found:
    """What a model consists of.

    chain: copies of the modules, none for weights. own: a copy of the module that has a forward of its own, if any.
    """

    place: str
    parts: Sequence[Part]
    tensors: Mapping[str, Array]
    chain: Sequence[nn.Module] = field(default_factory=list)
    own: nn.Module | None = None


def read_model(
    model: Any,
    layers: str | None,
    initial_state: Any,
    processing: Processing,
    name: str,
    report: Report | None,
    batch_first: bool | None = None,
) -> ReadModel:
    """Reads modules or weights. Raises NotRead if only their framework may know what they compute, or ImportRefused.

    layers: words for weights. initial_state: tensors h or (h, c). name: of the bundle's model. report: None if the
    model can be traced instead. batch_first: of a module's input; None: that of its recurrent layers.
    """
    initial = _initial(initial_state)
    found = _weights(model, layers) if isinstance(model, str | Path | Mapping) else _modules(model, layers)
    read = with_initial(read_parts(found.parts, found.tensors, found.place), initial, found.place)
    alone = Stack(features_of(read), tuple(read))
    stack = processing.around(alone)
    lowered = _lowered(stack, name, found)
    if found.own is not None:
        from .forward import compare_forward

        choices = compare_forward(found.own, found.chain, initial, alone, processing, batch_first)
        words = f"its forward chooses between values ({', '.join(choices)}), which its layers do not"
        if choices and report is None:
            raise ImportRefused(found.place, words)
        if choices and report is not None:
            unlike = "for inputs that the comparison did not draw, served values may differ"
            report(f"{found.place}: {words}; {unlike}. {TRACED}")
    return ReadModel(found.place, stack, lowered, _source(found, initial, alone))


def _weights(model: Path | str | Mapping[str, Any], layers: str | None) -> _Found:
    if isinstance(model, Mapping):
        place, tensors = "state_dict", tensors_of(model, "state_dict")
    else:
        place, tensors = str(model), read_state_dict(Path(model))
    refuse_wrapped(tensors, layers, place)
    return _Found(place, parse_parts(layers) if layers else guess_parts(list(tensors), place, tensors), tensors)


def _modules(model: Any, layers: str | None) -> _Found:
    if layers is not None:
        raise ImportRefused(
            "layers", "got a string beside modules, expected it for weights only; pass a list of modules"
        )
    found = flatten(model)
    parts, tensors = module_parts(found)
    standard = isinstance(model, Sequence) or type(model).__module__.startswith("torch.nn.modules")
    return _Found(
        type(model).__name__,
        parts,
        tensors,
        [copied(name, module) for name, module in found],
        None if standard else copied("", model),
    )


def _lowered(stack: Stack, name: str, found: _Found) -> Lowered:
    try:
        return lower(stack, name, found.place)
    except ImportRefused as error:
        if found.own is None:
            raise
        raise NotRead(
            error.place if error.place.startswith(found.place) else f"{found.place}: {error.place}",
            f"{error.reason}: its layers do not chain in the order in which they are registered (does forward bypass "
            "some of them?)",
        ) from error


def _initial(state: Any) -> dict[str, Array]:
    if state is None:
        return {}
    tensors = list(state) if isinstance(state, tuple | list) else [state]
    for value in tensors:
        if not hasattr(value, "detach"):
            raise ImportRefused(
                "initial_state", f"got {type(value).__name__}, expected a tensor h, or a tuple of tensors (h, c)"
            )
    return {
        name: np.array(value.detach().cpu().float().numpy(), np.float32)
        for name, value in zip(("h", "c"), tensors, strict=False)
    }


def _source(found: _Found, initial: Mapping[str, Array], stack: Stack) -> Source:
    if importlib.util.find_spec("torch") is None:
        return Float64Source(stack, "torch is not installed")
    from .chain import ModuleChain, build_modules

    return ModuleChain(found.chain or build_modules(found.parts, found.tensors), initial)
