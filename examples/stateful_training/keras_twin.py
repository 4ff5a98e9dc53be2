"""The same weights in Keras with stateful=True: Keras 3 on its torch backend."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .model import EMBEDDING_SIZE, HIDDEN_SIZE, CharacterModel
from .text import VOCABULARY, Ids


def keras_installed() -> bool:
    return importlib.util.find_spec("keras") is not None


class KerasTwin:
    """A Keras model that keeps the state of one sequence between calls."""

    def __init__(self, model: CharacterModel) -> None:
        os.environ.setdefault("KERAS_BACKEND", "torch")  # before the import, which is when Keras reads it
        import keras

        weights = {name: value.detach().numpy() for name, value in model.named_parameters()}
        self._lstm: Any = keras.layers.LSTM(HIDDEN_SIZE, stateful=True, return_sequences=True)
        self._model: Any = keras.Sequential(
            [
                keras.Input(batch_shape=(1, None), dtype="int32"),  # stateful: the batch size becomes part of the model
                keras.layers.Embedding(VOCABULARY, EMBEDDING_SIZE),
                self._lstm,
                keras.layers.Dense(VOCABULARY),
            ]
        )
        self._model.set_weights(
            [
                weights["embedding.weight"],
                weights["rnn.weight_ih_l0"].T,  # the gates have the same order in both: input, forget, cell, output
                weights["rnn.weight_hh_l0"].T,
                weights["rnn.bias_ih_l0"] + weights["rnn.bias_hh_l0"],  # PyTorch has two, which it adds
                weights["head.weight"].T,
                weights["head.bias"],
            ]
        )

    def step(self, ids: Ids) -> NDArray[np.float32]:
        """Takes the next characters, [T] -> logits [T, vocabulary]."""
        logits = self._model(ids.reshape(1, -1).astype(np.int32))
        return np.asarray(logits[0].detach().numpy(), np.float32)

    def reset(self) -> None:
        self._lstm.reset_states()
