"""The README's tables, from the results."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import Any

from examples.report import table


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    streamed = results["streamed"]
    rows = []
    for i, way in enumerate(results["ways"]):
        rows.append(_row(way["name"], way["shape"], way["loss"]))
        if i == 1:
            rows.append(_row("word by word through Cellkeeper (first seed)", "1 x 1", [streamed["loss"]]))
    apart = [
        [f"layer {i + 1}, word by word through Cellkeeper, from PyTorch's 64 x 35", f"{largest:.1e}"]
        for i, largest in enumerate(streamed["apart"])
    ]
    top, last = streamed["hidden is the top layer, same bits"], streamed["state after a chunk, same bits"]
    return {
        "losses": table(["read", "rows x words", "nats a word, by seed", "perplexity"], rows),
        "vectors": table(
            ["vectors", "largest difference"],
            [
                *apart,
                [
                    "output `hidden` of 35 words, top layer word by word",
                    _same(top),
                ],
                [
                    "output `state` after 35 words, each layer word by word",
                    _same(last),
                ],
            ],
        ),
    }


def _row(name: str, shape: str, losses: list[float]) -> list[str]:
    return [
        name,
        shape,
        ", ".join(f"{loss:.3f}" for loss in losses),
        ", ".join(f"{exp(loss):,.1f}" for loss in losses),
    ]


def _same(same: bool) -> str:
    return "none: the same bits" if same else "NOT THE SAME BITS"
