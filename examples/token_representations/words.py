"""The help pages as word ids."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from examples.pages import load_pages

VOCABULARY = 500  # the last id stands for any other word
OTHER = "<other>"

_NAMES_FILE = "vocabulary.txt"
_WORD = re.compile(r"\w+|[^\w\s]")


class Words(NamedTuple):
    """The text as word ids. names: the words by id. train, held_out: int64 [N]."""

    names: list[str]
    train: Tensor
    held_out: Tensor


def load_words(names: Sequence[str] | None = None) -> Words:
    """names: the words of a model that was trained before; None: the most common ones of the training text."""
    parts = [_WORD.findall(text.lower()) for text in load_pages()]
    if names is None:
        counts = Counter(parts[0])
        names = [*sorted(counts, key=lambda word: (-counts[word], word))[: VOCABULARY - 1], OTHER]
    ids = {word: i for i, word in enumerate(names)}
    return Words(list(names), *(torch.tensor([ids.get(word, VOCABULARY - 1) for word in words]) for words in parts))


def read_names(folder: Path) -> list[str]:
    return (folder / _NAMES_FILE).read_text(encoding="utf-8").splitlines()


def write_names(folder: Path, names: Sequence[str]) -> None:
    (folder / _NAMES_FILE).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def rows(ids: Tensor, count: int) -> Tensor:
    """Returns the text cut into `count` rows that are read side by side: [N // count, count], time first."""
    return ids[: len(ids) // count * count].reshape(count, -1).T
