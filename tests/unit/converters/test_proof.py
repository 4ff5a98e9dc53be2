"""The proof at import reports a source that differs: for which inputs, from which time step, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from cellkeeper_service.converters.parity import Parity, compare
from cellkeeper_service.converters.proof import (
    LENGTHS,
    SEQUENCES,
    SIZES,
    STEPS,
    Drawn,
    measure,
    served_ways,
    small,
    trials,
)
from cellkeeper_service.domain.engine import Array, Engine
from cellkeeper_service.engine.load import load_engine, offline
from cellkeeper_service.model.bundle import Bundle, read_bundle

from testing.bundles import make_bundle

Change = Callable[[Array, Array], Array]  # (inputs [T, F], outputs [T, units]) -> outputs


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return read_bundle(make_bundle(tmp_path_factory.mktemp("proof") / "m"))


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return load_engine(bundle, "cpu", 4)


class Changed:
    """A source that gives the bundle's offline outputs, with a change."""

    name = "a source"

    def __init__(self, engine: Engine, change: Change, windowed: bool) -> None:
        self._engine, self._change, self.windowed = engine, change, windowed

    def whole(self, inputs: Array) -> Mapping[str, Array]:
        return {"prediction": self._change(inputs, offline(self._engine, inputs)["prediction"])}

    def stepped(self, inputs: Array) -> Mapping[str, Array]:
        return self.whole(inputs)


def proved(bundle: Bundle, engine: Engine, change: Change, windowed: bool = False) -> Parity:
    draw = np.random.default_rng(3)
    features = engine.spec.input.shape[0]
    drawn = [draw.standard_normal((STEPS, features)).astype(np.float32) for _ in range(SEQUENCES)]
    return compare(bundle, Changed(engine, change, windowed), Drawn(drawn), 4)


def where(inside: Callable[[Array], bool], step: int = 0) -> Change:
    """Changes the output from `step` on, for inputs inside a region."""

    def change(inputs: Array, outputs: Array) -> Array:
        changed = outputs.copy()
        if inside(inputs):
            changed[step:] += 1.0
        return changed

    return change


def size(inputs: Array) -> float:
    return float(np.abs(inputs).max())


def chaotic(inputs: Array, outputs: Array) -> Array:
    """Adds a logistic map, which doubles the rounding error of where it begins at nearly every time step."""
    values = [abs(float(inputs[0, 0])) % 1.0]
    while len(values) < len(outputs):
        values.append(3.9 * values[-1] * (1.0 - values[-1]))
    return np.asarray(outputs + np.asarray(values, outputs.dtype)[:, None])


def last_digit_of_large(inputs: Array, outputs: Array) -> Array:
    """Depends on the last digit of inputs 1,000 times as large only."""
    if size(inputs) < 500:
        return outputs
    odd = inputs.view(np.uint32)[:, :1] % 2
    return np.asarray(outputs * (1 + 0.01 * odd), outputs.dtype)


DRAW = np.random.default_rng(9)
DIFFERENT: dict[str, tuple[Change, str]] = {
    "large": (
        where(lambda x: size(x) > 500),
        "for inputs 1,000 times as large, 1 time steps, step by step",
    ),
    "not a number": (
        lambda x, y: y if size(x) < 500 else np.full_like(y, np.nan),
        "for inputs 1,000 times as large, 1 time steps, step by step",
    ),
    "larger": (where(lambda x: 4.5 < size(x) < 60), "for inputs 10 times as large, 1 time steps, step by step"),
    "tiny": (where(lambda x: 0 < size(x) < 1e-4), "for inputs of a millionth of the size, 1 time steps"),
    "zero": (where(lambda x: size(x) == 0), "for inputs of zero, 1 time steps"),
    "long": (
        where(lambda x: len(x) == 200, 150),
        "ordinary inputs, 200 time steps, step by step, from step 150 on",
    ),
    "short": (where(lambda x: len(x) == 7, 3), "for ordinary inputs, 7 time steps, step by step, from step 3 on"),
    "a zero within": (
        where(lambda x: 0 < size(x) < 5 and bool((x == 0).all(axis=1).any()), 6),
        "for ordinary inputs with time steps of zero, 32 time steps, step by step, from step 6 on",
    ),
    "ahead": (lambda x, y: y + y.mean(axis=0), "it looks ahead: its own output at step 0 changes"),
    "reverse": (lambda x, y: y[::-1], "it looks ahead"),
    "amplifying large ones": (
        last_digit_of_large,
        "on; it amplifies rounding errors of such inputs: its own output changes by",
    ),
    "amplifying": (chaotic, "it amplifies rounding errors: its own output changes by"),
    "random": (lambda x, y: y + DRAW.standard_normal(y.shape), "other values when it is run again: it draws random"),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_differs_is_told(case: str, bundle: Bundle, engine: Engine) -> None:
    change, words = DIFFERENT[case]
    parity = proved(bundle, engine, change)
    assert max(parity.relative, parity.relative_scaled) > 1e-4
    assert words in parity.where


def test_what_agrees_agrees_in_every_size_and_length(bundle: Bundle, engine: Engine) -> None:
    parity = proved(bundle, engine, lambda _, outputs: outputs)
    assert (parity.difference, parity.relative_scaled, parity.where) == (0.0, 0.0, "")
    assert (parity.sequences, parity.steps) == (len(LENGTHS) * len(SIZES) + 2, 200)


def test_a_source_that_cuts_long_sequences_is_told(bundle: Bundle, engine: Engine) -> None:
    change = where(lambda x: len(x) > 1_024, 1_024)
    parity = proved(bundle, engine, change, windowed=True)
    assert parity.relative > 1e-4
    assert f"for ordinary inputs, {SEQUENCES * STEPS} time steps, step by step, from step 1024 on" in parity.where


def test_a_source_that_gives_the_last_step_only_is_compared_there(bundle: Bundle, engine: Engine) -> None:
    def last(change: float) -> Change:
        def only(_: Array, outputs: Array) -> Array:
            kept = np.full_like(outputs, np.nan)
            kept[-1] = outputs[-1] + change
            return kept

        return only

    assert proved(bundle, engine, last(0.0)).difference == 0.0
    assert "1 time steps" in proved(bundle, engine, last(1.0)).where


def test_sessions_are_served_beside_others_and_in_every_way(engine: Engine) -> None:
    draw = np.random.default_rng(4)
    sequences = [draw.standard_normal((32, *engine.spec.input.shape)).astype(np.float32) for _ in range(7)]
    expected = [offline(engine, inputs)["prediction"] for inputs in sequences]
    ways = dict(served_ways(engine, sequences))
    assert list(ways) == ["step by step", "in chunks", "whole"]
    for results in ways.values():
        for result, values in zip(results, expected, strict=True):
            np.testing.assert_array_equal(result["prediction"], values)


def test_token_ids_have_one_size() -> None:
    ids = [np.arange(STEPS, dtype=np.int32)] * SEQUENCES
    assert [trial.length for trial in trials(Drawn(ids))] == list(LENGTHS)


def test_rounding_of_small_outputs_is_no_difference() -> None:
    draw = np.random.default_rng(5)
    tried = trials(Drawn([draw.standard_normal((STEPS, 2)).astype(np.float32) for _ in range(SEQUENCES)]))
    least = small(tried, [{"prediction": trial.inputs} for trial in tried])["prediction"]
    ordinary = max(np.abs(trial.inputs).max() for trial in tried if trial.what == "ordinary inputs")
    for gap, relative in ((0.9e-6, 0.9e-4), (1.1e-6, 1.1e-4)):  # of ordinary outputs
        came = measure(np.array([[gap * ordinary]]), np.array([[1e-20]]), 1e-4, least)
        assert came.relative == pytest.approx(relative)


def test_nothing_is_compared_where_the_source_overflows() -> None:
    expected = np.array([[1.0], [2.0], [np.inf], [3.0]])
    assert measure(np.array([[1.0], [2.0], [7.0], [7.0]]), expected, 1e-4).absolute == 0.0
    assert measure(np.array([[1.0], [3.0], [7.0], [7.0]]), expected, 1e-4).step == 1
    assert measure(np.array([[1.0], [np.nan], [7.0], [7.0]]), expected, 1e-4).relative == np.inf
    assert measure(np.zeros((4, 1)), np.full((4, 1), np.nan), 1e-4).relative == np.inf
    assert measure(np.zeros((3, 1)), np.zeros((4, 1)), 1e-4).relative == np.inf
