"""Classes of a user's own that have the names of Keras' classes are not read as Keras' own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cellkeeper_service.converters import import_keras

from .leftovers import refused

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")]  # Keras' own


def doubled(base: Any, words: dict[str, Any], keras: Any, register: bool) -> Any:
    """Returns a layer of a class with the name of `base`, whose values are twice those of Keras."""

    def call(self: Any, *given: Any, **more: Any) -> Any:
        returned = base.call(self, *given, **more)
        return (returned[0] * 2, returned[1]) if isinstance(returned, tuple) else returned * 2

    call.__signature__ = inspect.signature(base.call)  # type: ignore[attr-defined]
    kind: Any = type(base.__name__, (base,), {"call": call, "__module__": "__main__"})
    return (keras.saving.register_keras_serializable("mine")(kind) if register else kind)(**words)


def _dense(keras: Any, register: bool) -> Any:
    return doubled(keras.layers.Dense, {"units": 2}, keras, register)


def _within_time_steps(keras: Any, register: bool) -> Any:
    return keras.layers.TimeDistributed(_dense(keras, register))


def _cell(keras: Any, register: bool) -> Any:
    cell = doubled(keras.layers.GRUCell, {"units": 2}, keras, register)
    return keras.layers.RNN(cell, return_sequences=True)


def _stacked(keras: Any, register: bool) -> Any:
    cell = doubled(keras.layers.GRUCell, {"units": 2}, keras, register)
    return keras.layers.RNN([keras.layers.LSTMCell(2), cell], return_sequences=True)


MADE = {"layer": _dense, "TimeDistributed": _within_time_steps, "cell": _cell, "stacked cells": _stacked}


@pytest.mark.parametrize("register", [True, False], ids=["registered", "of a script"])
@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_a_class_with_the_name_of_one_of_keras(
    keras: Any, made: Callable[[Any, bool], Any], register: bool, tmp_path: Path
) -> None:
    layers = keras.layers
    model = keras.Sequential([keras.Input((None, 3)), layers.LSTM(4, return_sequences=True), made(keras, register)])
    model.save(tmp_path / "m.keras")
    words = r"m\.keras: layer \w+ \(\w+\):.* a class (of __main__|registered as \S+), .*code of a model is not run"
    refused(tmp_path, words, import_keras, tmp_path / "m.keras", tmp_path / "m", **QUICK)


def test_a_model_of_a_class_with_the_name_of_one_of_keras(keras: Any, tmp_path: Path) -> None:
    model: Any = doubled(keras.Sequential, {}, keras, register=True)
    model.add(keras.Input((None, 3)))
    model.add(keras.layers.LSTM(4))
    model.save(tmp_path / "m.keras")
    words = r"m\.keras: a class registered as mine>Sequential, .*code of a model is not run"
    refused(tmp_path, words, import_keras, tmp_path / "m.keras", tmp_path / "m", **QUICK)
