"""What surrounds an imported model's layers: normalisation, missing values, output transform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cellkeeper_service.model.config import Missing, Normalization, Transform
from cellkeeper_service.model.feedback import Sources
from cellkeeper_service.model.fields import Fields
from cellkeeper_service.model.missing import as_numbers
from cellkeeper_service.model.parsing import parse_missing, parse_normalization, parse_transform
from cellkeeper_service.model.schema import DEFINITIONS, Schema

from .proof import Source, run_whole
from .reference import Float64Run, apply
from .refusal import ImportRefused
from .scalers import feature_names_of, is_scaler, read_scaler
from .stack import Array, Convert, Mask, Normalize, Stack


@dataclass(frozen=True)
class Processing:
    """Processing as in config.json, with inputs and outputs in the user's units.

    The model itself gets the result of `normalization`, and its own result goes through `output`.
    """

    normalization: Normalization | None = None
    missing: Missing = field(default_factory=Missing)
    output: tuple[Transform, ...] = ()
    feedback: Sources | None = None  # not checked here: that needs the model's widths
    feature_names: tuple[str, ...] = ()
    mask_value: float | None = None  # what a missing value becomes after the normalization, in a model with a mask

    def masking(self, stack: Stack) -> Processing:
        """Returns the processing for a stack that may begin with a mask.

        A mask compares exactly, and a raw value that the scaling turns into exactly the mask's value need not exist.
        Therefore the value that stands for a missing one becomes the mask's value without arithmetic.
        """
        first: Any = stack.layers[0] if stack.layers else None
        if self.normalization is None or self.missing.policy != "constant" or not isinstance(first, Mask):
            return self
        return replace(self, mask_value=first.value)

    @property
    def normalize(self) -> Normalize | None:
        """The normalization as a layer, if there is one."""
        if self.normalization is None:
            return None
        stand_ins = None if self.mask_value is None else (self.missing.value, self.mask_value)
        offset, scale = as_numbers(self.normalization.offset), as_numbers(self.normalization.scale)
        return Normalize("normalization", offset, scale, stand_ins)

    def around(self, stack: Stack) -> Stack:
        """Returns the stack with the processing as further layers."""
        before = () if self.normalize is None else (self.normalize,)
        after = tuple(_convert(transform, f"output[{i}]") for i, transform in enumerate(self.output))
        sources: tuple[tuple[int, ...], ...] = ()
        if not stack.chain:
            shift, end = len(before), len(before) + len(stack.layers)
            moved = [tuple(source + shift for source in taken) for taken in stack.sources]
            sources = (*((i - 1,) for i in range(shift)), *moved, *((end + i - 1,) for i in range(len(after))))
        return replace(stack, layers=(*before, *stack.layers, *after), missing=self.missing, sources=sources)


def _convert(transform: Transform, place: str) -> Convert:
    """Converts arrays to Python numbers. Raises ImportRefused for non-finite values."""
    if transform.value is None:
        return Convert(place, transform)
    numbers = as_numbers(transform.value)
    if numbers.dtype.kind not in "fiub" or not np.isfinite(numbers).all():
        raise ImportRefused(place, f"value: got {transform.value!r}, expected finite numbers, without missing values")
    return Convert(place, replace(transform, value=_python(numbers)))


def _python(numbers: Array) -> Any:
    """Returns a float, or a tuple of them for an array."""
    values = numbers.astype(float).tolist()
    return tuple(values) if isinstance(values, list) else values


def checked(
    normalization: object, missing: object, output: object, feature_names: object = None, file: str = ""
) -> Processing:
    """Checks the arguments of an import, and converts scalers. Raises ImportRefused for wrong types.

    file: where scalers come from, for errors, such as "processing.json: ".
    """
    names: tuple[str, ...] = ()
    if is_scaler(normalization):
        fitted = read_scaler(normalization, f"{file}normalization")
        normalization, names = fitted.normalization(), fitted.names
    if normalization is not None and not isinstance(normalization, Normalization):
        expected = "Normalization(offset, scale), the result of fit_normalization, or a fitted scaler"
        raise ImportRefused("normalization", f"got {type(normalization).__name__}, expected {expected}")
    if missing is not None and not isinstance(missing, Missing):
        raise ImportRefused(
            "missing", f"got {type(missing).__name__}, expected Missing(policy, value) of cellkeeper_service.converters"
        )
    missing = Missing() if missing is None else _plain(missing)
    if is_scaler(output):
        output = read_scaler(output, f"{file}output").inverse()
    transforms = tuple(output) if isinstance(output, Sequence) else (output,)
    for number, transform in enumerate(transforms):
        if not isinstance(transform, Transform):
            expected = "a list of Transform(op, value), the result of fit_output, or a fitted scaler of the targets"
            raise ImportRefused(f"output[{number}]", f"got {type(transform).__name__}, expected {expected}")
    return Processing(normalization, missing, transforms, None, _same_names(names, feature_names))


def _plain(missing: Missing) -> Missing:
    """Converts an array of values, such as a scaler's means, to Python numbers. Raises ImportRefused."""
    if isinstance(missing.value, int | float):
        return missing
    values = as_numbers(missing.value)
    if values.dtype.kind not in "fiu" or values.ndim > 1 or not np.isfinite(values).all():
        expected = "a finite number, or one for each feature, in one dimension"
        raise ImportRefused("missing", f"value: got {missing.value!r}, expected {expected}")
    return replace(missing, value=_python(values))


def _same_names(fitted: tuple[str, ...], given: object) -> tuple[str, ...]:
    if given is None:
        return fitted
    names = feature_names_of(given)
    if fitted and names != fitted:
        raise ImportRefused(
            "feature_names", f"got {list(names)}, expected those that the scaler was fitted on: {list(fitted)}"
        )
    return names


_SCHEMA: Schema = {
    "properties": {**DEFINITIONS["lstm"]["properties"], **DEFINITIONS["features"]["properties"]},
    "required": [],
}
"""Of the keys that `parse_processing` reads."""


def parse_processing(value: object, place: str) -> Processing:
    """Parses an object with the keys normalization, missing, output, feedback and feature_names, as in config.json.
    normalization and output may be scalers (scalers.py). Raises StartError."""
    fields = Fields(value, place, _SCHEMA)
    normalization = fields.any("normalization", "an object or null")
    if normalization is not None and not is_scaler(normalization):
        scaling = Fields(normalization, fields.place("normalization"), DEFINITIONS["normalization"])
        normalization = parse_normalization(scaling, _length(normalization, "offset"))
    gaps = fields.any("missing", "an object", {"policy": "reject"})
    missing = parse_missing(Fields({"missing": gaps}, place, _SCHEMA), _length(gaps, "value"))
    output = fields.any("output", "a list or a scaler")
    if not is_scaler(output):
        items = Fields({"output": output}, place, _SCHEMA).items("output")
        steps = [Fields(item, fields.place(f"output[{i}]"), DEFINITIONS["transform"]) for i, item in enumerate(items)]
        output = [parse_transform(step, _length(item, "value")) for step, item in zip(steps, items, strict=True)]
    names = fields.items("feature_names") or None
    feedback = fields.any("feedback", "a list or a string", None)
    fields.done()
    return replace(checked(normalization, missing, output, names, f"{place}: "), feedback=feedback)


def _length(item: object, key: str) -> int:
    """Returns the length of the list under the key; 1 if there is none. The model's widths are not known yet."""
    value = item.get(key) if isinstance(item, dict) else None
    return len(value) if isinstance(value, list) else 1


class Processed:
    """A source with the processing around it: the reference for the served model."""

    def __init__(self, source: Source, processing: Processing) -> None:
        self.name, self.windowed = source.name, source.windowed
        self._source, self._processing = source, processing

    def whole(self, inputs: Array) -> Mapping[str, Array]:
        return self._after(self._source.whole(self._before(inputs)))

    def batch(self, sequences: Sequence[Array]) -> list[Mapping[str, Array]]:
        return [self._after(outputs) for outputs in run_whole(self._source, [*map(self._before, sequences)])]

    def stepped(self, inputs: Array) -> Mapping[str, Array]:
        return self._after(self._source.stepped(self._before(inputs)))

    def _before(self, inputs: Array) -> Array:
        normalize = self._processing.normalize
        if normalize is None:
            return inputs
        return apply(normalize, inputs.astype(np.float64)).astype(np.float32)

    def _after(self, outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        value = np.asarray(outputs["prediction"], np.float64)
        for transform in self._processing.output:
            value = apply(Convert("output", transform), value)
        return {**outputs, "prediction": value}


class Float64Source:
    """Runs the stack itself in float64, if its framework is not available."""

    windowed = False

    def __init__(self, stack: Stack, why: str) -> None:
        self.name = f"its own float64 reference ({why})"
        self._stack = stack

    def whole(self, inputs: Array) -> Mapping[str, Array]:
        run = Float64Run(self._stack)
        return {"prediction": np.stack([run.step(x) for x in inputs])}

    def stepped(self, inputs: Array) -> Mapping[str, Array]:
        return self.whole(inputs)
