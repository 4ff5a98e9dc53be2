"""The precision of products in a GPU engine. States, sums and everything else are float32."""

from __future__ import annotations

from typing import Literal

from cellkeeper_service.errors import StartError

Precision = Literal["fp32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16")


def read_precision(word: str) -> Precision:
    """Returns the precision that the word names. Raises StartError for any other word."""
    for precision in PRECISIONS:
        if word == precision:
            return precision
    raise StartError(f"precision: got {word}, expected {', '.join(PRECISIONS)}")
