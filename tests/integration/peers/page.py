"""The table of cases as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from .cases import Case


@dataclass(frozen=True)
class Row:
    """triton, ours: the answers to each of the case's requests."""

    case: Case
    triton: list[str]
    ours: list[str]


def page(rows: Sequence[Row], versions: Mapping[str, str], features: int) -> str:
    parts = [
        f"""# The same requests to Triton and to Cellkeeper

Written by `make triton-cases`, which starts a real Triton server and a `cellkeeper-server --kserve on` with the same
LSTM ({features} features, FP32) and sends both the same requests, one case after another, each with sequence ids of
its own. An answer is the status code and its text, or the output's shape and the time step of the sequence that it
belongs to; outputs are compared bit for bit with an offline run. The target fails where answers differ and the table
does not say why they may. What the service is for: [triton.md](triton.md).

Versions: {", ".join(f"{name} {value}" for name, value in versions.items())}.
"""
    ]
    for group, members in groupby(rows, lambda row: row.case.group):
        parts.append(f"\n## {group.capitalize()}\n\n| requests | Triton | Cellkeeper |\n|---|---|---|\n")
        for row in members:
            asked = _cell([ask.says for ask in row.case.asks])
            if row.triton == row.ours:
                parts.append(f"| {asked} | {_cell(row.triton)} | the same |\n")
                continue
            why = f" ({row.case.differs})" if row.case.differs else " **differs**"
            parts.append(f"| {asked} | {_cell(row.triton)} | {_cell(row.ours)}{why} |\n")
    return "".join(parts)


def _cell(texts: Sequence[str]) -> str:
    """Numbers the texts if there are several."""
    escaped = [text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ") for text in texts]
    if len(escaped) == 1:
        return escaped[0]
    return "<br>".join(f"{number}. {text}" for number, text in enumerate(escaped, 1))
