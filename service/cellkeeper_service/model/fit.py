"""Fits the input's normalization and the output's inverse transform from data.

fit_normalization   from inputs, for config.json's input.normalization
fit_output          from targets, for config.json's output
fit_bundle          both, written to a copy of a bundle
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from cellkeeper_service.errors import StartError

from .bundle import Bundle, read_bundle
from .config import Features, Normalization, RecurrentConfig, Transform
from .feedback import Sources
from .missing import as_numbers
from .write import write_bundle

METHODS = ("standard", "min_max", "robust")


def fit_normalization(data: ArrayLike, method: str = "standard") -> Normalization:
    """Fits offset and scale of (x - offset) / scale, feature by feature.

    data: [..., F], any number of sequences and time steps; missing values are ignored: NaN, masked elements, None and
    pandas' NA. method: "standard" (mean and standard deviation), "min_max" (to 0..1), "robust" (median and
    interquartile range). A constant feature gets the scale 1. Raises StartError.
    """
    values = _table(data, "data")
    if method not in METHODS:
        raise StartError(f"method: got {method!r}, expected one of {', '.join(METHODS)}")
    if method == "standard":
        offset, scale = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    elif method == "min_max":
        offset = np.nanmin(values, axis=0)
        scale = np.nanmax(values, axis=0) - offset
    else:
        offset = np.nanmedian(values, axis=0)
        scale = np.nanquantile(values, 0.75, axis=0) - np.nanquantile(values, 0.25, axis=0)
    # the rounding error of a constant feature is not a scale
    still = scale <= 1e-12 * np.maximum(np.abs(offset), 1.0)
    return Normalization(tuple(offset.tolist()), tuple(np.where(still, 1.0, scale).tolist()))


def fit_output(targets: ArrayLike, method: str = "standard", *, log1p: bool = False) -> tuple[Transform, ...]:
    """Fits the inverse transform of a model trained on normalized targets: scale, offset, and expm1 if `log1p`.

    targets: [..., units] in the user's units; with `log1p`, the model was trained on normalized log(1 + targets).
    method: as for `fit_normalization`. Raises StartError.
    """
    values = _table(targets, "targets")
    if log1p:
        if np.nanmin(values) <= -1.0:
            raise StartError(f"targets: got {np.nanmin(values)}, expected more than -1 for log1p")
        values = np.log1p(values)
    numbers = fit_normalization(values, method)
    back = (Transform("scale", numbers.scale), Transform("offset", numbers.offset))
    return (*back, Transform("expm1")) if log1p else back


def fit_bundle(
    source: Path | str,
    folder: Path | str,
    *,
    inputs: ArrayLike | None = None,
    targets: ArrayLike | None = None,
    method: str = "standard",
    log1p: bool = False,
    feedback: Sources | None = None,
) -> Bundle:
    """Writes the bundle `folder`: a copy of the one in `source` with the fitted numbers in its config.json.

    For a model that was trained on data normalized by the same method. inputs: [..., F]; targets: [..., units];
    feedback: as in config.json, for forecasts. Arguments left out change nothing. The copy has another fingerprint, so
    sessions of the source do not continue on it. Raises StartError, and FileExistsError.
    """
    bundle = read_bundle(Path(source))
    config = bundle.config
    if not isinstance(config, RecurrentConfig):
        raise StartError(f"{source}: an ONNX graph, expected a bundle of layers: put the numbers into the graph")
    changed: Mapping[str, object] = {}
    if inputs is not None:
        if not isinstance(config.input, Features):
            raise StartError("inputs: got numbers, expected none for token ids")
        numbers = fit_normalization(inputs, method)
        _same("inputs", len(numbers.offset), config.input.size)
        changed = {"input": replace(config.input, normalization=numbers)}
    if targets is not None:
        output = fit_output(targets, method, log1p=log1p)
        _same("targets", _table(targets, "targets").shape[1], config.output_size)
        changed = {**changed, "output": output}
    if feedback is not None:
        changed = {**changed, "feedback": feedback}
    return write_bundle(Path(folder), replace(config, **changed), bundle.tensors)  # type: ignore[arg-type]


def _table(data: ArrayLike, field: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Returns the data as float64 [N, F], with NaN for missing values. Raises StartError."""
    try:
        numbers = as_numbers(data)
    except (TypeError, ValueError) as error:
        raise StartError(f"{field}: not numbers ({error})") from error
    if numbers.dtype.kind not in "fiub":
        raise StartError(
            f"{field}: not numbers (dtype {numbers.dtype}), expected numbers, with NaN, None or a mask for missing ones"
        )
    values = numbers.astype(np.float64)
    if values.ndim < 2 or values.size == 0:
        raise StartError(f"{field}: got shape {list(values.shape)}, expected [..., features]")
    table = values.reshape(-1, values.shape[-1])
    if np.isinf(table).any() or np.isnan(table).all(axis=0).any():
        raise StartError(
            f"{field}: got an infinity, or a feature without any number, expected numbers and NaN for missing values"
        )
    return table


def _same(field: str, came: int, expected: int) -> None:
    if came != expected:
        raise StartError(f"{field}: got {came} features, expected {expected}")
