"""The README's tables, from the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from examples.report import table


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    ways: Mapping[str, Sequence[Mapping[str, Any]]] = results["ways"]
    contexts = results["contexts"]
    firsts = [1, *(end + 1 for end in contexts[:-1])]
    spans = [str(end) if first == end else f"{first}-{end}" for first, end in zip(firsts, contexts, strict=True)]
    losses = [
        [way, *(_spread([run[name] for run in runs]) for name in ("reset", "carried"))] for way, runs in ways.items()
    ]
    by_context = [
        [way, *(f"{_mean([run['by_context'][i] for run in runs]):.2f}" for i in range(len(spans)))]
        for way, runs in ways.items()
    ]
    twins = results["twins"]
    cut, reset = twins["cellkeeper, chunks and single steps, same bits"], twins["cellkeeper, after reset, same bits"]
    rows = [
        ["Cellkeeper in 4 chunks, PyTorch in one run", f"{twins['cellkeeper, from torch']:.1e}"],
        [
            "Cellkeeper in 4 chunks, Cellkeeper step by step",
            _same(cut),
        ],
        ["Cellkeeper after `reset`, Cellkeeper at the start", _same(reset)],
    ]
    if "keras, from torch" in twins:
        again = twins["keras, after reset_states, from before"]
        rows += [
            ["Keras `stateful=True` in 4 calls, PyTorch in one run", f"{twins['keras, from torch']:.1e}"],
            ["Keras in 4 calls, Cellkeeper in 4 chunks", f"{twins['keras, from cellkeeper']:.1e}"],
            [
                "Keras after `reset_states`, Keras at the start",
                f"{again:.1e}",
            ],
        ]
    served = twins["served"]
    return {
        "losses": table(["trained with", "read with a reset every 16", "read with carried state"], losses),
        "by_context": table(["characters since the reset", *spans], by_context),
        "twins": table(["logits of the same 200 characters", "largest difference"], rows),
        "served": table(
            ["1,024 characters through a session", "bits per character"],
            [["reset every 16", f"{served['reset']:.2f}"], ["carried", f"{served['carried']:.2f}"]],
        ),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _spread(values: Sequence[float]) -> str:
    return f"{_mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _same(same: bool) -> str:
    return "none: the same bits" if same else "NOT THE SAME BITS"
