"""Traces a Keras model on Keras' torch backend.

Each recurrent layer is called for one time step with its own initial_state and return_state; everything else runs
unchanged. Keras runs what a file says the model consists of. Its safe mode stays on, and Lambda and custom classes stay
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cellkeeper_service.model.fields import one_line

from ..processing import Processing
from ..refusal import HALF_PRECISION, QUANTIZED, ImportRefused, refusing
from ..torch.export import Example
from ..torch.outputs import BATCH
from ..torch.program import INPUT, Traced
from ..torch.step import Called, WatchedCall
from ..torch.watch import trace_watched
from .decoder import carried_states, input_name, trace_decoder
from .file import read_keras
from .layers import NOT_STREAMED, SHAPING
from .source import BACKEND, MADE_AGAIN, arranged, clone, computed_otherwise, custom_module
from .topology import FUNCTIONAL

_STATEFUL_TWICE = (
    "is stateful and used twice, so its second use begins with the state at the end of the sequence, which a stream "
    "has not reached; make it stateful=False, or use a layer for each"
)
HALF = ("float16", "bfloat16")
NEVER = ("Bidirectional", "Lambda")  # refused even within a time step, where layers that look over a window do no harm


def trace_keras(keras: Any, model: Any, processing: Processing) -> tuple[Traced, int | dict[str, int]]:
    """Returns the trace, and the vocabulary (0: features; by name if there are several inputs).

    keras: on torch. model: a .keras or .h5 file, or a Keras model. Raises ImportRefused, naming the layer and the
    reason.
    """
    if isinstance(model, Path):
        place = str(model)
        file = read_keras(model)
        other = computed_otherwise(file)
        if other:
            raise ImportRefused(
                place,
                f"holds {other}, which Keras 3 computes otherwise; make the model with Keras 3 so that it computes the "
                "same, give it the old one's weights, and pass the model itself with trace=True",
            )
        custom = custom_module(file.config)
        if custom:
            raise ImportRefused(
                place,
                f"names {custom}, which is not a class of Keras; code of a model is not run; for a class of your "
                "own, pass the model instead of the file, in a script that defines the class",
            )
        advice = "" if file.version >= (3,) else MADE_AGAIN
        with refusing(place, "Keras cannot load it", advice, longest=200):
            model = keras.saving.load_model(model, compile=False, safe_mode=True)
    else:
        place = str(getattr(model, "name", type(model).__name__))
    _check_layers(model, place, but=SHAPING)
    states: dict[str, int] = {}
    if len(getattr(model, "inputs", None) or ()) > 1:
        states = carried_states(keras, model, place)
        _examples(model, place, states)  # before it is rebuilt for any length, which fails for an input without time
    try:
        free = clone(keras, model, stateful=False, batch=None, states=states)
    except Exception as error:  # Keras may raise anything
        _check_layers(model, place)  # which of them it is
        for layer in model._flatten_layers():
            if layer is not model and _is_unknown(keras, type(layer)):
                raise ImportRefused(
                    f"{place}: layer {layer.name} ({type(layer).__name__})",
                    "a class that Keras cannot rebuild from its name; decorate it with "
                    "@keras.saving.register_keras_serializable(), and write get_config if it has arguments of its own",
                ) from error
        raise ImportRefused(
            place, f"cannot be rebuilt for any batch ({one_line(str(error))[:200]}); {FUNCTIONAL}"
        ) from error
    _check_layers(free, place, any_length=True)
    _draw_no_masks(keras, free)
    both = zip(model._flatten_layers(), free._flatten_layers(), strict=True)
    kept = {id(mine) for theirs, mine in both if getattr(theirs, "stateful", False)}
    inputs, vocabulary = _examples(free, place, states)
    if len(inputs) > 1 and processing.normalization is not None:
        raise ImportRefused("normalization", "got one for a model with several inputs, expected it within the model")
    if states:
        states = carried_states(keras, free, place)
        return trace_decoder(keras, Example(free, inputs, 1, processing, place), states), vocabulary
    traced = trace_watched(
        Example(_Inference(keras, free).eval(), inputs, 1, processing, place),
        lambda module, called, after: watched(keras, module.model, called, after, kept),
        f"keras {keras.__version__} ({BACKEND}, traced)",
        batched=True,
    )
    return traced, vocabulary


def _draw_no_masks(keras: Any, model: Any) -> None:
    """Keras draws the masks of the cells' dropout at every call, in inference too, which does not use them. Random
    numbers cannot be exported. A cell that does use its mask draws it itself."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.RNN):
            layer.__dict__["_maybe_config_dropout_masks"] = lambda *_: None  # bypasses Keras' tracking of attributes


class _Inference(nn.Module):
    """Calls the model in inference mode."""

    def __init__(self, keras: Any, model: Any) -> None:
        super().__init__()
        self._keras, self.model = keras, model

    def forward(self, *inputs: Tensor) -> Any:
        return self.model(arranged(self._keras, self.model, inputs), training=False)


@contextmanager
def watched(keras: Any, model: Any, called: Called, after: list[Any], kept: Collection[int] = ()) -> Iterator[None]:
    """Watches the recurrent layers while active.

    Each asks `called` for the state to start with (None: its own), and appends the tensors of its new state to `after`.
    kept: ids of the layers that are stateful in the user's model. Raises ImportRefused if one of them is called twice.
    """
    started: set[int] = set()
    twice: list[str] = []  # refused only after the call: Keras replaces what is raised within
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.RNN)]

    def replaced(layer: Any) -> Callable[..., Any]:
        call = layer.call

        def watch(sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
            if id(layer) in kept and id(layer) in started and initial_state is None:
                twice.append(f"{layer.name} ({type(layer).__name__})")
            started.add(id(layer))
            own = layer.get_initial_state(batch_size=sequences.shape[0])
            begin = own if initial_state is None else initial_state
            given = () if initial_state is None else tuple(keras.tree.flatten(initial_state))
            zeros = tuple(keras.tree.flatten(own))
            kind = type(layer).__name__
            cell = kind == "LSTM" or kind.startswith("ConvLSTM")
            suffixes = ("h", "c") if cell else tuple(f"h{number or ''}" for number in range(len(zeros)))
            start = called(WatchedCall(layer.name, kind, sequences.shape[1], given, given or zeros, 0, suffixes))
            if start is not None:
                begin = keras.tree.pack_sequence_as(own, list(start))
            own_ways = layer.return_state, layer.unroll
            layer.return_state, layer.unroll = True, True
            try:
                output, *states = call(sequences, initial_state=begin, mask=mask, training=False)
            finally:
                layer.return_state, layer.unroll = own_ways
            after.append(tuple(keras.tree.flatten(states)))
            return (output, *states) if own_ways[0] else output

        return watch

    try:
        for layer in layers:
            layer.__dict__["call"] = replaced(layer)  # bypasses Keras' tracking of attributes
        yield
        if twice:
            raise ImportRefused(twice[0], _STATEFUL_TWICE)
    finally:
        for layer in layers:
            layer.__dict__.pop("call", None)


def _check_layers(model: Any, place: str, *, but: Collection[str] = (), any_length: bool = False) -> None:
    """Raises ImportRefused for a layer that cannot be streamed.

    but: kinds that are not refused. any_length: the model was rebuilt for it, so its shapes show where time is.
    """
    within_steps = {
        id(inner)
        for layer in model._flatten_layers()
        if type(layer).__name__ == "TimeDistributed"
        for inner in layer.layer._flatten_layers()
    }
    for layer in model._flatten_layers():
        kind = type(layer).__name__
        where = f"{place}: layer {layer.name} ({kind})"
        harmless = id(layer) in within_steps or (any_length and kind in SHAPING and _after_last_step(layer))
        if kind in NOT_STREAMED and kind not in but and (kind in NEVER or not harmless):
            raise ImportRefused(where, NOT_STREAMED[kind])
        if kind == "Masking" or getattr(layer, "mask_zero", False):
            raise ImportRefused(where, "a mask, expected none: only models whose layers are read may have masks")
        if getattr(layer, "compute_dtype", None) in HALF:
            raise ImportRefused(where, HALF_PRECISION.format(layer.compute_dtype))
        if getattr(layer, "quantization_mode", None) is not None:
            raise ImportRefused(where, QUANTIZED.format("model"))
        if getattr(layer, "go_backwards", False):
            raise ImportRefused(where, "go_backwards: it starts at the end, which a stream has not reached")


def _is_unknown(keras: Any, kind: type) -> bool:
    """Returns True for a class that is neither Keras' own nor registered with it."""
    return (
        kind.__module__.partition(".")[0] != "keras"
        and keras.saving.get_registered_object(keras.saving.get_registered_name(kind)) is not kind
    )


def _after_last_step(layer: Any) -> bool:
    """Returns True if the layer's input has no time axis."""
    try:
        return None not in layer.input.shape[1:]
    except (AttributeError, ValueError):  # it is used several times, or not by the model itself
        return False


def _examples(model: Any, place: str, states: Collection[str]) -> tuple[dict[str, Tensor], int | dict[str, int]]:
    """Returns sequences for the model by name (a single one is named INPUT), and the vocabulary of token ids.

    states: inputs that are not sequences.
    """
    embeddings = [layer for layer in model._flatten_layers() if type(layer).__name__ == "Embedding"]
    found, vocabularies = {}, {}
    sequences = [given for given in model.inputs if input_name(given) not in states]
    for given in sequences:
        name = INPUT if len(sequences) == 1 else input_name(given)
        # with one input, any Embedding means ids; with several, only those that an Embedding takes are ids
        of_ids = [layer for layer in embeddings if len(sequences) == 1 or layer.input is given]
        shape = given.shape
        fits = len(shape) == 2 if of_ids else len(shape) > 2 and None not in shape[2:]
        if not fits:
            raise ImportRefused(
                f"{place}: input {'' if name == INPUT else name}".rstrip(),
                f"got shape {list(shape)}, expected [batch, time, features ...] with fixed sizes, or token ids; give "
                "a value that is the same for all time steps a time axis, too; a state must be the initial_state of a "
                "layer",
            )
        if of_ids:
            found[name] = torch.zeros((BATCH, 1), dtype=torch.int64)
            vocabularies[name] = min(layer.input_dim for layer in of_ids)
        else:
            found[name] = torch.zeros(BATCH, 1, *shape[2:])
    return found, vocabularies.get(INPUT, 0) if len(sequences) == 1 else vocabularies
