"""python -m examples.recipes.keras_two_inputs: a functional Keras model with two inputs for each time step.

Readings and words each have a branch; with `trace=True` Keras exports one time step of both. A session's step is a dict
with the names of the Input layers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from cellkeeper_service.converters import Imported, import_keras

from .compare import Recipe, main

STEPS, WORDS = 60, 12


def model() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")  # the backend that can be traced
    import keras
    from keras import layers as L

    keras.utils.set_random_seed(0)
    readings, words = keras.Input((None, 3), name="readings"), keras.Input((None,), dtype="int32", name="words")
    felt = L.LSTM(16, return_sequences=True)(L.LayerNormalization()(readings))
    read = L.GRU(8, return_sequences=True)(L.Embedding(WORDS, 8)(words))
    joined = L.Concatenate()([felt, read])
    gated = L.Multiply()([L.Dense(8, activation="sigmoid")(joined), L.Dense(8, activation="gelu")(joined)])
    return keras.Model([readings, words], L.Dense(2)(gated))


def recipe() -> Recipe:
    made, draw = model(), np.random.default_rng(0)
    readings = draw.standard_normal((STEPS, 3)).astype(np.float32)
    words = draw.integers(0, WORDS, STEPS)

    def into(folder: Path) -> Imported:
        return import_keras(made, folder, trace=True)

    expected = np.asarray(made([readings[None], words[None]], training=False).detach())[0]
    samples = [{"readings": row, "words": word} for row, word in zip(readings, words.tolist(), strict=True)]
    return Recipe("keras_two_inputs", into, samples, expected)


if __name__ == "__main__":
    main(recipe())
