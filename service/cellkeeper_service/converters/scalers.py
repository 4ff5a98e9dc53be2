"""Converts fitted scalers to a bundle's normalisation and output transform.

Accepts scikit-learn's StandardScaler, MinMaxScaler, RobustScaler and MaxAbsScaler, and a Pipeline or a
ColumnTransformer of these. They are recognised by class name and fitted attributes, so scikit-learn need not be
installed. Also accepts plain dicts with the key "type": {"type": "standard", "mean": [...], "scale": [...]}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellkeeper_service.model.config import Normalization, Transform

from .refusal import ImportRefused

Numbers = NDArray[np.float64]
KINDS = ("StandardScaler", "MinMaxScaler", "RobustScaler", "MaxAbsScaler", "Pipeline", "ColumnTransformer")
BENDING = ("PowerTransformer", "QuantileTransformer")
_SWITCHES = {  # whether it scales, whether it subtracts, and what
    "StandardScaler": ("with_std", "with_mean", "mean_"),
    "RobustScaler": ("with_scaling", "with_centering", "center_"),
}
DICTS: dict[str, tuple[str, ...]] = {
    "standard": ("mean", "scale"),
    "min_max": ("data_min", "data_max", "feature_range"),
    "robust": ("center", "scale"),
}


@dataclass(frozen=True)
class Fitted:
    """x * factor + shift, column by column: [F] each.

    names: of the columns; empty if they have none. order: the index of each column among the scaler's inputs; empty if
    it takes all of them in order.
    """

    factor: Numbers
    shift: Numbers
    names: tuple[str, ...] = ()
    order: tuple[int, ...] = ()

    @property
    def taken(self) -> tuple[int, ...]:
        return self.order or tuple(range(self.factor.size))

    def normalization(self) -> Normalization:
        """Returns the same as (x - offset) / scale."""
        return Normalization(tuple((-self.shift / self.factor).tolist()), tuple((1.0 / self.factor).tolist()))

    def inverse(self) -> tuple[Transform, ...]:
        """Returns the transforms back to the units in which the scaler was fitted."""
        back = self.normalization()
        return Transform("scale", back.scale), Transform("offset", back.offset)


def is_scaler(value: object) -> bool:
    """Returns True for a scikit-learn scaler, or a dict with a type."""
    if isinstance(value, Mapping):
        return "type" in value
    return hasattr(value, "fit") and hasattr(value, "transform")


def read_scaler(value: Any, place: str) -> Fitted:
    """Returns a fitted scaler. Raises ImportRefused if it is not fitted, or not linear in each column."""
    fitted = _from_dict(value, place) if isinstance(value, Mapping) else _from_object(value, place)
    finite = np.isfinite(fitted.factor).all() and np.isfinite(fitted.shift).all()
    if fitted.factor.ndim != 1 or fitted.factor.shape != fitted.shift.shape or not finite or (fitted.factor == 0).any():
        raise ImportRefused(
            place,
            "expected finite numbers, one for each feature, and scales that are not 0; fit it on data without NaN",
        )
    return fitted


def _from_dict(value: Mapping[str, Any], place: str) -> Fitted:
    kind = value.get("type")
    expected = DICTS.get(kind) if isinstance(kind, str) else None
    if expected is None:
        raise ImportRefused(place, f"type: got {str(kind)[:80]!r}, expected one of {', '.join(DICTS)}")
    wrong = sorted(({*expected} - {"feature_range"}) - {*value}) or sorted({*value} - {"type", "features", *expected})
    if wrong:
        raise ImportRefused(place, f"{wrong[0]}: missing or unknown, expected {', '.join(expected)} for {kind}")
    names = _names(value.get("features", ()), place)
    first, second = (_column(value[key], f"{place}: {key}") for key in expected[:2])
    try:
        np.broadcast_shapes(first.shape, second.shape)
    except ValueError as error:
        raise ImportRefused(
            place,
            f"{', '.join(expected[:2])}: got shapes {list(first.shape)} and {list(second.shape)}, expected one number "
            "for each feature in both",
        ) from error
    if kind == "min_max":
        span = np.where(second == first, 1.0, second - first)
        bottom, top = _range(value.get("feature_range", (0.0, 1.0)), place)
        factor = (top - bottom) / span
        return Fitted(factor, bottom - first * factor, names)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Fitted(1.0 / second, -first / second, names)


def _from_object(value: Any, place: str) -> Fitted:
    kind = type(value).__name__
    where = f"{place} ({kind})"
    if kind in BENDING:
        raise ImportRefused(
            where,
            "is not linear, but a bundle's normalization is linear in each column; compute it in the module, and trace "
            "that with an example (docs/models.md, Recipes: a power transform)",
        )
    if kind not in KINDS:
        raise ImportRefused(
            where, f"cannot be written into a bundle, expected one of {', '.join(KINDS)}, linear in each column"
        )
    if kind == "Pipeline":
        return _pipeline(value, where)
    if kind == "ColumnTransformer":
        return _columns(value, where)
    size = int(_fitted(value, "n_features_in_", where))
    names = _names(getattr(value, "feature_names_in_", ()), where)
    if getattr(value, "clip", False):  # MinMaxScaler, and MaxAbsScaler in newer versions
        raise ImportRefused(where, "clip: got True, expected False: a bundle's normalization does not clip")
    if kind == "MinMaxScaler":
        return Fitted(_fitted_column(value, "scale_", where), _fitted_column(value, "min_", where), names)
    with_scale, with_middle, attribute = _SWITCHES.get(kind, ("", "", ""))
    scale, middle = np.ones(size), np.zeros(size)
    if getattr(value, with_scale, True):
        scale = _fitted_column(value, "scale_", where)
    if attribute and getattr(value, with_middle, True):
        middle = _fitted_column(value, attribute, where)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Fitted(1.0 / scale, -middle / scale, names)


def _pipeline(value: Any, where: str) -> Fitted:
    steps = [(name, step) for name, step in value.steps if step not in (None, "passthrough")]
    if not steps:
        raise ImportRefused(where, "has no steps, expected scalers")
    parts = [read_scaler(step, f"{where}: {name}") for name, step in steps]
    whole = parts[0]
    for (name, _), part in zip(steps[1:], parts[1:], strict=True):
        taken = list(part.taken)
        if max(taken) >= whole.factor.size or (not part.order and len(taken) != whole.factor.size):
            raise ImportRefused(f"{where}: {name}", f"got {len(taken)} columns, expected {whole.factor.size}")
        factor, shift = whole.factor[taken] * part.factor, whole.shift[taken] * part.factor + part.shift
        names = tuple(whole.names[at] for at in taken) if whole.names else ()
        whole = Fitted(factor, shift, names, tuple(whole.taken[at] for at in taken))
    return _told_apart(whole, where)


def _told_apart(fitted: Fitted, where: str) -> Fitted:
    """Returns the scaler. Raises ImportRefused if it is ambiguous which feature is which."""
    order = list(fitted.taken)
    if len(set(order)) < len(order):
        raise ImportRefused(
            where,
            f"returns the columns {order}, some of them twice, expected each once: a session's time step has one value "
            "for each feature; remove the copies, or make them in the model",
        )
    if order != sorted(order) and not fitted.names:
        raise ImportRefused(
            where,
            f"returns the columns in the order {order}, without names; fit it on a DataFrame, whose names say which "
            "feature is which",
        )
    return fitted


def _columns(value: Any, where: str) -> Fitted:
    """Reads a ColumnTransformer, with the columns in its output order."""
    known = _names(getattr(value, "feature_names_in_", ()), where)
    size = int(_fitted(value, "n_features_in_", where))
    order: list[int] = []
    factors: list[Numbers] = []
    shifts: list[Numbers] = []
    for name, step, columns in _fitted(value, "transformers_", where):
        taken = _indices(columns, known, size, f"{where}: {name}")
        if isinstance(step, str) and step == "drop":
            continue
        part = Fitted(np.ones(len(taken)), np.zeros(len(taken)))
        passed = isinstance(step, str) or (type(step).__name__ == "FunctionTransformer" and step.func is None)
        if not passed and taken:
            part = read_scaler(step, f"{where}: {name}")
        if part.factor.size != len(part.taken) or max(part.taken, default=-1) >= len(taken):
            raise ImportRefused(f"{where}: {name}", f"got {part.factor.size} columns, expected {len(taken)}")
        order += [taken[at] for at in part.taken]
        factors.append(part.factor)
        shifts.append(part.shift)
    if not order:
        raise ImportRefused(where, "returns no columns")
    names = tuple(known[at] for at in order) if known else ()
    return _told_apart(Fitted(np.concatenate(factors), np.concatenate(shifts), names, tuple(order)), where)


def _indices(columns: Any, known: Sequence[str], size: int, where: str) -> list[int]:
    if isinstance(columns, slice) and not any(isinstance(end, str) for end in (columns.start, columns.stop)):
        return list(range(size))[columns]
    if isinstance(columns, str | int | Sequence | np.ndarray):
        chosen = [columns] if isinstance(columns, str | int) else list(columns)
        if len(chosen) == size and all(isinstance(item, bool | np.bool_) for item in chosen):
            return [at for at, taken in enumerate(chosen) if taken]
        if all(isinstance(item, str) and item in known for item in chosen):
            return [known.index(item) for item in chosen]
        if all(isinstance(item, int | np.integer) for item in chosen):
            return [int(item) % size for item in chosen]
    raise ImportRefused(where, f"columns: got {str(columns)[:80]}, expected names or numbers of columns")


def _fitted(value: Any, name: str, where: str) -> Any:
    came = getattr(value, name, None)
    if came is None:
        raise ImportRefused(where, f"is not fitted: it has no {name}; call its fit first")
    return came


def _fitted_column(value: Any, name: str, where: str) -> Numbers:
    return _column(_fitted(value, name, where), f"{where}: {name}")


def _column(value: Any, where: str) -> Numbers:
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise ImportRefused(where, f"got {str(value)[:80]}, expected numbers, one for each feature") from error


def _range(value: Any, place: str) -> tuple[float, float]:
    bounds = _column(value, f"{place}: feature_range")
    if bounds.shape != (2,) or not bounds[0] < bounds[1]:
        raise ImportRefused(f"{place}: feature_range", f"got {str(value)[:80]}, expected two numbers, lower first")
    return float(bounds[0]), float(bounds[1])


def _names(value: Any, where: str) -> tuple[str, ...]:
    names = tuple(value)
    if not all(isinstance(name, str) for name in names):
        raise ImportRefused(where, f"features: got {str(names)[:80]}, expected strings")
    return tuple(str(name) for name in names)


def feature_names_of(value: Any) -> tuple[str, ...]:
    """Returns the names of a DataFrame's columns, or those of a list, an array or an Index. Raises ImportRefused."""
    listed: Callable[[], Any] = getattr(getattr(value, "columns", value), "tolist", lambda: value)
    names = listed()
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ImportRefused(
            "feature_names", f"got {str(names)[:80]}, expected a list of strings, or a DataFrame with such columns"
        )
    return tuple(names)
