"""The help pages as character ids."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.pages import load_pages

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
VOCABULARY = len(CHARACTERS) + 1  # the last id stands for any other character

Ids = NDArray[np.int64]

_ID = {character: i for i, character in enumerate(CHARACTERS)}


class Text(NamedTuple):
    """The text as ids: int64 [N] each."""

    train: Tensor
    held_out: Tensor


def encode(text: str) -> Ids:
    """Returns character ids: int64 [N]."""
    return np.array([_ID.get(character, VOCABULARY - 1) for character in text], np.int64)


def load_text() -> Text:
    return Text(*(torch.from_numpy(encode(text)) for text in load_pages()))
