"""What makes this process one of several workers: a word that its parent passes, and the pipe that the word names."""

from __future__ import annotations

import os
from collections.abc import Sequence

WORKER_FLAG = "--as-worker"
"""Followed by the descriptor of a pipe, on which the worker sends its parent one line: the URL of its metrics."""


def from_parent(words: Sequence[str]) -> tuple[list[str], int | None]:
    """Returns the words without WORKER_FLAG and the pipe after it; None if this process is not a worker."""
    for at, word in enumerate(words[:-1]):
        if word == WORKER_FLAG and words[at + 1].isdecimal():
            return [*words[:at], *words[at + 2 :]], int(words[at + 1])
    return list(words), None


def tell_parent(pipe: int, metrics_url: str) -> None:
    """Sends the URL of a worker's metrics to its parent, and closes the pipe. Called once."""
    with os.fdopen(pipe, "w") as parent:
        print(metrics_url, file=parent)
