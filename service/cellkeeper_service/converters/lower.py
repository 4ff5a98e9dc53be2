"""Converts a stack to the contents of a bundle.

Recurrent layers of one kind and size, with dense layers on top, become a RecurrentConfig, which every engine runs. Any
other stack becomes an ONNX graph of its own (stack_graph.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cellkeeper_service.errors import StartError
from cellkeeper_service.model.config import (
    ACTIVATIONS,
    Config,
    Features,
    Normalization,
    RecurrentConfig,
    Tokens,
    Transform,
    config_json,
)
from cellkeeper_service.model.config import Dense as HeadLayer
from cellkeeper_service.model.parsing import parse_config

from .refusal import ImportRefused, NotRead
from .stack import Activate, Array, Convert, Dense, Embed, Layer, Normalize, Recurrent, Stack
from .stack_graph import stack_graph
from .widths import check

MOST_HEAD_LAYERS = 32


@dataclass(frozen=True)
class Lowered:
    """The arguments of write_bundle."""

    config: Config
    tensors: dict[str, Array]
    graph: bytes = b""


def lower(stack: Stack, name: str, place: str) -> Lowered:
    """Returns the bundle's contents. Raises ImportRefused, naming the layer, if no bundle can represent the stack."""
    if stack.chain:
        stack = replace(stack, layers=_merged(stack.layers), sources=())
    check(stack, place)
    lowered = (_recurrent(stack, name) if stack.chain else None) or _graph(stack, name)
    try:
        parse_config(
            json.loads(json.dumps(config_json(lowered.config))), "bundle"
        )  # read_bundle's checks, before anything is written
    except StartError as error:
        raise ImportRefused(place, str(error)) from error
    return lowered


def _merged(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Merges each separate activation into the dense layer before it; a softmax stays separate."""
    merged: list[Layer] = []
    for layer in layers:
        last = merged[-1] if merged else None
        if isinstance(layer, Activate):
            if layer.op == "linear":
                continue
            if (
                isinstance(last, Dense)
                and last.activation == "linear"
                and layer.op in ACTIVATIONS
                and layer.slope == 1.0
            ):
                merged[-1] = replace(last, activation=layer.op)
                continue
        if isinstance(layer, Dense) and layer.activation not in ACTIVATIONS:
            merged += [replace(layer, activation="linear"), Activate(layer.place, layer.activation)]
        else:
            merged.append(layer)
    return tuple(merged)


def _recurrent(stack: Stack, name: str) -> Lowered | None:
    rest = list(stack.layers)
    first = rest[0]
    tensors: dict[str, Array] = {}
    source: Features | Tokens = Features(stack.size, None, stack.missing)
    if isinstance(first, Embed):
        del rest[0]
        source = Tokens(*first.weight.shape)
        tensors["embedding.weight"] = first.weight
    elif isinstance(first, Normalize):
        del rest[0]
        numbers = Normalization(tuple(first.offset.astype(float).tolist()), tuple(first.scale.astype(float).tolist()))
        source = Features(stack.size, numbers, stack.missing)
    cells = _taken(rest, Recurrent)
    head = _taken(rest, Dense)
    output: list[Transform] = []
    for layer in rest:
        if isinstance(layer, Convert):
            output.append(layer.transform)
        elif isinstance(layer, Activate) and layer.op == "softmax":
            output.append(Transform("softmax"))
        else:
            return None
    if stack.masked or not cells or len({_kind(cell) for cell in cells}) > 1 or len(head) > MOST_HEAD_LAYERS:
        return None
    top = cells[-1]
    if not top.usual or (top.proj_size and top.proj_size >= top.hidden_size):
        return None
    bias = any("bias_ih" in cell.weights for cell in cells)
    learned = any(cell.initial for cell in cells)
    for number, cell in enumerate(cells):
        weights = dict(cell.weights)
        if bias and "bias_ih" not in weights:
            weights["bias_ih"] = weights["bias_hh"] = np.zeros(len(weights["weight_ih"]), np.float32)
        tensors |= {f"rnn.{key}_l{number}": value for key, value in weights.items()}
    if learned:
        for key, size in (("h", top.width), ("c", top.hidden_size))[: 2 if top.cell == "lstm" else 1]:
            tensors[f"initial.{key}"] = np.stack([cell.initial.get(key, np.zeros(size, np.float32)) for cell in cells])
    for number, dense in enumerate(head):
        tensors[f"head.{number}.weight"] = dense.weight
        if dense.bias is not None:
            tensors[f"head.{number}.bias"] = dense.bias
    config = RecurrentConfig(
        name=name,
        cell=top.cell,
        input_size=int(cells[0].weights["weight_ih"].shape[1]),
        hidden_size=top.hidden_size,
        num_layers=len(cells),
        proj_size=top.proj_size,
        bias=bias,
        reset_after=top.reset_after,
        initial_state="learned" if learned else "zeros",
        input=source,
        head=tuple(HeadLayer(len(dense.weight), dense.activation, dense.bias is not None) for dense in head),
        output=tuple(output),
    )
    return Lowered(config, tensors)


def _taken(rest: list[Layer], kind: type[Any]) -> list[Any]:
    """Removes the leading layers of this kind, and returns them."""
    taken = []
    while rest and isinstance(rest[0], kind):
        taken.append(rest.pop(0))
    return taken


def _kind(cell: Recurrent) -> tuple[Any, ...]:
    return cell.cell, cell.hidden_size, cell.proj_size, cell.reset_after or cell.cell != "gru", cell.usual


def _graph(stack: Stack, name: str) -> Lowered:
    for cell in stack.recurrent:
        if cell.proj_size:
            raise NotRead(
                cell.place,
                f"got proj_size {cell.proj_size}, expected a projection only in LSTMs that are all alike, with at most "
                "an embedding before them, and after them Linear layers and their activations",
            )
    return Lowered(*stack_graph(stack, name))
