"""What makes this process one of several workers: a word that its parent passes, and the pipe that the word names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from cellkeeper_service.logs import one_line

WORKER_FLAG = "--as-worker"
"""Followed by the descriptor of a pipe, on which the worker sends its parent one line: the URL of its metrics, or
FAILED and why it does not start."""
FAILED = "failed: "


def from_parent(words: Sequence[str]) -> tuple[list[str], int | None]:
    """Returns the words without WORKER_FLAG and the pipe after it; None if this process is not a worker."""
    for at, word in enumerate(words[:-1]):
        if word == WORKER_FLAG and words[at + 1].isdecimal():
            return [*words[:at], *words[at + 2 :]], int(words[at + 1])
    return list(words), None


def tell_parent(pipe: int, metrics_url: str) -> None:
    """Sends the URL of a worker's metrics to its parent, and closes the pipe. Called once, or `tell_failure` is."""
    with os.fdopen(pipe, "w") as parent:
        print(metrics_url, file=parent)


def tell_failure(pipe: int, why: str) -> None:
    """Tells the parent why this worker does not start: the parent says once why all of them fail."""
    with suppress(BrokenPipeError), os.fdopen(pipe, "w") as parent:  # the parent was killed
        print(FAILED + one_line(why), file=parent)
