"""import_keras: from a .keras or .h5 file to a bundle, with or without Keras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cellkeeper_service.model.config import MAX_SIZE, Missing
from cellkeeper_service.model.feedback import Sources

from ..drawn import draw_inputs
from ..files import file_of
from ..imported import Imported, Report, Target, check_target, write_imported
from ..lower import lower
from ..parity import MAX_BATCH, TOLERANCE
from ..processing import Processed, Processing, checked
from ..reference import leading, masked_input, masks
from ..refusal import ImportRefused, NotRead
from ..stack import INPUT, Affine, Embed, Layer, Mask, Normalize, Stack, Unmask
from ..widths import features_of, width_after
from .file import KerasFile, read_keras
from .layers import read_layer
from .masks import ends_mask, is_masked
from .recurrent import RECURRENT
from .source import MADE_AGAIN, keras_on_torch, keras_source
from .topology import KerasLayer, ordered_layers

_MASK_MISSING = (
    '; to mask missing values (NaN), pass missing=Missing("constant", VALUE), with a VALUE that no reading has'
)
TRACE = "pass --trace (trace=True) to have Keras itself trace the model"
_RECURRENT = (*RECURRENT, "RNN")


def import_keras(
    model: Any,
    folder: Path | str,
    *,
    name: str | None = None,
    normalization: object = None,
    missing: Missing | None = None,
    output: object = (),
    feedback: Sources | None = None,
    feature_names: object = None,
    trace: bool = False,
    tolerance: float = TOLERANCE,
    max_batch: int = MAX_BATCH,
    report: Report = print,
) -> Imported:
    """Writes the bundle `folder`, which must not exist yet, and compares it with Keras on random sequences.

    model: a .keras or .h5 file with a Sequential or functional model, with or without branches. Keras itself is used
    for the comparison only; if it is not installed, a float64 reference takes its place, and the report says so.
    normalization, missing, output: as in config.json. The model sees normalised inputs; clients see their own units.
    normalization and output may be fitted scalers (scalers.py), output one that was fitted on the targets.
    If the model begins with Masking and has a normalization, missing=Missing("constant", value) masks missing values:
    NaN, and value itself, become the mask's value after the normalization. Without one, value must be the mask's.
    feature_names: a list, or a DataFrame with such columns; by default the names that the scaler was fitted on.
    trace: if a layer cannot be read, let Keras run the model for one time step and export that (needs keras on torch,
    and onnxscript). This loads the file's classes: only Keras' own, in safe mode. With it, model may also be a Keras
    model.
    feedback: as in config.json, for forecasts: for each feature, the index of the prediction it becomes, or "known".
    name: the model's; by default the folder's.
    tolerance: the largest permitted difference, relative to the largest output.

    Raises ImportRefused with a one-line message that says where; nothing is left behind then.
    """
    path = None if trace and hasattr(model, "get_config") else file_of(model, "a .keras or .h5 file")
    name = check_target(folder, name)
    processing = checked(normalization, missing, output, feature_names)
    target = Target(Path(folder), name, processing, feedback, tolerance, max_batch, report)
    read = None
    if path is not None:
        file = read_keras(path)
        try:
            read = file, stack_of(file)
            processing = processing.masking(read[1])
            lowered = lower(processing.around(read[1]), name, str(path))
        except ImportRefused as error:
            if isinstance(error, NotRead) and not trace:
                advice = TRACE if file.version >= (3,) else MADE_AGAIN
                raise ImportRefused(error.place, f"{error.reason}; {advice}") from error
            if not trace:
                raise
            read = None
    if read is None or path is None:
        keras = keras_on_torch()
        from ..torch.program import import_traced
        from .trace import trace_keras

        traced, vocabulary = trace_keras(keras, path or model, processing)
        place = str(getattr(model, "name", "model") if path is None else path)
        return import_traced(traced, target, place, vocabulary)
    file, stack = read
    whole = processing.around(stack)
    _report_mask(whole, processing, report)
    source = Processed(keras_source(file, stack), processing)
    return write_imported(target, lowered, source, draw_inputs(whole), str(path))


def _report_mask(stack: Stack, processing: Processing, report: Report) -> None:
    """Reports which time steps are masked, if few or none can be because the input is scaled in front of the mask,
    whether missing values are filled with something that the mask does not know, and where a mask ends."""
    for layer in stack.layers:
        if isinstance(layer, Unmask):
            report(f"mask: ends at {layer.place}, as in Keras; the layers after it skip no time step")
    skipped = masked_input(stack)
    scaled = processing.normalization is not None and processing.mask_value is None
    if not any(isinstance(layer, Mask) for layer in leading(stack)):
        return
    if scaled or skipped is None:
        masked = "no time step is" if skipped is None else f"only time steps of {str(skipped.tolist())[:120]} are"
        report(f"mask: with this normalization, {masked} masked{_MASK_MISSING if scaled else ''}")
    filled = processing.missing.value
    if processing.missing.policy == "constant" and not masks(stack, np.broadcast_to(filled, (stack.size,))):
        reach = "" if skipped is None else f"; to mask them, pass {str(skipped.tolist())[:120]} as the value"
        report(f"mask: missing values (NaN) become {str(filled)[:120]}, which is not masked{reach}")


def stack_of(file: KerasFile) -> Stack:
    """Returns the file's layers. Raises ImportRefused."""
    kept = ordered_layers(file.config, str(file.path))
    ended = _ended(kept)
    kept = [replace(layer, untimed=any(end is not None for end in ended[layer.name])) for layer in kept]
    items: list[Layer] = []
    sources: list[tuple[int, ...]] = []
    masked: dict[str, bool] = {}
    last: dict[str, int] = {}  # by a layer's name: the index of the item with its value
    for layer in kept:
        taken = tuple(last[source] for source in layer.sources) or (INPUT,)
        read, mask = read_layer(file, layer), any(masked[source] for source in layer.sources)
        if mask and ends_mask(file, layer):
            read, mask = [Unmask(layer.place), *read], False
        masked[layer.name] = is_masked(layer, mask)
        for item in read:
            items.append(item)
            sources.append(taken)
            taken = (len(items) - 1,)
        last[layer.name] = taken[0]
    _check_sequences(kept, ended)
    if items and last[kept[-1].name] != len(items) - 1:
        raise ImportRefused(kept[-1].place, "is not where the model ends, expected its output from the last layer")
    width = _declared(kept)
    size = 0 if items and isinstance(items[0], Embed) else width or features_of(items)
    stack = Stack(size, tuple(items), sources=tuple(sources))
    return replace(stack, layers=_widened(stack), sources=() if stack.chain else stack.sources)


def _ended(layers: Sequence[KerasLayer]) -> dict[str, list[KerasLayer | None]]:
    """Returns, by a layer's name and for each of its sources, the recurrent layer of which it takes only the last time
    step; None: it takes every time step."""
    taken: dict[str, list[KerasLayer | None]] = {}
    given: dict[str, KerasLayer | None] = {}
    for layer in layers:
        taken[layer.name] = [given[source] for source in layer.sources]
        given[layer.name] = next((end for end in taken[layer.name] if end is not None), None)
        if layer.kind in _RECURRENT:
            given[layer.name] = None if layer.config.get("return_sequences", False) else layer
    return taken


def _check_sequences(layers: Sequence[KerasLayer], ended: Mapping[str, Sequence[KerasLayer | None]]) -> None:
    """Raises ImportRefused if a layer needs every time step of a recurrent layer that returns only the last one."""
    for layer in layers:
        stopped = next((end for end in ended[layer.name] if end is not None), None)
        if stopped is None:
            continue
        if layer.kind in _RECURRENT:
            raise ImportRefused(stopped.place, "return_sequences=False before another recurrent layer, expected true")
        if None in ended[layer.name]:
            raise ImportRefused(
                layer.place,
                f"merges every time step with the last one of {stopped.name}: expected return_sequences=True",
            )


def _declared(layers: Sequence[KerasLayer]) -> int:
    """Returns the features according to the input layer; 0 if it does not say."""
    first = layers[0] if layers else None
    if first is None:
        return 0
    shape = first.config.get("batch_shape") or first.config.get("batch_input_shape")
    if shape is None:
        return 0
    if not isinstance(shape, list) or not all(size is None or type(size) is int for size in shape):
        raise ImportRefused(first.place, f"shape: got {shape}, expected [batch, time, features]")
    if first.kind == "Embedding" or len(shape) == 2:
        if len(shape) != 2:
            raise ImportRefused(first.place, f"shape: got {shape}, expected [batch, time] of token ids")
        return 0
    if len(shape) != 3 or shape[2] is None or not 1 <= shape[2] <= MAX_SIZE:
        raise ImportRefused(first.place, f"shape: got {shape}, expected [batch, time, features]")
    return int(shape[2])


def _widened(stack: Stack) -> tuple[Layer, ...]:
    """Expands single numbers to one for each feature."""
    widened: list[Layer] = []
    widths = {INPUT: stack.size}
    for number, layer in enumerate(stack.layers):
        taken = [widths[source] for source in stack.sources_of(number)]
        if isinstance(layer, Normalize | Affine):
            scale, offset = (
                np.broadcast_to(value, taken[:1]) if value.ndim == 0 else value for value in (layer.scale, layer.offset)
            )
            layer = replace(layer, scale=scale, offset=offset)
        widths[number] = width_after(layer, taken)
        widened.append(layer)
    return tuple(widened)
