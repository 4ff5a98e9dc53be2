"""The help pages as word ids."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor

from examples.pages import load_pages

VOCABULARY = 500  # the last id stands for any other word
OTHER = "<other>"

_WORD = re.compile(r"\w+|[^\w\s]")


class Words(NamedTuple):
    """The text as word ids. names: the words by id. train, held_out: int64 [N]."""

    names: list[str]
    train: Tensor
    held_out: Tensor


def load_words() -> Words:
    parts = [_WORD.findall(text.lower()) for text in load_pages()]
    counts = Counter(parts[0])
    common = sorted(counts, key=lambda word: (-counts[word], word))[: VOCABULARY - 1]
    ids = {word: i for i, word in enumerate(common)}
    return Words(
        [*common, OTHER], *(torch.tensor([ids.get(word, VOCABULARY - 1) for word in words]) for words in parts)
    )


def rows(ids: Tensor, count: int) -> Tensor:
    """Returns the text cut into `count` rows that are read side by side: [N // count, count], time first."""
    return ids[: len(ids) // count * count].reshape(count, -1).T
