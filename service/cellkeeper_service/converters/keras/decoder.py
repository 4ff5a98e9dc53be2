"""Keras models whose recurrent layers get their states from inputs and give them as outputs: decoders at inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..refusal import ImportRefused
from ..torch.carried import trace_called
from ..torch.export import Example
from ..torch.outputs import BATCH
from ..torch.program import Traced
from .source import arranged


def carried_states(keras: Any, model: Any, place: str) -> dict[str, int]:
    """Returns the names of the inputs that are states, and the index of the output that is each one's next value.

    The graph says which: the input is an initial state of a layer, and the output what this layer returns for it.
    Raises ImportRefused for a state that is not an output.
    """
    found: dict[str, int] = {}
    names = {id(one): input_name(one) for one in model.inputs}
    for layer in _recurrent(keras, model):
        for node in layer._inbound_nodes:
            arguments = node.arguments
            initial = keras.tree.flatten(arguments.kwargs.get("initial_state", arguments.args[1:2]))
            for given, after in zip(initial, node.outputs[1:], strict=False):
                if id(given) not in names:
                    continue
                name = names[id(given)]
                at = next((index for index, one in enumerate(model.outputs) if one is after), None)
                if at is None or name in found:
                    raise ImportRefused(
                        f"{place}: input {name}",
                        f"is an initial state of layer {layer.name}, expected the state that it returns "
                        "(return_state=True) among the outputs of the model, once",
                    )
                found[name] = at
            if len(node.outputs) < 2 and any(id(given) in names for given in initial):
                raise ImportRefused(
                    f"{place}: layer {layer.name}",
                    "gets its initial state from an input, expected return_state=True, and its states among the "
                    "outputs of the model",
                )
    return found


def trace_decoder(keras: Any, example: Example, states: dict[str, int]) -> Traced:
    """Traces a Keras model of which some inputs are states. Raises ImportRefused.

    example: of the other inputs, with time at axis 1. states: as returned by `carried_states`.
    """
    model, place = example.model, example.place
    every = [input_name(one) for one in model.inputs]
    shapes = {name: one.shape[1:] for name, one in zip(every, model.inputs, strict=True) if name in states}
    for name, shape in shapes.items():
        if None in shape:
            raise ImportRefused(f"{place}: input {name}", f"got shape [batch, {list(shape)}], expected fixed sizes")
    others = [name for name in every if name not in states]

    def call(_: Any, xs: Sequence[Tensor], flat: Sequence[Tensor]) -> list[Any]:
        given = {**dict(zip(others, xs, strict=True)), **dict(zip(shapes, flat, strict=True))}
        with _unrolled(keras, model, xs[0].shape[1] == 1):
            arguments = arranged(keras, model, [given[name] for name in every])
            returned = keras.tree.flatten(model(arguments, training=False))
        outputs = [value for index, value in enumerate(returned) if index not in states.values()]
        return [*outputs, *(returned[states[name]] for name in shapes)]

    return trace_called(
        replace(example, model=torch.nn.ModuleList([model]).eval()),
        tuple(shapes),
        [torch.zeros(BATCH, *shape) for shape in shapes.values()],
        call,
        name=f"keras {keras.__version__} ({keras.backend.backend()}, traced)",
        batch_axes=[0] * len(shapes),
    )


def input_name(given: Any) -> str:
    """Returns the name of the Input layer, which its tensor does not have if it was made without one."""
    return str(given._keras_history.operation.name)


def _recurrent(keras: Any, model: Any) -> list[Any]:
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.RNN)]


@contextmanager
def _unrolled(keras: Any, model: Any, unroll: bool) -> Iterator[None]:
    """A loop over a single time step cannot be exported."""
    layers = [(layer, layer.unroll) for layer in _recurrent(keras, model)]
    try:
        for layer, own in layers:
            layer.unroll = unroll or own
        yield
    finally:
        for layer, own in layers:
            layer.unroll = own
